"""Run a population without learning: rate, returns and coordination metrics."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

import envs
from coordination import rng
from envs import registry
from envs.scripted import random_action
from marl.config import ConfigError
from marl.report.episode import coordination_metrics
from marl.report.evaluate import Act, NetworkAct, record
from marl.runs.run import Run
from marl.settings import settings

KEYS = ("env_args", "num_agents", "graph", "wrappers", "workers")


def simulate(env_id: str, policy: str, copies: int, steps: int, seed: int, keys: dict[str, Any]) -> dict[str, Any]:
    """Step ``copies`` of an environment under a policy.

    Args:
        env_id: A native id or an import path.
        policy: ``random``, ``scripted``, or a run folder.
        copies: Copies B stepped together.
        steps: Steps of every copy.
        seed: Root seed.
        keys: ``graph``, ``wrappers``, ``workers``; everything else goes to the environment.

    Returns:
        Rates, the mean reward per agent and step, returns of finished episodes, and ``coordination``.

    Raises:
        ConfigError: If the policy is unknown or does not fit.
    """
    own = {name: keys[name] for name in KEYS if name in keys}
    arguments = {name: value for name, value in keys.items() if name not in KEYS}
    s = settings({"env": env_id, **own, "env_args": {**own.get("env_args", {}), **arguments}, "num_envs": copies})
    options = {"graph": s.graph, "wrappers": s.wrappers, **s.env_args}
    env = envs.make(env_id, copies, seed=seed, workers=s.workers, **options)
    act = _act(policy, env, env_id, rng.generator(seed, "simulate"))
    running, ended = torch.zeros(copies), []
    total = torch.zeros(())
    try:
        view, start = env.reset(rng.derive(seed, "simulate")), torch.ones(copies, dtype=torch.bool)
        began = time.perf_counter()
        with torch.no_grad():
            for _ in range(steps):
                step = env.step(act(view, start))
                view, start, total = step.view, step.over, total + step.reward.sum()
                running = running + step.reward.sum(-1)
                ended.append(running[step.over])
                running = torch.where(step.over, 0.0, running)
        seconds = time.perf_counter() - began
    finally:
        env.close()
    returns = torch.cat(ended)
    small = envs.make(env_id, min(copies, 32), seed=seed, **options)
    metrics = coordination_metrics(record(small, act, rng.derive(seed, "record")), small.agents)
    small.close()
    n = env.agents.num_agents
    return {
        "env": env_id,
        "policy": policy,
        "agents": n,
        "env_steps_per_second": copies * steps / seconds,
        "agent_steps_per_second": copies * steps * n / seconds,
        "reward_per_agent_step": float(total) / (copies * steps * n),
        "episodes": len(returns),
        "return": float(returns.mean()) if len(returns) else None,
        "coordination": metrics,
    }


def _act(policy: str, env: envs.VectorEnv, env_id: str, generator: torch.Generator) -> Act:
    if policy == "random":
        return lambda view, start: random_action(view, env.agents, generator)
    if policy == "scripted":
        target = registry.scripted(env_id)
        if target is None:
            raise ConfigError(f"policy: there is no scripted policy for {env_id!r}; use random or a run folder")
        scripted = registry.load(target)
        return lambda view, start: scripted(view, env.agents)
    if not Path(policy).exists():
        raise ConfigError(f"policy: expected random, scripted or a run folder, got {policy!r}")
    return NetworkAct(Run(policy).policy(env), generator)
