"""Simulation speed of the native environments, beside VMAS and JaxMARL, by size, and for each at its best batch.

    python benchmarks/simulate.py                                             # all sections but the peers
    python benchmarks/simulate.py spread --vmas PYTHON --jaxmarl PYTHON       # the pythons of their environments
    python benchmarks/simulate.py worlds scaling --envs ising sysadmin

A step counts everything a learner does not do itself: sampling random actions, stepping, views and restarts. Every
measurement runs in a process of its own, tied to as many cores as it has threads; it is a median over windows. Sections
are written to ``benchmarks/results/simulate.json``, one by one; those that are not run stay as they were.

- ``spread``: env steps per second of ``spread`` with 3 and with 64 agents, full observations, and of the peers
  (``benchmarks/peers/``), which take turns for some rounds; ratios are medians over rounds. Copies are 4,096 with 3
  agents; with 64 everybody has as many as suit them best.
- ``worlds``: agent steps per second of each environment at the best of some batches, with one and two threads.
- ``scaling``: what an agent step costs at 692, 10,000 and 100,000 modules, copies making up a million, one thread, in
  processor time, so that other work on the machine counts little; and the growth of peak memory.
- ``dynamics``: the same at 692 modules with everything happening that has a rate.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from envs.registry import ENVIRONMENTS, load

RESULTS = Path(__file__).parent / "results" / "simulate.json"
PEERS = Path(__file__).parent / "peers"
POPULATIONS = [name for name, entry in ENVIRONMENTS.items() if entry.target.startswith("envs.population.")]
DYNAMICS = {"fail": 0.01, "repair": 0.1, "leave": 0.001, "join": 0.1, "drop": 0.05, "partition": 0.01, "heal": 0.1}
SIZES = ((692, 1_500), (10_000, 100), (100_000, 10))  # modules, copies
SPREAD = ((3, {"concert": 4_096, "vmas": 4_096}), (64, {"concert": 64, "vmas": 512, "jaxmarl": 16}))  # agents, copies
BATCHES: dict[str, tuple[tuple[dict[str, Any], int], ...]] = {  # arguments and copies to choose the best of
    **dict.fromkeys(
        POPULATIONS, (({"num_agents": 16}, 4_096), ({"num_agents": 692}, 96), ({"num_agents": 692}, 1_500))
    ),
    "flocking": (({"num_agents": 16}, 256), ({"num_agents": 16}, 4_096), ({"num_agents": 100}, 256)),
    "foraging": (({}, 1_024), ({}, 4_096), ({}, 16_384)),
    "predator_prey": (({}, 256), ({}, 1_024), ({}, 4_096)),
    "traffic_junction": (
        ({"difficulty": "hard"}, 256),
        ({"difficulty": "hard"}, 1_024),
        ({"difficulty": "hard"}, 4_096),
    ),
    "spread": (({}, 4_096), ({}, 16_384)),
}


def measure(name: str, arguments: dict[str, Any], copies: int, threads: int, windows: int, processor: bool) -> dict:
    """One environment at one size, in this process: rates, and how much memory it took."""
    import torch

    from envs.native import NativeEnv
    from envs.scripted import random_action
    from marl.experiment import keep_freed_memory

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    torch.set_num_threads(threads)
    keep_freed_memory()
    clock = time.process_time if processor else time.perf_counter
    task = load(ENVIRONMENTS[name].target)(**arguments)
    before = _peak()
    env, generator = NativeEnv(task, copies), torch.Generator().manual_seed(0)
    view = env.reset(seed=0)
    rates = []
    for window in range(windows + 1):  # the first one warms up
        began, steps = clock(), 0
        while clock() - began < 1.0:
            view, steps = env.step(random_action(view, env.agents, generator)).view, steps + 1
        if window:
            rates.append(steps * copies / (clock() - began))
    n, rate = env.agents.num_agents, statistics.median(rates)
    return {
        "env": name,
        "arguments": arguments,
        "copies": copies,
        "threads": threads,
        "env_steps_per_second": rate,
        "agent_steps_per_second": rate * n,
        "bytes_per_agent": (_peak() - before) / (copies * n),
    }


def _peak() -> int:
    """Peak resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def own(name: str, arguments: dict[str, Any], copies: int, threads: int = 1, **more: Any) -> dict[str, Any]:
    """:func:`measure` in a process of its own."""
    given = {"name": name, "arguments": arguments, "copies": copies, "threads": threads, **more}
    return last_json([sys.executable, __file__, "--measure", json.dumps({"windows": 5, "processor": False} | given)])


def last_json(command: list[str]) -> dict[str, Any]:
    """Run a command and read the last line of its stdout."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    print(found, file=sys.stderr)
    return found


def spread(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Ours and the peers in turn; for each number of agents and threads, all rates and the ratios."""
    pythons = {"vmas": args.vmas, "jaxmarl": args.jaxmarl}
    rows = []
    for agents, copies in SPREAD:
        for threads in args.threads:
            rates: dict[str, list[float]] = {p: [] for p in copies if pythons.get(p, True)}
            versions: dict[str, str] = {}
            for _ in range(args.rounds):
                ours = own("spread", {"num_agents": agents}, copies["concert"], threads, windows=3)
                rates["concert"].append(ours["env_steps_per_second"])
                for peer in [p for p in rates if p != "concert"]:
                    told = [f"--agents={agents}", f"--copies={copies[peer]}", f"--threads={threads}"]
                    theirs = last_json([pythons[peer], str(PEERS / f"{peer}_spread.py"), *told])
                    rates[peer].append(theirs["env_steps_per_second"])
                    versions |= theirs["versions"]
            pairs = {
                p: [a / b for a, b in zip(rates["concert"], rates[p], strict=True)] for p in rates if p != "concert"
            }
            rows.append(
                {
                    "agents": agents,
                    "copies": copies,
                    "threads": threads,
                    "env_steps_per_second": {name: statistics.median(x) for name, x in rates.items()},
                    "ratio": {name: statistics.median(x) for name, x in pairs.items()},
                    "rounds": rates,
                    "versions": versions,
                }
            )
    return rows


def worlds(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Each environment at the batch that is best for it, by number of threads."""
    rows = []
    for name in [name for name in BATCHES if name in args.envs]:
        for threads in args.threads:
            tried = [own(name, arguments, copies, threads) for arguments, copies in BATCHES[name]]
            rows.append(max(tried, key=lambda row: row["agent_steps_per_second"]))
    return rows


def scaling(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Population environments from 692 to 100,000 modules, about a million over copies."""
    return [
        own(name, {"num_agents": modules}, copies, processor=True)
        for name in POPULATIONS
        if name in args.envs
        for modules, copies in SIZES
    ]


def dynamics(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Population environments with everything happening but rewiring."""
    modules, copies = SIZES[0]
    return [
        own(name, {"num_agents": modules, "dynamics": DYNAMICS}, copies, processor=True)
        for name in POPULATIONS
        if name in args.envs
    ]


SECTIONS: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
    "spread": spread,
    "worlds": worlds,
    "scaling": scaling,
    "dynamics": dynamics,
}


def main() -> None:
    """Parse the command line, run the sections, write each when it is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", default=list(SECTIONS), help=", ".join(SECTIONS))
    parser.add_argument("--envs", nargs="*", default=list(BATCHES), help="environments of the other sections")
    parser.add_argument("--vmas", help="python of an environment with VMAS")
    parser.add_argument("--jaxmarl", help="python of an environment with JaxMARL")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--measure", help="one measurement in this process, as JSON")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(**json.loads(args.measure))))
        return
    if unknown := [name for name in args.sections if name not in SECTIONS]:
        parser.error(f"unknown section {unknown[0]!r}; one of: {', '.join(SECTIONS)}")
    result = json.loads(args.out.read_text()) if args.out.exists() else {}
    for section in args.sections:
        busy = os.getloadavg()[0]
        rows = SECTIONS[section](args)
        result[section] = {"rows": rows, "busy": busy, "torch": version("torch"), "cores": os.cpu_count()}
        result["machine"] = f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
