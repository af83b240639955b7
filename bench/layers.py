"""The layers that the benchmarks' nets are made of, as every library can be told of them.

They hold no arrays. Images are ``(height, width, channels)``, and windows of pools do not overlap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Dense:
    """Every output sees every input."""

    units: int

    def weight_shape(self, input_shape: Shape) -> Shape:
        (inputs,) = input_shape
        return (self.units, inputs)

    def output_shape(self, input_shape: Shape) -> Shape:
        return (self.units,)


@dataclass(frozen=True)
class Conv:
    """A square kernel that moves by one pixel; `padding` is ``"valid"`` or ``"same"``."""

    filters: int
    size: int
    padding: str

    def weight_shape(self, input_shape: Shape) -> Shape:
        return (self.filters, self.size, self.size, input_shape[-1])

    def output_shape(self, input_shape: Shape) -> Shape:
        lost = 0 if self.padding == "same" else self.size - 1
        height, width, _ = input_shape
        return (height - lost, width - lost, self.filters)


@dataclass(frozen=True)
class MaxPool:
    """The greatest of each square window of each channel."""

    size: int

    def output_shape(self, input_shape: Shape) -> Shape:
        height, width, channels = input_shape
        return (height // self.size, width // self.size, channels)


@dataclass(frozen=True)
class Flatten:
    """The same numbers as one axis, channels last in the order, too."""

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)


Layer = Dense | Conv | MaxPool | Flatten


@dataclass(frozen=True)
class Place:
    """A layer at its place in a net.

    Attributes
    ----------
    layer : Layer
        What stands there.
    input_shape : tuple of int
        Of one sample.
    activation : str
        ``"identity"`` where there is none.
    """

    layer: Layer
    input_shape: Shape
    activation: str

    @property
    def output_shape(self) -> Shape:
        return self.layer.output_shape(self.input_shape)

    @property
    def weight_shape(self) -> Shape | None:
        """One row, or one kernel, an output or filter; None where there is no weight."""
        if isinstance(self.layer, Dense | Conv):
            return self.layer.weight_shape(self.input_shape)
        return None

    @property
    def products(self) -> int:
        """Multiplications of one sample: one a weight and position that the weight is used at.

        Those with the zeros around an image count like others.
        """
        if self.weight_shape is None:
            return 0
        return math.prod(self.weight_shape) * math.prod(self.output_shape[:-1])
