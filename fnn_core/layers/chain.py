"""Layers, one after another: each at its place, with the input that the one before gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fnn_core.checks import LARGEST_SIZE, as_sequence
from fnn_core.layers.base import Connection, Layer
from fnn_core.layers.geometry import Shape


def as_layers(layers: Any) -> tuple[Layer, ...]:
    """A sequence of one layer or more, as a tuple."""
    if isinstance(layers, Layer):
        raise TypeError("layers: expected a sequence of layers, got one layer")
    described = as_sequence(layers, "layers")
    if not described:
        raise ValueError("layers: expected at least one layer, got none")
    for place, layer in enumerate(described):
        if not isinstance(layer, Layer):
            raise TypeError(f"layers[{place}]: expected a layer, got {layer!r}")
    return described


def connect(layers: Sequence[Layer], input_shape: Shape) -> tuple[Connection, ...]:
    """Put each layer at its place: its input shape, and its run of theta."""
    connections: list[Connection] = []
    shape, offset = input_shape, 0
    for index, layer in enumerate(layers):
        try:
            connection = replace(layer.connect(shape), offset=offset, index=index)
        except ValueError as error:
            raise ValueError(f"layers[{index}]: {error}") from None
        connections.append(connection)
        shape, offset = connection.output_shape, offset + connection.n_parameters
        for what, size in (("parameters", offset), ("outputs", connection.outputs)):
            if size > LARGEST_SIZE:
                raise ValueError(f"layers[{index}]: {size:,} {what} are more than 2**48")
    return tuple(connections)
