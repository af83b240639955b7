"""Remark 8's trade on a deep net: what each way of keeping less costs in time and saves in bytes.

``recompute`` keeps a number a unit and evaluates the activation twice; ``store`` keeps two;
``reuse`` keeps one, and needs a slope that follows from the output; ``checkpoint`` keeps one of
every √n-th layer, and goes forward twice through the others. With ``immediate`` updates no layer's
gradient outlives its own backward step. The times are pytest-benchmark's; the bytes are the memory
plan's, and are printed after them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fnn_core as fnn
from bench.conftest import MemoryRow, smoke

BATCH_SIZE = 256
WIDTH = 256
DEPTH = 32
SMOKE_DEPTH = 4
MODES = ("recompute", "store", "reuse", "checkpoint")
ACTIVATIONS = ("tanh", "relu")


def deep_net(activation: str, memory: str, depth: int, threads: int) -> fnn.Network:
    """A net of equal hidden layers, always with the same weights."""
    hidden = [fnn.Dense(WIDTH, activation) for _ in range(depth)]
    return fnn.Network(
        [*hidden, fnn.Dense(10)],
        input_shape=WIDTH,
        loss="softmax_cross_entropy",
        memory=memory,
        n_threads=threads,
        seed=0,
    )


def batches() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The samples of four steps."""
    draw = np.random.default_rng(0)
    features = draw.standard_normal((4 * BATCH_SIZE, WIDTH)).astype("float32")
    return features, draw.integers(0, 10, len(features))


@pytest.mark.parametrize("update", ["deferred", "immediate"])
@pytest.mark.parametrize("memory", MODES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_trade(
    benchmark: Any,
    request: pytest.FixtureRequest,
    memory_rows: list[MemoryRow],
    activation: str,
    memory: str,
    update: str,
    threads: int,
    rounds: int,
) -> None:
    """Time one epoch of a few SGD steps, and note the bytes of its plan."""
    depth = SMOKE_DEPTH if smoke(request.config) else DEPTH
    net = deep_net(activation, memory, depth, threads)
    thirsty = deep_net(activation, "store", depth, threads)
    optimizer = fnn.SGD(1e-3)
    plan = net.memory_plan(batch_size=BATCH_SIZE, optimizer=optimizer, update=update)
    most = thirsty.memory_plan(batch_size=BATCH_SIZE, optimizer="sgd", update=update)
    assert plan.workspace_bytes <= most.workspace_bytes

    features, target = batches()
    same = slice(BATCH_SIZE)
    _, gradients = net.gradients(features[same], target[same])
    _, expected = thirsty.gradients(features[same], target[same])
    assert np.array_equal(gradients.theta, expected.theta)

    memory_rows.append((activation, f"{memory}, {update}", plan.workspace_bytes, plan.total_bytes))
    benchmark.group = f"{depth} layers of {WIDTH} {activation}, 4 steps of {BATCH_SIZE}"
    benchmark.extra_info.update(workspace_bytes=plan.workspace_bytes, total_bytes=plan.total_bytes)
    benchmark.pedantic(
        net.fit,
        args=(features, target),
        kwargs={
            "batch_size": BATCH_SIZE,
            "optimizer": optimizer,
            "update": update,
            "shuffle": False,
        },
        rounds=rounds,
        warmup_rounds=1,
    )
