from __future__ import annotations

import json

import mpe2.simple_spread_v3
import numpy as np
import pytest
import torch
from torch import Tensor

import envs
from coordination.graph import Graph
from coordination.topology import Topology
from envs.base import View
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec, Group
from marl.report import episode
from marl.report.drawing import communication_graph
from marl.report.episode import METRICS, coordination_metrics, episode_record, known_columns
from marl.report.evaluate import Episodes, record

STEPS, COPIES, N = 5, 2, 3
RING = Topology([[0, 1, 2], [1, 2, 0]], N, "one-way ring")


def spec(**widths: int) -> AgentSpec:
    return AgentSpec.single(N, ObservationSpec.named(**widths), ActionSpec.discrete(4))


def seen(agents: AgentSpec, graph: Graph | None = None, steps: int = STEPS, obs: Tensor | None = None) -> Episodes:
    generator = torch.Generator().manual_seed(0)
    shape = (steps, COPIES, agents.num_agents)
    if obs is None:
        obs = torch.randn(*shape, agents.obs_dim, generator=generator)
    view = View(obs, torch.ones(shape, dtype=torch.bool), graph or Graph(topology=RING))
    action = torch.randint(4, (*shape, 1), generator=generator)
    return Episodes(view, action, torch.randn(shape, generator=generator), torch.tensor([steps - 1, steps]))


def test_the_first_copy_is_kept_up_to_its_end():
    agents = spec(obs=4)
    whole = seen(agents)
    kept = episode_record(whole, agents)
    np.testing.assert_allclose(kept["reward"], whole.reward[: STEPS - 1, 0], atol=1e-4)
    np.testing.assert_allclose(kept["obs"], whole.view.obs[: STEPS - 1, 0], atol=1e-4)
    assert kept["action"] == whole.action[: STEPS - 1, 0].tolist()
    assert np.shape(kept["alive"]) == (STEPS - 1, N)
    assert kept["agents"] == ["agent_0", "agent_1", "agent_2"]
    assert (kept["positions"], kept["landmarks"]) == (None, None)
    assert sorted(kept["edges_shared"]) == [[0, 1], [1, 2], [2, 0]]
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept


def test_numbers_that_are_not_finite_become_null():
    agents = spec(obs=1)
    obs = torch.zeros(STEPS, COPIES, N, 1)
    obs[0, 0, 1], obs[0, 0, 2] = torch.nan, torch.inf
    assert episode_record(seen(agents, obs=obs), agents)["obs"][0] == [[0.0], [None], [None]]


def test_positions_and_landmarks_come_from_named_parts():
    agents = spec(velocity=2, position=2, landmarks=4)
    whole = seen(agents)
    kept = episode_record(whole, agents)
    obs = whole.view.obs[: STEPS - 1, 0]
    np.testing.assert_allclose(kept["positions"], obs[..., 2:4], atol=1e-4)
    first = obs[:, 0]
    np.testing.assert_allclose(kept["landmarks"], first[:, None, 2:4] + first[:, 4:].reshape(-1, 2, 2), atol=2e-4)


def test_groups_may_keep_their_positions_in_different_columns():
    action = ActionSpec.discrete(2)
    left, right = ObservationSpec.named(position=2, load=1), ObservationSpec.named(load=1, position=2)
    agents = AgentSpec((Group("a", 0, 1, left, action), Group("b", 1, 2, right, action)), ("a", "b", "c"))
    whole = seen(agents)
    kept = episode_record(whole, agents)
    obs = whole.view.obs[: STEPS - 1, 0]
    np.testing.assert_allclose(np.array(kept["positions"])[:, 0], obs[:, 0, :2], atol=1e-4)
    np.testing.assert_allclose(np.array(kept["positions"])[:, 1:], obs[:, 1:, 1:], atol=1e-4)


def test_positions_are_left_out_where_a_group_has_none_or_they_are_on_a_line():
    action = ActionSpec.discrete(2)
    one, other = ObservationSpec.named(position=2), ObservationSpec.named(load=2)
    mixed = AgentSpec((Group("a", 0, 1, one, action), Group("b", 1, 2, other, action)), ("a", "b", "c"))
    for agents in (mixed, spec(position=1)):
        assert episode_record(seen(agents), agents)["positions"] is None


def test_links_that_go_down_are_missing_at_their_step():
    agents = spec(obs=1)
    live = torch.ones(STEPS, COPIES, 3, dtype=torch.bool)
    live[1, 0, 0] = False  # edges of a topology are sorted by receiver: 2 -> 0 comes first
    kept = episode_record(seen(agents, Graph(topology=RING, live=live)), agents)
    assert "edges_shared" not in kept
    assert [sorted(links) for links in kept["edges"][:3]] == [
        [[0, 1], [1, 2], [2, 0]],
        [[0, 1], [1, 2]],
        [[0, 1], [1, 2], [2, 0]],
    ]


def test_links_of_their_own_in_every_step():
    agents = spec(obs=1)
    neighbours = torch.full((STEPS, COPIES, N, 2), N)
    neighbours[0, 0, 0] = torch.tensor([1, 2])  # agent 0 hears 1 and 2 at step 0, nobody hears anyone later
    neighbours[:, 1] = 0
    kept = episode_record(seen(agents, Graph.from_neighbours(neighbours, N)), agents)
    assert kept["edges"] == [[[1, 0], [2, 0]], [], [], []]


def test_large_populations_are_cut(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(episode, "AGENTS", 2)
    monkeypatch.setattr(episode, "OBSERVED", 3)
    agents = spec(obs=4)
    kept = episode_record(seen(agents), agents)
    assert kept["edges_shared"] == [[0, 1]]
    assert (kept["obs"], kept["num_agents"], kept["agents"]) == (None, 3, ["agent_0", "agent_1"])
    assert np.shape(kept["action"]) == (STEPS - 1, 2, 1)


def test_known_columns_find_the_agents_of_mpe2():
    env = mpe2.simple_spread_v3.parallel_env(N=N)
    observations, _ = env.reset(seed=0)
    width = len(observations["agent_0"])
    agents = spec(obs=width)
    columns = known_columns("mpe2.simple_spread_v3", agents)
    assert columns is not None
    obs = torch.tensor(np.stack(list(observations.values()))).expand(STEPS, COPIES, N, width)
    kept = episode_record(seen(agents, obs=obs), agents, columns)
    world = env.unwrapped.world  # type: ignore[attr-defined]
    np.testing.assert_allclose(kept["positions"][0], [agent.state.p_pos for agent in world.agents], atol=1e-4)
    np.testing.assert_allclose(kept["landmarks"][0], [mark.state.p_pos for mark in world.landmarks], atol=2e-4)
    assert known_columns("mpe2.simple_spread_v3", spec(obs=width + 1)) is None
    assert known_columns("spread", agents) is None


def test_an_episode_of_a_native_environment_can_be_drawn():
    env = envs.make("spread", 2)
    whole = record(env, lambda view, start: torch.zeros(*view.alive.shape, 1, dtype=torch.int64), seed=0)
    kept = json.loads(json.dumps(episode_record(whole, env.agents)))
    assert np.shape(kept["positions"]) == np.shape(kept["landmarks"]) == (25, 3, 2)
    assert communication_graph(kept).startswith("<svg")


def played(action: Tensor, reward: Tensor, length: list[int], alive: Tensor | None = None, graph: Graph | None = None):
    """Episodes of given choices ``[T, B, N]`` and rewards ``[T, B, N]``, with NaN wherever nobody lives."""
    alive = torch.ones(reward.shape, dtype=torch.bool) if alive is None else alive
    view = View(torch.zeros(*reward.shape, 1), alive, graph or Graph(topology=RING))
    reward = torch.where(alive, reward, torch.nan)
    return Episodes(view, action.unsqueeze(-1), reward, torch.tensor(length))


def test_coordination_by_hand():
    # copy 0 has two steps, copy 1 one; what stands after the end would change every number
    action = torch.tensor([[[0, 0, 1], [2, 2, 2]], [[0, 0, 0], [0, 1, 2]]])
    reward = torch.tensor([[[1.0, 1, 0], [5, 5, 5]], [[1.0, 0, 0], [99, 0, 0]]])
    values = coordination_metrics(played(action, reward, [2, 1]), spec(obs=1))
    assert values["action_synchrony"] == pytest.approx((1 / 3 + 1 + 1) / 3)
    assert values["temporal_coherence"] == pytest.approx(2 / 3)  # of copy 0: agents 0 and 1 repeat, 2 does not
    # returns 2, 1, 0 and 5, 5, 5: sum |x_i - x_j| = 8, so gini 8 / (2 * 9 * 1) and 0; jain 9 / (3 * 5) and 1
    assert values["gini"] == pytest.approx((4 / 9 + 0) / 2)
    assert values["jain"] == pytest.approx((0.6 + 1) / 2)
    assert values["links"] == 3
    assert "total_correlation" not in values  # 4^3 joint choices from three samples
    assert "lambda2" not in values  # one-way links
    assert values.keys() <= METRICS.keys()


def test_dead_agents_count_for_nothing():
    alive = torch.tensor([True, True, False]).expand(4, 1, 3)
    action = torch.tensor([0, 0, 3]).expand(4, 1, 3)
    values = coordination_metrics(played(action, -torch.ones(4, 1, 3), [4], alive), spec(obs=1))
    assert values["action_synchrony"] == 1
    assert values["temporal_coherence"] == 1
    assert (values["gini"], values["jain"]) == (0, 1)  # of costs


def test_total_correlation_of_agents_that_always_agree():
    agents = AgentSpec.single(2, ObservationSpec.flat(1), ActionSpec.discrete(4))
    action = torch.arange(100).remainder(4).reshape(100, 1, 1).expand(100, 1, 2)
    graph = Graph(topology=Topology([[0, 1], [1, 0]], 2))
    values = coordination_metrics(played(action, torch.zeros(100, 1, 2), [100], graph=graph), agents)
    assert values["total_correlation"] == pytest.approx(np.log(4))
    assert values["lambda2"] == pytest.approx(2)  # of the complete graph on two
    assert values["slem"] == pytest.approx(0, abs=1e-9)


def test_what_does_not_apply_is_missing():
    mixed = torch.tensor([1.0, -1.0, 0.0]).expand(3, 1, 3)
    values = coordination_metrics(played(torch.zeros(3, 1, 3, dtype=torch.int64), mixed, [3]), spec(obs=1))
    assert {"gini", "jain"}.isdisjoint(values)
    real = AgentSpec.single(N, ObservationSpec.flat(1), ActionSpec.box(-1, 1, 1))
    values = coordination_metrics(played(torch.ones(3, 1, 3), mixed, [3]), real)
    assert values["temporal_coherence"] == 1
    assert "action_synchrony" not in values


def test_groups_that_never_act_are_left_out():
    spec_ = ObservationSpec.flat(1)
    agents = AgentSpec(
        (Group("walker", 0, 2, spec_, ActionSpec.discrete(4)), Group("wall", 2, 1, spec_, None)), ("a", "b", "c")
    )
    action = torch.tensor([1, 1, 0]).expand(3, 1, 3)
    assert coordination_metrics(played(action, torch.zeros(3, 1, 3), [3]), agents)["action_synchrony"] == 1


def test_large_populations_are_sampled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(episode, "AGENTS", 2)  # agents 0 and 2 are looked at
    action = torch.tensor([1, 3, 1]).expand(3, 1, 3)
    assert coordination_metrics(played(action, torch.zeros(3, 1, 3), [3]), spec(obs=1))["action_synchrony"] == 1


def test_links_that_change_are_averaged_over_the_steps_played():
    live = torch.ones(3, 1, 3, dtype=torch.bool)
    live[1, 0, :2] = False
    live[2] = False  # after the end
    seen_ = played(
        torch.zeros(3, 1, 3, dtype=torch.int64), torch.zeros(3, 1, 3), [2], graph=Graph(topology=RING, live=live)
    )
    assert coordination_metrics(seen_, spec(obs=1))["links"] == 2
