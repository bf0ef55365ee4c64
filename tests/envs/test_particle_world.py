"""What MPE tasks share beside mechanics: places, choices, words."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from envs.particle.world import at_least, draw, moves, one_hot, scatter, words


def test_places_fill_the_square():
    place = scatter(torch.Generator().manual_seed(0), 2_000, 3, 0.5)
    assert place.shape == (2_000, 3, 2)
    assert 0.49 < float(place.abs().max()) <= 0.5
    assert_close(place.mean((0, 1)), torch.zeros(2), atol=0.02, rtol=0)


def test_draws_are_equally_likely():
    drawn = draw(torch.Generator().manual_seed(0), 4, 5_000, 2)
    assert drawn.shape == (5_000, 2)
    assert_close(torch.bincount(drawn.flatten()) / 10_000, torch.full((4,), 0.25), atol=0.02, rtol=0)


def test_choices_of_movers_and_of_speaking_movers():
    assert (moves(False).sizes, moves(False, 10).sizes) == ((5,), (50,))
    assert (moves(True).components, moves(True, 10).components) == (5, 15)
    assert (moves(True).low, moves(True).high) == ((0.0,) * 5, (1.0,) * 5)


def test_words_are_marks_or_reals_within_bounds():
    assert words(torch.tensor([[[2], [0]]]), 3).tolist() == [[[0, 0, 1], [1, 0, 0]]]
    assert words(torch.tensor([[[-1.0, 0.5, 2.0]]]), 3).tolist() == [[[0, 0.5, 1]]]
    assert one_hot(torch.tensor([1, 0]), 2).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(IndexError):
        words(torch.tensor([[[3]]]), 3)


def test_small_arguments_are_refused_by_name():
    at_least(1, one=1, none=None)
    with pytest.raises(ValueError, match="few: must be at least 2, got 1"):
        at_least(2, many=2, few=1)
