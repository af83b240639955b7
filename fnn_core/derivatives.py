"""What a net knows of its derivatives: gradients, their factors, and the operators of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy.sparse.linalg import LinearOperator

from fnn_core import factors, operators
from fnn_core.data import as_data
from fnn_core.layers import Connection

if TYPE_CHECKING:
    from fnn_core.network import Network


class Gradients:
    """The gradient of a loss: `theta`, laid out as the net's, and views of it for each layer.

    Attributes
    ----------
    theta : numpy.ndarray, shape (n_parameters,)
    weights, biases : tuple of numpy.ndarray or None
        G_k and g_k in the shapes of the net's weights and biases; None where a layer has none.

    Examples
    --------
    >>> import numpy as np, fnn_core as fnn
    >>> net = fnn.Network([fnn.Dense(3), fnn.Dense(1)], input_shape=2)
    >>> _, gradients = net.gradients(np.ones((5, 2)), np.ones(5))
    >>> [weight.shape for weight in gradients.weights], gradients.theta.shape
    ([(3, 2), (1, 3)], (13,))
    """

    def __init__(self, connections: Sequence[Connection], theta: np.ndarray) -> None:
        self.theta = theta
        self.weights = tuple(place.weight_view(theta) for place in connections)
        self.biases = tuple(place.bias_view(theta) for place in connections)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy's weights and biases are views of its own `theta`."""
        places = [[_place_of(view, self.theta) for view in v] for v in (self.weights, self.biases)]
        return _gradients_from, (self.theta, *places)


#: Where a view lies in its array: shape, offset in bytes, strides.
Place = tuple[tuple[int, ...], int, tuple[int, ...]]


def _place_of(view: np.ndarray | None, array: np.ndarray) -> Place | None:
    if view is None:
        return None
    offset = view.__array_interface__["data"][0] - array.__array_interface__["data"][0]
    return view.shape, offset, view.strides


def _gradients_from(
    theta: np.ndarray, weights: list[Place | None], biases: list[Place | None]
) -> Gradients:
    def view(place: Place | None) -> np.ndarray | None:
        if place is None:
            return None
        shape, offset, strides = place
        return np.ndarray(shape, theta.dtype, theta, offset, strides)

    gradients = Gradients((), theta)
    gradients.weights, gradients.biases = (tuple(map(view, v)) for v in (weights, biases))
    return gradients


class Differentiable:
    """The derivatives of a `Network`, which is the one class that this is a part of."""

    @property
    def _net(self) -> Network:
        return cast("Network", self)

    def gradients(
        self, X: Any, y: Any, sample_weight: Any = None, *, out: Gradients | None = None
    ) -> tuple[float, Gradients]:
        """The loss and its gradient with respect to all W_k and b_k (Theorems 7 and 10).

        Memory does not grow with N: the gradient is accumulated over blocks of samples.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        out : Gradients, optional
            An earlier result, whose memory is used again.

        Returns
        -------
        loss : float
        gradients : Gradients
            Zero for layers with ``trainable=False``.

        Raises
        ------
        TypeError, ValueError
            Where an argument is not as above.

        Examples
        --------
        >>> import numpy as np, fnn_core as fnn
        >>> net = fnn.Network([fnn.Dense(1, bias=False)], input_shape=2, dtype="float64")
        >>> net.weights[0][...] = [[1.0, 2.0]]
        >>> loss, gradients = net.gradients([[3.0, 4.0]], [10.0])   # (11 - 10)², 2 (11 - 10) (3, 4)
        >>> loss, gradients.weights[0]
        (1.0, array([[6., 8.]]))
        """
        net = self._net
        data = as_data(net, X, y, sample_weight)
        if out is None:
            out = Gradients(net.connections, np.zeros(net.n_parameters, net.dtype))
        elif not isinstance(out, Gradients):
            raise TypeError(f"out: expected what an earlier call returned, got {out!r}")
        elif out.theta.shape != net.theta.shape or out.theta.dtype != net.dtype:
            raise ValueError(
                f"out: expected gradients of {net.n_parameters} {net.dtype} parameters, "
                f"got {out.theta.size} of {out.theta.dtype}"
            )
        elif np.may_share_memory(out.theta, net.theta):
            raise ValueError("out: expected gradients that do not share memory with the parameters")
        if not all(layer.trainable for layer in net.layers):
            out.theta[...] = 0
        with net.sessions.differentiation(data) as session:
            return session.differentiate(1 / data.total_weight, out.theta), out

    def jvp(self, X: Any, dtheta: Any = None, dX: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """F_n(X), and its derivative along a direction: T, S, R run forward (Propositions 5, 9).

        Parameters
        ----------
        X : array_like, shape (N, *input_shape)
        dtheta : array_like, shape (n_parameters,), optional
            The direction in θ; layers with ``trainable=False`` do not move.
        dX : array_like, shape (N, *input_shape), optional
            The direction in X.

        Returns
        -------
        F, dF : numpy.ndarray, shape (N, *output_shape)

        Raises
        ------
        TypeError, ValueError
            Where an argument is not as above.

        Examples
        --------
        >>> import numpy as np, fnn_core as fnn
        >>> net = fnn.Network([fnn.Dense(1, bias=False)], input_shape=2, dtype="float64")
        >>> net.weights[0][...] = [[1.0, 2.0]]
        >>> net.jvp([[3.0, 4.0]], dtheta=[1.0, 0.0], dX=[[0.0, 1.0]])   # 1 * 3 + 2 * 1
        (array([[11.]]), array([[5.]]))
        """
        return operators.jvp(self._net, X, dtheta, dX)

    def vjp(self, X: Any, cotangent: Any) -> tuple[np.ndarray, np.ndarray]:
        """The adjoint of that derivative, applied to a cotangent: S*, R*, T* (Theorems 7 and 10).

        Parameters
        ----------
        X : array_like, shape (N, *input_shape)
        cotangent : array_like, shape (N, *output_shape)
            What takes the place of L; nothing is divided by N.

        Returns
        -------
        dtheta : numpy.ndarray, shape (n_parameters,)
        dX : numpy.ndarray, shape (N, *input_shape)

        Raises
        ------
        TypeError, ValueError
            Where an argument is not as above.

        Examples
        --------
        >>> import numpy as np, fnn_core as fnn
        >>> net = fnn.Network([fnn.Dense(1, bias=False)], input_shape=2, dtype="float64")
        >>> net.weights[0][...] = [[1.0, 2.0]]
        >>> net.vjp([[3.0, 4.0]], [[2.0]])
        (array([6., 8.]), array([[2., 4.]]))
        """
        return operators.vjp(self._net, X, cotangent)

    def jacobian(self, X: Any) -> LinearOperator:
        """dF_n/dθ at X: an operator ``(N * n_outputs, n_parameters)``, rows sample by sample.

        Raises
        ------
        TypeError, ValueError
            Where `X` is not as in `fit`.

        Examples
        --------
        >>> import numpy as np, fnn_core as fnn
        >>> net = fnn.Network([fnn.Dense(1, bias=False)], input_shape=2, dtype="float64")
        >>> net.jacobian([[3.0, 4.0], [5.0, 6.0]]) @ np.array([1.0, 0.0])
        array([3., 5.])
        """
        return operators.Jacobian(self._net, X)

    def gauss_newton(self, X: Any, y: Any, sample_weight: Any = None) -> LinearOperator:
        """Jᵀ ℓ'' J of the mean loss: a symmetric operator on θ.

        Raises
        ------
        TypeError, ValueError
            Where an argument is not as in `fit`, and where the loss is your own and has no
            `curvature`.

        Examples
        --------
        >>> import numpy as np, fnn_core as fnn
        >>> net = fnn.Network([fnn.Dense(1, bias=False)], input_shape=2, dtype="float64")
        >>> net.gauss_newton([[3.0, 4.0]], [0.0]) @ np.array([1.0, 0.0])   # 2 (3, 4) 3
        array([18., 24.])
        """
        return operators.curvature(self._net, X, y, sample_weight, gauss_newton=True)

    def hessian(self, X: Any, y: Any, sample_weight: Any = None) -> LinearOperator:
        """The Hessian of the mean loss: a symmetric operator on θ.

        At a kink, where σ'' does not exist, it is taken as 0: ReLU and its kin are seen as linear
        on both sides.

        Raises
        ------
        TypeError, ValueError
            Where an argument is not as in `fit`, and where the loss is your own and has no
            `curvature`.

        Examples
        --------
        >>> import numpy as np, fnn_core as fnn
        >>> net = fnn.Network([fnn.Dense(1, bias=False)], input_shape=2, dtype="float64")
        >>> net.hessian([[3.0, 4.0]], [0.0]) @ np.array([0.0, 1.0])   # of (3 θ_0 + 4 θ_1)²
        array([24., 32.])
        """
        return operators.curvature(self._net, X, y, sample_weight, gauss_newton=False)

    def objective(self, X: Any, y: Any, sample_weight: Any = None) -> operators.Objective:
        """The mean loss as a function of a flat θ: `fun`, `jac`, `hessp` for `scipy.optimize`.

        Raises
        ------
        TypeError, ValueError
            Where an argument is not as in `fit`.

        Examples
        --------
        >>> import fnn_core as fnn
        >>> net = fnn.Network([fnn.Dense(1, bias=False)], input_shape=2, dtype="float64")
        >>> net.objective([[3.0, 4.0]], [0.0]).fun([1.0, 1.0])
        49.0
        """
        return operators.Objective(self._net, as_data(self._net, X, y, sample_weight))

    def gradient_factors(self, X: Any, y: Any) -> list[factors.GradientFactors | None]:
        """The factors of every sample's gradient (Remark 8 ii), one entry a layer.

        Returns
        -------
        list of GradientFactors or None
            None where a layer has no weight.

        Raises
        ------
        TypeError, ValueError
            Where an argument is not as in `fit`.

        Examples
        --------
        >>> import numpy as np, fnn_core as fnn
        >>> net = fnn.Network([fnn.Dense(3)], input_shape=2, dtype="float64")
        >>> X, y = np.ones((5, 2)), np.zeros((5, 3))
        >>> delta, inputs = net.gradient_factors(X, y)[0]
        >>> delta.shape, inputs.shape
        ((5, 3), (5, 2))
        >>> bool(np.allclose(delta.T @ inputs / 5, net.gradients(X, y)[1].weights[0]))
        True
        """
        return factors.gradient_factors(self._net, X, y)

    def per_sample_gradient_norms(self, X: Any, y: Any) -> np.ndarray:
        """‖∂ℓ_i/∂θ‖ of each sample, over all trained parameters, shape ``(N,)``.

        From the factors; the gradient of a sample is formed, one at a time, only for layers where
        that is the shorter way.

        Raises
        ------
        TypeError, ValueError
            Where an argument is not as in `fit`.

        Examples
        --------
        >>> import fnn_core as fnn
        >>> net = fnn.Network([fnn.Dense(1, bias=False)], input_shape=2, dtype="float64")
        >>> net.weights[0][...] = 0
        >>> net.per_sample_gradient_norms([[3.0, 4.0]], [1.0])   # ‖-2 (3, 4)‖
        array([10.])
        """
        return factors.per_sample_gradient_norms(self._net, X, y)
