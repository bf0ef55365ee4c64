import math
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordination.metrics import interval
from coordination.metrics.roles import (
    adjusted_rand,
    churn,
    hierarchic_social_entropy,
    role_information,
    sampled_silhouette,
    silhouette,
)


def pair_count_ari(a, b):
    """Hubert and Arabie's index over all pairs, one by one."""
    pairs = [(a[i] == a[j], b[i] == b[j]) for i, j in combinations(range(len(a)), 2)]
    both, in_a, in_b = (sum(x) for x in ([p and q for p, q in pairs], [p for p, _ in pairs], [q for _, q in pairs]))
    chance = in_a * in_b / len(pairs)
    return 1.0 if (in_a + in_b) / 2 == chance else (both - chance) / ((in_a + in_b) / 2 - chance)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=12))
def test_adjusted_rand_equals_counting_pairs(labels):
    a, b = (list(x) for x in zip(*labels, strict=True))
    found = adjusted_rand(torch.tensor(a), torch.tensor(b)).item()
    assert found == pytest.approx(pair_count_ari(a, b), abs=1e-6)
    assert adjusted_rand(torch.tensor(b), torch.tensor(a)).item() == pytest.approx(found, abs=1e-6)


def test_adjusted_rand_ignores_names_order_and_dead_agents():
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randint(4, (5, 30), generator=draw), torch.randint(3, (5, 30), generator=draw)
    order, names = torch.randperm(30, generator=draw), torch.tensor([901, 7, 33, 2])
    expected = adjusted_rand(a, b)
    torch.testing.assert_close(adjusted_rand(names[a][:, order], b[:, order]), expected)
    dead = torch.full((5, 4), -1)
    torch.testing.assert_close(adjusted_rand(torch.cat([a, dead], 1), torch.cat([b, dead + 2], 1)), expected)
    assert adjusted_rand(torch.tensor([-1, 0]), torch.tensor([0, 0])).isnan()


def test_planted_roles_score_one_and_unrelated_ones_zero_on_average():
    planted = torch.arange(40) % 4
    assert adjusted_rand(planted, 3 - planted).item() == 1
    draw = torch.Generator().manual_seed(1)
    scores = adjusted_rand(planted.expand(400, 40), torch.randint(4, (400, 40), generator=draw))
    assert abs(scores.mean().item()) < 4 * scores.std().item() / math.sqrt(400)


def test_churn_is_zero_for_fixed_groups_and_sees_a_switch():
    label = torch.tensor([[0, 0, 1, 1], [2, 2, 0, 0], [0, 1, 0, 1]])
    assert churn(label).tolist() == pytest.approx([0, 1 - pair_count_ari([0, 0, 1, 1], [0, 1, 0, 1])])
    with pytest.raises(ValueError, match="at least two steps"):
        churn(label[:1])


def test_role_information_of_fixed_mixed_and_rotating_roles():
    fixed = (torch.arange(6) % 3).expand(10, 6)
    assert role_information(fixed).item() == pytest.approx(math.log(3), abs=1e-6)
    rotating = (torch.arange(6) + torch.arange(9).unsqueeze(1)) % 3
    assert role_information(rotating).item() == pytest.approx(0, abs=1e-6)
    assert role_information(torch.zeros(5, 4, dtype=torch.long)).item() == 0
    # one agent always 0, the other half 0 and half 1: H(1/4) - ln 2 / 2
    half = torch.tensor([[0, 0], [0, 1]])
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) - math.log(2) / 2
    assert role_information(half).item() == pytest.approx(expected, abs=1e-6)
    masked = torch.cat([half, torch.tensor([[-1, -1]])])
    assert role_information(masked).item() == pytest.approx(expected, abs=1e-6)


def test_silhouette_of_tight_and_wrong_groups():
    x = torch.tensor([[0.0], [1.0], [10.0], [11.0], [500.0]])
    right = torch.tensor([0, 0, 7, 7, -1])
    assert silhouette(x, right).item() == pytest.approx((9.5 / 10.5 + 8.5 / 9.5) / 2, abs=1e-6)
    assert silhouette(x, torch.tensor([0, 1, 0, 1, -1])).item() < 0
    # a lonely agent counts zero: distances 1; 9.5 of the pair, by hand
    assert silhouette(x, torch.tensor([0, 0, 1, -1, -1])).item() == pytest.approx((0.9 + 8 / 9) / 3, abs=1e-6)
    with pytest.raises(ValueError, match="needs at least two groups, got 1"):
        silhouette(x, torch.zeros(5, dtype=torch.long))


def test_sampled_silhouette_covers_the_exact_one_as_often_as_its_error_says():
    draw = torch.Generator().manual_seed(0)
    label = torch.arange(60) % 3 - (torch.arange(60) > 56).long() * 4  # the last three do not count
    x = torch.randn(60, 2, generator=draw) + 2 * label.unsqueeze(1)
    exact = silhouette(x, label).item()
    inside = 0
    for _ in range(100):
        low, high = interval(sampled_silhouette(x, label, 100, draw))
        inside += int(low <= exact <= high)
    assert inside >= 88  # of 95 expected: three standard deviations
    with pytest.raises(ValueError, match="samples: must be at least 1, got 0"):
        sampled_silhouette(x, label, 0, draw)


def test_hierarchic_social_entropy_by_hand():
    points = torch.tensor([0.0, 1.0, 3.0])
    distance = (points.unsqueeze(0) - points.unsqueeze(1)).abs()
    two_and_one = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert hierarchic_social_entropy(distance) == pytest.approx(math.log2(3) * 1 + two_and_one * 2)
    assert hierarchic_social_entropy(10 * distance) == pytest.approx(10 * hierarchic_social_entropy(distance))
    assert hierarchic_social_entropy(torch.zeros(5, 5)) == 0
    assert hierarchic_social_entropy(torch.zeros(1, 1)) == 0
    with pytest.raises(ValueError, match="symmetric"):
        hierarchic_social_entropy(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))


def test_labels_must_be_integers():
    with pytest.raises(ValueError, match="labels: expected integers"):
        adjusted_rand(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match=r"got \(3,\) and \(4,\)"):
        adjusted_rand(torch.zeros(3, dtype=torch.long), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="no agent has a role"):
        role_information(torch.full((2, 3), -1))
