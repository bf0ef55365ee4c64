import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordination.credit import shapley
from coordination.games import CriticGame, FactorGame, PairwiseGame, TabularGame
from coordination.signals import (
    Counterfactual,
    Difference,
    FactorShapley,
    Redistribute,
    Shapley,
    SharedReward,
    Trajectory,
)

GLOVE = TabularGame(torch.tensor([0.0, 0, 0, 1, 0, 1, 0, 1]))  # agent 0 has a left glove, 1 and 2 a right one


def audited(stage, context):
    bundle = SharedReward([stage], audit=True)(context)
    return bundle.reward, bundle.violations


def test_shapley_pays_the_glove_game_and_keeps_the_sum():
    context = Trajectory.of([1.0, 0.0, 0.0])
    reward, violations = audited(Shapley(lambda c: GLOVE), context)
    assert reward.tolist() == pytest.approx([2 / 3, 1 / 6, 1 / 6])
    assert violations == ()


def test_audit_finds_a_game_that_does_not_play_the_rewards():
    _, violations = audited(Shapley(lambda c: GLOVE), Trajectory.of([3.0, 0.0, 0.0]))
    assert violations[0].startswith("shapley: declares conserves_sum, but a sum changed")
    alive = [[False, True, True]]
    dead = Trajectory.of([[0.0, 0.5, 0.5]], alive=alive)
    _, violations = audited(Shapley(lambda c: TabularGame(GLOVE.values.expand(1, 8))), dead)
    assert any("dead agents must make no difference" in v for v in violations)


def pairwise(context):
    """Own reward, and a product for every pair on a line: a game for every step of the context."""
    own = context.reward.double()
    edges = torch.tensor([[0, 1, 2], [1, 2, 3]])
    return PairwiseGame(own, edges, own[..., edges[0]] * own[..., edges[1]])


@given(seed=st.integers(0, 100))
def test_shapley_and_difference_split_pairs_in_halves_and_count_them_twice(seed):
    own = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(seed))
    context = Trajectory.of(own)
    pair = own[..., :-1] * own[..., 1:]
    around = torch.nn.functional.pad(pair, (0, 1)) + torch.nn.functional.pad(pair, (1, 0))
    for method in ("factor", "exact", "antithetic", "kernel"):
        stage = Shapley(pairwise, method, budget=256)
        torch.testing.assert_close(stage(own, context), own + around / 2, atol=1e-5, rtol=1e-5)
    reward = Difference(pairwise)(own, context)
    torch.testing.assert_close(reward, own + around, atol=1e-6, rtol=1e-5)
    excess = reward.sum(-1) - (own.sum(-1) + pair.sum(-1))
    torch.testing.assert_close(excess, pair.sum(-1), atol=1e-5, rtol=1e-4)  # differences are not efficient


def test_sampled_shapley_repeats_itself_and_depends_on_its_seed():
    context = Trajectory.of(torch.zeros(12))
    game = TabularGame(torch.rand(2**12, generator=torch.Generator().manual_seed(0)))
    first, again, other = (
        Shapley(lambda c: game, "permutation", 64, seed)(context.reward, context) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_differences_are_factored():
    """A change of i's own action moves its reward by exactly as much as the team's, on a random team reward."""
    table = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    default = torch.zeros(3, 1, dtype=torch.float64)

    def team(x):
        return table[tuple(x[..., i, 0].long() for i in range(3))]

    def pay(action):
        context = Trajectory.of(torch.zeros(3), action=torch.tensor(action).unsqueeze(-1))
        return Difference(lambda c: CriticGame(team, c.action.double(), default))(context.reward.double(), context)

    for action in itertools.product(range(3), repeat=3):
        for i, other in itertools.product(range(3), range(3)):
            changed = (*action[:i], other, *action[i + 1 :])
            own, whole = pay(changed)[i] - pay(action)[i], table[changed] - table[action]
            assert own.item() == pytest.approx(whole.item(), abs=1e-6)


@given(seed=st.integers(0, 100))
def test_factor_shapley_is_the_shapley_value_of_factors_that_need_all_their_agents(seed):
    draw = torch.Generator().manual_seed(seed)
    scopes = [[0, 1, 2], [2, 3], [4]]
    factors = torch.randn(5, 3, generator=draw)
    alive = torch.rand(5, 5, generator=draw) < 0.8
    alive[:, [0, 3, 4]] = True  # every factor has a living agent
    raw = torch.zeros(5, 5)
    raw[:, 0] = factors.sum(-1)
    reward, violations = audited(FactorShapley(scopes), Trajectory.of(raw, factors=factors, alive=alive))
    assert violations == ()
    for b in range(5):
        living = [[i for i in scope if alive[b, i]] for scope in scopes]
        game = FactorGame.from_factors(
            [(s, [0.0] * (2 ** len(s) - 1) + [v]) for s, v in zip(living, factors[b].tolist(), strict=True)], 5
        )
        torch.testing.assert_close(reward[b], shapley(game).value.float())


def test_counterfactual_has_mean_zero_and_an_unbiased_gradient():
    """Two agents, one step, softmax policies: the enumerated policy gradient of r' is that of the team reward."""
    draw = torch.Generator().manual_seed(0)
    table = torch.randn(3, 3, generator=draw, dtype=torch.float64)
    logits = torch.randn(2, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    policy = logits.softmax(-1)
    exact = torch.autograd.grad((policy[0].unsqueeze(1) * policy[1] * table).sum(), logits)[0]

    def q(context):
        a, b = context.action[:, 0].tolist()
        return torch.stack([table[:, b], table[a, :]])

    stage, total = Counterfactual(q), torch.zeros_like(exact)
    for joint in itertools.product(range(3), repeat=2):
        context = Trajectory.of(
            torch.zeros(2, dtype=torch.float64), action=[[a] for a in joint], logits=logits.detach()
        )
        reward, violations = audited(stage, context)
        assert violations == ()
        score = logits.log_softmax(-1)[torch.arange(2), list(joint)]
        weight = (policy[0, joint[0]] * policy[1, joint[1]]).detach()
        total += weight * torch.autograd.grad((score * reward).sum(), logits)[0]
    torch.testing.assert_close(total, exact)


def test_audit_finds_probabilities_that_do_not_sum_to_one():
    context = Trajectory.of([0.0], action=[[1]])
    stage = Counterfactual(lambda c: torch.tensor([[1.0, 3.0]]), lambda c: torch.tensor([[0.5, 0.4]]))
    assert "mean under the policy is not zero" in audited(stage, context)[1][0]


@given(seed=st.integers(0, 100))
def test_redistribution_keeps_every_episodes_return(seed):
    draw = torch.Generator().manual_seed(seed)
    reward, score = torch.randn(9, 2, 3, generator=draw), torch.randn(9, 2, 3, generator=draw)
    alive, cut = torch.rand(9, 2, 3, generator=draw) < 0.8, torch.rand(9, 2, 3, generator=draw) < 0.3
    context = Trajectory.of(torch.where(alive, reward, torch.nan), alive=alive, cut=cut)
    moved, violations = audited(Redistribute(lambda c: torch.where(c.alive, score, torch.nan)), context)
    assert violations == ()
    assert moved.isfinite().all()
    for b, i in itertools.product(range(2), range(3)):
        start = 0
        for t in range(9):
            if (cut & alive)[t, b, i] or t == 8:
                own = slice(start, t + 1), b, i
                paid = torch.where(alive, reward, 0.0)[own].sum()
                assert moved[own].sum().item() == pytest.approx(paid.item(), abs=1e-4)
                start = t + 1


def test_bad_games_factors_and_choices_are_refused():
    context = Trajectory.of([[1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match="expected one game of 3 agents for each of"):
        Shapley(lambda c: GLOVE)(context.reward, context)
    with pytest.raises(ValueError, match="unknown method 'exat'; did you mean 'exact'"):
        Shapley(lambda c: GLOVE, "exat")
    with pytest.raises(TypeError, match="game: expected a function of the context"):
        Difference(GLOVE)
    with pytest.raises(ValueError, match="factor_shapley: expected 1 factors in the context, got none"):
        FactorShapley([[0]])(context.reward, context)
    with pytest.raises(ValueError, match="factor 1 must list different agents"):
        FactorShapley([[0], [1, 1]])
    factors = Trajectory.of([[1.0, 2.0, 3.0]], factors=[[1.0]])
    with pytest.raises(ValueError, match=r"agents are 0\.\.2, got 5"):
        FactorShapley([[5]])(factors.reward, factors)
    with pytest.raises(ValueError, match="needs one discrete choice per agent, got 0 components"):
        Counterfactual(lambda c: c.reward)(context.reward, context)
    choice = Trajectory.of([0.0], action=[[0]])
    with pytest.raises(ValueError, match="the context has no logits"):
        Counterfactual(lambda c: torch.zeros(1, 2))(choice.reward, choice)
