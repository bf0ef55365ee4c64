"""Structs: frozen dataclasses of tensors, with map, index, stack, where and to.

A struct is declared with :func:`struct`; each tensor field names its *trailing* axes, so
that any number of leading axes (time, copies, samples) may stand in front::

    @tree.struct
    class View:
        obs: Tensor = tree.axes("N O")  # [*, N, O]
        topology: Topology | None = tree.shared(None)  # passed through by reference

Every function here accepts structs, dicts, lists and tuples of tensors, nested at will.
``None`` stays ``None``; fields marked :func:`shared` are passed through untouched. Structs are
registered as torch pytrees, so they can cross ``torch.func`` and ``torch.compile``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, dataclass_transform

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

T = TypeVar("T")


def axes(trailing: str, **kwargs: Any) -> Any:
    """Declare a tensor field by its trailing axes, e.g. ``axes("N O")`` for ``[*, N, O]``.

    Args:
        trailing: Axis symbols separated by spaces; the empty string for a field of shape ``[*]``.
        kwargs: Passed to :func:`dataclasses.field` (``default=None`` makes the field optional).
    """
    return dataclasses.field(metadata={"axes": tuple(trailing.split())}, **kwargs)


def shared(default: Any = dataclasses.MISSING) -> Any:
    """Declare a field that all samples share: indexing, stacking and moving leave it alone."""
    return dataclasses.field(default=default, metadata={"shared": True})


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(axes, shared, dataclasses.field))
def struct(cls: type[T]) -> type[T]:
    """Turn a class into a frozen dataclass without ``==`` that torch sees as a pytree.

    Raises:
        TypeError: If a field says neither its axes nor that it is shared.
    """
    made = dataclasses.dataclass(frozen=True, eq=False)(cls)
    fields = dataclasses.fields(made)  # type: ignore[arg-type]
    if plain := [f.name for f in fields if not f.metadata.keys() & {"axes", "shared"}]:
        raise TypeError(f"{cls.__name__}: declare {', '.join(plain)} with tree.axes (tensors) or tree.shared")
    own = tuple(f.name for f in fields if not f.metadata.get("shared"))
    passed = tuple(f.name for f in fields if f.metadata.get("shared"))

    def flatten_node(node: Any) -> tuple[list[Any], tuple[Any, ...]]:
        there = tuple(n for n in own if getattr(node, n) is not None)  # torch takes None for a leaf, vmap refuses it
        return [getattr(node, n) for n in there], (there, tuple(getattr(node, n) for n in passed))

    def unflatten_node(children: Any, context: Any) -> Any:
        absent = dict.fromkeys(own)
        return made(
            **absent | dict(zip(context[0], children, strict=True)), **dict(zip(passed, context[1], strict=True))
        )

    pytree.register_pytree_node(made, flatten_node, unflatten_node)
    return made


def _children(node: Any) -> list[tuple[str, Any]] | None:
    """Named children of a container, or None where ``node`` is a leaf."""
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return [(f.name, getattr(node, f.name)) for f in dataclasses.fields(node) if not f.metadata.get("shared")]
    if isinstance(node, Mapping):
        return [(str(k), v) for k, v in node.items()]
    if isinstance(node, list | tuple):
        return [(str(i), v) for i, v in enumerate(node)]
    return None


def _rebuild(node: Any, children: Sequence[Any]) -> Any:
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        names = [f.name for f in dataclasses.fields(node) if not f.metadata.get("shared")]
        return dataclasses.replace(node, **dict(zip(names, children, strict=True)))
    if isinstance(node, Mapping):
        return dict(zip(node.keys(), children, strict=True))
    make: Any = type(node)
    return make(*children) if hasattr(node, "_fields") else make(children)  # a named tuple takes its parts apart


def _matching(node: Any, children: list[tuple[str, Any]], other: Any) -> dict[str, Any]:
    """The children of ``other`` by name, checked to be those of ``node``, shared fields included."""
    found = dict(_children(other) or ())
    if found.keys() != {name for name, _ in children}:
        raise ValueError(
            f"trees differ in form: {type(node).__name__} of {[name for name, _ in children]}, "
            f"{type(other).__name__} of {list(found)}"
        )
    if dataclasses.is_dataclass(node):
        for name in (f.name for f in dataclasses.fields(node) if f.metadata.get("shared")):
            mine, its = getattr(node, name), getattr(other, name)
            if mine is not its and mine != its:
                raise ValueError(f"{type(node).__name__}.{name}: is shared by all samples, got {mine!r} and {its!r}")
    return found


def map(fn: Callable[..., Any], tree: T, *rest: Any) -> T:
    """Apply ``fn`` to every tensor of ``tree`` (and the matching tensors of ``rest``).

    Raises:
        ValueError: If the trees differ in form, in which fields are None, or in a shared field.

    >>> map(lambda x: x + 1, {"a": torch.zeros(2)})
    {'a': tensor([1., 1.])}
    """
    if any((other is None) != (tree is None) for other in rest):
        raise ValueError(f"trees differ in form: {type(tree).__name__}, {', '.join(type(r).__name__ for r in rest)}")
    if tree is None:
        return None  # type: ignore[return-value]
    children = _children(tree)
    if children is None:
        return fn(tree, *rest)
    others = [_matching(tree, children, other) for other in rest]
    return _rebuild(tree, [map(fn, child, *(o[name] for o in others)) for name, child in children])


def named(tree: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield ``(dotted name, tensor)`` for every tensor of the tree, in order."""
    if tree is None:
        return
    children = _children(tree)
    if children is None:
        yield prefix, tree
        return
    for name, child in children:
        yield from named(child, f"{prefix}.{name}" if prefix else name)


def leaves(tree: Any) -> list[Tensor]:
    """All tensors of the tree, in order."""
    return [leaf for _, leaf in named(tree)]


def index(tree: T, i: Any) -> T:
    """Index the leading axes of every tensor: ``x[i]``."""
    return map(lambda x: x[i], tree)


def stack(trees: Sequence[T], dim: int = 0) -> T:
    """Stack trees of equal form along a new leading axis."""
    return map(lambda *xs: torch.stack(xs, dim), trees[0], *trees[1:])


def cat(trees: Sequence[T], dim: int = 0) -> T:
    """Concatenate trees of equal form along a leading axis."""
    return map(lambda *xs: torch.cat(xs, dim), trees[0], *trees[1:])


def where(mask: Tensor, a: T, b: T) -> T:
    """Choose leaf by leaf: ``a`` where ``mask [*]`` holds, else ``b``; the mask covers leading axes."""

    def choose(x: Tensor, y: Tensor) -> Tensor:
        return x if x is y else torch.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, y)

    return map(choose, a, b)


def flatten(tree: T, dims: int = 2) -> T:
    """Merge the first ``dims`` axes of every tensor into one."""
    return map(lambda x: x.flatten(0, dims - 1), tree)


def to(tree: T, device: torch.device | str, non_blocking: bool = False) -> T:
    """Move every tensor to ``device``; shared fields know how to move themselves."""
    return map(lambda x: x.to(device, non_blocking=non_blocking), tree)


def lead(tree: Any) -> tuple[int, ...]:
    """Shape of the leading axes of a struct, checked to be equal over its fields.

    Raises:
        ValueError: If two fields disagree.
    """
    found: tuple[str, tuple[int, ...]] | None = None
    for f in dataclasses.fields(tree):
        value = getattr(tree, f.name)
        if f.metadata.get("shared") or value is None or isinstance(value, Mapping):
            continue
        if isinstance(value, Tensor):
            shape = tuple(value.shape[: value.ndim - len(f.metadata["axes"])])
        elif any(True for _ in named(value)):
            shape = lead(value)
        else:
            continue
        if found is None:
            found = (f.name, shape)
        elif shape != found[1]:
            raise ValueError(f"{type(tree).__name__}: leading axes of {f.name} are {shape}, of {found[0]} {found[1]}")
    return () if found is None else found[1]


def pack(tree: Any) -> Any:
    """The tree as nested plain dicts of tensors, for a checkpoint; ``None`` is left out."""
    children = None if isinstance(tree, Tensor) else _children(tree)
    if children is None:
        return tree
    return {name: pack(child) for name, child in children if child is not None}


def unpack(like: T, saved: Any) -> T:
    """Inverse of :func:`pack`: the tensors of ``saved`` in the form (and on the devices) of ``like``.

    Raises:
        ValueError: If a tensor is missing or has another shape.
    """
    flat = dict(named(saved))
    names = [name for name, _ in named(like)]
    if missing := [name for name in names if name not in flat]:
        raise ValueError(f"saved state lacks {', '.join(missing)}")
    source = iter(names)

    def load(x: Tensor) -> Tensor:
        name = next(source)
        if flat[name].shape != x.shape:
            raise ValueError(f"saved {name}: expected shape {tuple(x.shape)}, got {tuple(flat[name].shape)}")
        return flat[name].to(device=x.device, dtype=x.dtype)

    return map(load, like)
