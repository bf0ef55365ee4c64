"""Learning on probe worlds with known answers: the worlds themselves, every recipe, every probe, and what must fail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from coordination import rng
from envs.base import View
from envs.native import NativeEnv
from marl.algorithms.base import Setting
from marl.algorithms.config import PPOConfig, ValueConfig
from marl.algorithms.ppo import PPO
from marl.algorithms.value import ValueLearner
from marl.batch import Batch
from marl.config import ConfigError
from marl.learners import build_algorithm
from marl.networks.config import NetworkConfig
from marl.recipes import RECIPES
from marl.report.evaluate import evaluate
from marl.settings import settings
from marl.testing import PROBES, Finding, Probe, ProbeError, Table, check_algorithm
from marl.testing.company import Partner, Remembered


def found(table: Table) -> dict[str, float]:
    return {finding.quantity: finding.found for finding in table.findings}


def lives(task: Probe, gamma: float) -> tuple[Tensor, Tensor]:
    """Mean discounted returns of the best policy from each step on, ``[steps, 2]`` of lives, ``[steps]`` of teams."""
    generator = rng.generator(3)
    state = task.initial(generator, 4000)
    rewards, ends = [], []
    for _ in range(task.steps):
        action = task.best(state, gamma).unsqueeze(-1)
        state, reward, terminated = task.advance(state, action, generator)
        rewards.append(reward)
        ends.append(terminated)
    own, team, after, later = [], [], torch.zeros(4000, 2), torch.zeros(4000)
    for reward, terminated in zip(reversed(rewards), reversed(ends), strict=True):
        after, later = reward + gamma * torch.where(terminated, 0.0, after), reward.sum(-1) + gamma * later
        own.append(after.mean(0))
        team.append(later.mean())
    return torch.stack(own[::-1]), torch.stack(team[::-1])


@pytest.mark.parametrize("gamma", [0.5, 0.9])
@pytest.mark.parametrize("name", [name for name in PROBES if name != "time_limit"])
def test_values_are_what_the_best_policy_earns(name: str, gamma: float) -> None:
    task = PROBES[name]()
    own, team = lives(task, gamma)
    generator = rng.generator(3)
    state = task.initial(generator, 4000)
    for step in range(task.steps):
        value, whole = task.value(state, gamma), task.team_value(state, gamma)
        if value is not None and whole is not None and not value.isnan().any():
            alive = task.alive(state)[0]
            torch.testing.assert_close(value.mean(0)[alive], own[step][alive], atol=0.05, rtol=0)
            torch.testing.assert_close(whole.mean(), team[step], atol=0.05, rtol=0)
        state, _, _ = task.advance(state, task.best(state, gamma).unsqueeze(-1), generator)


@pytest.mark.parametrize("gamma", [0.5, 0.9])
@pytest.mark.parametrize("name", PROBES)
def test_the_best_policy_earns_the_best_return_in_the_environment(name: str, gamma: float) -> None:
    task = PROBES[name]()
    env = NativeEnv(task, 64)

    def best(view: object, start: Tensor) -> Tensor:
        return task.best(env._state, gamma).unsqueeze(-1)

    earned = evaluate(env, best, 1024, 0).mean / 2
    assert earned == pytest.approx(task.mean_return(gamma, hears=True, remembers=True), abs=0.07)


def test_an_endless_reward_is_worth_a_geometric_series() -> None:
    task = PROBES["time_limit"]()
    state = task.initial(rng.generator(0), 3)
    assert task.value(state, 0.5).tolist() == [[2.0, 2.0]] * 3
    assert task.value(state, 1.0) is None


@pytest.mark.parametrize("algorithm", RECIPES)
def test_every_recipe_learns_three_probes(algorithm: str) -> None:
    choice = "action" if "reals" in RECIPES[algorithm].lacks else "reals"
    table = check_algorithm(algorithm, [choice, "delayed", "newborn"], raise_on_failure=True)
    assert {finding.probe for finding in table.findings} == {choice, "delayed", "newborn"}


@pytest.mark.parametrize("probe", PROBES)
def test_one_recipe_learns_every_probe(probe: str) -> None:
    table = check_algorithm("mappo", [probe], raise_on_failure=True)
    assert table.findings
    assert not table.skipped


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", RECIPES)
def test_every_recipe_learns_every_probe_it_is_for(algorithm: str) -> None:
    table = check_algorithm(algorithm, raise_on_failure=True)
    missing = set(PROBES) - {finding.probe for finding in table.findings}
    unsaid = {name for name in missing if name not in table.skipped and f"{name}: value" not in table.skipped}
    assert not unsaid


@pytest.mark.parametrize("algorithm", [name for name, recipe in RECIPES.items() if "reals" in recipe.lacks])
def test_what_a_recipe_is_said_not_to_be_for_it_refuses(algorithm: str) -> None:
    table = check_algorithm(algorithm, ["reals"])
    assert table.skipped == {"reals": RECIPES[algorithm].lacks["reals"]}
    assert not table.findings
    with pytest.raises(ValueError, match="discrete actions, got reals"):
        build_algorithm(settings({"algorithm": algorithm}), PROBES["reals"]().agents, torch.device("cpu"))


@pytest.mark.parametrize("critic", ["local", "graph"])
@pytest.mark.parametrize(("probe", "near"), [("constant", 0.05), ("observation", 0.15)])
def test_values_are_learned_by_every_critic(critic: str, probe: str, near: float) -> None:
    table = check_algorithm("mappo", [probe], critic=critic, policy={"name": "mlp", "hidden": [32]})
    (finding,) = table.findings
    assert finding.found == pytest.approx(finding.expected, abs=near)


def test_the_value_of_a_delayed_reward_is_discounted_and_stops_at_the_end() -> None:
    numbers = found(check_algorithm({"name": "mappo", "gamma": 0.9}, ["delayed"]))
    assert numbers["value, step 0"] == pytest.approx(0.9, abs=0.1)
    assert numbers["value, step 1"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("layer", ["sum", "attention", "GCNConv"])
def test_a_graph_policy_learns_what_only_a_link_can_tell(layer: str) -> None:
    table = check_algorithm("mappo", ["partner"], policy={"name": "graph", "hidden": 32, "layer": layer})
    if layer == "GCNConv":  # it cannot tell itself from its neighbours, so not whose bit it sees: 1/2 + 1/4 at most
        assert 0.65 < found(table)["return"] < 0.85
        assert not table.passed
    else:
        assert found(table)["return"] > 0.99


def test_without_links_or_memory_nothing_better_than_chance_is_possible_and_expected() -> None:
    table = check_algorithm("mappo", [Partner(linked=False)], raise_on_failure=True)
    table2 = check_algorithm("ippo", ["memory"], memory=None, raise_on_failure=True)
    assert [f.expected for f in (*table.findings, *table2.findings)] == [0.5, 0.5]
    assert all(0.4 < f.found < 0.6 for f in (*table.findings, *table2.findings))


def test_lstms_and_unshared_weights_learn_as_well() -> None:
    assert found(check_algorithm("ippo", [Remembered()], memory={"name": "lstm", "hidden": 32}))["return"] > 0.99
    assert found(check_algorithm("ippo", ["action"], sharing="none"))["return"] > 0.99


class Careless(PPO):
    """Takes a time limit for an end, and the end of a life for a time limit."""

    def learn(self, rollout: Batch) -> dict[str, Tensor]:
        return super().learn(rollout.replace(terminated=rollout.truncated, truncated=rollout.terminated))


class Undiscounted(PPO):
    """Does not discount, whatever its settings say."""

    @classmethod
    def build(cls, config: PPOConfig, network: NetworkConfig, setting: Setting) -> PPO:
        return super().build(config.model_copy(update={"gamma": 1.0}), network, setting)


class Maskless(ValueLearner):
    """Looks at forbidden choices when it looks ahead."""

    def _best(self, values: Tensor, choosing: Tensor, view: View) -> Tensor:
        return super()._best(values, choosing, replace(view, action_mask=None))


CONFIG = PPOConfig(gamma=0.5, lam=1.0, epochs=4, minibatches=1, learning_rate=3e-3)
OFF_POLICY = ValueConfig(
    name="iql", mixer="none", gamma=0.5, learning_rate=3e-3, batch_size=128, updates=8, warmup=512, tau=0.05
)


def test_a_class_of_ones_own_is_checked_with_its_own_settings() -> None:
    table = check_algorithm(PPO, ["one_step"], config=CONFIG, critic="local", iterations=40)
    assert table.passed
    assert [(f.quantity, f.expected) for f in table.findings] == [("return", 1.0), ("value, step 0", 1.0)]


@pytest.mark.parametrize(
    ("algorithm", "probe"),
    [(Careless, "time_limit"), (Careless, "dying"), (Careless, "newborn"), (Undiscounted, "delayed")],
)
def test_an_algorithm_with_a_fault_is_told_so(algorithm: type[PPO], probe: str) -> None:
    message = f"{algorithm.__name__} did not learn what it must: {probe} .{PROBES[probe].asks}"
    with pytest.raises(ProbeError, match=message):
        check_algorithm(algorithm, [probe], config=CONFIG, iterations=40, raise_on_failure=True)


def test_forbidden_choices_in_targets_show_in_the_value() -> None:
    table = check_algorithm(Maskless, ["masked"], config=OFF_POLICY)
    numbers = found(table)
    assert numbers["return"] == pytest.approx(1.5, abs=0.1)  # it never takes them
    assert numbers["value, step 0"] == pytest.approx(2 * 0.5, abs=0.1)
    assert not table.passed


def test_waiting_pays_only_for_those_who_do_not_discount() -> None:
    table = check_algorithm(Undiscounted, ["discounted"], config=CONFIG)
    assert [(f.expected, round(f.found, 2)) for f in table.findings if f.quantity == "return"] == [(1.0, 1.5)]


def test_the_table_reads_as_one() -> None:
    rows = Finding("masked", "return", 1.5, 1.52, 0.15), Finding("dying", "value, step 0", 0.5, 0.9, 0.15)
    table = Table(rows, {"reals": "no reals"})
    assert not table.passed
    assert str(table).splitlines() == [
        "probe         quantity          expected     found  passed",
        "masked        return               1.500     1.520  yes",
        "dying         value, step 0        0.500     0.900  NO",
        "skipped reals: no reals",
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"algorithm": "mapo"}, "unknown algorithm 'mapo'; did you mean 'mappo'"),
        ({"probes": ["dieing"]}, "unknown probe 'dieing'; did you mean 'dying'"),
        ({"polcy": "graph"}, "unknown setting of networks 'polcy'; did you mean 'policy'"),
        ({"config": CONFIG}, "config: is for a class of your own"),
        ({"algorithm": {"name": "mappo", "clipp": 1}}, "unknown key of algorithm 'clipp'; did you mean 'clip'"),
    ],
)
def test_mistakes_are_answered_by_name(call: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=message):
        check_algorithm(**{"probes": ["constant"], **call})
