"""The nets that are timed, and one batch of data and starting weights for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.layers import Conv, Dense, Flatten, Layer, MaxPool, Place, Shape

#: How much arithmetic one timed call should hold, in floating point operations: enough for the
#: cost of the call itself to vanish beside it.
OPERATIONS_A_CALL = 1e10

#: A pair of weight and bias for each layer that has them.
Parameters = list[tuple[NDArray[Any], NDArray[Any]]]


@dataclass(frozen=True)
class Net:
    """A chain of layers; all with a weight have the same activation, but the last, which has none.

    Attributes
    ----------
    name : str
        Says what it stands for, and its batch size.
    input_shape : tuple of int
        Of one sample.
    layers : tuple of Layer
        The last is dense.
    activation : str
        ``"relu"``, ``"tanh"`` or ``"sigmoid"``.
    loss : str
        ``"softmax_cross_entropy"``, or ``"squared_error"``. The latter only with one output, where
        libraries that average over outputs agree with those that sum.
    batch_size : int
        Samples a step.
    """

    name: str
    input_shape: Shape
    layers: tuple[Layer, ...]
    activation: str
    loss: str
    batch_size: int

    def __post_init__(self) -> None:
        if self.loss == "squared_error" and self.outputs != 1:
            raise ValueError(f"{self.name}: squared_error wants one output here")

    @property
    def places(self) -> list[Place]:
        """The layers with the shapes and activations that they have in the net."""
        places: list[Place] = []
        shape = self.input_shape
        for layer in self.layers:
            hidden = isinstance(layer, Dense | Conv) and layer is not self.layers[-1]
            places.append(Place(layer, shape, self.activation if hidden else "identity"))
            shape = places[-1].output_shape
        return places

    @property
    def outputs(self) -> int:
        """Classes, or numbers."""
        return self.places[-1].output_shape[0]

    @property
    def hidden_units(self) -> tuple[int, ...] | None:
        """The widths of the hidden layers, or None where not all layers are dense."""
        units = tuple(layer.units for layer in self.layers if isinstance(layer, Dense))
        return units[:-1] if len(units) == len(self.layers) else None

    @property
    def flops(self) -> int:
        """Operations of one step: two a product forward, two for its gradient, two for the input's.

        The first layer needs no gradient of its input.
        """
        products = [place.products for place in self.places]
        return self.batch_size * (6 * sum(products) - 2 * products[0])

    @property
    def steps_a_call(self) -> int:
        """How many steps one timed call makes: a power of two, to be cut into epochs."""
        return 2 ** int(np.log2(np.clip(OPERATIONS_A_CALL / self.flops, 4, 2000)))


def dense_net(name: str, widths: Sequence[int], activation: str, loss: str, batch_size: int) -> Net:
    """A net of dense layers; the first width is the input's."""
    layers = tuple(Dense(units) for units in widths[1:])
    return Net(name, (widths[0],), layers, activation, loss, batch_size)


LENET = (
    Conv(6, 5, "valid"), MaxPool(2), Conv(16, 5, "valid"), MaxPool(2),
    Flatten(), Dense(120), Dense(84), Dense(10),
)  # fmt: skip
CIFAR = (
    Conv(32, 3, "same"), Conv(32, 3, "same"), MaxPool(2),
    Conv(64, 3, "same"), Conv(64, 3, "same"), MaxPool(2),
    Flatten(), Dense(256), Dense(10),
)  # fmt: skip

TABLE = (
    dense_net("tiny_b1", (4, 16, 16, 1), "tanh", "squared_error", 1),
    dense_net("tiny_b32", (4, 16, 16, 1), "tanh", "squared_error", 32),
    dense_net("pinn_b256", (2, 64, 64, 64, 1), "tanh", "squared_error", 256),
    dense_net("digits_b200", (64, 100, 10), "relu", "softmax_cross_entropy", 200),
    dense_net("tabular_b128", (54, 256, 256, 7), "relu", "softmax_cross_entropy", 128),
    dense_net("mnist_b128", (784, 256, 128, 10), "relu", "softmax_cross_entropy", 128),
    dense_net("deep_b128", (64, *[128] * 16, 10), "relu", "softmax_cross_entropy", 128),
    dense_net("wide_b256", (784, 1024, 1024, 10), "relu", "softmax_cross_entropy", 256),
    dense_net("huge_b512", (*[2048] * 4, 10), "relu", "softmax_cross_entropy", 512),
    Net("lenet_b64", (28, 28, 1), LENET, "relu", "softmax_cross_entropy", 64),
    Net("cifar_b32", (32, 32, 3), CIFAR, "relu", "softmax_cross_entropy", 32),
)

#: Sizes that no kernel was made for.
UNTUNED = (
    dense_net("odd_b100", (37, 119, 83, 5), "relu", "softmax_cross_entropy", 100),
    dense_net("uneven_b61", (300, 500, 77, 3), "relu", "softmax_cross_entropy", 61),
    dense_net("sigmoid_b64", (20, 128, 128, 1), "sigmoid", "squared_error", 64),
    dense_net("narrow_b32", (16, *[24] * 20, 4), "tanh", "softmax_cross_entropy", 32),
    dense_net("large_b4096", (32, 64, 64, 2), "relu", "softmax_cross_entropy", 4096),
    dense_net("single_b1", (64, 256, 256, 8), "relu", "softmax_cross_entropy", 1),
)

#: What `compare.py` measures by default, and what else it can.
SETS = {"table": TABLE, "untuned": UNTUNED, "all": TABLE + UNTUNED}
NETS = {net.name: net for net in SETS["all"]}

#: For a quick run that only shows that everything works: one of each kind.
SMALL = ("tiny_b1", "tiny_b32", "digits_b200", "lenet_b64", "odd_b100", "sigmoid_b64")


def nets_of_set(name: str, small: bool) -> list[Net]:
    """The nets of a set, or just the small ones among them."""
    return [net for net in SETS[name] if not small or net.name in SMALL]


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
    features : ndarray, shape (batch_size, *input_shape)
        The batch.
    target : ndarray, shape (batch_size,) or (batch_size, 1)
        Class labels or numbers.
    parameters : list of (weight, bias)
        A pair for each layer that has them; a weight has one row or kernel an output.
    """

    def __init__(self, net: Net, dtype: str = "float32") -> None:
        self.net = net
        self.dtype = dtype
        draw = np.random.default_rng(0)

        def normal(*shape: int, scale: float = 1.0) -> NDArray[Any]:
            return (scale * draw.standard_normal(shape)).astype("float32").astype(dtype)

        self.features = normal(net.batch_size, *net.input_shape)
        if net.loss == "softmax_cross_entropy":
            self.target = draw.integers(0, net.outputs, net.batch_size)
        else:
            self.target = normal(net.batch_size, net.outputs)
        gain = 2.0 if net.activation == "relu" else 1.0
        shapes = [place.weight_shape for place in net.places if place.weight_shape]
        self.parameters: Parameters = [
            (normal(*shape, scale=(gain / np.prod(shape[1:])) ** 0.5), normal(shape[0], scale=0.1))
            for shape in shapes
        ]

    def repeated(self, times: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """The batch over and over, for libraries that cut a data set into batches themselves."""
        features, target = (
            np.tile(array, (times,) + (1,) * (array.ndim - 1))
            for array in (self.features, self.target)
        )
        return features, target
