import itertools

import pytest
import torch

from coordination.metrics.equilibria import cooperation_ratio, deviation_stability, nash_equilibria, price_of_anarchy


def test_equilibria_of_classic_games():
    stag = torch.tensor([[4.0, 0.0], [3.0, 3.0]])
    assert nash_equilibria(torch.stack([stag, stag.T])).tolist() == [[True, False], [False, True]]
    pennies = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert not nash_equilibria(torch.stack([pennies, -pennies])).any()
    with pytest.raises(ValueError, match="no pure equilibrium"):
        price_of_anarchy(torch.stack([pennies, -pennies]))


def congestion(strategies):
    """Costs ``[N, A, ..., A]``: every resource costs each of its users their number."""
    n, size = len(strategies), len(strategies[0])
    cost = torch.zeros(n, *[size] * n)
    for joint in itertools.product(range(size), repeat=n):
        used = [r for i, a in enumerate(joint) for r in strategies[i][a]]
        for i, a in enumerate(joint):
            cost[(i, *joint)] = sum(used.count(r) for r in strategies[i][a])
    return cost


def test_affine_congestion_reaches_five_halves():
    """Christodoulou and Koutsoupias 2005: three players, resources h_i and g_i, the bound 5/2 is attained."""
    strategies = [[(f"h{i}", f"g{i}"), (f"h{(i + 1) % 3}", f"h{(i + 2) % 3}", f"g{(i + 1) % 3}")] for i in range(3)]
    anarchy, stability = price_of_anarchy(congestion(strategies), cost=True)
    assert anarchy == pytest.approx(5 / 2)
    assert stability == 1


def test_the_dilemma_loses_a_third():
    payoff = torch.tensor([[3.0, 0.0], [4.0, 2.0]])
    assert price_of_anarchy(torch.stack([payoff, payoff.T])) == pytest.approx((1.5, 1.5))


def test_pigou_with_many_drivers_nears_four_thirds():
    """n drivers, road one costs 1, road two its share of traffic: all on road two, optimum half and half."""
    n = 8
    cost = torch.zeros(n, *[2] * n)
    for joint in itertools.product(range(2), repeat=n):
        for i, road in enumerate(joint):
            cost[(i, *joint)] = sum(joint) / n if road else 1.0
    anarchy, _ = price_of_anarchy(cost, cost=True)
    assert anarchy == pytest.approx(4 / 3)


def test_permuting_agents_permutes_equilibria():
    payoff = torch.rand(3, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    swapped = payoff[[2, 0, 1]].permute(0, 3, 1, 2)
    assert torch.equal(nash_equilibria(swapped), nash_equilibria(payoff).permute(2, 0, 1))


def test_ratios_and_shares():
    assert cooperation_ratio(torch.tensor([7.0, 8.0]), 8.0).tolist() == [0.875, 1]
    with pytest.raises(ValueError, match="optimum: must be positive"):
        cooperation_ratio(1.0, 0.0)
    gain = torch.tensor([[0.0, 0.3, torch.nan], [-1.0, -2.0, 5.0]])
    alive = torch.tensor([[True, True, False], [True, True, True]])
    assert deviation_stability(gain, alive).tolist() == pytest.approx([0.5, 2 / 3])
    with pytest.raises(ValueError, match="one axis of actions per agent"):
        nash_equilibria(torch.ones(2, 3))
    with pytest.raises(ValueError, match="sums must be positive"):
        price_of_anarchy(torch.zeros(1, 2))
