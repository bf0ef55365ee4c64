"""Learned communication through channels: replayed exactly, delayed, counted; and which settings are refused."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from messengers import (
    BODIES,
    CHANNELS,
    COPIES,
    EVERYTHING,
    NEVER,
    STEPS,
    H,
    N,
    config,
    make,
    moving,
    seeded,
    spec,
    views,
)
from torch import Tensor

import envs
from coordination import rng, tree
from coordination.signals import build
from marl.algorithms.base import Setting
from marl.algorithms.config import PPOConfig
from marl.algorithms.ppo import PPO
from marl.collector import Collector
from marl.config import ConfigError
from marl.experiment import Experiment
from marl.networks.build import build_critic, build_policy, build_q_critic
from marl.networks.config import CriticConfig, MemoryConfig
from marl.networks.messaging.base import Messenger
from marl.networks.messaging.commnet import CommNet
from marl.networks.messaging.config import (
    BudgetConfig,
    ChannelConfig,
    CommNetConfig,
    DelayConfig,
    DropConfig,
    QuantiseConfig,
    TarMACConfig,
)
from marl.networks.messaging.tarmac import TarMAC
from marl.networks.policy import Policy
from marl.settings import settings

# -- replay -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("body", ["recurrent", "ic3net", "tarmac"])
def test_unrolling_equals_stepping_and_episodes_are_isolated(body: str, channel: str) -> None:
    alive = torch.rand(STEPS, COPIES, N, generator=seeded(3)) < 0.8
    view, start = views(alive=alive), torch.rand(STEPS, COPIES, generator=seeded(4)) < 0.3
    policy = make(body, channel)
    first = hidden = policy.trunk.initial((COPIES, N), view.obs.device, seeded(5))
    whole, memories = policy.unroll(view, hidden, start)
    for t in range(STEPS):
        out, hidden = policy(tree.index(view, t), hidden, start[t])
        assert torch.equal(whole[t], out)
        assert torch.equal(memories[t], hidden)
    moved = torch.cat([first[..., : policy.trunk.content_dim] + 1, first[..., policy.trunk.content_dim :]], -1)
    other, _ = policy.unroll(view, moved, start)
    forgotten = start.cumsum(0) > 0
    assert torch.equal(other[forgotten], whole[forgotten])
    assert not torch.equal(other, whole)
    some = torch.tensor([3, 1])
    part, _ = policy.unroll(tree.index(view, (slice(None), some)), first[some], start[:, some])
    torch.testing.assert_close(part, whole[:, some])


RATIOS = [(body, channel, "central") for body in BODIES for channel in ("none", "everything")]


@pytest.mark.parametrize(("body", "channel", "critic"), [*RATIOS, ("ic3net", "lossy", "local")])
def test_before_the_first_update_every_ratio_is_one(body: str, channel: str, critic: str) -> None:
    env = envs.make("spread", 4, max_cycles=8)
    network = config(BODIES[body], CHANNELS[channel], critic=CriticConfig(name=critic))
    ppo = PPOConfig(epochs=1, minibatches=2, normalise_value=False, learning_rate=1e-2)
    algorithm = PPO.build(ppo, network, Setting(env.agents, 4, build(None), 0, torch.device("cpu")))
    collector = Collector(env, algorithm.policy, rng.generator(0, "act"))
    collector.reset(0)
    for _ in range(3):  # 6 steps each: rollouts begin and end inside the 8 steps of an episode
        rollout = collector.collect(6)
        before = None if algorithm.remembered is None else algorithm.remembered.clone()
        samples = algorithm.prepare(rollout)
        for part in algorithm.minibatches(samples, 4, 1) if algorithm.sequential else [samples]:
            torch.testing.assert_close(algorithm.evaluate(part)[0], part.log_prob, atol=1e-6, rtol=0)
            torch.testing.assert_close(algorithm.critic_output(part), part.value)
        if before is not None:
            algorithm.remembered.copy_(before)
        algorithm.learn(rollout)


def test_samples_steps_and_runs_hear_noise_of_their_own() -> None:
    policy = make("commnet", "lossy")
    view = views((1,))
    same = tree.map(lambda x: x.expand(STEPS, COPIES, *x.shape[1:]), view)
    runs = [policy.trunk.initial((COPIES, N), torch.device("cpu"), seeded(s)) for s in (0, 1, 0)]
    first, second, again = (policy.unroll(same, hidden, NEVER)[0] for hidden in runs)
    assert torch.equal(first, again)
    flat = torch.cat([first, second]).flatten(0, 1)  # the same view each time
    assert torch.cdist(flat.flatten(1), flat.flatten(1)).fill_diagonal_(1).min() > 1e-4


# -- what the channel does ---------------------------------------------------------------------------


@pytest.mark.parametrize("body", BODIES)
def test_where_everything_is_lost_nobody_is_heard(body: str) -> None:
    deaf = build_policy(config(BODIES[body], ChannelConfig(drop=DropConfig(loss=1))), spec(), seeded())
    found, _ = deaf.unroll(views(), None, NEVER)
    alone, _ = make(body).unroll(views(links=[[], []]), None, NEVER)
    torch.testing.assert_close(found, alone)


def heard_when(policy: Policy) -> Tensor:
    """``[T]`` bool: whether what agent 0 sees in the first step moves what agent 1 puts out in each."""
    view = views()
    other = replace(view, obs=view.obs.clone())
    other.obs[0, :, 0] += 1
    found, changed = (policy.unroll(v, None, NEVER)[0] for v in (view, other))
    return (found[..., 1, :] != changed[..., 1, :]).any(-1).any(-1)


@pytest.mark.parametrize(("steps", "first"), [(0, 0), (1, 1), (3, 3)])
def test_a_delay_is_that_many_steps(steps: int, first: int) -> None:
    channel = ChannelConfig(delay=DelayConfig(steps=steps) if steps else None)
    now = build_policy(config(CommNetConfig(hidden=H), channel), spec(), seeded())
    assert heard_when(now).tolist() == [t == first for t in range(STEPS)]  # without memory, just then
    later = build_policy(config(CommNetConfig(hidden=H, recurrent=True), channel), spec(), seeded())
    assert heard_when(later).tolist() == [t > first for t in range(STEPS)]  # the message tells of the step before


def test_bits_and_messages_are_counted_as_by_hand() -> None:
    links = [[0, 1, 2, 2], [1, 2, 0, 1]]  # 0 and 1 speak to one each, 2 to two
    alive = torch.ones(2, 1, N, dtype=torch.bool)
    alive[1, 0, 0] = False  # then 1 speaks to 2, and 2 to 1
    alive[:, :, 3:] = False
    body = CommNetConfig(hidden=H, message_dim=4)
    size = 4 * 3  # numbers, bits each

    def counts(channel: ChannelConfig) -> tuple[Tensor, dict[str, float]]:
        policy = build_policy(config(body, channel), spec(), seeded())
        _, hidden = policy.unroll(views((2, 1), alive, links), None, NEVER[:2, :1])
        traffic = policy.trunk.traffic(hidden.detach(), alive)
        return hidden[:, 0, :3, -8:-3] * 2**24, {name: float(x) for name, x in traffic.items()}

    quantise = QuantiseConfig(bits=3)
    table, traffic = counts(ChannelConfig(quantise=quantise, drop=DropConfig(loss=1)))
    assert table[..., 0].tolist() == [[size, size, 2 * size], [0, size, size]]
    assert table[..., 1].tolist() == [[1, 1, 2], [0, 1, 1]]
    assert table[..., 3].tolist() == [[1, 1, 2], [0, 1, 1]]
    expected = {"bits": 6 * size / 5, "sent": 6 / 5, "delivered": 0, "dropped": 1, "withheld": 0}
    assert traffic == pytest.approx(expected)
    table, traffic = counts(ChannelConfig(quantise=quantise, budget=BudgetConfig(rate=size)))
    assert table[..., 4].tolist() == [[0, 0, 1], [0, 0, 0]]
    expected = {"bits": size, "sent": 1, "delivered": 1, "dropped": 0, "withheld": 1 / 6}
    assert traffic == pytest.approx(expected)
    _, traffic = counts(ChannelConfig())
    assert traffic["bits"] == pytest.approx(6 * 4 * 32 / 5)


@pytest.mark.parametrize(
    ("per", "sent"), [("agent", [2, 1, 0, 0, 2, 1]), ("sample", [2, 1, 0, 0, 2, 1]), ("edge", [2, 2, 2, 0, 2, 2])]
)
def test_a_bucket_empties_and_is_full_again_in_every_episode(per: str, sent: list[int]) -> None:
    channel = ChannelConfig(budget=BudgetConfig(rate=0, burst=3, unit="messages", per=per))
    policy = build_policy(config(CommNetConfig(hidden=H), channel), spec(), seeded())
    start = NEVER[:, :1].clone()
    start[4] = True
    _, hidden = policy.unroll(views((STEPS, 1), links=[[0, 0], [1, 2]]), None, start)
    assert (hidden[:, 0, 0, -7] * 2**24).tolist() == sent


def test_rows_of_training_say_what_was_sent() -> None:
    keys = {"env": "spread", "num_envs": 2, "rollout_steps": 3, "total_steps": 6, "evaluate": {"every": 0}}
    policy = {"name": "ic3net", "hidden": 4, "channel": {"quantise": {"bits": 2}, "drop": {"loss": 0.5}}}
    experiment = Experiment(settings({**keys, "policy": policy}))
    experiment.start()
    row = experiment.trainer.iterate()
    experiment.close()
    said = {name.removeprefix("messages/"): x for name, x in row.items() if name.startswith("messages/")}
    assert said.keys() == {"speaking", "bits", "sent", "delivered", "dropped", "withheld"}
    assert said["bits"] == pytest.approx(said["sent"] * 8)
    assert said["sent"] == pytest.approx(said["speaking"] * 2)  # to each of two others
    assert said["delivered"] + said["dropped"] == pytest.approx(1)


# -- settings ----------------------------------------------------------------------------------------


def test_critics_hear_exactly_and_remember_where_they_can() -> None:
    for body, own in (("commnet", CommNet), ("ic3net", CommNet), ("tarmac", TarMAC)):
        network = config(BODIES[body], EVERYTHING, critic=CriticConfig(name="local"))
        critic = build_critic(network, spec(), seeded())
        assert type(critic.trunk.body.protocol) is own  # type: ignore[union-attr]
        assert not (isinstance(critic.trunk.body, Messenger) and critic.trunk.body.draws)  # type: ignore[union-attr]
        build_q_critic(network, spec(), 3, seeded())
    chosen = CriticConfig(name="graph", body=TarMACConfig(hidden=H))
    critic = build_critic(config(BODIES["commnet"], critic=chosen), spec(), seeded())
    assert critic.state_dim == H
    value, _ = critic.unroll(views(), None, NEVER)
    assert value.shape == (STEPS, COPIES, N)


def test_memory_goes_with_bodies_that_have_none() -> None:
    memory = MemoryConfig(hidden=7)
    plain = make("commnet", memory=memory)
    assert plain.state_dim == 7
    plain.unroll(views(), None, NEVER)
    for body, channel in (("recurrent", "none"), ("commnet", "lossy"), ("tarmac", "none")):
        with pytest.raises(ValueError, match="memory: this body remembers by itself; leave memory out"):
            make(body, channel, memory=memory)


def test_settings_that_cannot_be_are_refused() -> None:
    base = {"env": "spread"}
    for policy, message in (
        ({"name": "comnet"}, "unknown policy 'comnet'; did you mean 'commnet'"),
        ({"name": "ic3net", "recurrent": False}, "unknown key of policy 'recurrent'"),
        ({"name": "commnet", "rounds": 0}, "policy.rounds: greater than or equal to 1, got 0"),
        (
            {"name": "tarmac", "channel": {"drop": {"loss": 2}}},
            "channel.drop.loss: less than or equal to 1, got 2",
        ),
        ({"name": "tarmac", "channel": {"dropp": {}}}, "unknown key of policy.channel 'dropp'; did you mean 'drop'"),
    ):
        with pytest.raises(ConfigError, match=message):
            settings({**base, "policy": policy})
    for body in ({"name": "ic3net"}, {"name": "commnet", "channel": {}}):
        with pytest.raises(ConfigError, match="critics hear everything exactly: use commnet or tarmac"):
            settings({**base, "critic": {"name": "local", "body": body}})
    listening = settings({**base, "policy": {"name": "tarmac"}})
    assert listening.network.listens


def test_channels_that_cannot_be_are_refused() -> None:
    def refused(channel: ChannelConfig, message: str, n: int = N) -> None:
        with pytest.raises(ValueError, match=message):
            build_policy(config(CommNetConfig(hidden=H), channel), spec(n), seeded())

    refused(ChannelConfig(budget=BudgetConfig(rate=8)), "a message takes 256 bits and the bucket holds 8")
    refused(ChannelConfig(delay=DelayConfig(steps=1, jitter=2)), "jitter: expected an integer from 0 to steps")
    refused(ChannelConfig(delay=DelayConfig(steps=1)), "say how many of 100 agents each hears at most", 100)
    refused(ChannelConfig(max_in_degree=3), "no stage remembers anything of links; leave it out")
    narrow = ChannelConfig(delay=DelayConfig(steps=1), max_in_degree=1)
    policy = build_policy(config(CommNetConfig(hidden=H), narrow), spec(), seeded())
    for view in (views((1,)), moving(views((1,)))):
        with pytest.raises(ValueError, match=r"an agent hears \d others, there is room for 1; raise it"):
            policy(view)


@pytest.mark.parametrize("algorithm", ["mappo", "qmix"])
def test_a_run_goes_on_as_if_never_stopped_noise_and_what_is_under_way_included(algorithm: str) -> None:
    own = {"mappo": {"epochs": 1}, "qmix": {"warmup": 0, "batch_size": 8, "sequence": 2}}
    learner = {"name": algorithm, **own[algorithm]}
    keys = {"env": "spread", "num_envs": 3, "rollout_steps": 4, "total_steps": 48, "evaluate": {"every": 0}}
    policy = {"name": "ic3net", "hidden": 4, "channel": EVERYTHING.model_copy(update={"budget": None}).model_dump()}
    whole, resumed = (Experiment(settings({**keys, "algorithm": learner, "policy": policy})) for _ in range(2))
    whole.start()
    whole.trainer.iterate()
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for _ in range(2):
        rows = [experiment.trainer.iterate() for experiment in (whole, resumed)]
        assert {**rows[0], "time": 0} == {**rows[1], "time": 0}
    assert torch.equal(whole.trainer.collector.hidden, resumed.trainer.collector.hidden)
