"""Matrix games of two agents who share one payoff: climbing, penalty, and QMIX's two-step game.

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
        payoff: ``[B]`` of the last joint action; NaN before the first.
    """

    payoff: Tensor = tree.axes("")


class RepeatedGame(Task[RepeatedState]):
    """One matrix game played again and again, always seen as a single zero (agents have nothing to go by but habit).

    Both agents get the payoff, so returns per agent are sums of payoffs. ``info["optimal"]`` is the share of steps
    with a best joint action.

    Args:
        payoff: Of each joint action.
        steps: Length of an episode, which is truncated there.

    Raises:
        ValueError: If there is no step.
    """

    ends_early = False

    def __init__(self, payoff: Payoff, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"steps: must be at least 1, got {steps}")
        self.payoff = payoff
        self.best = max(max(row) for row in payoff)
        self.horizon = steps
        self.agents = AgentSpec.single(
            2, ObservationSpec.flat(1), ActionSpec.discrete(len(payoff)), info={"optimal": "mean"}
        )
        self._graph = default_graph(2)

    def initial(self, generator: torch.Generator, n: int) -> RepeatedState:
        """Nothing has been played."""
        return RepeatedState(torch.full((n,), torch.nan, device=generator.device))

    def advance(
        self, state: RepeatedState, action: Tensor, generator: torch.Generator
    ) -> tuple[RepeatedState, Tensor, Tensor]:
        """Look the payoff up; nothing terminates."""
        paid = _table((self.payoff,), action.device)[0, action[:, 0, 0], action[:, 1, 0]]
        reward = paid.unsqueeze(-1).repeat(1, 2)
        return RepeatedState(paid), reward, torch.zeros_like(reward, dtype=torch.bool)

    def view(self, state: RepeatedState) -> View:
        """A single zero for either agent."""
        shape, device = (state.payoff.shape[0], 2), state.payoff.device
        return View(
            torch.zeros(*shape, 1, device=device), torch.ones(shape, dtype=torch.bool, device=device), self._graph
        )

    def info(self, state: RepeatedState) -> dict[str, Tensor]:
        """Whether the last joint action was a best one."""
        return {"optimal": (state.payoff == self.best).float()}


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
