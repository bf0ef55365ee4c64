"""The trainer: rows, the meter of finished episodes, and the stop when numbers stop being numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import marl
from coordination.graph import Graph
from coordination.topology import empty
from envs.base import View
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec, Group
from marl.batch import Batch
from marl.episodes import EpisodeMeter
from marl.storage.checkpoint import Checkpoints
from marl.trainer import DivergedError


def batch(reward: Tensor, over: Tensor, first: Tensor) -> Batch:
    """A batch of rewards ``[T, B, N]`` whose episodes end where ``over [T, B]`` holds."""
    steps, copies, n = reward.shape
    view = View(torch.zeros(steps + 1, copies, n, 1), torch.ones(steps + 1, copies, n) > 0, Graph(topology=empty(n)))
    no = torch.zeros(steps, copies, n, dtype=torch.bool)
    start = torch.cat([first.unsqueeze(0), over])
    return Batch(view, torch.zeros(steps, copies, n, 1), reward, over.unsqueeze(-1) | no, no, start)


def test_the_meter_adds_up_episodes_over_rollouts_by_team_and_group() -> None:
    spaces = ObservationSpec.flat(1), ActionSpec.discrete(2)
    groups = Group("fox", 0, 1, *spaces), Group("hen", 1, 2, *spaces)
    agents = AgentSpec(groups, ("a", "b", "c"), team=(0, 1, 1))
    meter = EpisodeMeter(agents, 2, torch.device("cpu"))
    reward = torch.arange(4 * 2 * 3).reshape(4, 2, 3).float()
    over = torch.tensor([[0, 0], [1, 0], [1, 0], [0, 1]]).bool()
    parts = [slice(0, 1), slice(1, 4)]
    rows = [meter.update(batch(reward[p], over[p], torch.zeros(2).bool())) for p in parts]
    assert rows[0] == {}
    episodes = [reward[0:2, 0], reward[2:3, 0], reward[0:4, 1]]
    row = rows[1]
    assert row["train/episode_length"] == pytest.approx((2 + 1 + 4) / 3)
    assert row["train/return"] == pytest.approx(sum(float(e.sum()) for e in episodes) / 3)
    assert row["train/return/team_0"] == pytest.approx(sum(float(e[:, 0].sum()) for e in episodes) / 3)
    assert row["train/return/hen"] == pytest.approx(sum(float(e[:, 1:].sum()) for e in episodes) / 3)
    torch.testing.assert_close(meter.running[:, 0], torch.tensor([float(reward[3, 0].sum()), 0.0]))
    assert meter.length.tolist() == [1, 0]


def test_training_stops_at_the_first_number_that_is_none_and_keeps_its_checkpoints(tmp_path: Path) -> None:
    class Spoilt:
        """Pays NaN from its seventh rollout on."""

        name, needs, conserves_sum, policy_invariant = "spoilt", "transition", False, False
        calls = 0

        def __call__(self, reward: Tensor, context: object) -> Tensor:
            Spoilt.calls += 1
            return reward if Spoilt.calls < 7 else reward * float("nan")

    folder = tmp_path / "run"
    with pytest.raises(DivergedError, match=r"is nan at iteration 7; lower the learning rate"):
        marl.train(env="climbing", signals=[Spoilt()], num_envs=4, total_steps=2000, checkpoint_every=3, run_dir=folder)
    state = Checkpoints(folder / "checkpoints").load()
    assert state["trainer"]["progress"]["iteration"] == 6
    weights = state["trainer"]["algorithm"]["parameters"]
    assert all(bool(x.isfinite().all()) for x in weights.values())
