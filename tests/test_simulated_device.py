"""The simulated device keeps CUDA's rules: what it refuses, what it counts, and that it calculates as the CPU does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from simulated_device import HOME, SimulatedGenerator, accelerator, assert_same
from torch import nn
from torch.nn import functional as F

ANYWHERE = torch.arange(12.0).reshape(3, 4)


def draws(device):
    return torch.Generator(device).manual_seed(5)


def test_whatever_is_made_there_lies_there_with_the_numbers_of_the_cpu():
    def made(device):
        x = torch.zeros(3, 4, device=device)
        x[1] = 2.0
        x[0, 1:3] = torch.arange(2, device=device, dtype=torch.float32)
        noise = torch.empty(4, device=device).normal_(generator=draws(device))
        return [
            *(x, x.new_ones(2), torch.full_like(x, 3), torch.eye(2, device=device), noise),
            *(torch.tensor([[1, 2]], device=device), torch.as_tensor(np.ones(2), device=device), ANYWHERE.to(device)),
            *(torch.rand(3, generator=draws(device), device=device), F.one_hot(x[1].long(), 4), x.unsqueeze(0) @ x.T),
            *(torch.randperm(5, generator=draws(device), device=device), torch.arange(12, device=device).chunk(3)),
        ]

    expected = made("cpu")
    with accelerator("meta") as there:
        found = made(there.device)
        assert_same(found, expected, HOME)
        assert found[0].to(there.device) is found[0]
        assert found[0].cpu().numpy().sum() == 9.0
    with pytest.raises(AssertionError, match=r"\(3, 4\) on cpu"):
        assert_same(expected[:1], expected[:1], HOME)


REFUSED = {
    "a sum": lambda x, y: x + y,
    "a device number with a tensor of the CPU": lambda x, y: y + x[0, 0],
    "a stack of numbers": lambda x, y: torch.stack([x[0, 0], torch.tensor(1.0)]),
    "in place on the CPU": lambda x, y: torch.zeros(()).add_(x[0, 0]),
    "a choice": lambda x, y: torch.where(x > 0, x, y),
    "an index": lambda x, y: y[torch.zeros(1, dtype=torch.long, device=x.device)],
    "index_select": lambda x, y: x.index_select(0, torch.zeros(1, dtype=torch.long)),
}


@pytest.mark.parametrize("mixture", REFUSED)
def test_devices_do_not_mix(mixture):
    with accelerator("meta") as there, pytest.raises(RuntimeError, match="same device"):
        REFUSED[mixture](ANYWHERE.to(there.device), torch.ones(3, 4))


def test_numbers_of_the_cpu_and_its_indices_are_taken():
    with accelerator("meta") as there:
        x = ANYWHERE.to(there.device)
        one = torch.tensor(1.0)
        found = [x + one, torch.where(x > 3, one, x), x.clone().masked_fill_(x > 3, one), x[torch.tensor([2, 0])]]
        moved = x.clone().copy_(ANYWHERE + 1)
    where = torch.where(ANYWHERE > 3, 1.0, ANYWHERE)
    assert_same([*found, moved], [ANYWHERE + 1, where, where, ANYWHERE[[2, 0]], ANYWHERE + 1], HOME)


def test_generators_and_numpy_keep_apart():
    with accelerator("meta") as there:
        own, x = torch.Generator(there.device), torch.ones(2, device=there.device)
        assert own.device == HOME
        assert isinstance(own, torch.Generator)
        assert isinstance(torch.Generator(), torch.Generator)
        with pytest.raises(RuntimeError, match="Expected a generator of cpu"):
            torch.rand(2, generator=own)
        with pytest.raises(RuntimeError, match="Expected a generator of meta:0"):
            x.uniform_(generator=torch.Generator())
        for convert in (np.asarray, torch.Tensor.numpy):
            with pytest.raises(TypeError, match="can't convert meta:0 device type tensor to numpy"):
                convert(x)
    assert not isinstance(torch.Generator(), SimulatedGenerator)


WAITING = {
    "item": lambda x: x.sum().item(),
    "tolist": lambda x: x.tolist(),
    "copy to the host": lambda x: x.cpu(),
    "copy to the device": lambda x: torch.tensor([1.0], device=x.device),
    "nonzero": lambda x: x.nonzero(),
    "boolean mask as index": lambda x: x[x > 1],
    "copy of indices to the device": lambda x: x[[0, 2]],
    "_unique2": lambda x: x.unique(),
    "repeat_interleave without output_size": lambda x: x[0].repeat_interleave(torch.ones_like(x[0]).long()),
    "segment_reduce with a look at its lengths": lambda x: torch.segment_reduce(
        x[0], "sum", lengths=torch.full((2,), 2, device=x.device)
    ),
}
QUIET = {
    "a masked fill": lambda x: x.__setitem__(x > 1, 0.0),
    "a slice": lambda x: x.__setitem__((slice(None), 0), 3.0),
    "a given size": lambda x: x[0].repeat_interleave(torch.ones_like(x[0]).long(), output_size=4),
    "a number": lambda x: torch.where(x > 1, 0.0, x) + 1,
    "factories": lambda x: torch.full((2,), 2.0, device=x.device) + torch.arange(2, device=x.device),
    "non_blocking": lambda x: torch.ones(3).to(x.device, non_blocking=True),
}


@pytest.mark.parametrize("name", [*WAITING, *QUIET])
def test_what_makes_the_host_wait_is_written_down(name):
    with accelerator("meta") as there:
        x = ANYWHERE.to(there.device)
        with there.waits() as waits:
            (WAITING | QUIET)[name](x)
    assert len(waits) == (name in WAITING)
    assert all(w.startswith(f"{name} at {__file__}:") for w in waits)


def test_a_network_learns_there_as_on_the_cpu():
    def learned(device):
        net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        with torch.no_grad():
            for i, p in enumerate(net.parameters()):
                p.copy_(torch.sin(torch.arange(p.numel()) + i).reshape(p.shape))
        net = net.to(device)
        adam = torch.optim.Adam(net.parameters(), 0.1, fused=True)
        x = ANYWHERE.to(device)
        for _ in range(3):
            adam.zero_grad()
            net(x).square().mean().backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            adam.step()
        return [p.detach() for p in net.parameters()] + [p.grad for p in net.parameters()]

    expected = learned("cpu")
    with accelerator("meta") as there:
        assert_same(learned(there.device), expected, HOME)
