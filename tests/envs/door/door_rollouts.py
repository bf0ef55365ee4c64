"""What tests of the door share: its busiest fixture, random actions that masks allow, and rollouts to compare."""

from __future__ import annotations

import door_fixtures as fixtures
import numpy as np
import torch

import envs
from coordination import rng

STILL = torch.zeros(1, 3, 2)  # everyone of Events chooses 0; the caller says [0, 0]


def events(*what, **args):
    return envs.make(fixtures.Events, events=what, **args)


def first_draw(seed: int, copy: int, episode: int) -> float:
    return 10 * np.random.default_rng(rng.derive(seed, "copy", copy, "episode", episode) % 2**31).random()


def rolled(door, actions):
    steps = [door.step(a) for a in actions]
    return [(s.view.obs, s.next_view.obs, s.reward, s.view.alive, s.over) for s in steps]


def random_actions(door, count, seed=0):
    g = torch.Generator().manual_seed(seed)
    shape = (count, door.num_envs, door.agents.num_agents, door.agents.action_dim)
    return (
        torch.randint(2, shape, generator=g) if door.agents.discrete else torch.randint(2, shape, generator=g).float()
    )


def allowed_action(view, agents, generator):
    """A random action that every mask allows; reals are drawn from [-1, 1]."""
    lead = tuple(view.alive.shape)
    action = torch.rand(*lead, agents.action_dim, generator=generator) * 2 - 1
    for group in agents.groups:
        start = 0
        for component, size in enumerate(group.action.sizes):
            odds = torch.ones(*lead, size)
            if view.action_mask is not None:
                odds = view.action_mask[..., start : start + size].float()
            odds = torch.where(odds.any(-1, keepdim=True), odds, 1.0)[:, group.slice]
            choice = torch.multinomial(odds.reshape(-1, size), 1, generator=generator)
            action[:, group.slice, component] = choice.reshape(lead[0], group.size).float()
            start += size
    return action.long() if agents.discrete else action


def play(env, steps, seed=8):
    """Random allowed play: every tensor of every step, for comparison."""
    generator = torch.Generator().manual_seed(seed)
    view, seen = env.reset(seed=seed), []
    for _ in range(steps):
        step = env.step(allowed_action(view, env.agents, generator))
        view = step.view
        seen += [view.obs, view.alive, step.next_view.obs, step.next_view.alive]
        seen += [step.reward, step.terminated, step.truncated, step.over]
        seen += [x for x in (view.action_mask, view.acts, view.state) if x is not None]
    return seen


def same(one, two):
    return len(one) == len(two) and all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
