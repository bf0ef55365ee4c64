from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from marl.report.html import write_report
from marl.report.log import RunLog
from marl.report.runs import compare, read_run
from marl.storage.files import RunWriteError

VOID = {"meta", "img", "br", "path", "use", "rect", "circle", "stop", "link", "input"}
AGENTS, STEPS = 3, 6


def make_run(folder: Path, seed: int = 0, level: float = -45.0, iterations: int = 12, **config: Any) -> Path:
    """A run folder whose greedy returns are level - 1, level and level + 1 (mean and middle: level)."""
    folder.mkdir(parents=True)
    settings = {
        "env": "mpe2.simple_spread_v3",
        "env_args": {"num_agents": AGENTS},
        "algorithm": {"name": "mappo", "gamma": 0.99},
        "policy": {"name": "graph"},
        "seed": seed,
        "run_dir": str(folder),
        **config,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    with RunLog(folder) as log:
        for i in range(1, iterations + 1):
            phases = {"collect": 2.0, "learn": 1.0, "other": 0.25}
            row = {"iteration": i, "env_steps": 1000 * i, "agent_steps": 3000 * i, "learn/kl": 0.01 * i}
            row |= {"train/return": level - 30 / i} if i > 1 else {}
            row |= {"evaluate/return": level + 1.0, "coordination/gini": 0.1} if i % 5 == 0 else {}
            log.write(row | {"time": {"wall_s": 3.25 * i, "env_steps_per_second": 307.7, "phase_s": phases}})
    returns = {"greedy": level, "stochastic": level - 2, "random": -80.0, "scripted": -30.0}
    evaluation = {
        name: {"returns": [x - 1, x, x + 1], "episode_length": 25.0, "covered": 2.5} for name, x in returns.items()
    }
    result = {"env": settings["env"], "algorithm": "mappo", "seed": seed, "env_steps": 1000 * iterations}
    result |= {"evaluation": evaluation, "coordination": {"action_synchrony": 0.25 + seed, "lambda2": 3.0}, "time": {}}
    (folder / "result.json").write_text(json.dumps(result))
    rng = np.random.default_rng(seed)
    episode = {
        "edges_shared": [[0, 1], [1, 0], [1, 2], [2, 1]],
        "obs": None,
        "action": rng.integers(5, size=(STEPS, AGENTS, 1)).tolist(),
        "reward": rng.normal(size=(STEPS, AGENTS)).tolist(),
        "alive": np.ones((STEPS, AGENTS), dtype=bool).tolist(),
        "positions": rng.normal(size=(STEPS, AGENTS, 2)).tolist(),
        "landmarks": rng.normal(size=(STEPS, AGENTS, 2)).tolist(),
        "agents": ["a", "b", "c"],
    }
    (folder / "episode.json").write_text(json.dumps(episode))
    return folder


class Page(HTMLParser):
    """Checks that elements are closed in order, collects text and whatever the page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.refers: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.refers += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)


def page(runs: list[Path], out: Path | None = None) -> Page:
    return Page(write_report(runs, out).read_text(encoding="utf-8"))


def test_report_of_one_run(tmp_path: Path):
    run = make_run(tmp_path / "run")
    assert write_report([run]) == run / "report.html"
    found = page([run])
    assert "mappo · graph on mpe2.simple_spread_v3" in found.text
    assert "70% of the way from the random policy to the scripted one" in found.text  # (-45 + 80) / (-30 + 80)
    assert "Mean of 3 episodes of one seed, 95% interval" in found.text
    assert "random −80, scripted −30" in found.text
    for heading in ("Learning", "Evaluation", "Communication over an episode", "Coordination", "Time", "Configuration"):
        assert heading in found.text
    assert "trained, greedy −45 −45 −46 to −44 3 0.700" in found.text
    assert "per episode episode length covered trained, greedy 25 2.50" in found.text
    assert "algorithm.gamma 0.99" in found.text
    assert "action synchrony" in found.text
    assert "learn/kl" in found.text
    assert "24 s" in found.text  # 12 iterations of 2 s
    assert found.tags.count("svg") == 6


def test_report_refers_to_nothing_outside_itself(tmp_path: Path):
    found = page([make_run(tmp_path / "run")])
    assert not {"script", "link", "iframe"} & set(found.tags)
    assert [r for r in found.refers if not r.startswith(("#", "data:"))] == []


def test_report_made_twice_is_the_same(tmp_path: Path):
    run = make_run(tmp_path / "run")
    assert write_report([run]).read_bytes() == write_report([run]).read_bytes()


def test_seeds_of_a_recipe_are_aggregated(tmp_path: Path):
    runs = [make_run(tmp_path / f"g{s}", s, -45.0 + s) for s in range(3)]
    runs += [make_run(tmp_path / f"m{s}", s, -60.0 + s, policy={"name": "mlp"}) for s in range(3)]
    assert write_report(runs) == tmp_path / "report.html"
    found = page(runs, tmp_path / "many.html")
    assert "2 recipes" not in found.text
    assert "mappo · graph and mappo · mlp on mpe2.simple_spread_v3" in found.text
    assert "greedy return of mappo · graph, the best here" in found.text
    assert "Interquartile mean of 3 seeds, 95% interval −45 to −43" in found.text
    assert "mappo · graph, greedy −44 −44 −45 to −43 3 0.720" in found.text
    assert "mappo · graph mappo · mlp 1.00 1.00 to 1.00" in found.text
    assert "random −80 −80 −81 to −79 3" in found.text  # the same episodes in every run are counted once
    assert "1.25" in found.text  # mean of the seeds' action synchrony .25, 1.25, 2.25
    assert found.text.count("no evaluation") == 0


def test_recipes_are_told_apart_by_what_differs(tmp_path: Path):
    runs = [read_run(make_run(tmp_path / f"{g}{s}", s, graph=g)) for g in ("complete", "empty") for s in (10, 2)]
    (task,) = compare(runs)
    assert [recipe.name for recipe in task.recipes] == ["mappo · graph, graph=complete", "mappo · graph, graph=empty"]
    assert [[run.setting("seed") for run in recipe.runs] for recipe in task.recipes] == [["2", "10"]] * 2
    assert len({recipe.colour for recipe in task.recipes}) == 2


def test_tasks_are_never_mixed(tmp_path: Path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", env_args={"num_agents": 5})]
    runs.append(make_run(tmp_path / "c", env="spread"))
    tasks = compare([read_run(run) for run in runs])
    spread = "mpe2.simple_spread_v3, num_agents="
    assert [task.task for task in tasks] == [f"{spread}3", f"{spread}5", "spread"]
    assert [len(task.recipes) for task in tasks] == [1, 1, 1]
    assert "1 recipe on 3 tasks" in page(runs, tmp_path / "all.html").text


def test_what_is_missing_is_said(tmp_path: Path):
    interrupted = make_run(tmp_path / "interrupted")
    for name in ("result.json", "episode.json"):
        (interrupted / name).unlink()
    found = page([interrupted])
    assert "No evaluation yet, so there is no result to state." in found.text
    assert "the run was interrupted, or is still going on" in found.text
    assert "Not evaluated yet." in found.text
    assert "No episode was recorded." in found.text
    assert "12,000 env steps" in found.text


def test_a_run_that_only_began_has_a_report(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("env: spread\nseed: 0\n")
    found = page([tmp_path])
    assert "? · ? on spread" in found.text
    assert "No iteration has been logged yet." in found.text
    assert "svg" not in found.tags


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("result.json", '{"evaluation": {"gre', "result.json: cannot be read"),
        ("result.json", "[]", "result.json: cannot be read (expected a JSON object)"),
        ("result.json", '{"evaluation": null, "coordination": null}', "No evaluation yet."),
        ("episode.json", '{"reward": []}', "episode.json: cannot be read (it lacks action, alive, agents)"),
        ("metrics.jsonl", "broken\n{}\n", "line 1 is damaged"),
        ("config.yaml", "a: [", "not valid YAML"),
    ],
)
def test_damaged_pieces_are_found_out(tmp_path: Path, name: str, content: str, said: str):
    run = make_run(tmp_path / "run")
    (run / name).write_text(content)
    assert any(said in problem for problem in read_run(run).problems)


def test_damaged_pieces_are_said_and_the_rest_is_shown(tmp_path: Path):
    run = make_run(tmp_path / "run")
    (run / "metrics.jsonl").write_text("broken\n{}\n")
    (run / "result.json").write_text(
        '{"evaluation": {"greedy": {"returns": [null, NaN]}}, "coordination": {"gini": null}}'
    )
    found = page([run])
    assert "line 1 is damaged" in found.text
    assert "no result to state" in found.text
    assert "gini" in found.text
    assert "one greedy episode of 6 steps, 3 agents" in found.text


def test_names_are_text_never_markup(tmp_path: Path):
    run = make_run(tmp_path / "run", env="<script>alert('$x$')</script>", policy={"name": "<b>"})
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    (run / "result.json").unlink()
    found = page([run])
    assert "script" not in found.tags
    assert "b" in found.tags  # the page's own
    assert "mappo · <b> on <script>alert('$x$')</script>" in found.text


def test_what_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="expected at least one run folder, got none"):
        write_report([])
    with pytest.raises(ValueError, match=r"gone: no such folder"):
        write_report([tmp_path / "gone"])
    with pytest.raises(ValueError, match=r"not a run folder, it has no config\.yaml"):
        write_report([tmp_path])


def test_a_report_that_cannot_be_written_is_one_clear_error(tmp_path: Path):
    with pytest.raises(RunWriteError, match=r"cannot write .*nowhere/report\.html: No such file or directory"):
        write_report([make_run(tmp_path / "run")], tmp_path / "nowhere" / "report.html")
