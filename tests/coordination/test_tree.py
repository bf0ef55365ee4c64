from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from coordination import tree


@tree.struct
class Inner:
    flag: Tensor = tree.axes("")
    extra: Tensor | None = tree.axes("D", default=None)


@tree.struct
class Outer:
    x: Tensor = tree.axes("N D")
    inner: Inner = tree.axes("")
    table: dict[str, Tensor] = tree.axes("", default_factory=dict)
    kind: str = tree.shared(default="a")


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


def make(value: float = 0.0, kind: str = "a", lead: tuple[int, ...] = (5,)) -> Outer:
    return Outer(torch.full((*lead, 3, 2), value), Inner(torch.full(lead, value)), {"r": torch.full(lead, value)}, kind)


def test_map_reaches_every_tensor_and_passes_shared_fields_on():
    doubled = tree.map(lambda x: 2 * x, make(1.5, "b"))
    assert [leaf.unique().tolist() for leaf in tree.leaves(doubled)] == [[3.0], [3.0], [3.0]]
    assert doubled.kind == "b"
    assert doubled.inner.extra is None


def test_map_keeps_lists_tuples_and_named_tuples():
    ones = [torch.ones(1), (torch.ones(1), Pair(torch.ones(1), torch.ones(2)))]
    made = tree.map(lambda x: x + 1, ones)
    assert isinstance(made, list)
    assert isinstance(made[1], tuple)
    assert isinstance(made[1][1], Pair)
    assert made[1][1].second.tolist() == [2.0, 2.0]


def test_index_takes_the_leading_axis_of_every_field():
    x = make()
    assert tree.index(x, 2).x.shape == (3, 2)
    assert tree.index(x, slice(1, 4)).inner.flag.shape == (3,)
    assert tree.index(x, torch.tensor([4, 4])).table["r"].shape == (2,)


def test_stack_and_cat():
    parts = [make(0.0), make(1.0)]
    stacked, joined = tree.stack(parts), tree.cat(parts)
    assert stacked.x.shape == (2, 5, 3, 2)
    assert joined.inner.flag.tolist() == [0.0] * 5 + [1.0] * 5
    assert tree.stack(parts, dim=1).x.shape == (5, 2, 3, 2)


def test_where_chooses_by_leading_axes():
    mask = torch.tensor([True, False, False, True, False])
    chosen = tree.where(mask, make(1.0), make(0.0))
    assert chosen.inner.flag.tolist() == mask.float().tolist()
    assert torch.equal(chosen.x[:, 2, 1], mask.float())


def test_where_returns_the_very_tensor_where_both_are_one():
    x = make()
    assert tree.where(torch.ones(5, dtype=torch.bool), x, x).x is x.x


def test_flatten_merges_leading_axes():
    assert tree.flatten(make(lead=(4, 5))).x.shape == (20, 3, 2)
    assert tree.flatten(make(lead=(2, 3, 5)), 3).inner.flag.shape == (30,)


def test_lead_is_the_common_leading_shape():
    assert tree.lead(make(lead=(4, 5))) == (4, 5)
    assert tree.lead(make(lead=())) == ()


def test_lead_refuses_fields_that_disagree():
    with pytest.raises(ValueError, match=r"Outer: leading axes of inner are \(4,\), of x \(5,\)"):
        tree.lead(Outer(torch.zeros(5, 3, 2), Inner(torch.zeros(4))))


def test_named_gives_dotted_names_in_order():
    assert [name for name, _ in tree.named(make())] == ["x", "inner.flag", "table.r"]


def test_pack_and_unpack_are_inverse():
    saved = tree.pack(make(3.0))
    assert saved.keys() == {"x", "inner", "table"}
    back = tree.unpack(make(0.0), saved)
    assert isinstance(back, Outer)
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(back), tree.leaves(make(3.0)), strict=True))


def test_unpack_refuses_what_is_missing_or_has_another_shape():
    saved = tree.pack(make())
    with pytest.raises(ValueError, match=r"saved state lacks inner\.flag"):
        tree.unpack(make(), {k: v for k, v in saved.items() if k != "inner"})
    with pytest.raises(ValueError, match=r"saved x: expected shape \(6, 3, 2\), got \(5, 3, 2\)"):
        tree.unpack(make(lead=(6,)), saved)


def test_trees_of_different_form_are_refused():
    with_extra = Inner(torch.zeros(5), torch.zeros(5, 1))
    with pytest.raises(ValueError, match="trees differ in form"):
        tree.stack([Inner(torch.zeros(5)), with_extra])
    with pytest.raises(ValueError, match="trees differ in form"):
        tree.stack([with_extra, Inner(torch.zeros(5))])
    with pytest.raises(ValueError, match=r"trees differ in form: dict of \['a'\], dict of \['b'\]"):
        tree.stack([{"a": torch.zeros(1)}, {"b": torch.zeros(1)}])


def test_stacking_samples_with_different_shared_fields_is_refused():
    with pytest.raises(ValueError, match=r"Outer\.kind: is shared by all samples, got 'a' and 'b'"):
        tree.stack([make(kind="a"), make(kind="b")])


def test_structs_are_pytrees():
    leaves, spec = pytree.tree_flatten(make(1.0, "c"))
    back = pytree.tree_unflatten([leaf + 1 for leaf in leaves], spec)
    assert back.kind == "c"
    assert back.x.unique().tolist() == [2.0]
    summed = torch.func.vmap(lambda v: v.x.sum())(make(1.0))
    assert summed.tolist() == [6.0] * 5


def test_structs_are_frozen_and_compare_by_identity():
    x = make()
    with pytest.raises(AttributeError):
        x.kind = "z"  # type: ignore[misc]
    assert x != make()


def test_a_field_must_say_what_it_is():
    with pytest.raises(TypeError, match=r"Wrong: declare y with tree\.axes"):

        @tree.struct
        class Wrong:
            x: Tensor = tree.axes("N")
            y: int = 0
