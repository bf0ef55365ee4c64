"""What MPE tasks share beside mechanics: where things begin, what agents choose among, words and marks of goals."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from envs.spaces import ActionSpec


def at_least(minimum: int, **counts: int | None) -> None:
    """Refuse arguments that are too small; None passes.

    Raises:
        ValueError: If one is below ``minimum``; the message names it.
    """
    for name, count in counts.items():
        if count is not None and count < minimum:
            raise ValueError(f"{name}: must be at least {minimum}, got {count}")


def scatter(generator: torch.Generator, n: int, bodies: int, bound: float = 1.0) -> Tensor:
    """``[n, bodies, 2]`` places uniform in the square from ``-bound`` to ``bound``, on the generator's device."""
    return torch.empty(n, bodies, 2, device=generator.device).uniform_(-bound, bound, generator=generator)


def draw(generator: torch.Generator, choices: int, *shape: int) -> Tensor:
    """``[*shape]`` int64 uniform below ``choices``, on the generator's device."""
    return torch.randint(choices, shape, generator=generator, device=generator.device)


def chosen(landmark: Tensor, index: Tensor) -> Tensor:
    """``[B, k, 2]`` places of the landmarks numbered ``index``, ``[B]`` (k = 1) or ``[B, k]``, of ``[B, M, 2]``."""
    index = index.view(len(landmark), -1, 1)
    return landmark.gather(1, index.expand(-1, -1, 2))


def moves(continuous: bool, vocabulary: int = 0) -> ActionSpec:
    """None, left, right, down, up: five pushes in [0, 1], or one choice; agents that also speak choose a word with it.

    Args:
        continuous: Whether actions are reals.
        vocabulary: Words of an agent that moves and speaks: as many more reals, or five choices for each word.
    """
    return ActionSpec.box(0, 1, 5 + vocabulary) if continuous else ActionSpec.discrete(5 * max(vocabulary, 1))


def words(action: Tensor, vocabulary: int) -> Tensor:
    """What is heard of agents that speak.

    Args:
        action: ``[B, n, 1]`` int64 choices of a word, or ``[B, n, vocabulary]`` floats, cut to [0, 1].
        vocabulary: How many words there are.

    Returns:
        ``[B, n, vocabulary]`` one-hot words, or the floats.
    """
    return action.clamp(0, 1) if action.is_floating_point() else one_hot(action.squeeze(-1), vocabulary)


def one_hot(index: Tensor, size: int) -> Tensor:
    """``[*, size]`` float32 marks of ``index [*]`` int64, without asking an accelerator whether they are in range."""
    return _identity(size, index.device).index_select(0, index.reshape(-1)).view(*index.shape, size)


@lru_cache(maxsize=32)
def _identity(size: int, device: torch.device) -> Tensor:
    return torch.eye(size, device=device)
