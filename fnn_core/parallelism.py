"""How many threads the process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

#: Each thread of a call has a workspace of its own, so more than any machine has is a mistake.
MOST_THREADS = 4096


def _quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> float:
    """The cores that a container's quota amounts to; infinite where there is none."""
    try:
        quota, period = path.read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return math.inf


def _cores(processors: Iterable[int], folder: Path = Path("/sys/devices/system/cpu")) -> int:
    """The cores behind so many logical processors, where the system tells; else those themselves.

    Two threads of one core share its caches and its multipliers: most nets took longer with both.
    """
    siblings = [
        folder / f"cpu{number}" / "topology" / "thread_siblings_list" for number in processors
    ]
    try:
        return len({path.read_text() for path in siblings})
    except OSError:
        return len(siblings)


def available_threads() -> int:
    """The least of: cores the process may run on, a container's quota, and OMP_NUM_THREADS.

    The variable may ask for both threads of a core.
    """
    processors = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if asked.isdigit() and int(asked) > 0:
        most = min(len(processors), int(asked))
    else:
        most = _cores(processors)
    return max(1, min(most, math.ceil(min(_quota(), most))))
