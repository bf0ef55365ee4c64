"""The one entrance to every environment: native ids, import paths, factories and PettingZoo objects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Literal, get_args, get_type_hints

import torch
from pettingzoo import AECEnv, ParallelEnv

from coordination import rng
from coordination.names import unknown
from envs import registry
from envs.adapters import ParallelVectorEnv
from envs.base import VectorEnv
from envs.door import suits
from envs.door.foreign import VMAS
from envs.door.layout import Teams
from envs.door.pool import Workers
from envs.door.source import Source, is_import_path
from envs.graphs import GraphSetting
from envs.native import NativeEnv, Task
from envs.native.parallel import NativeParallel
from envs.wrappers import HideColumns, WithGraph

HIDE = "hide"
WORDS: dict[Any, str] = {  # plain types of arguments, as a user says them
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "nothing",
}
Env = str | ModuleType | Callable[..., object] | ParallelEnv | AECEnv | Task


def make(
    env: Env,
    num_envs: int = 1,
    device: torch.device | str = "cpu",
    *,
    seed: int = 0,
    graph: GraphSetting = None,
    workers: int = 0,
    wrappers: Sequence[str | dict[str, Any]] = (),
    use_state: bool = False,
    teams: Teams = None,
    on_crash: Literal["stop", "restart"] = "stop",
    timeout_s: float | None = 300.0,
    **env_args: Any,
) -> VectorEnv:
    """B copies of an environment as tensors.

    Args:
        env: A native id (``spread``), an import path (``mpe2.simple_spread_v3``, ``package.module:factory``,
            ``./file.py:factory``), an id of another package (``gymnasium:CartPole-v1``; :mod:`envs.door.foreign`), a
            module, a function that makes a PettingZoo environment, such an environment itself (then ``num_envs`` must
            be 1), or a native :class:`~envs.native.Task`.
        num_envs: Number of copies B.
        device: Where tensors live; native environments compute there.
        seed: Root seed of all episodes.
        graph: Who hears whom, one of the settings in :mod:`envs.graphs`; None keeps the environment's own.
        workers: Processes among which third-party copies are shared; 0 keeps them in this one. Needs an import path.
        wrappers: ``{"name": "hide", "columns": [part or [start, stop], ...]}`` for any environment, and SuperSuit's
            preprocessing by name for third-party ones, the first one innermost.
        use_state: Whether a third-party environment's ``state()`` becomes ``View.state``.
        teams: Who wins together in a third-party environment: None for all, ``"group"`` for agents of one name stem,
            numbers by (beginning of) name such as ``{"red": 0, "blue": 1}``, or one number for each agent.
        on_crash: What to do when a worker dies, hangs or its environment raises: ``stop`` with an error, or ``restart``
            it; its copies are cut off and begin new episodes, and ``restarts`` of the environment counts them.
        timeout_s: Seconds that a worker may take for one step of its copies; None waits for ever.
        env_args: Arguments of the environment; ``num_agents`` is how many agents there are, whatever the environment
            calls it.

    Raises:
        ValueError: If a name, an argument or a wrapper is unknown or does not fit; the message names the nearest.
        EnvError: If a third-party environment fails.
        UnsupportedSpaceError: If a space has no flat form.

    >>> env = make("mpe2.simple_spread_v3", num_envs=2, N=4)
    >>> tuple(env.reset(seed=0).obs.shape)
    (2, 4, 24)
    """
    hides, rest = _split_hides(wrappers)
    task = _task(env, env_args)
    crew = Workers(workers, on_crash, timeout_s)
    if task is None and isinstance(env, str) and env.startswith(VMAS):
        _refuse({"workers": workers, "use_state": use_state, "wrappers": rest}, "VMAS steps all copies together")
        from envs.door.vmas import VmasVectorEnv

        made: VectorEnv = VmasVectorEnv(env, env_args, num_envs, device, seed, graph, teams)
    elif task is None:
        source = Source.of(env, env_args, rest)
        made = ParallelVectorEnv(
            source, num_envs, device, seed=seed, workers=crew, graph=graph, use_state=use_state, teams=teams
        )
    else:
        given = {"workers": workers, "use_state": use_state, "wrappers": rest, "teams": teams is not None}
        _refuse(given, f"only for third-party environments; {type(task).__name__} is a native one")
        made = NativeEnv(task, num_envs, device, seed)
        made = made if graph is None else WithGraph(made, graph, rng.derive(seed, "graph"))
    for which in hides:
        made = HideColumns(made, which)
    return made


def _refuse(given: dict[str, Any], why: str) -> None:
    if unfit := [name for name, value in given.items() if value]:
        raise ValueError(f"{unfit[0]}: {why}")


def parallel(env: Env, *, render_mode: str | None = None, **env_args: Any) -> ParallelEnv:
    """One copy of an environment with PettingZoo's Parallel API.

    Args:
        env: As in :func:`make`.
        render_mode: ``rgb_array`` for pictures by ``render()``; third-party environments may know others.
        env_args: Arguments of the environment.

    Raises:
        ValueError: As in :func:`make`.
    """
    task = _task(env, env_args)
    if task is None:
        return Source.of(env, env_args if render_mode is None else {**env_args, "render_mode": render_mode}).build()
    return NativeParallel(task, name=env if isinstance(env, str) else None, render_mode=render_mode)


def _task(env: Env, args: dict[str, Any]) -> Task | None:
    """The native task that ``env`` names or is; None for everything else."""
    if isinstance(env, Task):
        if args:
            raise ValueError(f"env_args: a task takes no further arguments, got {', '.join(args)}")
        return env
    if isinstance(env, str) and not is_import_path(env):
        cls, name = registry.load(registry.resolve(env).target), env
    elif isinstance(env, type) and issubclass(env, Task):
        cls, name = env, env.__name__
    else:
        return None
    known = [p.name for p in inspect.signature(cls).parameters.values() if p.kind is not p.VAR_KEYWORD]
    for key in args:
        if key not in known:
            raise ValueError(unknown(f"argument of environment {name!r}:", key, known))
    hints = get_type_hints(cls.__init__)
    for key, value in args.items():
        plain = _plain_types(hints.get(key))
        if plain and type(value) not in plain and not (type(value) is int and float in plain):
            wanted = " or ".join(WORDS[kind] for kind in plain)
            raise TypeError(f"argument {key} of environment {name!r}: expected {wanted}, got {value!r}")
    return cls(**args)


def _plain_types(hint: Any) -> tuple[type, ...]:
    """The types of an argument if all of them are plain ones; empty where it takes something else as well."""
    kinds = get_args(hint) or (hint,)
    return tuple(kinds) if all(kind in WORDS for kind in kinds) else ()


def _split_hides(wrappers: Sequence[str | dict[str, Any]]) -> tuple[list[Sequence[Any]], list[str | dict[str, Any]]]:
    """What the ``hide`` wrappers hide, and the other wrappers, each checked by name."""
    if isinstance(wrappers, str | dict):
        raise TypeError(f"wrappers: expected a list of wrappers, got {wrappers!r}")
    hides, rest = [], []
    for wrapper in wrappers:
        name, args = suits.split(wrapper)
        if name != HIDE:
            suits.check(name)
            rest.append(wrapper)
        elif set(args) != {"columns"} or not isinstance(args["columns"], list | tuple):
            raise ValueError(f"wrapper 'hide': expected columns: a list of parts or [start, stop], got {args}")
        else:
            hides.append(args["columns"])
    return hides, rest
