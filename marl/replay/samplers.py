"""Which sequences are drawn from a ring: all alike, or by priority."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from marl.batch import Batch
from marl.replay.ring import Ring
from marl.replay.sumtree import SumTree


class Sample(NamedTuple):
    """Sequences ``[L, M]``, the weight of each ``[M]`` in the loss, and where each came from ``[M]``."""

    batch: Batch
    weight: Tensor
    place: Tensor


class Uniform:
    """Every sequence in the ring is as likely as any other.

    Args:
        capacity: Transitions to keep, over all copies.
        length: Steps L of a sequence.
    """

    def __init__(self, capacity: int, length: int = 1) -> None:
        self.ring, self.length = Ring(capacity), length

    @property
    def ready(self) -> bool:
        """Whether there is a sequence to draw."""
        return self.ring.count >= self.length

    def add(self, rollout: Batch) -> None:
        """Store the steps of a rollout."""
        self.ring.add(rollout)

    def sample(self, size: int, generator: torch.Generator, beta: float = 1.0) -> Sample:
        """``size`` sequences; ``beta`` is for priorities alone."""
        ring, device = self.ring, generator.device
        starts = ring.count - self.length + 1
        which = torch.randint(starts * ring.num_envs, (size,), generator=generator, device=device)
        row = (ring.oldest + which // ring.num_envs) % (ring.rows + 1)
        copy = which % ring.num_envs
        return Sample(ring.draw(row, copy, self.length), torch.ones(size, device=device), row * ring.num_envs + copy)

    def update(self, place: Tensor, error: Tensor) -> None:
        """Nothing is learned from errors."""

    def state_dict(self) -> dict[str, Any]:
        """Everything held."""
        return {"ring": self.ring.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly from :meth:`state_dict`."""
        self.ring.load_state_dict(state["ring"])


class Prioritised(Uniform):
    """Sequences are drawn in proportion to ``(|error| + epsilon)^alpha`` (Schaul et al. 2016, arXiv:1511.05952).

    The weight ``(P N)^-beta``, over the largest of the batch, makes up for it. New sequences get the highest priority
    seen so far, so that each is drawn soon.

    Args:
        capacity: Transitions to keep, over all copies.
        length: Steps L of a sequence.
        alpha: How much priorities count; 0 is uniform.
        epsilon: What is added to every error.
    """

    def __init__(self, capacity: int, length: int = 1, alpha: float = 0.6, epsilon: float = 1e-3) -> None:
        super().__init__(capacity, length)
        self.alpha, self.epsilon = alpha, epsilon
        self.tree: SumTree | None = None
        self.highest = torch.ones(())
        self._saved: dict[str, Any] | None = None

    def add(self, rollout: Batch) -> None:
        """Store the steps of a rollout; sequences that would leave the ring are never drawn."""
        rows = self.ring.add(rollout)
        span, copies = self.ring.rows + 1, self.ring.num_envs
        if self.tree is None:
            self.tree = SumTree(span * copies, rows.device)
            if self._saved is not None:
                self.tree.load_state_dict(self._saved["tree"])
        late = self.length - 1
        whole = min(self.ring.count, rollout.steps + late) - late  # starts that have become whole sequences
        starts = (self.ring.head - late - torch.arange(1, max(whole, 0) + 1, device=rows.device)) % span
        tail = (self.ring.head - late + torch.arange(late + 1, device=rows.device)) % span  # not whole, or no step
        self._set(tail, torch.zeros((), device=rows.device))
        self._set(starts, self.highest)

    def _set(self, rows: Tensor, priority: Tensor) -> None:
        assert self.tree is not None
        copies = self.ring.num_envs
        places = (rows.unsqueeze(1) * copies + torch.arange(copies, device=rows.device)).flatten()
        self.tree.update(places, priority.to(rows.device).expand(places.shape))

    def sample(self, size: int, generator: torch.Generator, beta: float = 1.0) -> Sample:
        """``size`` sequences, one from each of as many equal shares of the total priority.

        Args:
            size: How many.
            generator: Source of the draw.
            beta: How far the bias of priorities is made up for, in [0, 1].
        """
        assert self.tree is not None
        place = self.tree.sample(size, generator)
        copies = self.ring.num_envs
        count = (self.ring.count - self.length + 1) * copies
        chance = self.tree.value(place) / self.tree.total
        weight = (chance * count).clamp(min=1e-12).pow(-beta)
        batch = self.ring.draw(place // copies, place % copies, self.length)
        return Sample(batch, (weight / weight.max()).float(), place)

    def update(self, place: Tensor, error: Tensor) -> None:
        """New priorities of the sequences just drawn, from their absolute errors ``[M]``."""
        assert self.tree is not None
        priority = (error.detach().abs() + self.epsilon).pow(self.alpha)
        self.tree.update(place, priority)
        self.highest = torch.maximum(self.highest.to(priority.device), priority.max())

    def state_dict(self) -> dict[str, Any]:
        """Everything held, priorities included."""
        tree = None if self.tree is None else self.tree.state_dict()
        if tree is None and self._saved is not None:
            return {**super().state_dict(), **self._saved}
        return {**super().state_dict(), "tree": tree, "highest": self.highest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly from :meth:`state_dict`."""
        super().load_state_dict(state)
        self.highest = state["highest"]
        self._saved = {"tree": state["tree"], "highest": self.highest} if state["tree"] is not None else None
