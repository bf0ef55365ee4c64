"""What there is to choose from, by name; read from literal tables, so nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Callable

from coordination.names import unknown
from coordination.signals.registry import STAGES
from envs.registry import ENVIRONMENTS
from marl.recipes import RECIPES

Table = dict[str, str]


# every name of coordination.topology.BUILDERS, which cannot be read without torch, and the ones of envs.graphs
GRAPHS: Table = {
    "complete": "everyone hears everyone; the default up to 64 agents",
    "none": "nobody hears anybody",
    "empty": "the same, as a topology",
    "ring": "two neighbours each, in a circle",
    "path": "two neighbours each, in a line",
    "star": "one hub",
    "grid": "rows and columns, four neighbours",
    "torus": "a grid without borders",
    "tree": "balanced, branching b",
    "small_world": "a ring of k neighbours with a share p of its links rewired (Watts and Strogatz 1998)",
    "scale_free": "growing by preferential attachment of m links (Barabasi and Albert 1999)",
    "erdos_renyi": "every link with probability p",
    "random_regular": "d neighbours each, at random",
    "random_geometric": "links within a radius of random positions",
    "exponential": "links to the agents 1, 2, 4, 8 ... places ahead (Ying et al. 2021)",
    "knn": "knn:k, the k nearest by a named observation part",
    "radius": "radius:r, everyone within r by a named observation part",
    "FILE": "a .graphml or .edgelist file",
}


def _envs() -> Table:
    return {
        name: f"{e.summary} · {e.agents} agents · {e.spaces} · optimum: {e.optimum} · {e.source}"
        for name, e in ENVIRONMENTS.items()
    }


def _algorithms() -> Table:
    return {name: f"{r.summary} · {r.source}" for name, r in RECIPES.items()}


def _graphs() -> Table:
    return GRAPHS


def _signals() -> Table:
    return {name: path.replace(":", ".") for name, path in STAGES.items()}


TABLES: dict[str, Callable[[], Table]] = {
    "envs": _envs,
    "algorithms": _algorithms,
    "graphs": _graphs,
    "signals": _signals,
}


def catalogue(what: str = "all") -> dict[str, Table]:
    """Tables of names with a line about each.

    Args:
        what: ``envs | algorithms | graphs | signals``, or ``all``.

    Raises:
        ValueError: If it is none of these.
    """
    if what == "all":
        return {name: table() for name, table in TABLES.items()}
    if what not in TABLES:
        raise ValueError(unknown("table", what, [*TABLES, "all"]))
    return {what: TABLES[what]()}
