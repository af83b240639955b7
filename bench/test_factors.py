"""Norms of single samples' gradients (Remark 8 ii): time and memory beside an ordinary step's.

The bytes are what the engine allocated for the call, under ``extra_info`` and printed with ``-s``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fnn_core as fnn
from bench.conftest import smoke
from fnn_core.testing import allocation_counts

BATCH_SIZE = 128


def net_of(request: pytest.FixtureRequest, threads: int) -> fnn.Network:
    """784-256-128-10, or a net of a tenth of that."""
    share = 10 if smoke(request.config) else 1
    widths = [fnn.Dense(256 // share, "relu"), fnn.Dense(128 // share, "relu"), fnn.Dense(10)]
    return fnn.Network(
        widths, input_shape=784 // share, loss="softmax_cross_entropy", n_threads=threads, seed=0
    )


@pytest.mark.parametrize("call", ["step", "per_sample_gradient_norms", "private_step"])
def test_norms(
    benchmark: Any, request: pytest.FixtureRequest, threads: int, rounds: int, call: str
) -> None:
    """One call on a batch, checked against the gradient of one sample."""
    net = net_of(request, threads)
    draw = np.random.default_rng(0)
    features = draw.standard_normal((BATCH_SIZE, *net.input_shape)).astype("float32")
    target = draw.integers(0, 10, BATCH_SIZE)
    one = np.linalg.norm(net.gradients(features[:1], target[:1])[1].theta)
    assert np.isclose(net.per_sample_gradient_norms(features, target)[0], one, rtol=1e-4)

    private = fnn.DPSGD(1e-4, noise_multiplier=1.0, max_grad_norm=1.0, seed=0)
    fresh = net_of(request, threads)
    calls: dict[str, Callable[[], object]] = {
        "step": lambda: fresh.step(features, target, "adam"),
        "per_sample_gradient_norms": lambda: fresh.per_sample_gradient_norms(features, target),
        "private_step": lambda: fresh.step(features, target, private),
    }
    before = allocation_counts().bytes
    calls[call]()
    workspace = allocation_counts().bytes - before
    print(f"{call}: {workspace:,} bytes of workspace")
    benchmark.group = f"a batch of {BATCH_SIZE}"
    benchmark.extra_info.update(workspace_bytes=workspace)
    benchmark.pedantic(calls[call], rounds=rounds, warmup_rounds=1, iterations=1)
