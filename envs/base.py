"""The contract between worlds and learners: View, Step and VectorEnv."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from coordination import tree
from coordination.graph import Graph
from envs.spec import AgentSpec


@tree.struct
class View:
    """What the agents see at one moment.

    Attributes:
        obs: ``[*, N, O]`` flat observations, zero-padded to the widest group.
        alive: ``[*, N]`` bool: slots that hold a living agent.
        graph: Who hears whom.
        state: ``[*, S]`` global state for centralised training, or None.
        action_mask: ``[*, N, K]`` bool: choices allowed, or None if all are.
        acts: ``[*, N]`` bool: who chooses now; None where every living agent of an acting group does.
    """

    obs: Tensor = tree.axes("N O")
    alive: Tensor = tree.axes("N")
    graph: Graph = tree.axes("")
    state: Tensor | None = tree.axes("S", default=None)
    action_mask: Tensor | None = tree.axes("N K", default=None)
    acts: Tensor | None = tree.axes("N", default=None)

    @property
    def acting(self) -> Tensor:
        """``[*, N]`` bool: who chooses now."""
        return self.alive if self.acts is None else self.acts & self.alive


@tree.struct
class Step:
    """What one environment step of B copies returns.

    Attributes:
        view: What to act on next; in copies whose episode ended, the first view of the new one.
        next_view: The true successor, the same object as ``view`` if it differs in no copy. Its ``alive`` still
            holds agents that were truncated, so that they can be bootstrapped.
        reward: ``[B, N]``.
        terminated: ``[B, N]`` bool: the agent's return ends here; nothing is bootstrapped.
        truncated: ``[B, N]`` bool: the agent was cut off; its value is bootstrapped from ``next_view``.
        over: ``[B]`` bool: the copy's episode ended, and ``view`` belongs to a new one.
        cost: ``[B, N]`` for constrained problems, or None.
        factors: ``[B, F]`` factored team reward, or None.
        info: ``[B]`` or ``[B, N]`` tensors named in :attr:`AgentSpec.info`.
        action: ``[B, N, A]`` what was done, where others chose for some agents; None where it is what was given.
    """

    view: View = tree.axes("")
    next_view: View = tree.axes("")
    reward: Tensor = tree.axes("N")
    terminated: Tensor = tree.axes("N")
    truncated: Tensor = tree.axes("N")
    over: Tensor = tree.axes("")
    cost: Tensor | None = tree.axes("N", default=None)
    factors: Tensor | None = tree.axes("F", default=None)
    info: dict[str, Tensor] = tree.axes("", default_factory=dict)
    action: Tensor | None = tree.axes("N A", default=None)


@runtime_checkable
class VectorEnv(Protocol):
    """B copies of an environment stepped together, as tensors, on any device; ended copies restart by themselves."""

    agents: AgentSpec
    num_envs: int
    device: torch.device

    def reset(self, seed: int | None = None) -> View:
        """Start every copy anew; the same seed gives the same episodes."""
        ...

    def step(self, action: Tensor) -> Step:
        """Advance every copy by one step; ``action [B, N, A]``."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly from here: nested dicts of tensors and plain numbers."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> View:
        """Restore :meth:`state_dict` and return the current view."""
        ...

    def close(self) -> None:
        """Free processes and memory."""
        ...


def check_action(action: Tensor, agents: AgentSpec, num_envs: int) -> None:
    """Refuse an action of the wrong shape or dtype, without reading its values.

    Raises:
        ValueError: If ``action`` is not ``[B, N, A]``.
        TypeError: If its dtype does not fit the agents' spaces.
    """
    expected = (num_envs, agents.num_agents, agents.action_dim)
    if tuple(action.shape) != expected:
        raise ValueError(f"action: expected [B, N, A] = {expected}, got {tuple(action.shape)}")
    if action.is_floating_point() == agents.discrete or action.dtype == torch.bool:
        want = "int64" if agents.discrete else "float32"
        raise TypeError(f"action: expected {want}, got {str(action.dtype).removeprefix('torch.')}")
