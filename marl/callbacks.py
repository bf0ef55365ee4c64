"""What watches the iterations of a run: evaluation, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from coordination import rng
from envs.base import VectorEnv
from marl.networks.policy import Policy
from marl.report.evaluate import NetworkAct, evaluate
from marl.storage.checkpoint import Checkpoints
from marl.trainer import Progress


class Evaluator:
    """Plays the greedy policy in an environment of its own every few iterations.

    Args:
        env: Copies used for nothing else.
        policy: Who is measured.
        every: Iterations between evaluations.
        episodes: Episodes of each.
        seed: Root seed; every evaluation has a branch of its own, so that it disturbs no training stream.
    """

    def __init__(self, env: VectorEnv, policy: Policy, every: int, episodes: int, seed: int) -> None:
        self.env, self.policy, self.every, self.episodes, self.seed = env, policy, every, episodes, seed
        self.best = -math.inf
        self.improved = False

    def on_iteration(self, progress: Progress, row: dict[str, Any]) -> None:
        """Add ``evaluate/...`` to the row when it is time."""
        self.improved = False
        if progress.iteration % self.every:
            return
        began = time.perf_counter()
        seed = rng.derive(self.seed, "evaluate", progress.iteration)
        result = evaluate(self.env, NetworkAct(self.policy), self.episodes, seed)
        row["evaluate/return"] = result.mean
        row |= {f"evaluate/return/{name}": value for name, value in result.by_team.items()}
        row |= {f"evaluate/{name}": value for name, value in result.info.items()}
        row["time"]["phase_s"]["evaluate"] = time.perf_counter() - began
        if result.mean > self.best:
            self.best, self.improved = result.mean, True


class Saver:
    """Writes a checkpoint every few iterations, and whenever an evaluation was the best so far.

    Args:
        checkpoints: Where to.
        state: Makes the state to save.
        every: Iterations between checkpoints.
        evaluator: Says which state is the best; None without evaluation.
    """

    def __init__(
        self, checkpoints: Checkpoints, state: Callable[[], dict[str, Any]], every: int, evaluator: Evaluator | None
    ) -> None:
        self.checkpoints, self.state, self.every, self.evaluator = checkpoints, state, every, evaluator
        self.saved = -1

    def on_iteration(self, progress: Progress, row: dict[str, Any]) -> None:
        """Save when it is time."""
        best = self.evaluator is not None and self.evaluator.improved
        if best or progress.iteration % self.every == 0:
            self.save(progress, best)

    def save(self, progress: Progress, best: bool = False) -> None:
        """Save now, unless this iteration is saved already."""
        if self.saved != progress.iteration:
            self.checkpoints.save(progress.iteration, self.state(), best)
            self.saved = progress.iteration
