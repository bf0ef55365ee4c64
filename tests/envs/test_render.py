"""Pictures: what is drawn where, for every environment, over frames of others, and where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pettingzoo.test import render_test
from pettingzoo.utils.conversions import parallel_to_aec
from toy_tasks import Fading

import envs
from coordination.graph import Graph
from coordination.topology import Topology
from envs import registry
from envs.base import View
from envs.grid.foraging import Foraging
from envs.grid.predator_prey import PredatorPrey
from envs.grid.traffic_junction import TrafficJunction
from envs.native import NativeEnv
from envs.native.parallel import NativeParallel
from envs.particle.spread import Spread
from envs.population.flocking import Flocking
from envs.render.canvas import HEAD, MARGIN, SIZE
from envs.render.colours import RAMP, SERIES, rgb
from envs.render.film import Film
from envs.render.foreign import own_frame, pixel_places
from envs.render.layout import layout
from envs.render.links import lines, open_links
from envs.render.painter import LOOKS, Painter
from envs.render.scene import Scene, cells
from envs.scripted import random_action
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec

SHAPE = (HEAD + SIZE, SIZE, 3)
WHITE = (255, 255, 255)
UNNUMBERED = 31  # so many agents that no number hides their colour


@pytest.mark.parametrize("name", registry.ENVIRONMENTS)
def test_every_environment_can_be_drawn(name):
    env = envs.parallel(name, render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    assert (first.shape, first.dtype) == (SHAPE, np.uint8)
    assert len(np.unique(first[HEAD:].reshape(-1, 3), axis=0)) > 2  # something on white
    env.step(
        {agent: env.action_space(agent).sample() for agent in env.agents} if name != "predator_prey" else zero(env)
    )
    assert not np.array_equal(first, env.render())  # the caption at least


def zero(env):
    return dict.fromkeys(env.agents, 0)


@pytest.mark.parametrize("name", registry.ENVIRONMENTS)
def test_scenes_have_a_place_for_every_agent_of_every_copy(name):
    env = NativeEnv(registry.load(registry.resolve(name).target)(), 3)
    env.reset(seed=0)
    scene = env.scene()
    if scene is None:
        assert registry.resolve(name).target.split(".")[1] in ("matrix", "population")
        return
    assert scene.places.shape == (3, env.agents.num_agents, 2)
    assert all(place.shape[0] == 3 and place.shape[2] == 2 for place in scene.marks.values())
    assert set(scene.marks) <= set(LOOKS)


def test_rendering_is_pettingzoos():
    """Its test asks for a window first, to read the modes, and draws in all of them."""

    def make(render_mode):
        return parallel_to_aec(envs.parallel("spread", render_mode=None if render_mode == "human" else render_mode))

    render_test(make)


def test_nothing_is_drawn_without_a_mode_and_other_modes_are_refused():
    env = NativeParallel(Spread())
    env.reset()
    assert env.render() is None
    with pytest.raises(ValueError, match="render_mode: expected 'rgb_array' or None, got 'human'"):
        envs.parallel("spread", render_mode="human")
    with pytest.raises(RuntimeError, match="render: call reset first"):
        envs.parallel("spread", render_mode="rgb_array").render()
    with pytest.raises(RuntimeError, match="scene: call reset first"):
        NativeEnv(Spread(), 1).scene()


# -- what is drawn where -------------------------------------------------------------------------


def spec(n: int) -> AgentSpec:
    return AgentSpec.single(n, ObservationSpec.flat(1), ActionSpec.discrete(2))


def view_of(n: int, pairs: list[list[int]] | None = None, alive: list[int] | None = None, **parts) -> View:
    there = torch.zeros(1, n, dtype=torch.bool)
    there[:, range(n) if alive is None else alive] = True
    edges = torch.tensor(pairs, dtype=torch.int64).T if pairs else torch.zeros(2, 0, dtype=torch.int64)
    return View(torch.zeros(1, n, 1), there, Graph(topology=Topology(edges, n)), **parts)


def corners(n: int) -> Scene:
    """Agents 0 to 3 in the corners of a square from -1 to 1, all others in its middle."""
    places = torch.zeros(1, n, 2)
    places[0, :4] = torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]])
    return Scene(places)


def colour_at(picture: np.ndarray, x: float, y: float) -> tuple[int, ...]:
    """Of the place x, y of a square from -1 to 1."""
    share = 1 / (1 + 2 * MARGIN)
    row, column = HEAD + SIZE / 2 * (1 - share * y), SIZE / 2 * (1 + share * x)
    return tuple(picture[round(row), round(column)].tolist())


def test_agents_stand_at_their_places_and_links_between_them():
    pairs = [[0, 1], [1, 0], [2, 3]]
    picture = Painter(spec(UNNUMBERED)).paint(view_of(UNNUMBERED, pairs), corners(UNNUMBERED))
    assert colour_at(picture, -1, -1) == colour_at(picture, 1, 1) == rgb(SERIES[0])
    assert colour_at(picture, 0.5, -1) != WHITE
    assert colour_at(picture, 0.5, 1) != WHITE
    assert colour_at(picture, -1, 0.5) == WHITE  # 0 and 2 are not linked


def test_links_that_are_down_and_agents_that_are_dead_are_not_drawn():
    view = view_of(UNNUMBERED, [[0, 1], [2, 3]], alive=[0, 1, 3])
    down = Graph(topology=view.graph.topology, live=torch.tensor([[False, True]]))
    painter = Painter(spec(UNNUMBERED))
    scene = Scene(torch.cat([corners(UNNUMBERED).places[:, :4], torch.full((1, UNNUMBERED - 4, 2), torch.nan)], 1))
    picture = painter.paint(View(view.obs, view.alive, down), scene)
    assert colour_at(picture, 1, -1) == rgb(SERIES[0])
    assert colour_at(picture, -1, 1) == WHITE  # dead
    assert colour_at(picture, 0, -1) == colour_at(picture, 0, 1) == WHITE  # down; at a dead agent
    assert colour_at(picture, 0, 0) == WHITE  # no place


def test_colours_are_rewards_on_the_scale_of_the_episode():
    painter, view, scene = Painter(spec(UNNUMBERED)), view_of(UNNUMBERED), corners(UNNUMBERED)
    paid = torch.zeros(1, UNNUMBERED)
    paid[0, :2] = torch.tensor([-2.0, 2.0])
    picture = painter.paint(view, scene, paid)
    least, most = (tuple(int(x) for x in RAMP[i]) for i in (0, -1))
    assert (colour_at(picture, -1, -1), colour_at(picture, 1, -1)) == (least, most)
    later = painter.paint(view, scene, torch.full((1, UNNUMBERED), -2.0))
    assert colour_at(later, 1, 1) == least
    painter.begin()  # all alike in a new episode: no scale
    assert colour_at(painter.paint(view, scene, torch.full((1, UNNUMBERED), -2.0)), 1, 1) == rgb(SERIES[0])


def test_who_does_not_act_is_hollow():
    acts = torch.ones(1, UNNUMBERED, dtype=torch.bool)
    acts[0, 0] = False
    picture = Painter(spec(UNNUMBERED)).paint(view_of(UNNUMBERED, acts=acts), corners(UNNUMBERED))
    assert (colour_at(picture, -1, -1), colour_at(picture, 1, -1)) == (WHITE, rgb(SERIES[0]))


def test_the_first_row_of_a_grid_is_at_the_top():
    places = cells(torch.tensor([[0, 3]]), torch.tensor([[0, 3]]), 4, torch.tensor([[True, False]]))
    assert places[0, 0].tolist() == [0, 3]
    assert places[0, 1].isnan().all()
    picture = Painter(spec(2)).paint(view_of(2), Scene(places, {"food": places[:, :1]}, (4, 4)))
    cell = SIZE // 4
    filled = [tuple(picture[HEAD + r * cell + cell // 4, c * cell + cell // 2].tolist()) for r, c in ((0, 0), (3, 3))]
    assert filled == [rgb(SERIES[0]), WHITE]


def test_groups_have_colours_and_marks_and_empty_slots_show():
    env = NativeParallel(Fading(), render_mode="rgb_array")
    env.reset(seed=0)
    colours = {tuple(c) for c in env.render()[HEAD:].reshape(-1, 3).tolist()}
    assert {rgb(SERIES[0]), rgb(SERIES[1])} <= colours  # walkers and the flyer
    while env.agents:
        env.step({agent: env.action_space(agent).sample() for agent in env.agents})
    gone = {tuple(c) for c in env.render()[HEAD:].reshape(-1, 3).tolist()}
    assert not {rgb(SERIES[0]), rgb(SERIES[1])} & gone


def test_large_populations_are_drawn_in_part():
    env = envs.parallel("ising", num_agents=3_000, render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == SHAPE
    assert env._film._painter.shown == 2_000


# -- scenes --------------------------------------------------------------------------------------


def test_scenes_say_where_things_are():
    generator = torch.Generator().manual_seed(0)
    state = Spread().initial(generator, 2)
    scene = Spread().scene(state)
    assert torch.equal(scene.places, state.position)
    assert torch.equal(scene.marks["landmark"], state.landmark)
    hunt = PredatorPrey(setting="wqmix", size=6, num_agents=2, num_prey=1)
    out = hunt.initial(generator, 1)
    out = type(out)(torch.tensor([[2 * hunt.stride + 2, 0]]), out.prey, out.clock, out.captured, out.missed)
    scene = hunt.scene(out)
    assert scene.places[0, 0].tolist() == [0, 5]  # the upper left cell within the border
    assert scene.places[0, 1].isnan().all()  # off the board
    roads = TrafficJunction().scene(TrafficJunction().initial(generator, 1))
    assert roads.places.isnan().all()
    assert roads.marks["road"].shape == (1, 13, 2)  # two roads of seven cells cross
    field = Foraging(setting="5x7-2p-1f")
    eaten = field.initial(generator, 1)
    eaten = type(eaten)(eaten.position, eaten.level, eaten.food, torch.zeros_like(eaten.food_level), eaten.spawned)
    assert field.scene(eaten).marks["food"].isnan().all()
    assert field.scene(eaten).grid == (5, 7)
    assert Flocking(topology="ring").scene(Flocking(topology="ring").initial(generator, 1)) is None


def test_the_last_state_of_an_episode_is_drawn_and_not_the_next_one():
    env = NativeEnv(Spread(max_cycles=2), 1)
    env.reset(seed=0)
    action = torch.zeros(1, 3, 1, dtype=torch.int64)
    env.step(action)
    landmark = env.scene().marks["landmark"]
    assert bool(env.step(action).over)
    assert torch.equal(env.scene().marks["landmark"], landmark)
    env.step(action)
    assert not torch.equal(env.scene().marks["landmark"], landmark)


# -- links and layouts ---------------------------------------------------------------------------


def test_links_of_one_copy():
    padded = Graph.from_edges(torch.tensor([[[0, 1, 3], [1, 0, 3]], [[2, 3, 3], [0, 3, 3]]]), 3)
    everyone = np.ones(3, dtype=bool)
    assert open_links(padded, everyone, 0).tolist() == [[1, 0], [0, 1]]
    assert open_links(padded, everyone, 1).tolist() == [[2, 0]]
    assert open_links(padded, np.array([True, True]), 1).tolist() == []  # the third agent is not shown
    ends, oneway = lines(np.array([[1, 0], [0, 1], [2, 1]]))
    assert ({frozenset(e) for e in ends.tolist()}, sorted(oneway.tolist())) == (
        {frozenset((0, 1)), frozenset((1, 2))},
        [False, True],
    )
    assert ends[oneway].tolist() == [[2, 1]]
    assert lines(np.zeros((0, 2), dtype=np.int64))[0].shape == (0, 2)


def test_a_large_ring_is_a_ring():
    n = 400
    edges = np.stack([np.arange(n), (np.arange(n) + 1) % n])
    places = layout(edges, n)
    radius = np.linalg.norm(places, axis=1)
    assert radius.std() < 0.01 * radius.mean()
    steps = np.linalg.norm(places - np.roll(places, 1, axis=0), axis=1)
    assert steps.std() < 0.05 * steps.mean()  # neighbours side by side, all the way round
    np.testing.assert_array_equal(places, layout(edges, n))


# -- frames of others ----------------------------------------------------------------------------


def played(name: str, steps: int = 3, **arguments):
    env = envs.make(name, 1, **arguments)
    film, generator = Film(env, name), torch.Generator().manual_seed(0)
    view = env.reset(seed=0)
    film.begin(view)
    for _ in range(steps):
        step = env.step(random_action(view, env.agents, generator))
        view = step.view
        film.step(step)
    return env, film


def test_frames_of_mpe2_have_the_links_over_them():
    env, film = played("mpe2.simple_spread_v3", render_mode="rgb_array")
    plain, drawn = own_frame(env.first), film.frame()
    places = pixel_places(env.first, env.agents.names, plain)
    for place in places:
        blue = plain[tuple(place[::-1].round().astype(int))]
        assert blue[2] > blue[0]  # agents are blue, landmarks dark grey
    assert (plain.shape, plain.dtype) == (drawn.shape, np.uint8)
    along = places[0] + np.linspace(0, 1, 50)[:, None] * (places[1] - places[0])
    rows, columns = along.round().astype(int).T[::-1]
    changed = (plain[rows, columns] != drawn[rows, columns]).any(axis=1)
    assert changed.mean() > 0.9


def test_others_show_their_own_frame_or_a_drawing_of_their_links():
    env, film = played("pettingzoo.classic.tictactoe_v3", render_mode="rgb_array")
    assert np.array_equal(film.frame(), env.first.render())
    _, film = played("mpe2.simple_spread_v3")
    assert film.frame().shape == SHAPE
    _, film = played("mpe2.simple_spread_v3", 25, render_mode="rgb_array")
    assert film.over
    assert film.frame() is None  # it has restarted
    with pytest.raises(RuntimeError, match="no episode has begun"):
        Film(env, "tictactoe").frame()
