"""What an object remembers: the tensors, numbers and mutual references of a net of objects, taken out and put back.

For simulators that cannot be asked for their state. Only objects of the given packages are looked into, and the
dictionaries and lists they keep. Dictionaries whose keys are no names are taken for indices and caches and left as they
are, unless they hold records, further dictionaries: then what was taken cannot be put back.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from torch import Tensor


class Place(NamedTuple):
    """An object, dictionary or list, and where it keeps its values."""

    thing: Any
    values: Any  # dict or list

    def items(self) -> list[tuple[Any, Any]]:
        """Its values by key."""
        return list(self.values.items() if isinstance(self.values, dict) else enumerate(self.values))


def recall(root: Any, packages: tuple[str, ...]) -> dict[str, Any]:
    """Everything that objects reachable from ``root`` remember: tensors, numbers, and references as paths.

    Args:
        root: The first object.
        packages: Top-level packages whose objects are looked into.
    """
    places, whole = _places(root, packages)
    path_of = {id(place.thing): path for path, place in places.items()}
    held: dict[str, Any] = {"tensors": {}, "numbers": {}, "links": {}, "whole": whole}
    for path, place in places.items():
        for key, value in place.items():
            if isinstance(value, Tensor):
                held["tensors"].setdefault(path, {})[str(key)] = value.clone()
            elif isinstance(value, int | float):
                held["numbers"].setdefault(path, {})[str(key)] = value
            elif id(value) in path_of:
                held["links"].setdefault(path, {})[str(key)] = path_of[id(value)]
    return held


def restore(root: Any, packages: tuple[str, ...], held: dict[str, Any]) -> bool:
    """Put back what :func:`recall` took; whether that was all, and every value still had a place of the same form.

    Where it was not so, nothing is changed.
    """
    places, _ = _places(root, packages)
    if not held["whole"]:
        return False
    changes = [
        _change(places, path, key, value, kind == "links", root.device)
        for kind in ("tensors", "numbers", "links")
        for path, values in held[kind].items()
        for key, value in values.items()
    ]
    if any(change is None for change in changes):
        return False
    for inside, key, value in filter(None, changes):
        inside[key] = value
    return True


def _change(
    places: dict[str, Place], path: str, text: str, value: Any, link: bool, device: Any
) -> tuple[Any, Any, Any] | None:
    """The container, the key in it and the value to put there; None where it does not fit."""
    if path not in places or (link and value not in places):
        return None
    inside = places[path].values
    if isinstance(inside, list):
        if int(text) >= len(inside):
            return None
        key, now = int(text), inside[int(text)]
    else:
        key, now = text, inside.get(text)
    if not isinstance(value, Tensor):
        return inside, key, places[value].thing if link else value
    if isinstance(now, Tensor) and now.shape != value.shape:
        return None
    return inside, key, value.to(device).clone()


def _places(root: Any, packages: tuple[str, ...]) -> tuple[dict[str, Place], bool]:
    """All places by path, and whether all were understood.

    The nearest come first, so that an object is found where it belongs and not as somebody's goal.
    """
    found: dict[str, Place] = {}
    whole = True
    visited: set[int] = set()
    waiting = deque([("", root)])
    while waiting:
        path, thing = waiting.popleft()
        place = _place(thing, packages)
        if place is None and isinstance(thing, dict):
            whole = whole and not any(isinstance(value, dict) for value in thing.values())
        if place is None or id(place.values) in visited:
            continue
        visited.add(id(place.values))
        found[path] = place
        waiting.extend((f"{path}/{key}", value) for key, value in place.items())
    return found, whole


def _place(thing: Any, packages: tuple[str, ...]) -> Place | None:
    if hasattr(thing, "__dict__") and type(thing).__module__.split(".")[0] in packages:
        return Place(thing, vars(thing))
    if isinstance(thing, list) or (isinstance(thing, dict) and all(isinstance(key, str) for key in thing)):
        return Place(thing, thing)
    return None
