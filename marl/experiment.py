"""Experiment: settings become an environment, a learner and a trainer, and a run folder fills."""

from __future__ import annotations

import ctypes
import math
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

import envs
from coordination import rng
from envs.base import VectorEnv
from envs.links import COMPLETE_UP_TO
from marl.callbacks import Evaluator, Saver
from marl.collector import Collector
from marl.config import ConfigError
from marl.learners import build_algorithm
from marl.partners import with_partners
from marl.report.log import RunLog
from marl.settings import Settings
from marl.storage.checkpoint import Checkpoints
from marl.trainer import Callback, Trainer

MAX_EVALUATION_COPIES = 50
MOST_AGENTS = 1_000_000
FREE_TO_CHANGE = {
    "total_steps",
    "evaluate",
    "checkpoint_every",
    "run_dir",
    "workers",
    "on_crash",
    "timeout_s",
    "threads",
    "device",
}


class Experiment:
    """Everything that runs, wired from settings; a function of settings and state.

    Args:
        settings: All keys.
    """

    def __init__(self, settings: Settings) -> None:
        keep_freed_memory()
        self.settings = settings
        self.device = _device(settings.device)
        self.env = make_env(settings, settings.num_envs, settings.workers, self.device)
        refuse_silence(settings, self.env)
        self.algorithm = build_algorithm(settings, self.env.agents, self.device)
        acting = rng.generator(settings.seed, "act", device=self.device)
        self.collector = Collector(self.env, self.algorithm.policy, acting)
        self.trainer = Trainer(self.collector, self.algorithm, settings.rollout_steps, settings.total_steps)
        self.evaluator: Evaluator | None = None
        if settings.evaluate.every and can_be_made_anew(settings.env):
            e = settings.evaluate
            env = evaluation_env(settings, e.episodes, self.device)
            self.evaluator = Evaluator(env, self.algorithm.policy, e.every, e.episodes, settings.seed)
        self.resume = "exact"

    def start(self) -> None:
        """Begin the first episodes."""
        self.collector.reset(rng.derive(self.settings.seed, "train"))

    def state_dict(self) -> dict[str, Any]:
        """Everything the rest of the run depends on."""
        best = None if self.evaluator is None or math.isinf(self.evaluator.best) else self.evaluator.best
        return {
            "trainer": self.trainer.state_dict(),
            "best": best,
            "resume": self.resume,
            "settings": self.settings.plain(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly from :meth:`state_dict`; ``resume`` tells whether third-party environments could.

        Raises:
            ConfigError: If a setting that the state depends on has changed since.
        """
        refuse_changes(self.settings.plain(), state["settings"])
        self.trainer.load_state_dict(state["trainer"])
        if self.evaluator is not None and state["best"] is not None:
            self.evaluator.best = state["best"]
        exact = state["resume"] == "exact" and getattr(self.env, "resume_exact", True)
        self.resume = "exact" if exact else "approximate"

    def run(self, folder: Path, watchers: tuple[Callback, ...] = ()) -> bool:
        """Train to the end of the budget, writing into ``folder``; True if it was reached, False after Ctrl-C.

        A last checkpoint is written either way; after an error the previous one stands.
        """
        saver = Saver(
            Checkpoints(folder / "checkpoints"), self.state_dict, self.settings.checkpoint_every, self.evaluator
        )
        with RunLog(folder) as log, one_interrupt(self.trainer):
            log.resume(self.trainer.progress.iteration)
            logger = _Logger(log)
            first = () if self.evaluator is None else (self.evaluator,)
            self.trainer.callbacks = [*first, logger, saver, *watchers]
            self.trainer.run()
            saver.save(self.trainer.progress)
        return self.trainer.progress.over

    def close(self) -> None:
        """End the environments' processes."""
        self.env.close()
        if self.evaluator is not None:
            self.evaluator.env.close()


class _Logger:
    """Writes each row into the run folder."""

    def __init__(self, log: RunLog) -> None:
        self.log = log

    def on_iteration(self, progress: object, row: dict[str, Any]) -> None:
        self.log.write(row)


def make_env(settings: Settings, num_envs: int, workers: int, device: torch.device) -> VectorEnv:
    """The environment of an experiment, ``num_envs`` copies, its partners included.

    Raises:
        ConfigError: If an argument of the environment has the name of a setting of its own, or a partner does not fit.
    """
    own = {"env", "num_envs", "device", "seed", "graph", "workers", "wrappers", "teams", "use_state"} & set(
        settings.env_args
    )
    if own:
        raise ConfigError(f"env_args: {', '.join(sorted(own))} is a setting of the run, not of the environment")
    count = settings.env_args.get("num_agents", 1)
    if type(count) is not int or count > MOST_AGENTS:
        raise ConfigError(f"num_agents: expected a whole number, got {count!r} (the most is {MOST_AGENTS:,})")
    env = envs.make(
        settings.env,
        num_envs,
        device,
        seed=settings.seed,
        graph=settings.graph,
        workers=workers,
        on_crash=settings.on_crash if workers else "stop",
        timeout_s=settings.timeout_s,
        wrappers=settings.wrappers,
        teams=settings.teams,
        use_state=settings.use_state,
        **settings.env_args,
    )
    try:
        return with_partners(env, settings)
    except ConfigError:
        env.close()
        raise


def refuse_silence(settings: Settings, env: VectorEnv) -> None:
    """Refuse networks that listen to links where there are too many agents for a default and none were chosen.

    Raises:
        ConfigError: Then.
    """
    n = env.agents.num_agents
    if settings.graph is not None or not settings.network.listens or n <= COMPLETE_UP_TO:
        return
    topology = env.reset(settings.seed).graph.topology
    if topology is not None and topology.num_edges == 0:
        raise ConfigError(
            f"graph: choose who hears whom among {n} agents, such as knn:8 or ring; everyone hearing everyone is the "
            f"default up to {COMPLETE_UP_TO} only (graph=none trains a graph network without links)"
        )


def refuse_changes(now: Mapping[str, Any], then: Mapping[str, Any], within: str = "") -> None:
    """Refuse settings that differ from those of a checkpoint, apart from those that no saved state depends on.

    Raises:
        ConfigError: Naming the first that differs.
    """
    for name in sorted(set(now) - (FREE_TO_CHANGE if not within else set())):
        new, old = now[name], then.get(name)
        if new == old or str(new).startswith("<"):
            continue
        if isinstance(new, Mapping) and isinstance(old, Mapping) and new.keys() <= old.keys():
            refuse_changes(new, old, f"{within}{name}.")
        raise ConfigError(
            f"{within}{name}: was {old!r} when this run was saved, is {new!r} now; "
            "change it back to resume, or start a new run"
        )


def evaluation_env(settings: Settings, episodes: int, device: torch.device) -> VectorEnv:
    """An environment for evaluation in this process: copies that divide the episodes, no more than are trained on."""
    most = min(episodes, settings.num_envs, MAX_EVALUATION_COPIES)
    copies = next(c for c in range(most, 0, -1) if episodes % c == 0)
    return make_env(settings, copies, 0, device)


def can_be_made_anew(env: object) -> bool:
    """Whether more copies of an environment can be made: not where an object was given."""
    return isinstance(env, str) or callable(env)


@contextmanager
def one_interrupt(trainer: Trainer) -> Iterator[None]:
    """The first Ctrl-C lets the current iteration finish and stops the trainer; the second interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(*_: object) -> None:
        trainer.stopping = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@cache
def keep_freed_memory() -> None:
    """Let glibc keep freed blocks instead of giving their pages back: each update would fault the same pages in again.

    Measured on a CPU, MAPPO with 128 copies: 6 to 15% faster. Elsewhere than on glibc nothing happens.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    with suppress(OSError, AttributeError):
        malloc = ctypes.CDLL(None).mallopt
        malloc(mmap_threshold, 32 * 2**20)  # the most glibc allows
        malloc(trim_threshold, 2**30)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Use ``count`` torch threads inside; numbers depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    number = int(name.removeprefix("cuda").removeprefix(":") or 0) if name.startswith("cuda") else -1
    if number >= torch.cuda.device_count():
        raise ConfigError(f"device: {name!r} is not available here; use cpu or auto")
    return torch.device(name)
