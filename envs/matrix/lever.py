"""The lever game: a few agents out of a large pool must each pull a different lever, which takes a word between them.

What can be reached with and without communication is known exactly.
"""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor

from coordination import tree
from envs.base import View
from envs.links import default_graph
from envs.native import Task
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec


@tree.struct
class LeverState:
    """Who was called, and how it went.

    Attributes:
        identity: ``[B, N]`` int64 in ``0..pool-1``, all different within a copy.
        share: ``[B]`` levers pulled, out of all; NaN before the round.
    """

    identity: Tensor = tree.axes("N")
    share: Tensor = tree.axes("")


class Lever(Task[LeverState]):
    """The lever game (Sukhbaatar et al. 2016, arXiv:1605.07736, section 4.1): all called agents pull different levers.

    Every round N agents are drawn from a pool, and each pulls one of N levers, seeing nothing but its own identity
    (one-hot over the pool). All of them are paid the share of levers that somebody pulled, and the episode terminates.

    The agent axis holds the N who are called, in random order, and not the pool. A place on it therefore says nothing,
    **and no policy may know its own**: agents that can tell their places apart (``identity`` other than ``none``,
    ``sharing`` other than ``all``) pull the lever of their place, and are paid 1 without a word.

    - With communication: 1, by pulling the lever of one's rank among the identities heard.
    - Without it: :func:`best_without_communication`; 0.6740 for 5 of 500.
    - Uniformly random: ``1 - (1 - 1/N)^N``; 0.6723 for 5.

    Deviation: the code published with the paper draws with replacement and pays ``(levers pulled - 1) / (N - 1)``, on
    which scale random agents get 0.5904.

    Args:
        num_agents: Agents called, and levers, N. All hear each other up to 64; above, choose a ``graph``.
        pool: Agents there are, at least N; observations take N times as many numbers.

    Raises:
        ValueError: If nobody is called, or more than there are.
    """

    def __init__(self, *, num_agents: int = 5, pool: int = 500) -> None:
        _check_sizes(num_agents, pool)
        self.num_agents, self.pool = num_agents, pool
        self.agents = AgentSpec.single(
            num_agents, ObservationSpec.named(identity=pool), ActionSpec.discrete(num_agents), info={"optimal": "mean"}
        )
        self._graph = default_graph(num_agents)

    def initial(self, generator: torch.Generator, n: int) -> LeverState:
        """Draw without replacement, in random order: those of the pool with the largest of uniform numbers."""
        device = generator.device
        drawn = torch.rand(n, self.pool, generator=generator, device=device).topk(self.num_agents).indices
        return LeverState(drawn, torch.full((n,), torch.nan, device=device))

    def advance(
        self, state: LeverState, action: Tensor, generator: torch.Generator
    ) -> tuple[LeverState, Tensor, Tensor]:
        """Count the levers pulled; the round is over."""
        pulled = torch.zeros(action.shape[:2], device=action.device).scatter_(-1, action[..., 0], 1.0)
        share = pulled.mean(-1)
        reward = share.unsqueeze(-1).repeat(1, self.num_agents)
        return LeverState(state.identity, share), reward, torch.ones_like(reward, dtype=torch.bool)

    def view(self, state: LeverState) -> View:
        """To each agent its own identity."""
        device = state.identity.device
        obs = torch.zeros(*state.identity.shape, self.pool, device=device)
        obs.scatter_(-1, state.identity.unsqueeze(-1), 1.0)
        return View(obs, torch.ones(state.identity.shape, dtype=torch.bool, device=device), self._graph)

    def info(self, state: LeverState) -> dict[str, Tensor]:
        """Whether every lever was pulled."""
        return {"optimal": (state.share == 1).float()}


def best_without_communication(num_agents: int, pool: int) -> float:
    """The most that agents who hear nothing can expect in the lever game.

    It is attained by sharing the identities out evenly among the levers. A lever of ``k`` identities is pulled unless
    none of them is called, so that the expected share is

        ``1 - mean over levers of C(pool - k, N) / C(pool, N)``

    which is convex in k: even numbers are best. Chance does not help, as the expectation is linear in each
    identity's probabilities.

    Args:
        num_agents: Agents called, and levers, N.
        pool: Agents there are.

    Raises:
        ValueError: As in :class:`Lever`.

    >>> round(best_without_communication(5, 500), 4)
    0.674
    """
    _check_sizes(num_agents, pool)
    few, more = divmod(pool, num_agents)
    missed = more * comb(pool - few - 1, num_agents) + (num_agents - more) * comb(pool - few, num_agents)
    return 1 - missed / (num_agents * comb(pool, num_agents))


def _check_sizes(num_agents: int, pool: int) -> None:
    if num_agents < 1:
        raise ValueError(f"num_agents: must be at least 1, got {num_agents}")
    if pool < num_agents:
        raise ValueError(f"pool: must hold at least the num_agents = {num_agents} that are called, got {pool}")
