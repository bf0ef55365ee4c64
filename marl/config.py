"""Configuration: frozen pydantic models, one YAML form, and errors of one line that name the nearest key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from coordination.names import unknown


class ConfigError(ValueError):
    """A mistake in a configuration: one line per mistake, each naming its key."""


class Config(BaseModel):
    """Base of every configuration: frozen, strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


C = TypeVar("C", bound=Config)


def validate(model: type[C], data: Mapping[str, Any], where: str = "") -> C:
    """Build ``model`` from ``data``.

    Raises:
        ConfigError: With one line per mistake, unknown keys answered with the nearest known one.
    """
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        lines = [_explain(model, e, where) for e in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def _explain(model: type[BaseModel], error: Any, where: str) -> str:
    """One mistake in one line; tags of unions and names of validators are left out of the key."""
    owners, path = [model], [where] if where else []
    *parents, last = [str(part) for part in error["loc"] if "[" not in str(part)]  # such as tuple[int, ...]
    for part in parents:
        inner = [m for o in owners if part in o.model_fields for m in _models(o.model_fields[part].annotation)]
        tagged = [o for o in owners if "name" in o.model_fields and part in get_args(o.model_fields["name"].annotation)]
        if not tagged:
            path.append(part)
        owners = inner or tagged or owners
    if error["type"] == "extra_forbidden":
        known = [name for owner in owners for name in owner.model_fields]
        return unknown(f"key of {'.'.join(path)}" if path else "key", last, known)
    if error["type"] == "union_tag_invalid":
        known = [tag.strip(" '") for tag in error["ctx"]["expected_tags"].split(",")]
        return unknown(".".join([*path, last]), error["ctx"]["tag"], known)
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    got = error.get("input")
    return f"{'.'.join([*path, last])}: {message}" + ("" if isinstance(got, dict) else f", got {got!r}")


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models among the alternatives of an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """``["a.b=1", "c=[1, 2]"]`` to a nested dict; values are read as YAML.

    Raises:
        ConfigError: If a pair has no ``=``, or a value is no YAML.
    """
    result: dict[str, Any] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign or not key:
            raise ConfigError(f"expected key=value, got {pair!r}")
        try:
            value = _number(yaml.safe_load(text)) if text else None
        except yaml.YAMLError:
            raise ConfigError(f"{key}: cannot read the value {text!r} as YAML") from None
        node = result
        *parents, last = key.split(".")
        for parent in parents:
            child = node.get(parent, {})
            node[parent] = node = child if isinstance(child, dict) else {"name": child}
        old = node.get(last)
        node[last] = {**old, "name": value} if isinstance(old, dict) and isinstance(value, str) else value
    return result


def _number(value: Any) -> Any:
    """``1e-3`` and ``2e6`` are strings in YAML 1.1 (a dot is missing), but numbers to everyone else."""
    if isinstance(value, dict):
        return {key: _number(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_number(child) for child in value]
    if isinstance(value, str) and value[:1] in "+-.0123456789":
        try:
            number = float(value)
        except ValueError:
            return value
        return int(number) if number.is_integer() and "e-" not in value.lower() and "." not in value else number
    return value


def merge(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """``extra`` over ``base``, nested; a bare name such as ``policy: graph`` merges as ``{"name": "graph"}``."""
    result = dict(base)
    for key, value in extra.items():
        old = result.get(key)
        if isinstance(value, Mapping) and isinstance(old, str):
            old = {"name": old}
        if (
            isinstance(value, Mapping)
            and isinstance(old, Mapping)
            and value.get("name", old.get("name")) == old.get("name")
        ):
            result[key] = merge(old, value)
        else:
            result[key] = value
    return result


def read_yaml(path: Path) -> dict[str, Any]:
    """A configuration file.

    Raises:
        ConfigError: If it cannot be read, or is not a mapping.
    """
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values")
    return _number(data)
