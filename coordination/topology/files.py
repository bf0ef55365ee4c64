"""Topologies from networkx graphs and from files: GraphML and edge lists, and back."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from xml.etree.ElementTree import ParseError

import networkx as nx
import numpy as np

from coordination.topology.base import Topology

EDGE_LIST_SUFFIXES = (".edgelist", ".txt", ".csv")
GRAPHML_SUFFIX = ".graphml"


def from_networkx(graph: nx.Graph, name: str | None = None) -> Topology:
    """A topology whose agent i is the i-th node of the graph; ``node_order`` keeps what the nodes are called.

    Args:
        graph: Undirected (every link goes both ways) or directed; weights and other attributes are left behind.
        name: What to call it in reports; None for the graph's own name.

    Raises:
        ValueError: If there are no nodes, or a link is repeated or joins a node to itself.
    """
    place = {node: i for i, node in enumerate(graph.nodes)}
    links = np.array([(place[a], place[b]) for a, b in graph.edges()], dtype=np.int64).reshape(-1, 2).T
    edges = links if graph.is_directed() else np.concatenate([links, links[::-1]], 1)
    return Topology(edges, len(place), name or graph.name or "custom", list(graph.nodes))


def from_file(path: str | PathLike[str], num_agents: int | None = None, directed: bool = False) -> Topology:
    """A topology from a file, by its suffix: ``.graphml``, or ``.edgelist``, ``.txt`` or ``.csv`` for an edge list.

    Args:
        path: The file.
        num_agents: Number of agents N it must have (an edge list may name fewer); None takes what is there.
        directed: Whether an edge list's lines are one-way; GraphML says so itself.

    Raises:
        ValueError: If the suffix is another, or the file is malformed (the message names file and line).
        FileNotFoundError: If there is no such file.
    """
    suffix = Path(path).suffix.lower()
    if suffix in EDGE_LIST_SUFFIXES:
        return read_edge_list(path, num_agents, directed)
    if suffix != GRAPHML_SUFFIX:
        known = ", ".join((GRAPHML_SUFFIX, *EDGE_LIST_SUFFIXES))
        raise ValueError(f"{path}: expected a file ending in one of {known}, got {suffix or 'no suffix'!r}")
    topology = read_graphml(path)
    if num_agents not in (None, topology.num_agents):
        raise ValueError(f"{path}: expected {num_agents} agents, got {topology.num_agents} nodes")
    return topology


def read_graphml(path: str | PathLike[str]) -> Topology:
    """A topology from a GraphML file; nodes in the order of the file.

    Raises:
        ValueError: If the file is not GraphML, or its graph is not simple.
        FileNotFoundError: If there is no such file.
    """
    try:
        return from_networkx(nx.read_graphml(Path(path)), Path(path).stem)
    except ParseError as error:
        raise ValueError(f"{path}: not a GraphML file: {error}") from error
    except (ValueError, nx.NetworkXError) as error:
        raise ValueError(f"{path}: {error}") from error


def write_graphml(topology: Topology, path: str | PathLike[str]) -> None:
    """Write a topology that :func:`read_graphml` reads back, isolated agents and directions included."""
    graph = topology.to_networkx()
    if topology.node_order is not None:
        graph = nx.relabel_nodes(graph, dict(enumerate(topology.node_order)))
    nx.write_graphml(graph, Path(path))


def read_edge_list(path: str | PathLike[str], num_agents: int | None = None, directed: bool = False) -> Topology:
    """A topology from lines of two agent numbers, sender and receiver, separated by blanks or a comma.

    Empty lines and what follows a ``#`` are skipped.

    Args:
        path: The file.
        num_agents: Number of agents N; None for the highest number plus one.
        directed: Whether each line is one edge; else each is a link that goes both ways.

    Raises:
        ValueError: For a line that is not two numbers in 0..N-1, joins an agent to itself or repeats a link; the
            message names file and line. For a file without links where ``num_agents`` is None.
        FileNotFoundError: If there is no such file.
    """
    first_line: dict[tuple[int, int], int] = {}
    with Path(path).open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if fields := line.split("#")[0].replace(",", " ").split():
                where = f"{path}, line {number}"
                link = _link(fields, where, num_agents)
                key = link if directed else (min(link), max(link))
                if key in first_line:
                    hint = "" if directed else "; a line is a link both ways (directed=True for one-way edges)"
                    raise ValueError(f"{where}: {key[0]} and {key[1]} were joined on line {first_line[key]}{hint}")
                first_line[key] = number
    if num_agents is None and not first_line:
        raise ValueError(f"{path}: holds no links; give num_agents")
    n = num_agents if num_agents is not None else 1 + max(max(link) for link in first_line)
    links = np.array(list(first_line), dtype=np.int64).reshape(-1, 2).T
    name = Path(path).stem
    return Topology(links, n, name) if directed else Topology.from_links(links[0], links[1], n, name)


def _link(fields: list[str], where: str, num_agents: int | None) -> tuple[int, int]:
    """The two agents of one line."""
    if len(fields) != 2 or not all(field.isascii() and field.isdigit() for field in fields):
        raise ValueError(f"{where}: expected two agent numbers, got {' '.join(fields)!r}")
    a, b = map(int, fields)
    if num_agents is not None and max(a, b) >= num_agents:
        raise ValueError(f"{where}: agents are 0..{num_agents - 1}, got {a} and {b}")
    if a == b:
        raise ValueError(f"{where}: joins agent {a} to itself; an agent always hears itself, leave it out")
    return a, b


def write_edge_list(topology: Topology, path: str | PathLike[str]) -> None:
    """Write one line for each link, ``sender receiver``: once if all links go both ways, else one for each edge.

    Read it back with ``directed = not topology.is_undirected``, and with ``num_agents`` where the last agents are
    isolated; GraphML keeps both by itself.
    """
    src, dst = topology.edges.numpy()
    if topology.is_undirected:
        src, dst = src[src < dst], dst[src < dst]
    with Path(path).open("w", encoding="utf-8") as file:
        file.writelines(f"{a} {b}\n" for a, b in zip(src.tolist(), dst.tolist(), strict=True))
