"""Films of episodes as files: a gif by Pillow, an mp4 where imageio-ffmpeg is installed."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from envs.base import VectorEnv
from envs.render.film import Film
from marl.config import ConfigError
from marl.report.evaluate import Act
from marl.storage.files import named_errors, write_atomic

SUFFIXES = (".gif", ".mp4")
FPS = 8  # steps of an episode in a second of film
MOST_FRAMES = 1_000
_COLOURS = 128  # of each frame of a gif


def check_video(path: Path | str) -> Path:
    """The path, if a film can be written there.

    Raises:
        ConfigError: If its suffix is unknown, its folder does not exist, or what an mp4 needs is not installed.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"video: expected a file that ends in {' or '.join(SUFFIXES)}, got {str(path)!r}")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"video: there is no folder {str(path.parent)!r}")
    if path.suffix == ".mp4" and find_spec("imageio_ffmpeg") is None:
        raise ConfigError("video: an mp4 needs imageio-ffmpeg; pip install 'concert-marl[video]', or write a .gif")
    return path


@torch.no_grad()
def frames(env: VectorEnv, act: Act, seed: int, name: str, most: int = MOST_FRAMES) -> Iterator[NDArray[np.uint8]]:
    """Play one episode in copy 0 and draw it.

    Args:
        env: Copies of an environment, used for nothing else meanwhile.
        act: Who acts.
        seed: Seed of the episode.
        name: What to write above the pictures.
        most: Pictures after which to stop, whether the episode is over or not.

    Yields:
        ``[H, W, 3]`` the beginning and what each step led to; environments that draw themselves are not seen at the
        very end, when they have restarted already.
    """
    film = Film(env, name)
    view, start = env.reset(seed), torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    film.begin(view)
    for _ in range(most):
        frame = film.frame()
        if frame is None:
            return
        yield frame
        if film.over:
            return
        step = env.step(act(view, start))
        view, start = step.view, step.over
        film.step(step)


def write_video(path: Path, pictures: Iterable[NDArray[np.uint8]], fps: float = FPS) -> None:
    """Write a film; a file of that name is replaced.

    Args:
        path: As :func:`check_video` lets it pass.
        pictures: ``[H, W, 3]`` each, all of one size, at least one.
        fps: Pictures in a second.

    Raises:
        RunWriteError: If the system refuses.
    """
    (_write_gif if path.suffix == ".gif" else _write_mp4)(path, iter(pictures), fps)


def _write_gif(path: Path, pictures: Iterator[NDArray[np.uint8]], fps: float) -> None:
    images = (Image.fromarray(picture).quantize(_COLOURS, dither=Image.Dither.NONE) for picture in pictures)
    buffer = io.BytesIO()
    next(images).save(buffer, "GIF", save_all=True, append_images=images, duration=1000 / fps, loop=0)
    write_atomic(path, buffer.getvalue())


def _write_mp4(path: Path, pictures: Iterator[NDArray[np.uint8]], fps: float) -> None:
    from imageio_ffmpeg import write_frames  # type: ignore[import-not-found]

    temporary = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
    first = _even(next(pictures))
    with named_errors(path):
        try:
            file = write_frames(str(temporary), (first.shape[1], first.shape[0]), fps=fps, macro_block_size=2)
            file.send(None)
            for picture in chain([first], map(_even, pictures)):
                file.send(np.ascontiguousarray(picture))
            file.close()
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _even(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture with sides of even length, which the encoder wants."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
