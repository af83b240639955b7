"""jvp, vjp, Jacobian, Gauss-Newton and Hessian against dense matrices built column by column."""

import images
import nets
import numpy as np
import pytest
import reference
import reference_operators
from scipy.linalg import block_diag
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from scipy.special import softmax

import fnn_core as fnn

LOSSES = nets.LOSSES
NETS = {
    **images.NETS,
    "dense": ((4,), lambda σ: [images.Dense(6, σ), images.Dense(5, σ), images.Dense(3)]),
}


def case(name, activation="tanh", loss="squared_error", n=5, dtype="float64", **options):
    shape, specs = NETS[name]
    net, layers = images.both(specs(activation), shape, loss, dtype=dtype, **options)
    rng = np.random.default_rng(2)
    X = rng.normal(size=(n, *shape)).astype(dtype)
    return net, layers, X, nets.targets(rng, loss, n, 3).astype(dtype)


def close(got, want, dtype="float64", what=""):
    """Relative to the norm: 1e-10 in float64."""
    got, want = np.asarray(got, float), np.asarray(want, float)
    assert got.shape == want.shape, what
    tolerance = 1e-10 if dtype == "float64" else 2e-3
    error, size = np.linalg.norm(got - want), np.linalg.norm(want)
    assert error <= tolerance * size, f"{what}: relative error {error / (size or 1):.2e}"


# --- jvp and vjp ----------------------------------------------------------------------------------


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


# --- linear operators -----------------------------------------------------------------------------


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


# --- what they leave as it was --------------------------------------------------------------------


def test_nothing_is_changed(rng):
    net, _, X, y = case("image")
    theta, kept, v = net.theta.copy(), X.copy(), rng.normal(size=net.n_parameters)
    before = net.gradients(X, y)[1].theta.copy()
    J, B, H = net.jacobian(X), net.gauss_newton(X, y), net.hessian(X, y)
    objective = net.objective(X, y)
    results = [
        J @ v,
        B @ v,
        H @ v,
        *net.jvp(X, v, X),
        *net.vjp(X, y),
        objective.jac(2 * theta),
        objective.hessp(2 * theta, v),
    ]
    copies = [result.copy() for result in results]
    objective.fun(3 * theta)
    assert J @ v is not results[0]
    again = [J @ v, B @ v, H @ v, *net.jvp(X, v, X), *net.vjp(X, y)]
    for result, copied in zip(results, copies, strict=True):
        nets.assert_same_bits(result, copied, "a later call changed an earlier result")
    for result, copied in zip(again, copies, strict=False):
        nets.assert_same_bits(result, copied, "it depends on what ran before")
    nets.assert_same_bits(net.theta, theta)
    nets.assert_same_bits(X, kept)
    nets.assert_same_bits(net.gradients(X, y)[1].theta, before)


@pytest.mark.parametrize("name", NETS)
def test_same_bits_for_any_number_of_threads(name, rng):
    net, _, X, y = case(name, n=301)
    v, dx = rng.normal(size=net.n_parameters), rng.normal(size=X.shape)

    def results():
        return [
            *net.jvp(X, v, dx),
            *net.vjp(X, y),
            net.jacobian(X) @ v,
            net.jacobian(X).T @ y.ravel(),
            net.gauss_newton(X, y) @ v,
            net.hessian(X, y) @ v,
        ]

    one = results()
    for n_threads in (2, 3, 8):
        net.n_threads = n_threads
        for got, want in zip(results(), one, strict=True):
            nets.assert_same_bits(got, want, f"{n_threads} threads")


@pytest.mark.parametrize("mode", images.MODES)
def test_they_do_not_depend_on_the_memory_mode(mode, rng):
    net, _, X, y = case("decoder", memory="store")
    v = rng.normal(size=net.n_parameters)
    results = [
        (*net.jvp(X, v, X), *net.vjp(X, y), net.gauss_newton(X, y) @ v, net.hessian(X, y) @ v)
        for net.memory in ("store", mode)
    ]
    for got, want in zip(*results, strict=True):
        close(got, want)
