"""Steps per second of mpe2.simple_spread_v3 (N = 3, random actions) through the door, against the bare environment.

Measured side by side, one after the other in every round, with the median over rounds reported: the bare environment in
a plain loop; 128 copies in this process; the same in one and in two workers; and SuperSuit's concat_vec_envs_v1 in this
process and in two. One environment step is one step of one copy. Actions are drawn beforehand. Two workers can only be
twice as fast where two cores are free; ``busy`` says what the machine was doing besides (load average at the start).

Usage: ``python benchmarks/door.py --rounds 5`` prints one JSON line.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import supersuit
import torch
from mpe2 import simple_spread_v3

import envs

ENV = "mpe2.simple_spread_v3"
COPIES = 128
AGENTS = 3


def bare() -> Callable[[int], int]:
    """One environment in a plain loop, as its documentation shows it."""
    env = simple_spread_v3.parallel_env()
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(5, size=(4096, AGENTS)).tolist()

    def run(steps: int) -> int:
        for t in range(steps * 16):
            env.step(dict(zip(env.agents, actions[t % 4096], strict=True)))
            if not env.agents:
                env.reset(seed=t)
        return steps * 16

    return run


def door(workers: int) -> Callable[[int], int]:
    """The copies as a VectorEnv."""
    env = envs.make(ENV, num_envs=COPIES, workers=workers)
    env.reset(seed=0)
    actions = torch.randint(5, (64, COPIES, AGENTS, 1), generator=torch.Generator().manual_seed(0))

    def run(steps: int) -> int:
        for t in range(steps):
            env.step(actions[t % 64])
        return steps * COPIES

    return run


def suit(processes: int) -> Callable[[int], int]:
    """The copies in SuperSuit's vector environment."""
    one = supersuit.pettingzoo_env_to_vec_env_v1(simple_spread_v3.parallel_env())
    env = supersuit.concat_vec_envs_v1(one, COPIES, num_cpus=processes, base_class="gymnasium")
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(5, size=(64, COPIES * AGENTS))

    def run(steps: int) -> int:
        for t in range(steps):
            env.step(actions[t % 64])
        return steps * COPIES

    return run


def main() -> None:
    """Run all sides in turn and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="times each side is measured")
    parser.add_argument("--steps", type=int, default=50, help="vector steps in one measurement")
    args = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    sides = {
        "bare": bare(),
        "in_process": door(0),
        "workers_1": door(1),
        "workers_2": door(2),
        "supersuit_in_process": suit(0),
        "supersuit_2": suit(2),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, run in sides.items():
            run(2)
            start = time.perf_counter()
            count = run(args.steps)
            rates[name].append(count / (time.perf_counter() - start))
    medians = {name: round(statistics.median(values)) for name, values in rates.items()}
    ratios = {
        name: round(statistics.median(x / y for x, y in zip(values, rates["bare"], strict=True)), 3)
        for name, values in rates.items()
    }
    compared = {}
    for one, other in (
        ("workers_2", "in_process"),
        ("workers_2", "supersuit_2"),
        ("in_process", "supersuit_in_process"),
    ):
        each = [x / y for x, y in zip(rates[one], rates[other], strict=True)]
        compared[f"{one} / {other}"] = round(statistics.median(each), 3)
    print(
        json.dumps(
            {
                "benchmark": "door",
                "env": ENV,
                "copies": COPIES,
                "steps_per_second": medians,
                "ratio_to_bare": ratios,
                "ratios": compared,
                "rounds": args.rounds,
                "busy": load,
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                **{name: version(name) for name in ("numpy", "torch", "pettingzoo", "mpe2", "supersuit")},
            }
        )
    )


if __name__ == "__main__":
    main()
