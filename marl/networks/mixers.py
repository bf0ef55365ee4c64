"""Mixers: the values of a team's agents become one value of the team, ``(q [*, N], view) -> [*, G]``.

All are monotone in every agent's value, so that each agent's own best choice is the team's (individual-global-max).
Agents that do not count (``keep`` False) change nothing.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from envs.base import View
from envs.spec import AgentSpec
from marl.networks.critics import MAX_JOINT, pool
from marl.networks.inputs import Inputs

MAX_LOG_SCALE = 10.0  # of QPLEX's lambda


class Mixer(nn.Module):
    """What all mixers share.

    Args:
        agents: Whose values; each team is mixed apart.

    Attributes:
        values: Number G of values: one for each team, or one for each agent.
    """

    members: Tensor

    def __init__(self, agents: AgentSpec) -> None:
        super().__init__()
        teams = nn.functional.one_hot(torch.tensor(agents.team), agents.num_teams).float()
        self.register_buffer("members", teams, persistent=False)  # [N, G]
        self.values = agents.num_teams

    def forward(
        self, q: Tensor, view: View, keep: Tensor, best: Tensor | None = None, action: Tensor | None = None
    ) -> Tensor:
        """Team values ``[*, G]``.

        Args:
            q: ``[*, N]`` each agent's value of its choice.
            view: What they see.
            keep: ``[*, N]`` bool: whose values count.
            best: ``[*, N]`` value of each agent's best choice; None where that was chosen.
            action: ``[*, N, D]`` features of what was chosen; needed with ``best``.
        """
        raise NotImplementedError

    def of_team(self, x: Tensor, how: str = "sum") -> Tensor:
        """``[*, N]`` to ``[*, G]``: each team's sum, or whether something holds for ``all`` or ``any`` of it."""
        if how == "sum":
            return x @ self.members
        if how == "all":
            return ((~x).to(self.members.dtype) @ self.members) == 0
        return (x.to(self.members.dtype) @ self.members) > 0


class Alone(Mixer):
    """No mixing: every agent is its own team (independent Q-learning)."""

    def __init__(self, agents: AgentSpec) -> None:
        super().__init__(agents)
        self.values = agents.num_agents

    def forward(
        self, q: Tensor, view: View, keep: Tensor, best: Tensor | None = None, action: Tensor | None = None
    ) -> Tensor:
        """The values as they are, ``[*, N]``."""
        return torch.where(keep, q, 0.0)

    def of_team(self, x: Tensor, how: str = "sum") -> Tensor:
        """``[*, N]`` as it is."""
        return x


class Sum(Mixer):
    """``Q = sum_i Q_i``: value decomposition networks (Sunehag et al. 2018, arXiv:1706.05296)."""

    def forward(
        self, q: Tensor, view: View, keep: Tensor, best: Tensor | None = None, action: Tensor | None = None
    ) -> Tensor:
        """Team values ``[*, G]``."""
        return self.of_team(torch.where(keep, q, 0.0))


class StateInputs(nn.Module):
    """What a mixer knows: the global state, or where there is none all observations; above 16 agents their mean.

    Args:
        agents: Who is seen.
        generator: For the inputs' own draws.
    """

    def __init__(self, agents: AgentSpec, generator: torch.Generator) -> None:
        super().__init__()
        self.inputs = Inputs(agents, "none", False, generator)
        n = agents.num_agents
        self.joint = n <= MAX_JOINT
        self.out_dim = agents.state_dim or (n * (self.inputs.out_dim + 1) if self.joint else self.inputs.out_dim)

    def forward(self, view: View) -> Tensor:
        """``[*, S]``."""
        if view.state is not None:
            return view.state
        x = self.inputs(view)
        if self.joint:
            return torch.cat([x.flatten(-2), view.alive.to(x.dtype)], -1)
        return pool(x, view.alive).squeeze(-2)


class Monotonic(Mixer):
    """QMIX (Rashid et al. 2018, arXiv:1803.11485): a monotone network whose weights are functions of the state.

    ``Q = |w2(s)|^T elu(sum_i |w1_i(s)| Q_i + b1(s)) + v(s)``. An agent's weights come from the state and from its own
    observation, by one network for all agents: any number of agents may be mixed.

    Deviation: the paper's hypernetwork sees the state alone and puts out the weights of all N agents at once; with a
    state that holds all observations both can represent the same.

    Args:
        agents: Whose values.
        embed: Width of the mixing layer.
        hyper: Width of the hypernetworks.
        generator: Source of the initial weights.
    """

    def __init__(self, agents: AgentSpec, embed: int, hyper: int, generator: torch.Generator) -> None:
        super().__init__(agents)
        self.state, self.embed = StateInputs(agents, generator), embed
        self.inputs = Inputs(agents, "onehot" if agents.num_agents <= 64 else "none", False, generator)
        s, x = self.state.out_dim, self.inputs.out_dim
        self.w1 = _network((s + x, hyper, embed), generator)
        self.b1 = _network((s, embed), generator)
        self.w2 = _network((s, hyper, embed), generator)
        self.v = _network((s, embed, 1), generator)

    def forward(
        self, q: Tensor, view: View, keep: Tensor, best: Tensor | None = None, action: Tensor | None = None
    ) -> Tensor:
        """Team values ``[*, G]``."""
        s, x = self.state(view), self.inputs(view)
        each = torch.cat([s.unsqueeze(-2).expand(*x.shape[:-1], -1), x], -1)
        part = self.w1(each).abs() * torch.where(keep, q, 0.0).unsqueeze(-1)  # [*, N, E]
        hidden = nn.functional.elu(self.members.T @ part + self.b1(s).unsqueeze(-2))  # [*, G, E]
        return (hidden * self.w2(s).abs().unsqueeze(-2)).sum(-1) + self.v(s)


class Duplex(Mixer):
    """QPLEX (Wang et al. 2021, arXiv:2008.01062): values and advantages are mixed apart, and any ordering fits.

    ``Q = sum_i (w_i(s) V_i + b_i(s)) + sum_i lambda_i(s, a) w_i(s) (Q_i - V_i)`` with ``V_i = max Q_i`` and positive w
    and lambda. As in the authors' code no gradient flows through ``(lambda_i - 1) (Q_i - V_i)`` into the Q_i.

    Deviation: lambda is the exponential of one network of the state, the agent's observation and the joint action (the
    paper sums products of absolute values and sigmoids). It must grow without bound where a joint choice is far worse
    than choices that are almost as good for each agent alone: on the climbing game, fitted to all joint actions, the
    exponential ends at the optimum from each of three starts, an absolute value from two.

    Args:
        agents: Whose values.
        hyper: Width of the networks.
        generator: Source of the initial weights.
    """

    def __init__(self, agents: AgentSpec, hyper: int, generator: torch.Generator, action_dim: int) -> None:
        super().__init__(agents)
        self.state = StateInputs(agents, generator)
        self.inputs = Inputs(agents, "onehot" if agents.num_agents <= 64 else "none", False, generator)
        self.joint = agents.num_agents <= MAX_JOINT
        s, x = self.state.out_dim, self.inputs.out_dim
        seen = agents.num_agents * action_dim if self.joint else 2 * action_dim
        self.w = _network((s + x, hyper, 1), generator)
        self.b = _network((s + x, hyper, 1), generator)
        self.scale = _network((s + x + seen, hyper, 1), generator)

    def forward(
        self, q: Tensor, view: View, keep: Tensor, best: Tensor | None = None, action: Tensor | None = None
    ) -> Tensor:
        """Team values ``[*, G]``."""
        s, x = self.state(view), self.inputs(view)
        each = torch.cat([s.unsqueeze(-2).expand(*x.shape[:-1], -1), x], -1)
        w = self.w(each).squeeze(-1).abs() + 1e-10
        total = w * q + self.b(each).squeeze(-1)
        if best is not None and action is not None:
            action = torch.where(keep.unsqueeze(-1), action, 0.0)
            flat = action.flatten(-2).unsqueeze(-2).expand(*x.shape[:-1], -1)
            seen = flat if self.joint else torch.cat([action, pool(action, keep).expand_as(action)], -1)
            scale = self.scale(torch.cat([each, seen], -1)).squeeze(-1).clamp(max=MAX_LOG_SCALE).exp()
            total = total + (scale - 1) * w * (q - best).detach()
        return self.of_team(torch.where(keep, total, 0.0))


def _network(widths: tuple[int, ...], generator: torch.Generator) -> nn.Sequential:
    """Linear layers with rectifiers between, initialised uniformly as torch does, from ``generator``."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layer = nn.Linear(a, b)
        bound = a**-0.5
        with torch.no_grad():
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.uniform_(-bound, bound, generator=generator)
        layers += [nn.ReLU(), layer] if i else [layer]
    return nn.Sequential(*layers)
