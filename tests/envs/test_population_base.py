"""Populations: groups, views, and everything that can happen to modules and links."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import networkx as nx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from coordination import tree
from coordination.topology.builders import build
from envs.checks import check
from envs.native import NativeEnv
from envs.native.parallel import NativeParallel
from envs.population import base
from envs.population.base import Population, modules_spec
from envs.scripted import random_action
from envs.spaces import ActionSpec, ObservationSpec

EVERYTHING = {
    "fail": 0.2,
    "repair": 0.4,
    "leave": 0.1,
    "join": 0.3,
    "drop": 0.2,
    "partition": 0.3,
    "heal": 0.4,
    "rewire": 0.2,
}


@tree.struct
class Talk:
    said: Tensor = tree.axes("N")
    did: Tensor = tree.axes("N")
    age: Tensor = tree.axes("N")


class Chatter(Population[Talk]):
    """Modules add up what they hear, remember their last action, and are paid their age."""

    def __init__(self, *, num_agents=None, modules=None, topology="ring", dynamics=None, horizon=None):
        agents = modules_spec(num_agents, modules, ObservationSpec.named(talk=3), ActionSpec.box(1, 2, 1))
        super().__init__(agents, topology=topology, dynamics=dynamics, horizon=horizon)

    def begin(self, generator, n):
        said = torch.rand(n, self.num_agents, generator=generator)
        return Talk(said, torch.zeros_like(said), torch.zeros_like(said))

    def play(self, state, action, generator):
        said = 0.3 * state.modules.said + 0.2 * state.heard(state.modules.said) + 0.01 * state.num_heard()
        return Talk(said, action[..., 0], state.modules.age + 1), state.modules.age + 1

    def observe(self, state):
        talk = state.modules
        return torch.stack([talk.said, talk.did, talk.age], -1)


def play(env: NativeEnv, steps: int, seed: int = 0):
    """Views before each step, and the steps."""
    view, generator = env.reset(seed=seed), torch.Generator().manual_seed(seed)
    for _ in range(steps):
        step = env.step(random_action(view, env.agents, generator))
        yield view, step
        view = step.view


def states(task: Population, copies: int, steps: int):
    """The states of one run, without restarts."""
    generator = torch.Generator().manual_seed(1)
    state, action = task.initial(generator, copies), torch.ones(copies, task.num_agents, 1)
    for _ in range(steps):
        before, (state, _, terminated) = state, task.advance(state, action, generator)
        yield before, state, terminated


def ends(view) -> tuple[Tensor, Tensor]:
    sender, receiver = view.graph.topology.edges
    return sender, receiver


# -- without dynamics ---------------------------------------------------------------------------------


def test_without_dynamics_everyone_is_there_and_nothing_is_drawn():
    task = Chatter(num_agents=5)
    generator = torch.Generator().manual_seed(0)
    state = task.initial(generator, 3)
    before = generator.get_state()
    after, _, terminated = task.advance(state, torch.ones(3, 5, 1), generator)
    assert torch.equal(generator.get_state(), before)
    view = task.view(after)
    assert view.graph.topology is task.topology
    assert view.graph.live is None
    assert view.acts is None
    assert view.alive.all()
    assert not terminated.any()
    assert not task.ends_early
    assert set(tree.pack(state)["modules"]) == {"said", "did", "age"}
    assert not tree.leaves(state.conditions)


def test_rates_of_zero_are_no_dynamics():
    task = Chatter(dynamics=dict.fromkeys(EVERYTHING, 0))
    assert not tree.leaves(task.initial(torch.Generator(), 2).conditions)
    assert not task.ends_early


def test_kinds_become_groups_in_order():
    spec = Chatter(modules={"sensor": 3, "actuator": 2}).agents
    assert [(g.name, g.start, g.size) for g in spec.groups] == [("sensor", 0, 3), ("actuator", 3, 2)]
    assert spec.names[2:4] == ("sensor_2", "actuator_0")
    assert Chatter().num_agents == 16
    assert Chatter(num_agents=5, modules={"a": 4, "b": 1}).num_agents == 5


@given(n=st.integers(2, 12), seed=st.integers(0, 99), p=st.floats(0, 1), full=st.booleans())
def test_hearing_is_the_product_with_the_links_that_carry(n, seed, p, full):
    """Against a dense matrix of the links that are up between modules that are there, whatever the others hold."""
    topology = build({"name": "erdos_renyi", "p": p}, n, seed)
    task = Chatter(num_agents=n, topology=topology, dynamics=None if full else {**EVERYTHING, "join": 0.1})
    generator = torch.Generator().manual_seed(seed)
    state = task.initial(generator, 3)
    for _ in range(3):
        state = task.advance(state, torch.ones(3, n, 1), generator)[0]
    x = torch.rand(3, n, generator=generator)
    alive = torch.ones(3, n, dtype=torch.bool) if state.alive is None else state.alive
    heard, count = state.heard(torch.where(alive, x, torch.nan)), state.num_heard().expand(3, n)
    for b in range(3):
        edges = topology.edges if state.graph.edges is None else state.graph.edges[b]
        up = torch.ones(edges.shape[1], dtype=torch.bool) if state.graph.live is None else state.graph.live[b]
        dense = torch.zeros(n, n)
        dense[edges[1, up], edges[0, up]] = 1
        dense = dense * alive[b]
        assert torch.allclose(heard[b], dense @ x[b], atol=1e-5)
        assert torch.equal(count[b], dense.sum(1))


# -- modules ------------------------------------------------------------------------------------------


def test_failed_modules_live_but_neither_act_nor_communicate():
    env = NativeEnv(Chatter(num_agents=20, dynamics={"fail": 0.2, "repair": 0.5}), 50)
    assert not env.task.ends_early
    failed = []
    for view, step in play(env, 60):
        works = view.acts
        assert view.alive.all()
        did = step.next_view.obs[..., 1]
        assert torch.equal(did != 0, works)  # actions are at least 1, and read zero where a module does not work
        sender, receiver = ends(view)
        assert torch.equal(view.graph.live, works[:, sender] & works[:, receiver])
        assert (step.reward > 0).all()
        failed.append((~works).float().mean())
    assert float(torch.stack(failed[20:]).mean()) == pytest.approx(0.2 / 0.7, abs=0.01)


def test_without_repair_failures_last():
    views = [view.acts for view, _ in play(NativeEnv(Chatter(num_agents=50, dynamics={"fail": 0.1}), 4), 30)]
    assert all((later <= earlier).all() for earlier, later in pairwise(views))
    assert 0 < views[-1].float().mean() < 0.3


def test_leaving_is_dying_and_a_slot_stays_empty_for_a_view():
    task = Chatter(num_agents=30, dynamics={"leave": 0.2, "join": 1.0})
    assert task.ends_early
    env, last = NativeEnv(task, 40), None
    for view, step in play(env, 40):
        after = step.next_view.alive
        assert torch.equal(step.terminated, view.alive & ~after)
        assert torch.equal(step.reward, torch.where(view.alive, view.obs[..., 2] + 1, 0.0))
        came = after & ~view.alive
        assert torch.equal(came, ~view.alive)  # with certainty, one view later
        assert (step.next_view.obs[..., 1:][came] == 0).all()  # fresh: nothing done, no age
        assert (step.next_view.obs[..., 2][after & view.alive] == view.obs[..., 2][after & view.alive] + 1).all()
        last = view
    assert last is not None
    assert float((~last.alive).float().mean()) == pytest.approx(1 / 6, abs=0.04)  # away one view in 1 + 1 / 0.2


def test_a_copy_that_nobody_is_left_in_begins_anew():
    env = NativeEnv(Chatter(num_agents=3, dynamics={"leave": 0.5}), 200)
    over = torch.zeros(200, dtype=torch.bool)
    for _, step in play(env, 12):
        assert torch.equal(step.over, ~step.next_view.alive.any(-1))
        assert step.view.alive[step.over].all()
        assert (step.view.obs[step.over][..., 2] == 0).all()
        over |= step.over
    assert over.float().mean() > 0.9


def test_who_comes_works():
    task = Chatter(num_agents=40, dynamics={"fail": 0.5, "leave": 0.3, "join": 0.7})
    for before, after, _ in states(task, 20, 20):
        came = after.alive & ~before.alive
        assert after.works[came].all()
        assert not (after.works & ~after.alive).any()


def test_what_empty_slots_hold_changes_nothing():
    task = Chatter(num_agents=12, dynamics=EVERYTHING)
    action = torch.rand(6, 12, 1)
    for state, _, _ in states(task, 6, 15):
        gone = ~state.alive
        spoiled = replace(state, modules=tree.map(lambda x, gone=gone: torch.where(gone, torch.nan, x), state.modules))
        torn = torch.where(gone.unsqueeze(-1), torch.nan, action)
        one, reward, _ = task.advance(state, action, torch.Generator().manual_seed(3))
        two, again, _ = task.advance(spoiled, torn, torch.Generator().manual_seed(3))
        assert torch.equal(reward, again)
        assert (again[gone] == 0).all()
        assert torch.equal(one.modules.said[one.alive], two.modules.said[two.alive])


# -- links --------------------------------------------------------------------------------------------


def test_links_drop_by_themselves_at_every_step():
    live = torch.stack([view.graph.live for view, _ in play(NativeEnv(Chatter(dynamics={"drop": 0.3}), 20), 50)])
    assert float(live.float().mean()) == pytest.approx(0.7, abs=0.01)
    same = (live[1:] == live[:-1]).float().mean()
    assert float(same) == pytest.approx(0.7**2 + 0.3**2, abs=0.015)


def test_a_partition_leaves_two_halves_until_it_heals():
    task = Chatter(num_agents=9, dynamics={"partition": 0.2, "heal": 0.2})
    cut = 0
    for before, after, _ in states(task, 30, 30):
        for b in range(30):
            edges = task.topology.edges[:, after.graph.live[b]].T.tolist()
            graph = nx.Graph(edges)
            graph.add_nodes_from(range(9))
            parts = sorted(len(part) for part in nx.connected_components(graph))
            assert parts == ([9] if after.conditions.cut[b] < 0 else [4, 5])
            if before.conditions.cut[b] >= 0 and after.conditions.cut[b] >= 0:
                assert before.conditions.cut[b] == after.conditions.cut[b]
            cut += len(parts) - 1
    assert cut / 900 == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("topology", ["star", {"name": "small_world", "k": 4, "p": 0.2}])
def test_rewiring_replaces_links_and_keeps_the_shape(topology):
    task = Chatter(num_agents=10, topology=topology, dynamics={"rewire": 0.3})
    original = nx.Graph(task.topology.edges.T.tolist())
    seen = set()
    for before, after, _ in states(task, 4, 10):
        assert (after.conditions.place.sort(-1).values == torch.arange(10)).all()
        assert not torch.equal(before.conditions.place, after.conditions.place)
        for b in range(4):
            edges, start = after.graph.edges[b], after.graph.row_start[b]
            assert nx.is_isomorphic(nx.Graph(edges.T.tolist()), original)
            assert torch.equal(torch.bincount(edges[1], minlength=10), start.diff())
            place = after.conditions.place[b]
            pairs = set(map(tuple, place[edges].T.tolist()))
            assert pairs == set(map(tuple, task.topology.edges.T.tolist()))
            seen.add(tuple(edges.flatten().tolist()))
    assert len(seen) > 5


def test_partitions_go_by_place_where_modules_move():
    task = Chatter(num_agents=8, dynamics={"partition": 1.0, "rewire": 0.5})
    for _, after, _ in states(task, 5, 5):
        for b in range(5):
            kept = nx.Graph(after.graph.edges[b][:, after.graph.live[b]].T.tolist())
            assert sorted(len(part) for part in nx.connected_components(kept)) == [4, 4]


# -- the contract -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dynamics", [None, EVERYTHING, {"leave": 0.2}, {"fail": 0.5}], ids=str)
def test_keeps_the_rules(dynamics):
    check(NativeParallel(Chatter(num_agents=4, dynamics=dynamics, horizon=20))).raise_if_failed()


def test_a_restored_population_goes_on_exactly():
    env = NativeEnv(Chatter(num_agents=7, dynamics=EVERYTHING, horizon=8), 5)
    for _ in play(env, 11):
        pass
    saved = env.state_dict()
    action = torch.rand(5, 7, 1)
    expected = [env.step(action) for _ in range(10)]
    other = NativeEnv(Chatter(num_agents=7, dynamics=EVERYTHING, horizon=8), 5, seed=5)
    other.load_state_dict(saved)
    for step in expected:
        for a, b in zip(tree.leaves(step), tree.leaves(other.step(action)), strict=True):
            assert torch.equal(a, b)


def test_states_are_never_changed_in_place():
    task = Chatter(num_agents=6, dynamics=EVERYTHING)
    state = task.initial(torch.Generator().manual_seed(0), 4)
    kept = tree.map(torch.clone, state)
    task.advance(state, torch.ones(4, 6, 1), torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(state), tree.leaves(kept), strict=True))


def test_memory_of_a_state_is_linear():
    def size(n: int) -> int:
        task = Chatter(num_agents=n, dynamics=EVERYTHING)
        return sum(x.nbytes for x in tree.leaves(task.initial(torch.Generator(), 2)))

    assert size(1000) / size(100) == pytest.approx(10, rel=0.01)


class Moving(Chatter):
    moving = True


def test_refusals():
    with pytest.raises(ValueError, match="unknown dynamics 'fial'; did you mean 'fail'"):
        Chatter(dynamics={"fial": 0.1})
    with pytest.raises(ValueError, match=r"dynamics: drop must be a probability per step in \[0, 1\], got 1.5"):
        Chatter(dynamics={"drop": 1.5})
    with pytest.raises(TypeError, match="dynamics: drop must be a probability per step, got True"):
        Chatter(dynamics={"drop": True})
    with pytest.raises(TypeError, match=r"dynamics: expected rates by event, such as .* got 'fail'"):
        Chatter(dynamics="fail")
    with pytest.raises(ValueError, match="dynamics: join undoes leave, which has no rate; give one or leave join out"):
        Chatter(dynamics={"join": 0.5})
    with pytest.raises(ValueError, match="dynamics: rewire needs fixed places, and the links of Moving move anyway"):
        Moving(dynamics={"rewire": 0.1})
    with pytest.raises(ValueError, match="num_agents: must be at least 2, got 1"):
        Chatter(num_agents=1)
    with pytest.raises(ValueError, match="num_agents: modules count 5, got 4; leave one of the two out"):
        Chatter(num_agents=4, modules={"a": 3, "b": 2})
    with pytest.raises(ValueError, match="modules: expected at least one 'b', got 0"):
        Chatter(modules={"a": 3, "b": 0})
    with pytest.raises(ValueError, match="topology: expected 16 agents, got 8"):
        Chatter(topology=build("ring", 8))
    with pytest.raises(ValueError, match="unknown topology 'rign'; did you mean 'ring'"):
        Chatter(topology="rign")
    with pytest.raises(ValueError, match="horizon: must be at least 1, got 0"):
        Chatter(horizon=0)


def test_the_example_of_the_documentation_runs():
    """The code in the docstring of the base, as it stands there."""
    code = base.__doc__.split("::\n\n")[1].split("\n\nThe rest")[0]
    names = dict(vars(base))
    exec("\n".join(line[4:] for line in code.splitlines()), names)
    for _, step in play(NativeEnv(names["Heating"](num_agents=6, dynamics=EVERYTHING), 3), 5):
        assert step.reward.shape == (3, 6)
