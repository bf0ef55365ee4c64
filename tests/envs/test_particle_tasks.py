"""What all particle tasks keep: PettingZoo's rules, copies that do not touch each other, padding, scripted play."""

from __future__ import annotations

import pytest
import torch
from mpe_states import random_actions, rough
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test
from pettingzoo.utils.conversions import parallel_to_aec
from torch.testing import assert_close

from coordination import tree
from envs import registry
from envs.checks import check
from envs.making import make
from envs.native.parallel import NativeParallel
from envs.particle.adversary import Adversary
from envs.particle.reference import Reference
from envs.particle.speaker_listener import SpeakerListener
from envs.particle.spread import Spread
from envs.particle.tag import Tag

KINDS = [Adversary, Reference, SpeakerListener, Spread, Tag]
SETTINGS = [(kind, continuous) for kind in KINDS for continuous in (False, True)]


@pytest.mark.parametrize(("kind", "continuous"), SETTINGS)
@pytest.mark.filterwarnings("ignore:.*observation")  # that nothing is bounded
def test_passes_pettingzoo(kind, continuous):
    parallel_api_test(NativeParallel(kind(continuous_actions=continuous)), num_cycles=30)
    parallel_seed_test(lambda: NativeParallel(kind(continuous_actions=continuous)), num_cycles=5)
    api_test(parallel_to_aec(NativeParallel(kind(continuous_actions=continuous))), num_cycles=30)
    report = check(NativeParallel(kind(continuous_actions=continuous)), episodes=1)
    report.raise_if_failed()
    assert report.replayable
    assert report.episode_length == 25


@pytest.mark.parametrize(("kind", "continuous"), SETTINGS)
def test_copies_do_not_touch_each_other(kind, continuous):
    """Law: a batch gives what its copies give one by one."""
    task, generator = kind(continuous_actions=continuous), torch.Generator().manual_seed(0)
    state = rough(task.initial(generator, 8), generator)
    action = random_actions(task, generator, 8)
    after, reward, _ = task.advance(state, action, generator)
    obs, info = task.view(after).obs, task.info(after)
    for b in range(8):
        one = slice(b, b + 1)
        alone, paid, _ = task.advance(tree.index(state, one), action[one], generator)
        assert_close(paid, reward[one], atol=1e-5, rtol=1e-5)
        assert_close(task.view(alone).obs, obs[one], atol=1e-5, rtol=1e-5)
        for name, value in task.info(alone).items():
            assert_close(value, info[name][one], atol=1e-5, rtol=1e-5)
    assert set(info) == set(task.agents.info)


@pytest.mark.parametrize(("kind", "continuous"), SETTINGS)
def test_states_and_actions_are_left_as_they_were(kind, continuous):
    task, generator = kind(continuous_actions=continuous), torch.Generator().manual_seed(0)
    state = rough(task.initial(generator, 4), generator)
    action = random_actions(task, generator, 4)
    before = tree.map(torch.clone, state), action.clone()
    task.advance(state, action, generator)
    assert torch.equal(action, before[1])
    for value, copy in zip(tree.leaves(state), tree.leaves(before[0]), strict=True):
        assert torch.equal(value, copy)


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("name", registry.SCRIPTED)
def test_scripted_policies_play_both_forms_alike(name, continuous):
    """Observations of mpe2 come without the names of their parts; native ids are those of mpe2 without the frame."""
    scripted = registry.load(registry.SCRIPTED[name])
    native = name.removeprefix("mpe2.simple_").rpartition("_")[0]
    assert registry.scripted(native) == registry.scripted(name)
    theirs, ours = (make(env, 2, continuous_actions=continuous) for env in (name, native))
    view = theirs.reset(seed=0)
    action = scripted(view, theirs.agents)
    assert torch.equal(action, scripted(view, ours.agents))
    step = theirs.step(action)
    assert torch.isfinite(step.reward).all()
    theirs.close()
    folded = type(view)(view.obs.unsqueeze(0), view.alive.unsqueeze(0), view.graph)
    assert torch.equal(scripted(folded, ours.agents), action.unsqueeze(0))


@pytest.mark.parametrize("name", [name for name in registry.SCRIPTED if name != "mpe2.simple_spread_v3"])
def test_scripted_policies_refuse_other_observations(name):
    other = Spread(num_agents=7)
    view = other.view(other.initial(torch.Generator(), 2))
    with pytest.raises(ValueError, match="expected groups observing"):
        registry.load(registry.SCRIPTED[name])(view, other.agents)
