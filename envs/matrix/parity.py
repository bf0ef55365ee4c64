"""The parity game: everybody holds a bit and must say the parity of all, which nobody can guess from a part."""

from __future__ import annotations

import torch
from torch import Tensor

from coordination import tree
from envs.base import View
from envs.links import default_graph
from envs.native import Task
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec


@tree.struct
class ParityState:
    """The bits, and how the answers went.

    Attributes:
        bit: ``[B, N]`` int64, 0 or 1.
        right: ``[B, N]`` bool: whose answer was right; False before the answers.
    """

    bit: Tensor = tree.axes("N")
    right: Tensor = tree.axes("N")


class Parity(Task[ParityState]):
    """The parity game: each of N agents sees a fair random bit, and all must answer whether the number of ones is odd.

    Answers are 0 for even, 1 for odd. All are paid 1 if everybody is right, else 0, and the episode terminates.

    - With communication: 1, by one bit from every agent to every other.
    - Without it: 1/2. The parity is independent of one's own bit, as of any N - 1 bits, so that no agent is right more
      often; if all always give the same answer, all are right as often.
    - Uniformly random: ``2^-N``.

    A textbook function of communication complexity (Kushilevitz and Nisan 1997), since every bit counts.

    Args:
        num_agents: Agents N, at least 2.
        communication: Whether there are links: all to all up to 64 agents; above, choose a ``graph``. Any connected
            one will do for agents that pass messages on.

    Raises:
        ValueError: If there are fewer than two agents.
    """

    def __init__(self, *, num_agents: int = 4, communication: bool = True) -> None:
        if num_agents < 2:
            raise ValueError(f"num_agents: must be at least 2, got {num_agents}")
        self.num_agents = num_agents
        self.agents = AgentSpec.single(
            num_agents, ObservationSpec.named(bit=1), ActionSpec.discrete(2), info={"optimal": "mean", "right": "mean"}
        )
        links = default_graph(num_agents)
        self._graph = links if communication else links.without_links()

    def initial(self, generator: torch.Generator, n: int) -> ParityState:
        """Fair bits."""
        bit = torch.randint(2, (n, self.num_agents), generator=generator, device=generator.device)
        return ParityState(bit, torch.zeros_like(bit, dtype=torch.bool))

    def advance(
        self, state: ParityState, action: Tensor, generator: torch.Generator
    ) -> tuple[ParityState, Tensor, Tensor]:
        """Compare every answer with the parity."""
        right = action[..., 0] == state.bit.sum(-1, keepdim=True) % 2
        reward = right.all(-1, keepdim=True).float().repeat(1, self.num_agents)
        return ParityState(state.bit, right), reward, torch.ones_like(right)

    def view(self, state: ParityState) -> View:
        """To each agent its own bit."""
        return View(state.bit.unsqueeze(-1).float(), torch.ones_like(state.right), self._graph)

    def info(self, state: ParityState) -> dict[str, Tensor]:
        """Whether everybody was right, and the share of those who were."""
        return {"optimal": state.right.all(-1).float(), "right": state.right.float().mean(-1)}
