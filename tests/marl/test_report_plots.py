from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import networkx as nx
import numpy as np
import pytest

from marl.report import drawing, plots
from marl.report.plots import Line, Score, number
from marl.report.statistics import Estimate, aggregate

STEPS = np.arange(0, 1000, 100)


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def line(name: str) -> Line:
    seeds = [(STEPS, STEPS / 100 + seed) for seed in range(3)]
    return Line(name, "#0072B2", aggregate(seeds), seeds, (STEPS[::3], STEPS[::3] / 90))


def episode(num_agents: int = 4, steps: int = 9, **fields: object) -> dict:
    ring = [[i, (i + 1) % num_agents] for i in range(num_agents)]
    return {
        "edges_shared": ring,
        "obs": None,
        "action": [[[(i + t) % 3] for i in range(num_agents)] for t in range(steps)],
        "reward": [[float(i)] * num_agents for i in range(steps)],
        "alive": [[True] * num_agents] * steps,
        "positions": None,
        "landmarks": None,
        "agents": [f"a{i}" for i in range(num_agents)],
        **fields,
    }


def test_learning_curve_names_its_lines_axes_and_baselines():
    svg = plots.learning_curve([line("mappo · graph"), line("cost $5 <b>")], {"random": -80.5, "scripted": -27.3})
    found = texts(svg)
    for text in ("mappo · graph", "cost $5 <b>", "env steps", "random −80.50", "scripted −27.30", "greedy evaluation"):
        assert text in found
    assert found.count("greedy evaluation") == 1


def test_pictures_scale_and_are_the_same_every_time():
    first, second = (plots.learning_curve([line("a")], {}) for _ in range(2))
    assert first == second
    root = ElementTree.fromstring(first)
    assert "viewBox" in root.attrib
    assert "width" not in root.attrib
    assert "height" not in root.attrib


def test_the_users_matplotlib_settings_stay():
    with mpl.rc_context({"font.size": 23, "svg.fonttype": "path"}):
        plots.phase_times({"a": {"collect": 1.0}})
        assert mpl.rcParams["font.size"] == 23
        assert mpl.rcParams["svg.fonttype"] == "path"


def test_no_pyplot_is_loaded():
    code = (
        "import sys; from marl.report import plots;"
        "plots.phase_times({'a': {'collect': 1.0}}); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_evaluation_shows_one_score_without_an_interval():
    scores = [
        Score("trained", "#0072B2", Estimate(2.0, 1.5, 2.5), (1.0, 2.0, 3.0)),
        Score("one", "#000000", Estimate(2.0, np.nan, np.nan), (2.0,)),
    ]
    assert {"trained", "one", "team return per episode"} <= set(texts(plots.evaluation(scores)))


def test_small_multiples_have_a_title_each_and_an_end():
    panels = {f"metric {i}": [("#0072B2", STEPS, STEPS * i)] for i in range(30)}
    found = texts(plots.small_multiples(panels))
    assert sum(text.startswith("metric") for text in found) == plots.MULTIPLES


def test_phase_times_label_their_seconds():
    found = texts(plots.phase_times({"a": {"collect": 120.0, "learn": 60.0, "other": 1.0}, "b": {"collect": 90.0}}))
    assert {"120 s", "60 s", "90 s", "collect", "learn", "other", "wall-clock seconds"} <= set(found)
    assert "1 s" not in found
    assert "evaluate" not in found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-45.3, "−45.30"),
        (0.0, "0"),
        (-1e-16, "0"),
        (3.0, "3"),
        (1234.5, "1,234"),
        (0.125, "0.125"),
        (np.nan, "–"),
        (None, "–"),
        (150.26, "150.3"),
    ],
)
def test_number(value: float | None, text: str):
    assert number(value) == text


def test_graph_of_an_episode_has_five_moments_and_its_actions():
    found = texts(drawing.communication_graph(episode()))
    assert [text for text in found if text.startswith("step")] == ["step 0", "step 2", "step 4", "step 6", "step 8"]
    assert {"action 0", "action 1", "action 2"} <= set(found)
    assert "action 3" not in found


def test_graph_is_coloured_by_return_where_actions_are_real_or_many():
    for action in ([[[0.5]] * 4] * 2, [[[17]] * 4] * 2, [[[1, 2]] * 4] * 2):
        assert "return so far of each agent" in texts(drawing.communication_graph(episode(steps=2, action=action)))
    assert "return so far of each agent" in texts(drawing.communication_graph(episode(), by="return"))


def test_dead_agents_are_not_drawn_on_a_map():
    positions = [[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [None, None]]] * 9
    alive = [[True, True, True, False]] * 9
    found = texts(drawing.communication_graph(episode(positions=positions, alive=alive, landmarks=[[[0.5, 0.5]]] * 9)))
    assert found.count("2") == 5
    assert "3" not in found


def test_a_very_large_graph_becomes_an_image():
    places = np.random.default_rng(0).normal(size=(2, 1000, 2)).tolist()
    big = episode(1000, steps=2, positions=places)
    assert drawing.communication_graph(big).startswith('<img alt="" src="data:image/png;base64,')


@pytest.mark.parametrize("steps", [1, 2])
def test_a_very_short_episode_has_fewer_moments(steps: int):
    found = texts(drawing.communication_graph(episode(steps=steps)))
    assert sum(text.startswith("step") for text in found) == steps


def test_links_that_change_are_read_at_their_moment():
    changing = episode(edges=[[[0, 1]]] * 4 + [[]] * 5)
    assert drawing.moment_edges(changing, 0).tolist() == [[0], [1]]
    assert drawing.moment_edges(changing, 8).shape == (2, 0)
    assert drawing.communication_graph(changing).startswith("<svg")


def test_layouts_show_a_ring_as_a_ring():
    for n in (12, 60):
        edges = np.array(list(nx.cycle_graph(n).edges)).T
        places = drawing.layout(edges, n)
        radius = np.linalg.norm(places - places.mean(axis=0), axis=1)
        assert radius.std() < 0.1 * radius.mean()
        np.testing.assert_array_equal(places, drawing.layout(edges, n))


@pytest.mark.parametrize("n", [1, 5])
def test_layout_without_links(n: int):
    places = drawing.layout(np.empty((2, 0), dtype=np.int64), n)
    assert np.unique(places.round(6), axis=0).shape == (n, 2)
