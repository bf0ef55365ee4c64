"""HAPPO: one group is PPO, a group's step leaves the others alone, the factor M, order, masks, memory and resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import envs
from coordination import rng, tree
from coordination.signals import build
from envs.base import VectorEnv, View
from marl.algorithms.base import Setting
from marl.algorithms.config import HAPPOConfig, PPOConfig
from marl.algorithms.groups import GroupOptimiser
from marl.algorithms.happo import HAPPO, others_ratio
from marl.algorithms.ppo import PPO, Samples
from marl.batch import Batch
from marl.collector import Collector
from marl.networks.config import CriticConfig, GraphConfig, MemoryConfig, MLPConfig, NetworkConfig
from marl.recipes import RECIPES
from marl.settings import settings
from marl.storage.checkpoint import Checkpoints

MLP = NetworkConfig(policy=MLPConfig(hidden=(16,)), critic=CriticConfig(name="central"), sharing="none")
NETWORKS = {
    "unshared": MLP,
    "recurrent": MLP.model_copy(update={"memory": MemoryConfig(hidden=8)}),
    "listening": MLP.model_copy(update={"policy": GraphConfig(hidden=16)}),
    "named": MLP.model_copy(update={"identity": "embedding"}),
    "normed": MLP.model_copy(update={"policy": MLPConfig(hidden=(16,), layer_norm=True), "normalise_obs": True}),
}


def spread() -> VectorEnv:
    return envs.make("spread", 4)


def learner(
    env: VectorEnv, network: NetworkConfig = MLP, plain: bool = False, **config: object
) -> tuple[HAPPO, Collector]:
    setting = Setting(env.agents, env.num_envs, build(None), 0, torch.device("cpu"))
    config = {"epochs": 2, "minibatches": 2, **config}
    algorithm = (
        PPO.build(PPOConfig(**config), network, setting)
        if plain
        else HAPPO.build(HAPPOConfig(**config), network, setting)
    )
    collector = Collector(env, algorithm.policy, rng.generator(0, "act"))
    collector.reset(0)
    return algorithm, collector  # type: ignore[return-value]


def rows_of(algorithm: HAPPO) -> list[list[Tensor]]:
    return [[whole[where].detach().clone() for whole, where in rows] for rows in algorithm.optimiser.rows]


@pytest.mark.parametrize(
    ("sharing", "groups", "memory"), [("all", 16, None), ("none", 1, None), ("all", 16, "gru"), ("group", 16, None)]
)
def test_one_group_is_mappo_bit_for_bit(sharing: str, groups: int, memory: str | None) -> None:
    remembers = None if memory is None else MemoryConfig(name=memory, hidden=8)
    network = MLP.model_copy(update={"sharing": sharing, "memory": remembers})
    found = []
    for plain in (True, False):
        more = {} if plain else {"groups": groups}
        algorithm, collector = learner(spread(), network, plain, target_kl=1e-4, **more)
        metrics = [algorithm.learn(collector.collect(10)) for _ in range(3)]
        found.append((dict(algorithm.state_dict()), metrics, algorithm.generator.get_state()))
    (ppo, one, drawn), (happo, other, as_many) = found
    assert all(torch.equal(ppo[name], happo[name]) for name in ppo)
    assert all(torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a)
    assert torch.equal(drawn, as_many)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_groups_step_moves_its_own_weights_alone_whatever_momentum_the_others_have(network: str) -> None:
    algorithm, collector = learner(spread(), NETWORKS[network])
    algorithm.learn(collector.collect(10))
    samples = algorithm.prepare(collector.collect(10))
    for group in range(3):
        before, critic = rows_of(algorithm), [p.clone() for p in algorithm.critic.parameters()]
        algorithm._update_group(group, False, samples)
        for other, (old, new) in enumerate(zip(before, rows_of(algorithm), strict=True)):
            same = [torch.equal(a, b) for a, b in zip(old, new, strict=True)]
            assert not any(same) if other == group else all(same)
        assert all(torch.equal(a, b) for a, b in zip(critic, algorithm.critic.parameters(), strict=True))


def test_groups_of_different_kinds_are_updated_apart() -> None:
    env = envs.make("speaker_listener", 4)
    algorithm, collector = learner(env, MLP.model_copy(update={"sharing": "group"}))
    assert algorithm.members.tolist() == [[True, False], [False, True]]
    samples = algorithm.prepare(collector.collect(10))
    before = rows_of(algorithm)
    algorithm._update_group(0, True, samples)
    after = rows_of(algorithm)
    assert all(torch.equal(a, b) for a, b in zip(before[1], after[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))


def test_every_group_has_adam_of_its_own() -> None:
    weight, gradients = torch.nn.Parameter(torch.randn(3, 2)), torch.randn(5, 3, 2)
    critic = torch.nn.Parameter(torch.zeros(1))
    rows = [[(weight, slice(0, 2))], [(weight, slice(2, 3))]]
    optimiser = GroupOptimiser(rows, [critic], {"policy": 0.1, "critic": 0.1}, None)
    apart = [torch.nn.Parameter(weight.detach()[rows[group][0][1]].clone()) for group in range(2)]
    adams = [torch.optim.Adam([p], lr=0.1, eps=1e-5) for p in apart]
    for step, group in enumerate([0, 0, 1, 0, 1]):
        optimiser.group = group
        optimiser.step({"policy": (weight * gradients[step]).sum()})
        apart[group].grad = gradients[step][rows[group][0][1]].clone()
        adams[group].step()
    torch.testing.assert_close(weight.detach(), torch.cat(apart).detach())


def test_the_factor_is_the_product_of_the_others_ratios() -> None:
    ratio = torch.tensor([[2.0, 0.5, 3.0], [1.0, 1.0, 1.0]])
    members = torch.tensor([False, False, True])
    factor = others_ratio(ratio.log(), members)
    torch.testing.assert_close(factor, torch.tensor([[0.5, 2.0, 1.0], [1.0, 1.0, 1.0]]))
    assert torch.equal(others_ratio(ratio.log(), torch.ones(3, dtype=torch.bool)), torch.ones(2, 3))


def test_the_second_of_two_agents_learns_from_advantages_times_the_first_ones_ratio() -> None:
    env = envs.make("spread", 4, num_agents=2)
    algorithm, collector = learner(env, learning_rate=1e-2)
    whole = algorithm.prepare(collector.collect(10))
    seen: list[tuple[Tensor, Tensor]] = []  # advantages learned from, and the probabilities at that time

    def watched(samples: Samples, update: object) -> list[dict[str, Tensor]]:
        with torch.no_grad():
            raw, _ = algorithm.policy(samples.view)
            probability = raw.softmax(-1).gather(-1, samples.action).squeeze(-1)
        seen.append((samples.advantage, probability))
        return PPO.epochs(algorithm, samples, update)  # type: ignore[arg-type]

    algorithm.epochs = watched  # type: ignore[method-assign]
    algorithm.improve(whole)
    (first, before), (second, after) = seen
    moved = int((after - before).abs().sum(0)[0] == 0)  # whose turn was first: the other's policy stands still
    assert (after - before)[:, 1 - moved].abs().max() < 1e-6
    assert (after / before - 1)[:, moved].abs().max() > 0.01
    assert torch.equal(first, whole.advantage)
    expected = whole.advantage[:, 1 - moved] * (after / before)[:, moved]
    torch.testing.assert_close(second[:, 1 - moved], expected, rtol=1e-4, atol=1e-5)


def orders_drawn(iterations: int) -> list[tuple[int, ...]]:
    algorithm, collector = learner(spread(), epochs=1, minibatches=1)
    samples, drawn, step = algorithm.prepare(collector.collect(2)), [], algorithm.optimiser.step

    def watched(losses: dict[str, Tensor]) -> dict[str, Tensor]:
        drawn.append(algorithm.optimiser.group)
        return step(losses)

    algorithm.optimiser.step = watched  # type: ignore[method-assign]
    for _ in range(iterations):
        algorithm.improve(samples)
    return [tuple(drawn[i : i + 3]) for i in range(0, len(drawn), 3)]


def test_the_order_changes_and_comes_from_the_learners_generator() -> None:
    orders = orders_drawn(6)
    assert len(orders) == 6
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    assert len(set(orders)) > 1
    assert orders_drawn(6) == orders


def test_more_sets_of_weights_than_groups_are_dealt_evenly() -> None:
    algorithm, collector = learner(spread(), groups=2)
    assert algorithm.members.tolist() == [[True, True, False], [False, False, True]]
    assert all(x.isfinite() for x in algorithm.learn(collector.collect(10)).values())


def test_the_critic_learns_once_an_iteration() -> None:
    algorithm, collector = learner(spread(), epochs=3, minibatches=2)
    algorithm.learn(collector.collect(10))
    adam = algorithm.optimiser._adam
    steps = {name: {int(adam.state[p]["step"]) for p in ps} for name, ps in algorithm.optimiser.groups.items()}
    assert steps == {"policy": {6}, "critic": {6}}


def test_a_group_answers_for_what_its_messages_do_to_the_others() -> None:
    for network, heard in (("listening", True), ("unshared", False)):
        algorithm, collector = learner(spread(), NETWORKS[network], entropy=0.0)
        samples = algorithm.prepare(collector.collect(10))
        alone = torch.zeros_like(samples.keep)
        alone[:, 1] = True
        before = rows_of(algorithm)
        algorithm._update_group(0, False, replace(samples, keep=alone))
        moved = any(not torch.equal(a, b) for a, b in zip(before[0], rows_of(algorithm)[0], strict=True))
        assert moved == heard


@pytest.mark.parametrize("network", NETWORKS)
def test_before_the_first_update_every_ratio_and_factor_is_one(network: str) -> None:
    algorithm, collector = learner(spread(), NETWORKS[network])
    for _ in range(2):
        rollout = collector.collect(10)
        log_ratio = algorithm.log_ratio(algorithm.prepare(rollout))
        assert log_ratio.abs().max() < 2e-5
        torch.testing.assert_close(
            others_ratio(log_ratio, algorithm.members[0]), torch.ones_like(log_ratio), atol=1e-4, rtol=0
        )
        algorithm.learn(rollout)


def without_agent_one(rollout: Batch, filler: float) -> Batch:
    dead = torch.zeros(4, 3, dtype=torch.bool)
    dead[:, 1] = True
    spoilt = {name: getattr(rollout, name).masked_fill(dead, filler) for name in ("reward", "log_prob")}
    obs = rollout.view.obs.masked_fill(dead.unsqueeze(-1), filler)
    return rollout.replace(view=View(obs, rollout.view.alive & ~dead, rollout.view.graph), **spoilt)


def test_dead_slots_holding_nan_change_no_weight_and_have_no_part_in_the_factor() -> None:
    found = []
    for filler in (0.0, float("nan")):
        algorithm, collector = learner(spread())
        before = rows_of(algorithm)
        rollout = without_agent_one(collector.collect(10), filler)
        assert all(x.isfinite() for x in algorithm.learn(rollout).values())
        assert not algorithm.log_ratio(algorithm.prepare(rollout))[..., 1].any()
        after = rows_of(algorithm)
        assert all(torch.equal(a, b) for a, b in zip(before[1], after[1], strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))
        found.append([p.clone() for p in algorithm.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("network", ["unshared", "recurrent"])
def test_a_restored_learner_goes_on_exactly(network: str, tmp_path: Path) -> None:
    algorithm, collector = learner(spread(), NETWORKS[network], normalise_reward=True)
    algorithm.learn(collector.collect(10))
    Checkpoints(tmp_path).save(1, algorithm.training_state())
    other, _ = learner(spread(), NETWORKS[network], normalise_reward=True)
    other.load_training_state(Checkpoints(tmp_path).load())
    rollout = collector.collect(10)
    for one in (algorithm, other):
        one.schedule(0.5)
        one.learn(rollout)
    states = [dict(tree.named(one.training_state())) for one in (algorithm, other)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_weights_shared_by_agents_of_several_groups_are_refused() -> None:
    attention = MLP.model_copy(update={"policy": GraphConfig(hidden=16, layer="attention")})
    with pytest.raises(ValueError, match=r"sharing: the policy's trunk\.\S+score is one for all agents,"):
        learner(spread(), attention)
    learner(spread(), attention.model_copy(update={"sharing": "all"}))
    mixed = NETWORKS["named"].model_copy(update={"sharing": (0, 1, 0)})
    with pytest.raises(ValueError, match=r"trunk\.inputs\.identity that one group uses do not lie side by side"):
        learner(spread(), mixed)


def test_explicit_sets_of_weights_are_groups() -> None:
    algorithm, collector = learner(spread(), MLP.model_copy(update={"sharing": (0, 1, 0)}))
    assert algorithm.members.tolist() == [[True, False, True], [False, True, False]]
    samples = algorithm.prepare(collector.collect(10))
    before = rows_of(algorithm)
    algorithm._update_group(1, True, samples)
    after = rows_of(algorithm)
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(before[1], after[1], strict=True))


def test_agents_share_nothing_unless_it_is_asked_for() -> None:
    assert settings({"algorithm": "happo"}).sharing == "none"
    assert settings({"algorithm": "happo", "sharing": "group"}).sharing == "group"
    assert {name for name, recipe in RECIPES.items() if recipe.sharing != "all"} == {"happo"}
