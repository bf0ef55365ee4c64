"""Credit as a reward: what each agent is given of a common outcome, by Shapley value, difference or counterfactual.

Differences and counterfactuals take from the team's outcome something that an agent's present action cannot change, so
within one step they keep what is best for the team given the others; over many steps what is taken depends on states
that earlier actions led to. Shapley values divide the outcome fairly and follow it less closely. So no stage of this
file declares ``policy_invariant``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from coordination.credit import counterfactual, difference, shapley
from coordination.credit.values import DEFAULT_BUDGET, METHODS, ShapleyMethod
from coordination.games import Game, evaluate
from coordination.names import unknown
from coordination.signals.base import AUDIT_TOLERANCE, Trajectory


class Shapley:
    """Every agent is paid its Shapley value: ``r'_i = phi_i`` of a game that says what coalitions would have earned.

    Efficient (the rewards sum to ``v(all) - v(none)``), symmetric, and nothing for those who make no difference
    (Shapley 1953; Wang et al. 2020, arXiv:1907.05707). The sum over agents is conserved if the game plays the rewards
    at hand, ``v(all) - v(none) = sum of r``, with dead agents making no difference; the audit checks both.

    Args:
        game: From the context to a game, batched over all leading axes of the context.
        method, budget: As in :func:`coordination.credit.shapley`.
        seed: Of sampling methods. They draw the same coalitions at every call (common random numbers), so a resumed run
            repeats them.

    Cost: that of the method, at most ``budget`` worths for every step.

    Raises:
        ValueError: For an unknown method; when called, if the game has other leading axes than the context.

    >>> from coordination.games import TabularGame
    >>> context = Trajectory.of([0.0, 4.0])  # agent 0 earns nothing alone, 1 earns 2, together 4
    >>> Shapley(lambda c: TabularGame(torch.tensor([0.0, 0.0, 2.0, 4.0])))(context.reward, context).tolist()
    [1.0, 3.0]
    """

    name = "shapley"
    needs: Literal["transition"] = "transition"
    conserves_sum = True
    policy_invariant = False

    def __init__(
        self,
        game: Callable[[Trajectory], Game],
        method: ShapleyMethod = "auto",
        budget: int = DEFAULT_BUDGET,
        seed: int = 0,
    ) -> None:
        if method not in METHODS:
            raise ValueError(unknown("method", method, METHODS))
        self.method: ShapleyMethod = method
        self.game, self.budget, self.seed = _function("game", game), budget, seed

    def __call__(self, reward: Tensor, context: Trajectory) -> Tensor:
        """``[*, N] -> [*, N]``."""
        draws = torch.Generator().manual_seed(self.seed)
        value = shapley(self.game(context), self.method, self.budget, draws).value
        return _fits(value, context)

    def audit(self, reward: Tensor, result: Tensor, context: Trajectory) -> list[str]:
        """Efficiency: that all values sum to ``v(all) - v(none)``, dead agents being worth nothing."""
        all_and_none = torch.tensor([[True], [False]]).expand(2, context.num_agents)
        worth = evaluate(self.game(context), all_and_none)
        total = (worth[..., 0] - worth[..., 1]).to(result)
        error = (result.sum(-1) - total).abs() / (1 + result.abs().sum(-1) + total.abs())
        if bool((error <= AUDIT_TOLERANCE).all()):
            return []
        return ["the values of living agents do not sum to v(all) - v(none); dead agents must make no difference"]


class FactorShapley:
    """Every factor of the team reward is shared evenly among the living agents it depends on.

    ``r'_i = sum over factors f that hold i of factor_f / |living agents of f|``: the Shapley value of the game in which
    a factor is paid only if all of its agents take part, exact at any size (Harsanyi 1963; each factor is a dividend).
    The sum over agents is conserved if the rewards at hand sum to the factors.

    Args:
        scopes: Agents of each factor, in the order of ``context.factors``.

    O(sum of scope sizes) per step.

    Raises:
        ValueError: If a scope is empty or lists an agent twice; when called, if the context has no such factors.

    >>> context = Trajectory.of([6.0, 0.0, 0.0], factors=[4.0, 2.0])
    >>> FactorShapley([[0, 1], [2]])(context.reward, context).tolist()
    [2.0, 2.0, 2.0]
    """

    name = "factor_shapley"
    needs: Literal["transition"] = "transition"
    conserves_sum = True
    policy_invariant = False

    def __init__(self, scopes: Sequence[Sequence[int]]) -> None:
        for f, scope in enumerate(scopes):
            if not scope or len(set(scope)) != len(scope) or min(scope) < 0:
                raise ValueError(f"scopes: factor {f} must list different agents, got {list(scope)}")
        self.scopes = tuple(tuple(scope) for scope in scopes)
        self._agent = torch.tensor([i for scope in scopes for i in scope], dtype=torch.long)
        self._factor = torch.tensor([f for f, scope in enumerate(scopes) for _ in scope], dtype=torch.long)

    def __call__(self, reward: Tensor, context: Trajectory) -> Tensor:
        """``[*, N] -> [*, N]``."""
        factors = context.factors
        if factors is None or factors.shape[-1] != len(self.scopes):
            found = "none" if factors is None else str(factors.shape[-1])
            raise ValueError(f"factor_shapley: expected {len(self.scopes)} factors in the context, got {found}")
        if self._agent.numel() and int(self._agent.max()) >= context.num_agents:
            raise ValueError(f"scopes: agents are 0..{context.num_agents - 1}, got {int(self._agent.max())}")
        agent, factor = (x.to(reward.device, non_blocking=True) for x in (self._agent, self._factor))
        part = context.alive[..., agent].to(factors.dtype)
        members = torch.zeros_like(factors).index_add(-1, factor, part)
        share = part * (factors / members.clamp(min=1))[..., factor]
        return torch.zeros_like(reward).index_add(-1, agent, share.to(reward.dtype))


class Difference:
    """Every agent is paid what the team would lose without it: ``r'_i = v(all) - v(all without i)``.

    Difference or wonderful-life rewards (Wolpert and Tumer 2002). They are factored: for a change of i's own action
    ``r'_i`` changes by as much as the team's reward. They do not sum to it.

    Args:
        game: From the context to a game, batched over all leading axes of the context; absence may stand for any
            default action (:class:`coordination.games.CriticGame`).

    N + 1 worths for every step; O(E) and O(F K) for pairwise and factored games.

    >>> from coordination.games import TabularGame
    >>> context = Trajectory.of([0.0, 4.0])
    >>> Difference(lambda c: TabularGame(torch.tensor([0.0, 0.0, 2.0, 4.0])))(context.reward, context).tolist()
    [2.0, 4.0]
    """

    name = "difference"
    needs: Literal["transition"] = "transition"
    conserves_sum = False
    policy_invariant = False

    def __init__(self, game: Callable[[Trajectory], Game]) -> None:
        self.game = _function("game", game)

    def __call__(self, reward: Tensor, context: Trajectory) -> Tensor:
        """``[*, N] -> [*, N]``."""
        return _fits(difference(self.game(context)), context)


class Counterfactual:
    """Every agent is paid what its choice was better than its usual one: ``r'_i = q_i(a_i) - sum_a pi_i(a) q_i(a)``.

    The counterfactual baseline of COMA (Foerster et al. 2018, arXiv:1705.08926), or the aristocrat utility where ``q``
    holds exact outcomes (Wolpert and Tumer 2002). Its mean under the agent's own policy is zero in every state, which
    the audit checks, so what is taken away leaves a one-step policy gradient unbiased.

    Args:
        q: From the context to ``[*, N, K]``: what every own action would have been worth, the others' kept.
        policy: From the context to probabilities ``[*, N, K]``; None for the softmax of ``context.logits``.

    O(N K) per step beside ``q``. For one discrete choice per agent.

    >>> context = Trajectory.of([0.0], action=[[1]], logits=[[0.0, 0.0]])
    >>> Counterfactual(lambda c: torch.tensor([[1.0, 3.0]]))(context.reward, context).tolist()
    [1.0]
    """

    name = "counterfactual"
    needs: Literal["transition"] = "transition"
    conserves_sum = False
    policy_invariant = False

    def __init__(self, q: Callable[[Trajectory], Tensor], policy: Callable[[Trajectory], Tensor] | None = None) -> None:
        self.q = _function("q", q)
        self.policy = None if policy is None else _function("policy", policy)

    def __call__(self, reward: Tensor, context: Trajectory) -> Tensor:
        """``[*, N] -> [*, N]``."""
        if context.action.shape[-1] != 1 or context.action.is_floating_point():
            raise ValueError(
                f"counterfactual: needs one discrete choice per agent, got {context.action.shape[-1]} components "
                f"of {context.action.dtype}"
            )
        q, policy = self._inputs(context)
        action = torch.where(context.alive, context.action[..., 0], 0)
        return counterfactual(q, policy, action).to(reward.dtype)

    def audit(self, reward: Tensor, result: Tensor, context: Trajectory) -> list[str]:
        """That what is paid has mean zero under each living agent's policy."""
        q, policy = self._inputs(context)
        actions = torch.arange(q.shape[-1], device=q.device)
        paid = torch.stack([counterfactual(q, policy, a.expand(q.shape[:-1])) for a in actions], -1)
        mean = (policy * torch.where(policy > 0, paid, 0.0)).sum(-1).abs()
        largest = 1 + torch.where(policy > 0, q.abs(), 0.0).amax(-1)
        if bool(torch.where(context.alive, mean <= AUDIT_TOLERANCE * largest, True).all()):
            return []
        return ["the mean under the policy is not zero: probabilities must sum to one"]

    def _inputs(self, context: Trajectory) -> tuple[Tensor, Tensor]:
        if self.policy is not None:
            policy = self.policy(context)
        elif context.logits is not None:
            policy = context.logits.softmax(-1)
        else:
            raise ValueError("counterfactual: the context has no logits; give policy, or record them")
        q = self.q(context)
        if q.shape != policy.shape or q.shape[:-1] != context.reward.shape:
            raise ValueError(
                f"counterfactual: expected q and policy {tuple(context.reward.shape)} and [K], "
                f"got {tuple(q.shape)} and {tuple(policy.shape)}"
            )
        return q, policy


def _function(name: str, value: Callable) -> Callable:
    if not callable(value):
        raise TypeError(f"{name}: expected a function of the context, got {value!r}")
    return value


def _fits(value: Tensor, context: Trajectory) -> Tensor:
    if value.shape != context.reward.shape:
        raise ValueError(
            f"game: expected one game of {context.num_agents} agents for each of {tuple(context.reward.shape[:-1])} "
            f"steps, got values {tuple(value.shape)}"
        )
    return value.to(context.reward)
