"""Protocols and channels on an accelerator: numbers as on the CPU, and where the host waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx as nx
import pytest
import torch
from simulated_device import ACCELERATORS, accelerator, assert_same
from small_graphs import topology
from torch import Tensor

from coordination import consensus, tree
from coordination.channel import Budget, Delay, Drop, Noise, Partition, Quantise
from coordination.graph import Graph

CIRCLE = topology(nx.cycle_graph(8))
VALUES = torch.randn(2, 8, 2, generator=torch.Generator().manual_seed(0))
NEAR = torch.tensor([[(i + 1) % 8, (i + 7) % 8, 8] for i in range(8)]).expand(2, 8, 3)
LIVE = torch.rand(2, CIRCLE.num_edges, generator=torch.Generator().manual_seed(1)) < 0.7
GRAPHS = {
    "shared": Graph(topology=CIRCLE),
    "links down": Graph(topology=CIRCLE, live=LIVE),
    "of each sample": Graph.from_neighbours(NEAR, 8),
}


def parabola(x: Tensor) -> Tensor:
    return 2 * (x - 1)


PROTOCOLS = {
    "averaging": consensus.Averaging("mh", lazy=0.3),
    "chebyshev": consensus.Chebyshev(),
    "finite time": consensus.FiniteTime(),
    "push-sum": consensus.PushSum(),
    "extremum": consensus.Extremum("min"),
    "event triggered": consensus.EventTriggered(0.1),
    "delayed": consensus.Delayed(2, 0.05),
    "dgd": consensus.DGD(parabola, 0.1),
    "extra": consensus.EXTRA(parabola, 0.1),
    "diging": consensus.DIGing(parabola, 0.1),
    "admm": consensus.ADMM(lambda v, rho: (2 + rho * v) / (2 + rho)),
    "wmsr": consensus.Resilient("wmsr", 1),
    "median": consensus.Resilient("median", 0),
    "log-linear": consensus.LogLinearPool(),
    "gossip": consensus.Gossip(),
}
WHOLE = {"chebyshev", "finite time", "delayed", "admm"}  # these refuse links that are down
LOOKING = {  # init checks values, or degrees that the host does not know; rounds ask for the widest list of all samples
    *((name, form) for name in ("wmsr", "median") for form in ("links down", "of each sample")),
    *(("log-linear", form) for form in GRAPHS),
}

STAGES = {
    "quantise": Quantise(4, -4, 4),
    "budget": Budget(64, 128),
    "noise": Noise(0.1),
    "delay": Delay(2, 1),
    "drop": Drop(0.2, burst=2.0),
    "partition": Partition([0, 0, 0, 0, 1, 1, 1, 1], start=1, stop=3),
    "all": Quantise(4) | Budget(40, 80) | Noise(0.1) | Delay(2, 1) | Drop(0.2, burst=2.0),
}


def rounds(protocol: consensus.Consensus) -> Callable:
    def run(x: Tensor, graph: Graph, generator: torch.Generator) -> Any:
        return consensus.run(protocol, x, graph, rounds=3, feature_dims=1, generator=generator)

    return run


def sent(stage: Any) -> Callable:
    def run(x: Tensor, graph: Graph, generator: torch.Generator) -> Any:
        state, seen, channel = None, [], stage | Delay(1)
        alive = (torch.arange(8, device=x.device) != 2).expand(2, 8)
        for t in range(3):
            inbox, state, flow = channel.send(x * (t + 1), graph, state, generator=generator, alive=alive)
            seen += [inbox, inbox.sum(graph), inbox.mean(graph), state, flow]
        return seen

    return run


OVER_TIME = {
    **{f"consensus {name}": rounds(protocol) for name, protocol in PROTOCOLS.items()},
    **{f"channel {name}": sent(stage) for name, stage in STAGES.items()},
}


@pytest.mark.parametrize("device", ACCELERATORS)
@pytest.mark.parametrize("form", GRAPHS)
@pytest.mark.parametrize("name", OVER_TIME)
def test_protocols_and_channels(name, form, device):
    """Twice: the second time nothing is made anew, and nothing may wait."""
    kind = name.removeprefix("consensus ")
    if (form != "shared" and kind in WHOLE) or (form == "of each sample" and kind == "gossip"):
        pytest.skip("needs one topology shared by all samples")
    call, graph = OVER_TIME[name], GRAPHS[form]
    expected = call(VALUES, graph, torch.Generator().manual_seed(7))
    with accelerator(device) as there:
        x, moved = VALUES.to(there.device), tree.to(graph, there.device)
        assert_same(call(x, moved, torch.Generator(there.device).manual_seed(7)), expected, there.home)
    with accelerator(device, same_draws=False) as there:
        generator = torch.Generator(there.device).manual_seed(7)
        with there.waits() as waits:
            call(x, moved, generator)
    assert bool(waits) == ((kind, form) in LOOKING), waits
