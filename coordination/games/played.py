"""Games that something else plays: a critic, an environment, or another game inside the parts of a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse import csgraph
from torch import Tensor

from coordination.games.base import Game, as_mask, evaluate
from coordination.topology import Topology


@dataclass(frozen=True, eq=False)
class CriticGame:
    """A critic's value when absent agents are replaced by a baseline: ``v(S) = critic(x_S, baseline elsewhere)``.

    Wolpert and Tumer 2002 call the baseline the clamping parameter; with ``x`` the joint action and a default action
    as baseline this is the game behind difference rewards and Shapley Q-values (Wang et al. 2020, arXiv:1907.05707).

    Args:
        critic: ``[M, *, N, D] -> [M, *]``: one number for every joint input.
        present: ``[*, N, D]`` what the agents do (or see).
        absent: ``[N, D]`` or ``[*, N, D]``: what stands in for an absent agent.

    Raises:
        ValueError: If the shapes disagree, or the critic returns another shape.

    >>> game = CriticGame(lambda x: x.sum((-1, -2)), torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1))
    >>> game.value(torch.tensor([[True, False]])).tolist()
    [1.0]
    """

    critic: Callable[[Tensor], Tensor]
    present: Tensor
    absent: Tensor

    def __post_init__(self) -> None:
        present, absent = torch.as_tensor(self.present), torch.as_tensor(self.absent)
        if present.ndim < 2 or absent.shape not in (present.shape, present.shape[-2:]):
            raise ValueError(
                f"CriticGame: expected present [*, N, D] and absent of that shape or [N, D], got "
                f"{tuple(present.shape)} and {tuple(absent.shape)}"
            )
        object.__setattr__(self, "present", present)
        object.__setattr__(self, "absent", absent.expand_as(present))

    @property
    def num_agents(self) -> int:
        """Number of agents N."""
        return self.present.shape[-2]

    def value(self, mask: Tensor | np.ndarray) -> Tensor:
        """``[M, N] -> [*, M]``: one critic evaluation of M joint inputs."""
        member = as_mask(mask, self.num_agents).to(self.present.device)
        lead = self.present.shape[:-2]
        member = member.reshape(-1, *(1,) * len(lead), self.num_agents, 1)
        worth = self.critic(torch.where(member, self.present, self.absent))
        if worth.shape != (member.shape[0], *lead):
            raise ValueError(f"critic: expected {(member.shape[0], *lead)}, got {tuple(worth.shape)}")
        return worth.movedim(0, -1)


@dataclass(frozen=True, eq=False)
class EnvGame:
    """A game played by a reward function, refused where it is not a function of its coalition.

    Every call evaluates the coalitions twice, the second time in reverse order: a worth that depends on hidden
    randomness, on earlier calls or on its neighbours in the batch is found out.

    Args:
        reward: ``mask [M, N] -> [M]`` worths.
        num_agents: Number of agents N.
        tolerance: Largest relative difference taken for rounding.

    Raises:
        ValueError: If two evaluations of a coalition differ.

    >>> size = EnvGame(lambda mask: mask.sum(-1).float() ** 2, num_agents=3)
    >>> size.value(torch.tensor([[True, False, True]])).tolist()
    [4.0]
    """

    reward: Callable[[Tensor], Tensor]
    num_agents: int
    tolerance: float = 1e-6

    def value(self, mask: Tensor | np.ndarray) -> Tensor:
        """``[M, N] -> [M]``, two evaluations a coalition."""
        mask = as_mask(mask, self.num_agents)
        first = torch.as_tensor(self.reward(mask))
        again = torch.as_tensor(self.reward(mask.flip(0)))
        if first.shape != (mask.shape[0],) or again.shape != first.shape:
            raise ValueError(f"reward: expected [M] = ({mask.shape[0]},), got {tuple(first.shape)}")
        again = again.flip(0)
        differs = (first - again).abs() > self.tolerance * (1 + first.abs())
        if differs.any():
            m = int(differs.nonzero()[0])
            raise ValueError(
                f"reward: not a function of its coalition: {mask[m].nonzero().flatten().tolist()} gave "
                f"{float(first[m])}, then {float(again[m])}; fix its seed and state before every evaluation, or average"
            )
        return first


@dataclass(frozen=True, eq=False)
class RestrictedGame:
    """A game on a graph: a coalition is worth what its connected parts are worth, ``v(S) = sum of v(component)``.

    Myerson 1977. Links join in both directions, whichever way their edges point.

    Args:
        game: The game played inside a component.
        topology: Who can cooperate directly.

    Raises:
        ValueError: If game and topology have different numbers of agents.

    >>> from coordination.games import TabularGame
    >>> line, pairs = Topology([[0, 1], [1, 2]], 3), TabularGame([0.0, 0, 0, 1, 0, 1, 1, 1])
    >>> RestrictedGame(pairs, line).value(torch.tensor([[True, False, True]])).tolist()  # not linked
    [0.0]
    """

    game: Game
    topology: Topology

    def __post_init__(self) -> None:
        if self.game.num_agents != self.topology.num_agents:
            raise ValueError(f"topology: expected {self.game.num_agents} agents, got {self.topology.num_agents}")

    @property
    def num_agents(self) -> int:
        """Number of agents N."""
        return self.game.num_agents

    def value(self, mask: Tensor | np.ndarray) -> Tensor:
        """``[M, N] -> [*, M]``, O(M (N + E)) and one worth for every component."""
        mask = as_mask(mask, self.num_agents).cpu()
        m, n = mask.shape
        src, dst = self.topology.edges
        inside = mask[:, src] & mask[:, dst]
        row, edge = inside.nonzero(as_tuple=True)
        links = sp.coo_array((np.ones(row.numel()), (row * n + src[edge], row * n + dst[edge])), shape=(m * n, m * n))
        component = torch.from_numpy(csgraph.connected_components(links, directed=False)[1]).long()
        component = component[mask.flatten()]
        row, agent = mask.nonzero(as_tuple=True)
        _, number = component.unique(return_inverse=True)
        count = int(number.max()) + 1 if number.numel() else 0
        parts = torch.zeros(count, n, dtype=torch.bool)
        parts[number, agent] = True
        owner = torch.zeros(count, dtype=torch.long).scatter_(0, number, row)
        worth = evaluate(self.game, parts)
        return worth.new_zeros(*worth.shape[:-1], m).index_add_(-1, owner.to(worth.device), worth)
