"""Networks from configuration: which policy, which critic, for which agents."""

from __future__ import annotations

import torch
from torch import nn

from envs.spec import AgentSpec
from marl.networks.config import GraphConfig, MLPConfig, NetworkConfig
from marl.networks.critics import MAX_JOINT, JointCritic, LocalCritic
from marl.networks.graph import GraphNetwork
from marl.networks.inputs import Inputs
from marl.networks.mlp import MLP
from marl.networks.policy import Policy
from marl.networks.sharing import Sharing


def build_policy(config: NetworkConfig, agents: AgentSpec, generator: torch.Generator) -> Policy:
    """The policy of all agents."""
    sharing = Sharing.of(config.sharing, agents)
    inputs = _inputs(config, config.policy, sharing, agents, generator)
    return Policy(agents, inputs, _body(config.policy, inputs.out_dim, sharing, generator), sharing, generator)


def build_critic(config: NetworkConfig, agents: AgentSpec, generator: torch.Generator) -> nn.Module:
    """The V-critic of all agents."""
    sharing = Sharing.of(config.sharing, agents)
    body = _critic_body(config)
    if config.critic.name == "central" and agents.num_agents <= MAX_JOINT and isinstance(body, MLPConfig):
        inputs = Inputs(agents, "none", config.normalise_obs, generator)
        return JointCritic(agents, inputs, body.hidden, generator, body.activation)
    inputs = _inputs(config, body, sharing, agents, generator)
    network = _body(body, inputs.out_dim, sharing, generator)
    return LocalCritic(agents, inputs, network, sharing, generator, pooled=config.critic.name != "local")


def _critic_body(config: NetworkConfig) -> MLPConfig | GraphConfig:
    if config.critic.body is not None:
        return config.critic.body
    own = config.policy
    if config.critic.name == "local" or isinstance(own, GraphConfig) == (config.critic.name == "graph"):
        return own
    if isinstance(own, GraphConfig):
        return MLPConfig(hidden=(own.hidden,) * 2, activation=own.activation)
    return GraphConfig(hidden=own.hidden[-1], activation=own.activation)


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
