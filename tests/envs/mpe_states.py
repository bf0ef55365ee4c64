"""Play a particle task and its mpe2 counterpart from the same states with the same actions, and compare."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.testing import assert_close

from coordination import tree
from envs.base import View
from envs.native import NativeEnv, Task
from envs.scripted import random_action

TRANSITIONS = 1_000
SPREAD_OUT = (1.0, 1.6, 0.3, 0.1)  # as drawn, far outside, crowded, in a heap
SPEED = (0.0, 2.0, 1.0, 0.3)

logging.getLogger("pettingzoo.utils.env_logger").setLevel(logging.ERROR)  # it warns of every action that it clips

Dress = Callable[[Any, Any, int], None]  # (mpe2 world, our state, copy): sets what a task has beside bodies


def compare(task: Task, theirs: Any, dress: Dress = lambda world, state, copy: None, every_step: bool = False) -> None:
    """Assert that 1,000 random transitions are equal: observations, rewards, ends.

    Three of four copies start from states that an episode would not begin with.

    Args:
        task: Ours.
        theirs: mpe2's, as a parallel environment.
        dress: Puts goals and words into the world of mpe2.
        every_step: Put mpe2's world where ours is before every step, and not at the first alone: where bodies touch,
            rounding errors grow from step to step.
    """
    assert task.horizon is not None
    steps, copies = task.horizon, TRANSITIONS // task.horizon
    ours, generator = NativeEnv(task, copies), torch.Generator().manual_seed(steps)
    ours.reset(seed=1)
    saved = ours.state_dict()
    like = rough(task.initial(generator, copies), generator)
    first = ours.load_state_dict(saved | {"state": tree.pack(like)})
    actions = [random_actions(task, generator, copies) for _ in range(steps)]
    states, played = [], []
    for action in actions:
        states.append(tree.unpack(like, ours.state_dict()["state"]))
        played.append(ours.step(action))
    told = []
    for b in range(copies):
        theirs.reset(seed=b)
        assert theirs.agents == list(task.agents.names)
        for t in range(steps):
            if t == 0 or every_step:
                place(theirs.unwrapped.world, states[t], b)
                dress(theirs.unwrapped.world, states[t], b)
            if t == 0:
                seen = {name: theirs.unwrapped.observe(name) for name in theirs.agents}
                assert_close(padded(seen, task), first.obs[b].numpy(), atol=1e-4, rtol=0)
            obs, *rest = theirs.step(for_mpe2(task, actions[t][b]))
            told.append((padded(obs, task), *(list(part.values()) for part in rest[:3])))
    obs, reward, terminated, truncated = (np.stack(parts) for parts in zip(*told, strict=True))
    ours_told = [(s.next_view.obs, s.reward, s.terminated, s.truncated) for s in played]
    own = [torch.stack(parts, 1).flatten(0, 1).numpy() for parts in zip(*ours_told, strict=True)]
    assert_close(obs, own[0], atol=1e-4, rtol=0)
    assert_close(reward, own[1].astype(np.float64), atol=1e-4, rtol=1e-5)
    assert np.array_equal(terminated, own[2])
    assert np.array_equal(truncated, own[3])
    assert bool(played[-1].over.all())


def play(task: Task, policy: Callable[[View], torch.Tensor], episodes: int) -> torch.Tensor:
    """``[episodes, N]`` returns of one episode in each copy."""
    env = NativeEnv(task, episodes)
    assert task.horizon is not None
    view, total = env.reset(seed=0), torch.zeros(episodes, task.agents.num_agents)
    for _ in range(task.horizon):
        step = env.step(policy(view))
        view, total = step.view, total + step.reward
    return total


def random_returns(task: Task, episodes: int = 2_000) -> tuple[np.ndarray, np.ndarray]:
    """Mean returns of all agents under random actions, and their standard errors."""
    generator = torch.Generator().manual_seed(0)
    total = play(task, lambda view: random_action(view, task.agents, generator), episodes)
    return total.mean(0).numpy(), (total.std(0) / episodes**0.5).numpy()


def rough(state: Any, generator: torch.Generator) -> Any:
    """The state with bodies far out, crowded or in a heap, and fast, in three of four copies."""
    copies = state.position.shape[0]
    spread, speed = (torch.tensor(x).repeat(copies)[:copies].view(-1, 1, 1) for x in (SPREAD_OUT, SPEED))
    velocity = torch.randn(state.velocity.shape, generator=generator) * speed
    return replace(
        state,
        position=state.position * spread,
        velocity=velocity,
        landmark=state.landmark * spread.clamp(min=0.2, max=1),
    )


def place(world: Any, state: Any, copy: int) -> None:
    """Put the bodies of mpe2's world where those of ours are."""
    movers = [agent for agent in world.agents if agent.movable]
    for i, agent in enumerate(movers):
        agent.state.p_pos = state.position[copy, i].double().numpy().copy()
        agent.state.p_vel = state.velocity[copy, i].double().numpy().copy()
    for i, landmark in enumerate(world.landmarks):
        landmark.state.p_pos = state.landmark[copy, i].double().numpy().copy()


def random_actions(task: Task, generator: torch.Generator, copies: int) -> torch.Tensor:
    """``[copies, N, A]``, in boxes some outside the bounds, which both sides clip."""
    spec = task.agents
    shape = (copies, spec.num_agents, spec.action_dim)
    if not spec.discrete:
        return torch.rand(shape, generator=generator) * 1.4 - 0.2
    sizes = [(group.action.sizes[0], group.size) for group in spec.groups if group.action]
    parts = [torch.randint(choices, (copies, size, 1), generator=generator) for choices, size in sizes]
    return torch.cat(parts, 1)


def for_mpe2(task: Task, action: torch.Tensor) -> dict[str, Any]:
    """One copy's ``action [N, A]`` as mpe2 takes it."""
    spec, chosen = task.agents, {}
    for i, name in enumerate(spec.names):
        group = spec.groups[spec.group_of[i]]
        assert group.action is not None
        own = action[i, : group.action.components].numpy()
        chosen[name] = int(own[0]) if spec.discrete else own
    return chosen


def padded(values: dict[str, Any], task: Task) -> np.ndarray:
    """``[N, O]`` observations as rows, each checked to be as wide as its group says and padded with zeros."""
    spec = task.agents
    rows = np.zeros((spec.num_agents, spec.obs_dim), np.float32)
    for i, (name, value) in enumerate(zip(spec.names, values.values(), strict=True)):
        assert value.shape == (spec.groups[spec.group_of[i]].observation.dim,), name
        rows[i, : value.size] = value
    return rows
