"""Teams, and how many agents there are, in environments that know neither word."""

from __future__ import annotations

import door_fixtures as fixtures
import pytest

import envs
from envs.door.layout import Layout

TAG = "mpe2.simple_tag_v3"


@pytest.mark.parametrize(
    ("teams", "expected"),
    [
        (None, (0, 0, 0, 0)),
        ("group", (0, 0, 0, 1)),
        ({"adversary": 1, "agent": 0}, (1, 1, 1, 0)),
        ({"a": 0, "adversary_1": 1}, (0, 1, 0, 0)),
        ([0, 1, 1, 2], (0, 1, 1, 2)),
    ],
)
def test_teams_are_numbers_by_name_by_group_or_by_agent(teams, expected):
    agents = envs.make(TAG, teams=teams).agents
    assert agents.names == ("adversary_0", "adversary_1", "adversary_2", "agent_0")
    assert agents.team == expected
    assert agents.num_teams == len(set(expected))


def test_numbers_by_agent_follow_the_environments_own_order():
    env = fixtures.Events(order=("walker_0", "caller_0", "walker_1"))
    layout = Layout.probe(env, teams=[0, 1, 2])
    assert layout.agents.names == ("walker_0", "walker_1", "caller_0")
    assert layout.agents.team == (0, 2, 1)


def test_groups_of_one_stem_are_one_team():
    agents = envs.make("mpe2.simple_adversary_v3", teams="group").agents
    assert agents.team == (0, 1, 1)
    odd = fixtures.Base()
    odd.action_space = lambda agent: fixtures.spaces.Discrete(2 if agent == "agent_0" else 3)
    assert len(envs.make(odd, teams="group").agents.groups) == 2
    assert envs.make(odd, teams="group").agents.team == (0, 0)


@pytest.mark.parametrize(
    ("teams", "message"),
    [
        ("all", "teams: expected 'group', numbers, or numbers by name, got 'all'"),
        ({"adversary": 0}, "teams: agent 'agent_0' has none; give its name or the beginning of it"),
        ({"a": 0, "blue": 1}, "teams: 'blue' is the beginning of no agent's name; agents: adversary_0, "),
        ({"adversary": 0, "agent": 2}, r"teams: expected whole numbers from 0 without gaps, got \['0', '2'\]"),
        ({"adversary": "red", "agent": "blue"}, "teams: expected whole numbers"),
        ([0, 1], "teams: expected one number for each of 4 agents, got 2"),
    ],
)
def test_teams_that_do_not_fit_are_refused(teams, message):
    with pytest.raises(ValueError, match=message):
        envs.make(TAG, teams=teams)


def test_native_environments_have_their_own_teams():
    with pytest.raises(ValueError, match="teams: only for third-party environments; Climbing is a native one"):
        envs.make("climbing", teams="group")


def test_num_agents_is_understood_whatever_the_environment_calls_it():
    assert envs.make("mpe2.simple_spread_v3", num_agents=4).agents.num_agents == 4
    assert envs.make("mpe2.simple_spread_v3", num_agents=4, num_envs=2, workers=1).agents.num_agents == 4
    assert len(envs.parallel("mpe2.simple_spread_v3", num_agents=2).possible_agents) == 2


def crowd(num_agents):
    return fixtures.Events(order=[f"walker_{i}" for i in range(num_agents)])


def few(num_agents):
    return crowd(2)


@pytest.mark.parametrize(
    ("env", "error", "message"),
    [
        (TAG, ValueError, "num_agents: mpe2.simple_tag_v3 has no such argument; it takes num_good, num_adversaries, "),
        (fixtures.Events, ValueError, "num_agents: Events has no such argument; it takes events, horizon, order"),
        (lambda: None, ValueError, "has no such argument; it takes none"),
        (few, envs.EnvError, "num_agents: asked for 5, but few has 2 agents"),
    ],
)
def test_num_agents_that_cannot_be_had_is_refused(env, error, message):
    assert envs.make(crowd, num_agents=5).agents.num_agents == 5
    with pytest.raises(error, match=message):
        envs.make(env, num_agents=5)
