"""Partners and opponents: who chooses for whom, what the learner learns from it, and runs that go on exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import envs
import marl
from coordination import tree
from envs.base import VectorEnv
from envs.particle.scripted import tag_chase
from marl.config import ConfigError, read_yaml
from marl.experiment import Experiment, make_env
from marl.partners import WithPartners
from marl.report.evaluate import NetworkAct, evaluate, record
from marl.runs.simulate import simulate
from marl.settings import settings
from marl.storage.checkpoint import Checkpoints

SMALL: dict[str, Any] = {
    "env": "tag",
    "num_envs": 4,
    "rollout_steps": 10,  # not a divisor of the 25-step episodes
    "total_steps": 4 * 10 * 4,
    "policy": {"name": "mlp", "hidden": [8]},
    "algorithm": {"name": "mappo", "epochs": 2, "minibatches": 2},
    "evaluate": {"every": 0, "final_episodes": 4},
}
PREY = slice(3, 4)  # three adversaries, then one good agent


def world(policies: dict[str, Any], num_envs: int = 8, **keys: Any) -> VectorEnv:
    return make_env(settings({**SMALL, "policies": policies, **keys}), num_envs, 0, torch.device("cpu"))


def zeros(num_envs: int) -> torch.Tensor:
    return torch.zeros(num_envs, 4, 1, dtype=torch.int64)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> marl.Run:
    """A run in which everybody learned, and remembers."""
    return marl.train(**SMALL, memory="gru", run_dir=tmp_path_factory.mktemp("runs") / "stored")


def test_a_random_partner_chooses_evenly_and_the_learner_for_itself() -> None:
    env = world({"agent": "random"}, 64)
    env.reset(1)
    played = torch.stack([env.step(zeros(64)).action for _ in range(40)])
    counts = played[:, :, PREY].flatten().bincount(minlength=5)
    expected = 64 * 40 / 5
    assert ((counts - expected).abs() < 5 * (expected * 0.8) ** 0.5).all()  # five standard deviations
    assert (played[:, :, : PREY.start] == 0).all()


def test_a_scripted_partner_does_what_the_script_says() -> None:
    env = world({"adversary": "scripted"})
    view = env.reset(1)
    for _ in range(30):
        scripted = tag_chase(view, env.agents)
        step = env.step(zeros(8))
        assert torch.equal(step.action[:, : PREY.start], scripted[:, : PREY.start])
        assert (step.action[:, PREY] == 0).all()
        view = step.view


@pytest.mark.parametrize("env", ["tag", "mpe2.simple_tag_v3"])
def test_the_world_goes_as_it_would_with_those_actions_and_partners_do_not_act(env: str) -> None:
    wrappers = [{"name": "hide", "columns": [[0, 2]]}]
    inside, outside = (world(p, 4, env=env, wrappers=wrappers) for p in ({}, {"agent": "random"}))
    generator = torch.Generator().manual_seed(0)
    a, b = inside.reset(5), outside.reset(5)
    for _ in range(30):
        assert torch.equal(a.obs, b.obs)
        assert b.acting.all(0).tolist() == [True, True, True, False]
        step = outside.step(torch.randint(5, (4, 4, 1), generator=generator))
        same = inside.step(step.action)
        assert torch.equal(same.reward, step.reward)
        assert (step.next_view is step.view) == (same.next_view is same.view)
        assert not step.next_view.acting[:, PREY].any()
        a, b = same.view, step.view
    inside.close()
    outside.close()


def test_a_stored_policy_plays_as_it_was_stored_and_remembers(stored: marl.Run) -> None:
    env = world({"agent": stored}, 3)
    assert isinstance(env, WithPartners)
    view = env.reset(1)
    act = NetworkAct(stored.policy(envs.make("tag")), env.generator.clone_state())
    start = torch.ones(3, dtype=torch.bool)
    for _ in range(60):  # over two restarts
        with torch.no_grad():
            expected = act(view, start)
        step = env.step(zeros(3))
        assert torch.equal(step.action[:, PREY], expected[:, PREY])
        view, start = step.view, step.over


@pytest.mark.parametrize("algorithm", ["ippo", "iql"])
def test_nothing_is_learned_for_or_from_partners(algorithm: str) -> None:
    fast = {"name": algorithm} if algorithm == "ippo" else {"name": algorithm, "warmup": 0}
    s = settings({**SMALL, "algorithm": fast, "policies": {"agent": "random"}, "sharing": "group"})
    experiment = Experiment(s)
    before = {name: p.clone() for name, p in experiment.algorithm.named_parameters() if "target" not in name}
    experiment.start()
    experiment.trainer.run()
    after = dict(experiment.algorithm.named_parameters())
    for name, old in before.items():  # weights are stacked by group: adversaries, then the good agent
        assert torch.equal(old[1], after[name][1]), name
    assert any(not torch.equal(old[0], after[name][0]) for name, old in before.items())


def test_the_return_is_that_of_the_teams_that_learn(stored: marl.Run, tmp_path: Path) -> None:
    run = marl.train(**{**SMALL, "policies": {"adversary": stored}}, run_dir=tmp_path / "run")
    rows = [row for row in run.metrics() if "train/return" in row]
    assert rows
    assert all(row["train/return"] == row["train/return/team_1"] for row in rows)
    found = run.evaluate(8, policies=["greedy", "random"])
    assert found["greedy"].mean == pytest.approx(found["greedy"].by_team["team_1"])
    assert found["greedy"].returns.shape == (8, 2)
    again = run.evaluate(8, policies=["greedy", "random"])
    assert all(torch.equal(found[name].returns, again[name].returns) for name in found)
    other = run.evaluate(8, policies=["greedy"], changes={"policies": {"adversary": "scripted"}})
    assert not torch.equal(other["greedy"].returns, found["greedy"].returns)


def test_the_actor_and_the_record_tell_who_did_what(stored: marl.Run, tmp_path: Path) -> None:
    run = marl.train(**{**SMALL, "policies": {"agent": "random"}}, run_dir=tmp_path / "run")
    actor, env = run.actor(), envs.make("tag")
    view = env.reset(3)
    chosen = actor.act({name: view.obs[0, i, : 16 if i < 3 else 14].numpy() for i, name in enumerate(env.agents.names)})
    assert list(chosen) == ["adversary_0", "adversary_1", "adversary_2"]
    tensors = [actor.act(env.reset(seed), deterministic=False) for seed in range(20)]
    assert all(bool((action[:, PREY] == 0).all()) for action in tensors)
    assert any(bool(action[:, : PREY.start].any()) for action in tensors)
    seen = record(world({"agent": "random"}), lambda view, start: zeros(8), 0)
    assert (seen.action[:, :, : PREY.start] == 0).all()
    assert seen.action[:, :, PREY].unique().tolist() == [0, 1, 2, 3, 4]


def rows_after(experiment: Experiment, iterations: int) -> list[dict[str, Any]]:
    rows = [experiment.trainer.iterate() for _ in range(iterations)]
    return [{name: value for name, value in row.items() if name != "time"} for row in rows]


@pytest.mark.parametrize("policies", [{"agent": "random"}, {"adversary": "stored"}])
def test_a_resumed_run_meets_partners_that_go_on_where_they_were(
    policies: dict[str, Any], stored: marl.Run, tmp_path: Path
) -> None:
    s = settings({**SMALL, "policies": {g: stored if name == "stored" else name for g, name in policies.items()}})
    whole, resumed = Experiment(s), Experiment(s)
    whole.start()
    rows_after(whole, 3)
    Checkpoints(tmp_path).save(3, whole.state_dict())
    resumed.load_state_dict(Checkpoints(tmp_path).load())
    assert rows_after(whole, 4) == rows_after(resumed, 4)
    states = [dict(tree.named(e.trainer.state_dict()["algorithm"])) for e in (whole, resumed)]
    assert all(torch.equal(x, states[1][name]) for name, x in states[0].items())


def test_a_partner_that_was_trained_on_in_between_is_refused(stored: marl.Run) -> None:
    env = world({"adversary": stored}, 2)
    env.reset(0)
    state = env.state_dict()
    assert state["versions"] == {"adversary": 4}
    with pytest.raises(ValueError, match=r"policies\.adversary: was saved after 3 iterations .* after 4 now"):
        env.load_state_dict({**state, "versions": {"adversary": 3}})


def test_the_run_is_written_out_by_its_full_path(
    stored: marl.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stored.folder.parent)
    run = marl.train(**{**SMALL, "policies": {"agent": "stored"}}, run_dir=tmp_path / "run")
    assert read_yaml(run.folder / "config.yaml")["policies"] == {"agent": str(stored.folder.resolve())}
    monkeypatch.chdir(tmp_path)
    marl.load(run.folder).evaluate(4, policies=["greedy"])


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ({"prey": "random"}, r"policies: expected groups of the environment \(adversary, agent\), got 'prey'"),
        ({"agent": "randm"}, r"policies\.agent: expected random, scripted or a run folder, got 'randm'"),
        ({"agent": "random", "adversary": "scripted"}, "policies: nobody is left to learn"),
        ({"agent": 5}, r"policies\.agent: .*string, got 5"),
        ("random", "policies: expected a mapping, got 'random'"),
    ],
)
def test_mistakes_are_answered_in_one_line(policies: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        world(policies)
    assert "\n" not in str(caught.value)


def test_policies_that_do_not_fit_are_refused(stored: marl.Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"policies\.adversary: .*stored: saved parameter .* other spaces\?$"):
        world({"adversary": stored}, env="adversary")
    with pytest.raises(ConfigError, match=r"policies\.agent: there is no scripted policy for 'tag' as it is seen here"):
        world({"agent": "scripted"}, env_args={"num_agent_neighbors": 1})
    half = marl.train(**{**SMALL, "policies": {"agent": "random"}}, run_dir=tmp_path / "half")
    with pytest.raises(ConfigError, match=r"policies\.agent: the run .*half never learned to play agent"):
        world({"agent": half})
    with pytest.raises(ConfigError, match=r"policy: .*half never learned to play agent; say who does"):
        simulate("tag", str(half.folder), 2, 10, 0, {})
    assert simulate("tag", str(half.folder), 2, 10, 0, {"policies": {"agent": "random"}})["agents"] == 4


def test_two_groups_played_by_one_run_share_its_memory(stored: marl.Run) -> None:
    env = world({"agent": stored}, 3)
    assert isinstance(env, WithPartners)
    one = env.partners["agent"]
    both = WithPartners(envs.make("tag", 3), {"adversary": one, "agent": one})
    view, start = both.reset(1), torch.ones(3, dtype=torch.bool)
    act = NetworkAct(stored.policy(envs.make("tag")), both.generator.clone_state())
    for _ in range(5):
        with torch.no_grad():
            expected = act(view, start)
        step = both.step(zeros(3))
        assert torch.equal(step.action, expected)
        view, start = step.view, step.over
    assert evaluate(both, lambda view, start: zeros(3), 3, 0).mean == 0  # nobody learns, so there is no return
