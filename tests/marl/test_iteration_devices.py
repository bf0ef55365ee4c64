"""Whole iterations on an accelerator: numbers as on the CPU, and the host waits for nothing but the metrics."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from simulated_device import ACCELERATORS, Accelerator, accelerator, assert_same

from coordination import rng
from marl.collector import Collector
from marl.experiment import make_env
from marl.learners import build_algorithm
from marl.settings import settings
from marl.trainer import Trainer

SMALL = {"num_envs": 3, "rollout_steps": 10, "env_args": {"max_cycles": 10}, "normalise_obs": True}
PPO = {"epochs": 2, "minibatches": 2}
REPLAY = {"warmup": 0, "batch_size": 16, "capacity": 300, "updates": 2}
LINKS = {"quantise": {"bits": 4}, "drop": {"loss": 0.2, "burst": 2.0}, "delay": {"steps": 1}}
MLP = {"name": "mlp", "hidden": (16,)}
GRAPH = {"name": "graph", "hidden": 16}
REALS = {"env": "speaker_listener", "env_args": {"max_cycles": 10, "continuous_actions": True}}
FORAGING = {"env": "foraging", "env_args": {}}  # where a copy ends alone, a device draws for all and the CPU for it
CASES: dict[str, dict[str, Any]] = {
    "mappo": {"algorithm": {"name": "mappo", **PPO}, "policy": MLP},
    "mappo on a graph": {"algorithm": {"name": "mappo", **PPO}, "policy": GRAPH, "critic": "graph"},
    "mappo with signals, in a world that can end early": {
        "algorithm": {"name": "mappo", **PPO},
        "policy": MLP,
        "reward": "team",
        "signals": [{"khop": {"k": 1}}, "consensus_smooth"],
        **FORAGING,
    },
    "ippo with memory, groups and reals": {
        "algorithm": {"name": "ippo", **PPO, "normalise_reward": True},
        "policy": MLP,
        "memory": {"name": "gru", "hidden": 16},
        "sharing": "group",
        **REALS,
    },
    "messages over a channel": {
        "algorithm": {"name": "mappo", "epochs": 1, "minibatches": 1},
        "policy": {"name": "tarmac", "hidden": 16, "channel": LINKS},
    },
    "coma": {"algorithm": {"name": "coma"}, "policy": MLP},
    "vdn": {"algorithm": {"name": "vdn", **REPLAY}, "policy": MLP},
    "qmix by priority": {"algorithm": {"name": "qmix", **REPLAY, "priority": 0.6}, "policy": MLP},
    "maddpg": {"algorithm": {"name": "maddpg", **REPLAY}, "policy": MLP},
    "masac": {"algorithm": {"name": "masac", **REPLAY}, "policy": MLP},
}
METER = 1  # what the meter of finished episodes asks for once an iteration, at most
cases = pytest.mark.parametrize("case", CASES)
each = pytest.mark.parametrize("device", ACCELERATORS)


def trainer(keys: dict[str, Any], device: torch.device) -> Trainer:
    """As an experiment makes it, on any device."""
    chosen = settings({**SMALL, **keys})
    env = make_env(chosen, chosen.num_envs, 0, device)
    algorithm = build_algorithm(chosen, env.agents, device)
    collector = Collector(env, algorithm.policy, rng.generator(chosen.seed, "act", device=device))
    collector.reset(rng.derive(chosen.seed, "train"))
    return Trainer(collector, algorithm, chosen.rollout_steps, 10_000)


def learned(made: Trainer) -> list[torch.Tensor]:
    return [x.detach() for x in (*made.algorithm.parameters(), *made.algorithm.buffers())]


@each
@cases
def test_two_iterations_are_those_of_the_cpu(case, device):
    made = trainer(CASES[case], torch.device("cpu"))
    rows = [made.iterate() for _ in range(2)]
    with accelerator(device) as there:
        other = trainer(CASES[case], there.device)
        for row in rows:
            found = other.iterate()
            assert found.pop("time")
            row.pop("time")
            assert found == pytest.approx(row, rel=1e-3, abs=1e-4)
        assert_same(learned(other), learned(made), there.home, tolerance=1e-4)


def waits_of_an_iteration(keys: dict[str, Any], there: Accelerator) -> list[str]:
    """The second one: by then everything has been made."""
    made = trainer(keys, there.device)
    made.iterate()
    with there.waits() as waits:
        made.iterate()
    return waits


@each
@cases
def test_the_host_waits_for_metrics_alone(case, device):
    with accelerator(device, same_draws=False) as there:
        waits = waits_of_an_iteration(CASES[case], there)
    metered = [w for w in waits if "/marl/episodes.py:" in w]
    others = [w for w in waits if w not in metered]
    assert len(others) == 1, others
    assert "/marl/trainer.py:" in others[0]
    assert len(metered) <= METER
