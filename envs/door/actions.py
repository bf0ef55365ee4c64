"""Which actions agents may take: the check of every action before it reaches somebody's environment."""

from __future__ import annotations

import numpy as np

from envs.spec import AgentSpec


class ActionRules:
    """What the actions of agents on one axis must satisfy.

    Args:
        agents: Whose actions.
    """

    def __init__(self, agents: AgentSpec) -> None:
        shape = (agents.num_agents, agents.action_dim)
        self.agents = agents
        self.sizes = np.zeros(shape, np.int64)  # choices of each discrete component; 0 for reals and for padding
        self.first = np.zeros(shape, np.int64)  # column of a component's first choice in the action mask
        self.real = np.zeros(shape, bool)
        for group in agents.groups:
            if group.action is None:
                continue
            if sizes := group.action.sizes:
                self.sizes[group.slice, : len(sizes)] = sizes
                self.first[group.slice, : len(sizes)] = np.cumsum((0, *sizes[:-1]))
            else:
                self.real[group.slice, : group.action.components] = True
        self.discrete = self.sizes > 0

    def check(self, action: np.ndarray, acting: np.ndarray, mask: np.ndarray | None) -> None:
        """Refuse an action that does not exist or is not allowed now; agents that do not act may hold anything.

        Args:
            action: ``[B, N, A]``.
            acting: ``[B, N]`` bool: who chooses.
            mask: ``[B, N, K]`` bool: what is allowed, or None.

        Raises:
            ValueError: If a choice is not one of its component's, is masked, or a real is not finite.
        """
        who = acting[..., None]
        if self.real.any() and (wrong := who & self.real & ~np.isfinite(action)).any():
            copy, agent, at = self._first_of(wrong)
            raise ValueError(f"action of {agent} in copy {copy}: expected finite numbers, got {action[at]}")
        chosen = np.where(who & self.discrete, action, 0)
        choice = np.nan_to_num(chosen, nan=-1.0).astype(np.int64)
        if (wrong := who & self.discrete & ((choice != chosen) | (choice < 0) | (choice >= self.sizes))).any():
            copy, agent, at = self._first_of(wrong)
            most = self.sizes[at[1:]] - 1
            raise ValueError(
                f"action of {agent} in copy {copy}: expected a whole number from 0 to {most}, got {action[at]}"
            )
        if mask is None:
            return
        allowed = np.take_along_axis(mask, self.first + choice, -1)
        if (wrong := who & self.discrete & ~allowed).any():
            copy, agent, at = self._first_of(wrong)
            start = self.first[at[1:]]
            may = np.flatnonzero(mask[at[0], at[1], start : start + self.sizes[at[1:]]])
            some = ", ".join(map(str, may[:8])) + (", ..." if may.size > 8 else "")
            raise ValueError(
                f"action of {agent} in copy {copy}: {choice[at]} is outside its action mask, which allows {some}"
            )

    def _first_of(self, wrong: np.ndarray) -> tuple[int, str, tuple[int, int, int]]:
        copy, agent, component = (int(i) for i in np.argwhere(wrong)[0])
        return copy, repr(self.agents.names[agent]), (copy, agent, component)
