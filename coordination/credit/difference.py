"""Counterfactual credit: what changes when one agent is taken away, or acts otherwise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from coordination.arrays import Array
from coordination.games import FactorGame, Game, PairwiseGame, evaluate


def difference(game: Game) -> Tensor:
    """Difference rewards ``D_i = v(N) - v(N without i)`` (Wolpert and Tumer 2002, with absence as the default).

    A change of agent i's own contribution changes D_i by as much as v(N) (they are factored), so D_i may replace the
    team reward for each agent without changing what is best for the team given the others; they do not sum to v(N).
    With a :class:`CriticGame` absence is any default action.

    Args:
        game: One game or a batch.

    Returns:
        ``[*, N]``. N + 1 worths; O(E) on a :class:`PairwiseGame`, O(F K) on a :class:`FactorGame`.

    >>> difference(PairwiseGame(torch.zeros(3), [[0, 1], [1, 2]], torch.tensor([2.0, 4.0]))).tolist()
    [2.0, 6.0, 4.0]
    """
    if isinstance(game, PairwiseGame):
        return game.unary.index_add(-1, game.edges[0], game.pair).index_add(-1, game.edges[1], game.pair)
    if isinstance(game, FactorGame):
        used = game.scopes >= 0
        bit = used.long() << torch.arange(used.shape[1], device=used.device)
        full = bit.sum(-1, keepdim=True)
        factor = torch.arange(used.shape[0], device=used.device).unsqueeze(-1)
        loss = game.tables[..., factor, full] - game.tables[..., factor, full - bit]  # [*, F, K]; padding loses nothing
        owner = torch.where(used, game.scopes, 0).flatten()
        return loss.new_zeros(*loss.shape[:-2], game.num_agents).index_add(-1, owner, loss.flatten(-2))
    n = game.num_agents
    worth = evaluate(game, torch.cat([torch.ones(1, n, dtype=torch.bool), ~torch.eye(n, dtype=torch.bool)]))
    return worth[..., :1] - worth[..., 1:]


def counterfactual(q: Array, policy: Array, action: Array) -> Tensor:
    """Advantage over one's own policy: ``A_i = Q(a_i) - sum over a of pi_i(a) Q(a)`` with the others' actions kept.

    The counterfactual baseline of COMA (Foerster et al. 2018, arXiv:1705.08926, eq. 4); with ``q`` the exact outcomes
    of unilateral changes it is the aristocrat utility of Wolpert and Tumer 2002. Its mean under the policy is zero, so
    it leaves the policy gradient unbiased. Differentiable in ``q`` and ``policy``. O(N K).

    Args:
        q: ``[*, N, K]`` value of each action of each agent, the others' actions kept; whatever stands at actions of
            probability 0 is ignored.
        policy: ``[*, N, K]`` probabilities.
        action: ``[*, N]`` int64 actions taken.

    Returns:
        ``[*, N]``.

    Raises:
        ValueError: If shapes disagree.

    >>> counterfactual(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.5, 0.5]]), torch.tensor([1])).tolist()
    [1.0]
    """
    q, policy, action = torch.as_tensor(q), torch.as_tensor(policy), torch.as_tensor(action)
    if q.shape != policy.shape or action.shape != q.shape[:-1]:
        raise ValueError(
            f"counterfactual: expected q and policy [*, N, K], action [*, N]; got {tuple(q.shape)}, "
            f"{tuple(policy.shape)}, {tuple(action.shape)}"
        )
    baseline = (policy * torch.where(policy > 0, q, 0.0)).sum(-1)
    return q.gather(-1, action.unsqueeze(-1)).squeeze(-1) - baseline


def unilateral_values(team: Callable[[Tensor], Tensor], action: Array, num_actions: int) -> Tensor:
    """``Q_i(a) = G(a_i replaced by a)`` for every agent and action: the outcomes of all unilateral changes.

    The clamped outcomes of Wolpert and Tumer (2002). O(N^2 K) numbers and N K outcomes.

    Args:
        team: ``[M, *, N]`` joint actions -> ``[M, *]`` outcomes G.
        action: ``[*, N]`` int64 actions taken.
        num_actions: Actions K of each agent.

    Returns:
        ``[*, N, K]``. One call with M = N K joint actions.

    >>> unilateral_values(lambda a: a.sum(-1).float(), torch.tensor([0, 1]), 2).tolist()
    [[1.0, 2.0], [0.0, 1.0]]
    """
    action = torch.as_tensor(action)
    n = action.shape[-1]
    joint = action.expand(n, num_actions, *action.shape).clone()
    agent = torch.arange(n, device=action.device)
    choice = torch.arange(num_actions, device=action.device).reshape(-1, *(1,) * (action.ndim - 1))
    joint.movedim(-1, 1)[agent, agent] = choice
    worth = team(joint.flatten(0, 1))
    if worth.shape != (n * num_actions, *action.shape[:-1]):
        raise ValueError(f"team: expected {(n * num_actions, *action.shape[:-1])} outcomes, got {tuple(worth.shape)}")
    return worth.unflatten(0, (n, num_actions)).movedim((0, 1), (-2, -1))


def aristocrat(team: Callable[[Tensor], Tensor], action: Array, policy: Array) -> Tensor:
    """Aristocrat utility ``AU_i = G(z) - E over a ~ pi_i of G(z with a_i = a)`` (Wolpert and Tumer 2002). N K outcomes.

    O(N K) outcomes.

    Args:
        team: ``[M, *, N]`` joint actions -> ``[M, *]`` outcomes.
        action: ``[*, N]`` actions taken.
        policy: ``[*, N, K]`` probabilities.

    Returns:
        ``[*, N]``, with mean zero under each agent's own policy.

    >>> aristocrat(lambda a: a.prod(-1).float(), torch.tensor([1, 1]), torch.full((2, 2), 0.5)).tolist()
    [0.5, 0.5]
    """
    return counterfactual(unilateral_values(team, action, policy.shape[-1]), policy, action)
