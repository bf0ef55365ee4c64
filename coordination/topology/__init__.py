"""Fixed communication graphs: the class, its sparse operators, builders and files."""

from coordination.topology.base import MIXING, Topology
from coordination.topology.sparse import SparseOperator

__all__ = ["MIXING", "SparseOperator", "Topology"]
