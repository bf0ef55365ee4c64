"""Builders of topologies by name, as a configuration gives them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from coordination.names import unknown
from coordination.topology.base import Topology
from coordination.topology.lattices import complete, empty, exponential, grid, path, ring, star, torus, tree
from coordination.topology.random_graphs import (
    erdos_renyi,
    random_geometric,
    random_regular,
    scale_free,
    small_world,
)

BUILDERS: dict[str, Callable[..., Topology]] = {
    "empty": empty,
    "complete": complete,
    "ring": ring,
    "path": path,
    "star": star,
    "grid": grid,
    "torus": torus,
    "tree": tree,
    "small_world": small_world,
    "scale_free": scale_free,
    "erdos_renyi": erdos_renyi,
    "random_regular": random_regular,
    "random_geometric": random_geometric,
    "exponential": exponential,
}


def build(spec: str | Mapping[str, Any], num_agents: int, seed: int = 0) -> Topology:
    """A topology from its form in a configuration.

    Args:
        spec: A builder's name, or a mapping with ``name`` and the builder's arguments.
        num_agents: Number of agents N.
        seed: For random builders whose mapping gives none.

    Raises:
        ValueError: For an unknown name or argument, a missing argument, or one out of range.
        TypeError: For an argument of the wrong type.

    >>> build({"name": "grid", "rows": 2}, num_agents=6)
    Topology('grid', num_agents=6, num_edges=14)
    """
    arguments: dict[str, Any] = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"topology: expected a name or a mapping with one, got {spec!r}")
    if name not in BUILDERS:
        raise ValueError(unknown("topology", name, BUILDERS))
    takes = dict(inspect.signature(BUILDERS[name]).parameters)
    del takes["num_agents"]
    for key, value in arguments.items():
        if key not in takes:
            options = unknown("argument", key, takes) if takes else f"unknown argument {key!r}; it takes none"
            raise ValueError(f"topology {name!r}: {options}")
        _check_type(f"topology {name!r}: {key}", value, takes[key].annotation)
    if missing := [k for k, p in takes.items() if p.default is p.empty and k not in arguments]:
        raise ValueError(f"topology {name!r}: needs {missing[0]}, e.g. {{name: {name}, {missing[0]}: ...}}")
    if "seed" in takes:
        arguments.setdefault("seed", seed)
    return BUILDERS[name](num_agents, **arguments)


def _check_type(what: str, value: object, annotation: str) -> None:
    wanted = (int, float) if annotation == "float" else (int,)
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise TypeError(f"{what} must be {'a number' if float in wanted else 'an integer'}, got {value!r}")
