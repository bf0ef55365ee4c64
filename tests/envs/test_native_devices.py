"""Native environments on an accelerator: numbers as on the CPU, all made there, and no step makes the host wait."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from simulated_device import ACCELERATORS, accelerator, assert_same
from torch import Tensor

from coordination import tree
from envs import registry
from envs.native import NativeEnv, Task
from envs.spec import AgentSpec

COPIES, STEPS = 3, 3
EVENTS = {"fail": 0.2, "repair": 0.3, "leave": 0.2, "join": 0.3, "drop": 0.2}
SPLIT = {"partition": 0.3, "heal": 0.3, "rewire": 0.3, "fail": 0.2}
NEAR = {"continuous_actions": True, "num_agent_neighbors": 1, "num_landmark_neighbors": 1}
FURTHER = [  # settings that take other ways than the defaults
    *(("adversary", NEAR), ("spread", NEAR), ("tag", NEAR)),
    *(("reference", {"continuous_actions": True}), ("speaker_listener", {"continuous_actions": True})),
    *(("allocation", {"dynamics": EVENTS}), ("allocation", {"renew": False, "reach": 2, "dynamics": SPLIT})),
    *(("deliberation", {"continuous_actions": False, "every_step": True, "dynamics": SPLIT}),),
    *(("flocking", {"task": "rendezvous"}), ("flocking", {"num_agents": 300, "dynamics": EVENTS})),
    *(("ising", {"updates": "half", "dynamics": SPLIT}), ("lq_consensus", {"dynamics": EVENTS | SPLIT})),
    *(("sysadmin", {"dynamics": EVENTS}), ("foraging", {"action_mask": True, "penalty": 0.1})),
    *(("predator_prey", {"setting": "wqmix", "links": "window"}), ("parity", {"communication": False})),
    *(("traffic_junction", {"difficulty": "medium", "setting": "magic"}), ("qplex", {"game": 2, "steps": 3})),
]
SETTINGS = [*((name, {}) for name in registry.ENVIRONMENTS), *FURTHER]
PLACED = {"navigation"}  # begins with draws until all places are apart: the CPU looks whether they are, others do not
each = pytest.mark.parametrize("device", ACCELERATORS)
settings = pytest.mark.parametrize(
    ("name", "arguments"), SETTINGS, ids=lambda x: x if isinstance(x, str) else ",".join(x)
)


def made(name: str, arguments: dict[str, Any]) -> Task:
    return registry.load(registry.ENVIRONMENTS[name].target)(**arguments)


def actions(agents: AgentSpec, seed: int) -> Tensor:
    """``[B, N, A]`` that every agent can take."""
    shape, generator = (COPIES, agents.num_agents, agents.action_dim), torch.Generator().manual_seed(seed)
    if not agents.discrete:
        return 2 * torch.rand(shape, generator=generator) - 1
    sizes = [size for group in agents.groups if group.action is not None for size in group.action.sizes]
    return torch.randint(min(sizes), shape, generator=generator)


def seen(task: Task, state: Any) -> list[Any]:
    return [state, task.view(state), task.info(state), task.factors(state), task.cost(state)]


def played(task: Task, state: Any, generator: torch.Generator, device: Any = "cpu") -> list[Any]:
    """Everything that the task says over some steps from ``state``."""
    found = seen(task, state)
    for t in range(STEPS):
        state, reward, terminated = task.advance(state, actions(task.agents, t).to(device), generator)
        found += [reward, terminated, *seen(task, state)]
    return found


@each
@settings
def test_numbers_are_those_of_the_cpu(name, arguments, device):
    task, generator = made(name, arguments), torch.Generator().manual_seed(1)
    start = task.initial(generator, COPIES)
    expected = played(task, start, generator)
    with accelerator(device) as there:
        generator = torch.Generator(there.device).manual_seed(1)
        own = task.initial(generator, COPIES)
        if name in PLACED:
            assert {x.device for x in tree.leaves(own)} == {there.home}
            own = tree.to(start, there.device)
        assert_same(played(task, own, generator, there.device), expected, there.home)


@each
@settings
def test_no_step_makes_the_host_wait(name, arguments, device):
    """Restarts included, once constants are where they are needed."""
    task = made(name, arguments)
    with accelerator(device, same_draws=False) as there:
        env = NativeEnv(task, COPIES, there.device)
        chosen = [actions(task.agents, t).to(there.device) for t in range(STEPS)]
        env.reset(0)
        env.step(chosen[0])
        with there.waits() as waits:
            env.reset()
            for action in chosen:
                step = env.step(action)
        assert not waits
        assert {x.device for x in tree.leaves(step)} == {there.home}


@each
def test_a_task_goes_from_device_to_device_and_back(device):
    """What a task keeps for each device stays apart."""
    task = made("spread", {})
    start = task.initial(torch.Generator().manual_seed(1), COPIES)
    for _ in range(2):
        expected = played(task, start, torch.Generator())
        assert {x.device for x in tree.leaves(expected)} == {torch.device("cpu")}
        with accelerator(device) as there:
            found = played(task, tree.to(start, there.device), torch.Generator(there.device), there.device)
            assert_same(found, expected, there.home)
