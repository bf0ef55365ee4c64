"""Trunk: what policies and critics have in common: views to encodings of all agents, with or without memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coordination import tree
from envs.base import View
from marl.networks.inputs import Inputs
from marl.networks.layers.recurrent import Memory


class Trunk(nn.Module):
    """Inputs, a body that may use the links, and a memory that may be there.

    Args:
        inputs: What is seen of a view.
        body: Module ``(x [*, N, I], view) -> [*, N, H]`` with ``out_dim = H``; one with a ``state_dim`` remembers by
            itself: ``(x, view, hidden [*, N, S], forget [*, N]) -> ([*, N, H], hidden)``.
        memory: What comes after the body; None for none.

    Attributes:
        out_dim: Width of the encodings.
        state_dim: Width S of what each agent remembers; 0 without memory.
    """

    def __init__(self, inputs: Inputs, body: nn.Module, memory: Memory | None = None) -> None:
        super().__init__()
        self.inputs, self.body, self.memory = inputs, body, memory
        own = int(getattr(body, "state_dim", 0))
        if own and memory is not None:
            raise ValueError(f"memory: {type(body).__name__} has a memory of its own; leave memory out")
        self.out_dim: int = int(body.out_dim) if memory is None else memory.out_dim  # type: ignore[arg-type]
        self.state_dim: int = own if memory is None else memory.state_dim

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
            h, hidden = self.body(x, view, hidden, forget)
        else:
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
        if self.memory is not None:
            forget = _forget(view, start)
            forget[1:] |= ~view.alive[:-1]
            h, memories = self.memory.unroll(self.body(self.inputs(view), view), hidden, forget)
            return h, _of_living(memories, view)
        steps = []
        for t in range(view.alive.shape[0]):
            steps.append(self(tree.index(view, t), hidden, start[t]))
            hidden = steps[-1][1]
        return torch.stack([h for h, _ in steps]), torch.stack([memory for _, memory in steps])

    def _remembered(self, view: View, hidden: Tensor | None) -> Tensor:
        return view.obs.new_zeros(*view.alive.shape, self.state_dim) if hidden is None else hidden


def _forget(view: View, start: Tensor | None) -> Tensor:
    """``[*, N]`` bool: who forgets before this view."""
    return ~view.alive if start is None else ~view.alive | start.unsqueeze(-1)


def _of_living(memory: Tensor | None, view: View) -> Tensor:
    """Empty slots remember nothing, so that a newborn begins afresh."""
    assert memory is not None
    return torch.where(view.alive.unsqueeze(-1), memory, 0.0)
