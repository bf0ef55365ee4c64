"""Rewards and their context: true successors, dead slots, teams, and factors that reach the stages of a learner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_worlds import Factory
from torch import Tensor

import marl
from coordination.graph import Graph
from coordination.signals import SharedReward, Team, Trajectory, build
from coordination.topology import empty
from envs.base import View
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec
from marl.algorithms.ppo import PPO
from marl.batch import Batch
from marl.experiment import Experiment
from marl.rewards.normalise import RewardScale
from marl.rewards.signals import Rewards, trajectory
from marl.settings import settings

STEPS, COPIES, N = 3, 2, 3
TEAMS = (0, 1, 0)
AGENTS = AgentSpec.single(N, ObservationSpec.flat(1), ActionSpec.discrete(2), team=TEAMS)


def view(obs: Tensor, alive: Tensor) -> View:
    return View(obs, alive, Graph(topology=empty(N)))


def batch(filler: float = 0.0) -> Batch:
    """Observations count up; copy 1 restarts after step 1; agent 2 of copy 0 is dead, its slots holding ``filler``."""
    obs = torch.arange((STEPS + 1) * COPIES * N).reshape(STEPS + 1, COPIES, N, 1).float()
    alive = torch.ones(STEPS + 1, COPIES, N, dtype=torch.bool)
    alive[:, 0, 2] = False
    start = torch.tensor([[True, True], [False, False], [False, True], [False, False]])
    truncated = torch.zeros(STEPS, COPIES, N, dtype=torch.bool)
    truncated[1, 1] = True
    return Batch(
        view=view(torch.where(alive.unsqueeze(-1), obs, filler), alive),
        action=torch.zeros(STEPS, COPIES, N, 1, dtype=torch.int64),
        reward=torch.where(alive[:-1], torch.tensor([1.0, 10.0, 100.0]).expand(STEPS, COPIES, N), filler),
        terminated=torch.zeros_like(truncated),
        truncated=truncated,
        start=start,
        log_prob=torch.zeros(STEPS, COPIES, N),
        final=view(torch.full((1, N, 1), -7.0), torch.ones(1, N, dtype=torch.bool)),
        final_at=torch.tensor([1 * COPIES + 1]),
        info={"height": torch.arange(STEPS * COPIES).reshape(STEPS, COPIES)},
    )


def test_the_context_holds_true_successors_where_an_episode_was_cut() -> None:
    rollout = batch()
    seen = trajectory(rollout, torch.tensor(TEAMS))
    assert seen.next_obs is not None
    assert torch.equal(seen.next_obs[1, 1], torch.full((N, 1), -7.0))  # the last state, not the next episode's first
    elsewhere = torch.ones(STEPS, COPIES, dtype=torch.bool)
    elsewhere[1, 1] = False
    assert torch.equal(seen.next_obs[elsewhere], rollout.view.obs[1:][elsewhere])
    assert torch.equal(seen.obs, rollout.view.obs[:-1])
    assert seen.cut[1, 1].all()
    assert seen.cut.sum() == N
    assert torch.equal(seen.info["height"], rollout.info["height"])
    seen.check()


def test_without_cuts_the_successors_are_the_next_views() -> None:
    rollout = batch().replace(final=None, final_at=None)
    seen = trajectory(rollout, torch.tensor(TEAMS))
    assert seen.next_obs is not None
    assert torch.equal(seen.next_obs, rollout.view.obs[1:])


def test_team_reward_sums_the_living_of_each_team() -> None:
    found = Rewards(AGENTS, build("team"))(batch(float("nan")))
    assert found[:, 0].tolist() == [[1.0, 10.0, 0.0]] * STEPS  # agent 2 is dead: nothing for it, nothing from it
    assert found[:, 1].tolist() == [[101.0, 10.0, 101.0]] * STEPS


def test_without_stages_everyone_keeps_its_own() -> None:
    found = Rewards(AGENTS, build(None))(batch(float("nan")))
    assert found[:, 0].tolist() == [[1.0, 10.0, 0.0]] * STEPS
    assert found[:, 1].tolist() == [[1.0, 10.0, 100.0]] * STEPS


@pytest.mark.parametrize("signals", [None, "team", {"khop": {"k": 1}}])
def test_what_dead_slots_hold_changes_nothing_in_any_chain(signals: Any) -> None:
    results, states = [], []
    for filler in (0.0, float("nan"), 1e9):
        rewards = Rewards(AGENTS, build(signals), RewardScale(AGENTS, COPIES, 0.9))
        results.append(rewards(batch(filler)))
        states.append(torch.cat([x.flatten() for x in rewards.state_dict().values()]))
    assert bool(results[0].isfinite().all())
    for other, state in zip(results[1:], states[1:], strict=True):
        assert torch.equal(other, results[0])
        assert torch.equal(state, states[0])


def test_a_stage_that_pays_the_dead_or_sees_too_little_does_not_pass() -> None:
    class Generous(Team):
        def __call__(self, reward: Tensor, context: Trajectory) -> Tensor:
            return reward + 1

    stages: list[Any] = [Generous()]
    assert Rewards(AGENTS, SharedReward(stages))(batch())[:, 0, 2].tolist() == [0.0] * STEPS
    with pytest.raises(ValueError, match="factor_shapley: expected 1 factors in the context, got none"):
        Rewards(AGENTS, build({"factor_shapley": {"scopes": [[0]]}}))(batch())


def test_the_factors_of_an_environment_reach_the_learner() -> None:
    """Each agent of the first pair gets half of the factor they share, the last one its own."""
    s = settings({"env": Factory(), "num_envs": 8, "signals": "factor_shapley", "policy": {"hidden": [4]}})
    experiment = Experiment(s)
    experiment.start()
    rollout = experiment.collector.collect(10)
    learner = experiment.algorithm
    assert isinstance(learner, PPO)
    rewards = learner.rewards(rollout)
    chosen = rollout.action.squeeze(-1)
    pair = 4 * (chosen[..., 0] + chosen[..., 1]) / 2
    torch.testing.assert_close(rewards, torch.stack([pair, pair, chosen[..., 2]], -1).float())
    assert len(rewards.unique()) > 2


def test_factors_credit_a_whole_training_run(tmp_path: Path) -> None:
    keys = {"num_envs": 32, "rollout_steps": 8, "policy": {"hidden": [16]}, "evaluate": {"final_episodes": 4}}
    fast = {"learning_rate": 0.01, "epochs": 4, "minibatches": 1, "entropy": 0.0}
    steps, folder = 32 * 8 * 12, tmp_path / "run"
    run = marl.train(env=Factory(), signals="factor_shapley", algorithm=fast, total_steps=steps, run_dir=folder, **keys)
    assert isinstance(run, marl.Run)
    assert run.result()["evaluation"]["greedy"]["returns"] == [18.0] * 4  # everyone works: 4 + 4 + 1, twice
