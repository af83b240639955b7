"""The maps of Section 4 in plain NumPy, float64: convolutions, pools, a map by its tensor.

A convolution goes through the taps j of its kernel one by one, as the definition does:
``C(x, W)[o] = Σ_j W[:, j] x[o·stride + j·dilation − before]``, with zeros outside of the image.
Samples come first and channels last. The layers work in ``reference.forward`` and
``reference.backward`` like those of reference.py.
"""

import itertools
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import reference

# --- windows -------------------------------------------------------------------------------------


class Axis(NamedTuple):
    """How windows lie along one axis of an image of n cells."""

    n: int
    k: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0

    @property
    def padded(self):
        return self.before + self.n + self.after

    @property
    def count(self):
        return (self.padded - reach(self.k, self.dilation)) // self.stride + 1

    def cells(self, j):
        """What tap j sees, window by window, of the padded axis."""
        first = j * self.dilation
        return slice(first, first + (self.count - 1) * self.stride + 1, self.stride)


def reach(k, dilation):
    return dilation * (k - 1) + 1


class Windows:
    """What convolutions and pools share; ``self.axes`` says how the windows lie."""

    def padded(self, x):
        return np.pad(x, [(0, 0), *((axis.before, axis.after) for axis in self.axes), (0, 0)])

    def unpadded(self, x):
        return x[(slice(None), *(slice(A.before, A.before + A.n) for A in self.axes))]

    def zeros(self, n, channels, padded=False):
        sizes = [axis.padded if padded else axis.count for axis in self.axes]
        return np.zeros((n, *sizes, channels))

    def taps(self):
        """Each tap in row-major order, with the cells that it sees."""
        for j in itertools.product(*(range(axis.k) for axis in self.axes)):
            cells = (axis.cells(i) for axis, i in zip(self.axes, j, strict=True))
            yield j, (slice(None), *cells)


# --- C, C†, C††, ι* of a convolution -------------------------------------------------------------


@dataclass
class Conv(Windows):
    """``W`` is (filters, *kernel_size, channels // groups), not flipped; one bias a filter."""

    W: np.ndarray
    b: np.ndarray | None
    axes: tuple[Axis, ...]
    groups: int = 1
    activation: str = "identity"
    trainable: bool = True

    def parts(self):
        """Each tap and group: its block of W, its filters, its cells and channels."""
        filters, channels = len(self.W) // self.groups, self.W.shape[-1]
        for j, cells in self.taps():
            for q in range(self.groups):
                f = slice(q * filters, (q + 1) * filters)
                yield (f, *j), f, (*cells, slice(q * channels, (q + 1) * channels))

    def apply(self, x):
        a, x = self.zeros(len(x), len(self.W)), self.padded(x)
        for block, f, cells in self.parts():
            a[..., f] += x[cells] @ self.W[block].T
        return a

    def preactivation(self, x):
        a = self.apply(x)
        return a if self.b is None else a + self.b

    def adjoint_input(self, h):
        x = self.zeros(len(h), self.groups * self.W.shape[-1], padded=True)
        for block, f, cells in self.parts():
            x[cells] += h[..., f] @ self.W[block]
        return self.unpadded(x)

    def adjoint_weight(self, x, h):
        G, x = np.zeros_like(self.W), self.padded(x)
        summed = range(x.ndim - 1)
        for block, f, cells in self.parts():
            G[block] = np.tensordot(h[..., f], x[cells], (summed, summed))
        return G

    def gather(self, h):
        return h.reshape(-1, h.shape[-1]).sum(axis=0)


class ConvTranspose(Conv):
    """C† of a convolution used forward, so that its own C† is that convolution's C."""

    def apply(self, x):
        return Conv.adjoint_input(self, x)

    def adjoint_input(self, h):
        return Conv.apply(self, h)

    def adjoint_weight(self, x, h):
        return Conv.adjoint_weight(self, h, x)


# --- linear in x, without parameters --------------------------------------------------------------


@dataclass
class AvgPool(Windows):
    """The mean of each window; windows that do not fit are left out."""

    axes: tuple[Axis, ...]
    activation: str = "identity"
    W = b = None

    def preactivation(self, x):
        return np.mean([x[cells] for _, cells in self.taps()], axis=0)

    def adjoint_input(self, h):
        x = self.zeros(len(h), h.shape[-1], padded=True)
        taps = list(self.taps())
        for _, cells in taps:
            x[cells] += h / len(taps)
        return x


class Averages(AvgPool):
    """A pool of the whole image; the axes of one cell are gone."""

    def preactivation(self, x):
        return super().preactivation(x).reshape(len(x), -1)

    def adjoint_input(self, h):
        return super().adjoint_input(h.reshape(len(h), *(1 for _ in self.axes), -1))


@dataclass
class MaxPool(Windows):
    """The largest of each window, a NaN above all; of equals, the first in row-major order."""

    axes: tuple[Axis, ...]
    activation: str = "identity"
    chosen: np.ndarray | None = field(default=None, repr=False)
    W = b = None

    def preactivation(self, x):
        self.chosen = np.argmax([x[cells] for _, cells in self.taps()], axis=0)
        return self.at_selection(x)

    def at_selection(self, x):
        """Linear: each window's entry that the last forward pass has chosen."""
        return sum(
            np.where(self.chosen == i, x[cells], 0) for i, (_, cells) in enumerate(self.taps())
        )

    def adjoint_input(self, h):
        x = self.zeros(len(h), h.shape[-1], padded=True)
        for i, (_, cells) in enumerate(self.taps()):
            x[cells] += np.where(self.chosen == i, h, 0)
        return x


@dataclass
class Reshaped:
    """Flatten, in row-major order."""

    shape: tuple[int, ...]
    activation: str = "identity"
    W = b = None

    def preactivation(self, x):
        return x.reshape(len(x), -1)

    def adjoint_input(self, h):
        return h.reshape(len(h), *self.shape)


# --- a map by its tensor --------------------------------------------------------------------------


@dataclass
class Tensor:
    """``C(x, W)_i = Σ_jk t_ijk x_j W_k`` for any shapes of output, x and W; a bias an output."""

    W: np.ndarray
    b: np.ndarray | None
    t: np.ndarray
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    activation: str = "identity"
    trainable: bool = True

    def preactivation(self, x):
        a = np.einsum("ijk,nj,k->ni", self.t, x.reshape(len(x), -1), self.W.ravel())
        a = a.reshape(len(x), *self.output_shape)
        return a if self.b is None else a + self.b

    def adjoint_input(self, h):
        x = np.einsum("ijk,ni,k->nj", self.t, h.reshape(len(h), -1), self.W.ravel())
        return x.reshape(len(h), *self.input_shape)

    def adjoint_weight(self, x, h):
        flat = x.reshape(len(x), -1), h.reshape(len(h), -1)
        return np.einsum("ijk,nj,ni->k", self.t, *flat).reshape(self.W.shape)

    def gather(self, h):
        return h.sum(axis=0)


# --- layers from the arguments of the public ones -------------------------------------------------


def an_axis(value, axes):
    return value if isinstance(value, tuple) else (value,) * axes


def pads_of(padding, sizes, kernel, stride, dilation, transposed=False):
    """``padding`` as one (before, after) an axis; of "same", the odd cell comes after."""
    if padding == "valid":
        return [(0, 0)] * len(sizes)
    if padding != "same":
        return [(p, p) if isinstance(p, int) else p for p in an_axis(padding, len(sizes))]
    pads = []
    for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        covered = reach(k, d) - s if transposed else (-(-n // s) - 1) * s + reach(k, d) - n
        missing = max(covered, 0)
        pads.append((missing // 2, missing - missing // 2))
    return pads


def convolution(
    kind,
    shape,
    filters,
    kernel_size,
    activation="identity",
    *,
    stride=1,
    padding="valid",
    dilation=1,
    groups=1,
    bias=True,
    trainable=True,
):
    *sizes, channels = shape
    transposed, one_each = kind is ConvTranspose, len(sizes)
    k, s, d = (an_axis(value, one_each) for value in (kernel_size, stride, dilation))
    pads = pads_of(padding, sizes, k, s, d, transposed)
    if transposed:  # the image of the convolution that this is the adjoint of
        sizes = [
            n * s_ if padding == "same" else (n - 1) * s_ + reach(k_, d_) - sum(pad)
            for n, k_, s_, d_, pad in zip(sizes, k, s, d, pads, strict=True)
        ]
        filters, channels = channels, filters
    axes = (Axis(*given, *pad) for *given, pad in zip(sizes, k, s, d, pads, strict=True))
    W = np.zeros((filters, *k, channels // groups))
    b = np.zeros(channels if transposed else filters) if bias else None
    return kind(W, b, tuple(axes), groups, activation, trainable)


def pool_axes(shape, size, stride):
    sizes = shape[:-1]
    k = an_axis(size, len(sizes))
    s = k if stride is None else an_axis(stride, len(sizes))
    return tuple(Axis(*given) for given in zip(sizes, k, s, strict=True))


def dense(shape, units, activation="identity", *, bias=True, trainable=True):
    b = np.zeros(units) if bias else None
    return reference.Dense(np.zeros((units, *shape)), b, activation, trainable)


BUILD = {
    "Dense": dense,
    "Conv": partial(convolution, Conv),
    "ConvTranspose": partial(convolution, ConvTranspose),
    "AvgPool": lambda shape, size, stride=None: AvgPool(pool_axes(shape, size, stride)),
    "MaxPool": lambda shape, size, stride=None: MaxPool(pool_axes(shape, size, stride)),
    "GlobalAvgPool": lambda shape: Averages(pool_axes(shape, shape[:-1], 1)),
    "Flatten": lambda shape: Reshaped(tuple(shape)),
    "Dropout": lambda shape, rate: reference.Mask(np.ones(shape)),
}
