"""Jacobian, Gauss-Newton and Hessian against dense matrices built column by column."""

import images
import nets
import numpy as np
import pytest
from operator_cases import NETS, case, close
from scipy.linalg import block_diag
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from scipy.special import softmax

import fnn_core as fnn

LOSSES = nets.LOSSES


def assert_operator(operator, dense, dtype="float64", *, symmetric=False):
    """``matvec``, ``rmatvec`` and ``matmat``, and what SciPy derives from them."""
    rng = np.random.default_rng(3)
    assert isinstance(operator, LinearOperator)
    assert operator.shape == dense.shape
    assert operator.dtype == dtype
    v, u = (rng.normal(size=size).astype(dtype) for size in dense.shape[::-1])
    V, U = (rng.normal(size=(size, 3)).astype(dtype) for size in dense.shape[::-1])
    close(operator.matvec(v), dense @ v, dtype, "matvec")
    close(operator.rmatvec(u), dense.T @ u, dtype, "rmatvec")
    close(operator.matmat(V), dense @ V, dtype, "matmat")
    close(operator.rmatmat(U), dense.T @ U, dtype, "rmatmat")
    close(operator @ v, dense @ v, dtype)
    close(operator.T @ u, dense.T @ u, dtype)
    close(operator.H @ u, dense.T @ u, dtype)
    close(operator @ v[:, None], (dense @ v)[:, None], dtype)
    close((2 * operator + aslinearoperator(dense)) @ v, 3 * dense @ v, dtype)
    assert operator.matvec(v).dtype == dtype
    if symmetric:
        close(operator @ V, operator.T @ V, dtype)


@pytest.mark.parametrize(("activation", "dtype"), [("relu", "float32"), ("gelu", "float64")])
@pytest.mark.parametrize("name", NETS)
def test_jacobian(name, activation, dtype):
    net, layers, X, _ = case(name, activation, n=2, dtype=dtype)
    dense = images.jacobian(net, layers, X)
    assert dense.shape == (2 * 3, net.n_parameters)
    assert_operator(net.jacobian(X), dense, dtype)


def test_rows_of_the_jacobian_of_images(rng):
    """Sample by sample, and within a sample as ``predict`` has them."""
    net, layers = images.both([images.Conv(2, 2, "tanh")], (3, 4, 2))
    X = rng.normal(size=(3, 3, 4, 2))
    assert_operator(net.jacobian(X), images.jacobian(net, layers, X))
    v = rng.normal(size=net.theta.size)
    close(net.jacobian(X) @ v, net.jvp(X, v)[1].ravel())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", nets.ACTIVATIONS)
def test_second_order_of_every_activation_and_loss(activation, loss, rng):
    """The Hessian accounts for σ''."""
    net, layers, X, y = case("dense", activation, loss)
    one, two = (None, rng.uniform(size=len(X)))[:: -1 if len(activation) % 2 else 1]
    H = images.second_derivative(net, layers, loss, X, y, one)
    B = images.second_derivative(net, layers, loss, X, y, two, gauss_newton=True)
    assert_operator(net.hessian(X, y, sample_weight=one), H, symmetric=True)
    assert_operator(net.gauss_newton(X, y, sample_weight=two), B, symmetric=True)


@pytest.mark.parametrize("name", images.NETS)
def test_second_order_of_every_layer(name):
    loss = "softmax_cross_entropy"
    net, layers, X, y = case(name, "tanh", loss, n=2)
    H = images.second_derivative(net, layers, loss, X, y)
    assert_operator(net.hessian(X, y), H, symmetric=True)
    J, p = images.jacobian(net, layers, X), softmax(net.predict(X), axis=1)
    of_loss = block_diag(*(np.diag(q) - np.outer(q, q) for q in p)) / len(X)
    assert_operator(net.gauss_newton(X, y), J.T @ of_loss @ J, symmetric=True)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("activation", nets.ACTIVATIONS)
@pytest.mark.parametrize("name", NETS)
def test_second_order_along_random_directions(name, activation, dtype, rng):
    for loss in ("softmax_cross_entropy", "poisson"):
        net, layers, X, y = case(name, activation, loss, dtype=dtype)
        V = rng.normal(size=(net.theta.size, 2)).astype(dtype)
        for kind, gauss_newton in (("hessian", False), ("gauss_newton", True)):
            want = images.second_derivative(
                net, layers, loss, X, y, gauss_newton=gauss_newton, directions=V.astype(float)
            )
            got = getattr(net, kind)(X, y) @ V
            assert got.dtype == dtype
            close(got, want, dtype, kind)


@pytest.mark.parametrize("last", nets.ACTIVATIONS)
def test_activation_at_the_output(last, rng):
    specs = [images.Dense(5, "tanh"), images.Dense(3, last)]
    net, layers = images.both(specs, 4, "squared_error")
    X, y = rng.normal(size=(6, 4)), rng.normal(size=(6, 3))
    for kind, gauss_newton in (("hessian", False), ("gauss_newton", True)):
        dense = images.second_derivative(
            net, layers, "squared_error", X, y, gauss_newton=gauss_newton
        )
        assert_operator(getattr(net, kind)(X, y), dense, symmetric=True)
    assert_operator(net.jacobian(X), images.jacobian(net, layers, X))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", NETS)
def test_the_hessian_is_the_difference_of_gradients(name, loss, rng):
    net, _, X, y = case(name, "tanh", loss)
    if loss in ("absolute_error", "huber"):
        y = y + 100  # far from the kinks
    v, h, start = rng.normal(size=net.theta.size), 1e-5, net.theta.copy()
    v /= np.linalg.norm(v)
    got = net.hessian(X, y) @ v
    either = []
    for sign in (1, -1):
        net.theta[:] = start + sign * h * v
        either.append(net.gradients(X, y)[1].theta)
    want = (either[0] - either[1]) / (2 * h)
    assert np.linalg.norm(got - want) <= 1e-7 * (1 + np.linalg.norm(want))


@pytest.mark.parametrize("loss", LOSSES)
def test_gauss_newton_is_positive(loss):
    net, _, X, y = case("dense", "tanh", loss)
    B = net.gauss_newton(X, y)
    dense = B @ np.eye(net.n_parameters)
    values = np.linalg.eigvalsh((dense + dense.T) / 2)
    assert values.min() >= -1e-12 * max(values.max(), 1)


def test_labels(rng):
    net, _, X, _ = case("image", loss="softmax_cross_entropy")
    labels, v = rng.integers(0, 3, len(X)), rng.normal(size=net.n_parameters)
    for kind in (net.hessian, net.gauss_newton):
        close(kind(X, labels) @ v, kind(X, np.eye(3)[labels]) @ v)


def test_at_kinks_second_derivatives_are_zero(rng):
    """ReLU and its kin at exactly zero, where σ'' does not exist."""
    for name in ("relu", "leaky_relu", "hard_tanh"):
        net, layers, X, y = case("dense", name)
        X[:] = 0
        for b in net.biases:
            b[...] = 0
        layers = images.mirror(net, NETS["dense"][1](name))
        H = images.second_derivative(net, layers, "squared_error", X, y)
        assert_operator(net.hessian(X, y), H, symmetric=True)
        assert np.isfinite(net.hessian(X, y) @ rng.normal(size=net.n_parameters)).all()


@pytest.mark.parametrize("name", ["image", "dense"])
def test_a_loss_of_ones_own(name, rng):
    """A curvature that is not diagonal."""
    M = rng.normal(size=(3, 3))
    M = M @ M.T
    loss = fnn.Loss(
        lambda y, t: 0.5 * np.einsum("ni,ij,nj->n", t - y, M, t - y),
        lambda y, t: (t - y) @ M,
        lambda y, t, v: v @ M,
    )
    shape, specs = NETS[name]
    net, layers = images.both(specs("tanh"), shape, loss)
    X, y = rng.normal(size=(5, *shape)), rng.normal(size=(5, 3))
    J = images.jacobian(net, layers, X)
    B = J.T @ np.kron(np.eye(len(X)), M) @ J / len(X)
    assert_operator(net.gauss_newton(X, y), B, symmetric=True)
    v, h, start = rng.normal(size=net.theta.size), 1e-5, net.theta.copy()
    got = net.hessian(X, y) @ v
    either = []
    for sign in (1, -1):
        net.theta[:] = start + sign * h * v
        either.append(net.gradients(X, y)[1].theta)
    want = (either[0] - either[1]) / (2 * h)
    assert np.linalg.norm(got - want) <= 1e-6 * np.linalg.norm(want)
