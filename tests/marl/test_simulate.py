"""simulate(): known means, episodes, who acts, what reaches the environment, and errors."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from marl.config import ConfigError
from marl.experiment import Experiment
from marl.runs.folders import new_folder
from marl.runs.simulate import simulate
from marl.settings import settings

CLIMBING_MEAN = (11 - 30 + 0 - 30 + 7 + 6 + 0 + 0 + 5) / 9  # of the payoff table, where both choose at random


def found(
    env: str = "climbing", policy: str = "random", copies: int = 8, steps: int = 25, **keys: Any
) -> dict[str, Any]:
    return simulate(env, policy, copies, steps, keys.pop("seed", 0), keys)


def test_random_play_earns_the_mean_of_the_payoff_table() -> None:
    result = found(copies=256, steps=100)
    assert result["reward_per_agent_step"] == pytest.approx(CLIMBING_MEAN, abs=0.35)  # 4 standard errors of 14 / 160
    assert result["episodes"] == 256 * 100 // 25
    assert result["return"] == pytest.approx(2 * 25 * result["reward_per_agent_step"], rel=1e-4)
    assert (result["agents"], result["env"], result["policy"]) == (2, "climbing", "random")
    assert result["agent_steps_per_second"] == pytest.approx(2 * result["env_steps_per_second"])


def test_only_finished_episodes_have_a_return() -> None:
    short, longer = found(steps=24), found(steps=49)
    assert (short["episodes"], short["return"]) == (0, None)
    assert longer["episodes"] == 8


def test_the_same_seed_gives_the_same_numbers_but_for_the_clock() -> None:
    def numbers(seed: int) -> dict[str, Any]:
        return {k: v for k, v in found("spread", seed=seed).items() if not k.endswith("per_second")}

    assert numbers(3) == numbers(3)
    assert numbers(3)["return"] != numbers(4)["return"]


def test_scripted_play_beats_random_play() -> None:
    results = {policy: found("spread", policy)["return"] for policy in ("random", "scripted")}
    assert results["random"] < -60 < -35 < results["scripted"]  # over many episodes -80.5 and -27.3


def trained(folder: Path, **keys: Any) -> str:
    """A run of some iterations, as it lies in a folder."""
    s = settings({"num_envs": 16, "policy": {"hidden": [16]}, "evaluate": {"every": 0}, "run_dir": folder, **keys})
    with closing(Experiment(s)) as experiment:
        experiment.start()
        experiment.run(new_folder(s))
    return str(folder)


def test_a_trained_policy_plays_as_it_has_learned(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", env="penalty", total_steps=16 * 25 * 10)
    random, learned = found("penalty")["return"], found("penalty", folder)["return"]
    assert learned > random + 100  # an optimum is 500, random play some 111


def test_settings_reach_the_environment() -> None:
    assert found("spread", steps=5, num_agents=5)["agents"] == 5
    assert found("spread", steps=5, env_args={"num_agents": 4})["agents"] == 4
    assert found("spread", steps=5, max_cycles=2)["episodes"] == 16
    links = [found("spread", steps=5, num_agents=4, graph=graph)["coordination"]["links"] for graph in ("ring", "none")]
    assert links == [8.0, 0.0]
    pair = found("mpe2.simple_spread_v3", copies=2, steps=30, num_agents=2, workers=1)
    assert (pair["agents"], pair["episodes"]) == (2, 2)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"env": "spraed"}, "did you mean 'spread'"),
        ({"policy": "nonsense"}, "nonsense"),
        ({"policy": "scripted"}, "there is no scripted policy for 'climbing'"),
        ({"horizon": 3}, "unknown argument of environment 'climbing': 'horizon'"),
        ({"num_agents": "x"}, "num_agents: expected a whole number, got 'x'"),
        ({"num_agents": 10**12}, "the most is 1,000,000"),
        ({"num_envs": 3}, "num_envs is a setting of the run"),
        ({"graph": "rign"}, "did you mean 'ring'"),
        ({"wrappers": 5}, "wrappers: a list, got 5"),
        ({"copies": 10**12}, "num_envs: less than or equal to"),
    ],
)
def test_mistakes_are_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=message):
        found(**keys)


def test_a_run_of_other_agents_does_not_play_here(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", env="climbing", total_steps=1)
    with pytest.raises(ConfigError, match="saved parameter policy"):
        found("spread", folder)
