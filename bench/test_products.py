"""The two products side by side: where `BLAS_FROM_MULTIPLIES` comes from.

The engine has a matrix product of its own, for which a step needs no packing of whole matrices, and
BLAS's; `fnn_core.cutting` picks one a layer, by the instruction set in use (`FNN_ISA=generic`
forces the portable one). Here each makes the same steps on square layers of growing width. BLAS is
worth its packing from where its time falls below the other's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fnn_core as fnn
from bench.conftest import smoke

WIDTHS = (32, 64, 128, 256, 512, 1024)
SMOKE_WIDTH = 32


@pytest.mark.parametrize("product", ["native", "blas"])
@pytest.mark.parametrize("batch_size", [32, 64, 128, 512])
@pytest.mark.parametrize("width", WIDTHS)
def test_step_of_square_layers(
    benchmark: Any,
    request: pytest.FixtureRequest,
    width: int,
    batch_size: int,
    product: str,
    threads: int,
    rounds: int,
) -> None:
    """One SGD step of two square layers and a narrow one, all with one product."""
    if smoke(request.config):
        width = SMOKE_WIDTH
    net = fnn.Network(
        [fnn.Dense(width, "relu"), fnn.Dense(width, "relu"), fnn.Dense(10)],
        input_shape=width,
        loss="softmax_cross_entropy",
        n_threads=threads,
        gemm=product,
    )
    draw = np.random.default_rng(0)
    features = draw.standard_normal((batch_size, width)).astype("float32")
    target = draw.integers(0, 10, batch_size)
    benchmark.group = f"width {width}, batch of {batch_size}"
    benchmark.pedantic(
        net.step, (features, target, fnn.SGD(1e-3)), rounds=rounds, iterations=5, warmup_rounds=1
    )
