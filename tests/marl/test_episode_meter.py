"""EpisodeMeter: the environment's own quantities per episode, across rollouts, of every kind of reduction."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from coordination import tree
from coordination.graph import Graph
from coordination.topology import empty
from envs.base import View
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec
from marl.batch import Batch
from marl.episodes import EpisodeMeter

N, COPIES, STEPS = 2, 3, 12
KINDS = {"average": "mean", "total": "sum", "end": "last", "ever": "any"}
AGENTS = AgentSpec.single(N, ObservationSpec.flat(1), ActionSpec.discrete(2), info=KINDS)


def history(seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """When episodes end, ``[T, B]``, and what the environment told, ``[T, B]`` or ``[T, B, N]``."""
    seeded = torch.Generator().manual_seed(seed)
    over = torch.rand(STEPS, COPIES, generator=seeded) < 0.3
    info = {name: torch.randn(STEPS, COPIES, generator=seeded) for name in ("average", "end")}
    info["total"] = torch.randn(STEPS, COPIES, N, generator=seeded)
    info["ever"] = torch.rand(STEPS, COPIES, generator=seeded) < 0.2
    return over, info


def batch(over: Tensor, info: dict[str, Tensor], first: Tensor) -> Batch:
    steps = len(over)
    no = torch.zeros(steps, COPIES, N, dtype=torch.bool)
    view = View(
        torch.zeros(steps + 1, COPIES, N, 1),
        torch.ones(steps + 1, COPIES, N, dtype=torch.bool),
        Graph(topology=empty(N)),
    )
    start = torch.cat([first.unsqueeze(0), over])
    action, reward = torch.zeros(steps, COPIES, N, 1), torch.zeros(steps, COPIES, N)
    return Batch(view, action, reward, no, no, start, info=info)


def by_hand(over: Tensor, info: dict[str, Tensor]) -> list[tuple[int, dict[str, float]]]:
    """Every finished episode: when it ended, and its quantities, one step after the other."""
    episodes = []
    for b in range(COPIES):
        since = 0
        for t in range(STEPS):
            if not over[t, b]:
                continue
            rows = {name: [float(x.float().mean()) for x in info[name][since : t + 1, b]] for name in KINDS}
            found = {
                "average": sum(rows["average"]) / len(rows["average"]),
                "total": sum(rows["total"]),  # the mean over agents, added up
                "end": rows["end"][-1],
                "ever": float(any(rows["ever"])),
            }
            episodes.append((t, found))
            since = t + 1
    return episodes


@pytest.mark.parametrize("borders", [(12,), (5, 7), (1, 1, 3, 7), (1,) * 12])
@pytest.mark.parametrize("seed", [0, 1])
def test_quantities_are_reduced_over_whole_episodes_wherever_rollouts_end(borders: tuple[int, ...], seed: int) -> None:
    over, info = history(seed)
    episodes, meter, began = by_hand(over, info), EpisodeMeter(AGENTS, COPIES, torch.device("cpu")), 0
    first = torch.ones(COPIES, dtype=torch.bool)
    told = 0
    for steps in borders:
        part = slice(began, began + steps)
        row = meter.update(batch(over[part], {name: x[part] for name, x in info.items()}, first))
        ended = [found for t, found in episodes if began <= t < began + steps]
        assert {name for name in row if name.startswith("info/")} == ({f"info/{n}" for n in KINDS} if ended else set())
        for name in KINDS if ended else ():
            assert row[f"info/{name}"] == pytest.approx(sum(e[name] for e in ended) / len(ended), abs=1e-5), name
        first, began, told = over[began + steps - 1], began + steps, told + len(ended)
    assert told == len(episodes) > 5


def test_an_episode_that_was_lost_is_forgotten_and_a_restored_meter_goes_on() -> None:
    over = torch.tensor([[False], [False], [True]]).expand(3, COPIES)
    info = {name: torch.ones(3, COPIES) for name in KINDS}
    one = batch(over[:2], {name: 1000 * x[:2] for name, x in info.items()}, torch.ones(COPIES, dtype=torch.bool))
    rest = batch(over, info, torch.zeros(COPIES, dtype=torch.bool))
    meter, other = (EpisodeMeter(AGENTS, COPIES, torch.device("cpu")) for _ in range(2))
    meter.update(one)
    other.load_state_dict(tree.map(torch.clone, meter.state_dict()))
    assert other.update(rest) == meter.update(rest)
    meter.update(one)
    fresh = rest.replace(start=torch.cat([torch.ones(1, COPIES, dtype=torch.bool), over]))
    row = meter.update(fresh)  # the two steps before were an episode that nobody finished
    assert (row["info/total"], row["info/average"], row["train/episode_length"]) == (3.0, 1.0, 3.0)
