"""Film: the episode of one copy of an environment, frame by frame, as it is stepped."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.base import Step, View
from envs.render.foreign import overlay, own_frame, pixel_places
from envs.render.links import open_links
from envs.render.painter import Painter
from envs.wrappers import ViewWrapper


class Film:
    """Pictures of copy 0 of an environment that someone else steps.

    Native environments and all without frames of their own are drawn by :class:`~envs.render.painter.Painter`. The
    frames of third-party environments are theirs, with the links over them where it is known who stands where.

    Attributes:
        over: Whether the last step ended the episode.

    Args:
        env: The environment, wrapped or not.
        name: What to write above its pictures.
    """

    def __init__(self, env: Any, name: str) -> None:
        self._painter = Painter(env.agents)
        while isinstance(env, ViewWrapper):
            env = env.env
        self._env, self._name = env, name
        self._view: View | None = None
        self._reward: Tensor | None = None
        self._steps, self._return, self.over = 0, 0.0, False

    def begin(self, view: View) -> None:
        """A new episode, with what the agents see first."""
        self._view, self._reward, self._steps, self._return, self.over = view, None, 0, 0.0, False
        self._painter.begin()

    def step(self, step: Step) -> None:
        """What a step led to; the true successor is shown, of an episode that ended too."""
        self._view, self._reward, self.over = step.next_view, step.reward, bool(step.over[0])
        self._steps += 1
        self._return += float(torch.nan_to_num(step.reward[0]).sum())

    def frame(self) -> NDArray[np.uint8] | None:
        """``[H, W, 3]`` the present moment; None where an environment that draws itself has restarted already.

        Raises:
            RuntimeError: Before the first episode.
        """
        if self._view is None:
            raise RuntimeError("frame: no episode has begun")
        env = getattr(self._env, "first", None)
        if env is not None and (frame := own_frame(env)) is not None:
            return None if self.over else self._with_links(env, frame, self._view)
        caption = f"{self._name} · step {self._steps} · return {self._return:,.4g}"
        scene = self._env.scene() if hasattr(self._env, "scene") else None
        return self._painter.paint(self._view, scene, self._reward, caption)

    def _with_links(self, env: Any, frame: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
        places = pixel_places(env, [slot.agent for slot in self._env.layout.slots], frame)
        return frame if places is None else overlay(frame, places, open_links(view.graph, view.alive[0].numpy()))
