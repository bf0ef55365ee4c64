"""Action distributions of one kind of agent: categorical, Gaussian, squashed Gaussian, deterministic, greedy in values.

Each turns raw network outputs ``[*, n, K]`` into actions ``[*, n, A]`` and back. Reals are in units of half the action
range around its middle. *Features* ``[*, n, D]`` are what a Q-critic is shown of an action: one-hot vectors of discrete
choices, reals in those units; :meth:`relax` draws them so that gradients reach the network.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from envs.spaces import ActionSpec

LOG_STD = (-5.0, 1.0)  # range of the log standard deviation, in units of half the action range
START_LOG_STD = -0.5  # where it starts, the network's output being near zero
FORBIDDEN = -1e9  # logit of a masked choice: its probability underflows to exactly zero
LOG_2PI = math.log(2 * math.pi)


class Distribution(nn.Module):
    """What every kind of action distribution can do.

    Args:
        spec: The action space.
    """

    def __init__(self, spec: ActionSpec) -> None:
        super().__init__()
        self.spec = spec
        self.features = spec.features

    def sample(self, raw: Tensor, mask: Tensor | None, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Actions and their log-probability ``[*, n]``; the likeliest ones where ``generator`` is None."""
        raise NotImplementedError

    def uniform(self, raw: Tensor, mask: Tensor | None, generator: torch.Generator) -> Tensor:
        """Actions drawn evenly from all that are allowed."""
        raise NotImplementedError

    def evaluate(self, raw: Tensor, action: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log-probability of ``action`` and entropy, ``[*, n]`` each."""
        raise NotImplementedError

    def encode(self, action: Tensor) -> Tensor:
        """Features of actions."""
        raise NotImplementedError

    def relax(
        self, raw: Tensor, mask: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features of sampled actions that carry gradients, their log-probability and entropy, ``[*, n]`` each."""
        raise NotImplementedError


class Categorical(Distribution):
    """One or several categorical components, side by side in the logits."""

    def __init__(self, spec: ActionSpec) -> None:
        super().__init__(spec)
        self.sizes = spec.sizes

    def log_probs(self, raw: Tensor, mask: Tensor | None) -> list[Tensor]:
        """Normalised log-probabilities of each component, ``[*, n, size]``."""
        return [part.log_softmax(-1) for part in self.masked(raw, mask)]

    def masked(self, raw: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        """The outputs of each component, those of forbidden choices far below all others."""
        width = sum(self.sizes)
        outputs = raw[..., :width]
        if mask is not None:
            outputs = torch.where(mask[..., :width], outputs, FORBIDDEN)
        return outputs.split(self.sizes, -1)

    def sample(self, raw: Tensor, mask: Tensor | None, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """By the Gumbel-max trick."""
        actions, log_prob = [], []
        for part in self.log_probs(raw, mask):
            noise = 0.0 if generator is None else _gumbel(part, generator)
            actions.append((part + noise).argmax(-1, keepdim=True))
            log_prob.append(part.gather(-1, actions[-1]))
        return torch.cat(actions, -1), torch.cat(log_prob, -1).sum(-1)

    def uniform(self, raw: Tensor, mask: Tensor | None, generator: torch.Generator) -> Tensor:
        """Every component on its own."""
        return Categorical.sample(self, torch.zeros_like(raw), mask, generator)[0]

    def evaluate(self, raw: Tensor, action: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sums over the components."""
        log_prob: Tensor | float = 0.0
        entropy: Tensor | float = 0.0
        for i, part in enumerate(self.log_probs(raw, mask)):
            log_prob = log_prob + part.gather(-1, action[..., i : i + 1].long()).squeeze(-1)
            entropy = entropy - (part.exp() * part).sum(-1)
        assert isinstance(log_prob, Tensor)
        assert isinstance(entropy, Tensor)
        return log_prob, entropy

    def encode(self, action: Tensor) -> Tensor:
        """One-hot vectors side by side."""
        columns = [
            (action[..., i : i + 1].long() == torch.arange(size, device=action.device)).float()
            for i, size in enumerate(self.sizes)
        ]
        return torch.cat(columns, -1)

    def relax(
        self, raw: Tensor, mask: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Straight-through Gumbel-softmax at temperature 1 (Jang, Gu and Poole 2017, arXiv:1611.01144).

        Forward one-hot, backward the gradient of the softmax.
        """
        features, log_prob, entropy = [], [], []
        for part in self.log_probs(raw, mask):
            noisy = part if generator is None else part + _gumbel(part, generator)
            soft = noisy.softmax(-1)
            choice = soft.argmax(-1, keepdim=True)
            hard = torch.zeros_like(soft).scatter_(-1, choice, 1.0)
            features.append(hard + soft - soft.detach())
            log_prob.append(part.gather(-1, choice).squeeze(-1))
            entropy.append(-(part.exp() * part).sum(-1))
        return torch.cat(features, -1), torch.stack(log_prob).sum(0), torch.stack(entropy).sum(0)

    def value_of(self, value: Tensor, action: Tensor) -> Tensor:
        """``[*, n]`` value of an action, from those of all choices ``[*, n, K]``: the sum over its components."""
        chosen = [part.gather(-1, action[..., i : i + 1].long()) for i, part in enumerate(self._parts(value))]
        return torch.cat(chosen, -1).sum(-1)

    def advantage(self, raw: Tensor, value: Tensor, action: Tensor, mask: Tensor | None) -> Tensor:
        """``[*, n]`` value of an action less its mean under the distribution, components' values adding up."""
        pairs = zip(self.log_probs(raw, mask), self._parts(value), strict=True)
        mean = torch.stack([(log_prob.exp() * part).sum(-1) for log_prob, part in pairs]).sum(0)
        return self.value_of(value, action) - mean

    def _parts(self, value: Tensor) -> tuple[Tensor, ...]:
        return value[..., : sum(self.sizes)].split(self.sizes, -1)


class Values(Categorical):
    """Outputs that are values of choices, several components' values adding up: the best choice is taken.

    With a generator still the best: exploring is the business of :attr:`~marl.networks.heads.Head.epsilon`.
    """

    def sample(self, raw: Tensor, mask: Tensor | None, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """The best choices; there are no probabilities."""
        action = torch.cat([part.argmax(-1, keepdim=True) for part in self.masked(raw, mask)], -1)
        return action, torch.zeros_like(raw[..., 0])


class Real(Distribution):
    """Bounded or unbounded reals; what all kinds of them share."""

    low: Tensor
    high: Tensor
    middle: Tensor
    half_range: Tensor

    def __init__(self, spec: ActionSpec) -> None:
        super().__init__(spec)
        low, high = torch.tensor(spec.low), torch.tensor(spec.high)
        finite = torch.isfinite(low) & torch.isfinite(high)
        self.bounded = bool(finite.all())
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)
        self.register_buffer("middle", torch.where(finite, (low + high) / 2, 0.0), persistent=False)
        self.register_buffer("half_range", torch.where(finite, (high - low) / 2, 1.0), persistent=False)

    def moments(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation in units of half the range, ``[*, n, A]`` each."""
        mean, log_std = raw[..., : 2 * len(self.low)].chunk(2, -1)
        return mean, (log_std + START_LOG_STD).clamp(*LOG_STD)

    def uniform(self, raw: Tensor, mask: Tensor | None, generator: torch.Generator) -> Tensor:
        """Between the bounds; standard normal where there are none."""
        shape = (*raw.shape[:-1], len(self.low))
        if not self.bounded:
            return torch.randn(shape, generator=generator, device=raw.device)
        unit = torch.empty(shape, device=raw.device).uniform_(-1, 1, generator=generator)
        return self.decode(unit)

    def encode(self, action: Tensor) -> Tensor:
        """Units of half the range."""
        return (action[..., : len(self.low)] - self.middle) / self.half_range

    def decode(self, unit: Tensor) -> Tensor:
        """The inverse of :meth:`encode`."""
        return self.middle + self.half_range * unit

    def clip(self, action: Tensor) -> Tensor:
        """Actions inside the bounds."""
        return action.clamp(self.low, self.high)


class Gaussian(Real):
    """Independent Gaussians; bounds are kept by clipping what the environment receives (:meth:`Head.env_action`).

    Log-probabilities are those of the unclipped Gaussian, in action units.
    """

    def sample(self, raw: Tensor, mask: Tensor | None, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """The mean where ``generator`` is None."""
        mean, log_std = self.moments(raw)
        noise = torch.zeros_like(mean) if generator is None else torch.empty_like(mean).normal_(generator=generator)
        log_prob = (-0.5 * noise.square() - log_std - self.half_range.log() - 0.5 * LOG_2PI).sum(-1)
        return self.decode(mean + log_std.exp() * noise), log_prob

    def evaluate(self, raw: Tensor, action: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """In closed form."""
        mean, log_std = self.moments(raw)
        noise = (self.encode(action) - mean) / log_std.exp()
        log_std = log_std + self.half_range.log()
        log_prob = (-0.5 * noise.square() - log_std - 0.5 * LOG_2PI).sum(-1)
        return log_prob, (log_std + 0.5 * (LOG_2PI + 1)).sum(-1)


class Bounded(Real):
    """Reals that cannot leave their bounds; refused where there are none."""

    def __init__(self, spec: ActionSpec) -> None:
        super().__init__(spec)
        if not self.bounded:
            raise ValueError(
                f"actions: this algorithm needs finite bounds, got {list(spec.low)} to {list(spec.high)}; "
                "use mappo or ippo, or bound the action space"
            )


class Squashed(Bounded):
    """Gaussians through a tanh onto the action range (Haarnoja et al. 2018, arXiv:1801.01290, appendix C).

    Log-probabilities are densities on [-1, 1], so that an entropy target means the same for every range.
    """

    def sample(self, raw: Tensor, mask: Tensor | None, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """The tanh of the mean where ``generator`` is None."""
        unit, log_prob, _ = self.relax(raw, mask, generator)
        return self.decode(unit), log_prob

    def relax(
        self, raw: Tensor, mask: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """By reparametrisation; the entropy is estimated by minus the log-probability."""
        mean, log_std = self.moments(raw)
        noise = torch.zeros_like(mean) if generator is None else torch.empty_like(mean).normal_(generator=generator)
        u = mean + log_std.exp() * noise
        slope = 2 * (math.log(2) - u - nn.functional.softplus(-2 * u))  # log (1 - tanh(u)^2), without cancellation
        log_prob = (-0.5 * noise.square() - log_std - 0.5 * LOG_2PI - slope).sum(-1)
        return u.tanh(), log_prob, -log_prob


class Deterministic(Bounded):
    """One action per state, the tanh of the output; :attr:`noise` is added where a generator is given, then clipped.

    Attributes:
        noise: Standard deviation of the exploration noise, in units of half the range.
    """

    noise: float = 0.0

    def sample(self, raw: Tensor, mask: Tensor | None, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """There are no probabilities."""
        unit = raw[..., : len(self.low)].tanh()
        if generator is not None and self.noise > 0:
            drawn = torch.empty_like(unit).normal_(generator=generator)
            unit = (unit + self.noise * drawn).clamp(-1, 1)
        return self.decode(unit), torch.zeros_like(raw[..., 0])

    def relax(
        self, raw: Tensor, mask: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Without noise."""
        unit, zero = raw[..., : len(self.low)].tanh(), torch.zeros_like(raw[..., 0])
        return unit, zero, zero


def _gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    return -torch.empty_like(like, requires_grad=False).exponential_(generator=generator).log()
