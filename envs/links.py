"""Default links of native environments: everyone hears everyone while they are few."""

from __future__ import annotations

import torch

from coordination.graph import Graph
from coordination.topology import Topology

COMPLETE_UP_TO = 64


def default_graph(num_agents: int) -> Graph:
    """Complete up to 64 agents; above, no links at all, and the user chooses some."""
    pairs = torch.arange(num_agents)
    if num_agents > COMPLETE_UP_TO:
        return Graph(topology=Topology(torch.zeros(2, 0), num_agents, "empty"))
    edges = torch.cartesian_prod(pairs, pairs).T
    return Graph(topology=Topology(edges[:, edges[0] != edges[1]], num_agents, "complete"))
