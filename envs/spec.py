"""AgentSpec: who lives on the one agent axis of an environment, in groups of equal spaces."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from coordination.names import unknown
from envs.spaces import ActionSpec, ObservationSpec


@dataclass(frozen=True)
class Group:
    """Agents with equal spaces and role: one slice of the agent axis.

    Attributes:
        name: Role of these agents.
        start, size: The slice ``start : start + size``.
        observation, action: Their spaces; a passive group has ``action = None`` and never acts.
    """

    name: str
    start: int
    size: int
    observation: ObservationSpec
    action: ActionSpec | None

    @property
    def slice(self) -> slice:
        """Where the group stands on the agent axis."""
        return slice(self.start, self.start + self.size)


@dataclass(frozen=True)
class AgentSpec:
    """Everything a learner must know about the agents of an environment.

    Attributes:
        groups: Groups in order; together they cover the agent axis.
        names: ``[N]`` agent names.
        team: ``[N]`` number of each agent's team; agents of a team win together.
        state_dim: Width S of the global state, or None.
        info: How each info tensor is reduced over an episode: ``mean | sum | last | any``.
        factor_scopes: For factored team rewards, the agents each factor depends on.
        edge_dim: Width D of the features of links, ``View.graph.attr``; 0 where there are none.
        partners: Groups for which somebody else than the learner chooses: its partners and opponents.
    """

    groups: tuple[Group, ...]
    names: tuple[str, ...]
    team: tuple[int, ...] = ()
    state_dim: int | None = None
    info: dict[str, Literal["mean", "sum", "last", "any"]] = field(default_factory=dict)
    factor_scopes: tuple[tuple[int, ...], ...] | None = None
    edge_dim: int = 0
    partners: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        start = 0
        for group in self.groups:
            if group.start != start or group.size < 1:
                raise ValueError(
                    f"group {group.name!r}: expected to start at {start} with at least one agent, got {group}"
                )
            start += group.size
        if start != len(self.names):
            raise ValueError(f"groups cover {start} agents, names {len(self.names)}")
        if not self.team:
            object.__setattr__(self, "team", (0,) * start)
        if len(self.team) != start:
            raise ValueError(f"team: expected {start} numbers, got {len(self.team)}")
        for name in self.partners:
            if name not in (known := [group.name for group in self.acting]):
                raise ValueError(unknown("group", name, known))

    @classmethod
    def single(
        cls, num_agents: int, observation: ObservationSpec, action: ActionSpec, name: str = "agent", **fields
    ) -> AgentSpec:
        """The spec of ``num_agents`` equal agents in one team."""
        names = tuple(f"{name}_{i}" for i in range(num_agents))
        return cls((Group(name, 0, num_agents, observation, action),), names, **fields)

    @property
    def num_agents(self) -> int:
        """Number of agents N, a capacity where agents come and go."""
        return len(self.names)

    @cached_property
    def acting(self) -> tuple[Group, ...]:
        """Groups that choose actions."""
        return tuple(g for g in self.groups if g.action is not None)

    @cached_property
    def actions(self) -> tuple[ActionSpec, ...]:
        """Action specs of the acting groups."""
        return tuple(g.action for g in self.groups if g.action is not None)

    @cached_property
    def learners(self) -> tuple[bool, ...]:
        """For each agent, whether the learner ever chooses for it."""
        learns = [(g.action is not None and g.name not in self.partners, g.size) for g in self.groups]
        return tuple(one for one, size in learns for _ in range(size))

    @cached_property
    def learning_teams(self) -> tuple[int, ...]:
        """Teams in which somebody learns: their rewards make up the return."""
        return tuple(sorted({team for team, learns in zip(self.team, self.learners, strict=True) if learns}))

    @property
    def obs_dim(self) -> int:
        """Widest observation O over all groups; narrower ones are padded with zeros."""
        return max(g.observation.dim for g in self.groups)

    @property
    def action_dim(self) -> int:
        """Most action components A of any group."""
        return max((a.components for a in self.actions), default=1)

    @property
    def logits_dim(self) -> int:
        """Most head outputs K of any group."""
        return max((a.logits for a in self.actions), default=1)

    @property
    def discrete(self) -> bool:
        """Whether every acting group is discrete: actions are then int64, else float32."""
        return all(a.kind == "discrete" for a in self.actions)

    @property
    def num_teams(self) -> int:
        """Number of teams."""
        return max(self.team) + 1

    @cached_property
    def group_of(self) -> np.ndarray:
        """``[N]`` index of each agent's group."""
        return np.repeat(np.arange(len(self.groups)), [g.size for g in self.groups])
