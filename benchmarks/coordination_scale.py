"""Scale of coordination/: named cases timed on one thread, with their peak memory; prints one JSON object.

    python benchmarks/coordination_scale.py                # every case
    python benchmarks/coordination_scale.py metropolis     # cases whose name contains a word

Results are stored in ``benchmarks/results/coordination_scale.json``, by sending the output there.

A case is a function that prepares (graphs and operators are built here, and not timed) and returns a :class:`Case`.
Add yours to ``CASES``. (Not called coordination.py: run as a script, that name would hide the package.) Numbers count
on an otherwise idle machine: the best of five runs is reported.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from coordination.coalition import BestResponse, CLink, Coalitions, Exact
from coordination.consensus import Averaging, Chebyshev, Extremum, PushSum, run
from coordination.credit import hop_credit
from coordination.games import PairwiseGame, TabularGame, coalition_masks
from coordination.metrics import evaluate
from coordination.signals import Trajectory
from coordination.topology import Topology, random_regular

REPEATS = 5
AGENTS, DEGREE, BATCH = 100_000, 8, 16


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        work: What is timed; its last result goes to ``report``.
        input_bytes: Size of the input, for the ratio of extra memory.
        limits: What must hold, ``{figure: largest value}``, for figures of this case's row.
        report: Further figures from the result.
    """

    work: Callable[[], Any]
    input_bytes: int
    limits: dict[str, float] = field(default_factory=dict)
    report: Callable[[Any], dict[str, float]] = lambda result: {}


@functools.cache
def _network() -> tuple[Topology, torch.Tensor]:
    """One random graph and one batch of values for all cases."""
    graph = random_regular(AGENTS, DEGREE, seed=0)
    x = torch.randn(BATCH, AGENTS, generator=torch.Generator().manual_seed(0))
    return graph, x


def ten_metropolis_rounds() -> Case:
    """Ten rounds of averaging over 100,000 agents and 800,000 edges, 16 samples; drift against float64."""
    graph, x = _network()
    exact = x.double().mean(-1)

    def drift(result: Any) -> dict[str, float]:
        return {"mean_drift": float((result.value.double().mean(-1) - exact).abs().max())}

    limits = {"seconds": 0.2, "extra_memory_ratio": 3.0, "mean_drift": 1e-6}
    return Case(lambda: run(Averaging("metropolis"), x, graph, rounds=10), x.nbytes, limits, drift)


def ten_chebyshev_rounds() -> Case:
    """The same with acceleration, its factor given."""
    graph, x = _network()
    return Case(lambda: run(Chebyshev(sigma=0.72), x, graph, rounds=10), x.nbytes)


def ten_push_sum_rounds() -> Case:
    """Ten rounds of push-sum, no losses."""
    graph, x = _network()
    return Case(lambda: run(PushSum(), x, graph, rounds=10), x.nbytes)


def maximum_to_agreement() -> Case:
    """Flooding of the maximum until all agree."""
    graph, x = _network()
    return Case(lambda: run(Extremum(), x, graph, tol=0), x.nbytes, report=lambda result: {"rounds": result.rounds})


def two_hop_credit() -> Case:
    """Rewards of everybody within two hops, 100,000 agents and 800,000 edges, 16 samples; operator built before."""
    graph, x = _network()
    hop_credit(x, graph, 2, normalisation="unbiased")
    return Case(lambda: hop_credit(x, graph, 2, normalisation="unbiased"), x.nbytes, {"seconds": 0.5})


def optimal_structure_of_twenty_agents() -> Case:
    """Exact coalition structure generation, 20 agents with worths |C| U(0, 1): proven optimal."""
    size = coalition_masks(20).sum(1)
    worth = size * torch.rand(1 << 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    game = TabularGame(worth)
    limits = {"seconds": 15.0, "gap": 0.0}
    return Case(lambda: Exact().form(game), worth.nbytes, limits, lambda found: {"gap": float(found.gap)})


@functools.cache
def _signed_links() -> PairwiseGame:
    graph, _ = _network()
    pairs = graph.edges[:, graph.edges[0] < graph.edges[1]]
    weight = torch.randn(pairs.shape[1], generator=torch.Generator().manual_seed(0))
    return PairwiseGame(torch.zeros(AGENTS), pairs, weight)


def _share_of_bound(found: Coalitions) -> dict[str, float]:
    return {"value_of_bound": float(found.value / found.upper_bound)}  # type: ignore[operator]


def best_response_coalitions() -> Case:
    """Hedonic best response of 100,000 agents on 400,000 links with Gaussian weights, from everybody alone."""
    game = _signed_links()
    return Case(lambda: BestResponse().form(game), game.pair.nbytes, report=_share_of_bound)


def c_link_coalitions() -> Case:
    """Greedy merging on the same game."""
    game = _signed_links()
    return Case(lambda: CLink().form(game), game.pair.nbytes, report=_share_of_bound)


def metrics_of_a_trajectory() -> Case:
    """Every metric that applies to 25 steps of 16 copies of 10,000 agents on 80,000 links, a tenth of them dead."""
    steps, agents, draw = 25, 10_000, torch.Generator().manual_seed(0)
    shape = (steps, BATCH, agents)
    trajectory = Trajectory.of(
        torch.rand(shape, generator=draw),
        random_regular(agents, DEGREE, seed=0),
        {"coalition": torch.randint(100, shape, generator=draw), "value": torch.randn(shape, generator=draw)},
        action=torch.randint(5, (*shape, 1), generator=draw),
        logits=torch.randn(*shape, 5, generator=draw),
        alive=torch.rand(shape, generator=draw) < 0.9,
    )
    held = (trajectory.reward, trajectory.action, trajectory.logits, trajectory.alive, *trajectory.info.values())
    size = sum(x.nbytes for x in held if x is not None)
    return Case(lambda: evaluate(trajectory), size, {"seconds": 10.0}, lambda table: {"metrics": len(table)})


CASES: dict[str, Callable[[], Case]] = {
    "ten_metropolis_rounds": ten_metropolis_rounds,
    "ten_chebyshev_rounds": ten_chebyshev_rounds,
    "ten_push_sum_rounds": ten_push_sum_rounds,
    "maximum_to_agreement": maximum_to_agreement,
    "two_hop_credit": two_hop_credit,
    "optimal_structure_of_twenty_agents": optimal_structure_of_twenty_agents,
    "best_response_coalitions": best_response_coalitions,
    "c_link_coalitions": c_link_coalitions,
    "metrics_of_a_trajectory": metrics_of_a_trajectory,
}


def peak_extra_bytes(work: Callable[[], Any]) -> int | None:
    """Most memory the process holds during ``work`` beyond what it held before; None where the system does not tell."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def kilobytes(name: str) -> int:
        return int(next(line for line in status.read_text().splitlines() if line.startswith(name)).split()[1])

    work()
    try:
        reset.write_text("5")
    except OSError:
        return None
    before = kilobytes("VmRSS")
    work()
    return 1024 * (kilobytes("VmHWM") - before)


def memory_of(name: str) -> int | None:
    """The same for a case, in a process of its own whose allocator gives back at once what is freed."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, __file__, "--memory", name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def timed(case: Case) -> dict[str, Any]:
    """Best seconds of five, and the case's own figures."""
    result = case.work()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = case.work()
        seconds.append(time.perf_counter() - start)
    return {"seconds": min(seconds), "all_seconds": seconds, **case.report(result)}


def main(words: list[str]) -> None:
    """Measure the cases named by any of the words, all without words."""
    torch.set_num_threads(1)
    if words[:1] == ["--memory"]:
        print(json.dumps(peak_extra_bytes(CASES[words[1]]().work)))
        return
    chosen = [name for name in CASES if not words or any(word in name for word in words)]
    machine = {"machine": platform.machine(), "python": platform.python_version(), "torch": torch.__version__}
    cases = {name: CASES[name]() for name in chosen}
    rows = {name: timed(case) for name, case in cases.items()}
    for name, case in cases.items():
        extra = memory_of(name)
        if extra is not None:
            rows[name] |= {"extra_bytes": extra, "extra_memory_ratio": extra / case.input_bytes}
        rows[name]["holds"] = {k: rows[name][k] <= limit for k, limit in case.limits.items() if k in rows[name]}
    print(json.dumps({**machine, "threads": 1, "agents": AGENTS, "degree": DEGREE, "batch": BATCH, "cases": rows}))


if __name__ == "__main__":
    main(sys.argv[1:])
