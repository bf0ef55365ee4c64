"""Fixed communication graphs: the class, its sparse operators, builders and files."""

from coordination.topology.base import MIXING, Topology
from coordination.topology.builders import BUILDERS, build
from coordination.topology.files import (
    from_file,
    from_networkx,
    read_edge_list,
    read_graphml,
    write_edge_list,
    write_graphml,
)
from coordination.topology.lattices import complete, empty, exponential, grid, path, ring, star, torus, tree
from coordination.topology.random_graphs import (
    erdos_renyi,
    random_geometric,
    random_regular,
    scale_free,
    small_world,
    uniform_positions,
)
from coordination.topology.sparse import SparseOperator

__all__ = [
    "BUILDERS",
    "MIXING",
    "SparseOperator",
    "Topology",
    "build",
    "complete",
    "empty",
    "erdos_renyi",
    "exponential",
    "from_file",
    "from_networkx",
    "grid",
    "path",
    "random_geometric",
    "random_regular",
    "read_edge_list",
    "read_graphml",
    "ring",
    "scale_free",
    "small_world",
    "star",
    "torus",
    "tree",
    "uniform_positions",
    "write_edge_list",
    "write_graphml",
]
