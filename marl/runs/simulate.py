"""Run a population without learning: rate, returns and coordination metrics, and a film of it."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coordination import rng
from envs.base import VectorEnv, View
from marl.config import ConfigError
from marl.experiment import keep_freed_memory, make_env, torch_threads
from marl.partners import partner
from marl.report.episode import coordination_metrics
from marl.report.evaluate import Act, record
from marl.report.progress import Progress
from marl.report.video import frames, write_video
from marl.runs.stage import stage
from marl.settings import Settings, settings

KEYS = ("env_args", "num_agents", "graph", "wrappers", "workers", "policies", "threads")
RECORDED_COPIES = 32  # copies of which coordination metrics are taken
RECORDED = 5_000_000  # agent steps of them at most, in memory at once
SHOWN_EVERY_S = 0.1


def simulate(
    env_id: str,
    policy: str,
    copies: int,
    steps: int,
    seed: int,
    keys: dict[str, Any],
    display: Progress | None = None,
    video: Path | None = None,
) -> dict[str, Any]:
    """Step ``copies`` of an environment under a policy.

    Args:
        env_id: A native id or an import path.
        policy: ``random``, ``scripted``, or a run folder.
        copies: Copies B stepped together.
        steps: Steps of every copy.
        seed: Root seed.
        keys: ``graph``, ``wrappers``, ``workers``, ``policies``, ``threads`` (1 if not said; more pay off for large
            populations on free cores alone); everything else goes to the environment.
        display: Shows rate and returns meanwhile.
        video: Where to write a film of one episode, as :func:`marl.report.video.check_video` lets it pass.

    Returns:
        Rates, the mean reward per agent and step, returns of finished episodes, and ``coordination`` over up to 32
        episodes, of large populations over fewer and their first steps.

    Raises:
        ConfigError: If the policy is unknown or does not fit.
    """
    own = {name: keys[name] for name in KEYS if name in keys}
    arguments = {name: value for name, value in keys.items() if name not in KEYS}
    given = settings({"env": env_id, **own, "num_envs": copies, "seed": seed})
    s = given.model_copy(update={"env_args": {**given.env_args, **arguments}})
    keep_freed_memory()
    with torch_threads(s.threads):
        generator = rng.generator(seed, "simulate")
        with closing(make_env(s, copies, s.workers, torch.device("cpu"))) as env:
            played = _play(env, _act(policy, s, env, generator), steps, rng.derive(seed, "simulate"), display)
        n = env.agents.num_agents
        few = max(1, min(copies, RECORDED_COPIES, RECORDED // (25 * n)))
        with closing(make_env(s, few, 0, torch.device("cpu"))) as env:
            act = _act(policy, s, env, generator)
            seen = record(env, act, rng.derive(seed, "record"), most=max(2, min(1000, RECORDED // (few * n))))
        if video is not None:
            with closing(stage(s)) as env:
                write_video(video, frames(env, _act(policy, s, env, generator), rng.derive(seed, "film"), env_id))
    rate = copies * steps / played.seconds
    return {
        "env": env_id,
        "policy": policy,
        "agents": n,
        "env_steps_per_second": rate,
        "agent_steps_per_second": rate * n,
        "reward_per_agent_step": played.total / (copies * steps * n),
        "episodes": len(played.returns),
        "return": float(played.returns.mean()) if len(played.returns) else None,
        "coordination": coordination_metrics(seen, env.agents),
    }


@dataclass(frozen=True)
class _Played:
    """What came of it: ``returns [episodes]``, the sum of all rewards, and how long it took."""

    returns: Tensor
    total: float
    seconds: float


@torch.no_grad()
def _play(env: VectorEnv, act: Act, steps: int, seed: int, display: Progress | None) -> _Played:
    copies = env.num_envs
    running, ended, total = torch.zeros(copies), [], torch.zeros(())
    view, start = env.reset(seed), torch.ones(copies, dtype=torch.bool)
    began = shown_at = time.perf_counter()
    shown = 0  # parts of ended
    for t in range(1, steps + 1):
        step = env.step(act(view, start))
        reward = torch.where(view.alive, step.reward, 0.0).sum(-1)
        view, start, total = step.view, step.over, total + reward.sum()
        running = running + reward
        ended.append(running[step.over])
        running = torch.where(step.over, 0.0, running)
        if display is not None and ((now := time.perf_counter()) > shown_at + SHOWN_EVERY_S or t == steps):
            newest = torch.cat(ended[shown:])
            row = {
                "env_steps": t * copies,
                "agent_steps": t * copies * env.agents.num_agents,
                "train/return": float(newest.mean()) if len(newest) else None,
                "time": {"env_steps_per_second": t * copies / (now - began)},
            }
            display.update(row, steps * copies)
            shown, shown_at = len(ended), now
    return _Played(torch.cat(ended), float(total), time.perf_counter() - began)


def _act(policy: str, s: Settings, env: VectorEnv, generator: torch.Generator) -> Act:
    try:
        made = partner(policy, s, env)
    except ValueError as error:
        raise ConfigError(f"policy: {error}") from None
    if missing := [group for group in made.untaught if group not in s.policies]:
        raise ConfigError(
            f"policy: {policy} never learned to play {missing[0]}; say who does with policies.{missing[0]}"
        )
    hidden: Tensor | None = None

    def act(view: View, start: Tensor) -> Tensor:
        nonlocal hidden
        action, hidden = made.play(view, hidden, start, generator)
        return action

    return act
