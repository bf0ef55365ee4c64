"""Frames that third-party environments draw themselves, with the links over them where it is known who stands where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from envs.render.canvas import FINE, draw_links
from envs.render.colours import MUTED
from envs.render.links import lines

MPE_SHARE = 0.9  # mpe2 1.1 draws the farthest entity at this share of half the frame
MPE_ARROW = 12.0 * FINE


def own_frame(env: Any) -> NDArray[np.uint8] | None:
    """``[H, W, 3]`` what the environment draws; None if it was not made with ``render_mode="rgb_array"``."""
    if getattr(env, "render_mode", None) != "rgb_array":
        return None
    frame = env.render()
    return frame if isinstance(frame, np.ndarray) and frame.ndim == 3 and frame.dtype == np.uint8 else None


def pixel_places(env: Any, agents: Sequence[Any], frame: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """``[N, 2]`` pixels of the agents in their environment's own frame, NaN for who has none; None if unknown.

    Known are the environments of mpe2: it scales its view to the entity farthest from the centre along an axis.

    Args:
        env: The environment.
        agents: Names, in the order wanted.
        frame: Its frame.
    """
    world = getattr(getattr(env, "unwrapped", env), "world", None)
    if world is None or not type(world).__module__.startswith("mpe2."):
        return None
    reach = max(float(np.abs(entity.state.p_pos).max()) for entity in world.entities)
    half = np.array([frame.shape[1], frame.shape[0]]) / 2
    place = {agent.name: agent.state.p_pos for agent in world.agents}
    world_places = np.array([place.get(name, (np.nan, np.nan)) for name in agents], dtype=np.float64)
    return half + world_places / reach * MPE_SHARE * half * np.array([1, -1])


def overlay(frame: NDArray[np.uint8], places: NDArray[np.floating], pairs: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The frame with links over it.

    Args:
        frame: ``[H, W, 3]``.
        places: ``[N, 2]`` pixels of the agents.
        pairs: ``[L, 2]`` senders and receivers.
    """
    height, width = frame.shape[:2]
    image = Image.fromarray(frame).resize((width * FINE, height * FINE))
    ends, oneway = lines(pairs[np.isfinite(places[pairs]).all(axis=(1, 2))])
    draw_links(ImageDraw.Draw(image, "RGBA"), places[ends] * FINE, oneway, MPE_ARROW, MUTED)
    return np.asarray(image.reduce(FINE))
