"""LayerNorm under sharing: each set of weights its own scale and shift, equal to torch's for all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec, Group
from marl.networks.layers.mlp import MLP
from marl.networks.layers.sharing import LayerNorm, Sharing

N, DIM = 4, 6
SPACES = ObservationSpec.flat(DIM), ActionSpec.discrete(2)
AGENTS = AgentSpec((Group("a", 0, 1, *SPACES), Group("b", 1, 3, *SPACES)), tuple("wxyz"))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spoilt(sharing: Sharing) -> LayerNorm:
    """A layer whose scales and shifts are all different."""
    layer = LayerNorm(DIM, sharing)
    for parameter in layer.parameters():
        parameter.data.normal_(generator=seeded(1))
    return layer


@pytest.mark.parametrize("how", ["all", "group", "none", [0, 1, 0, 1]], ids=str)
def test_every_agent_has_torchs_layer_with_the_weights_of_its_set(how: str | list[int]) -> None:
    sharing = Sharing.of(how, AGENTS)
    layer, x = spoilt(sharing), 3 + 5 * torch.randn(2, 3, N, DIM, generator=seeded(2))
    y = layer(x)
    for i, owner in enumerate(sharing.owner):
        reference = nn.LayerNorm(DIM)
        reference.weight.data, reference.bias.data = layer.weight.data[owner], layer.bias.data[owner]
        torch.testing.assert_close(y[..., i, :], reference(x[..., i, :]))
    assert len(layer.weight) == sharing.copies


def test_an_agents_output_moves_its_own_scale_and_shift_alone() -> None:
    for agent in range(N):
        layer, x = spoilt(Sharing.of("none", AGENTS)), torch.randn(5, N, DIM, generator=seeded(2))
        layer(x)[:, agent].square().sum().backward()
        for parameter in layer.parameters():
            assert parameter.grad is not None
            touched = parameter.grad.abs().sum(-1) > 0
            assert touched.tolist() == [i == agent for i in range(N)]


def test_unshared_networks_with_normalisation_are_separate_networks() -> None:
    """A changed scale of one agent changes its own output and nobody else's, through all layers."""
    sharing = Sharing.of("none", AGENTS)
    network = MLP(DIM, (8, 8), sharing, seeded(), layer_norm=True)
    x = torch.randn(5, N, DIM, generator=seeded(2))
    before = network(x)
    first = network.norms[0]
    assert isinstance(first, LayerNorm)
    first.weight.data.select(0, 2).mul_(2)
    changed = (network(x) != before).any(-1).any(0)
    assert changed.tolist() == [False, False, True, False]
    assert {name for name, _ in network.named_parameters() if "norms" in name} == {
        f"norms.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")
    }
