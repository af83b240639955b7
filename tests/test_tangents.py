"""jvp and vjp, and that they are adjoint to each other."""

import images
import nets
import numpy as np
import pytest
import reference
import reference_operators
from operator_cases import NETS, case, close

LOSSES = nets.LOSSES


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("activation", nets.ACTIVATIONS)
@pytest.mark.parametrize("name", NETS)
def test_tangents(name, activation, dtype, rng):
    """Propositions 5 and 9: T, S and R run forward."""
    net, layers, X, _ = case(name, activation, dtype=dtype)
    v = rng.normal(size=net.theta.size).astype(dtype)
    dx = rng.normal(size=X.shape).astype(dtype)
    split = images.split(net, v.astype(float))
    nothing = images.split(net, np.zeros(v.size))
    for given, (dW, db), along_x in (
        ({"dtheta": v}, split, 0 * dx),
        ({"dX": dx}, nothing, dx),
        ({"dtheta": v, "dX": dx}, split, dx),
    ):
        F, dF = net.jvp(X, **given)
        _, want, _, dwant = reference_operators.tangent(
            layers, X.astype(float), dW, db, along_x.astype(float)
        )
        assert F.dtype == dF.dtype == dtype
        close(F, want[-1], dtype, "F")
        close(dF, dwant[-1], dtype, "dF")
        nets.assert_close(F, net.predict(X), dtype, 100)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("activation", nets.ACTIVATIONS)
@pytest.mark.parametrize("name", NETS)
def test_cotangents(name, activation, dtype, rng):
    """Theorems 7 and 10, from any T at the output down to the input."""
    net, layers, X, _ = case(name, activation, dtype=dtype)
    h = rng.normal(size=(len(X), *net.output_shape)).astype(dtype)
    a, F = reference.forward(layers, X.astype(float))
    G, g, T = reference.backward(layers, a, F, h.astype(float))
    dtheta, dX = net.vjp(X, h)
    assert dtheta.dtype == dX.dtype == dtype
    close(dtheta, nets.theta_of(G, g, net), dtype, "dtheta")
    close(dX, T, dtype, "dX")


@pytest.mark.parametrize("name", NETS)
def test_the_two_are_adjoint(name, rng):
    net, _, X, _ = case(name, "gelu")
    v, dx = rng.normal(size=net.theta.size), rng.normal(size=X.shape)
    dF = net.jvp(X, v, dx)[1]
    h = rng.normal(size=dF.shape)
    dtheta, dX = net.vjp(X, h)
    one, two = np.vdot(dF, h), np.vdot(v, dtheta) + np.vdot(dx, dX)
    assert abs(one - two) <= 1e-12 * np.linalg.norm(dF) * np.linalg.norm(h)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_a_vjp_of_the_losses_slope(loss, rng):
    net, _, X, y = case("image", "tanh", loss)
    s = rng.uniform(size=len(X))
    slope = reference.LOSSES[loss][1](y, net.predict(X))
    dtheta, _ = net.vjp(X, reference.each(s / s.sum(), slope))
    close(dtheta, net.gradients(X, y, sample_weight=s)[1].theta)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 300, 1031])
def test_batches_across_blocks(n, rng):
    net, layers, X, _ = case("image", n=n)
    v, dx = rng.normal(size=net.theta.size), rng.normal(size=X.shape)
    want = reference_operators.tangent(layers, X, *images.split(net, v), dx)[3][-1]
    close(net.jvp(X, v, dx)[1], want)
    h = rng.normal(size=want.shape)
    a, F = reference.forward(layers, X)
    G, g, T = reference.backward(layers, a, F, h)
    dtheta, dX = net.vjp(X, h)
    close(dtheta, nets.theta_of(G, g, net))
    close(dX, T)


@pytest.mark.parametrize("gemm", ["native", "blas"])
def test_wide_layers(gemm, rng):
    """Wide enough for several panels."""
    specs = [images.Dense(523, "tanh"), images.Dense(521, "tanh"), images.Dense(3)]
    net, layers = images.both(specs, (40,), "softmax_cross_entropy", gemm=gemm)
    assert net.sessions.tangents().uses_blas == (gemm == "blas")
    X, y = rng.normal(size=(70, 40)), rng.dirichlet(np.ones(3), 70)
    v = rng.normal(size=net.theta.size)
    want = reference_operators.tangent(layers, X, *images.split(net, v), 0 * X)[3][-1]
    close(net.jvp(X, v)[1], want)
    for kind, gauss_newton in (("hessian", False), ("gauss_newton", True)):
        want = images.second_derivative(
            net,
            layers,
            "softmax_cross_entropy",
            X,
            y,
            gauss_newton=gauss_newton,
            directions=v[:, None],
        )
        close(getattr(net, kind)(X, y) @ v, want[:, 0], what=kind)


def test_directions_of_any_layout(rng):
    net, _, X, _ = case("image")
    v, dx = rng.normal(size=net.theta.size), rng.normal(size=X.shape)
    F, dF = net.jvp(X, v, dx)
    for change in (
        lambda a: a.astype(">f8"),
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=0)[::2],
        lambda a: a.tolist(),
    ):
        nets.assert_same_bits(net.jvp(change(X), change(v), change(dx))[1], dF)
        h = change(F)
        nets.assert_same_bits(net.vjp(change(X), h)[0], net.vjp(X, F)[0])


def test_the_input_is_the_parameter_of_a_dense_net(rng):
    """Column by column: the Jacobian in X of σ(W x + b)."""
    net = nets.network([4, 3], last="tanh")
    X = rng.normal(size=(1, 4))
    J = np.array([net.jvp(X, dX=e[None])[1][0] for e in np.eye(4)]).T
    F = net.predict(X)[0]
    close(J, (1 - F * F)[:, None] * net.weights[0])
    rows = np.array([net.vjp(X, e[None])[1][0] for e in np.eye(3)])
    close(rows, J)


def test_no_direction_is_an_error_and_zero_is_no_change():
    net, _, X, _ = case("dense")
    with pytest.raises(ValueError, match=r"dtheta.*dX"):
        net.jvp(X)
    F, dF = net.jvp(X, np.zeros(net.n_parameters))
    nets.assert_close(F, net.predict(X))
    assert not dF.any()


@pytest.mark.parametrize("frozen", [0, 2, 4])
def test_a_frozen_layer_does_not_move(frozen, rng):
    shape, specs = images.NETS["image"]
    specs = specs("tanh")
    specs[frozen] = specs[frozen]._replace(options={**specs[frozen].options, "trainable": False})
    net, layers = images.both(specs, shape)
    X, y = images.data("image")
    moving = np.ones(net.theta.size, bool)
    for places in nets.places_in_theta(net):
        if places[frozen] is not None:
            moving[places[frozen]] = False
    v, h = rng.normal(size=net.theta.size), rng.normal(size=(len(X), 3))
    along = images.split(net, moving * v)
    want = reference_operators.tangent(layers, X, *along, np.zeros_like(X))[3][-1]
    close(net.jvp(X, v)[1], want)
    close(net.jacobian(X) @ v, want.ravel())
    G, g, T = reference.backward(layers, *reference.forward(layers, X), h)
    dtheta, dX = net.vjp(X, h)
    close(dtheta, moving * nets.theta_of(G, g, net))
    close(dX, T)
    close(net.jacobian(X).T @ h.ravel(), dtheta)
    for operator, gauss_newton in ((net.hessian, False), (net.gauss_newton, True)):
        want = images.second_derivative(
            net,
            layers,
            "squared_error",
            X,
            y,
            gauss_newton=gauss_newton,
            directions=(moving * v)[:, None],
        )
        close(operator(X, y) @ v, moving * want[:, 0])


def test_dropout_is_the_identity_here(rng):
    plain, dropping = (
        images.network([images.Dense(6, "tanh"), *middle, images.Dense(3)], 4)
        for middle in ([], [images.Dropout(0.7)])
    )
    dropping.theta[:] = plain.theta
    X, y, v = rng.normal(size=(5, 4)), rng.normal(size=(5, 3)), rng.normal(size=plain.theta.size)
    for result in (
        lambda net: net.jvp(X, v, X)[1],
        lambda net: net.vjp(X, y)[0],
        lambda net: net.vjp(X, y)[1],
        lambda net: net.hessian(X, y) @ v,
        lambda net: net.gauss_newton(X, y) @ v,
    ):
        nets.assert_close(result(dropping), result(plain), terms=100)
