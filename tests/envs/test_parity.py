"""The parity game pays for the parity of all bits, which cannot be had without all of them."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from envs.base import View
from envs.checks import check
from envs.making import make
from envs.matrix.parity import Parity, ParityState
from envs.matrix.scripted import parity_of_heard
from envs.native import NativeEnv
from envs.native.parallel import NativeParallel


def every_case(task: Parity) -> ParityState:
    """One copy for each of the 2^N equally likely bit patterns."""
    bit = torch.tensor(list(product((0, 1), repeat=task.num_agents)))
    return ParityState(bit, torch.zeros_like(bit, dtype=torch.bool))


def expected(task: Parity, answer: Tensor) -> float:
    """Expected reward of ``answer [2^N, N]``, exactly."""
    _, reward, terminated = task.advance(every_case(task), answer.unsqueeze(-1), torch.Generator())
    assert terminated.all()
    assert (reward == reward[:, :1]).all()
    return float(reward[:, 0].double().mean())


def test_pays_only_if_all_are_right():
    task = Parity(num_agents=3)
    bit = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 0]])
    answer = torch.tensor([[1, 1, 1], [0, 0, 0], [1, 0, 1], [1, 1, 1]]).unsqueeze(-1)
    after, reward, _ = task.advance(ParityState(bit, bit > 1), answer, torch.Generator())
    assert reward.tolist() == [[1] * 3, [1] * 3, [0] * 3, [0] * 3]
    info = task.info(after)
    assert info["optimal"].tolist() == [1, 1, 0, 0]
    torch.testing.assert_close(info["right"], torch.tensor([1, 1, 2 / 3, 0]))


@pytest.mark.parametrize("num_agents", [2, 3, 5, 12])
def test_communication_is_worth_one_half(num_agents):
    task, deaf = Parity(num_agents=num_agents), Parity(num_agents=num_agents, communication=False)
    heard = parity_of_heard(task.view(every_case(task)), task.agents)[..., 0]
    assert expected(task, heard) == 1
    assert expected(deaf, torch.zeros_like(heard)) == 0.5
    alone = parity_of_heard(deaf.view(every_case(deaf)), deaf.agents)[..., 0]
    assert torch.equal(alone, every_case(deaf).bit)
    # all own bits are the parity: where all are 0, and where all are 1 and their number is odd
    assert expected(deaf, alone) == (1 + num_agents % 2) / 2**num_agents


@pytest.mark.parametrize("num_agents", [2, 3])
def test_nothing_without_communication_beats_one_half(num_agents):
    """All joint rules by which every agent answers from its own bit alone."""
    task = Parity(num_agents=num_agents, communication=False)
    bit = every_case(task).bit
    rules = list(product((0, 1), repeat=2))  # the answer to a 0, the answer to a 1
    values = []
    for joint in product(rules, repeat=num_agents):
        answers = torch.tensor(joint).expand(len(bit), -1, -1).gather(-1, bit.unsqueeze(-1))[..., 0]
        values.append(expected(task, answers))
    assert max(values) == 0.5


def test_agents_see_fair_bits_of_their_own():
    """20,000 copies, standard errors of 0.0035 and, for products of two, 0.0031."""
    bits = NativeEnv(Parity(num_agents=3), 20_000).reset(seed=0).obs
    assert bits.shape == (20_000, 3, 1)
    assert ((bits == 0) | (bits == 1)).all()
    second = torch.einsum("bi,bj->ij", bits[..., 0], bits[..., 0]) / 20_000
    torch.testing.assert_close(second, 0.25 + 0.25 * torch.eye(3), atol=0.015, rtol=0)


def links(view: View) -> int:
    assert view.graph.topology is not None
    return view.graph.topology.num_edges


def test_links():
    assert links(NativeEnv(Parity(num_agents=5), 1).reset()) == 20
    assert links(NativeEnv(Parity(num_agents=5, communication=False), 1).reset()) == 0
    assert links(make("parity", num_agents=100, graph="ring").reset(seed=0)) == 200


def test_episodes_of_one_step_with_new_bits():
    env = NativeEnv(Parity(num_agents=30), 5)
    first = env.reset(seed=3)
    step = env.step(parity_of_heard(first, env.agents))
    assert step.reward.eq(1).all()
    assert step.over.all()
    assert step.terminated.all()
    assert not torch.equal(step.view.obs, first.obs)
    assert torch.equal(step.next_view.obs, first.obs)


def test_keeps_the_rules():
    for communication in (True, False):
        report = check(NativeParallel(Parity(communication=communication)))
        report.raise_if_failed()
        assert report.replayable
        assert report.episode_length == 1


def test_refuses_to_play_alone():
    with pytest.raises(ValueError, match="num_agents: must be at least 2, got 1"):
        Parity(num_agents=1)
