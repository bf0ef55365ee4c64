"""The command line: what it prints, what it refuses in one line, and what it does not import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from marl.cli import app
from marl.storage.checkpoint import Checkpoints

TINY = ["num_envs=4", "total_steps=200", "policy.hidden=[8]", "evaluate.final_episodes=4", "evaluate.every=0"]


def concert(*words: str) -> tuple[int, str, str]:
    """Run a command in this process: exit code, stdout, stderr."""
    result = CliRunner().invoke(app, list(words), prog_name="concert")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    code, out, err = concert("train", "env=climbing", f"run_dir={folder}", "--json", *TINY)
    assert code == 0, err
    assert json.loads(out)["finished"]
    return folder


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["list"], ["train", "env=spread", "nonsense=1"]])
def test_help_lists_and_mistakes_load_no_torch(words: list[str]) -> None:
    probe = (
        "import sys; from marl.cli import app\n"
        f"try: app({words!r}, prog_name='concert')\n"
        "except SystemExit: pass\n"
        "loaded = [m for m in ('torch', 'torch_geometric', 'matplotlib', 'scipy', 'pettingzoo') if m in sys.modules]\n"
        "sys.stderr.write('LOADED ' + ' '.join(loaded))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stderr.rsplit("LOADED", 1)[1].strip() == ""


def test_a_run_leaves_everything_it_promises(run: Path) -> None:
    names = {p.name for p in run.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "checkpoints", "result.json", "episode.json", "report.html"} <= names
    result = json.loads((run / "result.json").read_text())
    assert set(result["evaluation"]) == {"greedy", "stochastic", "random"}
    assert len(result["evaluation"]["greedy"]["returns"]) == 4


def test_evaluate_simulate_report_and_list_print_one_json_object(run: Path, tmp_path: Path) -> None:
    code, out, _ = concert("evaluate", str(run), "--episodes", "4", "--json")
    assert code == 0
    assert set(json.loads(out)["policies"]) == {"greedy", "stochastic", "random"}
    code, out, _ = concert("simulate", "spread", "num_agents=4", "--copies", "8", "--steps", "30", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["agents"], found["episodes"]) == (4, 8)
    assert found["agent_steps_per_second"] == pytest.approx(4 * found["env_steps_per_second"])
    code, out, _ = concert("report", str(run), "--out", str(tmp_path / "r.html"), "--json")
    assert code == 0
    assert Path(json.loads(out)["report"]).read_text().startswith("<!")
    code, out, _ = concert("list", "algorithms", "--json")
    assert code == 0
    assert {"ippo", "mappo"} <= set(json.loads(out)["algorithms"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "nonsense=1"], "unknown key 'nonsense'"),
        (["train", "env=spraed"], "unknown environment 'spraed'; did you mean 'spread'?"),
        (["train", "env=no.such.module"], "no.such.module"),
        (["train", "env=./nowhere.py:make"], "nowhere.py"),
        (["train", "algorithm=mapo"], "unknown algorithm 'mapo'; did you mean 'mappo'?"),
        (["train", "num_envs=-3"], "num_envs: greater than or equal to 1, got -3"),
        (["train", "env_args.num_agent=3"], "did you mean 'num_agents'?"),
        (["train", "policy=graph", "policy.layer=GCNCon"], "did you mean 'GCNConv'?"),
        (["train", "policy=graph", "policy.layer=GINConv"], "graph layer 'GINConv' cannot be used here"),
        (["train", "policy=graph", "policy.layer=RGCNConv"], "graph layer 'RGCNConv' cannot be used here"),
        (["train", "env_args.seed=3"], "env_args: seed is a setting of the run"),
        (["train", "num_agents=x"], "num_agents: expected a whole number, got 'x'"),
        (["train", "graph=rign"], "did you mean 'ring'?"),
        (["train", "num_agents=65", "policy=graph"], "graph: choose who hears whom among 65 agents"),
        (["train", "signals=teem"], "unknown signal 'teem'; did you mean 'team'?"),
        (["train", "words"], "words: No such file or directory"),
        (["train", "--resume", "nowhere"], "nowhere is no run folder"),
        (["train", "seed=4..2"], "seed: expected a number, a list, or a range such as 0..4"),
        (["evaluate", "nowhere"], "nowhere is no run folder"),
        (["simulate", "climbing", "--policy", "scripted"], "there is no scripted policy for 'climbing'"),
        (["report", "nowhere"], "nowhere is no run folder"),
        (["list", "enws"], "did you mean 'envs'?"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = concert(*words)
    assert code == 1
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert out == ""
    assert not list(tmp_path.iterdir())


def test_an_existing_run_folder_is_refused_and_stays(run: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    code, _, err = concert("train", "env=climbing", f"run_dir={run}", *TINY)
    assert code == 1
    assert "exists already" in err
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_a_run_is_not_resumed_under_other_settings(run: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "result.json").unlink()
    text = (copy / "config.yaml").read_text()
    for old, new, message in (
        ("env: climbing", "env: mpe2.simple_spread_v3", "env: was 'climbing' when this run was saved, is 'mpe2.simple"),
        ("gamma: 0.99", "gamma: 0.5", "algorithm.gamma: was 0.99 when"),
        ("num_envs: 4", "num_envs: 5", "num_envs: was 4"),
    ):
        assert old in text
        (copy / "config.yaml").write_text(text.replace(old, new))
        code, _, err = concert("train", "--resume", str(copy))
        assert code == 1
        assert message in err
        assert "Traceback" not in err
    assert Checkpoints(copy / "checkpoints").load()["trainer"]["progress"]["env_steps"] == 200


def test_a_policy_that_knows_no_numbers_is_evaluated_among_more_agents(tmp_path: Path) -> None:
    """The critic of three agents reads them side by side; it is not asked when others are played with."""
    words = ["env=spread", "policy=graph", "identity=none", *TINY[:2], *TINY[3:], "env_args.num_agent_neighbors=2"]
    words.append("env_args.num_landmark_neighbors=3")
    folder = tmp_path / "run"
    code, _, err = concert("train", *words, f"run_dir={folder}")
    assert code == 0, err
    code, out, err = concert("evaluate", str(folder), "num_agents=5", "--episodes", "4", "--json")
    assert code == 0, err
    assert json.loads(out)["policies"]["greedy"]["mean"] < 0
    code, _, err = concert("evaluate", str(folder), "env=climbing", "--episodes", "4")
    assert code == 1
    assert "saved parameter policy." in err
    code, _, err = concert("evaluate", str(folder), "env=")
    assert code == 1
    assert "env: expected a name or an import path, got nothing" in err


def test_a_damaged_checkpoint_is_refused_with_its_name(run: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "result.json").unlink()
    name = (copy / "checkpoints" / "latest").read_text()
    path = copy / "checkpoints" / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    for words in (["evaluate", str(copy)], ["train", "--resume", str(copy)]):
        code, _, err = concert(*words)
        assert code == 1
        assert f"{name}.safetensors is damaged" in err


def test_seeds_run_side_by_side_into_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # paths are those of the one who types them, whatever process reads them
    (tmp_path / "net.edgelist").write_text("0 1")
    root = Path("many=2/runs")
    words = ["env=climbing", "seed=0..1", "jobs=2", "graph=net.edgelist", f"run_dir={root}", *TINY]
    code, out, err = concert("train", *words, "--json")
    assert code == 0, err
    assert [r["seed"] for r in json.loads(out)["runs"]] == [0, 1]
    assert Checkpoints(root / "seed_1" / "checkpoints").load()["trainer"]["progress"]["env_steps"] == 200
    code, out, _ = concert("report", str(root))
    assert code == 0


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    import os
    import signal
    import time

    folder = tmp_path / "run"
    command = [sys.executable, "-m", "marl.cli", "train", "env=climbing", f"run_dir={folder}", *TINY, "total_steps=1e8"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = folder / "metrics.jsonl"
    while not log.exists() or log.read_bytes().count(b"\n") < 3:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"concert train --resume {folder}" in err
    iteration = Checkpoints(folder / "checkpoints").load()["trainer"]["progress"]["iteration"]
    assert log.read_bytes().count(b"\n") == iteration


def test_a_full_disk_ends_in_one_line_and_the_last_checkpoint_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from marl.storage import files

    folder, real = tmp_path / "run", files.AppendFile.write
    written = []

    def fills_up(self: files.AppendFile, record: bytes) -> None:
        written.append(record)
        if len(written) > 9:
            raise files.RunWriteError(f"cannot write {self.path}: No space left on device")
        real(self, record)

    monkeypatch.setattr(files.AppendFile, "write", fills_up)
    code, _, err = concert(
        "train", "env=climbing", f"run_dir={folder}", "checkpoint_every=1", *TINY, "total_steps=4000"
    )
    assert code == 1
    assert err.splitlines()[-1].endswith("No space left on device")
    assert Checkpoints(folder / "checkpoints").load()["trainer"]["progress"]["iteration"] >= 1
