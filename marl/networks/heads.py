"""Head: raw network outputs ``[*, N, K]`` of every agent as actions ``[*, N, A]``, group by group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from envs.spaces import ActionSpec
from envs.spec import AgentSpec
from marl.networks.distributions import Categorical, Deterministic, Distribution, Gaussian, Real, Squashed, Values

Kind = Literal["stochastic", "squashed", "deterministic", "values"]
REALS: dict[str, type[Real]] = {"stochastic": Gaussian, "squashed": Squashed, "deterministic": Deterministic}


class Head(nn.Module):
    """The action distribution of every agent of an environment.

    Attributes:
        epsilon: Chance, for each agent, that a sampled action is a uniformly random one instead; log-probabilities do
            not know of it, so it is for algorithms that use none.
        features_dim: Width D of the widest group's action features.
        real_features: ``[N, D]`` bool: columns of the features that are reals.

    Args:
        agents: Whose actions; groups may differ in kind and number of components.
        kind: ``stochastic`` (categorical, Gaussian) · ``squashed`` (categorical, Gaussian through a tanh) ·
            ``deterministic`` (categorical, tanh) · ``values`` (the outputs are values of discrete choices).

    Raises:
        ValueError: If the kind does not fit an action space.
    """

    epsilon: float = 0.0
    real_features: Tensor

    def __init__(self, agents: AgentSpec, kind: Kind = "stochastic") -> None:
        super().__init__()
        self.agents = agents
        made = [None if group.action is None else _distribution(group.action, kind) for group in agents.groups]
        self.kinds = nn.ModuleList(nn.Identity() if one is None else one for one in made)
        same = len(agents.acting) == len(agents.groups) and len(set(agents.actions)) == 1
        self._only = made[0] if same else None
        self._groups = [(g.slice, one) for g, one in zip(agents.groups, made, strict=True) if one is not None]
        self._dtype = torch.int64 if agents.discrete else torch.float32
        self.features_dim = max((one.features for _, one in self._groups), default=1)
        real = torch.zeros(agents.num_agents, self.features_dim, dtype=torch.bool)
        for where, one in self._groups:
            real[where, : one.features] = isinstance(one, Real)
        self.register_buffer("real_features", real, persistent=False)

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
        action, log_prob = self._sample(raw, mask, generator)
        if generator is None or self.epsilon <= 0:
            return action, log_prob
        anything = self._over_groups(lambda one, r, m: (one.uniform(r, m, generator),), raw, mask, ("A",))[0]
        explore = torch.rand(raw.shape[:-1], generator=generator, device=raw.device) < self.epsilon
        return torch.where(explore.unsqueeze(-1), anything.to(action.dtype), action), log_prob

    def _sample(self, raw: Tensor, mask: Tensor | None, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        action, log_prob = self._over_groups(lambda one, r, m: one.sample(r, m, generator), raw, mask, ("A", ""))
        return action.to(self._dtype), log_prob

    def evaluate(self, raw: Tensor, action: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log-probability of ``action [*, N, A]`` and entropy, ``[*, N]`` each."""
        both = self._over_groups(lambda one, r, m, a: one.evaluate(r, a, m), raw, mask, ("", ""), action)
        return both[0], both[1]

    def encode(self, action: Tensor) -> Tensor:
        """``[*, N, D]`` features of actions, padded with zeros: one-hot choices, reals in units of half their range."""
        return self._over_groups(lambda one, a, m: (one.encode(a),), action, None, ("D",))[0]

    def relax(
        self, raw: Tensor, mask: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features ``[*, N, D]`` of sampled actions that carry gradients; log-probability and entropy, ``[*, N]``."""
        found = self._over_groups(lambda one, r, m: one.relax(r, m, generator), raw, mask, ("D", "", ""))
        return found[0], found[1], found[2]

    def value_of(self, value: Tensor, action: Tensor) -> Tensor:
        """``[*, N]`` value of actions, from the values ``[*, N, K]`` of all choices; components' values add up."""
        return self._over_groups(lambda one, v, m, a: (one.value_of(v, a),), value, None, ("",), action)[0]

    def advantage(self, raw: Tensor, value: Tensor, action: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[*, N]`` value of actions less its mean under the policy: COMA's counterfactual advantage.

        Args:
            raw: ``[*, N, K]`` network outputs.
            value: ``[*, N, K]`` values of all own choices.
            action: ``[*, N, A]`` what was chosen.
            mask: ``[*, N, K]`` bool: choices allowed; None if all are.
        """
        return self._over_groups(lambda one, r, m, v, a: (one.advantage(r, v, a, m),), raw, mask, ("",), value, action)[
            0
        ]

    def set_noise(self, noise: float) -> None:
        """Standard deviation of the exploration noise of deterministic actions, in units of half their range."""
        for _, one in self._groups:
            if isinstance(one, Deterministic):
                one.noise = noise

    def env_action(self, action: Tensor) -> Tensor:
        """What the environment receives: reals clipped to their bounds, discrete choices as they are."""
        if self.agents.discrete:
            return action
        if isinstance(self._only, Real):
            return self._only.clip(action)
        clipped = action.clone()
        for where, one in self._groups:
            if isinstance(one, Real):
                columns = (..., where, slice(0, len(one.low)))
                clipped[columns] = one.clip(clipped[columns])
        return clipped

    def _over_groups(
        self,
        fn: Callable[..., tuple[Tensor, ...]],
        x: Tensor,
        mask: Tensor | None,
        widths: tuple[str, ...],
        *more: Tensor,
    ) -> list[Tensor]:
        """``fn`` of each group's slices of ``x``, ``mask`` and ``more``, side by side; zero for agents that never act.

        ``widths`` says for each result whether it has a last axis of A action components, D features, or none.
        """
        if self._only is not None:
            return list(fn(self._only, x, mask, *more))
        sizes = {"A": self.agents.action_dim, "D": self.features_dim}
        columns: list[list[Tensor]] = [[] for _ in widths]
        for group, one in zip(self.agents.groups, self.kinds, strict=True):
            s = group.slice
            found: tuple[Tensor, ...] = ()
            if isinstance(one, Distribution):
                part = None if mask is None else mask[..., s, :]
                found = fn(one, x[..., s, :], part, *(a[..., s, :] for a in more))
            for i, width in enumerate(widths):
                empty = (*x.shape[:-2], group.size, *((sizes[width],) if width else ()))
                y = found[i] if found else torch.zeros(empty, device=x.device)
                missing = sizes[width] - y.shape[-1] if width else 0
                columns[i].append(nn.functional.pad(y, (0, missing)) if missing else y)
        return [torch.cat(parts, -2 if width else -1) for parts, width in zip(columns, widths, strict=True)]


def _distribution(action: ActionSpec, kind: Kind) -> Distribution:
    if action.kind == "discrete":
        return Values(action) if kind == "values" else Categorical(action)
    if kind == "values":
        raise ValueError(
            "actions: algorithms that compare the values of choices need discrete actions, got reals; "
            "use mappo, maddpg, matd3 or masac"
        )
    return REALS[kind](action)
