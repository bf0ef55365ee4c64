"""A second device without hardware: tensors that live on the CPU and behave as if they lay on a GPU.

Inside ``accelerator("meta")`` whatever is made on the device ``meta`` holds real numbers, reports ``meta:0``, and obeys
CUDA's rules: it does not mix with tensors of the CPU, numpy cannot see it, draws need a generator of its own, and
whatever makes the host wait for the device is written down. ``accelerator("cuda")`` is the same for a real device.
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ACCELERATORS = [
    pytest.param("meta", id="simulated"),
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
]
HOME = torch.device("meta", 0)  # as CUDA, which answers cuda:0 where cuda was asked for
MIXED = "Expected all tensors to be on the same device, but found at least two devices, {} and cpu! ({})"
WAITING = {  # operations whose result the host has to see: its size, its success, or the number itself
    *("_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive"),
    *("equal", "bincount", "histc", "_to_sparse", "_linalg_check_errors"),
    *("_linalg_eigh", "_linalg_svd", "linalg_eig", "linalg_lstsq"),
}
TAKES_NUMBERS = {"fill", "masked_fill", "where", "index_put", "_index_put_impl", "index_fill"}  # beside pointwise ones
LOOKS_UP = {"index", "index_put", "_index_put_impl"}


class SimulatedTensor(Tensor):
    """A tensor that says it lies on the simulated device; ``_numbers`` holds what it holds."""

    _numbers: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: Tensor) -> SimulatedTensor:
        form = {}
        if inner.layout == torch.strided:
            form = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        made = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=HOME, **form)  # type: ignore[attr-defined]
        made._numbers = inner
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Simulated({self._numbers!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {}, [])


_Generator = torch.Generator


class SimulatedGenerator(_Generator):
    """A generator of another device that draws what one of the CPU would."""

    addresses: dict[int, torch.device] = {}  # noqa: RUF012 - torch hands on the address alone

    def __new__(cls, home: torch.device) -> SimulatedGenerator:
        made = super().__new__(cls, "cpu")  # type: ignore[call-arg]
        cls.addresses[made._cdata] = home  # type: ignore[attr-defined]
        return made

    def __init__(self, home: torch.device) -> None:
        self.home = home

    def __del__(self) -> None:
        self.addresses.pop(self._cdata, None)  # type: ignore[attr-defined]

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.home


class _Kind(type(torch.Generator)):  # type: ignore[misc]
    def __instancecheck__(cls, x: object) -> bool:
        return isinstance(x, _Generator)


def _generators(home: torch.device) -> type:
    """What stands for ``torch.Generator``: makes one of the CPU, or of ``home`` with the draws of the CPU."""

    class AnyGenerator(_Generator, metaclass=_Kind):
        def __new__(cls, device: Any = "cpu") -> torch.Generator:
            return SimulatedGenerator(home) if torch.device(device).type == home.type else _Generator(device)

    return AnyGenerator


def simulated(device: Any) -> bool:
    """Whether this names the simulated device."""
    return device is not None and torch.device(device).type == HOME.type


# -- operations of ATen ------------------------------------------------------------------------------------------------


def _leaves(x: Any) -> Iterator[Any]:
    if isinstance(x, list | tuple):
        for y in x:
            yield from _leaves(y)
    elif isinstance(x, dict):
        yield from _leaves(list(x.values()))
    elif dataclasses.is_dataclass(x):
        yield from _leaves([getattr(x, f.name) for f in dataclasses.fields(x)])
    else:
        yield x


def _unwrap(x: Any) -> Any:
    if isinstance(x, SimulatedTensor):
        return x._numbers
    if isinstance(x, list | tuple):
        return type(x)(_unwrap(y) for y in x)
    return {k: _unwrap(y) for k, y in x.items()} if isinstance(x, dict) else x


def _wrap(x: Any, known: dict[int, Tensor]) -> Any:
    if isinstance(x, Tensor):
        return known[id(x)] if id(x) in known else SimulatedTensor(x)
    return type(x)(_wrap(y, known) for y in x) if isinstance(x, list | tuple) else x


def _refuse_mixtures(name: str, func: Any, args: tuple, plain: list[Tensor]) -> None:
    """As CUDA does: the CPU contributes single numbers, and indices to look up with."""
    base = name.rstrip("_")
    numbers = torch.Tag.pointwise in func.tags or base in TAKES_NUMBERS
    if base in LOOKS_UP:
        if not isinstance(args[0], SimulatedTensor):
            raise RuntimeError(
                f"indices should be either on cpu or on the same device as the indexed tensor (cpu) ({func})"
            )
        plain = [x for x in plain if not any(x is index for index in args[1])]
    changed = name.endswith("_") and isinstance(args[0], Tensor) and not isinstance(args[0], SimulatedTensor)
    if changed or any(x.ndim or not numbers for x in plain):
        raise RuntimeError(MIXED.format(HOME, func))


def _refuse_generators(func: Any, args: tuple, kwargs: dict, there: bool) -> None:
    for x in _leaves((args, kwargs)):
        if isinstance(x, _Generator) and (x._cdata in SimulatedGenerator.addresses) != there:  # type: ignore[attr-defined]
            raise RuntimeError(f"Expected a generator of {HOME if there else 'cpu'}, found another ({func})")


def _waits(name: str, args: tuple, kwargs: dict) -> str | None:
    """Why the host waits for this operation, if it does."""
    if name in WAITING:
        return {"_local_scalar_dense": "item"}.get(name, name)
    if name == "repeat_interleave" and kwargs.get("output_size") is None:
        return "repeat_interleave without output_size"
    if name == "segment_reduce" and kwargs.get("lengths") is not None and not kwargs.get("unsafe"):
        return "segment_reduce with a look at its lengths"
    if name == "_to_copy":
        return _crossing(args[0].device, kwargs.get("device") or args[0].device, kwargs.get("non_blocking"))
    if name == "copy_":
        return _crossing(args[1].device, args[0].device, kwargs.get("non_blocking") or args[2:] == (True,))
    return _looking_up(name, *args[1:3]) if name.rstrip("_") in LOOKS_UP else None


def _crossing(source: torch.device, target: torch.device, quiet: bool | None) -> str | None:
    if simulated(source) == simulated(target) or quiet:
        return None
    return "copy to the host" if simulated(source) else "copy to the device"


def _looking_up(name: str, indices: list[Tensor | None], value: Tensor | None = None) -> str | None:
    given = [x for x in indices if x is not None]
    filling = name != "index" and len(given) == 1 and not isinstance(value, SimulatedTensor)  # as a masked fill
    if any(x.dtype in (torch.bool, torch.uint8) for x in given) and not filling:
        return "boolean mask as index"
    return None if all(isinstance(x, SimulatedTensor) for x in given) else "copy of indices to the device"


def _dispatch(func: Any, args: tuple, kwargs: dict, waits: list[str]) -> Any:
    """Runs one operation on the numbers, under the rules of the device."""
    tensors = [x for x in _leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = [x for x in tensors if isinstance(x, SimulatedTensor)]
    target, name = kwargs.get("device"), func.overloadpacket.__name__
    result_there = simulated(target) if target is not None else bool(there)
    _refuse_generators(func, args, kwargs, result_there)
    if not there and not result_there:
        return func(*args, **kwargs)
    plain = [x for x in tensors if not isinstance(x, SimulatedTensor)]
    if there and plain and name != "copy_":
        _refuse_mixtures(name, func, args, plain)
    if (why := _waits(name, args, kwargs)) is not None:
        waits.append(f"{why} at {_caller()}")
    inner = func(*_unwrap(args), **_unwrap(kwargs if target is None else {**kwargs, "device": "cpu"}))
    if torch.Tag.inplace_view in func.tags:  # what wraps the numbers changes its shape with them
        with torch._C._DisableTorchDispatch():  # type: ignore[attr-defined]
            func(*args, **kwargs)
    if name == "copy_":
        return args[0]
    if not result_there:
        return inner
    out = _wrap(inner, {id(x._numbers): x for x in there})
    assert all(x.shape == x._numbers.shape for x in _leaves(out) if isinstance(x, SimulatedTensor)), func
    return out


def _caller() -> str:
    """The line of ours that asked."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path != __file__ and "/torch/" not in path and "<" not in path:
            return f"{path}:{frame.f_lineno} ({frame.f_code.co_name})"
        frame = frame.f_back
    return "?"


class _Operations(TorchDispatchMode):
    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {}, self.waits)


# -- functions of Python that ATen does not see ------------------------------------------------------------------------


class _Functions(TorchFunctionMode):
    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self.waits = waits

    def wait(self, why: str) -> None:
        self.waits.append(f"{why} at {_caller()}")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor, torch.asarray):
            return self.from_data(func, *args, **kwargs)
        if func is torch.sparse_csr_tensor and simulated(kwargs.get("device")):
            self.wait("copy to the device")
            return SimulatedTensor(func(*_unwrap(args), **{**_unwrap(kwargs), "device": "cpu"}))
        if args and isinstance(args[0], SimulatedTensor):
            return self.of_tensor(func, args, kwargs)
        return func(*args, **kwargs)

    def of_tensor(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """Methods that need the numbers themselves, or that CUDA treats in a way of its own."""
        own = args[0]
        if func in (Tensor.numpy, Tensor.__array__):
            raise TypeError(f"can't convert {HOME} device type tensor to numpy. Use Tensor.cpu() first.")
        if func is Tensor.tolist:
            self.wait("tolist")
            return own.detach()._numbers.tolist()
        if func == Tensor.data.__set__:  # type: ignore[attr-defined]
            assert own.shape == args[1].shape, "the simulated device knows no data of another shape"
            own._numbers = args[1]._numbers
            return None
        if func is Tensor.to:  # cuda:0 needs no move to cuda
            args = tuple(HOME if isinstance(x, str | torch.device) and simulated(x) else x for x in args)
        elif func is Tensor.__setitem__ and isinstance(args[2], int | float):  # a number stays on the host
            args = (own, args[1], torch.tensor(args[2], dtype=own.dtype))
        return func(*args, **kwargs)

    def from_data(self, func: Any, data: Any, dtype: Any = None, device: Any = None, **kwargs: Any) -> Tensor:
        """``torch.tensor`` and its kin."""
        if isinstance(data, SimulatedTensor):
            kept = data.detach().clone() if func is torch.tensor else data
            return kept.to(HOME if device is None or simulated(device) else device, dtype or data.dtype)
        for x in _leaves(data):
            if isinstance(x, SimulatedTensor):
                self.wait("item")
        made = func(_unwrap(data), dtype=dtype, **kwargs)
        if not simulated(device):
            return made
        self.wait("copy to the device")
        return SimulatedTensor(made.clone())


class _DrawsOfTheCpu(TorchFunctionMode):
    """On a real device: draws of a :class:`SimulatedGenerator` are made on the CPU and moved."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        generator = kwargs.get("generator")
        if not isinstance(generator, SimulatedGenerator):
            return func(*args, **kwargs)
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": "cpu"}
        drawn = func(*(x.cpu() if isinstance(x, Tensor) else x for x in args), **kwargs)
        return args[0].copy_(drawn) if func.__name__.endswith("_") else drawn.to(generator.home)


# -- what tests use ----------------------------------------------------------------------------------------------------


class Accelerator:
    """A device: ``device`` to ask for, ``home`` as its tensors answer."""

    def __init__(self, device: torch.device, home: torch.device, waits: list[str] | None) -> None:
        self.device, self.home, self._waits = device, home, waits

    @contextmanager
    def waits(self) -> Iterator[list[str]]:
        """What made the host wait for the device inside, and where; complete at the end."""
        seen: list[str] = []
        if self._waits is not None:
            before = len(self._waits)
            yield seen
            seen += self._waits[before:]
            return
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield seen
            finally:
                torch.cuda.set_sync_debug_mode("default")
        seen += [f"{w.filename}:{w.lineno}" for w in caught if "synchronizing" in str(w.message)]


@contextmanager
def accelerator(name: str, same_draws: bool = True) -> Iterator[Accelerator]:
    """The device of this name, ``meta`` for the simulated one.

    Args:
        name: Kind of device.
        same_draws: Whether its generators draw what those of the CPU do. A real device gets them from the CPU, so it
            waits for them; the simulated one always has them.
    """
    device = torch.device(name)
    with ExitStack() as entered:
        if simulated(device):
            waits: list[str] = []
            fused = "torch.optim.optimizer._get_fused_kernels_supported_devices"
            entered.enter_context(mock.patch(fused, return_value=["cpu", HOME.type]))
            entered.enter_context(mock.patch("torch.Generator", _generators(HOME)))
            entered.enter_context(_Functions(waits))
            entered.enter_context(_Operations(waits))
            yield Accelerator(device, HOME, waits)
            return
        home = torch.zeros(1, device=device).device
        if same_draws:
            entered.enter_context(mock.patch("torch.Generator", _generators(home)))
            entered.enter_context(_DrawsOfTheCpu())
        yield Accelerator(device, home, None)


def tensors(x: Any) -> list[Tensor]:
    """All tensors in lists, dicts and dataclasses."""
    return [y for y in _leaves(x) if isinstance(y, Tensor)]


def assert_same(found: Any, expected: Any, home: torch.device, tolerance: float = 1e-5) -> None:
    """Equal numbers, shapes and types, all on ``home``."""
    assert len(tensors(found)) == len(tensors(expected))
    for x, y in zip(tensors(found), tensors(expected), strict=True):
        assert x.device == home, f"{tuple(x.shape)} on {x.device}"
        numbers = x._numbers if isinstance(x, SimulatedTensor) else x.detach().cpu()
        torch.testing.assert_close(numbers, y.detach(), rtol=tolerance, atol=tolerance, equal_nan=True)
