"""Environment steps per second of VMAS's simple_spread under random play, on the CPU.

What is measured: steps of all copies with a fresh random action for every agent, new observations and rewards, and a
restart of all copies every 25 steps, by wall-clock. Actions are uniform among VMAS's discrete choices. One environment
step is one step of one copy, whatever the number of agents. The process is tied to as many cores as it has threads.

Environment: Python 3.11, in a virtual environment of its own (the one of ``benchmarl_mappo.py`` serves)::

    pip install torch==2.13.0 vmas==1.5.2

Usage: ``python benchmarks/peers/vmas_spread.py --agents 3 --copies 4096`` prints one JSON line.
"""

import argparse
import json
import os
import statistics
import time
from importlib.metadata import version

import torch
from vmas import make_env

EPISODE_STEPS = 25


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--copies", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="least length of a window")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    torch.set_num_threads(args.threads)
    env = make_env("simple_spread", args.copies, device="cpu", continuous_actions=False, seed=0, n_agents=args.agents)
    generator = torch.Generator().manual_seed(0)
    taken = 0

    def step() -> None:
        nonlocal taken
        choices = torch.randint(5, (args.agents, args.copies, 1), generator=generator)
        seen = env.step(list(choices))[0]
        taken += 1
        if taken % EPISODE_STEPS == 0:
            seen = env.reset()
        if len(seen) != args.agents or seen[0].shape != (args.copies, 4 * args.agents + 2):
            raise RuntimeError(f"expected full observations, got {len(seen)} of shape {tuple(seen[0].shape)}")

    with torch.no_grad():
        step()
        rates = []
        for _ in range(args.windows):
            began, before = time.perf_counter(), taken
            while time.perf_counter() - began < args.seconds:
                step()
            rates.append((taken - before) * args.copies / (time.perf_counter() - began))
    result = {"framework": "vmas", "env_steps_per_second": statistics.median(rates), "copies": args.copies}
    print(json.dumps({**result, "versions": {name: version(name) for name in ("vmas", "torch")}}))


if __name__ == "__main__":
    main()
