from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from envs import registry
from envs.native import Task
from envs.spec import AgentSpec


def test_every_entry_names_a_task_that_can_be_made_without_arguments():
    for name, entry in registry.ENVIRONMENTS.items():
        task = registry.load(entry.target)
        assert issubclass(task, Task), name
        assert task().agents.num_agents >= 1


def describe(agents: AgentSpec) -> str:
    """The observation and action of every group in words."""
    words = []
    for group in agents.groups:
        action = group.action
        if action is None:
            chosen = "none"
        elif action.kind == "discrete":
            chosen = f"{' x '.join(map(str, action.sizes))} choices"
        else:
            chosen = f"{action.components} real{'s' if action.components > 1 else ''}"
        name = f"{group.name}: " if len(agents.groups) > 1 else ""
        words.append(f"{name}obs {group.observation.dim}, action {chosen}")
    return "; ".join(words)


@pytest.mark.parametrize("name", registry.ENVIRONMENTS)
def test_entries_say_the_spaces_of_the_default_task(name):
    entry = registry.ENVIRONMENTS[name]
    assert entry.spaces == describe(registry.load(entry.target)().agents), "Entry.spaces is to be the text on the right"


def test_scripted_policies_exist():
    targets = {e.scripted for e in registry.ENVIRONMENTS.values() if e.scripted} | set(registry.SCRIPTED.values())
    assert targets
    assert all(callable(registry.load(target)) for target in targets)


def test_a_scripted_policy_is_found_for_native_and_third_party_names():
    assert registry.scripted("spread") == registry.scripted("mpe2.simple_spread_v3")
    assert registry.scripted("spread") is not None
    assert registry.scripted("climbing") is None
    assert registry.scripted("no.such.module") is None


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"unknown environment 'spraed'; did you mean 'spread'\? One of: adversary, .*"
    ):
        registry.resolve("spraed")
    with pytest.raises(ValueError, match=r"or an import path such as mpe2\.simple_spread_v3"):
        registry.resolve("zzz")


def test_no_file_takes_the_name_of_something_public():
    # importing envs.make as a module would put the module where the function of that name belongs
    import envs

    files = {path.stem for path in Path(envs.__file__).parent.iterdir()}
    assert not files & set(envs.__all__)
    assert all(getattr(envs, name) is not None for name in envs.__all__)


def test_the_registry_loads_no_torch():
    code = "import sys, envs, envs.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
