"""Convolution and its transpose: the layers that Section 4 is about."""

from __future__ import annotations

from typing import Any

from fnn_core.activations import Activation, as_activation
from fnn_core.checks import as_choice, as_flag, as_positive_int
from fnn_core.initializers import Initializer, as_initializer
from fnn_core.layers.base import Connection, Layer
from fnn_core.layers.geometry import (
    ALGORITHMS,
    Geometry,
    Shape,
    SomePadding,
    SomeSizes,
    check_padding,
    check_sizes,
    convolved_sizes,
    explicit_padding,
    per_axis,
    spatial_axes,
    three_axes,
)


class _Convolution(Layer):
    """What `Conv` and `ConvTranspose` share."""

    def __init__(
        self,
        filters: int,
        kernel_size: SomeSizes,
        activation: str | Activation = "identity",
        *,
        stride: SomeSizes = 1,
        padding: SomePadding = "valid",
        dilation: SomeSizes = 1,
        groups: int = 1,
        bias: bool = True,
        trainable: bool = True,
        initializer: Initializer | None = None,
        algorithm: str = "auto",
    ) -> None:
        self.filters = as_positive_int(filters, "filters")
        self.kernel_size = check_sizes(kernel_size, "kernel_size")
        self.activation = as_activation(activation)
        self.stride = check_sizes(stride, "stride")
        self.padding = check_padding(padding)
        self.dilation = check_sizes(dilation, "dilation")
        self.groups = as_positive_int(groups, "groups")
        self.bias = as_flag(bias, "bias")
        self.trainable = as_flag(trainable, "trainable")
        self.initializer = as_initializer(initializer)
        self.algorithm = as_choice(algorithm, "algorithm", ALGORITHMS)
        if self.filters % self.groups:
            raise ValueError(f"groups = {groups}: expected a divisor of filters = {filters}")

    def settings(self) -> dict[str, Any]:
        return {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "activation": self.activation.name,
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "bias": self.bias,
            "trainable": self.trainable,
            "algorithm": self.algorithm,
            **self._setting_of_initializer(),
        }

    def _sizes(self, input_shape: Shape) -> tuple[Shape, Shape, Shape, Shape]:
        """The space, and kernel size, stride and dilation on each of its axes."""
        axes = spatial_axes(input_shape, f"{type(self).__name__}({self.filters})")
        if input_shape[-1] % self.groups:
            raise ValueError(
                f"groups = {self.groups}: expected a divisor of the {input_shape[-1]} input "
                "channels"
            )
        kernel = per_axis(self.kernel_size, axes, "kernel_size")
        stride = per_axis(self.stride, axes, "stride")
        dilation = per_axis(self.dilation, axes, "dilation")
        if self.algorithm == "winograd" and (
            kernel != (3, 3) or max(*stride, *dilation, self.groups) > 1
        ):
            raise ValueError(
                "algorithm = 'winograd': expected images, kernel_size 3, and stride, dilation and "
                f"groups 1, got {self!r} over {axes} spatial axes"
            )
        return input_shape[:-1], kernel, stride, dilation


class Conv(_Convolution):
    """Convolution over 1, 2 or 3 spatial axes, channels last: σ(C(x, W) + ι(b)) of Section 4.

    As everywhere in the field it is a cross-correlation: the kernel is not flipped. One bias a
    channel: ι spreads it over all positions, ι* sums over them.

    Parameters
    ----------
    filters : int
        Output channels.
    kernel_size, stride, dilation : int or tuple of int
        One for all spatial axes, or one for each.
    activation : str or Activation
    padding : {"valid", "same"}, int, tuple of int, or tuple of pairs
        Zeros around the input: none; such that the output has ⌈n / stride⌉ positions, the odd cell
        after; or as given, for all axes, for each, or as (before, after) for each.
    groups : int
        The channels are cut into that many groups that do not see each other.
    bias, trainable, initializer
        As in `Dense`. The weight has shape ``(filters, *kernel_size, channels // groups)``.
    algorithm : {"auto", "direct", "winograd"}
        ``"winograd"`` is for images, kernels of 3 × 3, and stride, dilation and groups of 1. It
        takes less than half the multiplies for C, C† and C††, and rounds about as much as the
        direct sum, at worst (of one channel) three times as much. ``"auto"`` takes it where it was
        measured to be quicker: from about 16 channels and 8 filters on.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not of that kind; by `Network`, where the window does not fit into the
        input.

    Examples
    --------
    >>> from fnn_core import Conv
    >>> Conv(6, 5).connect((28, 28, 1)).output_shape
    (24, 24, 6)
    >>> Conv(6, 5, stride=2, padding="same").connect((28, 28, 1)).output_shape
    (14, 14, 6)
    """

    kind = "convolution"

    def connect(self, input_shape: Shape) -> Connection:
        space, kernel, stride, dilation = self._sizes(input_shape)
        pads = explicit_padding(self.padding, space, kernel, stride, dilation)
        outputs = convolved_sizes(f"Conv({self.filters})", space, kernel, stride, dilation, pads)
        channels = input_shape[-1]
        return Connection(
            layer=self,
            input_shape=input_shape,
            output_shape=(*outputs, self.filters),
            weight_shape=(self.filters, *kernel, channels // self.groups),
            bias_shape=(self.filters,) if self.bias else None,
            geometry=Geometry(
                inputs=three_axes(space, 1),
                outputs=three_axes(outputs, 1),
                kernel=three_axes(kernel, 1),
                stride=three_axes(stride, 1),
                dilation=three_axes(dilation, 1),
                before=three_axes(tuple(before for before, _ in pads), 0),
                channels=channels,
                filters=self.filters,
                groups=self.groups,
                algorithm=ALGORITHMS.index(self.algorithm),
            ),
        )


class ConvTranspose(_Convolution):
    """The adjoint C† of a convolution, used forward: its three maps, in another order.

    It maps images of n positions to ``(n - 1) * stride + dilation * (kernel_size - 1) + 1`` less
    the padding; ``padding="same"`` gives ``n * stride``.

    Parameters
    ----------
    filters : int
        Output channels.
    kernel_size, activation, stride, padding, dilation, groups, bias, trainable, initializer, \
algorithm
        As in `Conv`, of the convolution from the outputs to the inputs. The weight is that
        convolution's, of shape ``(channels, *kernel_size, filters // groups)``.

    Raises
    ------
    TypeError, ValueError
        As `Conv`.

    Examples
    --------
    >>> from fnn_core import ConvTranspose
    >>> ConvTranspose(3, 4, stride=2, padding=1).connect((7, 7, 8)).output_shape
    (14, 14, 3)
    """

    kind = "convolution_transpose"

    def connect(self, input_shape: Shape) -> Connection:
        space, kernel, stride, dilation = self._sizes(input_shape)
        whole = tuple(
            (n - 1) * s + d * (k - 1) + 1
            for n, k, s, d in zip(space, kernel, stride, dilation, strict=True)
        )
        if self.padding == "same":
            outputs = tuple(n * s for n, s in zip(space, stride, strict=True))
            pads = explicit_padding("same", outputs, kernel, stride, dilation)
        else:
            pads = explicit_padding(self.padding, whole, kernel, stride, dilation)
            outputs = tuple(
                n - before - after for n, (before, after) in zip(whole, pads, strict=True)
            )
        if min(outputs) < 1:
            raise ValueError(
                f"padding = {self.padding!r}: expected less than the output's sizes {whole}"
            )
        channels = input_shape[-1]
        return Connection(
            layer=self,
            input_shape=input_shape,
            output_shape=(*outputs, self.filters),
            weight_shape=(channels, *kernel, self.filters // self.groups),
            bias_shape=(self.filters,) if self.bias else None,
            geometry=Geometry(
                inputs=three_axes(outputs, 1),
                outputs=three_axes(space, 1),
                kernel=three_axes(kernel, 1),
                stride=three_axes(stride, 1),
                dilation=three_axes(dilation, 1),
                before=three_axes(tuple(before for before, _ in pads), 0),
                channels=self.filters,
                filters=channels,
                groups=self.groups,
                algorithm=ALGORITHMS.index(self.algorithm),
            ),
        )
