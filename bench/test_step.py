"""fnn_core alone: one step in every memory mode, and a whole epoch, in both precisions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.nets import Net, Problem
from bench.rivals import FnnFit, FnnStep


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("memory", ["recompute", "store", "reuse"])
def test_step(
    benchmark: Any, net: Net, memory: str, dtype: str, threads: int, steps: int, rounds: int
) -> None:
    """One call of `Network.step`."""
    ours = FnnStep(Problem(net, dtype), threads, steps=1)
    ours.network.memory = memory
    benchmark.group = f"step {net.name} {dtype}"
    plan = ours.network.memory_plan(batch_size=net.batch_size, optimizer=ours.optimizer)
    benchmark.extra_info.update(flops=net.flops, workspace_bytes=plan.workspace_bytes)
    benchmark.pedantic(
        ours.network.step,
        (ours.problem.features, ours.problem.target, ours.optimizer),
        rounds=rounds,
        iterations=steps,
        warmup_rounds=1,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_epoch(benchmark: Any, net: Net, dtype: str, threads: int, steps: int, rounds: int) -> None:
    """One call of `Network.fit` over many batches; its steps are counted in the group's name."""
    ours = FnnFit(Problem(net, dtype), threads, steps)
    benchmark.group = f"epoch {net.name}: {steps} steps"
    benchmark.extra_info.update(steps=steps, flops_a_step=net.flops)
    benchmark.pedantic(ours.run, rounds=rounds, warmup_rounds=1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_predict_one_sample(
    benchmark: Any, net: Net, dtype: str, threads: int, steps: int, rounds: int
) -> None:
    """One call of `Network.predict` on one sample, where the cost of the call itself shows."""
    network = FnnStep(Problem(net, dtype), threads, steps=1).network
    sample = np.zeros((1, *net.input_shape), dtype)
    benchmark.group = f"predict {net.name} {dtype}"
    benchmark.pedantic(network.predict, (sample,), rounds=rounds, iterations=steps, warmup_rounds=1)
