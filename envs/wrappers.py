"""Wrappers that change what the agents of a VectorEnv see: who hears whom, and which observation columns are hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from coordination.names import unknown
from envs.base import Step, VectorEnv, View
from envs.graphs import GraphSetting, GraphSource, columns, part_names
from envs.spec import AgentSpec


class ViewWrapper:
    """A VectorEnv that shows the views of another one changed by :meth:`change`, and is otherwise the same.

    Attributes:
        env: The environment inside.
        agents, num_envs, device: Its own.
    """

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        self.agents: AgentSpec = env.agents
        self.num_envs: int = env.num_envs
        self.device: torch.device = env.device

    @property
    def resume_exact(self) -> bool:
        """Whether the last restored state went on exactly; see :class:`envs.adapters.ParallelVectorEnv`."""
        return getattr(self.env, "resume_exact", True)

    @property
    def lost(self) -> Tensor | None:
        """``[B]`` bool: copies that began a new episode when a state was last restored; None if none can."""
        return getattr(self.env, "lost", None)

    @property
    def counters(self) -> dict[str, Tensor | int]:
        """What has happened so far, by name; see :class:`envs.adapters.ParallelVectorEnv`."""
        return getattr(self.env, "counters", {})

    @property
    def restarts(self) -> int:
        """How often a worker was started again; see :class:`envs.adapters.ParallelVectorEnv`."""
        return getattr(self.env, "restarts", 0)

    @property
    def last_crash(self) -> str | None:
        """What happened to the worker that fell last, or None."""
        return getattr(self.env, "last_crash", None)

    def change(self, view: View) -> View:
        """What the agents see instead of ``view``."""
        return view

    def reset(self, seed: int | None = None) -> View:
        """Start every copy anew."""
        return self.change(self.env.reset(seed))

    def step(self, action: Tensor) -> Step:
        """Advance every copy."""
        return self.changed(self.env.step(action))

    def changed(self, step: Step) -> Step:
        """The step with both views changed."""
        view = self.change(step.view)
        return replace(step, view=view, next_view=view if step.next_view is step.view else self.change(step.next_view))

    def state_dict(self) -> dict[str, Any]:
        """The state of the environment inside; the wrapper has none."""
        return self.env.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> View:
        """Restore :meth:`state_dict`; returns the current view."""
        return self.change(self.env.load_state_dict(state))

    def close(self) -> None:
        """Close the environment inside."""
        self.env.close()


class WithGraph(ViewWrapper):
    """An environment whose agents hear each other over another graph, made by ``graph_source``, without link features.

    Args:
        env: Any VectorEnv.
        graph: One of the settings in :mod:`envs.graphs`.
        seed: Seed of random topologies.
    """

    def __init__(self, env: VectorEnv, graph: GraphSetting, seed: int = 0) -> None:
        super().__init__(env)
        self.graph_source = GraphSource(graph, env, seed)
        self.agents = replace(env.agents, edge_dim=0)

    @property
    def counters(self) -> dict[str, Tensor | int]:
        """Those of the environment inside, and the links this graph has left out."""
        return {**super().counters, **self.graph_source.counters}

    def change(self, view: View) -> View:
        """The view with the graph replaced."""
        return replace(view, graph=self.graph_source(view.obs, view.alive))


class HideColumns(ViewWrapper):
    """An environment some of whose observation columns read zero, so that agents must be told what they cannot see.

    The global state and a graph made of positions are left as they are.

    Args:
        env: Any VectorEnv.
        which: Names of observation parts, or ranges ``[start, stop]`` of columns of every group.

    Raises:
        ValueError: If no group has a named part, or a range lies outside an observation.
    """

    def __init__(self, env: VectorEnv, which: Sequence[str | Sequence[int]]) -> None:
        super().__init__(env)
        agents = env.agents
        seen = torch.ones(agents.num_agents, agents.obs_dim, dtype=torch.bool)
        for item in which:
            if isinstance(item, str) and item not in part_names(agents):
                raise ValueError(unknown("observation part", item, part_names(agents)))
            for group in agents.groups:
                if (found := columns(group, item)) is not None:
                    seen[group.slice, found.start : found.stop] = False
        self._seen = seen.to(env.device)

    def change(self, view: View) -> View:
        """The view with zeros in the hidden columns."""
        return replace(view, obs=view.obs.masked_fill(~self._seen, 0))
