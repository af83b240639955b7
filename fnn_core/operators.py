"""A net's derivatives as operators (Propositions 5, 9, Theorems 7, 10), for SciPy's solvers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from fnn_core import _engine
from fnn_core.checks import as_array, as_inputs
from fnn_core.data import Data, as_data
from fnn_core.losses import Loss

if TYPE_CHECKING:
    from fnn_core.network import Network


def _as_theta(net: Network, value: Any, name: str) -> np.ndarray:
    return as_array(value, (net.n_parameters,), net.dtype, name)


def jvp(net: Network, X: Any, dtheta: Any, dX: Any) -> tuple[np.ndarray, np.ndarray]:
    """`Network.jvp`."""
    inputs = as_inputs(X, net.input_shape, net.dtype)
    if dtheta is None and dX is None:
        raise ValueError(
            "dtheta, dX: expected a direction in at least one of them, got None in both"
        )
    direction = None if dtheta is None else _as_theta(net, dtheta, "dtheta")
    along = None if dX is None else as_array(dX, inputs.shape, net.dtype, "dX")
    return _push(net, net.theta, inputs, direction, along)


def _push(
    net: Network,
    theta: np.ndarray,
    inputs: np.ndarray,
    dtheta: np.ndarray | None,
    dX: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    outputs, tangents = (np.empty((len(inputs), *net.output_shape), net.dtype) for _ in range(2))
    compiled = net.sessions.tangents()
    tangent_pass = _engine.TangentPass(compiled, theta, _engine.Samples(compiled, inputs))
    with net.sessions.blas_held(compiled):
        tangent_pass.push(dtheta, dX, outputs, tangents)
    return outputs, tangents


def vjp(net: Network, X: Any, cotangent: Any) -> tuple[np.ndarray, np.ndarray]:
    """`Network.vjp`."""
    inputs = as_inputs(X, net.input_shape, net.dtype)
    shape = (len(inputs), *net.output_shape)
    return _pull(net, inputs, as_array(cotangent, shape, net.dtype, "cotangent"))


def _pull(net: Network, inputs: np.ndarray, cotangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    dtheta = np.zeros(net.n_parameters, net.dtype)
    dX = np.empty_like(inputs)
    if len(inputs):
        with net.sessions.differentiation(Data(inputs, None, False, None)) as session:
            session.pull_back(cotangent, dtheta, dX)
    return dtheta, dX


class Jacobian(LinearOperator):
    """dF_n/dθ at X, of shape ``(N * n_outputs, n_parameters)``, rows sample by sample."""

    def __init__(self, net: Network, X: Any) -> None:
        self._net = net
        self._inputs = as_inputs(X, net.input_shape, net.dtype).copy()
        n_outputs = int(np.prod(net.output_shape))
        super().__init__(net.dtype, (len(self._inputs) * n_outputs, net.n_parameters))

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        direction = _as_theta(self._net, np.ravel(v), "v")
        return _push(self._net, self._net.theta, self._inputs, direction, None)[1].ravel()

    def _rmatvec(self, v: np.ndarray) -> np.ndarray:
        shape = (len(self._inputs), *self._net.output_shape)
        cotangent = as_array(np.reshape(v, shape), shape, self._net.dtype, "v")
        return _pull(self._net, self._inputs, cotangent)[0]


class Curvature(LinearOperator):
    """The Hessian of the mean loss in θ, or its Gauss-Newton part Jᵀ ℓ'' J; symmetric."""

    def __init__(
        self, net: Network, data: Data, gauss_newton: bool, theta: np.ndarray | None = None
    ) -> None:
        self._net = net
        self._data = data.copy()
        self._gauss_newton = gauss_newton
        self._theta = net.theta if theta is None else theta
        loss = net.loss_function
        if isinstance(loss, Loss) and loss.curvature is None:
            raise ValueError(
                "curvature: second-order products of a loss of your own need its "
                "curvature(y, t, v), got None"
            )
        super().__init__(net.dtype, (net.n_parameters, net.n_parameters))

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        net, data = self._net, self._data
        direction = _as_theta(net, np.ravel(v), "v")
        loss, scale = net.loss_function, 1 / data.total_weight
        slopes = curvatures = None
        if isinstance(loss, Loss):
            outputs, tangents = _push(net, self._theta, data.inputs, direction, None)
            slopes, curvatures = loss.second_order(data.targets, outputs, tangents)
            _engine.scale_rows(slopes, data.weights, scale)
            _engine.scale_rows(curvatures, data.weights, scale)
        compiled = net.sessions.tangents(data.labels)
        samples = _engine.Samples(compiled, data.inputs, data.targets, data.weights)
        tangent_pass = _engine.TangentPass(compiled, self._theta, samples)
        with net.sessions.blas_held(compiled):
            return tangent_pass.product(direction, scale, self._gauss_newton, slopes, curvatures)

    _rmatvec = _matvec

    def _adjoint(self) -> LinearOperator:
        return self


class Objective:
    """The mean loss as a function of a flat θ, for `scipy.optimize`; the net's own θ stays.

    Results are float64: some of SciPy's methods insist on it, so give them a start of float64, too.
    A net of float32 computes them in its own precision, which may end a search early; differences
    of its losses, which a method takes without `jac`, are mostly rounding.

    Examples
    --------
    >>> import numpy as np, scipy.optimize, fnn_core as fnn
    >>> net = fnn.Network([fnn.Dense(3, "tanh"), fnn.Dense(1)], input_shape=1, dtype="float64")
    >>> X = np.linspace(-1, 1, 30)[:, None]
    >>> objective = net.objective(X, X**2)
    >>> best = scipy.optimize.minimize(objective.fun, net.theta, jac=objective.jac,
    ...                                hessp=objective.hessp, method="trust-ncg")
    >>> net.theta[...] = best.x
    >>> bool(net.loss(X, X**2) < 1e-3)
    True
    """

    def __init__(self, net: Network, data: Data) -> None:
        self._net = net
        self._data = data.copy()

    def fun(self, theta: Any) -> float:
        """The mean loss at `theta`."""
        return self._value_and_gradient(theta)[0]

    def jac(self, theta: Any) -> np.ndarray:
        """Its gradient, shape ``(n_parameters,)``."""
        return self._value_and_gradient(theta)[1].astype(np.float64, copy=False)

    def hessp(self, theta: Any, v: Any) -> np.ndarray:
        """Its Hessian at `theta` times `v`."""
        at = _as_theta(self._net, theta, "theta")
        curvature = Curvature(self._net, self._data, False, at)
        return curvature.matvec(_as_theta(self._net, v, "v")).astype(np.float64, copy=False)

    def _value_and_gradient(self, theta: Any) -> tuple[float, np.ndarray]:
        at = _as_theta(self._net, theta, "theta")
        gradient = np.zeros(self._net.n_parameters, self._net.dtype)
        with self._net.sessions.differentiation(self._data, at) as session:
            return session.differentiate(1 / self._data.total_weight, gradient), gradient


def curvature(
    net: Network, X: Any, y: Any, sample_weight: Any, gauss_newton: bool
) -> LinearOperator:
    """`Network.hessian` and `Network.gauss_newton`."""
    return Curvature(net, as_data(net, X, y, sample_weight), gauss_newton)
