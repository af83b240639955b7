"""The machine under the benchmarks: its threads, and how fast its cores can multiply and add."""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PEAK_SOURCE = Path(__file__).with_name("fma_peak.c")


def limit_threads(count: int) -> None:
    """Make every library use so many threads. To be called before any of them is imported.

    One thread is also held to one core, so that it does not wander.
    """
    if "numpy" in sys.modules:
        raise RuntimeError("threads are limited too late: NumPy is already imported")
    for name in THREAD_VARIABLES:
        os.environ[name] = str(count)
    eigen = "true" if count > 1 else "false"
    os.environ["XLA_FLAGS"] = (
        f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={count}"
    )
    if count == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def measure_fma_peak(dtype: str) -> float | None:
    """Billions of operations a second that one core can do, or None without a C compiler.

    Parameters
    ----------
    dtype : str
        ``"float32"`` or ``"float64"``.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return None
    real = "float" if dtype == "float32" else "double"
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "fma_peak.so"
        flags = ["-O3", "-march=native", "-shared", "-fPIC", f"-DREAL={real}"]
        subprocess.run([compiler, *flags, str(PEAK_SOURCE), "-o", str(library)], check=True)
        run = ctypes.CDLL(str(library)).multiply_and_add
    run.argtypes, run.restype = [ctypes.c_long], ctypes.c_double
    rounds = 2_000_000
    fastest = 0.0
    for _ in range(7):
        start = time.perf_counter()
        operations = run(rounds)
        fastest = max(fastest, operations / (time.perf_counter() - start))
    return fastest / 1e9


def describe(modules: Iterable[str]) -> dict[str, Any]:
    """The processor, and the versions of Python and of modules, to keep beside measurements."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        cpu = next((line.partition(": ")[2] for line in lines if "model name" in line), cpu)
    return {
        "cpu": cpu,
        "python": platform.python_version(),
        "versions": {
            module: importlib.import_module(module).__version__
            for module in ("numpy", "scipy", *dict.fromkeys(modules))
        },
    }
