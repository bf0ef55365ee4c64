"""Worlds: batched native environments, and every PettingZoo environment through one door."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envs.base import Step, VectorEnv, View
    from envs.checks import check
    from envs.door.errors import EnvError
    from envs.making import make, parallel
    from envs.native import NativeEnv, Task
    from envs.spaces import UnsupportedSpaceError
    from envs.spec import AgentSpec, Group

_WHERE = {
    "AgentSpec": "envs.spec",
    "EnvError": "envs.door.errors",
    "Group": "envs.spec",
    "NativeEnv": "envs.native",
    "Step": "envs.base",
    "Task": "envs.native",
    "UnsupportedSpaceError": "envs.spaces",
    "VectorEnv": "envs.base",
    "View": "envs.base",
    "check": "envs.checks",
    "make": "envs.making",
    "parallel": "envs.making",
}
__all__ = [
    "AgentSpec",
    "EnvError",
    "Group",
    "NativeEnv",
    "Step",
    "Task",
    "UnsupportedSpaceError",
    "VectorEnv",
    "View",
    "check",
    "make",
    "parallel",
]


def __getattr__(name: str) -> Any:
    """Public names, imported when first asked for, so that workers and ``--help`` start without torch."""
    if name not in _WHERE:
        raise AttributeError(f"module 'envs' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value
