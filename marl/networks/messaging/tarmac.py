"""TarMAC: messages with signatures, to which receivers attend."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from marl.networks.layers.mlp import MLP
from marl.networks.layers.recurrent import GRU
from marl.networks.layers.sharing import Linear, Sharing, relu_gain
from marl.networks.messaging.wire import Wire


class TarMAC(nn.Module):
    """Targeted communication (Das, Gervet, Romoff et al. 2019, arXiv:1810.11187).

    After each step every agent sends the signature and the value ``k, v = W_k h, W_v h`` of what it remembers, and
    hears ``c_i = sum_j softmax_j(q_i . k_j / sqrt(d)) v_j`` with ``q = W_q h`` over its neighbours and itself. Further
    rounds go on from ``h' = tanh(W [c, h])``. What was heard in the last of them is input to the next step beside what
    is seen: ``h <- GRU(e + C c, h)``.

    Deviations: neighbours of a graph take the place of all others; queries are made of what is remembered as the
    messages arrive, before the next view; the actions taken are no input.

    Args:
        in_dim: Input width.
        hidden: Width H of all layers.
        sharing: Who uses which weights.
        generator: Source of the initial weights.
        rounds: Rounds of messages in a step.
        message_dim: Width of v.
        signature_dim: Width d of k and q.
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
        message_dim: int = 32,
        signature_dim: int = 16,
        encoder_layers: int = 1,
        activation: str = "tanh",
        encoders: Sharing | None = None,
    ) -> None:
        super().__init__()
        self.out_dim, self.rounds, self.message_dim = hidden, rounds, signature_dim + message_dim
        self.encoder = MLP(in_dim, (hidden,) * encoder_layers, encoders or sharing, generator, activation)
        self.sign = Linear(hidden, signature_dim, sharing, generator)
        self.say = Linear(hidden, message_dim, sharing, generator)
        self.ask = Linear(hidden, signature_dim, sharing, generator)
        gain = relu_gain("tanh")
        self.again = Linear(message_dim + hidden, hidden, sharing, generator, gain) if rounds > 1 else None
        self.listen = Linear(message_dim, hidden, sharing, generator)
        self.cell = GRU(hidden, hidden, sharing, generator)
        self.state_dim = self.cell.state_dim

    def forward(self, x: Tensor, state: Tensor, wire: Wire) -> tuple[Tensor, Tensor]:
        """One step; arguments as in :class:`marl.networks.messaging.base.Communication`."""
        h = state
        heard = self._round(h, wire)
        for _ in range(self.rounds - 1):
            assert self.again is not None
            h = torch.tanh(self.again(torch.cat([heard, h], -1)))
            heard = self._round(h, wire)
        return self.cell(self.encoder(x) + self.listen(heard), state, torch.zeros_like(wire.alive))

    def _round(self, h: Tensor, wire: Wire) -> Tensor:
        return wire.send(torch.cat([self.sign(h), self.say(h)], -1)).attend(self.ask(h))
