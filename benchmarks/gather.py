"""How fast neighbours' features are summed: ``neighbour_sum`` against a CSR product, ``index_add_`` and PyG.

Prints one JSON line: medians in milliseconds of forward and of forward plus backward, all kernels taken in turn in one
run, one thread, and each kernel's time relative to ``neighbour_sum``.

    python benchmarks/gather.py --repeats 15
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch_geometric
from torch import Tensor
from torch_geometric.nn import SAGEConv

from coordination.gather import neighbour_sum
from coordination.graph import Graph
from coordination.topology import Topology

Kernel = Callable[[Tensor], Tensor]


def regular(num_agents: int, degree: int) -> Topology:
    """A circulant graph with shuffled labels: ``degree`` neighbours each, nowhere near one another in memory."""
    label = np.random.default_rng(0).permutation(num_agents)
    steps = [s for k in range(1, degree // 2 + 1) for s in (k, -k)]
    pairs = np.concatenate([np.stack([label, label[(np.arange(num_agents) + s) % num_agents]]) for s in steps], 1)
    return Topology(pairs, num_agents, "regular")


def kernels(topology: Topology, batch: int) -> dict[str, Kernel]:
    """The same sum over neighbours, computed in different ways on ``[B, N, D]``."""
    graph = Graph(topology)
    own = Graph.from_edges(topology.edges.expand(batch, 2, -1), topology.num_agents)
    flat, _, _ = graph.flat(batch)
    adjacency = topology.adjacency()
    sage = SAGEConv(1, 1, aggr="sum")

    def index_add(x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)
        return torch.zeros_like(rows).index_add_(0, flat[1], rows[flat[0]]).view_as(x)

    def pyg(x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)
        return sage.propagate(flat, x=(rows, rows), size=None).view_as(x)

    return {
        "neighbour_sum": lambda x: neighbour_sum(x, graph),
        "neighbour_sum_own_edges": lambda x: neighbour_sum(x, own),
        "csr": lambda x: adjacency(x, feature_dims=1),
        "index_add": index_add,
        "pyg_sage": pyg,
    }


def measure(topology: Topology, batch: int, features: int, repeats: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of every kernel, forward and forward plus backward."""
    x = torch.randn(batch, topology.num_agents, features, generator=torch.Generator().manual_seed(0))
    upstream = torch.randn_like(x)
    x.requires_grad_()
    table = kernels(topology, batch)
    reference = table["index_add"](x)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in table}
    for name, kernel in table.items():
        torch.testing.assert_close(kernel(x), reference, rtol=1e-4, atol=1e-4, msg=f"{name} sums something else")
    for _ in range(repeats):
        for name, kernel in table.items():
            x.grad = None
            with torch.no_grad():
                start = time.perf_counter()
                kernel(x)
                forward = time.perf_counter() - start
            start = time.perf_counter()
            kernel(x).backward(upstream)
            taken[name].append((forward, time.perf_counter() - start))
    best = [statistics.median(t[i] for t in taken["neighbour_sum"]) for i in range(2)]
    result = {}
    for name, times in taken.items():
        forward, both = (statistics.median(t[i] for t in times) for i in range(2))
        result[name] = {
            "forward_ms": round(forward * 1e3, 3),
            "forward_backward_ms": round(both * 1e3, 3),
            "forward_ratio": round(forward / best[0], 2),
            "forward_backward_ratio": round(both / best[1], 2),
        }
    return result


def main() -> None:
    """Measure both settings and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="runs of each kernel, of which the median is taken")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    everyone = Topology(np.stack(np.nonzero(1 - np.eye(3))), 3, "complete")
    report = {
        "regular: 692 agents x 8 neighbours, 32 samples, 64 features": measure(regular(692, 8), 32, 64, repeats),
        "complete: 3 agents, 9600 samples, 128 features": measure(everyone, 9600, 128, repeats),
        "repeats": repeats,
        "threads": 1,
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
