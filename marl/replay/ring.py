"""Ring: the newest steps of B copies, every view stored once, drawn as short sequences.

Row r holds what happened at one step of all copies. Its successor is row r + 1, except where an episode was cut: those
true successors are kept apart. The row after the newest holds the current view alone, so that the newest step has a
successor as well.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

from coordination import tree
from envs.base import View
from marl.batch import Batch

STEP_FIELDS = ("action", "reward", "terminated", "truncated", "hidden", "cost", "factors", "info")
FIRST_FINALS = 64


class Ring:
    """Storage for the steps of B copies.

    Raw rewards are kept; whole numbers are stored in 32 bits and come back in 64, images stay as they are.

    Args:
        capacity: Transitions to keep, over all copies; the oldest are overwritten.

    Raises:
        ValueError: If there is room for less than two steps of every copy, at the first :meth:`add`.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows = 0  # capacity in steps of all copies; known at the first rollout
        self.count = 0  # steps held
        self.head = 0  # row of the current view, after the newest step
        self._data: dict[str, Any] = {}
        self._finals: View | None = None
        self._final_of: Tensor | None = (
            None  # [rows + 1, B] place of each step's true successor, -1 where it is the next
        )
        self._taken: deque[tuple[int, int]] = deque()  # (row, how many finals), oldest first
        self._next_final = 0
        self._saved: dict[str, Any] | None = None  # a state to go on from, once the form of the data is known

    @property
    def num_envs(self) -> int:
        """Copies B."""
        return self._data["reward"].shape[1]

    @property
    def oldest(self) -> int:
        """Row of the oldest step."""
        return (self.head - self.count) % (self.rows + 1)

    def add(self, rollout: Batch) -> Tensor:
        """Store the steps of a rollout, T at most the capacity in steps; returns their rows ``[T]``."""
        steps = rollout.steps
        if not self._data:
            self._allocate(rollout)
            self._restore(rollout)
        if steps > self.rows:
            raise ValueError(f"capacity: must hold a whole rollout of {steps} steps, holds {self.rows}")
        device = rollout.reward.device
        slots = (self.head + torch.arange(steps + 1, device=device)) % (self.rows + 1)
        for name in STEP_FIELDS:
            value = getattr(rollout, name)
            if value is not None and name in self._data:
                tree.map(
                    lambda to, x: to.index_copy_(0, slots[:steps], x[:steps].to(to.dtype)), self._data[name], value
                )
        tree.map(lambda to, x: to.index_copy_(0, slots, x.to(to.dtype)), self._data["view"], rollout.view)
        self._data["start"].index_copy_(0, slots, rollout.start)
        self._add_finals(rollout, slots)
        self.head = int((self.head + steps) % (self.rows + 1))
        self.count = min(self.count + steps, self.rows)
        return slots[:steps]

    def draw(self, row: Tensor, copy: Tensor, length: int = 1) -> Batch:
        """Sequences of ``length`` steps from ``row [M]`` of ``copy [M]`` on, as a Batch ``[L, M]``.

        For single steps, ``view[1]`` is the true successor itself.
        """
        assert self._final_of is not None
        steps = (row + torch.arange(length + 1, device=row.device).unsqueeze(1)) % (self.rows + 1)  # [L + 1, M]
        at = steps * self.num_envs + copy

        def take(x: Tensor, places: Tensor) -> Tensor:
            return _select(x.flatten(0, 1), places.flatten()).unflatten(0, tuple(places.shape))

        fields = {
            name: tree.map(lambda x: take(x, at[:-1]), self._data[name]) for name in STEP_FIELDS if name in self._data
        }
        view = tree.map(lambda x: take(x, at), self._data["view"])
        place = take(self._final_of, at[:-1]).flatten()  # [L * M]
        batch = Batch(view=view, start=take(self._data["start"], at), **fields)
        if self._finals is None:
            return batch
        if length == 1:
            final = tree.map(lambda x: _select(x, place.clamp(min=0)), self._finals)
            successor = tree.where(place >= 0, final, tree.index(view, 1))
            return batch.replace(view=tree.map(lambda x, y: torch.stack([x[0], y]), view, successor))
        kept = torch.arange(place.numel(), device=place.device)
        if place.device.type == "cpu":  # elsewhere counting them would wait for the device
            kept = kept[place >= 0]
        found = place[kept]
        final = tree.map(lambda x: _select(x, found.clamp(min=0)), self._finals)
        if place.device.type != "cpu":
            final = tree.where(found >= 0, final, tree.map(lambda x: x[1:].flatten(0, 1), view))
        return batch.replace(final=final, final_at=kept)

    def _allocate(self, rollout: Batch) -> None:
        copies = rollout.reward.shape[1]
        self.rows = self.capacity // copies
        if self.rows < 2:
            raise ValueError(f"capacity: must hold at least 2 steps of {copies} copies, got {self.capacity}")

        for name in ("view", "start", *STEP_FIELDS):
            value = getattr(rollout, name)
            if value is not None:
                self._data[name] = tree.map(lambda x: _blank(x, self.rows + 1), value)
        device = rollout.reward.device
        self._final_of = torch.full((self.rows + 1, copies), -1, dtype=torch.int32, device=device)

    def _add_finals(self, rollout: Batch, slots: Tensor) -> None:
        assert self._final_of is not None
        self._final_of.index_fill_(0, slots, -1)
        first = self.head  # rows overwritten now free their finals
        span = self.rows + 1
        overwritten = {(first + t) % span for t in range(rollout.steps + 1)}
        while self._taken and self._taken[0][0] in overwritten:
            self._taken.popleft()
        if rollout.final is None or rollout.final_at is None or not len(rollout.final_at):
            return
        many = len(rollout.final_at)
        held = sum(count for _, count in self._taken)
        self._reserve(rollout.final, held + many)
        assert self._finals is not None
        size = self._finals.obs.shape[0]
        places = (self._next_final + torch.arange(many, device=slots.device)) % size
        tree.map(lambda to, x: to.index_copy_(0, places, x.to(to.dtype)), self._finals, rollout.final)
        copies = self.num_envs
        rows = slots[rollout.final_at // copies]
        self._final_of.view(-1).index_copy_(0, rows * copies + rollout.final_at % copies, places.int())
        self._taken.append((int((first + rollout.steps - 1) % span), many))  # freed with the newest of these rows
        self._next_final = int((self._next_final + many) % size)

    def _reserve(self, final: View, needed: int) -> None:
        """Room for ``needed`` finals: doubled when full, those held moved to the front in order."""
        size = 0 if self._finals is None else self._finals.obs.shape[0]
        if needed <= size:
            return
        larger = max(FIRST_FINALS, 1 << (needed - 1).bit_length())
        old, held = self._finals, sum(count for _, count in self._taken)
        self._finals = tree.map(lambda x: _blank(x, larger), final)
        if old is not None and held:
            assert self._final_of is not None
            order = (self._next_final - held + torch.arange(held, device=final.obs.device)) % size
            tree.map(lambda to, x: to[:held].copy_(x.index_select(0, order)), self._finals, old)
            moved = torch.full((size + 1,), -1, dtype=torch.int32, device=final.obs.device)  # the last for -1
            moved[order] = torch.arange(held, dtype=torch.int32, device=final.obs.device)
            self._final_of = moved[self._final_of.long()]
        self._next_final = held

    def state_dict(self) -> dict[str, Any]:
        """Everything held, and where."""
        if not self._data:
            return {"count": 0} if self._saved is None else self._saved
        assert self._final_of is not None
        return {
            "count": self.count,
            "head": self.head,
            "rows": self.rows,
            "data": {name: tree.pack(value) for name, value in self._data.items()},
            "final_of": self._final_of,
            "finals": None if self._finals is None else tree.pack(self._finals),
            "taken": [list(pair) for pair in self._taken],
            "next_final": self._next_final,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly from :meth:`state_dict`, at the next :meth:`add`."""
        self._saved = state if state["count"] else None

    def _restore(self, rollout: Batch) -> None:
        if self._saved is None:
            return
        state, self._saved = self._saved, None
        if state["rows"] != self.rows:
            raise ValueError(
                f"saved replay: expected {self.rows} rows, got {state['rows']}; same capacity and num_envs?"
            )
        self._data = {name: tree.unpack(value, state["data"][name]) for name, value in self._data.items()}
        if state["finals"] is not None:
            many = state["finals"]["obs"].shape[0]
            like = tree.map(lambda x: _blank(x[0], many), rollout.view)
            self._finals = tree.unpack(like, state["finals"])
        assert self._final_of is not None
        self._final_of = state["final_of"].to(self._final_of.device)
        self._taken = deque((int(row), int(count)) for row, count in state["taken"])
        self.count, self.head = int(state["count"]), int(state["head"])
        self._next_final = int(state["next_final"])


def _blank(x: Tensor, rows: int) -> Tensor:
    """Room for ``rows`` entries like those of ``x``."""
    kind = torch.int32 if x.dtype == torch.int64 else x.dtype
    return torch.zeros(rows, *x.shape[1:], dtype=kind, device=x.device)


def _select(x: Tensor, places: Tensor) -> Tensor:
    """Entries of storage as they were."""
    y = x.index_select(0, places)
    return y.long() if y.dtype == torch.int32 else y
