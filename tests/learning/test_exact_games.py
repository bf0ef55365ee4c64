"""Value decomposition on games with known answers: what each mixer can represent is where it ends.

With uniform exploration every joint choice is seen, so only the mixer decides (facts of Rashid et al. 2018, section 5;
Claus and Boutilier 1998; Wang et al. 2021).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import marl


def played(recipe: str, env: str, tmp_path: Path, **env_args: Any) -> float:
    """Greedy return of one agent in one step of the game, or in one episode of the two-step game."""
    algorithm = {
        "name": recipe,
        "warmup": 500,
        "batch_size": 128,
        "learning_rate": 2e-3,
        "updates": 8,
        "epsilon_end": 1.0,
        "capacity": 10_000,
    }
    run = marl.train(
        env=env,
        env_args=env_args,
        algorithm=algorithm,
        policy={"name": "mlp", "hidden": (32,)},
        num_envs=16,
        rollout_steps=2,
        total_steps=8_000,
        evaluate={"every": 0, "final_episodes": 16},
        run_dir=tmp_path / "run",
    )
    found = run.summary()["return"]["greedy"]  # type: ignore[union-attr]
    return found / 2 / (env_args.get("steps", 1))


@pytest.mark.parametrize(("recipe", "value"), [("vdn", 7.0), ("qmix", 8.0)])
def test_the_two_step_game_needs_a_monotone_mixer(recipe: str, value: float, tmp_path: Path) -> None:
    assert played(recipe, "two_step", tmp_path) == pytest.approx(value)


@pytest.mark.parametrize(("recipe", "value"), [("vdn", 5.0), ("qmix", 5.0), ("qplex", 11.0)])
def test_climbing_needs_any_ordering(recipe: str, value: float, tmp_path: Path) -> None:
    assert played(recipe, "climbing", tmp_path, steps=5) == pytest.approx(value)


@pytest.mark.parametrize(("recipe", "values"), [("vdn", {10.0}), ("qmix", {10.0, 10.4}), ("qplex", {10.4})])
def test_the_first_qplex_game(recipe: str, values: set[float], tmp_path: Path) -> None:
    assert round(played(recipe, "qplex", tmp_path, game=1), 3) in values


def test_the_penalty_of_none_leaves_both_optima_to_all(tmp_path: Path) -> None:
    assert played("qplex", "penalty", tmp_path, k=-30, steps=5) == pytest.approx(10.0)
