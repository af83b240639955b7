"""Hooks for tests: what the engine allocates, and its vector math."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fnn_core import _engine


class AllocationCounts(NamedTuple):
    """Aligned allocations of the engine (parameters and workspaces) since the process started."""

    calls: int
    bytes: int


def allocation_counts() -> AllocationCounts:
    """How often the engine has allocated, and how many bytes."""
    return AllocationCounts(*_engine.allocations())


def vector_function(name: str, x: np.ndarray) -> np.ndarray:
    """A function of the kernels' vector math, by its name in the kernels, on a 1-D array."""
    return _engine.vector_function(name, np.ascontiguousarray(x))
