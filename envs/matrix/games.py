"""Matrix games of two agents: climbing, penalty, QPLEX's three, the stag hunt, and QMIX's two-step game.

Their optima are known exactly, so they show in seconds whether an algorithm coordinates.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from coordination import tree
from envs.base import View
from envs.links import default_graph
from envs.native import Task
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec

Payoff = tuple[tuple[float, ...], ...]  # rows by the first agent's choice, columns by the second's


@lru_cache(maxsize=64)
def _table(payoff: tuple[Payoff, ...], device: torch.device) -> Tensor:
    """``[matrices, K, K]`` on the device."""
    return torch.tensor(payoff, dtype=torch.float32, device=device)


@tree.struct
class RepeatedState:
    """What a repeated game remembers.

    Attributes:
        payoff: ``[B, 2]`` of the last joint action to either agent; NaN before the first.
        played: ``[B]`` int64: joint actions so far.
    """

    payoff: Tensor = tree.axes("N")
    played: Tensor = tree.axes("")


class RepeatedGame(Task[RepeatedState]):
    """One matrix game played again and again, always seen as a single zero (agents have nothing to go by but habit).

    Each agent gets its own payoff, so returns per agent are sums of payoffs. ``info["optimal"]`` is the share of steps
    with a joint action whose payoffs have the largest sum. The game would go on: after ``steps`` an episode is
    truncated. Where a subclass sets ``ends_early``, nothing follows: it terminates there, and values are of payoffs
    alone.

    Args:
        payoff: Of each joint action, to the first agent.
        steps: Length of an episode.
        other: The same to the second agent, rows still by the first agent's choice; None where both get the same.

    Raises:
        ValueError: If there is no step.
    """

    ends_early = False

    def __init__(self, payoff: Payoff, steps: int, other: Payoff | None = None) -> None:
        if steps < 1:
            raise ValueError(f"steps: must be at least 1, got {steps}")
        self.payoffs = (payoff, payoff if other is None else other)
        self.best = float(torch.tensor(self.payoffs, dtype=torch.float32).sum(0).max())
        self.steps = steps
        self.horizon = None if self.ends_early else steps
        self.agents = AgentSpec.single(
            2, ObservationSpec.flat(1), ActionSpec.discrete(len(payoff)), info={"optimal": "mean"}
        )
        self._graph = default_graph(2)

    def initial(self, generator: torch.Generator, n: int) -> RepeatedState:
        """Nothing has been played."""
        device = generator.device
        return RepeatedState(
            torch.full((n, 2), torch.nan, device=device), torch.zeros(n, dtype=torch.int64, device=device)
        )

    def advance(
        self, state: RepeatedState, action: Tensor, generator: torch.Generator
    ) -> tuple[RepeatedState, Tensor, Tensor]:
        """Look the payoffs up."""
        first, second = action[..., 0].unbind(-1)
        paid = _table(self.payoffs, action.device)[:, first, second].T.contiguous()
        after = RepeatedState(paid, state.played + 1)
        if not self.ends_early:
            return after, paid, torch.zeros_like(paid, dtype=torch.bool)
        return after, paid, (after.played == self.steps).unsqueeze(-1).repeat(1, 2)

    def view(self, state: RepeatedState) -> View:
        """A single zero for either agent."""
        shape, device = state.payoff.shape, state.payoff.device
        return View(
            torch.zeros(*shape, 1, device=device), torch.ones(shape, dtype=torch.bool, device=device), self._graph
        )

    def info(self, state: RepeatedState) -> dict[str, Tensor]:
        """Whether the last joint action was a best one."""
        return {"optimal": (state.payoff.sum(-1) == self.best).float()}


class Climbing(RepeatedGame):
    """The climbing game (Claus and Boutilier 1998, AAAI): the best joint action is guarded by the worst ones.

    The optimum pays 11 a step, 275 in 25 steps; its neighbours pay -30, so that learners that average over what the
    other does drift to 7 (175), or to the safe 5 (125).

    Args:
        steps: Length of an episode.
    """

    def __init__(self, *, steps: int = 25) -> None:
        super().__init__(((11, -30, 0), (-30, 7, 6), (0, 0, 5)), steps)


class Penalty(RepeatedGame):
    """The penalty game (Claus and Boutilier 1998, AAAI): two best joint actions, and a penalty for mixing them up.

    Either optimum pays 10 a step, 250 in 25 steps; the safe choice pays 2 (50).

    Args:
        k: Payoff where the agents aim at different optima, at most 0 in the literature; lowering it makes the safe
            choice more tempting.
        steps: Length of an episode.
    """

    def __init__(self, *, k: float = 0.0, steps: int = 25) -> None:
        super().__init__(((k, 0, 10), (0, 2, 0), (10, 0, k)), steps)


QPLEX = (
    ((10.4, 0, 10), (0, 10, 10), (10, 10, 10)),
    ((8, -12, -12), (-12, 0, 0), (-12, 0, 0)),
    ((8, -12, -12), (-12, 6, 0), (-12, 0, 6)),
)


class Qplex(RepeatedGame):
    """The one-step matrix games of QPLEX (Wang et al. 2021, arXiv:2008.01062), numbered as in its authors' code.

    In each the unique best joint action is (0, 0), and no sum of individual values and no monotone mixture of them
    represents the payoffs. What the best fits to all nine payoffs choose greedily:

    ====  ====================================  =======  =============  ==================
    game  payoffs by rows                       optimum  sum of values  monotone mixture
    ====  ====================================  =======  =============  ==================
    1     10.4, 0, 10 · 0, 10, 10 · 10, 10, 10  10.4     10             10.4 or 10, tied
    2     8, -12, -12 · -12, 0, 0 · -12, 0, 0   8        0              8 (0 locally)
    3     8, -12, -12 · -12, 6, 0 · -12, 0, 6   8        6 or 0, tied   6 or 0, tied
    ====  ====================================  =======  =============  ==================

    The second is also QTRAN's (Son et al. 2019, arXiv:1905.05408). Episodes terminate.

    Args:
        game: Which one, 1 to 3.
        steps: Times it is played in an episode; 1 in the paper.

    Raises:
        ValueError: If there is no such game, or no step.
    """

    ends_early = True

    def __init__(self, *, game: int = 1, steps: int = 1) -> None:
        if game not in (1, 2, 3):
            raise ValueError(f"game: expected 1, 2 or 3, got {game}")
        super().__init__(QPLEX[game - 1], steps)


class StagHunt(RepeatedGame):
    """The stag hunt (Rousseau 1755; as a game, Skyrms 2001, Proc. APA 75): agents may differ in what they get.

    Choice 0 hunts the stag, which takes both: 4 each, and nothing for whoever waits alone. Choice 1 hunts a hare: 3,
    whatever the other does. Both joint actions of equals are Nash equilibria: two stags pay most, 4 a step to either
    agent (100 in 25 steps), two hares risk least; the stag is a best reply only to a partner who hunts it with
    probability 3/4 or more.

    Args:
        steps: Length of an episode.
    """

    def __init__(self, *, steps: int = 25) -> None:
        super().__init__(((4, 0), (3, 3)), steps, other=((4, 3), (0, 3)))


@tree.struct
class TwoStepState:
    """Where a two-step game stands.

    Attributes:
        stage: ``[B]`` int64: 0 at the choice, 1 at the first game, 2 at the second, 3 when it is over.
    """

    stage: Tensor = tree.axes("")


OVER = 3
SECOND_STEP = (((7, 7), (7, 7)), ((0, 1), (1, 8)))


class TwoStep(Task[TwoStepState]):
    """The two-step game of QMIX (Rashid et al. 2018, arXiv:1803.11485, section 5): the optimum is 8.

    First the first agent chooses which matrix both play, and nothing is paid; then it pays 7 always, or 0, 1, 1, 8.
    A sum of individual values cannot represent the second matrix and settles for 7; a monotone mixer finds the 8.
    Both agents and the critic see the stage as a one-hot vector of three; the episode terminates after two steps.
    """

    def __init__(self) -> None:
        self.agents = AgentSpec.single(2, ObservationSpec.named(stage=OVER), ActionSpec.discrete(2), state_dim=OVER)
        self._graph = default_graph(2)

    def initial(self, generator: torch.Generator, n: int) -> TwoStepState:
        """Every copy at the choice."""
        return TwoStepState(torch.zeros(n, dtype=torch.int64, device=generator.device))

    def advance(
        self, state: TwoStepState, action: Tensor, generator: torch.Generator
    ) -> tuple[TwoStepState, Tensor, Tensor]:
        """Choose the matrix, then be paid by it."""
        first, second = action[..., 0].unbind(-1)
        choosing = state.stage == 0
        paid = _table(SECOND_STEP, action.device)[(state.stage - 1).clamp(0, 1), first, second]
        reward = torch.where(choosing, 0.0, paid).unsqueeze(-1).repeat(1, 2)
        after = TwoStepState(torch.where(choosing, first + 1, OVER))
        return after, reward, (~choosing).unsqueeze(-1).repeat(1, 2)

    def view(self, state: TwoStepState) -> View:
        """The stage, one-hot; zeros when it is over."""
        stages = torch.arange(OVER, device=state.stage.device)
        onehot = (state.stage.unsqueeze(-1) == stages).float()
        alive = (state.stage != OVER).unsqueeze(-1).repeat(1, 2)
        return View(onehot.unsqueeze(1).repeat(1, 2, 1), alive, self._graph, state=onehot)
