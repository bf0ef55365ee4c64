"""Speed and memory of the population environments under random play, 16 to 100,000 modules; prints one JSON object.

    python benchmarks/population.py                              # every population environment
    python benchmarks/population.py lq_consensus sysadmin        # some
    python benchmarks/population.py sysadmin --dynamics          # with everything happening that can

Results are stored in ``benchmarks/results/population.json``, by sending the output there. One thread; a step counts
everything a learner does not do itself: sampling actions, stepping, views and restarts. Each row runs in a process
of its own: the rate is the median of five windows, in seconds of processor time so that other work on the machine
counts little, and memory is the growth of the peak from before the environment was made.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

from envs.registry import ENVIRONMENTS, load

SIZES = ((16, 4_096), (692, 96), (692, 1_500), (10_000, 100), (100_000, 10))  # modules, copies
WINDOWS, SECONDS = 5, 1.0
DYNAMICS = {"fail": 0.01, "repair": 0.1, "leave": 0.001, "join": 0.1, "drop": 0.05, "partition": 0.01, "heal": 0.1}


def row(name: str, num_agents: int, copies: int, dynamics: dict[str, float] | None) -> dict[str, Any]:
    """One environment at one size, in this process."""
    import torch

    from envs.native import NativeEnv
    from envs.scripted import random_action

    torch.set_num_threads(1)
    task = load(ENVIRONMENTS[name].target)(num_agents=num_agents, **({"dynamics": dynamics} if dynamics else {}))
    before = _peak()
    env, generator = NativeEnv(task, copies), torch.Generator().manual_seed(0)
    view = env.reset(seed=0)
    rates = []
    for window in range(WINDOWS + 1):  # the first one warms up
        began, steps = time.process_time(), 0
        while time.process_time() - began < SECONDS:
            view, steps = env.step(random_action(view, env.agents, generator)).view, steps + 1
        if window:
            rates.append(steps * copies * num_agents / (time.process_time() - began))
    return {
        "env": name,
        "num_agents": num_agents,
        "copies": copies,
        "agent_steps_per_second": statistics.median(rates),
        "bytes_per_module": (_peak() - before) / (copies * num_agents),
    }


def _peak() -> int:
    """Peak resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Parse the command line, run every row in its own process, print."""
    known = [name for name, entry in ENVIRONMENTS.items() if entry.target.startswith("envs.population.")]
    parser = argparse.ArgumentParser(description="Speed and memory of the population environments.")
    parser.add_argument("envs", nargs="*", default=known, help=", ".join(known))
    parser.add_argument("--dynamics", action="store_true", help="with everything happening but rewiring")
    parser.add_argument("--row", type=int, help="one size only, in this process")
    args = parser.parse_args()
    if args.row is not None:
        num_agents, copies = SIZES[args.row]
        print(json.dumps(row(args.envs[0], num_agents, copies, DYNAMICS if args.dynamics else None)))
        return
    rows = []
    for name in args.envs:
        for size in range(len(SIZES)):
            command = [sys.executable, __file__, name, "--row", str(size), *(["--dynamics"] if args.dynamics else [])]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            rows.append(json.loads(out))
            print(rows[-1], file=sys.stderr)
    machine = f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    print(json.dumps({"threads": 1, "dynamics": DYNAMICS if args.dynamics else {}, "rows": rows, "machine": machine}))


if __name__ == "__main__":
    main()
