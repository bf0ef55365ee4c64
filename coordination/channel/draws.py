"""Draws: where the stages of a channel take random numbers from: a generator, or keys that give the same ones again."""

from __future__ import annotations

import torch
from torch import Tensor


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


GAMMA = _signed(0x9E3779B97F4A7C15)  # the golden ratio in 64 bits
FIRST, SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)  # Stafford's 13th mixer, as in SplitMix64


class Keyed:
    """Random numbers as a function of keys: the same keys, asked for the same in the same order, give them again.

    Call c of key k starts the SplitMix64 stream (Steele, Lea and Flood 2014) of the seed ``mix(k + c gamma)``: a
    counter in place of a state, so that every sample has draws of its own, whatever batch it stands in, and a
    learner can replay what a channel did without having stored it.

    Args:
        key: ``[*]`` int64.

    >>> key = torch.tensor([3, 4])
    >>> torch.equal(Keyed(key).uniform(torch.Size([2, 5])), Keyed(key).uniform(torch.Size([2, 5])))
    True
    """

    def __init__(self, key: Tensor) -> None:
        self.key = key
        self.calls = 0

    def uniform(self, shape: torch.Size, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draws in (0, 1), ``shape`` being that of the keys and any axes behind them.

        Raises:
            ValueError: If the shape does not begin with that of the keys.
        """
        lead, behind = self.key.shape, shape[self.key.ndim :]
        if shape[: len(lead)] != lead:
            raise ValueError(f"draws: expected a shape that begins with that of the keys {tuple(lead)}, got {shape}")
        self.calls += 1
        word = mix(self.key + _signed(self.calls * GAMMA % 2**64))
        if behind:
            place = torch.arange(1, behind.numel() + 1, device=word.device) * GAMMA
            word = mix(word.unsqueeze(-1) + place).reshape(shape)
        bits = 23 if dtype == torch.float32 else 52  # the middle of each of 2^bits equal parts, exactly
        return (_right(word, 64 - bits).to(dtype) + 0.5) / 2**bits

    def normal(self, shape: torch.Size, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal draws, by the inverse of their distribution function."""
        return torch.special.ndtri(self.uniform(shape, dtype))


Source = torch.Generator | Keyed


def mix(word: Tensor) -> Tensor:
    """A bijection of int64 words in which every bit of the result depends on every bit of the word."""
    word = (word ^ _right(word, 30)) * FIRST
    word = (word ^ _right(word, 27)) * SECOND
    return word ^ _right(word, 31)


def pair_key(first: Tensor, second: Tensor) -> Tensor:
    """One key for each ordered pair of keys, ``[*]`` int64."""
    return mix(mix(first) + second)


def uniform(shape: torch.Size, like: Tensor, source: Source | None, who: str) -> Tensor:
    """Uniform draws in [0, 1) of the given shape.

    Raises:
        ValueError: If there is no source.
    """
    dtype = like.dtype if like.is_floating_point() else torch.float32
    if isinstance(source, Keyed):
        return source.uniform(shape, dtype)
    return torch.rand(shape, generator=_given(source, who), device=like.device, dtype=dtype)


def normal(like: Tensor, source: Source | None, who: str) -> Tensor:
    """Standard normal draws of the shape of ``like``; raises as :func:`uniform`."""
    if isinstance(source, Keyed):
        return source.normal(like.shape, like.dtype)
    return torch.randn(like.shape, generator=_given(source, who), device=like.device, dtype=like.dtype)


def _given(source: torch.Generator | None, who: str) -> torch.Generator:
    if source is None:
        raise ValueError(f"generator: {who} draws at random, pass a torch.Generator")
    return source


def _right(word: Tensor, places: int) -> Tensor:
    """Bits moved right, zeros following (an int64 tensor repeats its sign)."""
    return (word >> places) & ((1 << (64 - places)) - 1)
