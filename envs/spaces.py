"""Spaces of agents as flat vectors: what an observation, an action and a mask look like on the one agent axis.

Only numpy and gymnasium are used here, so that worker processes start without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from gymnasium import spaces


class UnsupportedSpaceError(TypeError):
    """A space that has no flat form here; the message names it and says what to do."""


@dataclass(frozen=True)
class Part:
    """One named piece of a flat observation: columns ``start:stop``, originally of ``shape``.

    Attributes:
        name: What it is called.
        start, stop: Its columns.
        shape: What they were before flattening.
        byte: Whether its numbers are bytes, 0 to 255.
    """

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]
    byte: bool = False

    @property
    def image(self) -> tuple[int, int, int] | None:
        """Height, width and channels of an image: three axes, or two of bytes; None for anything else."""
        if len(self.shape) == 2 and self.byte:
            return (*self.shape, 1)
        return self.shape if len(self.shape) == 3 else None


@dataclass(frozen=True)
class ObservationSpec:
    """A flat observation of ``dim`` columns made of named parts, in order."""

    parts: tuple[Part, ...]

    @property
    def dim(self) -> int:
        """Number of columns."""
        return self.parts[-1].stop if self.parts else 0

    @classmethod
    def flat(cls, dim: int) -> ObservationSpec:
        """One unnamed vector of ``dim`` columns."""
        return cls.named(obs=dim)

    @classmethod
    def named(cls, **widths: int) -> ObservationSpec:
        """Vectors side by side, by name and width."""
        stops = np.cumsum(list(widths.values())).tolist()
        return cls(tuple(Part(n, s - w, s, (w,)) for (n, w), s in zip(widths.items(), stops, strict=True)))

    @classmethod
    def from_space(cls, space: spaces.Space, where: str = "observation") -> ObservationSpec:
        """The flat form of a gymnasium space.

        Box, Discrete (one-hot), MultiDiscrete (one-hot each), MultiBinary, and Dict and Tuple of these.

        Raises:
            UnsupportedSpaceError: For Text, Graph, Sequence and anything else without a fixed flat size.
        """
        return cls(tuple(_parts(space, "obs", 0, where)))


def _parts(space: spaces.Space, name: str, start: int, where: str) -> list[Part]:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        named = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        found: list[Part] = []
        for key, child in named:
            inner = str(key) if name == "obs" else f"{name}.{key}"
            found += _parts(child, inner, found[-1].stop if found else start, where)
        return found
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        kind = type(space).__name__
        raise UnsupportedSpaceError(
            f"{where}: {kind} spaces are not supported; give Box, Discrete, MultiDiscrete, MultiBinary or Dict"
        )
    width = spaces.flatdim(space)
    shape = tuple(space.shape) if isinstance(space, spaces.Box) and space.shape else (width,)
    return [Part(name, start, start + width, shape, isinstance(space, spaces.Box) and space.dtype == np.uint8)]


def flatten(space: spaces.Space, value: Any) -> np.ndarray:
    """The value of a supported space as a flat vector."""
    if isinstance(space, spaces.Box):
        return np.asarray(value).reshape(-1)
    return np.asarray(spaces.flatten(space, value))


@dataclass(frozen=True)
class ActionSpec:
    """What one agent chooses: several discrete components, or several bounded reals; never both.

    Attributes:
        kind: ``discrete`` or ``box``.
        sizes: Choices of each discrete component; empty for a box.
        low, high: Bounds of each real component (infinite where unbounded); empty for discrete.
    """

    kind: Literal["discrete", "box"]
    sizes: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @classmethod
    def discrete(cls, *sizes: int) -> ActionSpec:
        """Discrete components with the given numbers of choices."""
        return cls("discrete", sizes=sizes)

    @classmethod
    def box(cls, low: float, high: float, dim: int) -> ActionSpec:
        """``dim`` reals between ``low`` and ``high``."""
        return cls("box", low=(float(low),) * dim, high=(float(high),) * dim)

    @property
    def components(self) -> int:
        """Number of action components A."""
        return len(self.sizes) if self.kind == "discrete" else len(self.low)

    @property
    def logits(self) -> int:
        """Number of head outputs K: one per choice, or mean and log standard deviation per real."""
        return sum(self.sizes) if self.kind == "discrete" else 2 * len(self.low)

    @property
    def features(self) -> int:
        """Width D of an action as a critic sees it: one column per discrete choice, or one per real."""
        return sum(self.sizes) if self.kind == "discrete" else len(self.low)

    @classmethod
    def from_space(cls, space: spaces.Space, where: str = "action") -> ActionSpec:
        """The action spec of a gymnasium space.

        Raises:
            UnsupportedSpaceError: For spaces that mix discrete and continuous parts, leave nothing to choose, or have
                no fixed size.
        """
        made = cls._of(space, where)
        if not made.components or not all(low < high for low, high in zip(made.low, made.high, strict=True)):
            raise UnsupportedSpaceError(f"{where}: {space} leaves nothing to choose")
        return made

    @classmethod
    def _of(cls, space: spaces.Space, where: str) -> ActionSpec:
        if isinstance(space, spaces.Discrete):
            return cls.discrete(int(space.n))
        if isinstance(space, spaces.MultiDiscrete):
            return cls.discrete(*(int(n) for n in space.nvec.reshape(-1)))
        if isinstance(space, spaces.MultiBinary):
            return cls.discrete(*(2,) * int(np.prod(space.shape)))
        if isinstance(space, spaces.Box):
            low, high = (tuple(map(float, b.reshape(-1))) for b in (space.low, space.high))
            return cls("box", low=low, high=high)
        if isinstance(space, spaces.Dict | spaces.Tuple):
            children = list(space.spaces.values()) if isinstance(space, spaces.Dict) else list(space.spaces)
            inner = [cls.from_space(child, where) for child in children]
            if len({s.kind for s in inner}) < 2:
                join = lambda name: tuple(x for s in inner for x in getattr(s, name))  # noqa: E731
                return cls(inner[0].kind if inner else "discrete", join("sizes"), join("low"), join("high"))
            raise UnsupportedSpaceError(f"{where}: a space mixing discrete and continuous parts is not supported")
        raise UnsupportedSpaceError(
            f"{where}: {type(space).__name__} spaces are not supported; use Discrete, MultiDiscrete, MultiBinary or Box"
        )


def to_space(space: spaces.Space, components: np.ndarray) -> Any:
    """The environment's own action from flat components ``[A]``: the inverse of the flattening in ActionSpec."""
    if isinstance(space, spaces.Discrete):
        return int(components[0]) + int(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        start = getattr(space, "start", 0)
        return (components.reshape(space.nvec.shape).astype(space.dtype) + start).astype(space.dtype)
    if isinstance(space, spaces.MultiBinary):
        return components.reshape(space.shape).astype(space.dtype)
    if isinstance(space, spaces.Box):
        return np.clip(components.reshape(space.shape), space.low, space.high).astype(space.dtype)
    children = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)  # type: ignore[attr-defined]
    taken, values = 0, {}
    for key, child in children:
        width = ActionSpec.from_space(child).components
        values[key] = to_space(child, components[taken : taken + width])
        taken += width
    return values if isinstance(space, spaces.Dict) else tuple(values.values())
