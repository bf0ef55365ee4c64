"""Environments, signals and graphs given as Python objects: trained, finished, loaded again."""

from __future__ import annotations

from pathlib import Path

import pytest

import envs
import marl
from coordination.signals import Team
from coordination.topology import ring
from marl.config import ConfigError

TINY = {"num_envs": 4, "total_steps": 200, "evaluate": {"every": 0, "final_episodes": 4}, "policy": {"name": "graph"}}


def test_signals_and_graphs_may_be_objects(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = marl.train(env="spread", signals=[Team()], graph=ring(3), run_dir=folder, **TINY)
    assert run.finished
    with pytest.raises(ConfigError, match="graph was the object"):
        marl.load(folder)
    again = marl.load(folder, signals=[Team()], graph=ring(3))
    assert again.evaluate(4, policies=["greedy"])["greedy"].mean == run.evaluate(4, policies=["greedy"])["greedy"].mean


def test_an_environment_object_is_trained_in_one_copy(tmp_path: Path) -> None:
    world = envs.parallel("mpe2.simple_spread_v3")
    run = marl.train(env=world, run_dir=tmp_path / "run", **{**TINY, "num_envs": 1, "total_steps": 50})
    assert run.finished


def test_a_scripted_policy_that_cannot_read_the_observations_is_left_out(tmp_path: Path) -> None:
    run = marl.train(env="spread", env_args={"num_agent_neighbors": 1}, run_dir=tmp_path / "run", **TINY)
    assert set(run.result()["evaluation"]) == {"greedy", "stochastic", "random"}
