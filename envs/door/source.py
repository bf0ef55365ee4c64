"""Where a third-party environment comes from: an import path with arguments, a factory, or an object.

An import path is ``package.module`` (its ``parallel_env``), ``package.module:factory`` or ``./file.py:factory``, or an
id of a package with environments of another kind (:mod:`envs.door.foreign`). Only these can be handed to worker
processes.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
import operator
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils.conversions import aec_to_parallel

from envs.door import foreign, suits
from envs.door.errors import EnvError, explain
from envs.door.turns import Turns

ALIASES = {  # what environments call the number of their agents, by the beginning of their import path
    "mpe2.simple_spread": "N",
    "pettingzoo.butterfly.pistonball": "n_pistons",
    "pettingzoo.classic.hanabi": "players",
    "pettingzoo.classic.leduc_holdem": "num_players",
    "pettingzoo.classic.texas_holdem": "num_players",
    "pettingzoo.sisl.multiwalker": "n_walkers",
    "pettingzoo.sisl.pursuit": "n_pursuers",
}
NEEDED = ("possible_agents", "observation_space", "action_space", "reset", "step", "close")


@dataclass(frozen=True)
class Source:
    """Everything needed to build one more copy of an environment.

    Attributes:
        name: What to call it in messages.
        make: Called with ``args`` for each copy.
        args: Arguments of ``make``.
        suits: SuperSuit wrappers around each copy, as in :func:`envs.door.suits.wear`.
        path: The import path, or None for factories and objects, which stay in this process.
        single: Whether this is one environment that exists already, so that there can be no second copy.
    """

    name: str
    make: Callable[..., Any]
    args: dict[str, Any] = field(default_factory=dict)
    suits: Sequence[Any] = ()
    path: str | None = None
    single: bool = False

    @classmethod
    def of(cls, env: Any, args: dict[str, Any], wrappers: Sequence[Any] = ()) -> Source:
        """The source that an import path, a module, a factory or an environment object stands for.

        Raises:
            ValueError: If an import path leads nowhere, or an object is given arguments.
            TypeError: If ``env`` is none of these.
        """
        if isinstance(env, ModuleType):
            env = env.__name__
        if isinstance(env, str):
            return cls(env, locate(env), args, wrappers, absolute(env))
        if isinstance(env, AECEnv) or (not isinstance(env, type) and all(hasattr(env, name) for name in NEEDED)):
            if args:
                raise ValueError(f"env_args: an environment object takes no arguments, got {', '.join(args)}")
            return cls(type(env).__name__, lambda: env, {}, wrappers, single=True)
        if not callable(env):
            raise TypeError(
                f"env: expected an id, an import path, a factory or a PettingZoo ParallelEnv, got {type(env).__name__}"
            )
        return cls(getattr(env, "__qualname__", repr(env)), env, args, wrappers)

    def build(self) -> ParallelEnv:
        """One more copy, with the Parallel API: turn-based environments as :class:`~envs.door.turns.Turns`.

        Raises:
            EnvError: If building fails; the message says where.
            TypeError: If what is built is no PettingZoo environment.
            ValueError: If there is no argument for the number of agents, but one was given.
        """
        args = self._named_args()
        try:
            made = self.make(**args)
        except Exception as error:
            raise explain(error, self.name) from error
        if isinstance(made, AECEnv) and not made.metadata.get("is_parallelizable", False):
            env: ParallelEnv = Turns(suits.wear(made, self.suits))
        else:
            env = suits.wear(as_parallel(made, self.name), self.suits)
        wanted = self.args.get("num_agents")
        if wanted is not None and len(env.possible_agents) != wanted:
            raise EnvError(f"num_agents: asked for {wanted}, but {self.name} has {len(env.possible_agents)} agents")
        return env

    def _named_args(self) -> dict[str, Any]:
        """The arguments, with the number of agents under the name that this environment gives it.

        Raises:
            ValueError: If it is known to have none.
        """
        if "num_agents" not in self.args:
            return self.args
        alias = next((name for start, name in ALIASES.items() if (self.path or "").startswith(start)), None)
        if alias is not None:
            return {alias if name == "num_agents" else name: value for name, value in self.args.items()}
        accepted = _parameters(self.make, self.path)
        if accepted is not None and "num_agents" not in accepted:
            takes = f"it takes {', '.join(accepted)}" if accepted else "it takes none"
            raise ValueError(f"num_agents: {self.name} has no such argument; {takes}")
        return self.args

    def to_json(self) -> str:
        """The source in the form :meth:`from_json` reads in a worker.

        Raises:
            ValueError: If the source has no import path, or an argument does not survive JSON.
        """
        if self.path is None:
            raise ValueError(
                f"workers: {self.name} is an object or a function of this process and cannot be sent to workers; give "
                "an import path such as package.module:factory or ./file.py:factory, or use workers=0"
            )
        for what, value in {**self.args, **{f"wrappers[{i}]": w for i, w in enumerate(self.suits)}}.items():
            if not _survives_json(value):
                raise ValueError(f"{what}: {value!r} cannot be sent to workers as JSON; use workers=0")
        return json.dumps({"path": self.path, "args": self.args, "suits": list(self.suits)})

    @classmethod
    def from_json(cls, text: str) -> Source:
        """Inverse of :meth:`to_json`."""
        given = json.loads(text)
        return cls.of(given["path"], given["args"], given["suits"])


def _parameters(make: Callable[..., Any], path: str | None) -> list[str] | None:
    """Names of the arguments of a factory; None where they cannot be known.

    PettingZoo's factories take anything and hand it to the ``raw_env`` of their module, so that one is asked instead.
    """
    try:
        given = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return None
    if not any(p.kind is p.VAR_KEYWORD for p in given):
        return [p.name for p in given]
    raw = getattr(sys.modules.get(_split(path)[0]) if path else None, "raw_env", None)
    return None if raw is None or raw is make else _parameters(raw, None)


def _survives_json(value: Any) -> bool:
    try:
        return json.loads(json.dumps(value)) == value
    except (TypeError, ValueError):
        return False


def is_import_path(text: str) -> bool:
    """Whether a string names a module or a file rather than a native environment."""
    return any(mark in text for mark in ".:/\\")


def absolute(path: str) -> str:
    """The import path with the file, if there is one, named from the root."""
    module, colon, name = _split(path)
    return str(Path(module).resolve()) + colon + name if module.endswith(".py") else path


def _split(path: str) -> tuple[str, str, str]:
    module, colon, name = path.rpartition(":")
    return (path, "", "") if not colon or name.endswith(".py") or "\\" in name else (module, colon, name)


def locate(path: str) -> Callable[..., Any]:
    """The factory an import path names; for a module without one, its ``parallel_env``, else its ``env``.

    Raises:
        ValueError: If the module, the file or the name does not exist.
    """
    if (made := foreign.maker(path)) is not None:
        return made
    module_name, _, name = _split(path)
    module = _load_file(Path(module_name)) if module_name.endswith(".py") else _load_module(module_name, path)
    if name:
        try:
            found = operator.attrgetter(name)(module)
        except AttributeError:
            raise ValueError(f"env {path!r}: {module_name} has no {name!r}") from None
    else:
        found = getattr(module, "parallel_env", None) or getattr(module, "env", None)
    if found is None:
        raise ValueError(f"env {path!r}: the module has no parallel_env; name what makes it, as in {path}:factory")
    if not callable(found):
        raise ValueError(f"env {path!r}: expected a function or class that makes the environment, got {found!r}")
    return found


def _load_module(name: str, path: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise explain(error, f"importing {name}") from error
        package = foreign.PACKAGES.get(error.name)
        hint = f"pip install {package}" if package else "is it installed, and is the name spelled right?"
        raise ValueError(f"env {path!r}: there is no module {error.name!r}; {hint}") from None
    except Exception as error:
        raise explain(error, f"importing {name}") from error


def _load_file(path: Path) -> ModuleType:
    """The module of a file, loaded once; its folder joins the end of the import path, for its neighbours."""
    file = path.resolve()
    if not file.is_file():
        raise ValueError(f"env: there is no file {str(path)!r}")
    name = f"{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise explain(error, f"importing {path}") from error
    return module


def as_parallel(env: Any, name: str) -> ParallelEnv:
    """An environment with the Parallel API, converted from an AEC environment that says it can be.

    Raises:
        TypeError: If it is no PettingZoo environment.
    """
    if isinstance(env, AECEnv):
        env = aec_to_parallel(env)
    if missing := [attribute for attribute in NEEDED if not hasattr(env, attribute)]:
        raise TypeError(
            f"{name}: expected a PettingZoo ParallelEnv, got {type(env).__name__} without {', '.join(missing)}"
        )
    return env
