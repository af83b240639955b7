"""The sizes of convolutions and pools: what windows see, and what comes out."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fnn_core.checks import as_positive_int

Shape = tuple[int, ...]

#: An int or one an axis; for padding also pairs (before, after), "valid" or "same".
Sizes = int | tuple[int, ...]
Padding = str | int | tuple[int, ...] | tuple[tuple[int, int], ...]
#: The same, as they may come.
SomeSizes = int | Sequence[int]
SomePadding = str | int | Sequence[int] | Sequence[tuple[int, int]]

#: How a convolution is computed, in the order of the kernels' own names for it.
ALGORITHMS = ("auto", "direct", "winograd")

#: The kernels count a sample's entries in 32 bits.
LARGEST_SAMPLE = 2**31


@dataclass(frozen=True)
class Geometry:
    """Sizes as the kernels take them: three axes, outer, middle and inner.

    An image has no middle axis and a line neither middle nor outer: their sizes are 1.
    """

    inputs: Shape
    outputs: Shape
    kernel: Shape
    stride: Shape
    dilation: Shape
    before: Shape
    channels: int
    filters: int
    groups: int
    algorithm: int = 0  # its place in ALGORITHMS

    def __post_init__(self) -> None:
        spans = (
            max(inputs, (outputs - 1) * stride + (kernel - 1) * dilation + 1)
            for inputs, outputs, kernel, stride, dilation in zip(
                self.inputs, self.outputs, self.kernel, self.stride, self.dilation, strict=True
            )
        )
        entries = math.prod(spans) * self.channels
        if entries >= LARGEST_SAMPLE:
            raise ValueError(f"a sample of {entries:,} entries, with padding: expected < 2**31")


def three_axes(sizes: Shape, filler: int) -> Shape:
    """One to three sizes on the axes of a `Geometry`."""
    if len(sizes) == 1:
        return (filler, filler, *sizes)
    return (sizes[0], filler, sizes[1]) if len(sizes) == 2 else sizes


def spatial_axes(input_shape: Shape, name: str) -> int:
    """How many spatial axes an input ``(*space, channels)`` has."""
    if not 2 <= len(input_shape) <= 4:
        raise ValueError(
            f"{name}: expected an input of shape (width, channels), (height, width, channels) or "
            f"(depth, height, width, channels), got {input_shape}"
        )
    return len(input_shape) - 1


def check_sizes(value: Any, name: str) -> Sizes:
    """An int or a tuple of ints, each at least 1."""
    if isinstance(value, tuple | list):
        if not 1 <= len(value) <= 3:
            raise ValueError(
                f"{name} = {value!r}: expected an int or one int for each of 1 to 3 axes"
            )
        return tuple(as_positive_int(size, name) for size in value)
    return as_positive_int(value, name)


def per_axis(sizes: Sizes, axes: int, name: str) -> Shape:
    """One size an axis."""
    if isinstance(sizes, int):
        return (sizes,) * axes
    if len(sizes) != axes:
        raise ValueError(
            f"{name} = {sizes!r}: expected an int or {axes} of them, one a spatial axis"
        )
    return sizes


def _check_pad(value: Any, whole: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(
            f"padding = {whole!r}: expected 'valid', 'same', an int, one int an axis, or one "
            "(before, after) pair an axis"
        )
    pad = int(value)
    if not 0 <= pad <= 2**31:
        raise ValueError(f"padding = {whole!r}: expected numbers in 0..2**31")
    return pad


def check_padding(padding: Any) -> Padding:
    """One of the forms of `Padding`."""
    if isinstance(padding, str):
        if padding not in ("valid", "same"):
            raise ValueError(f"padding = {padding!r}: expected 'valid', 'same', or numbers")
        return padding
    if not isinstance(padding, tuple | list):
        return _check_pad(padding, padding)
    if not 1 <= len(padding) <= 3:
        raise ValueError(f"padding = {padding!r}: expected an entry for each of 1 to 3 axes")
    if all(isinstance(entry, tuple | list) for entry in padding):
        if any(len(entry) != 2 for entry in padding):
            raise ValueError(f"padding = {padding!r}: expected pairs (before, after)")
        return tuple((_check_pad(a, padding), _check_pad(b, padding)) for a, b in padding)
    return tuple(_check_pad(entry, padding) for entry in padding)


def explicit_padding(
    padding: Padding, space: Shape, kernel: Shape, stride: Shape, dilation: Shape
) -> tuple[tuple[int, int], ...]:
    """(before, after) on each axis; "same" gives ⌈n / stride⌉ outputs, the odd cell after."""
    if padding == "valid":
        return ((0, 0),) * len(space)
    if padding == "same":
        totals = [
            max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
            for n, k, s, d in zip(space, kernel, stride, dilation, strict=True)
        ]
        return tuple((total // 2, total - total // 2) for total in totals)
    if isinstance(padding, int):
        return ((padding, padding),) * len(space)
    assert isinstance(padding, tuple)
    if len(padding) != len(space):
        raise ValueError(
            f"padding = {padding!r}: expected {len(space)} entries, one for each spatial axis"
        )
    return tuple((pad, pad) if isinstance(pad, int) else pad for pad in padding)


def convolved_sizes(
    name: str,
    space: Shape,
    kernel: Shape,
    stride: Shape,
    dilation: Shape,
    pads: tuple[tuple[int, int], ...],
) -> Shape:
    """The output positions of a convolution or pool; at least one on each axis."""
    sizes = []
    for n, k, s, d, (before, after) in zip(space, kernel, stride, dilation, pads, strict=True):
        room = n + before + after - (d * (k - 1) + 1)
        if room < 0:
            raise ValueError(
                f"{name}: a window of {d * (k - 1) + 1} does not fit into {n + before + after} "
                f"(the input's space is {space})"
            )
        sizes.append(room // s + 1)
    return tuple(sizes)
