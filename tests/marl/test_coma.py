"""COMA: the counterfactual critic, advantages of mean zero, targets by hand, masks, memory, losses apart and resume."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import envs
from coordination import rng, tree
from coordination.credit import counterfactual
from coordination.graph import Graph
from coordination.signals import build
from coordination.topology import Topology
from envs.base import VectorEnv, View
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec, Group
from marl.algorithms.base import Setting
from marl.algorithms.coma import COMA
from marl.algorithms.config import COMAConfig
from marl.batch import Batch
from marl.collector import Collector
from marl.config import ConfigError
from marl.networks.build import build_counterfactual
from marl.networks.config import CriticConfig, GraphConfig, MemoryConfig, MLPConfig, NetworkConfig
from marl.networks.counterfactual import JointCounterfactual, LocalCounterfactual, PooledCounterfactual
from marl.networks.heads import Head
from marl.returns import td_lambda
from marl.storage.checkpoint import Checkpoints

MLP = NetworkConfig(policy=MLPConfig(hidden=(16,)), critic=CriticConfig(name="central"))
NETWORKS = {
    "mlp": MLP,
    "unshared": MLP.model_copy(update={"sharing": "none"}),
    "local": MLP.model_copy(update={"critic": CriticConfig(name="local")}),
    "graph": MLP.model_copy(update={"policy": GraphConfig(hidden=16), "critic": CriticConfig(name="graph")}),
    "recurrent": MLP.model_copy(update={"memory": MemoryConfig(name="lstm", hidden=8), "normalise_obs": True}),
}
MIXED = AgentSpec(
    (
        Group("walker", 0, 2, ObservationSpec.flat(3), ActionSpec.discrete(2, 3)),
        Group("rock", 2, 1, ObservationSpec.flat(2), None),
        Group("talker", 3, 1, ObservationSpec.flat(3), ActionSpec.discrete(4)),
    ),
    ("a", "b", "rock", "c"),
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def learner(env: VectorEnv, network: str = "mlp", **config: object) -> tuple[COMA, Collector]:
    setting = Setting(env.agents, env.num_envs, build(None), 0, torch.device("cpu"))
    algorithm = COMA.build(COMAConfig(**config), NETWORKS[network], setting)
    collector = Collector(env, algorithm.policy, rng.generator(0, "act"))
    collector.reset(0)
    return algorithm, collector


def spread() -> VectorEnv:
    return envs.make("spread", 4)


def everyone(n: int, dim: int, copies: int = 5, links: Topology | None = None) -> View:
    obs = torch.randn(copies, n, dim, generator=seeded(1))
    return View(obs, torch.ones(copies, n, dtype=torch.bool), Graph(topology=links or Topology([[], []], n)))


def ring(n: int) -> Topology:
    one = torch.arange(n)
    return Topology(torch.stack([torch.cat([one, one]), torch.cat([(one + 1) % n, (one - 1) % n])]), n)


# the critic


def plain(n: int, choices: int = 3) -> AgentSpec:
    return AgentSpec.single(n, ObservationSpec.flat(2), ActionSpec.discrete(choices))


@pytest.mark.parametrize(
    ("critic", "n", "kind"),
    [
        ("local", 4, LocalCounterfactual),
        ("central", 4, JointCounterfactual),
        ("central", 20, PooledCounterfactual),
        ("graph", 4, PooledCounterfactual),
        ("graph", 20, PooledCounterfactual),
    ],
)
def test_values_depend_on_what_the_others_do_and_not_on_the_own_choice(critic: str, n: int, kind: type) -> None:
    agents = plain(n)
    config = MLP.model_copy(update={"critic": CriticConfig(name=critic)})
    if critic == "graph":  # two rounds: what an agent does must not come back to it
        config = config.model_copy(update={"critic": CriticConfig(name="graph", body=GraphConfig(hidden=16, layers=2))})
    net, head = build_counterfactual(config, agents, 3, 0, seeded()), Head(agents)
    assert isinstance(net, kind)
    view = everyone(n, 2, links=ring(n))
    action = torch.randint(3, (5, n, 1), generator=seeded(2))
    other = action.clone()
    other[:, 1] = (action[:, 1] + 1) % 3
    before, after = net(view, head.encode(action)), net(view, head.encode(other))
    assert before.shape == (5, n, 3)
    torch.testing.assert_close(after[:, 1], before[:, 1], rtol=0, atol=0 if n <= 16 and critic != "graph" else 1e-6)
    moved = (after - before).abs().amax((0, -1)) > 1e-4
    assert moved.tolist() == [critic != "local" and i != 1 for i in range(n)]


def test_one_pass_equals_a_joint_input_for_each_agent_without_its_own_action() -> None:
    agents, head = plain(3), Head(plain(3))
    net = build_counterfactual(MLP.model_copy(update={"policy": MLPConfig(hidden=(8, 6))}), agents, 3, 0, seeded())
    assert isinstance(net, JointCounterfactual)
    view, features = everyone(3, 2), head.encode(torch.randint(3, (5, 3, 1), generator=seeded(2)))
    found = net(view, features)
    weight = torch.cat([net.seen, net.chosen.flatten(0, 1)])
    for i in range(3):
        others = features.clone()
        others[:, i] = 0
        joint = torch.cat([view.obs.flatten(1), torch.ones(5, 3), others.flatten(1)], -1)
        h = (joint @ weight + net.reader[i]).relu()
        h = (h @ net.rest.layers[0].weight[0] + net.rest.layers[0].bias[0]).relu()
        expected = h @ net.readout.weight[0] + net.readout.bias[0]
        torch.testing.assert_close(found[:, i], expected)


def test_the_pooled_critic_knows_no_order_and_no_size() -> None:
    n, order = 20, torch.randperm(20, generator=seeded(3))
    config = MLP.model_copy(update={"identity": "none"})
    net = build_counterfactual(config, plain(n), 3, 0, seeded())
    view, features = everyone(n, 2), torch.randn(5, n, 3, generator=seeded(2))
    shuffled = View(view.obs[:, order], view.alive, view.graph)
    torch.testing.assert_close(net(shuffled, features[:, order]), net(view, features)[:, order])
    assert net(everyone(7, 2), features[:, :7]).shape == (5, 7, 3)


@pytest.mark.parametrize("critic", ["local", "central", "graph"])
def test_what_dead_or_waiting_agents_put_out_is_not_looked_at(critic: str) -> None:
    config = MLP.model_copy(update={"critic": CriticConfig(name=critic)})
    net, view = build_counterfactual(config, plain(4), 3, 5, seeded()), everyone(4, 2, links=ring(4))
    alive = torch.tensor([True, True, False, True]).expand(5, 4)
    acts = torch.tensor([True, True, True, False]).expand(5, 4)
    features, memory = torch.randn(5, 4, 3, generator=seeded(2)), torch.randn(5, 4, 5, generator=seeded(3))
    nothing = torch.tensor([False, False, True, False]).reshape(4, 1)
    found = []
    for filler in (0.0, float("nan")):
        spoilt = View(view.obs.masked_fill(nothing, filler), alive, view.graph, acts=acts)
        waiting = features.masked_fill(~(alive & acts).unsqueeze(-1), filler)
        found.append(net(spoilt, waiting, memory.masked_fill(nothing, filler)))
    assert found[1].isfinite().all()
    assert torch.equal(found[0], found[1])
    assert not torch.equal(net(spoilt, waiting, 2 * memory)[:, 0], found[0][:, 0])


# advantages


@given(st.integers(0, 10_000))
def test_advantages_have_mean_zero_under_the_policy(seed: int) -> None:
    head, generator = Head(MIXED), seeded(seed)
    raw, value = (3 * torch.randn(2, 4, head.agents.logits_dim, generator=generator) for _ in range(2))
    mask = torch.rand(raw.shape, generator=generator) < 0.7
    mask[..., 0] = mask[..., 2] = True  # one choice of each component is allowed
    value = torch.where(mask, value, 1e6)  # values of forbidden choices count for nothing
    total = torch.zeros(2, 4)
    for walker, talker in zip(itertools.product(range(2), range(3)), [0, 1, 2, 3, None, None], strict=True):
        action = torch.tensor([walker, walker, (0, 0), (talker or 0, 0)]).expand(2, 4, 2)
        weight = head.evaluate(raw, action, mask)[0].exp()
        if talker is None:
            weight[:, 3] = 0
        allowed = weight > 0
        total += torch.where(allowed, weight * head.advantage(raw, value, action, mask), 0.0)
    torch.testing.assert_close(total, torch.zeros(2, 4), atol=1e-4, rtol=0)


def test_advantages_are_coordinations_counterfactual_credit() -> None:
    head, raw = Head(plain(3, 4)), torch.randn(5, 3, 4, generator=seeded())
    value = torch.randn(5, 3, 4, generator=seeded(2))
    action, _ = head.sample(raw, None, seeded(1))
    expected = counterfactual(value, raw.softmax(-1), action.squeeze(-1))
    torch.testing.assert_close(head.advantage(raw, value, action), expected)


def test_the_learners_advantages_have_mean_zero_with_the_others_choices_kept() -> None:
    algorithm, collector = learner(spread())
    algorithm.learn(collector.collect(10))
    states = algorithm.prepare(collector.collect(10))
    raw, _ = algorithm.policy(states.view)
    probability = raw.softmax(-1)
    for agent in range(3):
        total, size = torch.zeros(10, 4), torch.zeros(10, 4)
        for choice in range(5):
            action = states.action.clone()
            action[:, :, agent] = choice
            output = algorithm.critic(states.view, algorithm.policy.head.encode(action))
            advantage = algorithm.advantage(raw, output, action, states.view)[..., agent]
            total = total + probability[..., agent, choice] * advantage
            size = size + advantage.abs()
        assert total.abs().max() < 1e-5 < size.max()


def test_the_policy_gradient_is_that_of_the_expected_value() -> None:
    head = Head(plain(2, 4))
    raw = torch.randn(2, 4, generator=seeded(), requires_grad=True)
    value = torch.randn(2, 4, generator=seeded(1))
    (expected,) = torch.autograd.grad((raw.softmax(-1) * value).sum(), raw)
    found = torch.zeros_like(raw)
    for choice in range(4):
        action = torch.full((2, 1), choice)
        advantage = head.advantage(raw.detach(), value, action)
        log_prob, _ = head.evaluate(raw, action)
        (part,) = torch.autograd.grad((log_prob.exp().detach() * advantage * log_prob).sum(), raw)
        found += part
    torch.testing.assert_close(found, expected)


# targets


def constant(algorithm: COMA, values: list[float]) -> None:
    """A target critic that says the same of every state."""
    readout = algorithm.target_critic.readout
    readout.weight.data.zero_()
    readout.bias.data.copy_(torch.tensor([values]))


def test_targets_are_lambda_returns_over_the_mean_value_of_the_own_choice() -> None:
    env = envs.make("spread", 4, max_cycles=7)
    algorithm, collector = learner(env, normalise_value=False, gamma=0.9, lam=0.6)
    algorithm.policy.readout.bias.data.copy_(torch.tensor([[0.0, 1.0, 2.0, 0.0, 0.5]]))
    algorithm.policy.readout.weight.data.zero_()
    values = [1.0, -2.0, 3.0, 0.0, 5.0]
    constant(algorithm, values)
    rollout = collector.collect(10)  # episodes end at the seventh step: cut, not terminated
    mean = float((torch.tensor([0.0, 1.0, 2.0, 0.0, 0.5]).softmax(-1) * torch.tensor(values)).sum())
    following = torch.full_like(rollout.reward, mean)
    expected = td_lambda(rollout.reward, following, rollout.terminated, rollout.cut, 0.9, 0.6)
    torch.testing.assert_close(algorithm.prepare(rollout).target, expected)
    by_hand = rollout.reward[6] + 0.9 * mean  # nothing of the next episode
    torch.testing.assert_close(expected[6], by_hand)
    earlier = rollout.reward[5] + 0.9 * (0.4 * mean + 0.6 * by_hand)
    torch.testing.assert_close(expected[5], earlier)


def test_nothing_follows_where_an_episode_terminates() -> None:
    env = envs.make("two_step", 8)
    algorithm, collector = learner(env, normalise_value=False, gamma=0.9, lam=0.5)
    constant(algorithm, [4.0, 4.0])
    rollout = collector.collect(2)
    target = algorithm.prepare(rollout).target
    assert bool(rollout.terminated[1].all())
    torch.testing.assert_close(target[1], rollout.reward[1])
    torch.testing.assert_close(target[0], rollout.reward[0] + 0.9 * (0.5 * 4.0 + 0.5 * rollout.reward[1]))


def test_the_target_critic_follows_by_tau_at_every_step_and_gets_no_gradient() -> None:
    algorithm, collector = learner(spread(), tau=0.25, epochs=1, minibatches=1)
    old = [p.clone() for p in algorithm.target_critic.parameters()]
    algorithm.learn(collector.collect(5))
    for before, after, new in zip(
        old, algorithm.target_critic.parameters(), algorithm.critic.parameters(), strict=True
    ):
        assert not torch.equal(before, new)
        torch.testing.assert_close(after, before + 0.25 * (new - before))
    assert all(p.grad is None and not p.requires_grad for p in algorithm.target_critic.parameters())


# learning


@pytest.mark.parametrize("network", NETWORKS)
def test_the_policy_is_still_the_one_that_acted_when_it_takes_its_step(network: str) -> None:
    algorithm, collector = learner(spread(), network, epochs=2, minibatches=2)
    for _ in range(3):  # 10 steps each: rollouts begin and end inside the 25 steps of an episode
        rollout = collector.collect(10)
        states = algorithm.prepare(rollout)
        hidden = None if rollout.hidden is None else rollout.hidden[0]
        raw, _ = algorithm.policy.unroll(states.view, hidden, rollout.start[:-1])
        log_prob, _ = algorithm.policy.head.evaluate(raw, states.action)
        torch.testing.assert_close(log_prob, rollout.log_prob, atol=2e-5, rtol=0)
        before = [p.clone() for p in algorithm.policy.parameters()]
        algorithm.fit(tree.flatten(states))
        assert all(torch.equal(a, b) for a, b in zip(before, algorithm.policy.parameters(), strict=True))
        critic = [p.clone() for p in algorithm.critic.parameters()]
        metrics = algorithm.improve(rollout, states)
        assert all(torch.equal(a, b) for a, b in zip(critic, algorithm.critic.parameters(), strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(before, algorithm.policy.parameters(), strict=True))
        assert all(bool(x.isfinite()) for x in metrics.values())


def test_values_of_true_successors_remember_their_own_episode() -> None:
    algorithm, collector = learner(envs.make("spread", 4, max_cycles=6), "recurrent", epochs=1)
    algorithm.learn(collector.collect(4))
    rollout = collector.collect(4)
    assert rollout.final is not None
    seen: list[tuple[View, Tensor]] = []
    act = algorithm.policy.forward

    def watched(view: View, hidden: Tensor | None = None, start: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        raw, memory = act(view, hidden, start)
        seen.append((view, raw))
        return raw, memory

    algorithm.policy.forward = watched  # type: ignore[method-assign]
    algorithm.prepare(rollout)
    (_, _), (final, raw) = seen
    episode = tree.map(lambda *x: torch.stack(x), *(tree.index(rollout.view, t) for t in range(2)), rollout.final)
    never = torch.zeros(3, 4, dtype=torch.bool)
    expected, _ = algorithm.policy.unroll(episode, rollout.hidden[0], never)
    assert final is rollout.final
    torch.testing.assert_close(raw, expected[2])


def changed(rollout: Batch, filler: float) -> Batch:
    dead, waits = torch.zeros(4, 3, dtype=torch.bool), torch.zeros(4, 3, dtype=torch.bool)
    dead[:, 1] = waits[:, 2] = True
    obs = rollout.view.obs.masked_fill(dead.unsqueeze(-1), filler)
    view = View(obs, rollout.view.alive & ~dead, rollout.view.graph, acts=(~waits).expand_as(rollout.view.alive))
    return rollout.replace(view=view, reward=rollout.reward.masked_fill(dead, filler))


def test_dead_slots_holding_nan_change_nothing_and_waiting_agents_learn_values_alone() -> None:
    found = []
    for filler in (0.0, float("nan")):
        algorithm, collector = learner(spread(), "unshared", epochs=2, minibatches=2)
        before = [p.clone() for p in algorithm.policy.parameters()]
        values = algorithm.critic.readout.bias.clone()
        metrics = algorithm.learn(changed(collector.collect(10), filler))
        assert all(bool(x.isfinite()) for x in metrics.values())
        for old, new in zip(before, algorithm.policy.parameters(), strict=True):
            assert [torch.equal(old[i], new[i]) for i in range(3)] == [False, True, True]
        moved = algorithm.critic.readout.bias != values
        assert moved.any(-1).tolist() == [True, False, True]
        found.append([p.clone() for p in algorithm.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_passive_and_mixed_groups_take_part() -> None:
    critic = build_counterfactual(MLP, MIXED, Head(MIXED).features_dim, 0, seeded())
    head, view = Head(MIXED), everyone(4, 3)
    view = View(view.obs, view.alive, view.graph, acts=torch.tensor(MIXED.learners).expand(5, 4))
    raw = torch.randn(5, 4, 5, generator=seeded(1))
    action, _ = head.sample(raw, None, seeded(2))
    advantage = head.advantage(raw, critic(view, head.encode(action)), action)
    assert advantage[:, 2].abs().max() == 0
    assert (advantage[:, [0, 1, 3]] != 0).all()


@pytest.mark.parametrize("network", ["mlp", "recurrent"])
def test_a_restored_learner_goes_on_exactly(network: str, tmp_path: Path) -> None:
    algorithm, collector = learner(spread(), network, normalise_reward=True)
    algorithm.learn(collector.collect(10))
    Checkpoints(tmp_path).save(1, algorithm.training_state())
    other, _ = learner(spread(), network, normalise_reward=True)
    other.load_training_state(Checkpoints(tmp_path).load())
    rollout = collector.collect(10)
    for one in (algorithm, other):
        one.schedule(0.5)
        one.learn(rollout)
    states = [dict(tree.named(one.training_state())) for one in (algorithm, other)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_reals_and_critics_with_a_memory_of_their_own_are_refused() -> None:
    with pytest.raises(ValueError, match=r"coma weighs each choice .* needs discrete actions, got reals; use mappo"):
        learner(envs.make("spread", 4, continuous_actions=True))
    memory = MLP.model_copy(update={"memory": MemoryConfig(critic=True)})
    with pytest.raises(ConfigError, match=r"memory.critic: .* reads the policy's memory; leave it out"):
        build_counterfactual(memory, plain(2), 3, 64, seeded())
