"""Hostile use of the command line: every mistake is one clear line and exit code 1, and nothing is left or changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from marl.cli import app, errors
from marl.storage.checkpoint import Checkpoints

SMALL = ["num_envs=4", "total_steps=40", "rollout_steps=5", "policy.hidden=[4]", "algorithm.epochs=1"]
SMALL += ["checkpoint_every=1", "evaluate.every=0", "evaluate.final_episodes=2"]
LAST = "00000002"  # the last checkpoint of such a run


def concert(*words: object) -> tuple[int, str, str]:
    """Run a command: exit code, stdout, and stderr without progress."""
    result = CliRunner().invoke(app, [str(word) for word in words], prog_name="concert")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    told = [line for line in result.stderr.splitlines() if " env steps" not in line]
    return result.exit_code, result.stdout, "\n".join(told)


def contents(folder: Path) -> dict[str, bytes | None]:
    found = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in found}


def refused(message: str, *words: object) -> None:
    """One line with this in it, exit code 1, and everything in the current folder as it was."""
    before = contents(Path())
    code, out, err = concert(*words)
    assert (code, out) == (1, ""), err
    assert err.startswith("error: ")
    assert message in err
    assert "\n" not in err
    assert contents(Path()) == before


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("env=", "env: expected a name or an import path, got None"),
        ("env=''", "env: expected a name or an import path, got ''"),
        ("env=[spread]", "env: expected an id, an import path, a factory or a PettingZoo ParallelEnv, got list"),
        ("env=os.path:join", "TypeError: join() missing 1 required positional argument"),
        ("num_envs=", "num_envs: a valid integer, got None"),
        ("num_envs=true", "num_envs: a valid integer, unable to parse string as an integer, got 'true'"),
        ("num_envs=.nan", "num_envs: a finite number, got nan"),
        ("num_envs=1e12", "num_envs: less than or equal to 1000000000, got 1000000000000"),
        ("num_envs=" + "9" * 5000, "num_envs: cannot read the value '999"),
        ("num_envs=&a [*a]", "num_envs: cannot read the value '&a [*a]' as YAML"),
        ("num_envs=!!python/object:os.system x", "num_envs: cannot read the value"),
        ("num_agents=1e12", "num_agents: expected a whole number, got 1000000000000 (the most is 1,000,000)"),
        ("threads=1e9", "threads: less than or equal to 1024, got 1000000000"),
        ("device=cpu:x", "device: cpu, cuda, cuda:0 ... or auto, got 'cpu:x'"),
        ("device=cuda:99", "device: 'cuda:99' is not available here"),
        ("run_dir=5", "run_dir: expected a path such as runs/mine; write ./5"),
        ("run_dir=[a]", "run_dir: expected a path"),
        ("env_args=5", "env_args: expected a mapping, got 5"),
        ("env_args.env=x", "env_args: env is a setting of the run"),
        ("evaluate=never", "evaluate: expected a mapping, got 'never'"),
        ("evaluate.every.x=1", "evaluate"),
        ("algorithm.learning_rate=.inf", "algorithm.learning_rate: a finite number, got inf"),
        ("algorithm.gamma=true", "algorithm.gamma: a valid number"),
        ("algorithm=[mappo]", "algorithm: expected a name or a mapping, got ['mappo']"),
        ("policy.hidden=[0]", "policy.hidden.0: greater than 0, got 0"),
        ("policy.hidden=[true]", "policy.hidden.0: a valid integer"),
        ("policy.hidden=[]", "policy.hidden: a list of at least one, got []"),
        ("policy.hidden=8", "policy.hidden: a list, got 8"),
        ("critic.body={hidden: [4]}", "critic.body: a mapping with a name"),
        ("critic.body=tree", "unknown critic.body 'tree'; One of: mlp, graph"),
        ("memory=none", "memory.name: 'gru' or 'lstm', got 'none'"),
        ("sharing=some", "sharing: 'all', 'group' or 'none' or a list, got 'some'"),
        ("sharing=[0, x]", "sharing.1: a valid integer"),
        ("seed=0..99999999999", "seed: expected a number, a list, or a range such as 0..4 (of up to 10000)"),
        ("seed=[true]", "seed: expected a number, a list"),
        ("jobs=true", "jobs: expected a whole number of at least 1, got True"),
        ("graph=radius:nan", "graph radius: r must be a positive number, got nan"),
        ("graph={name: radius, r: 1, capacity: 0}", "graph radius: capacity must be a whole number from 1 up, got 0"),
        ("graph={name: knn, k: true}", "graph knn: k must be a whole number from 1 up, got True"),
        ("graph={name: knn, k: 1, on: 5}", "columns: expected a part or [start, stop] within the 18 columns"),
        ("graph={name: knn, k: 1, on: nowhere}", "not every agent's observation has a part 'nowhere'"),
        ("signals={5: {}}", "unknown signal '5'"),
        ("signals=os:path", "signal 'os:path': expected a class or function that makes a stage"),
        ("signals=builtins:int", "signal 'builtins:int': expected a class or function that makes a stage"),
        ("wrappers=[{name: hide, columns: [[0.5, 2]]}]", "columns: expected a part or [start, stop]"),
    ],
)
def test_wrong_settings(word: str, message: str) -> None:
    refused(message, "train", word)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "c.yaml: expected a mapping of keys to values"),
        (b"- env\n", "c.yaml: expected a mapping of keys to values"),
        (b"5: 3\n", "c.yaml: expected a mapping of keys to values"),
        (bytes(range(256)), "c.yaml: not valid YAML"),
        (b"env: [", "c.yaml: not valid YAML"),
        (b"a: &x [*x]", "c.yaml: not valid YAML: found unconstructable recursive node"),
        (b"env:\n", "env: expected a name or an import path, got None"),
        (b"train:\n  env: spread\n", "unknown key 'train'"),
        (b"policy:\n- mlp\n", "policy: expected a name or a mapping, got ['mlp']"),
    ],
)
def test_wrong_files(data: bytes, message: str) -> None:
    Path("c.yaml").write_bytes(data)
    refused(message, "train", "c.yaml")


def test_places_that_are_no_files_or_folders() -> None:
    Path("folder").mkdir()
    Path("file").write_text("x")
    refused("folder: Is a directory", "train", "folder")
    refused("file is no run folder and holds none", "train", "--resume", "file")
    refused("cannot write file/run: Not a directory", "train", "env=climbing", "run_dir=file/run", *SMALL)
    refused("there is no file 'nowhere.edgelist'", "train", "graph=nowhere.edgelist", *SMALL)
    Path("net.edgelist").write_bytes(bytes(range(256)))
    refused("net.edgelist, line 1: expected two agent numbers", "train", "graph=net.edgelist", *SMALL)


def test_one_line_for_each_mistake() -> None:
    code, _, err = concert("train", "num_envs=x", "workers=-1", "evaluate.every=y", "policy.hidden=[0]")
    assert code == 1
    assert [line.removeprefix("error: ").partition(":")[0] for line in err.splitlines()] == [
        "num_envs",
        "workers",
        "policy.hidden.0",
        "evaluate.every",
    ]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0.\nDefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_a_full_memory_is_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught, errors():
        raise error
    assert caught.value.exit_code == 1
    assert capsys.readouterr().err == "error: not enough memory; use fewer copies, agents or steps\n"


def test_words_that_yaml_once_read_as_truth_and_dates_are_words() -> None:
    words = ["graph={name: knn, k: 1, on: [2, 4]}", "num_agents=4", "--copies", "2", "--steps", "3", "--json"]
    code, out, err = concert("simulate", "spread", *words)
    assert code == 0, err
    assert json.loads(out)["coordination"]["links"] == 4
    refused("unknown environment '2024-01-01'", "train", "env=2024-01-01")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes") / "run"
    code, _, err = concert("train", "env=climbing", f"run_dir={folder}", *SMALL)
    assert code == 0, err
    return folder


@pytest.fixture
def stopped(finished: Path) -> Path:
    """A run that can be resumed, in the current folder."""
    shutil.copytree(finished, "run")
    Path("run/result.json").unlink()
    return Path("run")


def forge(state: str) -> Callable[[Path], None]:
    """A checkpoint with checksums that are right and a content that is not."""

    def write(run: Path) -> None:
        tensors = (run / "checkpoints" / f"{LAST}.safetensors").read_bytes()
        sums = {"tensors": hashlib.sha256(tensors).hexdigest(), "state": hashlib.sha256(state.encode()).hexdigest()}
        head = {"format": 1, "sha256": sums, "state": state}
        (run / "checkpoints" / f"{LAST}.json").write_text(json.dumps(head))

    return write


def put(name: str, data: str) -> Callable[[Path], None]:
    def write(run: Path) -> None:
        (run / name).write_text(data)

    return write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (put("checkpoints/latest", "00000099"), "00000099.json cannot be read: No such file"),
        (put("checkpoints/latest", "a\nb"), r"expected latest, best or a number, got 'a\nb'"),
        (put("checkpoints/latest", "../../etc"), "expected latest, best or a number, got '../../etc'"),
        (put(f"checkpoints/{LAST}.json", ""), f"{LAST}.json cannot be read: JSONDecodeError"),
        (put(f"checkpoints/{LAST}.json", '{"format": 1, "sha256": 3, "state": "x"}'), f"{LAST}.json cannot be read"),
        (
            put(f"checkpoints/{LAST}.json", '{"format": 1, "sha256": {"tensors": "", "state": ""}, "state": 5}'),
            "damaged",
        ),
        (put(f"checkpoints/{LAST}.safetensors", "x"), f"{LAST}.safetensors is damaged"),
        (forge("no json"), f"{LAST}.json is damaged"),
        (forge('{"$tensor": "nope"}'), f"{LAST}.json is damaged"),
        (put("config.yaml", ""), "run/config.yaml: expected a mapping of keys to values"),
        (put("config.yaml", "env: climbing\nnonsense: 1\n"), "unknown key 'nonsense'"),
    ],
)
def test_damaged_runs(damage: Callable[[Path], None], message: str, stopped: Path) -> None:
    damage(stopped)
    refused(message, "train", "--resume", "run")
    refused(message, "evaluate", "run", "--episodes", "2")


def test_runs_without_their_pieces(stopped: Path) -> None:
    refused("expected latest, best or a number, got 'newest'", "evaluate", "run", "--checkpoint", "newest")
    refused("no best checkpoint in run/checkpoints", "evaluate", "run", "--checkpoint", "best")
    (stopped / "metrics.jsonl").write_text("damaged\n" + (stopped / "metrics.jsonl").read_text())
    refused("run/metrics.jsonl: line 1 is damaged", "train", "--resume", "run")
    shutil.rmtree(stopped / "checkpoints")
    (stopped / "checkpoints").write_text("a file")
    refused("run/checkpoints is no folder of checkpoints", "train", "--resume", "run")
    (stopped / "config.yaml").unlink()
    for words in (["train", "--resume", "run"], ["evaluate", "run"], ["report", "run"]):
        refused("run is no run folder", *words)


def test_a_run_that_lost_its_pointer_and_its_log_is_finished_from_the_newest_checkpoint(stopped: Path) -> None:
    """Not begun again, which would write over its checkpoints."""
    (stopped / "checkpoints" / "latest").unlink()
    (stopped / "metrics.jsonl").unlink()
    before = (stopped / "checkpoints" / f"{LAST}.safetensors").read_bytes()
    code, _, err = concert("train", "--resume", "run")
    assert code == 0, err
    assert json.loads((stopped / "result.json").read_text())["env_steps"] == 40
    assert Checkpoints(stopped / "checkpoints").load()["trainer"]["progress"]["env_steps"] == 40
    assert (stopped / "checkpoints" / f"{LAST}.safetensors").read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"evaluation": 5}', '{"evaluation": {"greedy": {}}}'])
def test_results_that_are_none(text: str, finished: Path) -> None:
    shutil.copytree(finished, "run")
    Path("run/result.json").write_text(text)
    refused("run/result.json", "train", "--resume", "run", "--json")


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("result.json", '{"evaluation": {"greedy": {"returns": ["a"]}}}', "its evaluation holds something else"),
        ("result.json", '{"evaluation": {"greedy": 3}}', "its evaluation holds something else"),
        ("episode.json", '{"action": 1, "reward": 2, "alive": 3, "agents": 4, "edges": 5}', "episode.json"),
        (
            "episode.json",
            '{"action": [[[0]]], "reward": [[0]], "alive": [[true]], "agents": ["a"], "edges_shared": [[0, 9]]}',
            "its links lead to agents that are not there",
        ),
    ],
)
def test_a_report_names_what_it_cannot_read_and_shows_the_rest(
    name: str, text: str, problem: str, finished: Path
) -> None:
    from marl.report.runs import read_run

    shutil.copytree(finished, "run")
    Path("run", name).write_text(text)
    found = read_run("run")
    assert any(problem in told for told in found.problems)
    assert len(found.rows) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are a Unix thing")
def test_reports_replace_nothing_but_files(finished: Path) -> None:
    os.mkfifo("pipe")
    code, _, err = concert("report", finished, "--out", "pipe")
    assert (code, err) == (1, "error: cannot write pipe: it is there already and no file")
    assert Path("pipe").is_fifo()
    Path("link").symlink_to("real.html")
    Path("real.html").write_text("old")
    assert concert("report", finished, "--out", "link")[0] == 0
    assert Path("link").is_symlink()
    assert Path("real.html").read_text().startswith("<!")


WORLD = """
import sys
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

class World(ParallelEnv):
    metadata = {"name": "world"}
    possible_agents = ["a", "b"]
    def __init__(self):
        self.render_mode, self.time, self.agents = None, 0, []
        if FAILS == "init": sys.exit(3)
    def observation_space(self, agent):
        return spaces.Box(-1, 1, (2,))
    def action_space(self, agent):
        return spaces.Box(1, 1, (2,)) if FAILS == "space" else spaces.Discrete(2)
    def reset(self, seed=None, options=None):
        self.time, self.agents = 0, list(self.possible_agents)
        return self.see(), {}
    def see(self):
        return {a: np.full(2, np.nan if FAILS == "nan" and self.time == 3 else 0.0) for a in self.agents}
    def step(self, actions):
        self.time += 1
        if self.time == 3:
            if FAILS == "raise": raise KeyError("step\\nthree")
            if FAILS == "exit": sys.exit()
        over = self.time == 5
        flags = {a: over for a in self.agents}
        result = self.see(), {a: 1.0 for a in self.agents}, {a: False for a in self.agents}, flags, {}
        self.agents = [] if over else self.agents
        return result
"""


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        ("init", "the environment ended the program by sys.exit(3)"),
        ("exit", "the environment ended the program by sys.exit(None)"),
        ("raise", "copy 0, episode 0, step 3: KeyError: 'step"),
        ("nan", "the environment gave a reward or observation that is no number"),
        ("space", "action of agent 'a': Box(1.0, 1.0, (2,), float32) leaves nothing to choose"),
    ],
)
def test_worlds_that_fail(fails: str, message: str) -> None:
    Path("world.py").write_text(f"FAILS = {fails!r}\n{WORLD}")
    code, out, err = concert("train", "env=./world.py:World", "run_dir=run", *SMALL)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("error: ") == 1
    assert "\n" not in err
    assert not Path("run/result.json").exists()
