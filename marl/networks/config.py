"""Settings of networks; free of torch, so that mistakes are answered at once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from marl.config import Config

Identity = Literal["none", "onehot", "embedding"]
Activation = Literal["relu", "tanh", "silu"]


class MLPConfig(Config):
    """Layers agent by agent; links are not used.

    Attributes:
        hidden: Widths of the layers.
        activation: Between layers.
        layer_norm: Normalise each layer's sums.
    """

    name: Literal["mlp"] = "mlp"
    hidden: tuple[PositiveInt, ...] = Field(default=(128, 128), min_length=1)
    activation: Activation = "relu"
    layer_norm: bool = False


class GraphConfig(Config):
    """Message passing over the communication graph.

    Attributes:
        hidden: Width of every layer.
        layer: ``mean``, ``sum``, ``attention``, or a PyG convolution such as ``GCNConv``.
        layers: Rounds; K rounds hear K hops.
        encoder_layers: Layers of each agent's own before the first round.
        activation: Between layers.
    """

    name: Literal["graph"] = "graph"
    hidden: int = Field(default=128, ge=1)
    layer: str = "mean"
    layers: int = Field(default=1, ge=1)
    encoder_layers: int = Field(default=1, ge=1)
    activation: Activation = "relu"


BodyConfig = Annotated[MLPConfig | GraphConfig, Field(discriminator="name")]


class CriticConfig(Config):
    """Who the critic looks at.

    Attributes:
        name: ``local``: each agent's own observation (and links, with a graph body) · ``central``: everyone's, side by
            side up to 16 agents, pooled above · ``graph``: message passing, then pooled over everyone.
        body: Its network; None takes the policy's (``local``), an MLP (``central``) or a graph network (``graph``).
    """

    name: Literal["local", "central", "graph"]
    body: BodyConfig | None = None

    @model_validator(mode="after")
    def _graph_needs_links(self) -> CriticConfig:
        if self.name == "graph" and isinstance(self.body, MLPConfig):
            raise ValueError("a graph critic needs a graph body")
        return self


class MemoryConfig(Config):
    """What agents remember from step to step, after the body of the policy, and of the critic if it is asked.

    Attributes:
        name: ``gru`` or ``lstm``.
        hidden: Width.
        critic: Whether the critic remembers as well.
    """

    name: Literal["gru", "lstm"] = "gru"
    hidden: int = Field(default=64, ge=1)
    critic: bool = True


class NetworkConfig(Config):
    """Everything about the networks of a learner.

    Attributes:
        policy: Body of the policy.
        critic: Critic; None takes the recipe's.
        memory: What agents remember; None for nothing.
        sharing: ``all | group | none``, or one number per agent.
        identity: ``none | onehot | embedding``; None takes onehot for shared MLPs of up to 64 agents, else none.
        normalise_obs: Normalise observations by running moments.
    """

    policy: BodyConfig = MLPConfig()
    critic: CriticConfig
    memory: MemoryConfig | None = None
    sharing: Literal["all", "group", "none"] | tuple[int, ...] = "all"
    identity: Identity | None = None
    normalise_obs: bool = False

    @property
    def listens(self) -> bool:
        """Whether the policy or the critic uses the links."""
        bodies = (self.policy, self.critic.body)
        return self.critic.name == "graph" or any(isinstance(body, GraphConfig) for body in bodies)
