"""Environment steps per second of BenchMARL's MAPPO on the VMAS task simple_spread, on the CPU.

What is measured: the wall-clock time of a whole training iteration, collection and update together, in BenchMARL's own
training loop. The clock runs from the end of one update to the end of the next, so nothing that happens in between is
left out; building the experiment is. The first iterations are warm-up and the median of the others is reported. One
environment step is one step of one copy, whatever the number of agents.

Setting: 3 agents, episodes of 25 steps, 128 copies, 3,200 environment steps an iteration, 4 epochs over one minibatch
(the whole batch), actor and critic with two tanh layers of 64 units, parameters shared; evaluation, rendering, loggers
and checkpoints are off. The rest is BenchMARL's default: continuous actions (``--actions discrete`` for the other
kind) and one centralised critic whose value serves the whole team. Each run checks the numbers of this setting on the
data and the networks it really trained with, and fails instead of reporting the speed of something else.

Environment: Python 3.11, in a virtual environment of its own because these versions hold others back::

    pip install torch==2.13.0 benchmarl==1.5.0 torchrl==0.8.1 tensordict==0.8.3 vmas==1.5.2

with a CPU build of torch. TorchRL 0.8.1 then warns that its C++ extension does not load: only prioritised replay needs
that, and MAPPO does not. A torchvision built for another torch is as harmless, since only image transforms import it.

Usage: ``python benchmarks/peers/benchmarl_mappo.py --threads 1`` prints one JSON line; progress goes to stderr.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import version

import torch
from benchmarl.algorithms import MappoConfig
from benchmarl.environments import VmasTask
from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig
from tensordict import TensorDictBase

N_AGENTS = 3
N_COPIES = 128
EPISODE_STEPS = 25
BATCH_STEPS = N_COPIES * EPISODE_STEPS
N_EPOCHS = 4
HIDDEN = (64, 64)
N_WARM_UP = 2
PACKAGES = ("benchmarl", "torchrl", "tensordict", "vmas", "torch")


class IterationClock(Callback):
    """Times every iteration and checks that it did the work the benchmark counts.

    Attributes:
        rollout_seconds: collection time of each iteration.
        update_seconds: training time of each iteration; the two add up to the iteration.
    """

    def __init__(self, n_threads: int) -> None:
        super().__init__()
        self.rollout_seconds: list[float] = []
        self.update_seconds: list[float] = []
        self._n_threads = n_threads
        self._n_updates = 0
        self._mark = 0.0

    def start(self) -> None:
        """Starts the clock of the first iteration."""
        self._mark = time.perf_counter()

    def on_batch_collected(self, batch: TensorDictBase) -> None:
        """Ends the rollout and checks it: every copy ran one whole episode, on the threads asked for."""
        self.rollout_seconds.append(self._lap())
        _expect("batch", tuple(batch.batch_size), (N_COPIES, EPISODE_STEPS))
        over = batch["next", "done"].squeeze(-1)  # [B, T]
        _expect("episodes that end on their last step", int(over[:, -1].sum()), N_COPIES)
        _expect("episodes that end earlier", int(over[:, :-1].sum()), 0)
        _expect("agents", batch["agents", "observation"].shape[-2], N_AGENTS)
        _expect("threads", torch.get_num_threads(), self._n_threads)

    def on_train_step(self, batch: TensorDictBase, group: str) -> None:  # pyright: ignore  # the base returns None too
        """Counts one gradient step and checks that it saw the whole batch."""
        self._n_updates += 1
        _expect(f"environment steps in a minibatch of {group}", batch.numel(), BATCH_STEPS)

    def on_train_end(self, training_td: TensorDictBase, group: str) -> None:
        """Ends the update and with it the iteration; there is one group of agents, hence one call an iteration."""
        self.update_seconds.append(self._lap())
        _expect(f"gradient steps of {group} in an iteration", self._n_updates, N_EPOCHS)
        self._n_updates = 0

    def _lap(self) -> float:
        now = time.perf_counter()
        seconds, self._mark = now - self._mark, now
        return seconds


def build(actions: str, n_iterations: int, seed: int, save_folder: str, clock: IterationClock) -> Experiment:
    """Builds the experiment: BenchMARL's defaults, changed only where the module docstring says so.

    Args:
        actions: ``continuous`` or ``discrete``.
        n_iterations: iterations to train for.
        seed: seed of the experiment.
        save_folder: folder for the configuration file that BenchMARL always writes.
        clock: callback that times the run.
    """
    config = replace(
        ExperimentConfig.get_from_yaml(),
        sampling_device="cpu",
        train_device="cpu",
        share_policy_params=True,
        prefer_continuous_actions=actions == "continuous",
        max_n_iters=n_iterations,
        max_n_frames=None,
        on_policy_collected_frames_per_batch=BATCH_STEPS,
        on_policy_n_envs_per_worker=N_COPIES,
        on_policy_n_minibatch_iters=N_EPOCHS,
        on_policy_minibatch_size=BATCH_STEPS,
        evaluation=False,
        render=False,
        loggers=[],
        create_json=False,
        save_folder=save_folder,
        checkpoint_interval=0,
        checkpoint_at_end=False,
    )
    task = VmasTask.SIMPLE_SPREAD.get_from_yaml()
    task.config.update(max_steps=EPISODE_STEPS, n_agents=N_AGENTS)
    network = replace(MlpConfig.get_from_yaml(), num_cells=list(HIDDEN), activation_class=torch.nn.Tanh)
    return Experiment(
        task=task,
        algorithm_config=MappoConfig.get_from_yaml(),
        model_config=network,
        critic_model_config=replace(network),
        seed=seed,
        config=config,
        callbacks=[clock],
    )


def check_networks(experiment: Experiment, n_iterations: int) -> None:
    """Raises unless actor and critic were of the stated size, shared by the agents, and stepped in every epoch."""
    (group,) = experiment.group_map
    for name, optimizer in experiment.optimizers[group].items():
        parameters = [p for param_group in optimizer.param_groups for p in param_group["params"]]
        _expect(f"hidden layers of {name}", hidden_widths(parameters), HIDDEN)
        steps = {int(optimizer.state[p]["step"]) for p in parameters}
        _expect(f"optimiser steps of {name}", steps, {N_EPOCHS * n_iterations})


def hidden_widths(parameters: Iterable[torch.Tensor]) -> tuple[int, ...]:
    """Widths of the hidden layers, given the parameters in the order of the layers.

    A network that is not shared has an agent axis before the two of a weight, and is refused.
    """
    shapes = [tuple(p.shape) for p in parameters]
    if any(len(shape) > 2 for shape in shapes):
        raise RuntimeError(f"parameters: expected one network for all agents, got shapes {shapes}")
    outputs = [shape[0] for shape in shapes if len(shape) == 2]
    return tuple(outputs[:-1])


def measure(n_threads: int, n_iterations: int, actions: str, seed: int) -> dict[str, object]:
    """Trains for `n_iterations` iterations and returns the record to print.

    Args:
        n_threads: threads torch may use.
        n_iterations: iterations to run, warm-up included.
        actions: ``continuous`` or ``discrete``.
        seed: seed of the experiment.
    """
    torch.set_num_threads(n_threads)
    torch.set_num_interop_threads(n_threads)
    clock = IterationClock(n_threads)
    with tempfile.TemporaryDirectory() as folder:
        experiment = build(actions, n_iterations, seed, folder, clock)
        clock.start()
        experiment.run()
    check_networks(experiment, n_iterations)
    iterations = [sum(phases) for phases in zip(clock.rollout_seconds, clock.update_seconds, strict=True)]
    _expect("iterations", len(iterations), n_iterations)
    median = statistics.median(iterations[N_WARM_UP:])
    return {
        "framework": "benchmarl",
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "threads": n_threads,
        "actions": actions,
        "env_steps_per_second": round(BATCH_STEPS / median, 1),
        "iterations_per_second": round(1 / median, 4),
        "rollout_seconds": round(statistics.median(clock.rollout_seconds[N_WARM_UP:]), 4),
        "update_seconds": round(statistics.median(clock.update_seconds[N_WARM_UP:]), 4),
        "iteration_seconds": [round(seconds, 4) for seconds in iterations],
    }


def _expect(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise RuntimeError(f"{what}: expected {expected}, got {got}; the run is not the one this benchmark describes")


def main() -> None:
    """Reads the command line, measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(description="Speed of BenchMARL's MAPPO on VMAS simple_spread.")
    parser.add_argument("--threads", type=int, default=1, help="threads torch may use (default: 1)")
    parser.add_argument("--iterations", type=int, default=12, help="iterations, warm-up included (default: 12)")
    parser.add_argument("--actions", choices=("continuous", "discrete"), default="continuous", help="kind of actions")
    parser.add_argument("--seed", type=int, default=0, help="seed of the experiment (default: 0)")
    args = parser.parse_args()
    if args.threads < 1:
        parser.error(f"--threads: must be at least 1, got {args.threads}")
    if args.iterations <= N_WARM_UP:
        parser.error(f"--iterations: must be above {N_WARM_UP} (warm-up), got {args.iterations}")
    print(json.dumps(measure(args.threads, args.iterations, args.actions, args.seed)))


if __name__ == "__main__":
    main()
