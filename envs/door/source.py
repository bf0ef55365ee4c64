"""Where a third-party environment comes from: an import path with arguments, a factory, or an object.

An import path is ``package.module`` (its ``parallel_env``), ``package.module:factory`` or ``./file.py:factory``. Only
these can be handed to worker processes.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
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

from envs.door import suits
from envs.door.errors import explain

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
        """One more copy.

        Raises:
            EnvError: If building fails; the message says where.
            TypeError: If what is built is no PettingZoo environment.
            ValueError: If it is an AEC environment that cannot be stepped in parallel.
        """
        try:
            made = self.make(**self.args)
        except Exception as error:
            raise explain(error, self.name) from error
        return suits.wear(as_parallel(made, self.name), self.suits)

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
        raise ValueError(
            f"env {path!r}: there is no module {error.name!r}; is it installed, and is the name spelled right?"
        ) from None
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
    """An environment with the Parallel API, converted from AEC where that is exact.

    Raises:
        TypeError: If it is no PettingZoo environment.
        ValueError: If agents of an AEC environment see each other's moves within a cycle.
    """
    if isinstance(env, AECEnv):
        if not env.metadata.get("is_parallelizable", False):
            raise ValueError(
                f"{name}: this AEC environment is turn-based (its metadata does not say is_parallelizable), so its "
                "agents cannot act at once; use an environment with a parallel_env"
            )
        env = aec_to_parallel(env)
    if missing := [attribute for attribute in NEEDED if not hasattr(env, attribute)]:
        raise TypeError(
            f"{name}: expected a PettingZoo ParallelEnv, got {type(env).__name__} without {', '.join(missing)}"
        )
    return env
