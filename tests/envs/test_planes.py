"""Planes: the same numbers in either layout, and the same as the general mechanics of particle worlds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from envs.particle import planes
from envs.particle.physics import contact, lengths, offsets

sizes = st.integers(1, planes.FEW + 3)  # of both layouts


def bodies(seed: int, n: int, copies: int = 3) -> tuple[torch.Tensor, ...]:
    """Position, velocity and landmark ``[copies, n, 2]``, crowded enough to touch."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(0.5 * torch.randn(copies, n, 2, generator=generator) for _ in range(3))


@given(seed=st.integers(0, 1000), n=sizes)
def test_places_come_back_and_are_not_copied_twice(seed, n):
    position = bodies(seed, n)[0]
    once, axis = planes.planes(position), planes.body_axis(n)
    assert once.shape == ((2, n, 3) if axis == 1 else (2, 3, n))
    assert torch.equal(planes.places(once, axis), position)
    assert planes.planes(planes.places(once, axis)).data_ptr() == once.data_ptr()


@given(seed=st.integers(0, 1000), n=sizes)
def test_pressure_is_contact(seed, n):
    position, axis = bodies(seed, n)[0], planes.body_axis(n)
    flat = planes.planes(position)
    offset, square = planes.apart(flat, flat, axis)
    distance = square.clamp(min=1e-24).sqrt()
    found = planes.places(planes.pressure(offset, distance, 0.3 - distance, axis), axis)
    to_others = offsets(position, position[:, :0])
    assert_close(found, contact(to_others, lengths(to_others), 0.3), atol=1e-6, rtol=1e-5)


@given(seed=st.integers(0, 1000), n=st.integers(1, 6))
def test_what_few_and_many_see_is_the_same(seed, n):
    position, velocity, landmark = bodies(seed, n)
    expected = torch.cat(
        [velocity, position, offsets(position, landmark).flatten(2), torch.zeros(3, n, 2 * (n - 1))], -1
    )
    rows = [x.permute(2, 1, 0).contiguous() for x in (position, velocity, landmark)]
    to_landmark, to_body = (planes.apart(rows[0], x, 1)[0] for x in (rows[2], rows[0]))
    assert torch.equal(planes.seen_by_few(rows[0], rows[1], to_landmark, to_body), expected)
    assert torch.equal(planes.seen_by_many(*(x.transpose(1, 2).contiguous() for x in rows)), expected)


@pytest.mark.parametrize(
    ("values", "count"), [([0.0, -1.0, -1e30], 0), ([1.01e-38, 0.0, 3.0], 2), ([0.3 - 0.3, 0.3 - 0.29999998, 1e30], 2)]
)
def test_what_is_above_zero_is_counted(values, count):
    assert planes.count_positive(torch.tensor([values]), 1).tolist() == [count]
