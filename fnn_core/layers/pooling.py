"""Pools and Flatten: linear in x with a selection that x fixes, and no weight."""

from __future__ import annotations

from typing import Any

from fnn_core.activations import as_activation
from fnn_core.layers.base import Connection, Layer
from fnn_core.layers.geometry import (
    Geometry,
    Shape,
    SomeSizes,
    check_sizes,
    convolved_sizes,
    per_axis,
    spatial_axes,
    three_axes,
)


def _windows(
    layer: Layer, input_shape: Shape, size: Shape, stride: Shape, output_shape: Shape | None = None
) -> Connection:
    """A layer that sees windows of each channel apart."""
    space, channels = input_shape[:-1], input_shape[-1]
    ones = (1,) * len(space)
    outputs = convolved_sizes(
        type(layer).__name__, space, size, stride, ones, ((0, 0),) * len(space)
    )
    return Connection(
        layer=layer,
        input_shape=input_shape,
        output_shape=output_shape or (*outputs, channels),
        geometry=Geometry(
            inputs=three_axes(space, 1),
            outputs=three_axes(outputs, 1),
            kernel=three_axes(size, 1),
            stride=three_axes(stride, 1),
            dilation=(1, 1, 1),
            before=(0, 0, 0),
            channels=channels,
            filters=channels,
            groups=channels,
        ),
    )


class _Pool(Layer):
    def __init__(self, size: SomeSizes, stride: SomeSizes | None = None) -> None:
        self.size = check_sizes(size, "size")
        self.stride = self.size if stride is None else check_sizes(stride, "stride")
        self.activation = as_activation("identity")

    def settings(self) -> dict[str, Any]:
        return {"size": self.size, "stride": self.stride}

    def connect(self, input_shape: Shape) -> Connection:
        axes = spatial_axes(input_shape, type(self).__name__)
        return _windows(
            self,
            input_shape,
            per_axis(self.size, axes, "size"),
            per_axis(self.stride, axes, "stride"),
        )


class AvgPool(_Pool):
    """The mean over windows of each channel; windows that do not fit are left out.

    Parameters
    ----------
    size : int or tuple of int
    stride : int or tuple of int, optional
        The size by default.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not of that kind; by `Network`, where no window fits into the input.

    Examples
    --------
    >>> from fnn_core import AvgPool
    >>> AvgPool(2).connect((5, 5, 3)).output_shape
    (2, 2, 3)
    """

    kind = "average_pool"


class MaxPool(_Pool):
    """The greatest entry of windows of each channel; windows that do not fit are left out.

    Its derivative selects the entry that was greatest; of several, the first in row-major order.

    Parameters
    ----------
    size : int or tuple of int
    stride : int or tuple of int, optional
        The size by default.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not of that kind; by `Network`, where no window fits into the input.

    Examples
    --------
    >>> from fnn_core import MaxPool
    >>> MaxPool(3, stride=2).connect((9, 9, 3)).output_shape
    (4, 4, 3)
    """

    kind = "max_pool"


class GlobalAvgPool(Layer):
    """The mean of each channel over all positions: ``(*space, channels)`` to ``(channels,)``.

    Raises
    ------
    ValueError
        By `Network`, where its input has no positions.

    Examples
    --------
    >>> from fnn_core import GlobalAvgPool
    >>> GlobalAvgPool().connect((7, 7, 64)).output_shape
    (64,)
    """

    kind = "average_pool"

    def __init__(self) -> None:
        self.activation = as_activation("identity")

    def settings(self) -> dict[str, Any]:
        return {}

    def connect(self, input_shape: Shape) -> Connection:
        spatial_axes(input_shape, "GlobalAvgPool")
        space = input_shape[:-1]
        return _windows(self, input_shape, space, space, output_shape=input_shape[-1:])


class Flatten(Layer):
    """The same numbers as one axis, in row-major order.

    Costs nothing where the layer below keeps its outputs.

    Examples
    --------
    >>> from fnn_core import Flatten
    >>> Flatten().connect((4, 4, 16)).output_shape
    (256,)
    """

    kind = "flatten"

    def __init__(self) -> None:
        self.activation = as_activation("identity")

    def settings(self) -> dict[str, Any]:
        return {}

    def connect(self, input_shape: Shape) -> Connection:
        size = 1
        for length in input_shape:
            size *= length
        return Connection(layer=self, input_shape=input_shape, output_shape=(size,))
