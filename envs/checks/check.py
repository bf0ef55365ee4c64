"""Check a PettingZoo environment over whole episodes: rules, determinism, and whether it can be replayed from a seed.

PettingZoo's own seed test compares a single step; this one plays whole episodes, three times each.
"""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from envs.checks.rules import TOLD, Findings, Referee
from envs.door.errors import EnvError, explain
from envs.door.source import Source
from envs.spaces import UnsupportedSpaceError

COMPARED = TOLD[:4]  # infos may hold the time of day


@dataclass(frozen=True)
class Report:
    """What :func:`check` found.

    Attributes:
        passed: Whether no rule was broken.
        problems: Broken rules, each kind once.
        notes: Things worth knowing that break no rule.
        replayable: Whether a seed and the actions determine the episode, whatever else the process draws at random:
            such an environment resumes exactly.
        agents: ``possible_agents``.
        episode_length: Steps of the longest episode seen.
    """

    passed: bool
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    replayable: bool
    agents: tuple[str, ...]
    episode_length: int

    def raise_if_failed(self) -> None:
        """Raise what was found.

        Raises:
            EnvError: If a rule was broken; the message lists the problems.
        """
        if not self.passed:
            raise EnvError("the environment breaks the rules:\n" + "\n".join(f"- {text}" for text in self.problems))


@dataclass
class Episode:
    """What was done in an episode, and what was told: the reset first, then every step."""

    seed: int
    actions: list[dict[Any, Any]] = field(default_factory=list)
    told: list[tuple[Any, ...]] = field(default_factory=list)


def check(env: Any, episodes: int = 2, seed: int = 0, max_steps: int = 10_000) -> Report:
    """Play random episodes and see whether the environment keeps the rules of the Parallel API.

    Every episode is played three times from its seed: once with random actions (masks honoured), once more with the
    same actions, and once while the global generators of Python, NumPy and torch are disturbed (they are put back).

    Args:
        env: A PettingZoo environment, a factory or an import path.
        episodes: How many seeds to try, from ``seed`` on.
        seed: The first seed.
        max_steps: Where an episode that does not end is left.

    Returns:
        The report. Faults of the environment, exceptions it raises included, are reported and not raised.

    Raises:
        ValueError: If there is no episode to play.
        TypeError: If ``env`` is no environment and makes none.
    """
    if episodes < 1 or max_steps < 1:
        raise ValueError(f"check: expected at least one episode of one step, got {episodes} of {max_steps}")
    source, findings = Source.of(env, {}), Findings()
    made = source.build()
    played: list[Episode] = []
    replayable = False
    with _global_generators() as restore:
        try:
            referee = Referee(made, findings)
            for number in range(episodes):
                played.append(Episode(seed + number))
                _play(referee, played[-1], max_steps)
            restore()
            replayable = _same_again(referee, played)
            _different_seeds(played, findings)
        except (EnvError, UnsupportedSpaceError) as error:
            findings.problem("fatal", str(error))
    if not source.single:
        made.close()
    return Report(
        passed=not findings.problems,
        problems=tuple(findings.problems.values()),
        notes=tuple(findings.notes.values()),
        replayable=replayable,
        agents=tuple(map(str, made.possible_agents)),
        episode_length=max((len(episode.actions) for episode in played), default=0),
    )


def _play(referee: Referee, episode: Episode, max_steps: int) -> None:
    """Play one episode with random actions, fill it in, and have every step checked."""
    env, generator = referee.env, np.random.default_rng(0)
    obs, infos = referee.reset(_reset(env, episode.seed))
    episode.told.append(copy.deepcopy((obs,)))
    while env.agents:
        if len(episode.actions) == max_steps:
            referee.findings.note("endless", f"seed {episode.seed}: no end within {max_steps} steps")
            return
        when, acting = f"seed {episode.seed}, step {len(episode.actions)}", list(env.agents)
        actions = referee.act(obs, infos, generator)
        episode.actions.append(copy.deepcopy(actions))
        told = referee.step(acting, _step(env, actions, when), when)
        obs, infos = told[0], told[4]
        episode.told.append(copy.deepcopy(told[:4]))


def _same_again(referee: Referee, played: list[Episode]) -> bool:
    """Play the same actions again, undisturbed and disturbed; whether both times the same was told."""
    for episode in played:
        if difference := _difference(referee.env, episode):
            referee.findings.problem(
                "deterministic", f"seed {episode.seed}: the same seed and actions gave other {difference}"
            )
            return False
    for episode in played:
        if difference := _difference(referee.env, episode, disturbed=True):
            referee.findings.note(
                "replayable",
                f"seed {episode.seed}: other {difference} once the global generators were disturbed; draw from a "
                "generator of the environment's own, seeded in reset",
            )
            return False
    return True


def _difference(env: ParallelEnv, episode: Episode, disturbed: bool = False) -> str:
    """Replay an episode; what was told otherwise first, and when, or the empty string."""
    disturb = _disturb if disturbed else lambda seed: None
    disturb(episode.seed)
    told = _reset(env, episode.seed)
    if not same(episode.told[0][0], told[0]):
        return "observations at reset"
    for t, actions in enumerate(episode.actions):
        when = f"seed {episode.seed}, step {t}"
        if set(env.agents) != set(actions):
            return f"agents before step {t}"
        disturb(episode.seed + t)  # an environment that seeds them in its reset shares them with all other copies
        told = _step(env, copy.deepcopy(actions), when)
        for name, before, now in zip(COMPARED, episode.told[t + 1], told, strict=False):
            if not same(before, now):
                return f"{name} at step {t}"
    return ""


def _different_seeds(played: list[Episode], findings: Findings) -> None:
    for one, two in pairwise(played):
        if same(one.told, two.told):
            same_seeds = f"seeds {one.seed} and {two.seed} give the same episode"
            findings.note("seeds", f"{same_seeds}: nothing is random, or the seed is not used")


def _reset(env: ParallelEnv, seed: int) -> Any:
    try:
        return env.reset(seed=seed)
    except Exception as error:
        raise explain(error, f"reset(seed={seed})") from error


def _step(env: ParallelEnv, actions: dict[Any, Any], when: str) -> Any:
    try:
        return env.step(actions)
    except Exception as error:
        raise explain(error, when) from error


def same(a: Any, b: Any) -> bool:
    """Whether two nested values are equal, arrays by dtype, shape and content; NaN equals NaN."""
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and set(a) == set(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    x, y = np.asarray(a), np.asarray(b)
    return x.dtype == y.dtype and np.array_equal(x, y, equal_nan=x.dtype.kind in "fc")


def _disturb(seed: int) -> None:
    """Leave the global generators where no earlier run found them."""
    other = seed % 2**31 + 12_345
    random.seed(other)
    np.random.seed(other)  # noqa: NPY002 - the legacy generator is the one to disturb
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(other)


@contextmanager
def _global_generators() -> Iterator[Any]:
    """Put the global generators back afterwards; gives a function that puts them back at once."""
    torch = sys.modules.get("torch")
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    tensor = None if torch is None else torch.get_rng_state()

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        if torch is not None:
            torch.set_rng_state(tensor)

    try:
        yield restore
    finally:
        restore()
