"""PPO: ratio one before the first update, losses that keep to their group, masks, schedules, and collection."""

from __future__ import annotations

import pytest
import torch

import envs
from coordination import rng, tree
from coordination.signals import build
from envs.base import VectorEnv, View
from marl.algorithms.base import Setting, masked_mean
from marl.algorithms.config import PPOConfig
from marl.algorithms.ppo import PPO
from marl.batch import Batch
from marl.collector import Collector
from marl.networks.config import CriticConfig, GraphConfig, MLPConfig, NetworkConfig

NETWORKS = {
    "mlp": NetworkConfig(policy=MLPConfig(hidden=(16,)), critic=CriticConfig(name="central")),
    "graph": NetworkConfig(policy=GraphConfig(hidden=16), critic=CriticConfig(name="graph")),
    "unshared": NetworkConfig(policy=MLPConfig(hidden=(16,)), critic=CriticConfig(name="local"), sharing="none"),
    "normalised": NetworkConfig(policy=MLPConfig(hidden=(16,)), critic=CriticConfig(name="local"), normalise_obs=True),
}


def learner(env: VectorEnv, network: str = "mlp", **config: object) -> tuple[PPO, Collector]:
    setting = Setting(env.agents, env.num_envs, build(None), 0, torch.device("cpu"))
    algorithm = PPO.build(PPOConfig(**config), NETWORKS[network], setting)
    collector = Collector(env, algorithm.policy, rng.generator(0, "act"))
    collector.reset(0)
    return algorithm, collector


def spread(continuous: bool = False) -> VectorEnv:
    return envs.make("spread", 4, continuous_actions=continuous)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("continuous", [False, True])
def test_the_ratio_is_one_before_every_update_of_an_iteration(network: str, continuous: bool) -> None:
    algorithm, collector = learner(spread(continuous), network, epochs=2, minibatches=2)
    for _ in range(3):
        rollout = collector.collect(30)
        samples = algorithm.prepare(rollout)
        raw, _ = algorithm.policy(samples.view)
        log_prob, _ = algorithm.policy.head.evaluate(raw, samples.action, samples.view.action_mask)
        torch.testing.assert_close(log_prob, samples.log_prob, atol=2e-5, rtol=0)
        algorithm.learn(rollout)


def test_each_loss_reaches_its_own_group_alone() -> None:
    algorithm, collector = learner(spread())
    losses, _ = algorithm.losses(algorithm.prepare(collector.collect(5)))
    for name, loss in losses.items():
        algorithm.zero_grad()
        loss.backward(retain_graph=True)
        touched = {g for g, ps in algorithm.optimiser.groups.items() if any(p.grad is not None for p in ps)}
        assert touched == {name}


def test_dead_slots_holding_nan_change_no_weight_and_get_no_gradient() -> None:
    weights = []
    for filler in (0.0, float("nan")):
        algorithm, collector = learner(spread(), "unshared", epochs=2, minibatches=2)
        rollout = collector.collect(20)
        dead = torch.zeros(4, 3, dtype=torch.bool)
        dead[:, 1] = True
        before = [p.clone() for p in algorithm.policy.parameters()]
        spoilt = {name: getattr(rollout, name).masked_fill(dead, filler) for name in ("reward", "log_prob")}
        obs = rollout.view.obs.masked_fill(dead.unsqueeze(-1), filler)
        view = View(obs, rollout.view.alive & ~dead, rollout.view.graph)
        metrics = algorithm.learn(rollout.replace(view=view, **spoilt))
        assert all(bool(x.isfinite()) for x in metrics.values())
        weights.append([p.clone() for p in algorithm.parameters()])
        for old, new in zip(before, algorithm.policy.parameters(), strict=True):
            assert torch.equal(old[1], new[1])  # weights are stacked [N, ...]: the dead agent's own stay
            assert not torch.equal(old[0], new[0])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_episodes_are_cut_where_the_environment_restarts() -> None:
    _, collector = learner(spread())
    rollout = collector.collect(60)
    assert rollout.start.sum().item() == 4 * 3  # at 0, 25 and 50
    assert rollout.final is not None
    assert rollout.final_at is not None
    assert sorted(set((rollout.final_at // 4).tolist())) == [24, 49]
    successor = rollout.successor(rollout.view.obs[..., 0], rollout.final.obs[..., 0])
    assert not torch.equal(successor[24], rollout.view.obs[25, ..., 0])  # the old episode's last state, not the new one
    assert torch.equal(successor[23], rollout.view.obs[24, ..., 0])


def test_storage_is_reused_and_the_next_rollout_goes_on_where_the_last_ended() -> None:
    _, collector = learner(spread())
    first = collector.collect(10)
    last = tree.map(torch.clone, tree.index(first.view, -1))
    second = collector.collect(10)
    assert second.reward.data_ptr() == first.reward.data_ptr()
    assert torch.equal(second.view.obs[0], last.obs)


def test_schedules_are_linear() -> None:
    algorithm, _ = learner(spread(), learning_rate=1e-3, learning_rate_end=0.1, entropy=0.02, entropy_end=0.0)
    algorithm.schedule(0.5)
    assert [g["lr"] for g in algorithm.optimiser._adam.param_groups] == pytest.approx([5.5e-4, 5.5e-4])
    assert algorithm.entropy == pytest.approx(0.01)


def test_a_small_target_kl_stops_the_epochs() -> None:
    counts = []
    for target in (None, 1e-9):
        algorithm, collector = learner(spread(), epochs=5, minibatches=2, target_kl=target)
        algorithm.learn(collector.collect(25))
        steps = [s["step"].item() for s in algorithm.optimiser.state_dict().values()]
        counts.append(max(steps))
    assert counts == [10, 2]


def test_value_clipping_and_huber_follow_their_formulas() -> None:
    algorithm, collector = learner(spread(), huber=1.0, clip=0.2)
    samples = algorithm.prepare(collector.collect(1))
    samples = tree.map(lambda x: x, samples)
    fixed = type(samples)(
        **{**vars(samples), "value": torch.zeros_like(samples.value), "target": torch.full_like(samples.value, 3.0)}
    )
    near, far = torch.full_like(samples.value, 0.1), torch.full_like(samples.value, 1.0)
    torch.testing.assert_close(algorithm._value_error(near, fixed), torch.full_like(near, 2.9 - 0.5))
    torch.testing.assert_close(algorithm._value_error(far, fixed), torch.full_like(far, 2.8 - 0.5))  # clipped at 0.2


def test_masked_mean_ignores_nan_and_empty_masks() -> None:
    x = torch.tensor([1.0, float("nan"), 3.0])
    assert masked_mean(x, torch.tensor([True, False, True])) == 2
    assert masked_mean(x, torch.zeros(3, dtype=torch.bool)) == 0


def test_a_rollout_of_no_finals_bootstraps_from_the_stored_views() -> None:
    _, collector = learner(spread())
    rollout: Batch = collector.collect(10)
    assert rollout.final is None
    value = torch.randn(11, 4, 3)
    assert torch.equal(rollout.successor(value, None), value[1:])
