"""Settings of an experiment: every key of a run, with its meaning, in one model."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, SerializeAsAny, field_validator

from coordination.names import unknown
from envs import registry
from marl.config import Config, ConfigError, YamlDumper, merge, validate
from marl.networks.config import BodyConfig, CriticConfig, Identity, ImageConfig, MemoryConfig, MLPConfig, NetworkConfig
from marl.recipes import RECIPES

MOST_THREADS = 1024  # of any kind; more are a slip of the hand
MOST = 10**9  # copies, steps: more fit no machine
LEARN, RANDOM, SCRIPTED = "learn", "random", "scripted"  # who may play a group, besides a stored run
MAY_BE_NOTHING = {"graph", "critic", "memory", "encoders", "identity", "signals", "run_dir"}


class EvaluationConfig(Config):
    """When to measure the policy, apart from training.

    Attributes:
        every: Iterations between evaluations while training; 0 for none.
        episodes: Episodes of each.
        final_episodes: Episodes at the end of training, greedy and stochastic each.
    """

    every: int = Field(default=50, ge=0)
    episodes: int = Field(default=32, ge=1)
    final_episodes: int = Field(default=100, ge=1)


class Settings(Config):
    """One experiment.

    Attributes:
        env: A native environment (``spread``), an import path (``mpe2.simple_spread_v3``), a file
            (``./my_env.py:make``), or, from Python, a factory or an object.
        env_args: Arguments of the environment; ``num_agents`` everywhere.
        num_envs: Copies B stepped together.
        workers: Processes that step third-party environments; 0 steps them in this one.
        on_crash: What happens when a worker falls: ``stop`` the run, or ``restart`` it, its episodes cut; counted in
            ``env/restarts``.
        timeout_s: Seconds that a worker may take for one step of its copies.
        use_state: Whether a third-party environment's ``state()`` is shown to critics and mixers.
        teams: Who wins together in a third-party environment; see :func:`envs.make`. None for everyone.
        graph: Who hears whom where the environment does not say; see docs.
        wrappers: SuperSuit wrappers and our own, in order.
        policies: Who plays each group: ``learn`` (everyone who is not named), ``random``, ``scripted``, or the folder
            of a run, whose last policy plays without learning on.
        algorithm: Recipe and its settings.
        policy: Network of the policy.
        critic: Network of the critic; None takes the recipe's.
        memory: ``gru`` or ``lstm``: what agents remember from step to step; None for nothing.
        sharing: ``all | group | none``, or one number per agent; where it is left out the recipe decides.
        encoders: Who shares the first layers, what reads images and the readouts; None takes ``sharing``, but ``group``
            where that is ``all`` and groups see or do different things.
        images: How images among the observations are read; None takes their pixels one by one.
        identity: ``none | onehot | embedding``; None takes onehot for shared MLPs, none for graph policies.
        normalise_obs: Normalise observations by running moments.
        reward: ``individual``: each agent learns from its own; ``team``: from its team's sum.
        signals: Stages of :mod:`coordination.signals`, after ``reward``.
        total_steps: Environment steps over all copies.
        rollout_steps: Steps T of every copy per iteration.
        seed: Root of all randomness.
        device: ``cpu``, ``cuda`` or ``auto``.
        threads: Torch threads; other numbers of threads give other bits.
        evaluate: When to evaluate.
        checkpoint_every: Iterations between checkpoints; one is always written at the end and on Ctrl-C.
        run_dir: Folder of the run; must not exist. None makes one under ``runs/`` named by time.
    """

    env: Any = "spread"
    env_args: dict[str, Any] = Field(default_factory=dict)
    num_envs: int = Field(default=128, ge=1, le=MOST)
    workers: int = Field(default=0, ge=0, le=MOST_THREADS)
    on_crash: Literal["stop", "restart"] = "stop"
    timeout_s: float = Field(default=300.0, gt=0)
    teams: Any = None
    use_state: bool = False
    graph: Any = None
    wrappers: list[Any] = Field(default_factory=list)
    policies: dict[str, str] = Field(default_factory=dict)
    algorithm: SerializeAsAny[Config]
    policy: BodyConfig = MLPConfig()
    critic: CriticConfig
    memory: MemoryConfig | None = None
    sharing: Literal["all", "group", "none"] | tuple[int, ...] = "all"
    encoders: Literal["all", "group", "none"] | None = None
    images: ImageConfig | None = ImageConfig()
    identity: Identity | None = None
    normalise_obs: bool = False
    reward: Literal["individual", "team"] = "individual"
    signals: Any = None
    total_steps: int = Field(default=500_000, ge=1)
    rollout_steps: int = Field(default=25, ge=1, le=MOST)
    seed: int = Field(default=0, ge=0)
    device: str = "cpu"
    threads: int = Field(default=1, ge=1, le=MOST_THREADS)
    evaluate: EvaluationConfig = EvaluationConfig()
    checkpoint_every: int = Field(default=50, ge=1)
    run_dir: Path | None = None

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not re.fullmatch(r"cpu|cuda(:\d+)?|auto", device):
            raise ValueError("cpu, cuda, cuda:0 ... or auto")
        return device

    @field_validator("env")
    @classmethod
    def _known_name(cls, env: Any) -> Any:
        if env is None or env == "":
            raise ValueError("expected a name or an import path")
        if isinstance(env, str) and re.fullmatch(r"\w+", env):
            registry.resolve(env)
        return env

    @field_validator("run_dir", mode="before")
    @classmethod
    def _a_path(cls, path: Any) -> Any:
        if path is not None and (not isinstance(path, str | Path) or "\0" in str(path) or path == ""):
            raise ValueError("expected a path such as runs/mine; write ./5 for a folder that is called by a number")
        return path

    @property
    def network(self) -> NetworkConfig:
        """The keys about networks."""
        shared = {name: getattr(self, name) for name in NetworkConfig.model_fields}
        return NetworkConfig(**shared)

    @property
    def recipe(self) -> str:
        """Name of the algorithm."""
        return self.algorithm.name  # type: ignore[attr-defined]

    def plain(self) -> dict[str, Any]:
        """All keys as plain data; what was given as an object becomes its description ``<...>``."""
        free = {name: _plain(getattr(self, name)) for name in ("env", "graph", "signals", "wrappers")}
        data = {**self.model_dump(mode="json", exclude=set(free)), **free}
        return {name: data[name] for name in type(self).model_fields}

    def to_yaml(self) -> str:
        """The one YAML form, every key written out."""
        return yaml.dump(self.plain(), Dumper=YamlDumper, sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child) for child in value]
    return value if value is None or isinstance(value, bool | int | float | str) else f"<{value!r}>"


def _player(name: Any) -> Any:
    """Who plays a group; the folder of a run by its full path, so that it is found again from anywhere."""
    if not isinstance(name, str | PathLike) or name in (LEARN, RANDOM, SCRIPTED):
        return name
    folder = Path(name)
    return str(folder.resolve() if (folder / "config.yaml").is_file() else folder)


def settings(keys: Mapping[str, Any]) -> Settings:
    """Complete and check the keys of an experiment.

    Short forms are allowed: ``algorithm="mappo"``, ``policy="graph"``, ``critic="central"`` stand for mappings with
    that ``name``; ``num_agents`` may stand beside ``env``.

    Raises:
        ConfigError: With one line per mistake.
    """
    data = {name: value for name, value in keys.items() if value is not None or name not in MAY_BE_NOTHING}
    data = {name: value.model_dump() if isinstance(value, Config) else value for name, value in data.items()}
    for name in ("algorithm", "policy", "critic", "memory", "env_args", "evaluate", "policies"):
        named = name in ("algorithm", "policy", "critic", "memory")
        if not isinstance(data.get(name, {}), str | Mapping if named else Mapping):
            raise ConfigError(f"{name}: expected a {'name or a ' if named else ''}mapping, got {data[name]!r}")
    if "num_agents" in data:
        data["env_args"] = {**(data.get("env_args") or {}), "num_agents": data.pop("num_agents")}
    data["policies"] = {group: _player(name) for group, name in (data.get("policies") or {}).items()}
    if isinstance(env := data.get("env"), str) and re.match(r"[^:]+\.py(:\w+)?$", env):
        data["env"] = str(Path(env.partition(".py")[0] + ".py").resolve()) + env.partition(".py")[2]
    if isinstance(file := data.get("graph"), str) and os.path.isfile(file):
        data["graph"] = os.path.abspath(file)
    for name in ("policy", "critic", "memory", "algorithm"):
        if isinstance(data.get(name), str):
            data[name] = {"name": data[name]}
    chosen = merge({"name": "mappo"}, data.get("algorithm") or {})
    name = str(chosen.pop("name"))
    if name not in RECIPES:
        raise ConfigError(unknown("algorithm", name, RECIPES))
    recipe = RECIPES[name]
    data["algorithm"] = validate(registry.load(recipe.config), {**recipe.settings, **chosen, "name": name}, "algorithm")
    data["critic"] = merge({"name": recipe.critic}, data.get("critic") or {})
    data.setdefault("sharing", recipe.sharing)
    if isinstance(body := data["critic"].get("body"), str):
        data["critic"]["body"] = {"name": body}
    if "policy" in data and isinstance(data["policy"], Mapping):
        data["policy"] = {"name": "mlp", **data["policy"]}
    return validate(Settings, data)
