import math

import pytest
import torch

from coordination import tree
from coordination.metrics.table import METRICS, Meter, Metric, evaluate
from coordination.signals import Trajectory
from coordination.topology import Topology

PAIRS = Topology([[0, 1, 2, 3], [1, 0, 3, 2]], 4)
RING = Topology([[0, 1, 2, 3, 1, 2, 3, 0], [1, 2, 3, 0, 0, 1, 2, 3]], 4)


def trajectory(seed=0, topology=RING, steps=6, copies=3):
    draw = torch.Generator().manual_seed(seed)
    shape = (steps, copies, 4)
    alive = torch.rand(shape, generator=draw) < 0.85
    return Trajectory.of(
        torch.where(alive, torch.rand(shape, generator=draw), torch.nan),
        topology,
        {"coalition": torch.randint(2, shape, generator=draw), "value": torch.rand(shape, generator=draw)},
        action=torch.randint(3, (*shape, 1), generator=draw),
        alive=alive,
        cut=(torch.rand(shape, generator=draw) < 0.1),
        logits=torch.randn(*shape, 3, generator=draw),
    )


def test_every_metric_lies_in_its_range_and_has_samples():
    table = evaluate(trajectory())
    assert list(table) == list(METRICS)
    for name, score in table.items():
        assert score.low <= score.value <= score.high, name
        assert score.samples > 0, name
        assert (score.unit, score.low, score.high) == (METRICS[name].unit, METRICS[name].low, METRICS[name].high)


def test_rows_of_a_small_trajectory_by_hand():
    t = Trajectory.of(
        [[[1.0, 1.0, 1.0, 0.0]], [[1.0, 1.0, 1.0, 0.0]]],
        PAIRS,
        {
            "coalition": torch.tensor([[[0, 0, 1, 1]], [[0, 1, 0, 1]]]),
            "value": torch.tensor([[[0.0, 2.0, 4.0, 6.0]], [[1.0, 2.0, 3.0, 6.0]]]),
        },
        action=torch.tensor([[0, 0, 1, 1], [0, 0, 1, 2]]).reshape(2, 1, 4, 1),
        logits=torch.zeros(2, 1, 4, 3),
    )
    table = {name: score.value for name, score in evaluate(t).items()}
    assert table["team_reward"] == 3
    assert table["alive"] == 1
    assert table["reward_gini"] == 0.25
    assert table["reward_jain"] == 0.75
    assert table["reward_load_balance"] == pytest.approx(4 / 3)
    assert table["action_synchrony"] == pytest.approx((2 / 6 + 1 / 6) / 2)
    assert table["team_entropy"] == pytest.approx(4 * math.log(3), rel=1e-6)
    assert table["temporal_coherence"] == pytest.approx(3 / 4)
    assert table["coalition_churn"] == pytest.approx(1 - (0 - 2 * 2 / 6) / (2 - 2 * 2 / 6))
    assert table["coalition_modularity"] == pytest.approx((0.5 + -0.5) / 2)
    assert table["links_per_agent"] == 1
    assert table["reward_variation"] == pytest.approx(1 / math.sqrt(3))
    assert table["policy_diversity"] == 0
    assert table["disagreement_energy"] == ((4 + 4) + (1 + 9)) / 2
    assert table["consensus_error"] == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 20))
    assert table["robustness"] == 0  # two pairs apart
    assert table["algebraic_connectivity"] == pytest.approx(0, abs=1e-9)
    assert table["percolation_robustness"] == pytest.approx((2 + 1 + 1) / 16)


def test_agents_in_no_coalition_form_no_group():
    labels = [0, 0, -1, -1], [0, 0, 1, 1]
    loners, together = (Trajectory.of([[1.0] * 4], PAIRS, {"coalition": torch.tensor([x])}) for x in labels)
    found = [evaluate(t, ["coalition_modularity"])["coalition_modularity"].value for t in (loners, together)]
    assert found == pytest.approx([1 / 2 - (1 / 4 + 2 / 16), 1 / 2])


def test_a_stream_of_trajectories_counts_every_sample_once():
    names = ["team_reward", "action_synchrony", "temporal_coherence", "links_per_agent"]
    whole = trajectory(steps=6)
    meter = Meter(names)
    for b in range(3):
        meter.add(tree.map(lambda x, b=b: x[:, b : b + 1], whole))
    for name, score in evaluate(whole, names).items():
        assert meter.table()[name].value == pytest.approx(score.value, rel=1e-6), name
        assert meter.table()[name].spread == pytest.approx(score.spread, rel=1e-6), name
        assert meter.table()[name].samples == score.samples


def test_dead_slots_change_nothing():
    torn = trajectory()
    clean = tree.map(lambda x: x.nan_to_num(5.0) if x.is_floating_point() else x, torn)
    a, b = evaluate(torn), evaluate(clean)
    assert {n: s.value for n, s in a.items()} == {n: s.value for n, s in b.items()}


def test_renaming_agents_changes_nothing():
    t, order = trajectory(), torch.tensor([2, 0, 3, 1])
    moved = tree.map(lambda x: x[:, :, order.argsort()] if x.ndim > 2 else x, t)
    moved = Trajectory(**{**vars(moved), "graph": Trajectory.of([0.0] * 4, Topology(order[RING.edges], 4)).graph})
    a, b = evaluate(t), evaluate(moved)
    for name in a:
        assert a[name].value == pytest.approx(b[name].value, rel=1e-5), name


def test_what_is_missing_is_left_out_or_named():
    bare = Trajectory.of([[1.0, -2.0], [1.0, -2.0]])
    table = evaluate(bare)
    assert list(table) == [
        "team_reward",
        "alive",
        "reward_gini",
        "reward_jain",
        "reward_load_balance",
        "reward_variation",
        "links_per_agent",
    ]
    assert math.isnan(table["reward_gini"].value)  # shares of negative rewards mean nothing
    assert table["reward_gini"].samples == 0
    with pytest.raises(ValueError, match="metric 'team_entropy': needs logits"):
        evaluate(bare, ["team_entropy"])
    with pytest.raises(ValueError, match="metric 'consensus_error': needs what agents hold, time first"):
        evaluate(bare, ["consensus_error"])
    with pytest.raises(ValueError, match="metric 'robustness': needs one graph shared by all samples"):
        evaluate(bare, ["robustness"])
    with pytest.raises(ValueError, match="unknown metric 'alife'; did you mean 'alive'"):
        evaluate(bare, ["alife"])


def test_own_metrics_stand_beside_the_known_ones():
    own = {"mean_reward": Metric(lambda t: t.reward.mean(-1), "reward")}
    table = evaluate(Trajectory.of([[1.0, 3.0]]), ["alive", "mean_reward"], own)
    assert table["mean_reward"].value == 2
    assert math.isnan(table["mean_reward"].spread)
