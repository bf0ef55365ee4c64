"""Credit on a graph, checked on exactly solved SysAdmin rings (transitions by hand, values by linear solve)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordination.credit import hop_credit, smooth, truncation_bound
from coordination.topology import Topology


def ring(n: int) -> Topology:
    i = np.arange(n)
    return Topology(np.stack([np.r_[i, (i + 1) % n], np.r_[(i + 1) % n, i]]), n, "ring")


def sysadmin(n: int, reboot: torch.Tensor, cost: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Machines on a ring: transition matrix, expected rewards [2^n, n] and states [2^n, n] under a policy.

    Up stays up with probability .45 + .5 (1 + neighbours up) / 3, down comes up with .05, a reboot always brings up.
    ``reboot [n, 2]``: probability that each agent reboots its machine when it is down or up. Reward: up, less cost.
    """
    state = (torch.arange(1 << n).unsqueeze(1) >> torch.arange(n) & 1).double()
    stays = 0.45 + 0.5 * (1 + state.roll(1, 1) + state.roll(-1, 1)) / 3
    keep = torch.where(state > 0, stays, 0.05)
    acts = reboot[torch.arange(n), state.long()]
    up = acts + (1 - acts) * keep
    transition = torch.where(state.unsqueeze(0) > 0, up.unsqueeze(1), 1 - up.unsqueeze(1)).prod(-1)
    return transition, state - cost * acts, state


def gradients(n: int, logits: torch.Tensor, gamma: float, cost: float) -> torch.Tensor:
    """d J_j / d logits_i, exactly: ``[n (i), parameters, n (j)]``, for the mean over starting states."""
    logits = logits.clone().requires_grad_()
    transition, reward, _ = sysadmin(n, logits.sigmoid(), cost)
    value = torch.linalg.solve(torch.eye(1 << n, dtype=torch.float64) - gamma * transition, reward).mean(0)
    rows = [torch.autograd.grad(v, logits, retain_graph=True)[0] for v in value]
    return torch.stack(rows, -1)


@pytest.fixture(scope="module")
def exact() -> torch.Tensor:
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 2)))
    return gradients(6, logits, gamma=0.9, cost=0.75)


def against_team(exact: torch.Tensor, credit) -> tuple[float, float]:
    """Relative error and cosine of the gradient with agent i learning from the i-th mixture of rewards."""
    team = exact.sum(-1)
    # the gradient of sum_j M_ij J_j: mix along j, keep the agent's own row i
    mixed = torch.stack([credit(exact[:, p])[torch.arange(6), torch.arange(6)] for p in range(2)], 1)
    error = (mixed - team).norm() / team.norm()
    return float(error), float((mixed * team).sum() / mixed.norm() / team.norm())


@pytest.mark.parametrize(
    ("k", "error", "cosine"), [(0, 0.1232, 0.99270), (1, 0.0124, 0.999925), (2, 0.0011, 0.999999), (3, 0.0, 1.0)]
)
def test_hop_sums_against_the_exact_gradient(exact, k, error, cosine):
    found = against_team(exact, lambda x: hop_credit(x, ring(6), k, normalisation="unbiased"))
    assert found == (pytest.approx(error, abs=6e-5), pytest.approx(cosine, abs=6e-6))


@pytest.mark.parametrize(
    ("rounds", "cosine"), [(1, 0.999925), (2, 0.99899), (3, 0.99974), (5, 0.99989), (10, 0.999997)]
)
def test_smoothing_against_the_exact_gradient(exact, rounds, cosine):
    assert against_team(exact, lambda x: smooth(x, ring(6), rounds))[1] == pytest.approx(cosine, abs=1e-5)


@pytest.mark.parametrize(
    ("decay", "error", "cosine"), [(0.5, 0.0646, 0.99796), (0.75, 0.0331, 0.99946), (0.9, 0.0135, 0.99991)]
)
def test_spatial_discounts_against_the_exact_gradient(exact, decay, error, cosine):
    found = against_team(exact, lambda x: hop_credit(x, ring(6), 3, normalisation="unbiased", decay=decay))
    assert found == (pytest.approx(error, abs=6e-5), pytest.approx(cosine, abs=6e-6))


def test_values_decay_with_distance_and_stay_below_the_bound():
    n, gamma = 8, 0.9
    reboot = torch.tensor([0.3, 0.0], dtype=torch.float64).expand(n, 2)
    transition, reward, state = sysadmin(n, reboot, cost=0.0)
    value = torch.linalg.solve(torch.eye(1 << n, dtype=torch.float64) - gamma * transition, reward)
    widest = []
    for k in range(4):
        near = state[:, [d % n for d in range(-k, k + 1)]]  # the k-hop neighbourhood of agent 0
        key = (near.long() << torch.arange(2 * k + 1)).sum(1)
        spread = [value[key == c, 0].max() - value[key == c, 0].min() for c in key.unique()]
        widest.append(float(max(spread)))
    assert widest == pytest.approx([1.205, 0.326, 0.0807, 0.0184], rel=3e-3)
    bounds = [truncation_bound(1.0, gamma, k) for k in range(4)]
    assert bounds == pytest.approx([9.0, 8.1, 7.29, 6.561])
    assert all(w < b for w, b in zip(widest, bounds, strict=True))


def random_graph(seed: int, n: int = 12) -> Topology:
    a = np.random.default_rng(seed).random((n, n)) < 0.2
    np.fill_diagonal(a, False)
    return Topology(np.stack(a.nonzero()), n)


@given(st.integers(0, 1000), st.integers(0, 3), st.sampled_from([1.0, 0.5]))
def test_hop_credit_against_its_definition(seed, k, decay):
    topology = random_graph(seed)
    reward = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 12)))
    weight = torch.zeros(12, 12, dtype=torch.float64)
    for i in range(12):
        reached = {i: 0}
        for d in range(1, k + 1):
            for src, dst in topology.edges.T.tolist():
                if reached.get(src) == d - 1:
                    reached.setdefault(dst, d)
        for j, d in reached.items():
            weight[i, j] = decay**d  # i's action reaches j, so i is given j's reward
    plain = hop_credit(reward, topology, k, normalisation="unbiased", decay=decay)
    assert torch.allclose(plain, reward @ weight.T)
    split = hop_credit(reward, topology, k, normalisation="conserve", decay=decay)
    assert torch.allclose(split, reward @ (weight / weight.sum(0)).T)
    assert torch.allclose(split.sum(-1), reward.sum(-1))


def test_the_dead_give_and_get_nothing():
    alive = torch.tensor([[True, False, True, True]])
    reward = torch.tensor([[1.0, torch.nan, 4.0, 8.0]])
    plain = hop_credit(reward, ring(4), 1, normalisation="unbiased", alive=alive)
    assert plain.tolist() == [[9.0, 0.0, 12.0, 13.0]]
    split = hop_credit(reward, ring(4), 1, normalisation="conserve", alive=alive)
    assert split.sum().item() == pytest.approx(13.0)
    assert split[0, 1].item() == 0.0


def test_smoothing_keeps_sums_and_constants_and_reaches_k_hops():
    topology = ring(9)
    reward = torch.zeros(9, dtype=torch.float64)
    reward[4] = 1.0
    spread = smooth(reward, topology, 3)
    assert spread.nonzero().flatten().tolist() == list(range(1, 8))
    assert spread.sum().item() == pytest.approx(1.0)
    assert torch.allclose(smooth(torch.full((2, 9), 3.0), topology, 5), torch.full((2, 9), 3.0))


def test_gradients_flow_through_credit():
    reward = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    for mode in ("unbiased", "conserve"):
        assert torch.autograd.gradcheck(lambda r, m=mode: hop_credit(r, ring(5), 1, normalisation=m, decay=0.5), reward)
    assert torch.autograd.gradcheck(lambda r: smooth(r, ring(5), 2), reward)


def test_bad_input_is_refused():
    reward = torch.zeros(4)
    with pytest.raises(ValueError, match="normalisation: unbiased or conserve"):
        hop_credit(reward, ring(4), 1, normalisation="mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rounds: must not be negative"):
        smooth(reward, ring(4), -1)
    with pytest.raises(ValueError, match="needs an undirected graph"):
        smooth(reward, Topology([[0], [1]], 4), 1)
    with pytest.raises(ValueError, match=r"gamma in \[0, 1\)"):
        truncation_bound(1.0, 1.0, 1)
