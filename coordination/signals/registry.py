"""Names of reward stages, and how a line of configuration becomes a chain of them."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from coordination.names import unknown

if TYPE_CHECKING:
    from coordination.signals.base import RewardStage, SharedReward

STAGES: dict[str, str] = {
    "local": "coordination.signals.sharing:Local",
    "team": "coordination.signals.sharing:Team",
    "khop": "coordination.signals.sharing:KHop",
    "consensus_smooth": "coordination.signals.smoothing:ConsensusSmooth",
    "coalition_share": "coordination.signals.smoothing:CoalitionShare",
    "shapley": "coordination.signals.credit:Shapley",
    "factor_shapley": "coordination.signals.credit:FactorShapley",
    "difference": "coordination.signals.credit:Difference",
    "counterfactual": "coordination.signals.credit:Counterfactual",
    "potential": "coordination.signals.potential:Potential",
    "comm_cost": "coordination.signals.shaping:CommCost",
    "objectives": "coordination.signals.shaping:Objectives",
    "coherence": "coordination.signals.temporal:Coherence",
    "redistribute": "coordination.signals.temporal:Redistribute",
}

_IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def build(spec: str | Mapping | Iterable | None, audit: bool = False, **defaults: Any) -> SharedReward:
    """A :class:`SharedReward` from configuration.

    O(number of stages).

    Args:
        spec: A name of :data:`STAGES`; an import path ``module:Class`` of a stage of your own; a mapping of names to
            arguments, applied in order; a stage object; or a list of any of these. None is the empty chain.
            An argument of the form ``module:name`` is imported, so that functions can be named in a file.
        audit: Check every declared property on every call.
        defaults: Arguments (such as ``gamma``) given to every stage that takes them and is not told otherwise.

    Raises:
        ValueError: For an unknown name or argument; the message names the nearest one.

    >>> build(["team", {"khop": {"k": 2}}]).names
    ('team', 'khop')
    """
    from coordination.signals.base import SharedReward

    return SharedReward(list(_stages(spec, defaults)), audit=audit)


def _stages(spec: Any, defaults: dict[str, Any]) -> Iterable[RewardStage]:
    if spec is None:
        return
    if isinstance(spec, str):
        yield _make(spec, {}, defaults)
    elif isinstance(spec, Mapping):
        for name, arguments in spec.items():
            if not isinstance(arguments, Mapping | None):
                raise ValueError(f"signal {name!r}: expected a mapping of arguments, got {arguments!r}")
            yield _make(str(name), dict(arguments or {}), defaults)
    elif callable(spec):
        yield cast("RewardStage", spec)  # SharedReward checks it
    elif isinstance(spec, Iterable):
        for one in spec:
            yield from _stages(one, defaults)
    else:
        raise ValueError(f"signals: expected a name, a mapping, a stage or a list of these, got {spec!r}")


def _make(name: str, arguments: dict[str, Any], defaults: dict[str, Any]) -> RewardStage:
    if name not in STAGES and not _IMPORT_PATH.fullmatch(name):
        raise ValueError(unknown("signal", name, STAGES))
    made = _load(STAGES.get(name, name), f"signal {name!r}")
    try:
        takes = [p for p in inspect.signature(made).parameters if p != "self"]
    except (TypeError, ValueError):  # a module, a number, a type of Python's own
        raise ValueError(f"signal {name!r}: expected a class or function that makes a stage, got {made!r}") from None
    for key in arguments:
        if key not in takes:
            raise ValueError(f"signal {name!r}: {unknown('argument', key, takes)}")
    given = {key: value for key, value in defaults.items() if key in takes} | arguments
    for key, value in given.items():
        if isinstance(value, str) and _IMPORT_PATH.fullmatch(value):
            given[key] = _load(value, f"signal {name!r}, argument {key!r}")
    try:
        return made(**given)
    except TypeError as error:
        raise ValueError(f"signal {name!r}: {error}; it takes: {', '.join(takes)}") from error


def _load(path: str, what: str) -> Any:
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{what}: cannot import {path!r}: {error}") from error
