"""Bilinear maps of the user's own: C, C† and C†† of Section 4 as Python functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from fnn_core.checks import as_shape

Shape = tuple[int, ...]

#: How far, relative to its size, a function may be off from what its values at unit vectors say.
BILINEAR_TOLERANCE = 1e-6


class BilinearMap:
    """A map C(x, w), linear in each of its arguments, with its two adjoints (Section 4).

    Subclass it, giving the three shapes and the three methods; or use `from_tensor` or
    `from_function`. In the methods `x` and `h` carry a leading sample axis.
    `fnn_core.testing.check_map` tells whether the methods belong together.

    Attributes
    ----------
    input_shape, weight_shape, output_shape : tuple of int
        Of one sample's x, of w, and of one sample's C(x, w).
    bias_shape : tuple of int, optional
        Of the bias, for a map that brings `spread` and `gather`; by default the bias is one number
        for each output entry.

    Examples
    --------
    A layer that multiplies its input, entry by entry, by a weight:

    >>> import numpy as np, fnn_core as fnn
    >>> class Scale(fnn.BilinearMap):
    ...     input_shape = weight_shape = output_shape = (3,)
    ...     def apply(self, x, w):
    ...         return x * w
    ...     def adjoint_input(self, h, w):
    ...         return h * w
    ...     def adjoint_weight(self, x, h):
    ...         return (x * h).sum(axis=0)
    >>> fnn.testing.check_map(Scale())
    >>> net = fnn.Network([fnn.Bilinear(Scale(), "tanh"), fnn.Dense(1)], input_shape=3)
    >>> net.predict(np.ones((2, 3))).shape
    (2, 1)
    """

    input_shape: Shape
    weight_shape: Shape
    output_shape: Shape
    bias_shape: Shape | None = None

    def apply(self, x: np.ndarray, w: np.ndarray) -> Any:
        """C(x, w), shape ``(N, *output_shape)``."""
        raise NotImplementedError

    def adjoint_input(self, h: np.ndarray, w: np.ndarray) -> Any:
        """C†(h, w), shape ``(N, *input_shape)``."""
        raise NotImplementedError

    def adjoint_weight(self, x: np.ndarray, h: np.ndarray) -> Any:
        """C††(x, h) summed over samples, of `weight_shape`."""
        raise NotImplementedError

    def spread(self, b: np.ndarray) -> Any:
        """ι(b), of `output_shape`, for a map with a `bias_shape`."""
        raise NotImplementedError

    def gather(self, h: np.ndarray) -> Any:
        """ι*(h) summed over samples, of `bias_shape`."""
        raise NotImplementedError

    @staticmethod
    def from_tensor(tensor: Any, *, shape: tuple[int, int, int] | None = None) -> BilinearMap:
        """C(x, w)_o = Σ t[o, i, w] x_i w_w, of an order-3 tensor ``t[output, input, weight]``.

        Parameters
        ----------
        tensor : array_like of 3 axes, or SciPy sparse of 2
            A sparse one has shape ``(outputs, inputs * weights)``.
        shape : tuple of three ints
            ``(outputs, inputs, weights)`` of a sparse one.

        Raises
        ------
        TypeError, ValueError
            Where `tensor` is not of that kind.

        Examples
        --------
        >>> import numpy as np, fnn_core as fnn
        >>> dense = fnn.BilinearMap.from_tensor(np.ones((2, 3, 4)))
        >>> dense.output_shape, dense.input_shape, dense.weight_shape
        ((2,), (3,), (4,))
        """
        if sparse.issparse(tensor):
            sizes = () if shape is None else as_shape(shape, "shape")
            if len(sizes) != 3 or tensor.shape != (sizes[0], sizes[1] * sizes[2]):
                raise ValueError(
                    f"shape = {shape!r}: expected (outputs, inputs, weights) of a sparse tensor of "
                    f"shape (outputs, inputs * weights), got {tensor.shape}"
                )
            _require_real(tensor.data, "tensor")
            return _TensorMap(sparse.coo_array(tensor), sizes)
        if shape is not None:
            raise ValueError(f"shape = {shape!r}: expected None, as the tensor is not sparse")
        try:
            dense = np.asarray(tensor)
        except ValueError as error:  # ragged nested lists
            raise ValueError(f"tensor: expected an array of 3 axes ({error})") from None
        if dense.ndim != 3 or 0 in dense.shape:
            raise ValueError(f"tensor: expected t[output, input, weight], got shape {dense.shape}")
        _require_real(dense, "tensor")
        outputs, inputs, weights = dense.shape
        flat = dense.reshape(outputs, inputs * weights)
        return _TensorMap(sparse.coo_array(flat), (outputs, inputs, weights))

    @staticmethod
    def from_function(
        apply: Callable[[np.ndarray, np.ndarray], Any],
        *,
        input_shape: int | Shape,
        weight_shape: int | Shape,
        output_shape: int | Shape,
    ) -> BilinearMap:
        """A map from C alone: both adjoints by Equation (3), ``T* x = Σ_i ⟨x, T e_i⟩ e_i``.

        `apply` is called once for every unit vector of the weight, on all unit vectors of the
        input; it is kept as the tensor of those values.

        Raises
        ------
        TypeError, ValueError
            Where `apply` is no function, or its results are not of `output_shape`.

        Examples
        --------
        >>> import numpy as np, fnn_core as fnn
        >>> outer = fnn.BilinearMap.from_function(
        ...     lambda x, w: x[:, :, None] * w, input_shape=2, weight_shape=3, output_shape=(2, 3))
        >>> outer.adjoint_input(np.ones((1, 2, 3)), np.array([1.0, 2.0, 3.0]))
        array([[6., 6.]])
        """
        if not callable(apply):
            raise TypeError(f"apply: expected a function of (x, w), got {apply!r}")
        shapes = [
            as_shape(shape, name)
            for shape, name in (
                (output_shape, "output_shape"),
                (input_shape, "input_shape"),
                (weight_shape, "weight_shape"),
            )
        ]
        outputs, inputs, weights = (int(np.prod(shape)) for shape in shapes)
        units = np.eye(inputs).reshape(inputs, *shapes[1])
        columns = []
        for place in range(weights):
            unit = np.zeros(weights)
            unit[place] = 1
            values = np.asarray(apply(units, unit.reshape(shapes[2])))
            _require_real(values, "apply(x, w)")
            if values.shape != (inputs, *shapes[0]):
                raise ValueError(
                    f"apply(x, w): expected shape {(inputs, *shapes[0])} for {inputs} samples, "
                    f"got {values.shape}"
                )
            columns.append(sparse.coo_array(values.reshape(inputs, outputs).T))
        # Blocks of one weight each, (outputs, inputs), to t[output, input * weights + weight].
        stacked = sparse.hstack(columns, format="coo")
        place, entry = np.divmod(stacked.col, inputs)
        tensor = sparse.coo_array(
            (stacked.data, (stacked.row, entry * weights + place)), shape=stacked.shape
        )
        derived = _TensorMap(tensor, (outputs, inputs, weights), *shapes)
        rng = np.random.default_rng(0)
        x, w = rng.standard_normal((2, *shapes[1])), rng.standard_normal(shapes[2])
        given, expected = np.asarray(apply(x, w)), derived.apply(x, w)
        error = np.linalg.norm(given - expected)
        if not error <= BILINEAR_TOLERANCE * max(np.linalg.norm(given), np.linalg.norm(expected)):
            raise ValueError(
                "apply: expected a function that is linear in x and in w; at a random point it is "
                f"{error:.3g} off from what its values at unit vectors say"
            )
        return derived


def result_of_map(name: str, result: Any, shape: Shape) -> np.ndarray:
    """What a method of a map has returned, where it is real and of that shape."""
    array = np.asarray(result)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"map.{name}: expected real numbers, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"map.{name}: expected a result of shape {shape}, got {array.shape}")
    return array


def _require_real(values: np.ndarray, name: str) -> None:
    if values.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected real numbers, got dtype {values.dtype}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: expected finite numbers")


class _TensorMap(BilinearMap):
    """The map of a sparse tensor: a product is one sparse matrix times samples' outer products."""

    def __init__(
        self,
        tensor: sparse.coo_array,
        sizes: Shape,
        output_shape: Shape | None = None,
        input_shape: Shape | None = None,
        weight_shape: Shape | None = None,
    ) -> None:
        outputs, inputs, weights = sizes
        self.output_shape = output_shape or (outputs,)
        self.input_shape = input_shape or (inputs,)
        self.weight_shape = weight_shape or (weights,)
        i, w = np.divmod(tensor.col, weights)
        o, data = tensor.row, tensor.data.astype(float)
        # (input * output, weight): what w is multiplied by, for each pair that x and h meet in.
        self._by_weight = sparse.csr_array(
            (data, (i * outputs + o, w)), shape=(inputs * outputs, weights)
        )
        self._sizes = sizes

    def _matrix(self, w: np.ndarray) -> np.ndarray:
        """C(·, w) as a matrix (inputs, outputs)."""
        outputs, inputs, _ = self._sizes
        return (self._by_weight @ np.ravel(w)).reshape(inputs, outputs)

    def apply(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        product = x.reshape(len(x), -1) @ self._matrix(w)
        return product.reshape(len(x), *self.output_shape)

    def adjoint_input(self, h: np.ndarray, w: np.ndarray) -> np.ndarray:
        product = h.reshape(len(h), -1) @ self._matrix(w).T
        return product.reshape(len(h), *self.input_shape)

    def adjoint_weight(self, x: np.ndarray, h: np.ndarray) -> np.ndarray:
        meeting = x.reshape(len(x), -1).T @ h.reshape(len(h), -1)
        return (self._by_weight.T @ meeting.ravel()).reshape(self.weight_shape)
