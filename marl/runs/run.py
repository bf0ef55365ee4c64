"""Run: a run folder as an object, to look at, evaluate, act with and finish."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from coordination import rng
from envs.base import VectorEnv
from envs.scripted import random_action
from marl.config import ConfigError, read_yaml
from marl.experiment import evaluation_env, torch_threads
from marl.learners import stored_policy
from marl.networks.policy import Policy
from marl.partners import scripted_policy
from marl.report.episode import coordination_metrics, episode_record, known_columns
from marl.report.evaluate import Act, Evaluation, NetworkAct, evaluate, record
from marl.report.html import write_report
from marl.report.log import read_metrics
from marl.report.video import check_video, frames, write_video
from marl.runs.actor import Actor, Translator
from marl.runs.folders import read_json
from marl.runs.stage import stage
from marl.settings import Settings, settings
from marl.storage.checkpoint import Checkpoints
from marl.storage.files import write_atomic

METRIC_EPISODES = 32  # episodes from which coordination metrics are taken
POLICIES = ("greedy", "stochastic", "random", "scripted")
ENVIRONMENT_KEYS = ("env", "env_args", "graph", "wrappers", "teams", "use_state", "num_agents", "policies")


class Run:
    """A run folder.

    Args:
        folder: Where it lies.
        objects: What was given as an object and has no name in a file: ``env``, ``graph``, ``signals``, ``wrappers``.
        live: The settings, where they are at hand; otherwise ``config.yaml`` is read.

    Raises:
        ConfigError: If the folder holds no run, or an object must be given.
    """

    def __init__(
        self, folder: Path | str, objects: Mapping[str, Any] | None = None, live: Settings | None = None
    ) -> None:
        self.folder = Path(folder)
        if not (self.folder / "config.yaml").is_file():
            raise ConfigError(f"{self.folder} is no run folder: it has no config.yaml")
        if live is not None:
            self.settings: Settings = live
            return
        data = {**read_yaml(self.folder / "config.yaml"), **(objects or {})}
        for name in ("env", "graph", "signals", "wrappers"):
            if any(text.startswith("<") for text in _texts(data.get(name))):
                raise ConfigError(f"{self.folder}: {name} was the object {data[name]}; give it as {name}=")
        self.settings = settings(data)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def __fspath__(self) -> str:
        return str(self.folder)

    @property
    def finished(self) -> bool:
        """Whether training reached its end and was evaluated."""
        return (self.folder / "result.json").is_file()

    def metrics(self) -> list[dict[str, Any]]:
        """All rows of ``metrics.jsonl``, one per iteration."""
        return read_metrics(self.folder / "metrics.jsonl")

    def result(self) -> dict[str, Any]:
        """``result.json``: what was run and how it ended; empty where training has not."""
        return read_json(self.folder / "result.json") if self.finished else {}

    def summary(self) -> dict[str, Any]:
        """The result without its long lists: one number per policy."""
        result = self.result()
        try:
            found = {name: sum(e["returns"]) / len(e["returns"]) for name, e in result.get("evaluation", {}).items()}
        except (AttributeError, KeyError, TypeError, ZeroDivisionError):
            path = self.folder / "result.json"
            raise ConfigError(f"{path} is damaged: it holds no returns; remove it and resume the run") from None
        rest = {key: value for key, value in result.items() if key != "evaluation"}
        return {"run": str(self.folder), "finished": self.finished, **rest, "return": found}

    def policy(self, env: VectorEnv, which: str = "latest") -> Policy:
        """The policy at a checkpoint (``latest``, ``best`` or a number), for the agents of ``env``.

        Raises:
            CheckpointError: If there is no such checkpoint.
            ValueError: If its policy does not fit these agents.
        """
        return stored_policy(self.folder, self.settings, env, which).policy

    def actor(self, which: str = "latest", seed: int = 0) -> Actor:
        """The policy, ready to act on views or on PettingZoo's dictionaries."""
        env = evaluation_env(self.settings, 1, torch.device("cpu"))
        policy = self.policy(env, which)
        return Actor(policy, Translator(env), rng.generator(seed, "actor"))

    def evaluate(
        self,
        episodes: int = 100,
        which: str = "latest",
        seed: int = 0,
        policies: Sequence[str] = POLICIES,
        changes: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> dict[str, Evaluation]:
        """Play whole episodes: the policy greedy and stochastic, a random one, and a scripted one if there is one.

        Args:
            episodes: Episodes for each, on the same seeds.
            which: Checkpoint: ``latest``, ``best`` or a number.
            seed: Seed of the episodes.
            policies: Which of these to play.
            changes, more: Other settings of the environment (``env``, ``env_args``, ``graph``, ``wrappers``), to test
                the same weights elsewhere, or other ``policies`` to play with.
        """
        chosen = self._elsewhere({**(changes or {}), **more})
        env = evaluation_env(chosen, episodes, torch.device("cpu"))
        try:
            policy = self.policy(env, which)
            with torch_threads(self.settings.threads):
                return evaluate_all(chosen, env, policy, episodes, rng.derive(seed, "evaluation"), policies)
        finally:
            env.close()

    def film(
        self,
        path: Path | str,
        which: str = "latest",
        seed: int = 0,
        changes: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Path:
        """Write one episode of the greedy policy as a film, with the graph drawn over it.

        Args:
            path: A ``.gif`` or ``.mp4`` file; one that exists is replaced.
            which, seed, changes, more: As in :meth:`evaluate`.

        Raises:
            ConfigError: If no film can be written there.
        """
        path, chosen = check_video(path), self._elsewhere({**(changes or {}), **more})
        with closing(stage(chosen)) as env, torch_threads(self.settings.threads):
            act = NetworkAct(self.policy(env, which))
            write_video(path, frames(env, act, rng.derive(seed, "film"), str(chosen.plain()["env"])))
        return path

    def _elsewhere(self, changes: Mapping[str, Any]) -> Settings:
        """The settings with another environment."""
        if unknown := sorted(set(changes) - set(ENVIRONMENT_KEYS)):
            raise ConfigError(f"evaluate: {', '.join(unknown)} cannot be changed; only {', '.join(ENVIRONMENT_KEYS)}")
        return changed(self.settings, dict(changes))

    def finish(self, resume: str = "exact") -> None:
        """Evaluate the last policy and write ``result.json``, ``episode.json`` and ``report.html``."""
        s = self.settings
        progress = Checkpoints(self.folder / "checkpoints").load()["trainer"]["progress"]
        env = evaluation_env(s, s.evaluate.final_episodes, torch.device("cpu"))
        policy = self.policy(env)
        few = evaluation_env(s, min(METRIC_EPISODES, s.evaluate.final_episodes), torch.device("cpu"))
        with torch_threads(s.threads):
            found = evaluate_all(s, env, policy, s.evaluate.final_episodes, rng.derive(s.seed, "final"))
            seen = record(few, NetworkAct(policy), rng.derive(s.seed, "record"))
        env.close()
        few.close()
        result = {
            "env": s.plain()["env"],
            "algorithm": s.recipe,
            "policy": s.policy.name,
            "seed": s.seed,
            "env_steps": progress["env_steps"],
            "resume": resume,
            "evaluation": {
                name: {
                    "returns": e.total.tolist(),
                    "episode_length": float(e.lengths.mean()),
                    **{f"return/{team}": value for team, value in e.by_team.items()},
                    **e.info,
                }
                for name, e in found.items()
            },
            "coordination": coordination_metrics(seen, env.agents),
            "time": {"train_s": progress["wall_s"], "threads": s.threads, "torch": torch.__version__},
        }
        write_atomic(
            self.folder / "episode.json", json.dumps(episode_record(seen, env.agents, known_columns(s.env, env.agents)))
        )
        write_atomic(self.folder / "result.json", json.dumps(result))
        write_report([self.folder])


def _texts(value: Any) -> list[str]:
    """Every string in plain data."""
    if isinstance(value, Mapping | list):
        return [text for child in (value.values() if isinstance(value, Mapping) else value) for text in _texts(child)]
    return [value] if isinstance(value, str) else []


def evaluate_all(
    s: Settings, env: VectorEnv, policy: Policy, episodes: int, seed: int, policies: Sequence[str] = POLICIES
) -> dict[str, Evaluation]:
    """The trained policy and its baselines on the same episodes."""
    generator = rng.generator(seed, "actions", device=env.device)
    acts: dict[str, Act] = {"greedy": NetworkAct(policy), "stochastic": NetworkAct(policy, generator)}
    acts["random"] = lambda view, start: random_action(view, env.agents, generator)
    if (scripted := scripted_policy(s, env)) is not None:
        acts["scripted"] = lambda view, start: scripted(view)
    if missing := sorted(set(policies) - set(POLICIES)):
        raise ConfigError(f"policies: expected some of {', '.join(POLICIES)}, got {', '.join(missing)}")
    return {name: evaluate(env, act, episodes, seed) for name, act in acts.items() if name in policies}


def changed(s: Settings, changes: dict[str, Any]) -> Settings:
    """The settings with another environment; its old arguments are kept only if the environment is."""
    if not changes:
        return s
    data = s.plain()
    if "env" in changes:
        if not changes["env"]:
            raise ConfigError("env: expected a name or an import path, got nothing")
        data |= {"env_args": {}, "teams": None, "use_state": False}
    return settings({**data, **changes})
