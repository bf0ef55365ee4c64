"""Trunk: what policies and critics have in common: views to encodings of all agents, with or without memory."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from coordination import tree
from envs.base import View
from marl.networks.inputs import Inputs
from marl.networks.layers.recurrent import Memory


class Remembering(nn.Module, ABC):
    """A body that remembers by itself, and forgets by itself, for those whose slot is empty.

    Attributes:
        out_dim: Width H of the encodings.
        state_dim: Width S of what each agent remembers.
        content_dim: How many of its first columns say something of the episode; the rest is bookkeeping.
    """

    out_dim: int
    state_dim: int
    content_dim: int

    @abstractmethod
    def forward(self, x: Tensor, view: View, hidden: Tensor, forget: Tensor) -> tuple[Tensor, Tensor]:
        """One step: ``x [*, N, I]``, ``hidden [*, N, S]``, ``forget [*, N]`` to ``[*, N, H]`` and the next memory."""

    def initial(
        self, shape: torch.Size | tuple[int, ...], device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor:
        """What is remembered before the first view, ``[*, N, S]`` for ``shape = [*, N]``.

        Args:
            shape: Leading axes, agents last.
            device: Where to.
            generator: Source of the seeds of later draws, for bodies that draw; None for the same ones every time.
        """
        return torch.zeros(*shape, self.state_dim, device=device)

    def traffic(self, hidden: Tensor, alive: Tensor) -> dict[str, Tensor]:
        """What was sent; arguments as in :meth:`Trunk.traffic`."""
        return {}


class Trunk(nn.Module):
    """Inputs, a body that may use the links, and a memory that may be there.

    Args:
        inputs: What is seen of a view.
        body: Module ``(x [*, N, I], view) -> [*, N, H]`` with ``out_dim = H``, or a :class:`Remembering` one.
        memory: What comes after the body; None for none.

    Attributes:
        out_dim: Width of the encodings.
        state_dim: Width S of what each agent remembers; 0 without memory.
        content_dim: How many of its first columns say something of the episode; the rest is bookkeeping.
    """

    def __init__(self, inputs: Inputs, body: nn.Module, memory: Memory | None = None) -> None:
        super().__init__()
        self.inputs, self.body, self.memory = inputs, body, memory
        if self.own is not None and memory is not None:
            raise ValueError("memory: this body remembers by itself; leave memory out")
        self.out_dim: int = int(body.out_dim) if memory is None else memory.out_dim  # type: ignore[arg-type]
        remembers = memory if self.own is None else self.own
        self.state_dim: int = 0 if remembers is None else remembers.state_dim
        self.content_dim: int = self.state_dim if self.own is None else self.own.content_dim

    @property
    def own(self) -> Remembering | None:
        """The body, if it remembers by itself."""
        return self.body if isinstance(self.body, Remembering) else None

    def initial(
        self, shape: torch.Size | tuple[int, ...], device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor:
        """What is remembered before the first view; arguments as in :meth:`Remembering.initial`."""
        if self.own is not None:
            return self.own.initial(shape, device, generator)
        return torch.zeros(*shape, self.state_dim, device=device)

    def traffic(self, hidden: Tensor, alive: Tensor) -> dict[str, Tensor]:
        """What was sent over the links, where it is counted: scalars by name.

        Args:
            hidden: ``[T, *, N, S]`` what was remembered after T steps.
            alive: ``[T, *, N]`` bool: who lived in them.
        """
        return {} if self.own is None else self.own.traffic(hidden, alive)

    def forward(
        self, view: View, hidden: Tensor | None = None, start: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Encodings ``[*, N, H]`` and what is remembered next.

        Args:
            view: What the agents see, ``[*]``.
            hidden: ``[*, N, S]`` what they remember; None for nothing yet.
            start: ``[*]`` bool: where a new episode begins and all is forgotten first; None for nowhere. Empty slots
                forget by themselves, so that a newborn remembers nothing.
        """
        x = self.inputs(view)
        if not self.state_dim:
            return self.body(x, view), None
        hidden, forget = self._remembered(view, hidden), _forget(view, start)
        if self.memory is None:
            return self.body(x, view, hidden, forget)
        h, hidden = self.memory(self.body(x, view), hidden, forget)
        return h, _of_living(hidden, view)

    def unroll(self, view: View, hidden: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encodings and memories of T steps one after another, ``[T, *, N, ...]``.

        Args:
            view: ``[T, *]``.
            hidden: ``[*, N, S]`` what is remembered before the first; None for nothing.
            start: ``[T, *]`` bool, as in :meth:`forward`.
        """
        if not self.state_dim:
            return self(view)
        hidden = self._remembered(tree.index(view, 0), hidden)
        x, forget = self.inputs(view), _forget(view, start)
        if self.memory is not None:
            forget[1:] |= ~view.alive[:-1]
            h, memories = self.memory.unroll(self.body(x, view), hidden, forget)
            return h, _of_living(memories, view)
        outputs, steps = [], []
        for t in range(view.alive.shape[0]):
            h, hidden = self.body(x[t], tree.index(view, t), hidden, forget[t])
            outputs.append(h)
            steps.append(hidden)
        return torch.stack(outputs), torch.stack(steps)

    def _remembered(self, view: View, hidden: Tensor | None) -> Tensor:
        return self.initial(view.alive.shape, view.obs.device) if hidden is None else hidden


def _forget(view: View, start: Tensor | None) -> Tensor:
    """``[*, N]`` bool: who forgets before this view."""
    return ~view.alive if start is None else ~view.alive | start.unsqueeze(-1)


def _of_living(memory: Tensor | None, view: View) -> Tensor:
    """Empty slots remember nothing, so that a newborn begins afresh."""
    assert memory is not None
    return torch.where(view.alive.unsqueeze(-1), memory, 0.0)
