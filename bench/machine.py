"""The machine under the benchmarks: its threads, and how fast it can calculate and copy."""

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
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
FOLDER = Path(__file__).parent
#: Some ten milliseconds, beside which it does not count what starting a thread takes.
PEAK_ROUNDS = 5_000_000
#: Several times what any cache holds.
COPIED_BYTES = 256 * 2**20
TRIES = 7
#: Thousands of round trips of a line of the cache.
ROUND_TRIPS = 20


def one_of_each_core(processors: Iterable[int]) -> list[int]:
    """The last processor of each core among these, where the system tells; else all of them."""
    cores: dict[str, int] = {}
    for number in sorted(processors):
        siblings = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
        cores[siblings.read_text() if siblings.exists() else str(number)] = number
    return sorted(cores.values())


def available_cores() -> int:
    """How many cores the process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(one_of_each_core(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def limit_threads(count: int) -> None:
    """Make every library use so many threads. To be called before any of them is imported.

    They are also held to as many cores: one thread is not to wander, and XLA has as many threads
    as it sees cores.
    """
    if "numpy" in sys.modules:
        raise RuntimeError("threads are limited too late: NumPy is already imported")
    for name in THREAD_VARIABLES:
        os.environ[name] = str(count)
    eigen = "true" if count > 1 else "false"
    os.environ["XLA_FLAGS"] = (
        f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={count}"
    )
    if hasattr(os, "sched_setaffinity"):
        available = os.sched_getaffinity(0)
        chosen = one_of_each_core(available)[-count:]
        others = sorted(available - set(chosen))  # where there are more threads than cores
        os.sched_setaffinity(0, chosen + others[: count - len(chosen)])


def most_a_second(tasks: Sequence[Callable[[], float]]) -> float:
    """How much functions do in a second, all at once in a thread each: the best of some tries.

    Each returns how much it did, and lets go of the GIL to do it.
    """
    best = 0.0
    with ThreadPoolExecutor(len(tasks)) as pool:
        for _ in range(TRIES):
            start = time.perf_counter()
            done = sum(pool.map(lambda task: task(), tasks))
            best = max(best, done / (time.perf_counter() - start))
    return best


@cache
def compiled(source: str, *flags: str) -> ctypes.CDLL | None:
    """A C file of this folder, built for this machine; or None without a C compiler."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "measured.so"
        command = [compiler, "-O3", "-shared", "-fPIC", *flags]
        subprocess.run([*command, str(FOLDER / source), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))


def measure_fma_peak(dtype: str, threads: int) -> float | None:
    """Billions of operations a second that the cores can do, or None without a C compiler.

    Parameters
    ----------
    dtype : str
        ``"float32"`` or ``"float64"``.
    threads : int
        How many cores work at once.
    """
    real = "float" if dtype == "float32" else "double"
    library = compiled("fma_peak.c", "-march=native", f"-DREAL={real}")
    if library is None:
        return None
    run = library.multiply_and_add
    run.argtypes, run.restype = [ctypes.c_long], ctypes.c_double
    return most_a_second([partial(run, PEAK_ROUNDS)] * threads) / 1e9


def round_trip_meter() -> Callable[[], float] | None:
    """What measures nanoseconds of a line's way between the first two processors, there and back.

    None without a C compiler, or where threads cannot be pinned.
    """
    library = compiled("round_trip.c")
    if library is None or not hasattr(os, "sched_setaffinity"):
        return None
    here, there = sorted(os.sched_getaffinity(0))[:2]
    library.ask.restype = ctypes.c_double

    def pinned(processor: int, function: Callable[..., float], count: ctypes.c_long) -> float:
        os.sched_setaffinity(0, {processor})  # of this thread alone
        return function(ctypes.byref(count), ctypes.c_long(ROUND_TRIPS))

    def measure() -> float:
        count = ctypes.c_long(0)
        with ThreadPoolExecutor(2) as pool:
            pool.submit(pinned, there, library.answer, count)
            return pool.submit(pinned, here, library.ask, count).result()

    return measure


def measure_bandwidth(threads: int) -> float:
    """Billions of bytes a second that copies of large arrays read and write, in threads at once."""
    import numpy as np

    def copying() -> Callable[[], float]:
        source = np.ones(COPIED_BYTES // threads, np.uint8)
        target = np.ones_like(source)

        def copy() -> float:
            np.copyto(target, source)
            return float(source.nbytes + target.nbytes)

        return copy

    return most_a_second([copying() for _ in range(threads)]) / 1e9


def describe(modules: Iterable[str]) -> dict[str, Any]:
    """The processor, and the versions of Python and of modules, to keep beside measurements.

    With fnn_core among them, the instruction set that it uses, too.
    """
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        cpu = next((line.partition(": ")[2] for line in lines if "model name" in line), cpu)
    imported = {
        name: importlib.import_module(name) for name in ("numpy", "scipy", *dict.fromkeys(modules))
    }
    about = {
        "cpu": cpu,
        "python": platform.python_version(),
        "versions": {name: module.__version__ for name, module in imported.items()},
    }
    if "fnn_core" in imported:
        about["isa"] = imported["fnn_core"].build_info()["isa"]
    return about
