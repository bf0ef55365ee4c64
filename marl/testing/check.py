"""check_algorithm: train an algorithm on worlds whose answers are known by hand, and compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from coordination import rng
from coordination.names import unknown
from coordination.signals import build
from envs import registry
from envs.native import NativeEnv
from marl.algorithms.base import Algorithm, Setting
from marl.algorithms.config import ActorCriticConfig, OffPolicyConfig, OnPolicyConfig
from marl.collector import Collector
from marl.config import Config, ConfigError
from marl.learners import build_algorithm
from marl.networks.config import NetworkConfig
from marl.networks.policy import Policy
from marl.recipes import RECIPES
from marl.report.evaluate import NetworkAct, evaluate
from marl.settings import settings
from marl.testing.alone import Action, Constant, Delayed, Discounted, Observation, OneStep, Reals, TimeLimit
from marl.testing.company import Dying, Masked, Newborn, Partner, Remembered, Told
from marl.testing.probe import Bits, Probe
from marl.testing.table import Finding, ProbeError, Table
from marl.trainer import Trainer

PROBES: dict[str, type[Probe]] = {
    "constant": Constant,
    "one_step": OneStep,
    "delayed": Delayed,
    "discounted": Discounted,
    "time_limit": TimeLimit,
    "observation": Observation,
    "action": Action,
    "reals": Reals,
    "partner": Partner,
    "masked": Masked,
    "dying": Dying,
    "newborn": Newborn,
    "memory": Remembered,
    "told": Told,
}
COPIES, STEPS = 32, 8  # of a rollout
NO_GAMMA = 0.99  # of an algorithm whose settings do not say
GAMMA = 0.5  # far from 1, so that a forgotten or repeated discount shows
TOLERANCE = {"return": 0.1, "value": 0.15}  # of the expected number, or of 1 if that is smaller
FAST: dict[type[Config], dict[str, Any]] = {  # settings that suit worlds so small, the later ones over the earlier
    OnPolicyConfig: {"gamma": GAMMA, "lam": 1.0, "epochs": 4, "minibatches": 1, "learning_rate": 3e-3},
    OffPolicyConfig: {
        "gamma": GAMMA,
        "learning_rate": 3e-3,
        "learning_rate_end": 0.1,
        "capacity": 8_000,
        "batch_size": 128,
        "updates": 8,
        "warmup": 512,
        "tau": 0.05,
    },
    ActorCriticConfig: {"learning_rate": 2e-3, "critic_learning_rate": 5e-3},  # or policies set before critics know
}
NETWORK: dict[str, Any] = {"policy": {"name": "mlp", "hidden": [32]}}


def check_algorithm(
    algorithm: str | Mapping[str, Any] | type[Algorithm] = "mappo",
    probes: Sequence[str | Probe] | None = None,
    *,
    config: Any = None,
    iterations: int = 60,
    seed: int = 0,
    raise_on_failure: bool = False,
    **network: Any,
) -> Table:
    """Train an algorithm on each probe, from fresh networks, and compare what it learned with what is right.

    >>> print(check_algorithm("mappo", ["constant"]))  # doctest: +SKIP
    probe         quantity          expected     found  passed
    constant      value, step 0        1.000     0.998  yes

    Args:
        algorithm: A recipe by name, or with settings as in ``algorithm=`` of :func:`marl.train`; what is left out takes
            values that suit worlds so small. Or your own class.
        probes: Names of PROBES, or probes of your own; None for all. What the recipe is not for is skipped, and the
            table says why.
        config: Settings of your own class, whose ``build`` gets them; ``gamma`` is read from there (0.99 without it),
            and is best near 1/2.
        iterations: Rollouts of 8 steps in 32 copies; raise it for algorithms that learn slowly.
        seed: Root of all randomness.
        raise_on_failure: Whether to raise if anything is wrong.
        network: ``policy``, ``critic``, ``memory``, ``sharing``, ``identity`` ... as for :func:`marl.train`; what is
            left out is chosen for each probe. What agents can know decides what is right: a partner's bit is a coin to
            those that cannot hear, the past to those without memory.

    Returns:
        Greedy returns, and values where the algorithm has a method ``value(view) -> [*, N]`` (or ``[*, teams]``).

    Raises:
        ProbeError: If asked, and something is wrong.
        ValueError: If a name or a setting is unknown.
    """
    if strange := [name for name in network if name not in NetworkConfig.model_fields]:
        raise ValueError(unknown("setting of networks", strange[0], NetworkConfig.model_fields))
    findings: list[Finding] = []
    skipped: dict[str, str] = {}
    tasks = dict(_named(probe) for probe in (PROBES if probes is None else probes))
    for name, task in tasks.items():
        if reason := _unsuited(algorithm, task):
            skipped[name] = reason
            continue
        learner, gamma = _learner(algorithm, config, task, seed, network)
        expected = task.mean_return(gamma, hears(learner.policy, task), remembers(learner.policy, task))
        _train(learner, task, iterations, seed)
        if task.tells:
            found = evaluate(NativeEnv(task, 64), NetworkAct(learner.policy), 256, seed + 1).mean / 2
            findings.append(Finding(name, "return", expected, found, _tolerance("return", expected)))
        if hasattr(learner, "value"):
            findings += _values(learner, name, task, gamma)
        elif task.value(task.initial(rng.generator(0), 1), gamma) is not None:
            skipped[f"{name}: value"] = "the algorithm has no value(view)"
    table = Table(tuple(findings), skipped)
    if raise_on_failure and not table.passed:
        wrong = dict.fromkeys(f"{f.probe} ({tasks[f.probe].asks})" for f in table.findings if not f.passed)
        who = algorithm.__name__ if isinstance(algorithm, type) else algorithm
        raise ProbeError(f"{who} did not learn what it must: {'; '.join(wrong)}\n{table}")
    return table


def _named(probe: str | Probe) -> tuple[str, Probe]:
    if isinstance(probe, Probe):
        return type(probe).__name__, probe
    if probe not in PROBES:
        raise ValueError(unknown("probe", probe, PROBES))
    return probe, PROBES[probe]()


@torch.no_grad()
def hears(policy: Policy, task: Probe) -> bool:
    """Whether what one agent does can depend on what the other sees now."""
    state = task.initial(rng.generator(0, "hears"), 16)
    raw, changed = (policy(task.view(s))[0][:, 0] for s in (state, _flipped(state)))
    return not torch.equal(raw, changed)


@torch.no_grad()
def remembers(policy: Policy, task: Probe) -> bool:
    """Whether what an agent does can depend on what it saw in the step before."""
    generator = rng.generator(0, "remembers")
    state = task.initial(generator, 16)
    later = task.view(task.follow(state, torch.zeros_like(state.bit), generator))
    raw, changed = (policy(later, policy(task.view(s))[1])[0] for s in (state, _flipped(state)))
    return not torch.equal(raw, changed)


def _flipped(state: Bits) -> Bits:
    """The other bit for the second agent."""
    return Bits(torch.stack([state.bit[:, 0], 1 - state.bit[:, 1]], -1), state.step)


def _unsuited(algorithm: str | Mapping[str, Any] | type[Algorithm], task: Probe) -> str | None:
    """Why a recipe is not for a probe, as its table says; None where it is, and for classes of one's own."""
    if isinstance(algorithm, type):
        return None
    lacks = RECIPES[_recipe(algorithm)].lacks
    return next((lacks[need] for need in sorted(task.needs) if need in lacks), None)


def _recipe(algorithm: str | Mapping[str, Any]) -> str:
    name = algorithm if isinstance(algorithm, str) else str(algorithm.get("name", "mappo"))
    if name not in RECIPES:
        raise ConfigError(unknown("algorithm", name, RECIPES))
    return name


def _learner(
    algorithm: str | Mapping[str, Any] | type[Algorithm],
    config: Any,
    task: Probe,
    seed: int,
    network: Mapping[str, Any],
) -> tuple[Algorithm, float]:
    """The algorithm with fresh networks for a probe, and its discount."""
    keys = {"num_envs": COPIES, "seed": seed, **NETWORK, **task.network, **network}
    device = torch.device("cpu")
    if isinstance(algorithm, type):
        setting = Setting(task.agents, COPIES, build(None), seed, device)
        return algorithm.build(config, settings(keys).network, setting), float(getattr(config, "gamma", NO_GAMMA))
    if config is not None:
        raise ConfigError("config: is for a class of your own; give a recipe its settings as algorithm={...}")
    name, given = _recipe(algorithm), {} if isinstance(algorithm, str) else algorithm
    kind: type[Config] = registry.load(RECIPES[name].config)
    fast = {key: value for base, values in FAST.items() if issubclass(kind, base) for key, value in values.items()}
    suits = {key: value for key, value in {**fast, **task.algorithm}.items() if key in kind.model_fields}
    s = settings({**keys, "algorithm": {**suits, **RECIPES[name].settings, **given, "name": name}})
    return build_algorithm(s, task.agents, device), float(getattr(s.algorithm, "gamma", NO_GAMMA))


def _train(learner: Algorithm, task: Probe, iterations: int, seed: int) -> None:
    collector = Collector(NativeEnv(task, COPIES), learner.policy, rng.generator(seed, "act"))
    collector.reset(rng.derive(seed, "train"))
    Trainer(collector, learner, STEPS, iterations * STEPS * COPIES).run()


@torch.no_grad()
def _values(learner: Any, name: str, task: Probe, gamma: float) -> Iterator[Finding]:
    """The worst value of each step along the best policy; of the first alone where critics may remember."""
    generator = rng.generator(0, "values")
    state = task.initial(generator, 64)
    steps = 1 if learner.policy.state_dim else min(task.steps, task.horizon or task.steps)
    for step in range(steps):
        view = task.view(state)
        found = learner.value(view)
        whole = found.shape[-1] == 1  # one value for the team
        expected = task.team_value(state, gamma) if whole else task.value(state, gamma)
        if expected is None:
            return
        claimed = ~expected.isnan() & (view.alive.any(-1, keepdim=True) if whole else view.alive)
        if bool(claimed.any()):
            worst = torch.where(claimed, (found - expected).abs(), -1.0).argmax()
            right = float(expected.flatten()[worst])
            yield Finding(name, f"value, step {step}", right, float(found.flatten()[worst]), _tolerance("value", right))
        state, _, _ = task.advance(state, task.best(state, gamma).unsqueeze(-1), generator)


def _tolerance(quantity: str, expected: float) -> float:
    return TOLERANCE[quantity] * max(1.0, abs(expected))
