"""A trained policy outside the trainer: dictionaries in, dictionaries out, equal to acting on views."""

from __future__ import annotations

from pathlib import Path

import pytest

import envs
import marl
from marl.report.evaluate import NetworkAct, evaluate

SMALL = {"num_envs": 4, "total_steps": 200, "evaluate": {"every": 0, "final_episodes": 4}, "policy": {"name": "graph"}}
MINE = str(Path(__file__).parents[2] / "examples" / "my_env.py") + ":make"


@pytest.mark.parametrize("env", ["spread", "mpe2.simple_spread_v3"])
def test_acting_on_dictionaries_equals_acting_on_views(env: str, tmp_path: Path) -> None:
    run = marl.train(env=env, run_dir=tmp_path / "run", **SMALL)
    actor, world = run.actor(), envs.make(env)
    view = world.reset(seed=5)
    names = world.agents.names
    observations = {name: view.obs[0, i].numpy() for i, name in enumerate(names)}
    chosen = actor.act(observations)
    tensors = actor.act(view)
    assert chosen == {name: int(tensors[0, i, 0]) for i, name in enumerate(names)}
    sampled = {tuple(actor.act(observations, deterministic=False).values()) for _ in range(50)}
    assert len(sampled) > 1


def test_agents_of_different_kinds_that_leave_are_acted_for_while_they_are_there(tmp_path: Path) -> None:
    run = marl.train(env=MINE, run_dir=tmp_path / "run", **SMALL)
    actor, world = run.actor(), envs.parallel(MINE)
    observations, infos = world.reset(seed=0)
    steps = 0
    while world.agents:
        actions = actor.act(observations, infos)
        assert set(actions) == set(world.agents)
        assert all(world.action_space(name).contains(action) for name, action in actions.items())
        observations, _, terminations, truncations, infos = world.step(actions)
        observations = {a: o for a, o in observations.items() if not (terminations[a] or truncations[a])}
        steps += 1
    assert steps == 8


def test_a_recorded_return_is_that_of_the_policy(tmp_path: Path) -> None:
    run = marl.train(env="spread", run_dir=tmp_path / "run", **SMALL)
    world = envs.make("spread", 8)
    policy = run.policy(world)
    a, b = (evaluate(world, NetworkAct(policy), 16, seed=3) for _ in range(2))
    assert a.mean == b.mean
    assert len(a.returns) == 16
    assert a.lengths.tolist() == [25.0] * 16
