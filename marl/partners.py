"""Partners and opponents: groups of agents for which a random, a scripted or a stored policy chooses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coordination import rng
from envs import registry
from envs.base import Step, VectorEnv, View, check_action
from envs.scripted import random_action
from envs.wrappers import ViewWrapper
from marl.config import ConfigError, read_yaml
from marl.learners import stored_policy
from marl.settings import LEARN, RANDOM, SCRIPTED, Settings, settings

# view [B, N, ...], memory [B, N, S] or None, where episodes begin [B], generator -> action [B, N, A], next memory
Play = Callable[[View, Tensor | None, Tensor, torch.Generator], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Partner:
    """Somebody who plays along without learning.

    Attributes:
        play: How it chooses for all agents; used for its own groups alone.
        version: Which of its stages this is, where there are several; a run is resumed with the same one.
        untaught: Groups it never learned to play.
    """

    play: Play
    version: int = 0
    untaught: tuple[str, ...] = ()


class WithPartners(ViewWrapper):
    """An environment some of whose groups are played by partners; to the learner they do not act.

    Partners see what the environment inside shows. Their agents' actions are put over whatever the learner says.

    Args:
        env: Any VectorEnv.
        partners: By group; groups that name the same object are played by it together, with one memory.
        seed: Seed of their draws until :meth:`reset` gives another.

    Raises:
        ValueError: If a group does not exist or never acts.
    """

    def __init__(self, env: VectorEnv, partners: Mapping[str, Partner], seed: int = 0) -> None:
        super().__init__(env)
        self.agents = replace(env.agents, partners=tuple(partners))
        self.partners = partners
        self._learns = torch.tensor(self.agents.learners, device=env.device)
        distinct = list({id(partner): partner for partner in partners.values()}.values())
        self._played = [(one.play, self._members([g for g, p in partners.items() if p is one])) for one in distinct]
        self.generator = rng.generator(seed, "partners", device=env.device)
        self.view: View | None = None
        self._forget()

    def _members(self, groups: Sequence[str]) -> Tensor:
        """``[1, N, 1]`` bool: the agents of these groups."""
        slots = [group.name in groups for group in self.agents.groups for _ in range(group.size)]
        return torch.tensor(slots, device=self.device).reshape(1, -1, 1)

    def _forget(self) -> None:
        self.start = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        self.hidden: list[Tensor | None] = [None] * len(self._played)

    def change(self, view: View) -> View:
        """The view with the partners' agents not acting."""
        return replace(view, acts=view.acting & self._learns)

    def reset(self, seed: int | None = None) -> View:
        """Start every copy anew; the same seed gives the same episodes, the partners' draws included."""
        if seed is not None:
            self.generator = rng.generator(seed, "partners", device=self.device)
        self.view = self.env.reset(seed)
        self._forget()
        return self.change(self.view)

    @torch.no_grad()
    def step(self, action: Tensor) -> Step:
        """Advance every copy, the partners choosing for their groups."""
        if self.view is None:
            raise RuntimeError("step: call reset first")
        check_action(action, self.agents, self.num_envs)
        for i, (play, members) in enumerate(self._played):
            theirs, self.hidden[i] = play(self.view, self.hidden[i], self.start, self.generator)
            action = torch.where(members, theirs.to(action.dtype), action)
        step = self.env.step(action)
        self.view, self.start = step.view, step.over
        return replace(self.changed(step), action=action)

    def state_dict(self) -> dict[str, Any]:
        """The environment's state, what the partners remember and draw from, and which they are."""
        return {
            "env": self.env.state_dict(),
            "start": self.start,
            "generator": self.generator.get_state(),
            "hidden": list(self.hidden),
            "versions": {group: partner.version for group, partner in self.partners.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> View:
        """Restore :meth:`state_dict`; returns the current view.

        Raises:
            ValueError: If a partner is not the one it was.
        """
        for group, partner in self.partners.items():
            if state["versions"][group] != partner.version:
                raise ValueError(
                    f"policies.{group}: was saved after {state['versions'][group]} iterations when this run began, "
                    f"after {partner.version} now; give it back its old checkpoint, or start a new run"
                )
        self.view = self.env.load_state_dict(state["env"])
        self.start = state["start"].to(self.device)
        self.generator.set_state(state["generator"].cpu())
        self.hidden = [None if h is None else h.to(self.device) for h in state["hidden"]]
        return self.change(self.view)


def with_partners(env: VectorEnv, s: Settings) -> VectorEnv:
    """The environment with the partners that ``policies`` names; itself where everything learns.

    Raises:
        ConfigError: If a group or a policy is unknown, a run does not fit, or nobody is left to learn.
    """
    groups = [group.name for group in env.agents.acting]
    if strangers := [name for name in s.policies if name not in groups]:
        raise ConfigError(f"policies: expected groups of the environment ({', '.join(groups)}), got {strangers[0]!r}")
    chosen = {group: name for group, name in s.policies.items() if name != LEARN}
    if not chosen:
        return env
    if len(chosen) == len(groups):
        raise ConfigError("policies: nobody is left to learn; leave one group at learn")
    made: dict[str, Partner] = {}
    for group, name in chosen.items():
        try:
            made[name] = made.get(name) or partner(name, s, env)
        except ValueError as error:
            raise ConfigError(f"policies.{group}: {error}") from None
        if group in made[name].untaught:
            raise ConfigError(f"policies.{group}: the run {name} never learned to play {group}, others did it there")
    return WithPartners(env, {group: made[name] for group, name in chosen.items()}, s.seed)


def partner(name: str, s: Settings, env: VectorEnv) -> Partner:
    """``random``, ``scripted``, or the run in the folder of that name, sampling its actions.

    Args:
        name: Which.
        s: Settings of ``env``.
        env: Where it is to play.

    Raises:
        ValueError: If there is none, or it does not fit.
    """
    if name == RANDOM:
        return Partner(lambda view, hidden, start, generator: (random_action(view, env.agents, generator), None))
    if name == SCRIPTED:
        scripted = scripted_policy(s, env)
        if scripted is None:
            raise ConfigError(
                f"there is no scripted policy for {s.env!r} as it is seen here; use random or a run folder"
            )
        return Partner(lambda view, hidden, start, generator: (scripted(view), None))
    folder = Path(name)
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"expected random, scripted or a run folder, got {name!r}")
    own = settings(read_yaml(folder / "config.yaml"))
    try:
        policy, iteration = stored_policy(folder, own, env)
    except ValueError as error:
        raise ConfigError(f"{folder}: {error}") from None

    def play(
        view: View, hidden: Tensor | None, start: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        action, _, hidden = policy.act(view, hidden, start, generator)
        return policy.head.env_action(action), hidden

    return Partner(play, iteration, tuple(g for g, who in own.policies.items() if who != LEARN))


def scripted_policy(s: Settings, env: VectorEnv) -> Callable[[View], Tensor] | None:
    """The hand-written policy of this environment, if there is one and it can read what is seen here."""
    target = registry.scripted(s.env) if isinstance(s.env, str) else None
    if target is None or s.wrappers:
        return None
    scripted = registry.load(target)
    try:
        scripted(env.reset(0), env.agents)
    except ValueError:  # other observations than it was written for
        return None
    return lambda view: scripted(view, env.agents)
