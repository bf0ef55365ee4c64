"""VMAS scenarios: batched steps equal VMAS itself; restarts, seeds and saved states."""

from __future__ import annotations

import pytest
import torch
from door_rollouts import allowed_action, play, same

import envs
from envs.door.memory import recall, restore

vmas = pytest.importorskip("vmas")
pytestmark = pytest.mark.filterwarnings("ignore")


def test_steps_equal_vmas_itself():
    door = envs.make("vmas:balance", num_envs=3, num_agents=4)
    assert door.agents.names == tuple(f"agent_{i}" for i in range(4))
    assert [a.kind for a in door.agents.actions] == ["box"]
    view = door.reset(seed=2)
    plain = vmas.make_env("balance", 3, n_agents=4)
    for ours, theirs in zip(door._env.world.entities, plain.world.entities, strict=True):
        for name in ("pos", "vel", "rot", "ang_vel"):
            setattr(theirs.state, name, getattr(ours.state, name).clone())
    plain.scenario.global_shaping = door._env.scenario.global_shaping.clone()
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        action = allowed_action(view, door.agents, generator)
        step = door.step(action)
        obs, rewards, over, _ = plain.step(list(action.unbind(1)))
        alike = ~(over | step.over)
        torch.testing.assert_close(step.next_view.obs[alike], torch.stack(obs, 1)[alike])
        torch.testing.assert_close(step.reward[alike], torch.stack(rewards, 1)[alike])
        view = step.view
        if not alike.all():
            break


def test_the_time_limit_truncates_all_copies_and_each_begins_anew():
    door = envs.make("vmas:simple_spread", num_envs=2, max_steps=3, continuous_actions=False)
    assert door.agents.actions[0].sizes == (9,)
    door.reset(seed=0)
    still = torch.zeros(2, 3, 1, dtype=torch.int64)
    steps = [door.step(still) for _ in range(3)]
    assert [step.over.tolist() for step in steps] == [[False] * 2] * 2 + [[True] * 2]
    assert steps[0].next_view is steps[0].view
    assert steps[2].truncated.all()
    assert not steps[2].terminated.any()
    assert not torch.equal(steps[2].view.obs, steps[2].next_view.obs)


def test_copies_that_end_alone_begin_alone():
    door = envs.make("vmas:balance", num_envs=16, package_mass=50.0, random_package_pos_on_line=True)
    view, generator = door.reset(seed=1), torch.Generator().manual_seed(0)
    for _ in range(90):
        step = door.step(allowed_action(view, door.agents, generator))
        view = step.view
        if step.over.any():
            break
    assert step.terminated[step.over].all()
    assert not step.over.all()
    alone = ~step.over
    assert torch.equal(step.view.obs[alone], step.next_view.obs[alone])
    assert not torch.equal(step.view.obs[step.over], step.next_view.obs[step.over])


def test_the_seed_decides_and_global_generators_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = play(envs.make("vmas:simple_tag", num_envs=2, max_steps=7), 20)
    other = envs.make("vmas:navigation", num_envs=2)  # VMAS keeps one state of its generators for the whole process
    other.reset(seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert same(one, play(envs.make("vmas:simple_tag", num_envs=2, max_steps=7), 20))
    assert not same(one, play(envs.make("vmas:simple_tag", num_envs=2, max_steps=7), 20, seed=9))


@pytest.mark.parametrize("scenario", ["balance", "navigation", "simple_reference", "het_mass", "waterfall"])
def test_a_restored_state_goes_on_exactly(scenario):
    door = envs.make(f"vmas:{scenario}", num_envs=3, max_steps=7)
    view, generator = door.reset(seed=1), torch.Generator().manual_seed(0)
    actions = [allowed_action(view, door.agents, generator) for _ in range(20)]
    for action in actions[:10]:
        door.step(action)
    saved = door.state_dict()
    expected = [door.step(action) for action in actions[10:]]
    fresh = envs.make(f"vmas:{scenario}", num_envs=3, max_steps=7, seed=4)
    fresh.load_state_dict(saved)
    assert fresh.resume_exact
    got = [fresh.step(action) for action in actions[10:]]
    assert all(torch.equal(a.view.obs, b.view.obs) for a, b in zip(expected, got, strict=True))
    assert all(torch.equal(a.reward, b.reward) for a, b in zip(expected, got, strict=True))


def test_what_cannot_be_restored_begins_anew_and_says_so():
    door = envs.make("vmas:football", num_envs=2)
    door.reset(seed=0)
    door.load_state_dict(door.state_dict())
    assert not door.resume_exact
    other = envs.make("vmas:balance", num_envs=2)
    other.reset(seed=0)
    with pytest.raises(ValueError, match=r"saved observations: expected \[B, N, O\] = \(3, 3, 16\), got \(2, 3, 16\)"):
        envs.make("vmas:balance", num_envs=3).load_state_dict(other.state_dict())


def test_teams_graphs_and_one_copy():
    door = envs.make("vmas:simple_tag", num_envs=2, teams={"adversary": 0, "agent": 1}, graph="ring")
    assert door.agents.num_teams == 2
    assert door.reset(seed=0).graph.topology.num_edges == 2 * door.agents.num_agents
    report = envs.check("vmas:balance", episodes=1, max_steps=20)
    assert report.passed, report.problems
    assert len(envs.parallel("vmas:balance", num_agents=2).possible_agents) == 2


def test_order_and_form_of_calls_are_checked():
    door = envs.make("vmas:balance")
    with pytest.raises(RuntimeError, match="step: call reset first"):
        door.step(torch.zeros(1, 3, 2))
    with pytest.raises(RuntimeError, match="state_dict: call reset first"):
        door.state_dict()
    door.reset(seed=0)
    with pytest.raises(ValueError, match=r"action: expected \[B, N, A\] = \(1, 3, 2\), got \(1, 2, 2\)"):
        door.step(torch.zeros(1, 2, 2))
    door.close()
    with pytest.raises(RuntimeError, match="step: the environment is closed"):
        door.step(torch.zeros(1, 3, 2))
    with pytest.raises(ValueError, match="num_envs: must be at least 1, got 0"):
        envs.make("vmas:balance", num_envs=0)
    with pytest.raises(envs.EnvError, match="vmas:balence: "):
        envs.make("vmas:balence")


class Thing:
    """Something of this module that remembers."""

    def __init__(self):
        self.device = torch.device("cpu")
        self.parts = [Part(1.0), Part(2.0)]
        self.parts[0].goal = self.parts[0]


class Part:
    def __init__(self, value):
        self.value, self.count, self.memory, self.goal = torch.tensor([value]), 0, None, None


def test_memory_puts_back_tensors_numbers_and_references():
    here = (__name__.split(".")[0],)
    old, new = Thing(), Thing()
    old.parts[0].goal, old.parts[1].count, old.parts[0].memory = old.parts[1], 7, torch.tensor([5.0])
    assert restore(new, here, recall(old, here))
    assert new.parts[0].goal is new.parts[1]
    assert new.parts[1].count == 7
    assert new.parts[0].memory.tolist() == [5.0]
    old.parts[0].memory += 1
    assert new.parts[0].memory.tolist() == [5.0]
    short = Thing()
    short.parts = short.parts[:1]
    assert not restore(short, here, recall(old, here))
    old.records = {old.parts[0]: {"x": torch.zeros(1)}}
    assert not restore(new, here, recall(old, here))
