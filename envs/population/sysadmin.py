"""SysAdmin: machines on a network fail, failure spreads to those that hear them, and administrators reboot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from coordination import tree
from envs.base import View
from envs.population.base import Population, PopulationState, TopologySetting, modules_spec
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec

STAYS_UP = 0.45  # chance to stay up where nobody else is up or heard, before the share of the neighbourhood
SUPPORT = 0.5  # what a neighbourhood that is all up adds
RECOVERS = 0.05  # chance of a machine that is down to come up by itself
MAX_EXACT = 8  # machines up to which the optimum is computed: 2^24 transition probabilities
TOLERANCE = 1e-9  # gain of a better policy that is rounding


@tree.struct
class Machines:
    """Which machines run.

    Attributes:
        up: ``[B, N]`` bool; all at the beginning.
    """

    up: Tensor = tree.axes("N")


class SysAdmin(Population[Machines]):
    """Multi-agent SysAdmin (Guestrin, Koller, Parr and Venkataraman 2003, JAIR 19): keep machines up, reboot sparingly.

    A machine that is up stays so with probability ``.45 + .5 (1 + up heard) / (1 + heard)``, one that is down comes up
    with .05, and one rebooted is up for certain. A step pays each administrator 1 for a machine that was up, less
    ``reboot_cost`` for a reboot; the team reward is the sum, one factor for each machine. An administrator sees the own
    machine and the share of heard machines that are up.

    Deviations from the paper, which gives no numbers for its network: machines are up or down (no processes, no faulty
    state), every machine has an administrator, and probabilities follow the up/down form used in planning
    competitions. :func:`solve` gives the optimum up to 8 machines; with discount .95 a ring of 4 that is all
    up is worth 71.140, one of 6 106.697, and to reboot whatever is down is not optimal.

    Args:
        num_agents: Number of machines; None for as many as ``modules`` count, or 16.
        modules: How many of each kind; kinds differ in name only.
        topology: Whose failures reach whom.
        dynamics: Rates by event; a failed module is an administrator on leave, its machine runs on unsupported.
        reboot_cost: Price of a reboot, not negative; raising it makes waiting pay.
        horizon: Steps after which an episode is truncated.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        *,
        num_agents: int | None = None,
        modules: Mapping[str, int] | None = None,
        topology: TopologySetting = "ring",
        dynamics: Mapping[str, float] | None = None,
        reboot_cost: float = 0.75,
        horizon: int = 50,
    ) -> None:
        if not reboot_cost >= 0:
            raise ValueError(f"reboot_cost: must not be negative, got {reboot_cost}")
        agents = modules_spec(
            num_agents,
            modules,
            ObservationSpec.named(up=1, heard=1),
            ActionSpec.discrete(2),
            info={"up": "mean"},
        )
        agents = replace(agents, factor_scopes=tuple((i,) for i in range(agents.num_agents)))
        super().__init__(agents, topology=topology, dynamics=dynamics, horizon=horizon)
        self.reboot_cost = reboot_cost

    def begin(self, generator: torch.Generator, n: int) -> Machines:
        """All up."""
        return Machines(torch.ones(n, self.num_agents, dtype=torch.bool, device=generator.device))

    def play(
        self, state: PopulationState[Machines], action: Tensor, generator: torch.Generator
    ) -> tuple[Machines, Tensor]:
        """Pay for what was up and for reboots, then let machines fail, recover and come up."""
        up, reboot = state.modules.up, action[..., 0] == 1
        share = (1 + state.heard(up)) / (1 + state.num_heard())
        chance = torch.where(up, STAYS_UP + SUPPORT * share, RECOVERS)
        draw = torch.rand(up.shape, generator=generator, device=up.device)
        return Machines((draw < chance) | reboot), up.float() - self.reboot_cost * reboot

    def observe(self, state: PopulationState[Machines]) -> Tensor:
        """Whether the own machine is up, and the share of heard ones that are; 1 where none is heard."""
        up, count = state.modules.up, state.num_heard()
        share = torch.where(count > 0, state.heard(up) / count, 1.0)
        return torch.stack([up.float(), share], -1)

    def info(self, state: PopulationState[Machines]) -> dict[str, Tensor]:
        """``up [B]``: share of living machines that are up."""
        up, alive = state.modules.up, state.alive
        if alive is None:
            return {"up": up.mean(-1, dtype=torch.float32)}
        return {"up": (up & alive).sum(-1) / alive.sum(-1).clamp(min=1)}


def reboot_down(view: View, agents: AgentSpec) -> Tensor:
    """Reboot whatever is down: a scripted policy, good and not optimal.

    Args:
        view: Of :class:`SysAdmin`.
        agents: Who they are.

    Returns:
        ``[*, N, 1]`` int64.
    """
    return (view.obs[..., :1] < 1).long()


class Solution(NamedTuple):
    """The optimum over all joint states; bit i of a state or joint action is machine i.

    Attributes:
        value: ``[2^N]`` discounted team reward from each state on.
        action: ``[2^N]`` int64 best joint action.
    """

    value: np.ndarray
    action: np.ndarray


def solve(task: SysAdmin, discount: float = 0.95) -> Solution:
    """The best joint policy, all administrators seeing everything, by policy iteration (Howard 1960): exact.

    Args:
        task: At most 8 machines; dynamics are left out.
        discount: In (0, 1).

    Raises:
        ValueError: If there are too many machines, or the discount is out of range.

    >>> round(float(solve(SysAdmin(num_agents=4)).value[-1]), 3)
    71.14
    """
    if task.num_agents > MAX_EXACT:
        raise ValueError(f"solve: at most {MAX_EXACT} machines, got {task.num_agents}: there are 4^N pairs to weigh")
    if not 0 < discount < 1:
        raise ValueError(f"discount: must be in (0, 1), got {discount}")
    reward, moves = _model(task)
    everyone = np.arange(len(moves))
    action = np.zeros_like(everyone)
    while True:
        value = np.linalg.solve(np.eye(len(moves)) - discount * moves[everyone, action], reward[everyone, action])
        worth = reward + discount * moves @ value
        if (worth.max(1) - value).max() < TOLERANCE:
            return Solution(value, action)
        action = worth.argmax(1)


def _model(task: SysAdmin) -> tuple[np.ndarray, np.ndarray]:
    """``[states, actions]`` team reward and ``[states, actions, states]`` transition probabilities."""
    n = task.num_agents
    bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    hears = task.topology.adjacency().matrix.toarray()
    share = (1 + bits @ hears.T) / (1 + hears.sum(1))
    chance = np.where(bits == 1, STAYS_UP + SUPPORT * share, RECOVERS)
    chance = np.where(bits == 1, 1.0, chance[:, None])  # [state, joint action, machine]
    moves = np.ones((2**n, 2**n, 1))
    for up in np.moveaxis(chance, -1, 0)[..., None]:  # each machine is the next higher bit of the successor
        moves = np.concatenate([moves * (1 - up), moves * up], -1)
    return bits.sum(1)[:, None] - task.reboot_cost * bits.sum(1), moves
