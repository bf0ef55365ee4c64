"""One-step tasks that only a certain kind of network can solve, and how they are learned."""

from __future__ import annotations

import torch
from torch import Tensor

from coordination import rng, tree
from coordination.graph import Graph
from coordination.signals import build
from coordination.topology import Topology, complete, empty
from envs.base import View
from envs.native import NativeEnv, Task
from envs.spaces import ActionSpec, ObservationSpec, Part
from envs.spec import AgentSpec, Group
from marl.algorithms.base import Setting
from marl.algorithms.config import PPOConfig
from marl.algorithms.ppo import PPO
from marl.collector import Collector
from marl.networks.config import NetworkConfig
from marl.report.evaluate import NetworkAct, evaluate

COPIES = 64


@tree.struct
class Drawn:
    """Bits ``[B, N]``, and whatever else is drawn for each agent ``[B, N]``."""

    bit: Tensor = tree.axes("N")
    other: Tensor = tree.axes("N")


class OneStep(Task[Drawn]):
    """Everyone draws a bit and names one; 1 for the right one, after which the episode is over."""

    def __init__(self, agents: AgentSpec) -> None:
        self.agents = agents
        self.links = empty(agents.num_agents)

    def initial(self, generator: torch.Generator, n: int) -> Drawn:
        shape = (n, self.agents.num_agents)
        return Drawn(*(torch.randint(2, shape, generator=generator) for _ in range(2)))

    def advance(self, state: Drawn, action: Tensor, generator: torch.Generator) -> tuple[Drawn, Tensor, Tensor]:
        reward = (action.squeeze(-1) == self.answer(state)).float()
        return state, reward, torch.ones_like(reward, dtype=torch.bool)

    def answer(self, state: Drawn) -> Tensor:
        """``[B, N]`` what each agent should name."""
        return state.bit

    def seen(self, obs: Tensor, attr: Tensor | None = None) -> View:
        """A view of living agents."""
        return View(obs, torch.ones(obs.shape[:2], dtype=torch.bool), Graph(topology=self.links, attr=attr))


def signs(bit: Tensor) -> Tensor:
    """Bits as -1 and 1, ``[B, N, 1]`` float."""
    return (2.0 * bit - 1).unsqueeze(-1)


class Marked(OneStep):
    """Three agents in a circle hear both others; a link says whether its sender's bit is the one to name.

    Without features of links the best guess is right when both bits agree, and half of the time else: 3/4.
    """

    def __init__(self, told: bool = True) -> None:
        self.told = told
        width = 2 if told else 0
        super().__init__(AgentSpec.single(3, ObservationSpec.flat(1), ActionSpec.discrete(2), edge_dim=width))
        self.links = complete(3)  # into each agent: first the lower, then the higher of the others

    def answer(self, state: Drawn) -> Tensor:
        both = self.links.edges[0].reshape(3, 2)
        return state.bit[:, both].gather(-1, state.other.unsqueeze(-1)).squeeze(-1)

    def view(self, state: Drawn) -> View:
        marks = torch.stack([state.other == 0, state.other == 1], -1).flatten(1)  # [B, E], receivers in order
        attr = torch.stack([marks, ~marks], -1).float()
        return self.seen(signs(state.bit), attr if self.told else None)


class Told(OneStep):
    """Two agents without links name each other's bit: 1 for those that look at everybody, else one half."""

    def __init__(self) -> None:
        super().__init__(AgentSpec.single(2, ObservationSpec.flat(1), ActionSpec.discrete(2)))

    def answer(self, state: Drawn) -> Tensor:
        return state.bit.flip(-1)

    def view(self, state: Drawn) -> View:
        return self.seen(signs(state.bit))


class Bars(OneStep):
    """A picture of 6 x 6 bytes with an upright or a level bar somewhere, and where its row or column is; name which.

    Every pixel is lit as often with one kind of bar as with the other. A blind agent is shown the bar's place alone.
    """

    SIDE = 6

    def __init__(self, blind: bool = False) -> None:
        self.blind = blind
        area = self.SIDE**2
        picture = Part("picture", 1, 1 + area, (self.SIDE, self.SIDE, 1), byte=True)
        spec = ObservationSpec((Part("place", 0, 1, (1,)), picture))
        super().__init__(AgentSpec.single(2, spec, ActionSpec.discrete(2)))

    def initial(self, generator: torch.Generator, n: int) -> Drawn:
        bit, place = (torch.randint(k, (n, 2), generator=generator) for k in (2, self.SIDE))
        return Drawn(bit, place)

    def view(self, state: Drawn) -> View:
        level = torch.nn.functional.one_hot(state.other, self.SIDE).unsqueeze(-1).expand(-1, -1, -1, self.SIDE)
        picture = torch.where(state.bit[..., None, None] == 1, level, level.mT) * (0.0 if self.blind else 255.0)
        return self.seen(torch.cat([state.other.unsqueeze(-1) / self.SIDE, picture.flatten(2)], -1))


class Mirrored(OneStep):
    """Two groups of two agents see a bit, the second one with the opposite sign: 1 for knowing who sees what, else 1/2.

    Agents are paired over a link; the bit to name is the own one, or the partner's, which only the link can tell.
    """

    def __init__(self, partner: bool = False) -> None:
        self.partner = partner
        specs, do = (ObservationSpec.named(bit=1), ObservationSpec.named(mirrored=1)), ActionSpec.discrete(2)
        groups = tuple(Group(f"group_{i}", 2 * i, 2, see, do) for i, see in enumerate(specs))
        super().__init__(AgentSpec(groups, ("a", "b", "c", "d")))
        self.links = Topology([[0, 1, 2, 3], [2, 3, 0, 1]], 4)

    def answer(self, state: Drawn) -> Tensor:
        return state.bit.roll(2, -1) if self.partner else state.bit

    def view(self, state: Drawn) -> View:
        sign = torch.tensor([1.0, 1.0, -1.0, -1.0]).unsqueeze(-1)
        return self.seen(signs(state.bit) * sign)


def learned(task: OneStep, network: NetworkConfig, iterations: int = 20) -> float:
    """Mean reward of an agent after PPO on ``task``."""
    env = NativeEnv(task, COPIES)
    config = PPOConfig(epochs=4, minibatches=1, learning_rate=5e-3)
    algorithm = PPO.build(config, network, Setting(env.agents, COPIES, build(None), 0, torch.device("cpu")))
    collector = Collector(env, algorithm.policy, rng.generator(0, "act"))
    collector.reset(0)
    for _ in range(iterations):
        algorithm.learn(collector.collect(4))
    return evaluate(NativeEnv(task, 64), NetworkAct(algorithm.policy), 512, 3).mean / task.agents.num_agents
