"""Trainer: collect, learn, tell the callbacks; and stop with a clear error when numbers stop being numbers."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from marl.algorithms.base import Algorithm
from marl.collector import Collector
from marl.episodes import EpisodeMeter


class DivergedError(ArithmeticError):
    """A metric became NaN or infinite; training stops, checkpoints stay as they are."""


@dataclass
class Progress:
    """How far training has come.

    Attributes:
        total_env_steps: Environment steps over all copies to train for.
        iteration: Iterations finished.
        env_steps: Environment steps taken.
        wall_s: Seconds spent training, over interruptions.
    """

    total_env_steps: int
    iteration: int = 0
    env_steps: int = 0
    wall_s: float = 0.0

    @property
    def fraction(self) -> float:
        """Share of training behind us."""
        return min(1.0, self.env_steps / self.total_env_steps)

    @property
    def over(self) -> bool:
        """Whether training is complete."""
        return self.env_steps >= self.total_env_steps


class Callback(Protocol):
    """Watches the iterations: logs, evaluates, saves, schedules."""

    def on_iteration(self, progress: Progress, row: dict[str, Any]) -> None:
        """Called after every iteration; may add to ``row``."""
        ...


class Trainer:
    """Runs iterations of one collector and one algorithm.

    Args:
        collector: Where experience comes from.
        algorithm: Who learns from it.
        rollout_steps: Steps T per iteration in every copy.
        total_env_steps: When to stop; the last iteration is always whole.
        callbacks: Called in order after every iteration.
    """

    def __init__(
        self,
        collector: Collector,
        algorithm: Algorithm,
        rollout_steps: int,
        total_env_steps: int,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.collector, self.algorithm, self.rollout_steps = collector, algorithm, rollout_steps
        self.callbacks = list(callbacks)
        self.progress = Progress(total_env_steps)
        env = collector.env
        self.meter = EpisodeMeter(env.agents, env.num_envs, env.device)
        self.stopping = False

    def run(self) -> None:
        """Train until the budget is spent or :attr:`stopping` is set between iterations.

        Raises:
            DivergedError: If a metric is not finite.
        """
        while not self.progress.over and not self.stopping:
            self.iterate()

    def iterate(self) -> dict[str, Any]:
        """One iteration, in full; returns its row of metrics."""
        progress = self.progress
        began, before = time.perf_counter(), self._counters()
        self.algorithm.schedule(progress.fraction)
        rollout = self.collector.collect(self.rollout_steps)
        collected = time.perf_counter()
        metrics = {f"learn/{name}": x for name, x in self.algorithm.learn(rollout).items()}
        if rollout.hidden is not None:
            said = self.algorithm.policy.trunk.traffic(rollout.hidden[1:], rollout.view.alive[:-1])
            metrics |= {f"messages/{name}": x for name, x in said.items()}
        values = torch.stack([m.float() for m in metrics.values()]).tolist() if metrics else []  # the one read-back
        learned = time.perf_counter()
        steps = self.rollout_steps * self.collector.env.num_envs
        progress.iteration += 1
        progress.env_steps += steps
        row: dict[str, Any] = {
            "iteration": progress.iteration,
            "env_steps": progress.env_steps,
            "agent_steps": progress.env_steps * self.collector.env.agents.num_agents,
            **self.meter.update(rollout),
            **{f"env/{name}": count - before[name] for name, count in self._counters().items()},
            **dict(zip(metrics, values, strict=True)),
        }
        bad = next((name for name, x in row.items() if not math.isfinite(x)), None)
        if bad is not None:
            seen = rollout.view.alive[:-1]
            finite = bool(
                (rollout.reward.isfinite() | ~seen).all() and rollout.view.obs[rollout.view.alive].isfinite().all()
            )
            cause = (
                "lower the learning rate"
                if finite
                else "the environment gave a reward or observation that is no number"
            )
            raise DivergedError(f"{bad} is {row[bad]} at iteration {progress.iteration}; {cause}")
        seconds = time.perf_counter() - began
        progress.wall_s += seconds
        phases = {"collect": collected - began, "learn": learned - collected, "other": seconds - (learned - began)}
        row["time"] = {"wall_s": progress.wall_s, "env_steps_per_second": steps / seconds, "phase_s": phases}
        for callback in self.callbacks:
            callback.on_iteration(progress, row)
        return row

    def _counters(self) -> dict[str, float]:
        """What the environment counts, so far; reads back from the device where links can be dropped."""
        return {name: float(count) for name, count in getattr(self.collector.env, "counters", {}).items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that training depends on."""
        p = self.progress
        return {
            "algorithm": self.algorithm.training_state(),
            "collector": self.collector.state_dict(),
            "meter": self.meter.state_dict(),
            "progress": {"iteration": p.iteration, "env_steps": p.env_steps, "wall_s": p.wall_s},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly from :meth:`state_dict`."""
        self.algorithm.load_training_state(state["algorithm"])
        self.collector.load_state_dict(state["collector"])
        self.meter.load_state_dict(state["meter"])
        for name, value in state["progress"].items():
            setattr(self.progress, name, value)
