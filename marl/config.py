"""Configuration: frozen pydantic models, one YAML form, and errors of one line that name the nearest key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from coordination.names import unknown


class ConfigError(ValueError):
    """A mistake in a configuration: one line per mistake, each naming its key."""


class Config(BaseModel):
    """Base of every configuration: frozen, strict about unknown keys and about what is a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, data: Any) -> Any:
        """Pydantic reads ``true`` as 1; where a number belongs it is handed on as text, which is refused."""
        if not isinstance(data, Mapping):
            return data
        kinds = {name: _leaves(field.annotation) for name, field in cls.model_fields.items()}
        numeric = {name for name, found in kinds.items() if found & {int, float} and bool not in found}
        return {name: _truth_as_text(value) if name in numeric else value for name, value in data.items()}


C = TypeVar("C", bound=Config)
SHOWN = 80  # letters of a wrong value that a message repeats
PLAIN_WORDS = {  # for pydantic's types of mistakes, where its own words are about Python
    "dict_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "too_short": "a list of at least one",
    "model_attributes_type": "a mapping",
    "model_type": "a mapping",
    "union_tag_not_found": "a mapping with a name",
}


def validate(model: type[C], data: Mapping[str, Any], where: str = "") -> C:
    """Build ``model`` from ``data``.

    Raises:
        ConfigError: With one line per mistake, unknown keys answered with the nearest known one.
    """
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        raise ConfigError("\n".join(_lines([_explain(model, e, where) for e in error.errors()]))) from None


def _lines(mistakes: Sequence[tuple[str, str, str]]) -> list[str]:
    """One line for each key, alternatives side by side; a mistake inside a value says more than one about all of it."""
    found: dict[str, tuple[list[str], str]] = {}
    for key, message, got in mistakes:
        found.setdefault(key, ([], got))[0].append(message)
    inner = [key for key in found if not any(other.startswith(f"{key}.") for other in found)]
    told = {key: " or ".join(dict.fromkeys(found[key][0])) + found[key][1] for key in inner}
    return [text if text.startswith("unknown ") else f"{key}: {text}" for key, text in told.items()]


def _explain(model: type[BaseModel], error: Any, where: str) -> tuple[str, str, str]:
    """Key of a mistake (without tags of unions and names of validators), what is wrong, and what was given."""
    owners, path = [model], [where] if where else []
    *parents, last = [str(part) for part in error["loc"] if "[" not in str(part)]  # such as tuple[int, ...]
    for part in parents:
        inner = [m for o in owners if part in o.model_fields for m in _models(o.model_fields[part].annotation)]
        tagged = [o for o in owners if "name" in o.model_fields and part in get_args(o.model_fields["name"].annotation)]
        if not tagged:
            path.append(part)
        owners = inner or tagged or owners
    key = ".".join([*path, last])
    if error["type"] == "extra_forbidden":
        known = [name for owner in owners for name in owner.model_fields]
        return key, unknown(f"key of {'.'.join(path)}" if path else "key", last, known), ""
    if error["type"] == "union_tag_invalid":
        known = [tag.strip(" '") for tag in error["ctx"]["expected_tags"].split(",")]
        return key, unknown(key, error["ctx"]["tag"], known), ""
    plain = str(PLAIN_WORDS.get(error["type"], error["msg"]))
    message = plain.removeprefix("Value error, ").removeprefix("Input should be ")
    got = error.get("input")
    return key, message, "" if isinstance(got, dict) else f", got {got!r}"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models among the alternatives of an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _truth_as_text(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_truth_as_text(one) for one in value]
    return str(value).lower() if isinstance(value, bool) else value


def _leaves(annotation: Any) -> set[Any]:
    """The plain types among the alternatives and parts of an annotation."""
    return {leaf for part in get_args(annotation) for leaf in _leaves(part)} or {annotation}


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
            value = yaml.load(text, YamlLoader) if text else None
        except (yaml.YAMLError, ValueError):  # ValueError: a number of more digits than Python reads
            raise ConfigError(f"{key}: cannot read the value {_short(text)} as YAML") from None
        node = result
        *parents, last = key.split(".")
        for parent in parents:
            child = node.get(parent, {})
            node[parent] = node = child if isinstance(child, dict) else {"name": child}
        old = node.get(last)
        node[last] = {**old, "name": value} if isinstance(old, dict) and isinstance(value, str) else value
    return result


class YamlLoader(yaml.SafeLoader):
    """YAML with the plain values of version 1.2 and everyone's numbers: ``1e-3`` is one, ``on`` and dates are text.

    ``2e6`` is a whole number. A value that contains itself is refused.
    """

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 - filled below, apart from the parent's

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.deep_construct = True  # each value is whole before its parent, so that none can be inside itself

    def number(self, node: yaml.ScalarNode) -> int | float:
        """``2e6`` as a whole number, ``2.0`` and ``1e-3`` as reals."""
        text = node.value.lower().replace(".inf", "inf").replace(".nan", "nan")
        if re.fullmatch(r"[-+]?\d+", text):
            return int(text)
        value = float(text)
        return int(value) if value.is_integer() and "." not in text and "e-" not in text else value


class YamlDumper(yaml.SafeDumper):
    """Writes what :class:`YamlLoader` reads back equal."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012


_SIGNS = [*"-+.0123456789"]
_PLAIN = {  # tag: what such a value looks like, the letters it begins with
    "null": (r"(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    "bool": (r"([Tt]rue|TRUE|[Ff]alse|FALSE)$", [*"tTfF"]),
    "int": (r"[-+]?\d+$", _SIGNS),
    "float": (r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$", _SIGNS),
    "merge": (r"<<$", ["<"]),
}
for _name, (_look, _begins) in _PLAIN.items():
    for _form in (YamlLoader, YamlDumper):
        _form.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_look), _begins)
for _name in ("int", "float"):
    YamlLoader.add_constructor(f"tag:yaml.org,2002:{_name}", YamlLoader.number)


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
        data = yaml.load(path.read_text(), YamlLoader)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no text, or a number of more digits than Python reads
        raise ConfigError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError(f"{path}: expected a mapping of keys to values")
    return data


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
