"""Learners from settings: a fresh one to train, and the trained policy that a run folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from coordination.signals import SharedReward, build
from envs import registry
from envs.base import VectorEnv
from envs.spec import AgentSpec
from marl.algorithms.base import Algorithm, Setting, load_exactly
from marl.networks.policy import Policy
from marl.recipes import RECIPES
from marl.settings import Settings
from marl.storage.checkpoint import Checkpoints


class Stored(NamedTuple):
    """A trained policy, and after how many iterations it was saved."""

    policy: Policy
    iteration: int


def build_algorithm(settings: Settings, agents: AgentSpec, device: torch.device) -> Algorithm:
    """The learner of an experiment, with fresh networks."""
    cls: type[Algorithm] = registry.load(RECIPES[settings.recipe].algorithm)
    setting = Setting(agents, settings.num_envs, shared_reward(settings, agents), settings.seed, device)
    return cls.build(settings.algorithm, settings.network, setting)


def shared_reward(settings: Settings, agents: AgentSpec) -> SharedReward:
    """The reward stages of an experiment: ``reward`` first, then ``signals``; they know the environment's factors."""
    team = build("team").stages if settings.reward == "team" else ()
    known: dict[str, Any] = {"gamma": getattr(settings.algorithm, "gamma", 0.99)}
    if agents.factor_scopes is not None:
        known["scopes"] = agents.factor_scopes
    return SharedReward([*team, *build(settings.signals, **known).stages])


def stored_policy(folder: Path, settings: Settings, env: VectorEnv, which: str = "latest") -> Stored:
    """The policy of a run at a checkpoint, for the agents of ``env``.

    Args:
        folder: The run folder.
        settings: Its settings; reward signals play no part.
        env: Who it is to act for, and where.
        which: Checkpoint: ``latest``, ``best`` or a number.

    Raises:
        CheckpointError: If there is no such checkpoint.
        ValueError: If its policy does not fit these agents.
    """
    state = Checkpoints(folder / "checkpoints").load(which)["trainer"]
    bare = settings.model_copy(update={"signals": None, "num_envs": 1})
    policy = build_algorithm(bare, env.agents, env.device).policy
    load_exactly(policy, state["algorithm"]["parameters"], "policy.")
    return Stored(policy, int(state["progress"]["iteration"]))
