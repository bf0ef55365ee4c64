"""Run learning benchmarks: one result file per task and seed, only what is missing, side by side, safe to interrupt.

    python benchmarks/run.py spread-mappo-mlp spread-ippo-mlp --seeds 0..4 --jobs 2
    python benchmarks/run.py --table

Every run has one thread. A result holds all settings, the greedy evaluations on the way, the final evaluation, versions
and machine. ``--table`` prints interquartile means over seeds with 95% bootstrap intervals.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "learning"
sys.path.insert(0, str(HERE))


def result_path(task: str, seed: int) -> Path:
    """Where the result of one run lies."""
    return RESULTS / task / f"seed_{seed}.json"


def run_one(task: str, seed: int) -> None:
    """Train one seed of a task in this process and store its result."""
    import torch
    from tasks import TASKS

    import marl
    from marl.runs.run import Run

    with tempfile.TemporaryDirectory() as folder:
        run = marl.train(**TASKS[task], seed=seed, threads=1, run_dir=Path(folder) / "run")
        assert isinstance(run, Run)
        result, rows = run.result(), run.metrics()
        stored = {
            "task": task,
            "command": f"python benchmarks/run.py {task} --seeds {seed}",
            "settings": run.settings.plain() | {"run_dir": None},
            "evaluations": [
                {"env_steps": r["env_steps"], "return": r["evaluate/return"]} for r in rows if "evaluate/return" in r
            ],
            "final": {name: _plain(e) for name, e in result["evaluation"].items()},
            "elsewhere": _elsewhere(run),
            "train_s": result["time"]["train_s"],
            "env_steps": result["env_steps"],
            "machine": f"{platform.machine()}, {platform.system()}, 1 thread",
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
        }
    path = result_path(task, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(stored, indent=1) + "\n")


def _plain(evaluation: dict[str, Any]) -> dict[str, Any]:
    returns = evaluation["returns"]
    mean = sum(returns) / len(returns)
    variance = sum((x - mean) ** 2 for x in returns) / max(len(returns) - 1, 1)
    rest = {k: v for k, v in evaluation.items() if k != "returns"}
    return {"mean": mean, "standard_error": (variance / len(returns)) ** 0.5, "episodes": len(returns), **rest}


def _elsewhere(run: Any) -> dict[str, Any]:
    """The same weights elsewhere: on the real mpe2; for hidden observations, with no links and with shuffled ones."""
    from coordination import rng
    from marl.experiment import evaluation_env
    from marl.report.evaluate import evaluate

    s = run.settings
    if s.env != "spread":
        return {}
    if not s.wrappers:
        found = {"mpe2": run.evaluate(1000, seed=1, policies=["greedy"], env="mpe2.simple_spread_v3")["greedy"]}
    elif s.graph is None:
        env = evaluation_env(s, 1000, "cpu")
        act = _shuffled(run.policy(env), rng.generator(1, "shuffle"))
        found = {"no links": run.evaluate(1000, seed=1, policies=["greedy"], graph="none")["greedy"]}
        found["shuffled links"] = evaluate(env, act, 1000, rng.derive(1, "evaluation"))
    else:
        found = {}
    return {
        name: {"mean": e.mean, "standard_error": e.standard_error, "episodes": len(e.returns)}
        for name, e in found.items()
    }


def _shuffled(policy: Any, generator: Any) -> Any:
    """The greedy policy with its links shuffled: all copies become one population, and senders change places in it."""
    import torch

    from coordination.graph import Graph
    from envs.base import View

    def act(view: View, start: torch.Tensor) -> torch.Tensor:
        copies, n, _ = view.obs.shape
        edges, _, _ = view.graph.flat(copies)
        senders = edges[0, torch.randperm(edges.shape[1], generator=generator)]
        graph = Graph.from_edges(torch.stack([senders, edges[1]]).unsqueeze(0), copies * n)
        crowd = View(view.obs.reshape(1, copies * n, -1), view.alive.reshape(1, -1), graph)
        return policy.head.sample(policy(crowd)[0])[0].reshape(copies, n, -1)

    return act


def table() -> None:
    """Print the interquartile mean over seeds of every task that has results."""
    from marl.report.statistics import summary

    print(f"{'task':<26}{'seeds':>6}{'IQM':>9}{'95% interval':>20}{'worst':>9}{'at 250k':>9}")
    for folder in sorted(RESULTS.iterdir()):
        results = [json.loads(p.read_text()) for p in sorted(folder.glob("seed_*.json"))]
        finals = [r["final"]["greedy"]["mean"] for r in results]
        early = [e["return"] for r in results for e in r["evaluations"] if 240_000 < e["env_steps"] <= 250_000]
        s = summary(finals)
        at = f"{summary(early).iqm:9.2f}" if early else f"{'':>9}"
        interval = f"[{s.low:.2f}, {s.high:.2f}]"
        print(f"{folder.name:<26}{len(results):>6}{s.iqm:>9.2f}{interval:>20}{min(finals):>9.2f}{at}")


def main() -> None:
    """Parse the command line, start what is missing, wait."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*")
    parser.add_argument("--seeds", default="0..4")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--one", action="store_true", help="run the one seed of the one task in this process")
    args = parser.parse_args()
    from marl.runs.seeds import parse_seeds

    seeds = parse_seeds(int(args.seeds) if args.seeds.isdigit() else args.seeds)
    if args.one:
        run_one(args.tasks[0], seeds[0])
        return
    missing = [(t, s) for s in seeds for t in args.tasks if not result_path(t, s).exists()]
    running: list[subprocess.Popen] = []
    while missing or running:
        running = [p for p in running if p.poll() is None]
        while missing and len(running) < args.jobs:
            task, seed = missing.pop(0)
            print(f"{task} seed {seed}", flush=True)
            running.append(subprocess.Popen([sys.executable, __file__, task, "--seeds", str(seed), "--one"]))
        time.sleep(0.5)
    if args.table or args.tasks:
        table()


if __name__ == "__main__":
    main()
