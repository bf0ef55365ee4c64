"""Moves worked out at once are those of walking through the movers one after another."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.grid.moves import take_turns

SIZE = 4  # a field of SIZE x SIZE cells, crowded


def one_after_another(cell: list[int], target: list[int], tries: list[bool], rank: list[int]) -> list[bool]:
    taken, moved = set(cell), [False] * len(cell)
    for i in sorted(range(len(cell)), key=rank.__getitem__):
        if tries[i] and target[i] not in taken:
            taken = taken - {cell[i]} | ({target[i]} if target[i] >= 0 else set())
            moved[i] = True
    return moved


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), ranked=st.booleans())
def test_equals_one_after_another(seed, n, ranked):
    """Random crowds in which one in five leaves the field, in the order of their numbers and in random orders."""
    generator = torch.Generator().manual_seed(seed)
    batch = 20
    cell = torch.rand(batch, SIZE * SIZE, generator=generator).topk(n).indices
    target = (cell + torch.tensor([-SIZE, -1, 1, SIZE])[torch.randint(4, cell.shape, generator=generator)]) % SIZE**2
    leaves = torch.rand(cell.shape, generator=generator) < 0.2
    target = torch.where(leaves, -1 - torch.arange(n), target)
    tries = torch.rand(cell.shape, generator=generator) < 0.8
    rank = torch.rand(cell.shape, generator=generator).argsort(1) if ranked else None
    found = take_turns(cell, target, tries, rank)
    order = torch.arange(n).expand(batch, n) if rank is None else rank
    rows = (x.tolist() for x in (cell, target, tries, order))
    expected = [one_after_another(*row) for row in zip(*rows, strict=True)]
    assert found.tolist() == expected


def test_a_queue_moves_up_only_in_its_own_order():
    """Four in a row all step forward: with the first in front all move, with the last in front only the last does."""
    cell = torch.tensor([[3, 2, 1, 0], [0, 1, 2, 3]])
    moved = take_turns(cell, cell + 1, torch.ones_like(cell, dtype=torch.bool))
    assert moved.tolist() == [[True] * 4, [False, False, False, True]]
