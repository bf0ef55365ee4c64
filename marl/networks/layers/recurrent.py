"""Memory of agents, GRU and LSTM, under any sharing; sequences are unrolled with resets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from marl.networks.layers.sharing import Linear, Sharing


class Memory(nn.Module):
    """A recurrent cell for each agent.

    Everything that depends on inputs alone is computed for the whole sequence at once; only the recurrent product runs
    step by step.

    Args:
        in_dim: Input width.
        dim: Width H of the output.
        sharing: Who uses which weights.
        generator: Source of the initial weights.

    Attributes:
        out_dim: Width H of the output.
        state_dim: Width of what is remembered.
    """

    gates: int  # blocks of width H in the affine maps
    state_dim: int

    def __init__(self, in_dim: int, dim: int, sharing: Sharing, generator: torch.Generator) -> None:
        super().__init__()
        self.out_dim = dim
        self.feed = Linear(in_dim, self.gates * dim, sharing, generator)
        self.recur = Linear(dim, self.gates * dim, sharing, generator)

    def forward(self, x: Tensor, hidden: Tensor, forget: Tensor) -> tuple[Tensor, Tensor]:
        """One step.

        Args:
            x: ``[*, N, I]`` inputs.
            hidden: ``[*, N, S]`` what is remembered.
            forget: ``[*, N]`` bool: who forgets first.

        Returns:
            Outputs ``[*, N, H]`` and what is remembered next ``[*, N, S]``.
        """
        return self._step(self.feed(x), torch.where(forget.unsqueeze(-1), 0.0, hidden))

    def unroll(self, x: Tensor, hidden: Tensor, forget: Tensor) -> tuple[Tensor, Tensor]:
        """T steps, ``x [T, *, N, I]`` and ``forget [T, *, N]``; outputs and memories of every step, time first."""
        fed, outputs, memories = self.feed(x), [], []
        for t in range(x.shape[0]):
            h, hidden = self._step(fed[t], torch.where(forget[t].unsqueeze(-1), 0.0, hidden))
            outputs.append(h)
            memories.append(hidden)
        return torch.stack(outputs), torch.stack(memories)

    def _step(self, fed: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class GRU(Memory):
    """Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078), the reset gate after the recurrent product as in cuDNN.

    ``r, z = sigmoid(W x + U h)``, ``n = tanh(W_n x + r * U_n h)``, ``h' = (1 - z) n + z h``.
    """

    gates = 3

    def __init__(self, in_dim: int, dim: int, sharing: Sharing, generator: torch.Generator) -> None:
        super().__init__(in_dim, dim, sharing, generator)
        self.state_dim = dim

    def _step(self, fed: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        fed_r, fed_z, fed_n = fed.chunk(3, -1)
        own_r, own_z, own_n = self.recur(hidden).chunk(3, -1)
        new = torch.tanh(fed_n + torch.sigmoid(fed_r + own_r) * own_n)
        h = torch.lerp(new, hidden, torch.sigmoid(fed_z + own_z))
        return h, h


class LSTM(Memory):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; forget gates of Gers et al. 2000, biased to keep by 1).

    ``i, f, o = sigmoid(W x + U h)``, ``c' = f c + i tanh(W_c x + U_c h)``, ``h' = o tanh(c')``.
    """

    gates = 4
    KEEP_BIAS = 1.0

    def __init__(self, in_dim: int, dim: int, sharing: Sharing, generator: torch.Generator) -> None:
        super().__init__(in_dim, dim, sharing, generator)
        self.state_dim = 2 * dim

    def _step(self, fed: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        h, c = hidden.chunk(2, -1)
        i, f, o, new = (fed + self.recur(h)).chunk(4, -1)
        c = torch.sigmoid(f + self.KEEP_BIAS) * c + torch.sigmoid(i) * new.tanh()
        h = torch.sigmoid(o) * c.tanh()
        return h, torch.cat([h, c], -1)


MEMORIES: dict[str, type[Memory]] = {"gru": GRU, "lstm": LSTM}
