"""Heads: raw network outputs ``[*, N, K]`` as distributions over actions ``[*, N, A]``, group by group.

Discrete components are categorical over their slice of the logits; reals are Gaussian with mean and log standard
deviation from the network, in units of half the action range around its middle. Bounds are kept by clipping what the
environment receives (:meth:`Head.env_action`), so log-probabilities are those of the unclipped Gaussian.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from envs.spaces import ActionSpec
from envs.spec import AgentSpec

LOG_STD = (-5.0, 1.0)  # range of the log standard deviation, in units of half the action range
START_LOG_STD = -0.5  # where it starts, the network's output being near zero
FORBIDDEN = -1e9  # logit of a masked choice: its probability underflows to exactly zero


@dataclass(frozen=True)
class Categorical:
    """One or several categorical components, side by side in the logits.

    Attributes:
        sizes: Choices of each component.
    """

    sizes: tuple[int, ...]

    def log_probs(self, raw: Tensor, mask: Tensor | None) -> list[Tensor]:
        """Normalised log-probabilities of each component, ``[*, N, size]``."""
        logits = raw[..., : sum(self.sizes)]
        if mask is not None:
            logits = torch.where(mask[..., : sum(self.sizes)], logits, FORBIDDEN)
        return [part.log_softmax(-1) for part in logits.split(self.sizes, -1)]

    def sample(self, raw: Tensor, mask: Tensor | None, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Actions and their log-probability; the most likely ones where ``generator`` is None (Gumbel-max)."""
        actions, log_prob = [], []
        for part in self.log_probs(raw, mask):
            noise = 0.0 if generator is None else -torch.empty_like(part).exponential_(generator=generator).log()
            actions.append((part + noise).argmax(-1, keepdim=True))
            log_prob.append(part.gather(-1, actions[-1]))
        return torch.cat(actions, -1), torch.cat(log_prob, -1).sum(-1)

    def evaluate(self, raw: Tensor, action: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log-probability of ``action`` and entropy, ``[*, N]`` each."""
        log_prob: Tensor | float = 0.0
        entropy: Tensor | float = 0.0
        for i, part in enumerate(self.log_probs(raw, mask)):
            log_prob = log_prob + part.gather(-1, action[..., i : i + 1].long()).squeeze(-1)
            entropy = entropy - (part.exp() * part).sum(-1)
        assert isinstance(log_prob, Tensor)
        assert isinstance(entropy, Tensor)
        return log_prob, entropy


class Gaussian:
    """Independent Gaussian components, scaled to the action range where that is finite.

    Args:
        spec: Bounds of the components.
    """

    def __init__(self, spec: ActionSpec) -> None:
        low, high = torch.tensor(spec.low), torch.tensor(spec.high)
        finite = torch.isfinite(low) & torch.isfinite(high)
        self.low, self.high = low, high
        self.middle = torch.where(finite, (low + high) / 2, 0.0)
        self.half = torch.where(finite, (high - low) / 2, 1.0)

    def moments(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation in action units, ``[*, N, A]`` each."""
        mean, log_std = raw[..., : 2 * len(self.low)].chunk(2, -1)
        half = self.half.to(raw)
        log_std = (log_std + START_LOG_STD).clamp(*LOG_STD) + half.log()
        return self.middle.to(raw) + half * mean, log_std

    def sample(self, raw: Tensor, mask: Tensor | None, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Actions and their log-probability; the mean where ``generator`` is None."""
        mean, log_std = self.moments(raw)
        noise = torch.zeros_like(mean) if generator is None else torch.empty_like(mean).normal_(generator=generator)
        log_prob = (-0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)
        return mean + log_std.exp() * noise, log_prob

    def evaluate(self, raw: Tensor, action: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log-probability of ``action`` and entropy, ``[*, N]`` each."""
        mean, log_std = self.moments(raw)
        noise = (action[..., : mean.shape[-1]] - mean) / log_std.exp()
        log_prob = (-0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)
        return log_prob, (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


class Head:
    """The action distribution of every agent of an environment.

    Args:
        agents: Whose actions; groups may differ in kind and number of components.
    """

    def __init__(self, agents: AgentSpec) -> None:
        self.agents = agents
        kinds: list[Categorical | Gaussian | None] = []
        for group in agents.groups:
            spec = group.action
            kinds.append(
                None if spec is None else Categorical(spec.sizes) if spec.kind == "discrete" else Gaussian(spec)
            )
        self._kinds = kinds
        same = len(agents.acting) == len(agents.groups) and len(set(agents.actions)) == 1
        self._only = kinds[0] if same else None
        self._dtype = torch.int64 if agents.discrete else torch.float32

    def sample(
        self, raw: Tensor, mask: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw actions, or take the likeliest where ``generator`` is None.

        Args:
            raw: ``[*, N, K]`` network outputs.
            mask: ``[*, N, K]`` bool: choices allowed; None if all are.
            generator: Source of the draw.

        Returns:
            ``action [*, N, A]``, padded with zeros, and ``log_prob [*, N]``; zero for agents that never act.
        """
        if self._only is not None:
            action, log_prob = self._only.sample(raw, mask, generator)
            return action.to(self._dtype), log_prob
        action = torch.zeros(*raw.shape[:-1], self.agents.action_dim, dtype=self._dtype, device=raw.device)
        log_prob = raw.new_zeros(raw.shape[:-1])
        for group, kind in zip(self.agents.groups, self._kinds, strict=True):
            if kind is not None:
                s = group.slice
                drawn, log_prob[..., s] = kind.sample(
                    raw[..., s, :], None if mask is None else mask[..., s, :], generator
                )
                action[..., s, : drawn.shape[-1]] = drawn.to(self._dtype)
        return action, log_prob

    def evaluate(self, raw: Tensor, action: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log-probability of ``action [*, N, A]`` and entropy, ``[*, N]`` each."""
        if self._only is not None:
            return self._only.evaluate(raw, action, mask)
        log_probs, entropies = [], []
        for group, kind in zip(self.agents.groups, self._kinds, strict=True):
            s = group.slice
            if kind is None:
                both = (raw.new_zeros(*raw.shape[:-2], group.size),) * 2
            else:
                both = kind.evaluate(raw[..., s, :], action[..., s, :], None if mask is None else mask[..., s, :])
            log_probs.append(both[0])
            entropies.append(both[1])
        return torch.cat(log_probs, -1), torch.cat(entropies, -1)

    def env_action(self, action: Tensor) -> Tensor:
        """What the environment receives: reals clipped to their bounds, discrete choices as they are."""
        if self.agents.discrete:
            return action
        clipped = action.clone()
        for group, kind in zip(self.agents.groups, self._kinds, strict=True):
            if isinstance(kind, Gaussian):
                columns = (..., group.slice, slice(0, len(kind.low)))
                clipped[columns] = clipped[columns].clamp(kind.low.to(action), kind.high.to(action))
        return clipped
