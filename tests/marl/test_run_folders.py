"""Run folders: names that never collide, explicit ones that are refused, both or nothing, and finding them."""

from __future__ import annotations

import errno
import os
from datetime import datetime
from pathlib import Path

import pytest

from marl.config import ConfigError, read_yaml
from marl.runs import folders
from marl.runs.folders import new_folder, read_json, run_folders
from marl.settings import Settings, settings
from marl.storage.files import RunWriteError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders without a name of their own are made below the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def one_second(monkeypatch: pytest.MonkeyPatch) -> str:
    """The clock stands still."""

    class Stopped(datetime):
        @classmethod
        def now(cls, tz: object = None) -> Stopped:
            return cls(2026, 3, 4, 5, 6, 7)

    monkeypatch.setattr(folders, "datetime", Stopped)
    return "2026-03-04_05-06-07"


def test_runs_of_the_same_second_get_folders_of_their_own(one_second: str) -> None:
    made = [new_folder(settings({"env": "climbing", "num_envs": k + 1})) for k in range(3)]
    name = f"{one_second}_climbing_mappo_0"
    assert made == [Path("runs") / n for n in (name, f"{name}-2", f"{name}-3")]
    assert [read_yaml(folder / "config.yaml")["num_envs"] for folder in made] == [1, 2, 3]


def test_another_process_that_takes_the_name_meanwhile_is_stepped_around(
    one_second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, taken = folders.stamped_folder, []

    def too_late(s: Settings) -> Path:
        name = real(s)
        if not taken:
            taken.append(name)
            name.mkdir(parents=True)
        return name

    monkeypatch.setattr(folders, "stamped_folder", too_late)
    folder = new_folder(settings({"env": "climbing"}))
    assert folder.name == f"{taken[0].name}-2"
    assert not list(taken[0].iterdir())


@pytest.mark.parametrize(
    ("env", "part"),
    [
        ("mpe2.simple_spread_v3", "_mpe2_simple_spread_v3_"),
        (object(), "_env_"),
        (f"/{'deep/' * 60}my_env.py:make", "_my_env_py_make_"),
        ("long" * 99 + ".module", "_" + "long" * 15 + "_"),
    ],
)
def test_the_name_tells_the_environment_in_letters_that_every_disk_takes(env: object, part: str) -> None:
    folder = new_folder(settings({"env": env, "seed": 7, "algorithm": "ippo"}))
    assert folder.name.endswith(f"{part}ippo_7")
    assert folder.name.replace("-", "").replace("_", "").isalnum()


def test_an_explicit_folder_that_exists_is_refused_and_left_alone() -> None:
    Path("mine").mkdir()
    Path("mine/notes").write_text("keep")
    Path("file").write_text("keep")
    for name in ("mine", "file"):
        with pytest.raises(ConfigError, match=f"run_dir: {name} exists already; choose another name"):
            new_folder(settings({"run_dir": name}))
    assert Path("mine/notes").read_text() == "keep"
    assert sorted(p.name for p in Path("mine").iterdir()) == ["notes"]
    assert Path("file").read_text() == "keep"


def test_a_folder_whose_config_cannot_be_written_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunWriteError, match=r"cannot write deep/run/config\.yaml: No space left on device"):
        new_folder(settings({"run_dir": "deep/run"}))
    assert not Path("deep/run").exists()


def test_what_stands_where_folders_are_made_is_named() -> None:
    Path("runs").symlink_to("nowhere/at/all")
    with pytest.raises(RunWriteError, match="cannot write runs/"):
        new_folder(settings({}))


def test_runs_are_found_one_or_many() -> None:
    for name in ("many/seed_1", "many/seed_0", "many/else"):
        Path(name).mkdir(parents=True)
    for name in ("many/seed_1", "many/seed_0"):
        Path(name, "config.yaml").write_text("seed: 0")
    assert run_folders(Path("many/seed_1")) == [Path("many/seed_1")]
    assert run_folders(Path("many")) == [Path("many/seed_0"), Path("many/seed_1")]
    for name in ("many/else", "nowhere", "many/seed_1/config.yaml"):
        with pytest.raises(ConfigError, match="is no run folder and holds none"):
            run_folders(Path(name))


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\ud800"])
def test_json_that_is_no_object_is_refused_with_its_name(text: str) -> None:
    Path("result.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match=r"result\.json cannot be read"):
        read_json(Path("result.json"))
