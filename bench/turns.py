"""Timing several things in turns, so that whatever else the machine does hits them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

Key = TypeVar("Key")
Run = Callable[[], object]


def take_turns(runs: Mapping[Key, Run], rounds: int, seconds: float) -> dict[Key, list[float]]:
    """Seconds of one call of each, one number a round.

    Parameters
    ----------
    runs : mapping of functions
        What to time. Each is called once before, which fills caches and compiles.
    rounds : int
        Of which every second goes in reverse order.
    seconds : float
        How long each turn takes, at least.
    """
    calls = {}
    for key, run in runs.items():
        run()
        calls[key] = max(1, round(seconds / seconds_of(run, calls=1)))
    times: dict[Key, list[float]] = {key: [] for key in runs}
    for turn in range(rounds):
        for key in runs if turn % 2 == 0 else reversed(list(runs)):
            times[key].append(seconds_of(runs[key], calls[key]))
    return times


def seconds_of(run: Run, calls: int) -> float:
    """How long one call took, on average over some in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls
