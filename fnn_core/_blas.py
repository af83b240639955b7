"""BLAS from SciPy: its products for the engine, and its threads."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from scipy.linalg import cython_blas

from fnn_core import _engine


def _integer_bytes() -> int:
    """How wide this SciPy's BLAS integers are: a capsule's name is the routine's signature."""
    return 4 if ", int *" in repr(cython_blas.__pyx_capi__["sgemm"]) else 8


class _Threads:
    """Holds BLAS to one thread while any net works with it, then restores the caller's setting.

    The setting is one for the whole process, so its users are counted. A symbol looked up in
    SciPy's module is found in the library that this module is linked with, whatever other BLAS the
    process has loaded.
    """

    def __init__(self) -> None:
        library = ctypes.CDLL(cython_blas.__file__)
        self.description = "of an unknown kind; its threads are left alone"
        self._lock = threading.Lock()
        self._users = 0
        self._before = 1
        self._set = self._get = None
        for prefix in ("scipy_", ""):
            for suffix in ("", "64_", "_64"):
                name = f"{prefix}openblas_{{}}{suffix}"
                if self._set is None and hasattr(library, name.format("set_num_threads")):
                    self._set = library[name.format("set_num_threads")]
                    self._get = library[name.format("get_num_threads")]
                    config = library[name.format("get_config")]
                    config.restype = ctypes.c_char_p
                    self.description = config().decode()

    @contextmanager
    def held(self) -> Iterator[None]:
        if self._set is None or self._get is None:
            yield
            return
        with self._lock:
            if self._users == 0:
                self._before = self._get()
                self._set(1)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._set(self._before)


_engine.use_blas(
    cython_blas.__pyx_capi__["sgemm"], cython_blas.__pyx_capi__["dgemm"], _integer_bytes()
)
THREADS = _Threads()
