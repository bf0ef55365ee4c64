"""Mixers: sums by hand, monotone in every agent's value, teams apart, and the team's best is everyone's best."""

from __future__ import annotations

import itertools

import pytest
import torch

from coordination.graph import Graph
from coordination.topology import Topology
from envs.base import View
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec
from marl.networks.mixers import Alone, Duplex, Mixer, Monotonic, Sum

N, K, M = 4, 3, 6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spec(n: int = N, team: tuple[int, ...] = (0, 0, 1, 1), state: int | None = None) -> AgentSpec:
    return AgentSpec.single(n, ObservationSpec.flat(2), ActionSpec.discrete(K), team=team, state_dim=state)


def mixer(kind: str, agents: AgentSpec) -> Mixer:
    if kind == "monotonic":
        return Monotonic(agents, 8, 16, seeded())
    return Duplex(agents, 16, seeded(), K) if kind == "duplex" else Sum(agents)


def view(n: int = N, seed: int = 1, state: int | None = None) -> View:
    return View(
        torch.randn(M, n, 2, generator=seeded(seed)),
        torch.ones(M, n, dtype=torch.bool),
        Graph(topology=Topology(torch.zeros(2, 0), n)),
        state=None if state is None else torch.randn(M, state, generator=seeded(seed + 1)),
    )


def everyone(n: int = N) -> torch.Tensor:
    return torch.ones(M, n, dtype=torch.bool)


def test_sums_and_teams_by_hand() -> None:
    q, keep = torch.tensor([[1.0, 2.0, 4.0, 8.0]]), torch.tensor([[True, True, True, False]])
    one = View(torch.zeros(1, N, 2), torch.ones(1, N, dtype=torch.bool), view().graph)
    assert Sum(spec())(q, one, keep).tolist() == [[3.0, 4.0]]
    assert Alone(spec())(q, one, keep).tolist() == [[1.0, 2.0, 4.0, 0.0]]
    assert Sum(spec()).of_team(keep, "all").tolist() == [[True, False]]
    assert Sum(spec()).of_team(~keep, "any").tolist() == [[False, True]]
    assert Alone(spec()).of_team(keep, "any").tolist() == keep.tolist()


@pytest.mark.parametrize("kind", ["sum", "monotonic", "duplex"])
@pytest.mark.parametrize("n", [N, 20])
def test_raising_an_agents_value_never_lowers_its_teams_and_touches_no_other(kind: str, n: int) -> None:
    team = tuple(i * 2 // n for i in range(n))
    net = mixer(kind, spec(n, team))
    q = torch.randn(M, n, generator=seeded(2), requires_grad=True)
    for t in range(2):
        (grad,) = torch.autograd.grad(net(q, view(n), everyone(n))[:, t].sum(), q)
        mine = torch.tensor(team) == t
        assert (grad[:, mine] > 0).all()
        assert grad[:, ~mine].abs().max() == 0


@pytest.mark.parametrize("kind", ["sum", "monotonic", "duplex"])
def test_who_does_not_count_changes_nothing(kind: str) -> None:
    net, keep = mixer(kind, spec()), everyone()
    keep[:, 1] = False
    q, best = torch.randn(2, M, N, generator=seeded(2))
    action = torch.rand(M, N, K, generator=seeded(3))
    found = []
    for filler in (0.0, float("nan")):
        fill = [torch.where(keep, x, filler) for x in (q, best)]
        act = torch.where(keep.unsqueeze(-1), action, filler)
        found.append(net(fill[0], view(), keep, fill[1], act))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("kind", ["sum", "monotonic", "duplex"])
@pytest.mark.parametrize("state", [None, 5])
def test_the_teams_best_joint_choice_is_everyones_own_best(kind: str, state: int | None) -> None:
    """Individual-global-max, over all joint choices of a team of three."""
    agents = spec(3, (0, 0, 0), state)
    net, table = mixer(kind, agents), torch.randn(M, 3, K, generator=seeded(4))
    best = table.amax(-1)
    values = []
    for joint in itertools.product(range(K), repeat=3):
        choice = torch.tensor(joint)
        q = table.gather(-1, choice.expand(M, 3).unsqueeze(-1)).squeeze(-1)
        features = torch.nn.functional.one_hot(choice, K).float().expand(M, 3, K)
        values.append(net(q, view(3, state=state), everyone(3), best, features)[:, 0])
    found = torch.stack(values, -1).argmax(-1)
    own = table.argmax(-1) @ torch.tensor([K * K, K, 1])
    assert torch.equal(found, own)


def test_duplex_is_the_same_with_and_without_the_best_where_the_best_is_chosen() -> None:
    net, q = mixer("duplex", spec()), torch.randn(M, N, generator=seeded(2))
    action = torch.rand(M, N, K, generator=seeded(3))
    torch.testing.assert_close(net(q, view(), everyone()), net(q, view(), everyone(), q, action))


def test_above_sixteen_agents_weights_know_no_number() -> None:
    shapes = [
        {name: p.shape for name, p in mixer(kind, spec(n, (0,) * n)).named_parameters()}
        for kind in ("monotonic", "duplex")
        for n in (70, 90)
    ]
    assert shapes[0] == shapes[1]
    assert shapes[2] == shapes[3]
