"""Hedonic best response: agents move one by one to the coalition where they add most, until nobody gains by moving."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from coordination.coalition.base import Coalitions, canonical, finish, single
from coordination.coalition.moving import move_to_rest, random_order, symmetric_links
from coordination.coalition.optimal.bounds import upper_bound
from coordination.games import Game, PairwiseGame, evaluate
from coordination.topology import Topology


@dataclass(frozen=True)
class BestResponse:
    """Coalitions from which no single agent gains by moving, each being paid what it adds.

    Agent i gets ``u_i(C) = v(C) - v(C without i)``. A move changes the total worth by exactly the mover's gain, so
    total worth is a potential and the moves end in a Nash-stable partition (a local optimum, not the best). On a
    :class:`PairwiseGame` this is best response in the symmetric additively separable hedonic game of its weights
    (Bogomolnaia and Jackson 2002), O(E) a pass, 100,000 agents and more; on other games a pass costs O(N C) worths.

    Args:
        max_passes: A safeguard; moves end by themselves.

    >>> game = PairwiseGame(torch.zeros(3), [[0, 1, 0], [1, 2, 2]], torch.tensor([2.0, -3.0, 1.0]))
    >>> BestResponse().form(game).label.tolist()
    [0, 0, 1]
    """

    max_passes: int = 1_000

    def form(
        self,
        game: Game | None,
        topology: Topology | None = None,
        *,
        features: Tensor | None = None,
        previous: Coalitions | None = None,
        generator: torch.Generator | None = None,
    ) -> Coalitions:
        """See :class:`Former`. Starts from ``previous`` (or everybody alone).

        With ``topology`` agents of a general game join coalitions of their neighbours only. Agents move in a random
        order where a generator is given, by number otherwise.
        """
        game = single(game, "BestResponse")
        n = game.num_agents
        label = starting_label(previous, n)
        order = np.arange(n) if generator is None else random_order(n, generator)
        if isinstance(game, PairwiseGame):
            links = symmetric_links(game.edges, game.pair, n)
            label = move_to_rest(links, label, order, max_passes=self.max_passes)
        else:
            label = self._general(game, topology, label, order)
        return finish(game, label, upper_bound(game))

    def _general(self, game: Game, topology: Topology | None, label: np.ndarray, order: np.ndarray) -> np.ndarray:
        for _ in range(self.max_passes):
            moves = [best_move(game, topology, label, int(i)) for i in order]
            if not any(moves):
                return label
        raise RuntimeError(f"BestResponse: still moving after {self.max_passes} passes; raise max_passes")


def best_move(game: Game, topology: Topology | None, label: np.ndarray, agent: int) -> bool:
    """Move one agent in ``label`` (in place) to where it adds most; whether it moved. O(C) worths."""
    own = label[agent]
    targets = np.unique(label)
    if topology is not None:
        src, dst = topology.edges.numpy()
        heard = np.r_[src[dst == agent], dst[src == agent]]
        targets = np.unique(np.r_[label[heard], own])
    without = torch.from_numpy(label == targets[:, None])
    without[:, agent] = False
    without = torch.cat([without, torch.zeros(1, label.size, dtype=torch.bool)])  # alone
    joined = without.clone()
    joined[:, agent] = True
    worth = evaluate(game, torch.cat([joined, without])).detach().double().cpu()
    adds = (worth[: len(joined)] - worth[len(joined) :]).numpy()
    best = int(adds.argmax())
    if adds[best] <= adds[np.searchsorted(targets, own)] + 1e-9 * float(worth.abs().max()):
        return False
    label[agent] = targets[best] if best < len(targets) else np.setdiff1d(np.arange(label.size), label)[0]
    return True


def starting_label(previous: Coalitions | None, num_agents: int) -> np.ndarray:
    """``[N]`` labels to start from, in 0..N-1: the previous ones (agents of no coalition alone), or everybody alone.

    Raises:
        ValueError: If the previous labels have another shape.
    """
    if previous is None:
        return np.arange(num_agents)
    if previous.label.shape != (num_agents,):
        raise ValueError(f"previous: expected labels [N] = ({num_agents},), got {tuple(previous.label.shape)}")
    label = canonical(previous.label).cpu().numpy().copy()
    idle = label < 0
    label[idle] = label.max(initial=-1) + 1 + np.arange(idle.sum())
    return label
