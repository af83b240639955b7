"""fnn_core and other libraries on the same nets, each checked before it is timed.

Every call makes the same number of steps of a net, so the times within a group compare.
"""

from __future__ import annotations

from typing import Any

import pytest

from bench.nets import Net, Problem
from bench.rivals import Rival, check


def test_steps(
    benchmark: Any, rival: type[Rival], net: Net, threads: int, steps: int, rounds: int
) -> None:
    """Time an epoch of Adam steps in float32."""
    if not rival.can_train(net):
        pytest.skip("the library has no such net")
    check(rival, net, "float32", threads)
    benchmark.group = f"{net.name}: {steps} steps"
    benchmark.extra_info.update(steps=steps, flops_a_step=net.flops)
    contestant = rival(Problem(net), threads, steps)
    benchmark.pedantic(contestant.run, rounds=rounds, warmup_rounds=1)
