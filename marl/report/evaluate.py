"""Evaluation apart from training: whole episodes in environments of their own, any policy, from given seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from coordination import tree
from envs.base import VectorEnv, View
from envs.spec import AgentSpec
from marl.networks.policy import Policy

MAX_STEPS = 100_000  # an episode longer than this will not end
# view [B, N, ...] and where a new episode begins, bool [B], to the action the environment receives [B, N, A]
Act = Callable[[View, Tensor], Tensor]


@dataclass(frozen=True)
class Evaluation:
    """Results of whole episodes.

    Attributes:
        returns: ``[episodes, teams]`` sums of raw reward over each team's agents.
        lengths: ``[episodes]`` steps.
        info: Mean over episodes of the environment's own quantities, reduced as it declares.
        learning: The teams in which somebody learns.
    """

    returns: Tensor
    lengths: Tensor
    info: dict[str, float]
    learning: tuple[int, ...]

    @property
    def total(self) -> Tensor:
        """``[episodes]`` returns, summed over the teams that learn."""
        return self.returns[:, self.learning].sum(1)

    @property
    def mean(self) -> float:
        """Mean of :attr:`total`."""
        return float(self.total.mean())

    @property
    def by_team(self) -> dict[str, float]:
        """Mean return of each team by name, where there are several."""
        means = self.returns.mean(0).tolist()
        return {f"team_{i}": x for i, x in enumerate(means)} if len(means) > 1 else {}

    @property
    def standard_error(self) -> float:
        """Standard error of :attr:`mean`; zero for a single episode."""
        n = len(self.returns)
        return float(self.total.std() / n**0.5) if n > 1 else 0.0


class NetworkAct:
    """A policy as an acting function: greedy, or sampling from ``generator``; it remembers from step to step.

    Args:
        policy: Who acts.
        generator: Source of sampled actions; None for the likeliest ones.
    """

    def __init__(self, policy: Policy, generator: torch.Generator | None = None) -> None:
        self.policy, self.generator = policy, generator
        self.hidden: Tensor | None = None

    def __call__(self, view: View, start: Tensor) -> Tensor:
        """What the environment receives, ``[B, N, A]``."""
        hidden = None if self.hidden is None or self.hidden.shape[0] != view.alive.shape[0] else self.hidden
        action, _, self.hidden = self.policy.act(view, hidden, start, self.generator)
        return self.policy.head.env_action(action)


@torch.no_grad()
def evaluate(env: VectorEnv, act: Act, episodes: int, seed: int) -> Evaluation:
    """Play at least ``episodes`` whole episodes, the same number in every copy, so that short ones are not favoured.

    Args:
        env: Copies of the environment, used for nothing else meanwhile.
        act: Who acts.
        episodes: How many; rounded up to a multiple of the number of copies.
        seed: Seed of the episodes.

    Raises:
        ValueError: If an episode goes on for more than 100,000 steps.
    """
    rounds = -(-episodes // env.num_envs)
    teams = torch.nn.functional.one_hot(torch.tensor(env.agents.team)).float().to(env.device)  # [N, teams]
    view, start = env.reset(seed), torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    names = list(env.agents.info)
    running = torch.zeros(env.num_envs, teams.shape[1], device=env.device)
    length = torch.zeros(env.num_envs, device=env.device)
    counts = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
    sums = {name: torch.zeros(env.num_envs, device=env.device) for name in names}
    ended: list[tuple[Tensor, ...]] = []
    while bool((counts < rounds).any()):
        if float(length.max()) >= MAX_STEPS:
            raise ValueError(
                f"evaluate: an episode did not end within {MAX_STEPS:,} steps; give the environment a limit"
            )
        step = env.step(act(view, start))
        running, length = running + torch.where(view.alive, step.reward, 0.0) @ teams, length + 1
        for name in names:
            sums[name] = _fold(sums[name], step.info[name], env.agents.info[name])
        taken = step.over & (counts < rounds)
        if bool(taken.any()):
            ended.append((running[taken], length[taken], *(_close(sums, n, length, env.agents)[taken] for n in names)))
        counts = counts + step.over
        running = torch.where(step.over.unsqueeze(1), 0.0, running)
        length = torch.where(step.over, 0.0, length)
        sums = {name: torch.where(step.over, 0.0, x) for name, x in sums.items()}
        view, start = step.view, step.over
    returns, lengths, *infos = (torch.cat(column).cpu() for column in zip(*ended, strict=True))
    info = {n: float(x.mean()) for n, x in zip(names, infos, strict=True)}
    return Evaluation(returns, lengths, info, env.agents.learning_teams)


def _fold(so_far: Tensor, x: Tensor, how: str) -> Tensor:
    x = x.float() if x.ndim == 1 else x.float().mean(-1)
    return x if how == "last" else torch.maximum(so_far, x) if how == "any" else so_far + x


def _close(sums: dict[str, Tensor], name: str, length: Tensor, agents: AgentSpec) -> Tensor:
    return sums[name] / length if agents.info[name] == "mean" else sums[name]


@tree.struct
class Episodes:
    """The first episode of every copy, step by step.

    Attributes:
        view: ``[T, B]`` views acted on; ``alive`` is False from the end of a copy's episode on.
        action: ``[T, B, N, A]``.
        reward: ``[T, B, N]``, zero after the end.
        length: ``[B]`` steps of each episode, shared over time.
    """

    view: View = tree.axes("")
    action: Tensor = tree.axes("N A")
    reward: Tensor = tree.axes("N")
    length: Tensor = tree.shared()


@torch.no_grad()
def record(env: VectorEnv, act: Act, seed: int, most: int = 1000) -> Episodes:
    """Play one episode in every copy and keep all of it.

    Args:
        env: Copies of the environment, used for nothing else meanwhile.
        act: Who acts.
        seed: Seed of the episodes.
        most: Steps after which to stop, whether the episodes are over or not.
    """
    view = env.reset(seed)
    start = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    going = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    rows: list[tuple[View, Tensor, Tensor]] = []
    length = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
    while bool(going.any()) and len(rows) < most:
        action = act(view, start)
        step = env.step(action)
        mask = going.unsqueeze(-1)
        done = action if step.action is None else step.action
        rows.append((replace(view, alive=view.alive & mask), done, torch.where(mask, step.reward, 0.0)))
        length, going, view = length + going, going & ~step.over, step.view
        start = step.over
    views, actions, rewards = (tree.stack(list(column)) for column in zip(*rows, strict=True))
    return tree.to(Episodes(views, actions, rewards, length), "cpu")
