"""NativeEnv: restarts, time limits, deaths, seeds and checkpoints, for tasks that end together and apart."""

from __future__ import annotations

import pytest
import torch
from toy_tasks import Fading, FadingState

from coordination import tree
from envs.matrix.games import Climbing
from envs.native import NativeEnv
from envs.particle.spread import Spread
from envs.scripted import random_action


def play(env: NativeEnv, view, steps: int, seed: int = 0):
    generator, played = torch.Generator().manual_seed(seed), []
    for _ in range(steps):
        played.append(env.step(random_action(view, env.agents, generator)))
        view = played[-1].view
    return played


def equal(a, b) -> bool:
    return all(
        torch.equal(x.nan_to_num(7), y.nan_to_num(7)) for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True)
    )


def test_copies_restart_when_all_acting_agents_are_out():
    """Lives of 1 to 5 steps: what is told of each copy follows from the state it began with; the rock never counts."""
    env = NativeEnv(Fading(), 64)
    view = env.reset(seed=0)
    left = env.state_dict()["state"]["left"]
    for t, step in enumerate(play(env, view, 5)):
        first_episode = left[:, :3].amax(-1) > t
        expected = (left == t + 1)[first_episode]
        assert torch.equal(step.terminated[first_episode], expected)
        assert torch.equal(step.over[first_episode], left[first_episode, :3].amax(-1) == t + 1)
        assert torch.equal(step.next_view.alive[first_episode], (left > t + 1)[first_episode])
        assert not step.truncated.any()
        assert step.view.alive[step.over].all()
        assert torch.equal(step.next_view.alive[~step.over], step.view.alive[~step.over])


def test_time_limits_truncate_the_living_only():
    env = NativeEnv(Fading(horizon=2), 200)
    view = env.reset(seed=1)
    left = env.state_dict()["state"]["left"]
    first, second = play(env, view, 2)
    assert not first.truncated.any()
    together = left[:, :3].amax(-1) > 1  # copies that did not restart after the first step
    assert torch.equal(second.truncated[together], (left > 2)[together])
    assert torch.equal(second.terminated[together], (left == 2)[together])
    assert second.over[together].all()
    assert not (second.terminated & second.truncated).any()
    assert second.next_view.alive[second.truncated].all()


class Together(Spread):
    """A simple task: everyone terminates at step 2, and its views say nothing of it."""

    ends_early = True

    def advance(self, state, action, generator):
        after, reward, _ = super().advance(state, action, generator)
        moved = (after.position != state.position).flatten(1).any(-1)  # from the second step on
        return after, reward, moved.unsqueeze(-1).expand_as(reward)


def test_termination_goes_before_the_time_limit():
    env = NativeEnv(Together(max_cycles=2), 4)
    env.reset(seed=0)
    first, second, third = (env.step(torch.ones(4, 3, 1, dtype=torch.int64)) for _ in range(3))
    assert not (first.over | third.over).any()
    assert second.terminated.all()
    assert second.over.all()
    assert not second.truncated.any()


def test_a_copy_at_its_limit_leaves_the_others_alone():
    env = NativeEnv(Fading(horizon=3), 50)
    for step in play(env, env.reset(seed=2), 9):
        assert equal(tree.index(step.view, ~step.over), tree.index(step.next_view, ~step.over))


def test_ending_together_equals_ending_apart():
    """Spread told that its agents might terminate goes the slow way, to the same numbers."""

    class Apart(Spread):
        ends_early = True

    one, two = NativeEnv(Spread(max_cycles=4), 3), NativeEnv(Apart(max_cycles=4), 3)
    for a, b in zip(play(one, one.reset(seed=0), 10), play(two, two.reset(seed=0), 10), strict=True):
        assert equal(a, b)


def test_same_seed_same_numbers():
    one, two = NativeEnv(Fading(), 8, seed=3), NativeEnv(Fading(), 8)
    a, b = play(one, one.reset(), 20), play(two, two.reset(seed=3), 20)
    assert all(map(equal, a, b))
    assert not equal(one.reset(seed=4).obs, two.reset(seed=3).obs)


@pytest.mark.parametrize("task", [Fading(horizon=4), Spread(max_cycles=6), Climbing(steps=3)], ids=["a", "b", "c"])
@pytest.mark.parametrize("fresh", [True, False])
def test_a_restored_environment_goes_on_exactly(task, fresh):
    env = NativeEnv(task, 5)
    play(env, env.reset(seed=0), 7)
    saved = env.state_dict()
    packed = {**saved, "state": {name: x.clone() for name, x in saved["state"].items()}}
    expected = play(env, env.load_state_dict(saved), 20)
    other = NativeEnv(task, 5, seed=9)
    if not fresh:
        play(other, other.reset(), 3)
    view = other.load_state_dict(packed)
    assert all(map(equal, play(other, view, 20), expected))


def test_stepping_changes_no_saved_tensor():
    env = NativeEnv(Fading(), 6)
    env.reset(seed=0)
    saved = env.state_dict()
    before = {name: x.clone() for name, x in saved["state"].items()}, saved["clock"].clone()
    play(env, env.task.view(FadingState(**saved["state"])), 8)
    assert equal(before, (saved["state"], saved["clock"]))


def test_refusals():
    with pytest.raises(ValueError, match="num_envs: must be at least 1, got 0"):
        NativeEnv(Fading(), 0)
    with pytest.raises(ValueError, match="horizon of Fading: must be at least 1, got 0"):
        NativeEnv(Fading(horizon=0), 1)
    env = NativeEnv(Spread(), 2)
    with pytest.raises(RuntimeError, match="step: call reset first"):
        env.step(torch.zeros(2, 3, 1, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="state_dict: call reset first"):
        env.state_dict()
    env.reset()
    with pytest.raises(ValueError, match=r"action: expected \[B, N, A\] = \(2, 3, 1\), got \(2, 3\)"):
        env.step(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="saved position: expected shape"):
        NativeEnv(Spread(), 3).load_state_dict(env.state_dict())
    saved = {**env.state_dict(), "generator": torch.zeros(16, dtype=torch.uint8)}
    with pytest.raises(ValueError, match="saved generator: of another kind of device"):
        env.load_state_dict(saved)


def test_passive_groups_never_act():
    env = NativeEnv(Fading(), 3)
    view = env.reset(seed=0)
    assert view.acts is not None
    assert view.acting.tolist() == [[True, True, True, False]] * 3
    assert view.alive.all()


class Paid(Fading):
    """Two factors and a cost beside the reward."""

    def factors(self, state: FadingState):
        return state.place[:, :2]

    def cost(self, state: FadingState):
        return -state.place


def test_factors_and_costs_of_a_task_reach_the_step():
    env = NativeEnv(Paid(), 5)
    view = env.reset(seed=0)
    (step,) = play(env, view, 1)
    assert step.factors is not None
    assert step.cost is not None
    assert torch.equal(step.factors, -step.cost[:, :2])
    assert torch.equal(step.reward[:, :2], step.factors)
