from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from coordination import tree
from coordination.graph import Graph
from coordination.topology import ring
from envs.base import View
from marl.batch import Batch
from marl.returns import gae, n_step, td_lambda, vtrace

N = 2
GRAPH = Graph(ring(N))


def view(number: Tensor, acts: Tensor | None = None) -> View:
    """Views that say in which state they are: ``number [*]``."""
    obs = number.double().reshape(*number.shape, 1, 1).expand(*number.shape, N, 1)
    return View(obs=obs, alive=torch.ones(*number.shape, N, dtype=torch.bool), graph=GRAPH, acts=acts)


def worth(views: View) -> Tensor:
    """A value function ``[*, N]``: twice the state's number, and one more for the second agent."""
    return 2 * views.obs[..., 0] + torch.arange(N)


def four_steps() -> Batch:
    """Two copies for four steps. Copy 0 is truncated after its second step, copy 1 terminates after its third.

    States are numbered 10, 11, ... in copy 0 and 20, 21, ... in copy 1; the next episodes start at 50 and 60. The true
    successor of the truncated step is state 12, which no view in the row holds: it is kept as a final view.
    """
    number = torch.tensor([[10, 20], [11, 21], [50, 22], [51, 60], [52, 61]])
    ended = torch.zeros(4, 2, N, dtype=torch.bool)
    truncated, terminated = ended.clone(), ended.clone()
    truncated[1, 0], terminated[2, 1] = True, True
    start = torch.tensor([[1, 1], [0, 0], [1, 0], [0, 1], [0, 0]], dtype=torch.bool)
    return Batch(
        view=view(number),
        action=torch.zeros(4, 2, N, 1, dtype=torch.int64),
        reward=torch.arange(16, dtype=torch.float64).reshape(4, 2, N),
        terminated=terminated,
        truncated=truncated,
        start=start,
        final=view(torch.tensor([12, 23])),
        final_at=torch.tensor([1 * 2 + 0, 2 * 2 + 1]),
    )


def test_successors_are_the_final_views_where_episodes_were_cut():
    batch = four_steps()
    successor = batch.successor(worth(batch.view), worth(batch.final))
    state = (successor[..., 0] / 2).tolist()
    assert state == [[11, 21], [12, 22], [51, 23], [52, 61]]
    assert torch.equal(successor[..., 1], successor[..., 0] + 1)


def test_without_final_views_successors_are_the_next_views():
    batch = four_steps().replace(final=None, final_at=None)
    value = worth(batch.view)
    assert torch.equal(batch.successor(value, None), value[1:])


def test_gradients_reach_the_values_of_final_views():
    batch = four_steps()
    value, final_value = worth(batch.view).requires_grad_(), worth(batch.final).requires_grad_()
    batch.successor(value, final_value).sum().backward()
    assert (final_value.grad == 1).all()
    read = torch.ones(5, 2)  # the first views follow nothing, and those of new episodes no step of the old one
    read[0], read[2, 0], read[3, 1] = 0, 0, 0
    assert torch.equal(value.grad[..., 0], read.double())


def test_cuts_and_steps():
    batch = four_steps()
    assert batch.steps == 4
    assert batch.cut[..., 0].int().tolist() == [[0, 0], [1, 0], [0, 1], [0, 0]]
    assert (batch.cut[..., 0] == batch.cut[..., 1]).all()


def test_one_agent_may_end_before_its_episode():
    for kind in ("terminated", "truncated"):
        batch = four_steps()
        getattr(batch, kind)[0, 0, 1] = True
        assert batch.cut[0, 0].tolist() == [False, True]


def test_a_copy_may_restart_though_nobody_ended():
    batch = four_steps()
    batch.start[1, 0] = True
    assert batch.cut[0].tolist() == [[True, True], [False, False]]


def test_keep_says_who_chose():
    acts = torch.rand(5, 2, N, generator=torch.Generator().manual_seed(0)) < 0.5
    batch = four_steps()
    assert batch.keep.all()
    turns = batch.replace(view=view(torch.zeros(5, 2), acts))
    assert torch.equal(turns.keep, acts[:4])
    dead = tree.map(lambda x: x, turns.view)
    dead.alive[0] = False
    assert not batch.replace(view=dead).keep[0].any()


def test_states_are_those_acted_on():
    states = four_steps().states()
    assert tree.lead(states) == (8,)
    assert states.obs[:, 0, 0].tolist() == [10, 20, 11, 21, 50, 22, 51, 60]
    assert states.graph.topology is GRAPH.topology


def test_gae_at_the_cuts_by_hand():
    batch = four_steps()
    value = worth(batch.view)
    advantage = gae(
        batch.reward,
        value[:-1],
        batch.successor(value, worth(batch.final)),
        batch.terminated,
        batch.cut,
        gamma=0.5,
        lam=0.5,
    )
    assert advantage[1, 0, 0].item() == 4 + 0.5 * 24 - 22  # truncated in state 11: bootstraps from state 12, not 50
    assert advantage[2, 1, 0].item() == 10 - 44  # terminated in state 22: nothing follows
    assert advantage[0, 0, 0].item() == (0 + 0.5 * 22 - 20) + 0.25 * (4 + 0.5 * 24 - 22)


@st.composite
def rollouts(draw: st.DrawFn) -> Batch:
    """Random episodes as a collector stores them: a final view for every copy that restarts."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 100_000)))
    steps, copies = draw(st.integers(2, 8)), draw(st.integers(1, 3))
    over = torch.rand(steps, copies, generator=generator) < 0.3
    early = (torch.rand(steps, copies, N, generator=generator) < 0.1) & ~over.unsqueeze(-1)
    how = torch.rand(steps, copies, 1, generator=generator) < 0.5
    final_at = over.flatten().nonzero().flatten()
    return Batch(
        view=view(torch.randn(steps + 1, copies, generator=generator)),
        action=torch.zeros(steps, copies, N, 1, dtype=torch.int64),
        reward=torch.randn(steps, copies, N, generator=generator, dtype=torch.float64),
        terminated=early | (over.unsqueeze(-1) & how),
        truncated=over.unsqueeze(-1) & ~how,
        start=torch.cat([torch.ones(1, copies, dtype=torch.bool), over]),
        final=view(torch.randn(len(final_at), generator=generator)),
        final_at=final_at,
    )


def targets(batch: Batch, shift: Tensor, final_shift: Tensor) -> list[Tensor]:
    """Every estimator, on values (and rewards) moved by ``shift [T+1, B]`` and ``final_shift [R]``."""
    value = worth(batch.view) + shift.unsqueeze(-1)
    successor = batch.successor(value, worth(batch.final) + final_shift.unsqueeze(-1))
    reward, ends = batch.reward + shift[:-1].unsqueeze(-1), (batch.terminated, batch.cut)
    return [
        gae(reward, value[:-1], successor, *ends, 0.9, 0.8),
        gae(reward, value[:-1], successor, *ends, 0.9, 0.8, (batch.reward > 0)),
        td_lambda(reward, successor, *ends, 0.9, 0.8),
        n_step(reward, successor, *ends, 0.9, 3),
        *vtrace(reward, value[:-1], successor, *ends, torch.zeros_like(reward), 0.9),
    ]


@given(rollouts(), st.integers(0, 7), st.integers(0, 2))
def test_changing_one_episode_changes_no_target_of_another(batch, step, copy):
    step, copy = step % batch.steps, copy % batch.start.shape[1]
    episode = batch.start.int().cumsum(0)  # [T+1, B], counted within each copy
    mine = torch.zeros_like(batch.start)
    mine[:, copy] = episode[:, copy] == episode[step, copy]
    ended_at = mine[:-1].flatten()[batch.final_at]  # finals that end this episode
    still, final_still = torch.zeros_like(mine, dtype=torch.float64), torch.zeros(len(batch.final_at))
    before = targets(batch, still, final_still)
    after = targets(batch, 100.0 * mine, 100.0 * ended_at)
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[~mine[:-1]], new[~mine[:-1]])
    assert not torch.equal(before[2][mine[:-1]], after[2][mine[:-1]])
