"""A hundred thousand agents: ten rounds keep the mean in float32 and need less than three times the input's memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from coordination.consensus import Averaging, run
from coordination.topology import Topology

AGENTS, BATCH = 100_000, 16

# Peak of the resident set over ten rounds, in a process whose allocator gives back at once what is freed.
MEASURE = """
from pathlib import Path
from test_consensus_scale import Averaging, network, run, torch
torch.set_num_threads(1)
graph, x = network()
run(Averaging(), x, graph, rounds=10)
Path("/proc/self/clear_refs").write_text("5")
held = lambda name: int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0])
before = held("VmRSS")
run(Averaging(), x, graph, rounds=10)
print(1024 * (held("VmHWM") - before))
"""


def network() -> tuple[Topology, torch.Tensor]:
    """800,000 edges: every agent hears the eight at these distances, under random names."""
    rng = np.random.default_rng(0)
    name = rng.permutation(AGENTS)
    edges = [np.stack([name, np.roll(name, step)]) for d in (1, 7, 101, 5003) for step in (d, -d)]
    return Topology(np.concatenate(edges, 1), AGENTS), torch.from_numpy(rng.normal(size=(BATCH, AGENTS))).float()


def test_the_mean_does_not_drift():
    graph, x = network()
    assert graph.num_edges == 800_000
    result = run(Averaging(), x, graph, rounds=10)
    assert (result.value.double().mean(-1) - x.double().mean(-1)).abs().max() <= 1e-6
    assert (result.value.std(-1) < 0.5 * x.std(-1)).all()


def test_extra_memory_is_less_than_three_times_the_input():
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the system does not tell the peak of the resident set")
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONPATH": os.path.dirname(__file__)}
    done = subprocess.run([sys.executable, "-c", MEASURE], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) <= 3 * BATCH * AGENTS * 4
