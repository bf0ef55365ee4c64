"""Settings: overrides, short forms, defaults, and one line per mistake with the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from marl.config import ConfigError, YamlDumper, YamlLoader, merge, parse_overrides, read_yaml
from marl.networks.config import CriticConfig, GraphConfig, MLPConfig
from marl.runs.seeds import parse_seeds
from marl.settings import settings


def test_overrides_are_yaml_and_nest_by_dots() -> None:
    pairs = ["a.b=1", "a.c=[1, 2]", "lr=3e-4", "steps=2e6", "name=text", "none=null", "flag=true", "empty="]
    assert parse_overrides(pairs) == {
        "a": {"b": 1, "c": [1, 2]},
        "lr": 3e-4,
        "steps": 2_000_000,
        "name": "text",
        "none": None,
        "flag": True,
        "empty": None,
    }
    assert parse_overrides(["policy=graph", "policy.hidden=32"]) == {"policy": {"name": "graph", "hidden": 32}}


def test_merging_replaces_choices_of_another_name_and_refines_the_same() -> None:
    base = {"policy": {"name": "graph", "hidden": 32, "layers": 2}, "x": 1}
    assert merge(base, {"policy": {"hidden": 64}})["policy"] == {"name": "graph", "hidden": 64, "layers": 2}
    assert merge(base, {"policy": {"name": "mlp"}})["policy"] == {"name": "mlp"}
    assert merge({"policy": "graph"}, {"policy": {"hidden": 8}})["policy"] == {"name": "graph", "hidden": 8}


def test_short_forms_and_defaults() -> None:
    s = settings({"algorithm": "ippo", "policy": "graph", "num_agents": 5})
    assert (s.recipe, s.critic.name, s.env_args) == ("ippo", "local", {"num_agents": 5})
    assert isinstance(s.policy, GraphConfig)
    assert settings({}).critic.name == "central"
    assert settings({"critic": "graph"}).critic.name == "graph"


def test_configurations_may_be_given_as_objects() -> None:
    given = settings({"policy": MLPConfig(hidden=(8,)), "critic": CriticConfig(name="local", body=MLPConfig())})
    assert given == settings({"policy": {"hidden": [8]}, "critic": {"name": "local", "body": "mlp"}})


def test_a_graph_file_is_found_again_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.edgelist").write_text("0 1")
    assert settings({"graph": "net.edgelist"}).graph == str(tmp_path / "net.edgelist")
    assert settings({"graph": "ring"}).graph == "ring"


def test_what_is_written_is_read_back_equal(tmp_path: Path) -> None:
    s = settings({"policy": {"name": "graph", "layers": 3}, "algorithm": {"learning_rate": 1e-3}, "sharing": [0, 1, 0]})
    path = tmp_path / "config.yaml"
    path.write_text(s.to_yaml())
    assert settings(read_yaml(path)) == s


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=8)
        | st.sampled_from(
            ["1e-3", "2e6", "on", "no", "true", "null", "~", "", "2024-01-01", "4:30", "0x10", ".inf", "="]
        ),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["on", "y", "k"]), inner),
    )
)
def test_yaml_is_written_so_that_it_is_read_back_equal(value: object) -> None:
    assert yaml.load(yaml.dump(value, Dumper=YamlDumper, allow_unicode=True), YamlLoader) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("2e6", 2_000_000),
        ("2.5e3", 2500.0),
        ("-.5", -0.5),
        ("007", 7),
        ("-.inf", float("-inf")),
        ("on", "on"),
        ("No", "No"),
        ("2024-01-01", "2024-01-01"),
        ("4:30", "4:30"),
        ("1_000", "1_000"),
        ("True", True),
        ("~", None),
        ("{on: [2, 4], y: off}", {"on": [2, 4], "y": "off"}),
        ("{<<: {a: 1}, b: 2}", {"a": 1, "b": 2}),
    ],
)
def test_plain_values_of_yaml(text: str, value: object) -> None:
    found = yaml.load(text, YamlLoader)
    assert found == value
    assert type(found) is type(value)


def test_objects_are_described_in_the_yaml() -> None:
    text = settings({"env": object(), "signals": [object()]}).to_yaml()
    data = yaml.safe_load(text)
    assert data["env"].startswith("<<object object")
    assert data["signals"][0].startswith("<<object object")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"algoritm": "mappo"}, "unknown key 'algoritm'; did you mean 'algorithm'?"),
        ({"algorithm": "mapo"}, "unknown algorithm 'mapo'; did you mean 'mappo'? One of: ippo, mappo"),
        ({"algorithm": {"clip": 2.0}}, "algorithm.clip: less than 1, got 2.0"),
        ({"algorithm": {"learning_rat": 1}}, "unknown key of algorithm 'learning_rat'; did you mean 'learning_rate'?"),
        (
            {"policy": {"name": "graph", "layrs": 1}},
            "unknown key of policy 'layrs'; did you mean 'layers'?",
        ),
        ({"policy": "grahp"}, "unknown policy 'grahp'; did you mean 'graph'? One of: mlp, graph"),
        ({"num_envs": 0}, "num_envs: greater than or equal to 1, got 0"),
        ({"num_envs": "many"}, "num_envs: a valid integer"),
        ({"device": "tpu"}, "device: cpu, cuda, cuda:0 ... or auto, got 'tpu'"),
        ({"critic": {"name": "graph", "body": {"name": "mlp"}}}, "critic: a graph critic needs a graph body"),
        ({"num_envs": True}, "num_envs: a valid integer"),
        ({"algorithm": {"gamma": True}}, "algorithm.gamma: a valid number"),
        ({"algorithm": {"entropy": float("nan")}}, "algorithm.entropy: a finite number, got nan"),
        ({"policy": {"hidden": [8, 0]}}, "policy.hidden.1: greater than 0, got 0"),
        ({"sharing": "some"}, "sharing: 'all', 'group' or 'none' or a list, got 'some'"),
        ({"env": None}, "env: expected a name or an import path, got None"),
        ({"policy": None}, "policy: expected a name or a mapping, got None"),
    ],
)
def test_mistakes_are_named_with_their_key(keys: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(keys)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file"):
        read_yaml(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1,")
    with pytest.raises(ConfigError, match=r"broken\.yaml: not valid YAML"):
        read_yaml(broken)
    broken.write_text("just text")
    with pytest.raises(ConfigError, match="expected a mapping"):
        read_yaml(broken)


@pytest.mark.parametrize("value", ["a..b", "4..2", [], [1, "x"], True, 1.5])
def test_seeds_that_are_none_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="expected a number, a list, or a range"):
        parse_seeds(value)


def test_seeds_in_all_their_forms() -> None:
    assert parse_seeds("0..2") == [0, 1, 2]
    assert parse_seeds([4, 1]) == [4, 1]
    for value in ([0, -1], [0, 0]):
        with pytest.raises(ConfigError, match="expected a number, a list, or a range"):
            parse_seeds(value)


def test_the_catalogue_names_every_topology() -> None:
    from coordination.topology import BUILDERS
    from marl.runs.catalogue import GRAPHS

    assert set(BUILDERS) | {"none", "knn", "radius", "FILE"} == set(GRAPHS)
