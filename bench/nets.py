"""The nets that are timed, and one batch of data and starting weights for each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: How much arithmetic one timed call should hold, in floating point operations: enough for the
#: cost of the call itself to vanish beside it.
OPERATIONS_A_CALL = 1e10

Parameters = list[tuple[NDArray[Any], NDArray[Any]]]


@dataclass(frozen=True)
class Net:
    """A dense net with one activation in its hidden layers and none in its last.

    Attributes
    ----------
    name : str
        Says what it stands for, and its batch size.
    widths : tuple of int
        Of the input, each hidden layer and the output.
    activation : str
        ``"relu"`` or ``"tanh"``.
    loss : str
        ``"softmax_cross_entropy"``, or ``"squared_error"``. The latter only with one output, where
        libraries that average over outputs agree with those that sum.
    batch_size : int
        Samples a step.
    """

    name: str
    widths: tuple[int, ...]
    activation: str
    loss: str
    batch_size: int

    def __post_init__(self) -> None:
        if self.loss == "squared_error" and self.widths[-1] != 1:
            raise ValueError(f"{self.name}: squared_error wants one output here")

    @property
    def flops(self) -> int:
        """Operations of one step: two a weight forward, two for its gradient, two for the input's.

        The first layer needs no gradient of its input.
        """
        products = [rows * columns for columns, rows in pairwise(self.widths)]
        return self.batch_size * (6 * sum(products) - 2 * products[0])

    @property
    def steps_a_call(self) -> int:
        """How many steps one timed call makes."""
        return int(np.clip(OPERATIONS_A_CALL / self.flops, 4, 2000))


NETS = {
    net.name: net
    for net in (
        Net("tiny_b1", (4, 16, 16, 1), "tanh", "squared_error", 1),
        Net("tiny_b32", (4, 16, 16, 1), "tanh", "squared_error", 32),
        Net("pinn_b256", (2, 64, 64, 64, 1), "tanh", "squared_error", 256),
        Net("digits_b200", (64, 100, 10), "relu", "softmax_cross_entropy", 200),
        Net("tabular_b128", (54, 256, 256, 7), "relu", "softmax_cross_entropy", 128),
        Net("mnist_b128", (784, 256, 128, 10), "relu", "softmax_cross_entropy", 128),
        Net("deep_b128", (64, *[128] * 16, 10), "relu", "softmax_cross_entropy", 128),
        Net("wide_b256", (784, 1024, 1024, 10), "relu", "softmax_cross_entropy", 256),
        Net("huge_b512", (2048, 2048, 2048, 2048, 10), "relu", "softmax_cross_entropy", 512),
    )
}

#: For a quick run that only shows that everything works.
SMALL_NETS = ("tiny_b1", "tiny_b32", "digits_b200")


class Problem:
    """A net with one batch of random data and the weights to start from, the same for everyone.

    Parameters
    ----------
    net : Net
        The net.
    dtype : str
        ``"float32"`` or ``"float64"``. The float64 numbers are the float32 ones, widened.

    Attributes
    ----------
    features : ndarray, shape (batch_size, widths[0])
        The batch.
    target : ndarray, shape (batch_size,) or (batch_size, 1)
        Class labels or numbers.
    parameters : list of (weight, bias)
        A pair a layer; a weight has one row an output.
    """

    def __init__(self, net: Net, dtype: str = "float32") -> None:
        self.net = net
        self.dtype = dtype
        draw = np.random.default_rng(0)

        def normal(*shape: int, scale: float = 1.0) -> NDArray[Any]:
            return (scale * draw.standard_normal(shape)).astype("float32").astype(dtype)

        self.features = normal(net.batch_size, net.widths[0])
        if net.loss == "softmax_cross_entropy":
            self.target = draw.integers(0, net.widths[-1], net.batch_size)
        else:
            self.target = normal(net.batch_size, net.widths[-1])
        gain = 2.0 if net.activation == "relu" else 1.0
        self.parameters: Parameters = [
            (normal(rows, columns, scale=(gain / columns) ** 0.5), normal(rows, scale=0.1))
            for columns, rows in pairwise(net.widths)
        ]

    def repeated(self, times: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """The batch over and over, for libraries that cut a data set into batches themselves."""
        rows = (times,) + (1,) * (self.target.ndim - 1)
        return np.tile(self.features, (times, 1)), np.tile(self.target, rows)
