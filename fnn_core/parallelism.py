"""How many threads the process may use."""

from __future__ import annotations

import math
import os
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


def available_threads() -> int:
    """The least of: cores the process may run on, a container's quota, and OMP_NUM_THREADS."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    limit = int(asked) if asked.isdigit() and int(asked) > 0 else cores
    return max(1, min(cores, limit, math.ceil(min(_quota(), cores))))
