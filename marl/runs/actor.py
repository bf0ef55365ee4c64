"""Actor: a trained policy outside the trainer, acting on views or on PettingZoo's dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from coordination.graph import Graph
from envs.adapters import ParallelVectorEnv
from envs.base import VectorEnv, View
from envs.door.layout import MASK, Layout, flat_mask
from envs.door.vmas import VmasVectorEnv
from envs.native import NativeEnv
from envs.native.parallel import NativeParallel
from envs.wrappers import ViewWrapper
from marl.networks.policy import Policy


class Actor:
    """Acts with a policy; keeps whatever must be remembered between the steps of an episode.

    Args:
        policy: Who acts.
        translator: Reads and writes PettingZoo's dictionaries of this environment.
        generator: Source of sampled actions.
    """

    def __init__(self, policy: Policy, translator: Translator, generator: torch.Generator) -> None:
        self.policy, self.translator, self.generator = policy, translator, generator
        self.hidden: Tensor | None = None

    def reset(self) -> None:
        """Forget the episode so far."""
        self.hidden = None

    @overload
    def act(self, observation: View, infos: None = None, deterministic: bool = True) -> Tensor: ...

    @overload
    def act(
        self, observation: Mapping[Any, Any], infos: Mapping[Any, Any] | None = None, deterministic: bool = True
    ) -> dict[Any, Any]: ...

    @torch.no_grad()
    def act(self, observation, infos=None, deterministic=True):
        """Actions in the form the observation came in.

        Args:
            observation: A View ``[*, N, ...]``, or one PettingZoo environment's observations by agent name.
            infos: PettingZoo's infos, read for action masks.
            deterministic: The likeliest action instead of a sampled one.

        Returns:
            ``[*, N, A]`` for a View, zero for agents that the policy does not play; for a dictionary actions by name,
            as the environment takes them, of the agents that it plays.
        """
        if isinstance(observation, View):
            return self._choose(observation, deterministic)
        action = self._choose(self.translator.view(observation, infos or {}), deterministic)
        return self.translator.actions(action, observation)

    def _choose(self, view: View, deterministic: bool) -> Tensor:
        generator = None if deterministic else self.generator
        action, _, self.hidden = self.policy.act(view, self.hidden, None, generator)
        learns = torch.tensor(self.policy.agents.learners, device=action.device).unsqueeze(-1)
        return torch.where(learns, self.policy.head.env_action(action), 0)


class Translator:
    """Between PettingZoo's dictionaries and tensors on one agent axis, for one environment.

    Args:
        env: The environment as the policy was trained on it, wrappers included.

    Raises:
        ValueError: If its graph changes with states that observations do not show.
    """

    def __init__(self, env: VectorEnv) -> None:
        self.wrappers: list[ViewWrapper] = []
        self.learners = env.agents.learners
        while isinstance(env, ViewWrapper):
            self.wrappers.insert(0, env)
            env = env.env
        if isinstance(env, ParallelVectorEnv | VmasVectorEnv):
            self.layout, self._graph = env.layout, env.graph_source
        elif isinstance(env, NativeEnv):
            self.layout = Layout.of(NativeParallel(env.task))
            graph = env.reset(0).graph
            if graph.topology is None or graph.live is not None:
                raise ValueError("actor: the links of this environment change with its state; act on views instead")
            self._graph = lambda obs, alive: Graph(topology=graph.topology)
        else:
            raise TypeError(f"actor: expected an environment of envs.make, got {type(env).__name__}")

    def view(self, observations: Mapping[Any, Any], infos: Mapping[Any, Any]) -> View:
        """Observations by agent name as a View ``[1, N, ...]``; agents without one are not there."""
        spec = self.layout.agents
        obs = np.zeros((1, spec.num_agents, spec.obs_dim), self.layout.obs_dtype)
        alive = np.zeros((1, spec.num_agents), bool)
        mask = np.ones((1, spec.num_agents, spec.logits_dim), bool) if self.layout.masked else None
        for i, slot in enumerate(self.layout.slots):
            if slot.agent not in observations:
                continue
            seen = observations[slot.agent]
            alive[0, i] = True
            obs[0, i, : slot.obs_dim] = slot.read(seen)
            given = seen[MASK] if slot.mask_in_obs else infos.get(slot.agent, {}).get(MASK)
            if mask is not None and given is not None:
                mask[0, i, : slot.logits] = flat_mask(given, slot.logits, slot.agent)
        tensors = torch.from_numpy(obs), torch.from_numpy(alive)
        view = View(*tensors, self._graph(*tensors), action_mask=None if mask is None else torch.from_numpy(mask))
        for wrapper in self.wrappers:
            view = wrapper.change(view)
        return view

    def actions(self, action: Tensor, observations: Mapping[Any, Any]) -> dict[Any, Any]:
        """Actions ``[1, N, A]`` by name, for the agents that observed something and are played by the policy."""
        rows = action[0].numpy()
        played = zip(self.layout.slots, rows, self.learners, strict=True)
        return {s.agent: s.write(row) for s, row, learns in played if learns and s.agent in observations}
