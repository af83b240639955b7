"""The operators and the objective in SciPy's own solvers."""

import nets
import numpy as np
import pytest
from operator_cases import case, close
from scipy.optimize import check_grad, minimize
from scipy.sparse.linalg import aslinearoperator, cg, eigsh, lsmr, lsqr

import fnn_core as fnn


def test_objective(rng):
    net, _, X, y = case("image", "tanh", "softmax_cross_entropy")
    s = rng.uniform(size=len(X))
    theta = net.theta.copy()
    objective = net.objective(X, y, sample_weight=s)
    value = objective.fun(theta)
    assert isinstance(value, float)
    assert value == pytest.approx(net.loss(X, y, sample_weight=s), rel=1e-13)
    close(objective.jac(theta), net.gradients(X, y, sample_weight=s)[1].theta)
    v = rng.normal(size=theta.size)
    close(objective.hessp(theta, v), net.hessian(X, y, sample_weight=s) @ v)
    other = theta + 0.1 * v
    got = objective.fun(other), objective.jac(other), objective.hessp(other, v)
    nets.assert_same_bits(net.theta, theta, "the net keeps its own θ")
    net.theta[:] = other
    assert got[0] == pytest.approx(net.loss(X, y, sample_weight=s), rel=1e-13)
    close(got[1], net.gradients(X, y, sample_weight=s)[1].theta)
    close(got[2], net.hessian(X, y, sample_weight=s) @ v)
    assert objective.jac(theta).dtype == objective.hessp(theta, v).dtype == "float64"
    assert check_grad(objective.fun, objective.jac, theta) <= 1e-6 * (1 + np.linalg.norm(got[1]))


def test_objective_in_float32(rng):
    """SciPy hands float64; what comes back is what SciPy can go on with."""
    net, _, X, y = case("dense", "tanh", dtype="float32")
    objective = net.objective(X, y)
    theta = net.theta.astype("float64")
    assert objective.fun(theta) == pytest.approx(net.loss(X, y), rel=1e-6)
    close(objective.jac(theta), net.gradients(X, y)[1].theta, "float32")
    found = minimize(objective.fun, theta, jac=objective.jac, method="L-BFGS-B")
    assert found.fun < 0.5 * objective.fun(theta)


def regression(n=60):
    rng = np.random.default_rng(4)
    X = rng.uniform(-1, 1, size=(n, 2))
    y = np.stack([X[:, 0] * X[:, 1], np.sin(2 * X[:, 0])], axis=1)
    return nets.network([2, 12, 2], "tanh"), X, y


def test_gauss_newton_with_lsmr():
    """Levenberg-Marquardt, whose linear least squares lsmr solves by products with J."""
    net, X, y = regression()
    damp, value = 1.0, net.loss(X, y)
    start = value
    for _ in range(40):
        theta, residual = net.theta.copy(), (y - net.predict(X)).ravel()
        net.theta[:] = theta + lsmr(net.jacobian(X), residual, damp=damp)[0]
        if net.loss(X, y) < value:
            damp, value = damp / 3, net.loss(X, y)
        else:
            damp, net.theta[:] = damp * 3, theta
    assert value < 1e-4 * start


def test_other_solvers(rng):
    net, X, y = regression()
    J, B, H = net.jacobian(X), net.gauss_newton(X, y), net.hessian(X, y)
    dense = J @ np.eye(net.n_parameters)
    residual = (y - net.predict(X)).ravel()
    want = np.linalg.solve(dense.T @ dense + 0.01 * np.eye(len(dense.T)), dense.T @ residual)
    got = lsqr(J, residual, damp=0.1, atol=1e-14, btol=1e-14, iter_lim=2000)[0]
    close(dense @ got, dense @ want)
    damped = B + 0.1 * aslinearoperator(np.eye(net.n_parameters))
    solution, failed = cg(damped, net.theta, rtol=1e-12)
    assert not failed
    full = B @ np.eye(net.n_parameters)
    close(full @ solution + 0.1 * solution, net.theta)
    top = eigsh(H, k=1, which="LA", return_eigenvectors=False)[0]
    values = np.linalg.eigvalsh(H @ np.eye(net.n_parameters))
    assert top == pytest.approx(values[-1], rel=1e-8)


@pytest.mark.parametrize("method", ["L-BFGS-B", "trust-ncg", "Newton-CG"])
def test_minimize(method):
    net, X, y = regression()
    objective, start = net.objective(X, y), net.theta.copy()
    second = {} if method == "L-BFGS-B" else {"hessp": objective.hessp}
    found = minimize(
        objective.fun, start, jac=objective.jac, method=method, options={"maxiter": 60}, **second
    )
    assert found.fun < 0.01 * objective.fun(start)
    nets.assert_same_bits(net.theta, start)
    net.theta[:] = found.x
    assert net.loss(X, y) == pytest.approx(found.fun, rel=1e-12)


def test_newtons_method_ends_quadratically():
    """With the exact Hessian a trust region comes to rest at a stationary point."""
    rng = np.random.default_rng(0)
    net = nets.network([3, 4], loss="softmax_cross_entropy", bias=[False])
    X, y = rng.normal(size=(50, 3)), rng.integers(0, 4, 50)
    objective = net.objective(X, y)
    found = minimize(
        objective.fun,
        net.theta,
        jac=objective.jac,
        hessp=objective.hessp,
        method="trust-ncg",
        options={"gtol": 1e-10},
    )
    assert found.success
    assert np.linalg.norm(objective.jac(found.x)) <= 1e-10
    assert found.nit < 25


@pytest.mark.parametrize("method", ["TNC", "SLSQP", "L-BFGS-B", "trust-krylov"])
def test_methods_that_insist_on_float64(method, rng):
    """Also of a net in float32."""
    net = fnn.Network([fnn.Dense(4, "tanh"), fnn.Dense(1)], input_shape=2)
    X = rng.normal(size=(40, 2))
    objective = net.objective(X, np.tanh(X[:, :1]))
    found = minimize(
        objective.fun, net.theta.astype(float), jac=objective.jac, method=method,
        options={"maxfun": 20} if method == "TNC" else {"maxiter": 5},
        hessp=objective.hessp if method == "trust-krylov" else None,
    )  # fmt: skip
    assert objective.jac(net.theta).dtype == objective.hessp(net.theta, net.theta).dtype == float
    assert found.fun < objective.fun(net.theta)
