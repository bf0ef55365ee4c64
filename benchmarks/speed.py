"""End-to-end training speed of MAPPO, side by side with BenchMARL: one setting, one thread setting, one go.

    python benchmarks/speed.py --peer /path/to/peer-venv/bin/python --rounds 5 --threads 1

3 agents on simple_spread, 128 copies, 3,200 env steps an iteration, 4 epochs over one minibatch, actor and critic with
two tanh layers of 64 units, parameters shared; evaluation and logging off. The peer's side, its versions and how to
install them are in ``benchmarks/peers/benchmarl_mappo.py``; it runs in a virtual environment of its own. Rounds are
interleaved; medians and the ratio of each round are printed as one JSON object. With ``--env mpe2.simple_spread_v3
--workers 2`` our side trains on the real third-party environment instead, without a peer.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

PEER = Path(__file__).parent / "peers" / "benchmarl_mappo.py"
STEPS = 128 * 25


def own(threads: int, iterations: int, env: str, workers: int) -> dict[str, Any]:
    """Train in this process; median iteration after two of warm-up."""
    import torch

    from marl.experiment import Experiment
    from marl.settings import settings

    torch.set_num_threads(threads)
    network = {"name": "mlp", "hidden": [64, 64], "activation": "tanh"}
    experiment = Experiment(
        settings(
            {
                "env": env,
                "workers": workers,
                "num_envs": 128,
                "rollout_steps": 25,
                "algorithm": {"name": "mappo", "epochs": 4, "minibatches": 1},
                "policy": network,
                "identity": "none",  # the peer tells agents apart by their observations alone
                "critic": {"name": "central", "body": network},
                "evaluate": {"every": 0},
                "threads": threads,
            }
        )
    )
    experiment.start()
    rows = [experiment.trainer.iterate()["time"] for _ in range(iterations)][2:]
    experiment.close()
    phases = {name: statistics.median(r["phase_s"][name] for r in rows) for name in ("collect", "learn", "other")}
    rate = statistics.median(r["env_steps_per_second"] for r in rows)
    return {"framework": "concert", "env_steps_per_second": rate, "phase_s": phases, "torch": torch.__version__}


def last_json(command: list[str]) -> dict[str, Any]:
    """Run a command and read the last line of its stdout."""
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def main() -> None:
    """Parse the command line, run both sides in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="python of the peer's environment")
    parser.add_argument("--peer-args", nargs="*", default=["--actions", "discrete"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--env", default="spread")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--own", action="store_true", help="one run of our side only")
    args = parser.parse_args()
    if args.own:
        print(json.dumps(own(args.threads, args.iterations, args.env, args.workers)))
        return
    shared = ["--threads", str(args.threads), "--iterations", str(args.iterations)]
    ours = [sys.executable, __file__, "--own", *shared, "--env", args.env, "--workers", str(args.workers)]
    rounds = []
    for _ in range(args.rounds):
        one = {"concert": last_json(ours)}
        if args.peer:
            one["benchmarl"] = last_json([args.peer, str(PEER), *shared, *args.peer_args])
        rounds.append(one)
    rates = {name: [r[name]["env_steps_per_second"] for r in rounds] for name in rounds[0]}
    result: dict[str, Any] = {
        "threads": args.threads,
        "env": args.env,
        "workers": args.workers,
        "median_env_steps_per_second": {name: statistics.median(x) for name, x in rates.items()},
        "rounds": rounds,
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
    }
    if args.peer:
        result["ratio"] = statistics.median(a / b for a, b in zip(*rates.values(), strict=True))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
