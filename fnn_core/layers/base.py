"""What every layer says of itself, and what it becomes at its place in a net."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fnn_core.activations import Activation
from fnn_core.initializers import Initializer, initializer_for
from fnn_core.layers.geometry import Geometry, Shape


class Layer:
    """A description: no arrays, no shapes but its own. Nets may share it.

    A new kind of layer is a subclass with `connect`, a line in `fnn_core.layers.REGISTRY`, and a
    map in the kernels.
    """

    #: The name of the layer's map in the kernels.
    kind: str
    activation: Activation
    trainable: bool = True
    initializer: Initializer | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if "_is_read" in self.__dict__:
            raise AttributeError(
                f"{type(self).__name__}.{name} = {value!r}: a layer is a description, which its "
                "net has read; describe another net, and copy the parameters"
            )
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """A copy has been read by no net."""
        return {name: value for name, value in self.__dict__.items() if name != "_is_read"}

    def seal(self) -> None:
        """From now on, as a net has read the layer, it stays as it is."""
        self.__dict__["_is_read"] = True

    def connect(self, input_shape: Shape) -> Connection:
        """The layer's sizes where its input has that shape."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """The arguments that make this layer again, fit for JSON."""
        raise NotImplementedError

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.settings().items())
        return f"{type(self).__name__}({arguments})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.settings() == other.settings()

    __hash__ = None  # type: ignore[assignment]

    def _setting_of_initializer(self) -> dict[str, Any]:
        return {} if self.initializer is None else {"initializer": self.initializer}


@dataclass(frozen=True)
class Connection:
    """A layer at its place in a net: sizes, and where its parameters lie in theta.

    `weight_shape` is the paper's; the engine stores the transpose, outputs last.
    """

    layer: Layer
    input_shape: Shape
    output_shape: Shape
    weight_shape: Shape | None = None
    bias_shape: Shape | None = None
    geometry: Geometry | None = None
    is_stored_transposed: bool = True
    rate: float = 0.0
    offset: int = 0
    index: int = 0

    @property
    def inputs(self) -> int:
        return math.prod(self.input_shape)

    @property
    def outputs(self) -> int:
        return math.prod(self.output_shape)

    @property
    def weight_count(self) -> int:
        return math.prod(self.weight_shape) if self.weight_shape else 0

    @property
    def bias_count(self) -> int:
        return math.prod(self.bias_shape) if self.bias_shape else 0

    @property
    def flops(self) -> int:
        """Multiplies and adds of the map on one sample."""
        positions = 1 if self.geometry is None else math.prod(self.geometry.outputs)
        return 2 * self.weight_count * positions

    @property
    def n_parameters(self) -> int:
        return self.weight_count + self.bias_count

    def weight_view(self, theta: np.ndarray) -> np.ndarray | None:
        """The layer's weight in `theta`, in the paper's shape, sharing its memory."""
        if self.weight_shape is None:
            return None
        stored = theta[self.offset : self.offset + self.weight_count]
        if not self.is_stored_transposed:
            return stored.reshape(self.weight_shape)
        return stored.reshape(self.weight_shape[1:] + self.weight_shape[:1]).transpose(
            len(self.weight_shape) - 1, *range(len(self.weight_shape) - 1)
        )

    def bias_view(self, theta: np.ndarray) -> np.ndarray | None:
        """The layer's bias in `theta`, sharing its memory."""
        if self.bias_shape is None:
            return None
        start = self.offset + self.weight_count
        return theta[start : start + self.bias_count].reshape(self.bias_shape)

    def initialize(self, rng: np.random.Generator, theta: np.ndarray) -> None:
        """Draw the weight; biases are zero."""
        weight = self.weight_view(theta)
        if weight is None:
            return
        initialize: Callable[..., Any] = initializer_for(
            self.layer.initializer, self.layer.activation
        )
        drawn = np.asarray(initialize(rng, self.weight_shape))
        expected = f"initializer of layer {self.index}: expected finite numbers {self.weight_shape}"
        if drawn.dtype.kind not in "biuf":
            raise TypeError(f"{expected}, got {drawn!r}")
        if drawn.shape != self.weight_shape:
            raise ValueError(f"{expected}, got shape {drawn.shape}")
        if not np.isfinite(drawn).all():
            raise ValueError(f"{expected}, got some that are not finite")
        weight[...] = drawn
        bias = self.bias_view(theta)
        if bias is not None:
            bias[...] = 0
