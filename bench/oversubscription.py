"""What training costs where other processes want the same cores."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from bench.nets import Net, Problem
from bench.rivals import FnnStep

if TYPE_CHECKING:
    from threading import Barrier

#: After which a process that never came to the start is missed.
PATIENCE = 120.0
PROCESSES = 2


def compare_processes(net: Net, threads: int, seconds: float) -> None:
    """Print the speed of one process, and of two at once with all threads each, or their share."""
    print(f"{'processes':>9s}{'threads each':>14s}{'steps/s each':>14s}{'in all':>12s}{'gain':>8s}")
    alone = 0.0
    for processes, each in dict.fromkeys(
        [(1, threads), (PROCESSES, threads), (PROCESSES, max(1, threads // PROCESSES))]
    ):
        rates = rates_at_once(net, processes, each, seconds)
        alone = alone or sum(rates)
        print(
            f"{processes:9d}{each:14d}{sum(rates) / processes:14.1f}{sum(rates):12.1f}"
            f"{sum(rates) / alone:8.2f}",
            flush=True,
        )


def rates_at_once(net: Net, processes: int, threads: int, seconds: float) -> list[float]:
    """Steps a second of each of some processes that train the same net at once."""
    # Not forked, since OpenMP's threads do not survive it.
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(processes, mp_context=context) as pool,
    ):
        start = manager.Barrier(processes)
        waiting = [
            pool.submit(steps_a_second, net, threads, seconds, start) for _ in range(processes)
        ]
        return [future.result() for future in waiting]


def steps_a_second(net: Net, threads: int, seconds: float, start: Barrier) -> float:
    """Train for a while, from when all processes are ready."""
    ours = FnnStep(Problem(net), threads, steps=1)
    ours.run()
    start.wait(PATIENCE)
    begin = time.perf_counter()
    steps = 0
    while time.perf_counter() - begin < seconds:
        ours.run()
        steps += 1
    return steps / (time.perf_counter() - begin)
