"""Stability of a partition when agents judge coalitions by what they get: Nash, individual, contractual, core."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor

from coordination.coalition.base import canonical, members
from coordination.games import Game, evaluate, unpack_bits

Notion = Literal["rational", "nash", "individual", "contractual", "core"]
CORE_LIMIT = 16  # agents whose 2^N coalitions are all looked at
TOLERANCE = 1e-9  # relative: a smaller gain tempts nobody


class Hedonic(Protocol):
    """Who likes which coalition how much."""

    @property
    def num_agents(self) -> int:
        """Number of agents N."""
        ...

    def utility(self, agent: Tensor, mask: Tensor) -> Tensor:
        """What ``agent[m]`` gets in the coalition ``mask[m]``, of which it is a member: ``[M], [M, N] -> [M]``."""
        ...


@dataclass(frozen=True, eq=False)
class AdditiveHedonic:
    """Additively separable preferences: ``u_i(C) = sum of w_ij over j in C`` (Bogomolnaia and Jackson 2002).

    Args:
        weight: ``[N, N]``, what agent i (row) gets from being with agent j; the diagonal is not looked at.

    >>> stalker = AdditiveHedonic(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    >>> [is_stable(torch.tensor(p), stalker, "nash") for p in ([0, 0], [0, 1])]
    [False, False]
    """

    weight: Tensor

    def __post_init__(self) -> None:
        weight = torch.as_tensor(self.weight).double()
        if weight.ndim != 2 or weight.shape[0] != weight.shape[1]:
            raise ValueError(f"weight: expected [N, N], got {tuple(weight.shape)}")
        object.__setattr__(self, "weight", weight - torch.diag(weight.diagonal()))

    @property
    def num_agents(self) -> int:
        """Number of agents N."""
        return self.weight.shape[0]

    def utility(self, agent: Tensor, mask: Tensor) -> Tensor:
        """``[M], [M, N] -> [M]``, O(M N)."""
        return (self.weight[agent] * mask).sum(-1)


@dataclass(frozen=True, eq=False)
class Shares:
    """Preferences from a game by a fixed rule of division.

    Args:
        game: What coalitions are worth.
        rule: ``marginal`` what the agent adds, ``v(C) - v(C without i)`` · ``equal`` ``v(C) / |C|``.

    >>> from coordination.games import TabularGame
    >>> both = torch.tensor([[True, True]])
    >>> Shares(TabularGame([0.0, 1.0, 2.0, 7.0])).utility(torch.tensor([0]), both).tolist()
    [5.0]
    """

    game: Game
    rule: Literal["marginal", "equal"] = "marginal"

    @property
    def num_agents(self) -> int:
        """Number of agents N."""
        return self.game.num_agents

    def utility(self, agent: Tensor, mask: Tensor) -> Tensor:
        """``[M], [M, N] -> [M]``, one or two worths each."""
        worth = evaluate(self.game, mask).double()
        if self.rule == "equal":
            return worth / mask.sum(-1).to(worth.device)
        without = mask.clone()
        without[torch.arange(len(agent), device=agent.device), agent] = False
        return worth - evaluate(self.game, without).double()


def is_stable(label: Tensor, hedonic: Hedonic, notion: Notion) -> bool:
    """Whether a partition is stable.

    Definitions as in Aziz and Savani 2016 (Handbook of Computational Social Choice, chapter 15).
    ``rational``: nobody prefers being alone · ``nash``: nobody prefers another existing coalition or being alone ·
    ``individual``: nobody prefers one whose members all accept (none loses) · ``contractual``: nor one that also those
    left behind accept · ``core``: no set of agents would all be better off by themselves (all 2^N are looked at, N at
    most 16; :func:`blocking_coalition` searches by samples above).

    Each implies the ones it weakens: nash => individual => contractual and rational.

    Args:
        label: ``[N]`` partition of all agents.
        hedonic: What everybody gets.
        notion: See above.

    Cost: O(N C) utilities; for ``individual`` and ``contractual`` N more for every tempting move; for ``core`` N
    2^(N-1).

    >>> friends = AdditiveHedonic(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    >>> is_stable(torch.tensor([0, 0]), friends, "core"), is_stable(torch.tensor([0, 1]), friends, "core")
    (True, False)
    """
    if notion not in ("rational", "nash", "individual", "contractual", "core"):
        raise ValueError(f"notion: one of rational, nash, individual, contractual, core; got {notion!r}")
    label = canonical(label)
    if label.shape != (hedonic.num_agents,) or bool((label < 0).any()):
        raise ValueError(f"label: expected a coalition for each of {hedonic.num_agents} agents, got {label.tolist()}")
    if notion == "core":
        return blocking_coalition(label, hedonic) is None
    agent, _, joined = tempting_moves(label, hedonic)
    if notion == "rational":
        return not bool((joined.sum(-1) == 1).any())
    if notion == "nash":
        return len(agent) == 0
    masks = members(label)
    for i, mask in zip(agent, joined, strict=True):
        others = mask.clone()
        others[i] = False
        accepted = _none_loses(hedonic, others, others, mask)
        if accepted and notion == "contractual":
            left = masks[label[i]].clone()
            left[i] = False
            accepted = _none_loses(hedonic, left, masks[label[i]], left)
        if accepted:
            return False
    return True


def tempting_moves(label: Tensor, hedonic: Hedonic) -> tuple[Tensor, Tensor, Tensor]:
    """All moves of one agent to another coalition, or to being alone, that it gains by.

    Nash deviations: ``u_i(C with i) > u_i(own coalition)`` (Bogomolnaia and Jackson 2002).

    Returns:
        Agents ``[M]``, coalitions ``[M]`` (C stands for alone), and the coalitions with the agent in ``[M, N]``. O(N C)
        utilities.

    >>> friends = AdditiveHedonic(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    >>> tempting_moves(torch.tensor([0, 1]), friends)[0].tolist()
    [0, 1]
    """
    label = canonical(label)
    masks = members(label)
    (count, n) = masks.shape
    now = hedonic.utility(torch.arange(n, device=label.device), masks[label])
    options = torch.cat([masks, masks.new_zeros(1, n)])
    found = []
    for i in range(n):
        joined = options.clone()
        joined[:, i] = True
        gets = hedonic.utility(torch.full((count + 1,), i, device=label.device), joined)
        better = gets > now[i] + TOLERANCE * (1 + now[i].abs())
        better[label[i]] = False
        target = better.nonzero().flatten()
        found.append((torch.full_like(target, i), target, joined[target]))
    agents, targets, masks = (torch.cat(part) for part in zip(*found, strict=True))
    return agents, targets, masks


def blocking_coalition(
    label: Tensor, hedonic: Hedonic, samples: int | None = None, generator: torch.Generator | None = None
) -> Tensor | None:
    """A set of agents ``[N]`` bool who would all gain by being together, or None.

    A set S blocks if ``u_i(S) > u_i(own coalition)`` for every i in S (Bogomolnaia and Jackson 2002). O(N) utilities
    for every set looked at.

    Args:
        label: ``[N]`` partition.
        hedonic: What everybody gets.
        samples: None looks at all 2^N sets (N at most 16): then None as a result proves core stability. A number draws
            that many random sets of random sizes: then None proves nothing.
        generator: For the samples.

    Raises:
        ValueError: For more than 16 agents without samples, or samples without a generator.

    >>> friends = AdditiveHedonic(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    >>> blocking_coalition(torch.tensor([0, 1]), friends).tolist()
    [True, True]
    """
    label = canonical(label)
    n = hedonic.num_agents
    if samples is None:
        if n > CORE_LIMIT:
            raise ValueError(f"core: {n} agents have 2^{n} coalitions, at most {CORE_LIMIT}; search by samples instead")
        sets = unpack_bits(torch.arange(1, 1 << n, device=label.device), n)
    else:
        if generator is None:
            raise ValueError("blocking_coalition: samples need a generator")
        draw = partial(torch.rand, generator=generator, device=generator.device)
        size = draw(samples, 1)
        sets = (draw(samples, n) < size).to(label.device)
        sets = sets[sets.any(1)]
    now = hedonic.utility(torch.arange(n, device=label.device), members(label)[label])
    blocks = sets.new_ones(len(sets))
    for i in range(n):
        rows = (sets[:, i] & blocks).nonzero().flatten()
        gets = hedonic.utility(torch.full_like(rows, i), sets[rows])
        blocks[rows] = gets > now[i] + TOLERANCE * (1 + now[i].abs())
    return sets[blocks][0] if bool(blocks.any()) else None


def _none_loses(hedonic: Hedonic, who: Tensor, before: Tensor, after: Tensor) -> bool:
    agents = who.nonzero().flatten()
    old = hedonic.utility(agents, before.expand(len(agents), -1))
    new = hedonic.utility(agents, after.expand(len(agents), -1))
    return bool((new >= old - TOLERANCE * (1 + old.abs())).all())
