"""CommNet and IC3Net: everyone hears the mean of what its neighbours say."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from marl.networks.layers.mlp import MLP
from marl.networks.layers.recurrent import LSTM
from marl.networks.layers.sharing import Linear, Sharing, relu_gain
from marl.networks.messaging.wire import Wire


class CommNet(nn.Module):
    """Rounds of means (Sukhbaatar, Szlam and Fergus 2016, arXiv:1605.07736).

    ``e_i`` is the encoded input and ``c_i^k`` the mean of ``h_j^k`` over the living neighbours j, the others where all
    hear all. Without memory ``h^0 = e`` and ``h^{k+1} = tanh(e + H_k h^k + C_k c^k)``, the paper's module with its skip
    connection. With memory, as in the code of IC3Net, ``h^0`` is what the LSTM remembers and one LSTM makes every
    round ``h^{k+1} = LSTM(e + C_k c^k, h^k)``: the first round tells of the steps before this one, only further
    rounds of this step.

    Deviations: neighbours of a graph take the place of all others; a message may be narrower than h, ``M h``; what is
    lost on the way counts as zeros in the mean.

    Args:
        in_dim: Input width.
        hidden: Width H of all layers.
        sharing: Who uses which weights.
        generator: Source of the initial weights.
        rounds: Rounds of messages in a step.
        recurrent: Whether an LSTM remembers.
        message_dim: Width of a message; None sends h itself.
        encoder_layers: Layers of the encoder.
        activation: Of the encoder.
        encoders: Who uses which weights of the encoder; None for ``sharing``.
    """

    gated = False

    def __init__(
        self,
        in_dim: int,
        hidden: int,
        sharing: Sharing,
        generator: torch.Generator,
        rounds: int = 1,
        recurrent: bool = False,
        message_dim: int | None = None,
        encoder_layers: int = 1,
        activation: str = "tanh",
        encoders: Sharing | None = None,
    ) -> None:
        super().__init__()
        gain = relu_gain("tanh")
        self.out_dim, self.rounds, self.message_dim = hidden, rounds, message_dim or hidden
        self.encoder = MLP(in_dim, (hidden,) * encoder_layers, encoders or sharing, generator, activation)
        self.say = None if message_dim is None else Linear(hidden, message_dim, sharing, generator)
        self.listen = nn.ModuleList(Linear(self.message_dim, hidden, sharing, generator, gain) for _ in range(rounds))
        self.cell = LSTM(hidden, hidden, sharing, generator) if recurrent else None
        again = 0 if recurrent else rounds
        self.keep = nn.ModuleList(Linear(hidden, hidden, sharing, generator, gain) for _ in range(again))
        self.state_dim = 0 if self.cell is None else self.cell.state_dim

    def forward(self, x: Tensor, state: Tensor, wire: Wire) -> tuple[Tensor, Tensor]:
        """One step; arguments as in :class:`marl.networks.messaging.base.Communication`."""
        e = self.encoder(x)
        h = e if self.cell is None else state[..., : self.out_dim]
        gate = self.speaks(h, wire)
        never = torch.zeros_like(wire.alive)  # what is forgotten was forgotten before the first round
        for k, listen in enumerate(self.listen):
            told = e + listen(wire.send(h if self.say is None else self.say(h), gate).mean())
            if self.cell is None:
                h = torch.tanh(told + self.keep[k](h))
            else:
                h, state = self.cell(told, state, never)
        return h, state

    def speaks(self, h: Tensor, wire: Wire) -> Tensor | None:
        """``[*, N, 1]`` who speaks in this step; None for everyone."""
        return None


class IC3Net(CommNet):
    """CommNet with an LSTM and agents that decide whether to speak (Singh, Jain and Sukhbaatar 2019, arXiv:1812.09755).

    ``c_i = sum_j g_j h_j / |neighbours|`` with a gate ``g_j ~ Bernoulli(sigmoid(w h_j))`` drawn once a step from
    what j remembers.

    Deviation: the paper learns gates by REINFORCE, as a second action. Here they are drawn inside the network and
    carry the gradient of their relaxation (:meth:`Wire.gate`), so that every algorithm can learn them; given the
    seeds of its draws, a policy is what it is without gates. They are drawn in evaluation as in training.

    Args:
        in_dim: Input width.
        hidden: Width H of all layers.
        sharing: Who uses which weights.
        generator: Source of the initial weights.
        temperature: Of the gates' relaxation.
        kwargs: As in :class:`CommNet`.
    """

    gated = True

    def __init__(
        self,
        in_dim: int,
        hidden: int,
        sharing: Sharing,
        generator: torch.Generator,
        temperature: float = 1.0,
        **kwargs: object,
    ) -> None:
        super().__init__(in_dim, hidden, sharing, generator, recurrent=True, **kwargs)  # type: ignore[arg-type]
        self.gate = Linear(hidden, 1, sharing, generator)
        self.temperature = temperature

    def speaks(self, h: Tensor, wire: Wire) -> Tensor:
        """``[*, N, 1]`` who speaks in this step: 1 or 0."""
        return wire.gate(self.gate(h), self.temperature)
