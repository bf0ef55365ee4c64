"""Where films are shot: one copy of an environment that can be drawn."""

from __future__ import annotations

import torch

from envs.base import VectorEnv
from marl.experiment import make_env
from marl.settings import Settings


def stage(s: Settings) -> VectorEnv:
    """One copy of the environment of an experiment, made to draw itself where it can.

    Third-party environments that take ``render_mode`` are given ``rgb_array``; all others are drawn from outside.
    """
    cpu = torch.device("cpu")
    drawing = s.model_copy(update={"env_args": {"render_mode": "rgb_array", **s.env_args}})
    try:
        return make_env(drawing, 1, 0, cpu)
    except (ValueError, TypeError, RuntimeError):  # it knows no such argument; if that is not why, it fails again
        return make_env(s, 1, 0, cpu)
