"""Networks from configuration: which policy, which critic, for which agents."""

from __future__ import annotations

import torch
from torch import nn

from envs.spec import AgentSpec
from marl.config import ConfigError
from marl.networks.config import AttentionConfig, BodyConfig, GraphConfig, MemoryConfig, MLPConfig, NetworkConfig
from marl.networks.counterfactual import (
    CounterfactualCritic,
    JointCounterfactual,
    LocalCounterfactual,
    PooledCounterfactual,
)
from marl.networks.critics import MAX_JOINT, JointCritic, LocalCritic
from marl.networks.graph import GraphNetwork
from marl.networks.heads import Kind
from marl.networks.inputs import Inputs
from marl.networks.layers.mlp import MLP
from marl.networks.layers.recurrent import MEMORIES
from marl.networks.layers.sharing import Sharing
from marl.networks.layers.transformer import AttentionNetwork
from marl.networks.messaging.build import build_messaging
from marl.networks.messaging.config import CommNetConfig, MessagingConfig, TarMACConfig
from marl.networks.policy import Policy
from marl.networks.qcritics import JointQ, LocalQ, PooledQ
from marl.networks.trunk import Trunk


def build_policy(
    config: NetworkConfig,
    agents: AgentSpec,
    generator: torch.Generator,
    head: Kind = "stochastic",
    duelling: bool = False,
) -> Policy:
    """The policy of all agents, its head of the kind that the algorithm wants."""
    trunk = _trunk(config, config.policy, agents, generator, config.memory)
    return Policy(agents, trunk, ends(config, agents), generator, head, duelling)


def build_critic(config: NetworkConfig, agents: AgentSpec, generator: torch.Generator) -> LocalCritic | JointCritic:
    """The V-critic of all agents."""
    body = _critic_body(config)
    memory = config.memory if config.memory is not None and config.memory.critic is not False else None
    if config.critic.name == "central" and agents.num_agents <= MAX_JOINT and isinstance(body, MLPConfig):
        inputs = Inputs(agents, "none", config.normalise_obs, generator, config.images)
        cell = None if memory is None else (MEMORIES[memory.name], memory.hidden)
        return JointCritic(agents, inputs, body.hidden, generator, body.activation, cell)
    trunk = _trunk(config, body, agents, generator, memory)
    pooled, attention = config.critic.name != "local", config.critic.name == "attention"
    state = (agents.state_dim or 0) if pooled else 0
    return LocalCritic(trunk, ends(config, agents), generator, pooled, state, attention)


def build_q_critic(
    config: NetworkConfig, agents: AgentSpec, action_dim: int, generator: torch.Generator
) -> LocalQ | JointQ | PooledQ:
    """The Q-critic of all agents, for action features of width ``action_dim``.

    Raises:
        ConfigError: If it is to remember, which no Q-critic does.
    """
    if config.memory is not None and config.memory.critic:
        raise ConfigError("memory.critic: critics of replayed actions have no memory; leave it out")
    sharing, body = ends(config, agents), _forgetful(_critic_body(config))
    _refuse_pooling(config, body)
    inputs = _inputs(config, body, agents, generator)
    hidden = body.hidden if isinstance(body, MLPConfig) else (body.hidden, body.hidden)
    if config.critic.name == "local":
        listening = None if isinstance(body, MLPConfig) else _body(config, body, inputs.out_dim, agents, generator)
        return LocalQ(inputs, action_dim, listening, hidden, sharing, generator, body.activation)
    if config.critic.name == "central" and agents.num_agents <= MAX_JOINT and isinstance(body, MLPConfig):
        plain = Inputs(agents, "none", config.normalise_obs, generator, config.images)
        return JointQ(agents, plain, action_dim, hidden, sharing, generator, body.activation)
    rounds = body.layers if isinstance(body, GraphConfig) else 0
    state = agents.state_dim or 0
    return PooledQ(inputs, action_dim, hidden[-1], sharing, generator, body.activation, rounds, state)


def build_counterfactual(
    config: NetworkConfig, agents: AgentSpec, action_dim: int, memory_dim: int, generator: torch.Generator
) -> CounterfactualCritic:
    """The critic of all agents' own choices, for action features and memories of the given widths.

    Raises:
        ConfigError: If it is to remember by itself.
    """
    if config.memory is not None and config.memory.critic:
        raise ConfigError("memory.critic: the counterfactual critic reads the policy's memory; leave it out")
    sharing, body = ends(config, agents), _forgetful(_critic_body(config))
    _refuse_pooling(config)
    if config.critic.name == "central" and agents.num_agents <= MAX_JOINT and isinstance(body, MLPConfig):
        plain = Inputs(agents, "none", config.normalise_obs, generator, config.images)
        width = body.hidden
        return JointCounterfactual(agents, plain, memory_dim, action_dim, width, sharing, generator, body.activation)
    inputs = _inputs(config, body, agents, generator)
    network = _body(config, body, inputs.out_dim + memory_dim, agents, generator)
    if config.critic.name == "local":
        return LocalCounterfactual(agents, inputs, network, sharing, generator)
    links, kind = isinstance(body, GraphConfig), body.activation
    return PooledCounterfactual(agents, inputs, memory_dim, network, action_dim, sharing, generator, kind, links)


def ends(config: NetworkConfig, agents: AgentSpec) -> Sharing:
    """Who shares the first layers and the readouts: each group its own where groups see or do different things."""
    how = config.encoders
    if how is None and config.sharing == "all":
        seen, done = {group.observation for group in agents.groups}, set(agents.actions)
        how = "group" if len(seen) > 1 or len(done) > 1 else "all"
    return Sharing.of(config.sharing if how is None else how, agents)


def _refuse_pooling(config: NetworkConfig, body: BodyConfig | None = None) -> None:
    """Refuse attention where critics of actions pool over agents in ways of their own."""
    if config.critic.name == "attention":
        raise ConfigError("critic: attention pools critics of states; those of actions are local, central or graph")
    if isinstance(body, AttentionConfig) and config.critic.name != "local":
        raise ConfigError("critic.body: attention is for local critics of actions; central ones pool by themselves")


def _forgetful(body: BodyConfig) -> MLPConfig | GraphConfig | AttentionConfig:
    """The body for critics that cannot remember: rounds over the links in place of messages."""
    if isinstance(body, MessagingConfig):
        return GraphConfig(hidden=body.hidden, layers=body.rounds, activation=body.activation)
    return body


def _critic_body(config: NetworkConfig) -> BodyConfig:
    if config.critic.body is not None:
        return config.critic.body
    own = config.policy
    if isinstance(own, MessagingConfig):
        if config.critic.name == "local":
            return _exact(own)
        own = _forgetful(own)
    wanted = {"central": MLPConfig, "graph": GraphConfig}.get(config.critic.name)
    if wanted is None or isinstance(own, wanted):
        return own
    width = own.hidden[-1] if isinstance(own, MLPConfig) else own.hidden
    if wanted is MLPConfig:
        return MLPConfig(hidden=(width,) * 2, activation=own.activation)
    return GraphConfig(hidden=width, activation=own.activation)


def _exact(own: MessagingConfig) -> CommNetConfig | TarMACConfig:
    """The body of a critic that hears what its policy could hear if everyone spoke and nothing was lost."""
    if isinstance(own, CommNetConfig | TarMACConfig):
        return own.model_copy(update={"channel": None})
    shared = own.model_dump(include=set(MessagingConfig.model_fields) - {"channel"})
    return CommNetConfig(recurrent=True, **shared)


def _trunk(
    config: NetworkConfig,
    body: BodyConfig,
    agents: AgentSpec,
    generator: torch.Generator,
    memory: MemoryConfig | None,
) -> Trunk:
    inputs = _inputs(config, body, agents, generator)
    network = _body(config, body, inputs.out_dim, agents, generator)
    sharing = Sharing.of(config.sharing, agents)
    width = int(network.out_dim)  # type: ignore[arg-type]
    cell = None if memory is None else MEMORIES[memory.name](width, memory.hidden, sharing, generator)
    return Trunk(inputs, network, cell)


def _inputs(config: NetworkConfig, body: BodyConfig, agents: AgentSpec, generator: torch.Generator) -> Inputs:
    identity = config.identity
    if identity is None:
        told_apart = isinstance(body, MLPConfig) and config.sharing == "all" and 1 < agents.num_agents <= 64
        identity = "onehot" if told_apart else "none"
    return Inputs(agents, identity, config.normalise_obs, generator, config.images, ends(config, agents))


def _body(
    config: NetworkConfig, body: BodyConfig, in_dim: int, agents: AgentSpec, generator: torch.Generator
) -> nn.Module:
    sharing, first = Sharing.of(config.sharing, agents), ends(config, agents)
    if isinstance(body, MessagingConfig):
        return build_messaging(body, in_dim, sharing, generator, first)
    if isinstance(body, MLPConfig):
        return MLP(in_dim, body.hidden, sharing, generator, body.activation, body.layer_norm, first)
    if isinstance(body, AttentionConfig):
        return AttentionNetwork(in_dim, body, sharing, generator, first)
    return GraphNetwork(in_dim, body, sharing, generator, first, agents.edge_dim)
