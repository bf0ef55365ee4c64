"""The worker process: some copies of an environment behind shared arrays, commanded by single bytes.

``python -m envs.worker CONFIG`` with a JSON config. It reads one byte from its input for each command and answers with
one byte; after an error byte follows one line of text. The end of its input ends the worker, so it never outlives the
parent. What the environment prints goes to standard error. Nothing here imports torch.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from envs.door.copies import Arrays, Copies, build_copies
from envs.door.layout import Layout, Shapes
from envs.door.source import Source

RESET, STEP, READY, ERROR = b"r", b"s", b"k", b"e"
ALIGN = 64  # bytes: no two arrays share a cache line


def place(shapes: Shapes) -> tuple[dict[str, int], int]:
    """Byte offsets of the arrays in one block of memory, and the size of the block."""
    offsets, size = {}, 0
    for name, (shape, dtype) in shapes.items():
        offsets[name] = size
        size += -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // ALIGN) * ALIGN
    return offsets, max(size, 1)


def arrays_in(memory: Any, shapes: Shapes) -> Arrays:
    """The arrays as views of a block of memory."""
    offsets, _ = place(shapes)
    return {
        name: np.ndarray(shape, dtype, buffer=memory, offset=offsets[name]) for name, (shape, dtype) in shapes.items()
    }


def build(config: dict[str, Any]) -> Copies:
    """The copies of this worker, in the memory of the parent."""
    shapes: Shapes = config["shapes"]
    memory = mmap.mmap(config["memory"], place(shapes)[1])
    arrays = arrays_in(memory, shapes)
    source = Source.from_json(config["source"])
    envs = build_copies(source, config["seed"], config["first"], config["stop"])
    state_dim = shapes["state"][0][1] if "state" in shapes else None
    layout = Layout.of(envs[0], masked="mask" in shapes, state_dim=state_dim)
    return Copies(envs, layout, arrays, config["first"], private=True)


def serve(read: int, write: int, config: dict[str, Any]) -> None:
    """Answer commands until the input ends or the environment fails."""

    def attempt(action: Callable[[], Any]) -> Any:
        try:
            result = action()
        except Exception as error:
            os.write(write, ERROR + " ".join(str(error).split()).encode() + b"\n")
            sys.exit(1)
        os.write(write, READY)
        return result

    copies: Copies = attempt(lambda: build(config))
    while command := os.read(read, 1):
        attempt(copies.reset if command == RESET else copies.step)
    copies.close()


def main() -> None:
    """Take over the pipes to the parent, then serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    read, write = os.dup(0), os.dup(1)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # what the environment prints must not be taken for an answer
    serve(read, write, json.loads(sys.argv[1]))


if __name__ == "__main__":
    main()
