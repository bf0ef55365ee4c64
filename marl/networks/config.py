"""Settings of networks; free of torch, so that mistakes are answered at once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from marl.config import Config
from marl.networks.messaging.config import CommNetConfig, IC3NetConfig, MessagingConfig, TarMACConfig

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


class AttentionConfig(Config):
    """Attention of all living agents to all, in any order; links are not used. For up to 1,024 agents.

    Attributes:
        hidden: Width of every layer.
        heads: Attention heads, which share out the width.
        layers: Rounds of attention.
        encoder_layers: Layers of each agent's own before the first round.
        activation: Between layers.
    """

    name: Literal["attention"] = "attention"
    hidden: int = Field(default=64, ge=1)
    heads: int = Field(default=4, ge=1)
    layers: int = Field(default=1, ge=1)
    encoder_layers: int = Field(default=1, ge=1)
    activation: Activation = "relu"

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> AttentionConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden: {self.hidden} must be divisible by heads, {self.heads}")
        return self


BodyConfig = Annotated[
    MLPConfig | GraphConfig | AttentionConfig | CommNetConfig | IC3NetConfig | TarMACConfig, Field(discriminator="name")
]


class CriticConfig(Config):
    """Who the critic looks at.

    Attributes:
        name: ``local``: each agent's own observation (and links, with a graph body) · ``central``: everyone's, side by
            side up to 16 agents, pooled above · ``graph``: message passing, then pooled over everyone · ``attention``:
            a learned weighting of everyone's encodings, of any number of agents, beside each agent's own.
        body: Its network; None takes the policy's (``local``, ``attention``), an MLP (``central``) or a graph network
            (``graph``).
    """

    name: Literal["local", "central", "graph", "attention"]
    body: BodyConfig | None = None

    @model_validator(mode="after")
    def _graph_needs_links(self) -> CriticConfig:
        if self.name == "graph" and isinstance(self.body, MLPConfig | AttentionConfig):
            raise ValueError("a graph critic needs a graph body")
        body = self.body
        if isinstance(body, MessagingConfig) and (body.name == "ic3net" or body.channel is not None):
            raise ValueError("critics hear everything exactly: use commnet or tarmac, without a channel")
        return self


class MemoryConfig(Config):
    """What agents remember from step to step, after the body of the policy, and of the critic if it is asked.

    Attributes:
        name: ``gru`` or ``lstm``.
        hidden: Width.
        critic: Whether the critic remembers as well; None where it is a V-critic. Q-critics cannot.
    """

    name: Literal["gru", "lstm"] = "gru"
    hidden: int = Field(default=64, ge=1)
    critic: bool | None = None


class ImageConfig(Config):
    """How images among the observations are read: convolutions, then one layer.

    Attributes:
        channels: Output channels of each convolution.
        kernel, stride: Of each; None takes 8, 4, 3 and 4, 2, 1 for three convolutions from 36 pixels up, else 3 and 1.
            A kernel is cut down to what is left of the image.
        features: Width of what an image becomes.
    """

    channels: tuple[PositiveInt, ...] = Field(default=(32, 64, 64), min_length=1)
    kernel: tuple[PositiveInt, ...] | None = None
    stride: tuple[PositiveInt, ...] | None = None
    features: int = Field(default=128, ge=1)

    @model_validator(mode="after")
    def _one_for_each_convolution(self) -> ImageConfig:
        for name in ("kernel", "stride"):
            given = getattr(self, name)
            if given is not None and len(given) != (count := len(self.channels)):
                raise ValueError(f"{name}: expected {count} numbers, one for each convolution, got {len(given)}")
        return self


class NetworkConfig(Config):
    """Everything about the networks of a learner.

    Attributes:
        policy: Body of the policy.
        critic: Critic; None takes the recipe's.
        memory: What agents remember; None for nothing.
        sharing: ``all | group | none``, or one number per agent.
        encoders: Who shares the first layers, what reads images and the readouts: ``all | group | none``; None takes
            ``sharing``, but ``group`` where that is ``all`` and groups see or do different things.
        images: How images are read; None takes their pixels one by one.
        identity: ``none | onehot | embedding``; None takes onehot for shared MLPs of up to 64 agents, else none.
        normalise_obs: Normalise observations by running moments.
    """

    policy: BodyConfig = MLPConfig()
    critic: CriticConfig
    memory: MemoryConfig | None = None
    sharing: Literal["all", "group", "none"] | tuple[int, ...] = "all"
    encoders: Literal["all", "group", "none"] | None = None
    images: ImageConfig | None = ImageConfig()
    identity: Identity | None = None
    normalise_obs: bool = False

    @property
    def listens(self) -> bool:
        """Whether the policy or the critic uses the links."""
        bodies = (self.policy, self.critic.body)
        return self.critic.name == "graph" or any(isinstance(body, GraphConfig | MessagingConfig) for body in bodies)
