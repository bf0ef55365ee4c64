"""Images among observations: encoders against torch, bytes, groups, sharing, moments, and a task that needs them."""

from __future__ import annotations

import pytest
import torch
from feature_probes import Bars, learned
from gymnasium import spaces
from simulated_device import ACCELERATORS, accelerator, assert_same
from torch import Tensor, nn

from coordination import tree
from coordination.graph import Graph
from coordination.topology import empty
from envs.base import View
from envs.spaces import ActionSpec, ObservationSpec, Part
from envs.spec import AgentSpec, Group
from marl.config import ConfigError
from marl.networks.build import build_critic, build_policy
from marl.networks.config import CriticConfig, GraphConfig, ImageConfig, MemoryConfig, MLPConfig, NetworkConfig
from marl.networks.inputs import Inputs
from marl.networks.layers.images import ImageEncoder
from marl.networks.layers.sharing import Sharing
from marl.settings import settings

B = 3
SMALL = ImageConfig(channels=(4, 6), features=8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def torchs(encoder: ImageEncoder, p: int = 0) -> nn.Sequential:
    """The encoder of one set of weights as torch's own layers, for ``[M, H, W, C]`` turned to channels first."""
    layers: list[nn.Module] = []
    for weight, bias, stride in zip(encoder.weights, encoder.biases, encoder.strides, strict=True):
        made, came, *kernel = weight[p].shape
        layers += [nn.Conv2d(came, made, tuple(kernel), stride), nn.ReLU()]
        layers[-2].weight.data, layers[-2].bias.data = weight[p].data, bias[p].data
    flat = encoder.read.weight.shape[1]
    layers += [nn.Flatten(), nn.Linear(flat, encoder.out_dim), nn.ReLU()]
    layers[-2].weight.data, layers[-2].bias.data = encoder.read.weight[p].data.T, encoder.read.bias[p].data
    return nn.Sequential(*layers)


@pytest.mark.parametrize("owner", [[0] * 4, [0, 1, 2, 3], [1, 0, 1, 2]], ids=["all", "none", "explicit"])
def test_an_encoder_equals_torchs_convolutions_agent_by_agent(owner: list[int]) -> None:
    shape, n = (7, 5, 3), len(owner)
    mode = "all" if max(owner) == 0 else "none" if len(set(owner)) == n else "explicit"
    encoder = ImageEncoder(shape, SMALL, Sharing(owner, mode), seeded())
    for bias in encoder.biases:
        bias.data.normal_(generator=seeded(1))
    x = torch.rand(2, B, n, 7 * 5 * 3, generator=seeded(2))
    y = encoder(x)
    assert y.shape == (2, B, n, 8)
    for i, p in enumerate(owner):
        pictures = x[:, :, i].reshape(-1, *shape).permute(0, 3, 1, 2)
        torch.testing.assert_close(y[:, :, i].flatten(0, 1), torchs(encoder, p)(pictures), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("shape", "windows"),
    [
        ((84, 84, 4), [(8, 8), (4, 4), (3, 3)]),
        ((210, 160, 3), [(8, 8), (4, 4), (3, 3)]),
        ((36, 36, 1), [(8, 8), (4, 4), (3, 3)]),
        ((13, 13, 5), [(3, 3), (3, 3), (3, 3)]),
        ((5, 4, 2), [(3, 3), (3, 2), (1, 1)]),
        ((1, 1, 7), [(1, 1), (1, 1), (1, 1)]),
    ],
)
def test_kernels_fit_images_of_any_size(shape: tuple[int, int, int], windows: list[tuple[int, int]]) -> None:
    encoder = ImageEncoder(shape, ImageConfig(), Sharing([0], "all"), seeded())
    assert [tuple(w.shape[-2:]) for w in encoder.weights] == windows
    assert encoder.strides == ((4, 2, 1) if min(shape[:2]) >= 36 else (1, 1, 1))
    if shape == (84, 84, 4):  # Mnih et al. 2015: 32 x 20 x 20, 64 x 9 x 9, 64 x 7 x 7
        assert encoder.read.weight.shape[1] == 64 * 7 * 7
    y = encoder(torch.rand(2, 1, shape[0] * shape[1] * shape[2], generator=seeded()))
    assert y.shape == (2, 1, 128)


def test_given_kernels_and_strides_are_used_and_counted() -> None:
    config = ImageConfig(channels=(4, 4), kernel=(2, 5), stride=(2, 1))
    encoder = ImageEncoder((8, 8, 1), config, Sharing([0], "all"), seeded())
    assert [tuple(w.shape[-2:]) for w in encoder.weights] == [(2, 2), (4, 4)]
    assert encoder.strides == (2, 1)
    with pytest.raises(ConfigError, match="stride: expected 2 numbers, one for each convolution, got 1"):
        settings({"images": {"channels": [4, 4], "stride": [2]}})


def mixed() -> AgentSpec:
    """Two seers of a speed, a picture and a compass; two walkers of three numbers."""
    seen = spaces.Dict(
        {
            "speed": spaces.Box(-1, 1, (1,)),
            "picture": spaces.Box(0, 255, (6, 6, 2), "uint8"),
            "compass": spaces.Box(-1, 1, (1,)),
        }
    )
    seer, do = ObservationSpec.from_space(seen), ActionSpec.discrete(3)
    groups = (Group("seer", 0, 2, seer, do), Group("walker", 2, 2, ObservationSpec.flat(3), do))
    return AgentSpec(groups, ("a", "b", "c", "d"))


def mixed_obs(agents: AgentSpec) -> Tensor:
    parts = {part.name: part for part in agents.groups[0].observation.parts}
    obs = torch.randn(B, 4, agents.obs_dim, generator=seeded(1))
    picture = parts["picture"]
    pixels = torch.randint(256, (B, 2, picture.stop - picture.start), generator=seeded(2)).float()
    obs[:, :2, picture.start : picture.stop] = pixels
    obs[:, 2:, 3:] = 0
    return obs


def view(obs: Tensor, alive: Tensor | None = None) -> View:
    alive = torch.ones(obs.shape[:-1], dtype=torch.bool) if alive is None else alive
    return View(obs, alive, Graph(topology=empty(obs.shape[-2])))


def test_images_become_features_beside_the_other_columns_of_each_group() -> None:
    agents = mixed()
    obs, inputs = mixed_obs(agents), Inputs(mixed(), "onehot", False, seeded(), SMALL)
    x = inputs(view(obs))
    assert x.shape == (B, 4, inputs.out_dim) == (B, 4, 3 + 8 + 4)
    parts = {part.name: slice(part.start, part.stop) for part in agents.groups[0].observation.parts}
    assert torch.equal(x[:, :2, :2], torch.cat([obs[:, :2, parts[name]] for name in parts if name != "picture"], -1))
    assert (x[:, :2, 2] == 0).all()
    assert torch.equal(x[:, 2:, :3], obs[:, 2:, :3])
    assert inputs.images is not None
    (encoder,) = inputs.images.encoders.values()
    pixels = obs[:, :2, parts["picture"]].reshape(-1, 6, 6, 2).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(x[:, :2, 3:11].flatten(0, 1), torchs(encoder)(pixels))
    assert (x[:, 2:, 3:11] == 0).all()
    assert torch.equal(x[..., 11:], torch.eye(4).expand(B, -1, -1))


def test_bytes_are_divided_by_255() -> None:
    agents = AgentSpec.single(2, ObservationSpec.flat(4), ActionSpec.discrete(2))
    obs = torch.randint(256, (B, 2, 4), generator=seeded(), dtype=torch.uint8)
    seen = Inputs(agents, "none", False, seeded())(view(obs))
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen, obs.float() / 255)
    among = ObservationSpec.from_space(spaces.Tuple([spaces.Box(-9, 9, (1,)), spaces.Box(0, 255, (3,), "uint8")]))
    agents = AgentSpec.single(2, among, ActionSpec.discrete(2))
    seen = Inputs(agents, "none", False, seeded())(view(obs.float()))
    torch.testing.assert_close(seen, obs.float() / torch.tensor([1.0, 255, 255, 255]))


def test_without_settings_for_images_their_pixels_are_columns() -> None:
    inputs = Inputs(mixed(), "none", False, seeded(), None)
    assert inputs.images is None
    assert inputs.out_dim == mixed().obs_dim


def test_two_axes_are_an_image_if_they_hold_bytes() -> None:
    grey, matrix = (spaces.Box(0, 255, (6, 6), kind) for kind in ("uint8", "float32"))
    assert ObservationSpec.from_space(grey).parts[0].image == (6, 6, 1)
    assert ObservationSpec.from_space(matrix).parts[0].image is None
    assert Part("x", 0, 8, (2, 2, 2)).image == (2, 2, 2)


def test_moments_are_of_the_other_columns_alone() -> None:
    agents = mixed()
    inputs = Inputs(agents, "none", True, seeded(), SMALL)
    assert inputs.moments is not None
    assert inputs.moments.mean.shape == (2, 3)
    obs = mixed_obs(agents)
    before = inputs(view(obs))
    inputs.update(view(obs))
    after = inputs(view(obs))
    torch.testing.assert_close(after[..., 3:], before[..., 3:])
    torch.testing.assert_close(after[:, :2, :2].mean((0, 1)), torch.zeros(2), atol=1e-5, rtol=0)
    pictures = Bars().agents.groups[0].observation.parts[1]
    alone = ObservationSpec((Part("picture", 0, 36, pictures.shape, True),))
    bare = Inputs(AgentSpec.single(2, alone, ActionSpec.discrete(2)), "none", True, seeded(), SMALL)
    bare.update(view(torch.rand(B, 2, 36)))
    assert bare.moments is None
    assert bare.out_dim == 8


def twins(n: int = 4) -> AgentSpec:
    """Two groups that see pictures of one form."""
    see, do = ObservationSpec((Part("picture", 0, 36, (6, 6, 1), True),)), ActionSpec.discrete(2)
    half = n // 2
    groups = (Group("a", 0, half, see, do), Group("b", half, half, see, do))
    return AgentSpec(groups, tuple(f"{i}" for i in range(n)))


@pytest.mark.parametrize(
    ("sharing", "sets"), [("all", [1]), ("group", [1, 1]), ("none", [2, 2]), ((0, 1, 1, 1), [2, 1])], ids=str
)
def test_who_shares_what_reads_images(sharing: str | tuple[int, ...], sets: list[int]) -> None:
    config = NetworkConfig(critic=CriticConfig(name="local"), sharing=sharing, images=SMALL)
    images = build_policy(config, twins(), seeded()).trunk.inputs.images
    assert images is not None
    assert [encoder.sets for encoder in images.encoders.values()] == sets  # type: ignore[union-attr]
    obs = torch.randint(256, (1, 1, 36), generator=seeded(), dtype=torch.uint8).expand(B, 4, -1)
    features = images(obs / 255.0)[0]
    owner = {"all": [0] * 4, "group": [0, 0, 1, 1], "none": [0, 1, 2, 3]}.get(str(sharing), [0, 1, 2, 2])
    for i in range(4):
        for j in range(4):
            assert torch.allclose(features[i], features[j]) == (owner[i] == owner[j])


@pytest.mark.parametrize("body", [MLPConfig(hidden=(8,)), GraphConfig(hidden=8)])
@pytest.mark.parametrize("critic", ["local", "central", "graph", "attention"])
@pytest.mark.parametrize("memory", [None, MemoryConfig(hidden=8)])
def test_dead_slots_change_nothing_with_any_body_and_memory(
    body: MLPConfig | GraphConfig, critic: str, memory: MemoryConfig | None
) -> None:
    agents, alive, results = mixed(), torch.rand(B, 4, generator=seeded(3)) < 0.6, []
    alive[:, 0] = True
    config = NetworkConfig(policy=body, critic=CriticConfig(name=critic), images=SMALL, memory=memory)
    for filler in (0.0, float("nan"), 1e9):
        obs = torch.where(alive.unsqueeze(-1), mixed_obs(agents), filler).requires_grad_()
        nets = [make(config, agents, seeded()) for make in (build_policy, build_critic)]
        outputs = [nets[0](view(obs, alive))[0].sum(-1), nets[1](view(obs, alive))[0]]
        sum(torch.where(alive, y, 0.0).sum() for y in outputs).backward()
        assert torch.equal(obs.grad[~alive], torch.zeros_like(obs.grad[~alive]))
        grads = [p.grad for net in nets for p in net.parameters() if p.grad is not None]
        results.append([torch.where(alive, y, 0.0).detach() for y in outputs] + grads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("device", ACCELERATORS)
@pytest.mark.parametrize("sharing", ["all", "none"])
def test_an_accelerator_gives_the_same_without_making_the_host_wait(sharing: str, device: str) -> None:
    config = NetworkConfig(critic=CriticConfig(name="local"), images=SMALL, sharing=sharing, normalise_obs=True)
    seen, policy = view(mixed_obs(mixed())), build_policy(config, mixed(), seeded())
    expected = policy(seen)[0].detach()
    with accelerator(device) as there:
        policy.to(there.device)
        moved = tree.to(seen, there.device)
        policy(moved)
        with there.waits() as waits:
            found = policy(moved)[0].detach()
            policy.trunk.inputs.update(moved)
        assert waits == []
        assert_same(found, expected, there.home)


def test_agents_of_one_group_are_interchangeable() -> None:
    obs = torch.randint(256, (B, 4, 36), generator=seeded(), dtype=torch.uint8)
    config = NetworkConfig(policy=MLPConfig(hidden=(8,)), critic=CriticConfig(name="attention"), identity="none")
    order = torch.tensor([1, 0, 3, 2])
    for make in (build_policy, build_critic):
        net = make(config, twins(), seeded())
        torch.testing.assert_close(net(view(obs[:, order]))[0], net(view(obs))[0][:, order])


def test_settings_take_or_leave_images() -> None:
    assert settings({}).images == ImageConfig()
    assert settings({"images": None}).network.images is None


def test_a_picture_tells_what_a_blind_agent_cannot_know() -> None:
    config = NetworkConfig(policy=MLPConfig(hidden=(32,)), critic=CriticConfig(name="local"), images=SMALL)
    assert learned(Bars(), config) > 0.97
    assert 0.4 < learned(Bars(blind=True), config) < 0.6
