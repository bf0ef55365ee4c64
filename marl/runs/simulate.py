"""Run a population without learning: rate, returns and coordination metrics."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from coordination import rng
from envs.base import VectorEnv, View
from marl.config import ConfigError
from marl.experiment import make_env
from marl.partners import partner
from marl.report.episode import coordination_metrics
from marl.report.evaluate import Act, record
from marl.settings import Settings, settings

KEYS = ("env_args", "num_agents", "graph", "wrappers", "workers", "policies")


def simulate(env_id: str, policy: str, copies: int, steps: int, seed: int, keys: dict[str, Any]) -> dict[str, Any]:
    """Step ``copies`` of an environment under a policy.

    Args:
        env_id: A native id or an import path.
        policy: ``random``, ``scripted``, or a run folder.
        copies: Copies B stepped together.
        steps: Steps of every copy.
        seed: Root seed.
        keys: ``graph``, ``wrappers``, ``workers``, ``policies``; everything else goes to the environment.

    Returns:
        Rates, the mean reward per agent and step, returns of finished episodes, and ``coordination``.

    Raises:
        ConfigError: If the policy is unknown or does not fit.
    """
    own = {name: keys[name] for name in KEYS if name in keys}
    arguments = {name: value for name, value in keys.items() if name not in KEYS}
    given = settings({"env": env_id, **own, "num_envs": copies, "seed": seed})
    s = given.model_copy(update={"env_args": {**given.env_args, **arguments}})
    device = torch.device("cpu")
    env = make_env(s, copies, s.workers, device)
    generator = rng.generator(seed, "simulate")
    running, ended = torch.zeros(copies), []
    total = torch.zeros(())
    try:
        act = _act(policy, s, env, generator)
        view, start = env.reset(rng.derive(seed, "simulate")), torch.ones(copies, dtype=torch.bool)
        began = time.perf_counter()
        with torch.no_grad():
            for _ in range(steps):
                step = env.step(act(view, start))
                reward = torch.where(view.alive, step.reward, 0.0).sum(-1)
                view, start, total = step.view, step.over, total + reward.sum()
                running = running + reward
                ended.append(running[step.over])
                running = torch.where(step.over, 0.0, running)
        seconds = time.perf_counter() - began
    finally:
        env.close()
    returns = torch.cat(ended)
    small = make_env(s, min(copies, 32), 0, device)
    seen = record(small, _act(policy, s, small, generator), rng.derive(seed, "record"))
    metrics = coordination_metrics(seen, small.agents)
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
