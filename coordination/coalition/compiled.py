"""Compile a plain loop with numba where numba is installed (the extra ``fast``)."""

from __future__ import annotations

import functools
from collections.abc import Callable


@functools.cache
def compiled(kernel: Callable) -> Callable | None:
    """``kernel`` compiled by ``numba.njit``, or None without numba. Compiled once a process, at its first call."""
    try:
        import numba  # type: ignore[import-not-found]
    except ImportError:
        return None
    return numba.njit(kernel)
