"""The gradients' factors (Remark 8 ii): delta and input, whose products are samples' gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fnn_core.data import as_data

if TYPE_CHECKING:
    from fnn_core.layers import Connection
    from fnn_core.network import Network


class GradientFactors:
    """The factors of one layer's weight gradients, of every sample; unpacks as ``delta, input``.

    The gradient of sample i is C††(input_i, delta_i): for a dense layer the outer product of the
    two, which take O(d_k + d_{k−1}) numbers a sample instead of O(d_k d_{k−1}). For a convolution
    the input stands for its patches.

    Attributes
    ----------
    delta : numpy.ndarray, shape (N, *output_shape)
        ∂ℓ_i/∂a_k, not scaled by 1/N.
    input : numpy.ndarray, shape (N, *input_shape)
        F_{k−1} of each sample.

    Examples
    --------
    >>> import numpy as np, fnn_core as fnn
    >>> net = fnn.Network([fnn.Dense(3)], input_shape=2)
    >>> factors = net.gradient_factors(np.ones((5, 2)), np.zeros((5, 3)))[0]
    >>> factors.per_sample().shape, factors.dense().shape, factors.norms().shape
    ((5, 3, 2), (3, 2), (5,))
    """

    def __init__(
        self, net: Network, connection: Connection, delta: np.ndarray, input: np.ndarray
    ) -> None:
        self._net = net
        self._connection = connection
        self.delta = delta
        self.input = input

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.delta, self.input))

    @property
    def nbytes(self) -> int:
        """The bytes of both factors."""
        return self.delta.nbytes + self.input.nbytes

    def _products(self, first: int, end: int) -> np.ndarray:
        """The sum of the gradients of samples first..end, in the weight's shape."""
        stored = self._net.sessions.weight_product(
            self._connection, self.input[first:end], self.delta[first:end]
        )
        weight = self._connection.weight_view(stored)
        assert weight is not None
        return weight

    def per_sample(self) -> np.ndarray:
        """The weight gradient of each ℓ_i, shape ``(N, *weight_shape)``."""
        count = len(self.delta)
        shape = self._connection.weight_shape
        assert shape is not None
        gradients = np.empty((count, *shape), self.delta.dtype)
        for i in range(count):
            gradients[i] = self._products(i, i + 1)
        return gradients

    def norms(self) -> np.ndarray:
        """‖∂ℓ_i/∂W_k‖ of each sample, shape ``(N,)``; never more than one gradient is formed."""
        if self._connection.layer.kind == "dense":
            return np.linalg.norm(self.delta, axis=1) * np.linalg.norm(self.input, axis=1)
        return np.array(
            [np.linalg.norm(self._products(i, i + 1)) for i in range(len(self.delta))],
            dtype=self.delta.dtype,
        )

    def dense(self) -> np.ndarray:
        """The mean of the gradients: ``gradients.weights[k]``, where the layer is trained."""
        return self._products(0, len(self.delta)) / len(self.delta)


def gradient_factors(net: Network, X: Any, y: Any) -> list[GradientFactors | None]:
    """`Network.gradient_factors`."""
    data = as_data(net, X, y)
    deltas: list[np.ndarray | None] = []
    inputs: list[np.ndarray | None] = []
    factors: list[GradientFactors | None] = []
    for connection in net.connections:
        factor = None
        if connection.weight_shape is not None:
            factor = GradientFactors(
                net,
                connection,
                np.empty((data.count, *connection.output_shape), net.dtype),
                np.empty((data.count, *connection.input_shape), net.dtype),
            )
        factors.append(factor)
        if connection.layer.kind != "flatten":
            deltas.append(None if factor is None else factor.delta)
            inputs.append(None if factor is None else factor.input)
    with net.sessions.factorization(data) as session:
        session.factors(None, deltas, inputs)
    return factors


def per_sample_gradient_norms(net: Network, X: Any, y: Any) -> np.ndarray:
    """`Network.per_sample_gradient_norms`."""
    data = as_data(net, X, y)
    norms = np.empty(data.count)
    with net.sessions.factorization(data) as session:
        session.factors(norms, [], [])
    return norms.astype(net.dtype, copy=False)
