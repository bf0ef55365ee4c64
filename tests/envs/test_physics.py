"""The mechanics of MPE worlds, by hand and by laws; equality with mpe2 is tested with each task."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from envs.particle.physics import closest, contact, integrate, lengths, offsets, push, reaches

CPU = torch.device("cpu")


def test_pushes_by_choice_and_by_real():
    """A force for 0.1: 5 gives 0.5, 3 gives 0.3; opposite reals cancel, and what is above 1 counts as 1."""
    chosen = push(torch.arange(5).view(1, 5, 1))
    assert_close(chosen, torch.tensor([[[0, 0], [-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]]]))
    reals = push(torch.tensor([[[1.0, 0.5, 3.0, -2.0, 0.25]]]), thrust=3.0)
    assert_close(reals, torch.tensor([[[0.15, 0.075]]]))


def test_pushes_are_the_callers_own():
    action = torch.tensor([[[2]]])
    push(action).add_(1)
    assert_close(push(action), torch.tensor([[[0.5, 0.0]]]))


@pytest.mark.parametrize("choice", [5, -1])
def test_refuses_a_choice_that_does_not_exist(choice):
    with pytest.raises(IndexError):
        push(torch.full((1, 1, 1), choice))


def test_what_is_seen_and_in_which_order():
    position, landmark = torch.tensor([[[0.0, 0], [1, 0], [0, 2]]]), torch.tensor([[[5.0, 5]]])
    seen = offsets(position, landmark)
    assert seen.tolist() == [[[[5, 5], [1, 0], [0, 2]], [[4, 5], [-1, 0], [-1, 2]], [[5, 3], [0, -2], [1, -2]]]]
    reach = reaches((0.1, 0.2, 0.4), (1.0,), CPU)
    assert_close(reach, torch.tensor([[1.1, 0.3, 0.5], [1.2, 0.3, 0.6], [1.4, 0.5, 0.6]]))
    assert lengths(torch.tensor([[3.0, 4.0]])).tolist() == [5]


def test_the_nearest_are_seen_first():
    values = torch.tensor([[[[1.0, 0], [2, 0], [3, 0]]]])
    distance = torch.tensor([[[5.0, 1, 3]]])
    assert closest(values, distance, 2).tolist() == [[[2, 0, 3, 0]]]
    assert closest(values, distance, 4).tolist() == [[[2, 0, 3, 0, 1, 0, 0, 0]]]
    assert closest(values, distance, None).tolist() == [[[1, 0, 2, 0, 3, 0]]]


@pytest.mark.parametrize(
    ("gap", "depth"),
    [(0.4, 0.1), (0.5, 0.001 * math.log(2)), (0.501, 0.001 * math.log(1 + math.exp(-1))), (0.6, 0.0)],
)
def test_depth_of_contact(gap, depth):
    """Radii 0.3 and 0.2: the overlap, softened over a thousandth."""
    seen = offsets(torch.tensor([[[0.0, 0], [0, gap]]]), torch.zeros(1, 0, 2))
    pressed = contact(seen, lengths(seen), reaches((0.3, 0.2), (), CPU))
    assert_close(pressed, torch.tensor([[[0, depth], [0, -depth]]]), atol=2e-7, rtol=1e-3)


def test_ghosts_do_not_touch():
    seen = offsets(torch.zeros(1, 1, 2), torch.tensor([[[0.1, 0], [0.1, 0.0]]]))
    pressed = contact(seen, lengths(seen), torch.tensor([[0.3, -math.inf]]))
    assert_close(pressed, torch.tensor([[[0.2, 0.0]]]))


@given(seed=st.integers(0, 1_000), n=st.integers(1, 6))
def test_contact_keeps_momentum(seed, n):
    """Law: what two movers do to each other is opposite, whatever their radii; on one point they do nothing."""
    generator = torch.Generator().manual_seed(seed)
    position = torch.rand(3, n, 2, generator=generator)
    position[0, -1] = position[0, 0]
    radii = tuple(torch.rand(n, generator=generator).tolist())
    seen = offsets(position, torch.zeros(3, 0, 2))
    pressed = contact(seen, lengths(seen), reaches(radii, (), CPU))
    assert_close(pressed.sum(1), torch.zeros(3, 2), atol=1e-5, rtol=0)


def test_places_move_by_the_old_velocity():
    position, velocity = torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[2.0, -4.0]]])
    moved, changed = integrate(position, velocity, torch.tensor([[[0.5, 0.0]]]))
    assert_close(moved, torch.tensor([[[1.2, 0.6]]]))
    assert_close(changed, torch.tensor([[[2.0, -3.0]]]))
    assert (position.tolist(), velocity.tolist()) == ([[[1, 1]]], [[[2, -4]]])


def test_top_speeds_cut_length_and_keep_direction():
    velocity = torch.tensor([[[4.0, 0], [0, 0], [0, 4], [0, -0.4]]])
    limit = torch.tensor([[1.5], [1.0], [math.inf], [1.0]])
    _, changed = integrate(torch.zeros(1, 4, 2), velocity, torch.zeros(1, 4, 2), limit)
    assert_close(changed, torch.tensor([[[1.5, 0], [0, 0], [0, 3], [0, -0.3]]]))
