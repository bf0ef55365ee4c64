"""Settings of learned communication; free of torch, so that mistakes are answered at once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from marl.config import Config


class QuantiseConfig(Config):
    """A quantiser at the sender, as :class:`coordination.channel.Quantise`.

    Attributes:
        bits: Bits per number.
        low, high: Range; numbers outside are clipped.
        dither: Subtractive dither.
    """

    bits: int = Field(default=8, ge=1, le=24)
    low: float = -1.0
    high: float = 1.0
    dither: bool = False


class BudgetConfig(Config):
    """A token bucket at the sender, as :class:`coordination.channel.Budget`; each round of messages has its own.

    Attributes:
        rate: Tokens gained per step.
        burst: Size of the bucket; None for ``rate``.
        unit: What a token buys: ``bits`` or ``messages``.
        per: Whose bucket it is: of every ``agent``, every ``edge``, or one for the whole ``sample``.
    """

    rate: float = Field(ge=0)
    burst: float | None = Field(default=None, ge=0)
    unit: Literal["bits", "messages"] = "bits"
    per: Literal["edge", "agent", "sample"] = "agent"


class NoiseConfig(Config):
    """Gaussian noise on every number, as :class:`coordination.channel.Noise`.

    Attributes:
        std: Standard deviation.
    """

    std: float = Field(ge=0)


class DropConfig(Config):
    """Loss of messages, as :class:`coordination.channel.Drop`.

    Attributes:
        loss: Fraction lost in the long run.
        burst: Mean number of steps that a link stays bad; None for independent loss.
        loss_bad: Probability of loss on a bad link.
    """

    loss: float = Field(ge=0, le=1)
    burst: float | None = Field(default=None, ge=1)
    loss_bad: float = Field(default=1.0, gt=0, le=1)


class DelayConfig(Config):
    """Messages that arrive later, as :class:`coordination.channel.Delay`.

    Attributes:
        steps: Steps of the environment.
        jitter: Largest deviation of a message's own delay.
        reorder: Whether messages may overtake each other.
    """

    steps: int = Field(ge=1)
    jitter: int = Field(default=0, ge=0)
    reorder: bool = False


class ChannelConfig(Config):
    """What happens to messages on their way, in this order, in training and evaluation alike; all of it is counted.

    Attributes:
        quantise, budget, noise, drop, delay: The stages; None leaves one out. Without any, perfect links are counted.
        max_in_degree: Most agents that any agent hears, where links remember something (delay, bursts of loss, budgets
            per edge); memory grows with it. None takes everyone, up to 64 agents.
    """

    quantise: QuantiseConfig | None = None
    budget: BudgetConfig | None = None
    noise: NoiseConfig | None = None
    drop: DropConfig | None = None
    delay: DelayConfig | None = None
    max_in_degree: int | None = Field(default=None, ge=1)


class MessagingConfig(Config):
    """What all networks of learned communication have in common.

    Attributes:
        hidden: Width of every layer and memory.
        rounds: Rounds of messages in a step; K rounds reach K hops.
        encoder_layers: Layers of each agent's own before the first round.
        activation: Of the encoder.
        channel: What happens to messages on their way; None for perfect links, where nothing is counted.
    """

    hidden: int = Field(default=64, ge=1)
    rounds: int = Field(default=1, ge=1)
    encoder_layers: int = Field(default=1, ge=1)
    activation: Literal["relu", "tanh", "silu"] = "tanh"
    channel: ChannelConfig | None = None


class CommNetConfig(MessagingConfig):
    """Everyone hears the mean of its neighbours (:class:`marl.networks.messaging.commnet.CommNet`).

    Attributes:
        recurrent: Whether an LSTM remembers; then the first round tells what was known before this step's view.
        message_dim: Width of a message; None sends the whole hidden state.
    """

    name: Literal["commnet"] = "commnet"
    recurrent: bool = False
    message_dim: int | None = Field(default=None, ge=1)


class IC3NetConfig(MessagingConfig):
    """Agents that decide whether to speak (:class:`marl.networks.messaging.commnet.IC3Net`).

    Attributes:
        message_dim: Width of a message; None sends the whole hidden state.
        temperature: Of the gate's relaxation: lowering it brings its gradient nearer to the truth, and makes it vanish
            where the gate is sure.
    """

    name: Literal["ic3net"] = "ic3net"
    message_dim: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=1.0, gt=0)


class TarMACConfig(MessagingConfig):
    """Receivers attend to messages by their signatures (:class:`marl.networks.messaging.tarmac.TarMAC`).

    Attributes:
        message_dim: Width of what a message says.
        signature_dim: Width of the signature that it carries beside, and of queries.
    """

    name: Literal["tarmac"] = "tarmac"
    message_dim: int = Field(default=32, ge=1)
    signature_dim: int = Field(default=16, ge=1)
