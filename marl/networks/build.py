"""Networks from configuration: which policy, which critic, for which agents."""

from __future__ import annotations

import torch
from torch import nn

from envs.spec import AgentSpec
from marl.networks.config import GraphConfig, MemoryConfig, MLPConfig, NetworkConfig
from marl.networks.critics import MAX_JOINT, JointCritic, LocalCritic
from marl.networks.graph import GraphNetwork
from marl.networks.heads import Kind
from marl.networks.inputs import Inputs
from marl.networks.layers.mlp import MLP
from marl.networks.layers.recurrent import MEMORIES
from marl.networks.layers.sharing import Sharing
from marl.networks.policy import Policy
from marl.networks.trunk import Trunk


def build_policy(
    config: NetworkConfig,
    agents: AgentSpec,
    generator: torch.Generator,
    head: Kind = "stochastic",
    duelling: bool = False,
) -> Policy:
    """The policy of all agents, its head of the kind that the algorithm wants."""
    sharing = Sharing.of(config.sharing, agents)
    trunk = _trunk(config, config.policy, sharing, agents, generator, config.memory)
    return Policy(agents, trunk, sharing, generator, head, duelling)


def build_critic(config: NetworkConfig, agents: AgentSpec, generator: torch.Generator) -> LocalCritic | JointCritic:
    """The V-critic of all agents."""
    sharing = Sharing.of(config.sharing, agents)
    body = _critic_body(config)
    memory = config.memory if config.memory is not None and config.memory.critic else None
    if config.critic.name == "central" and agents.num_agents <= MAX_JOINT and isinstance(body, MLPConfig):
        inputs = Inputs(agents, "none", config.normalise_obs, generator)
        cell = None if memory is None else (MEMORIES[memory.name], memory.hidden)
        return JointCritic(agents, inputs, body.hidden, generator, body.activation, cell)
    trunk = _trunk(config, body, sharing, agents, generator, memory)
    pooled = config.critic.name != "local"
    return LocalCritic(trunk, sharing, generator, pooled, (agents.state_dim or 0) if pooled else 0)


def _critic_body(config: NetworkConfig) -> MLPConfig | GraphConfig:
    if config.critic.body is not None:
        return config.critic.body
    own = config.policy
    if config.critic.name == "local" or isinstance(own, GraphConfig) == (config.critic.name == "graph"):
        return own
    if isinstance(own, GraphConfig):
        return MLPConfig(hidden=(own.hidden,) * 2, activation=own.activation)
    return GraphConfig(hidden=own.hidden[-1], activation=own.activation)


def _trunk(
    config: NetworkConfig,
    body: MLPConfig | GraphConfig,
    sharing: Sharing,
    agents: AgentSpec,
    generator: torch.Generator,
    memory: MemoryConfig | None,
) -> Trunk:
    inputs = _inputs(config, body, sharing, agents, generator)
    network = _body(body, inputs.out_dim, sharing, generator)
    width = int(network.out_dim)  # type: ignore[arg-type]
    cell = None if memory is None else MEMORIES[memory.name](width, memory.hidden, sharing, generator)
    return Trunk(inputs, network, cell)


def _inputs(
    config: NetworkConfig,
    body: MLPConfig | GraphConfig,
    sharing: Sharing,
    agents: AgentSpec,
    generator: torch.Generator,
) -> Inputs:
    identity = config.identity
    if identity is None:
        told_apart = isinstance(body, MLPConfig) and sharing.mode == "all" and 1 < agents.num_agents <= 64
        identity = "onehot" if told_apart else "none"
    return Inputs(agents, identity, config.normalise_obs, generator)


def _body(config: MLPConfig | GraphConfig, in_dim: int, sharing: Sharing, generator: torch.Generator) -> nn.Module:
    if isinstance(config, MLPConfig):
        return MLP(in_dim, config.hidden, sharing, generator, config.activation, config.layer_norm)
    return GraphNetwork(
        in_dim,
        config.hidden,
        sharing,
        generator,
        config.layer,
        config.layers,
        config.encoder_layers,
        config.activation,
    )
