"""Nets with a user's own map, against the reference by its tensor."""

import images
import nets
import numpy as np
import pytest
import reference
import reference_maps
import reference_operators
from bilinear_nets import WithBias, around, data, forms

import fnn_core as fnn


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("activation", nets.ACTIVATIONS)
@pytest.mark.parametrize("form", ["methods", "function"])
def test_gradients(form, activation, dtype):
    net, layers = around(form, activation, dtype=dtype)
    X, y = data(dtype=dtype)
    terms = 10_000 if dtype == "float64" else 1000
    images.assert_gradients_right(net, layers, X, y, dtype=dtype, terms=terms)
    s = np.random.default_rng(1).uniform(size=7).astype(dtype)
    images.assert_gradients_right(net, layers, X, y, s=s, dtype=dtype, terms=terms)


@pytest.mark.parametrize("own_bias", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_biases(bias, own_bias):
    net, layers = around("methods", bias=bias, own_bias=own_bias)
    expected = (3,) if own_bias else (6, 3)
    assert (net.biases[1].shape == expected) if bias else (net.biases[1] is None)
    images.assert_gradients_right(net, layers, *data())


@pytest.mark.parametrize("n", [1, 64, 65, 300, 1031])
def test_batches_across_blocks(n):
    net, layers = around("methods")
    images.assert_gradients_right(net, layers, *data(n))


@pytest.mark.parametrize("update", ["deferred", "immediate", "auto"])
@pytest.mark.parametrize("mode", images.MODES)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "adagrad"])
def test_training(optimizer, mode, update):
    net, layers = around("methods", memory=mode)
    engine, peer = (
        kinds[optimizer](0.01) for kinds in (fnn.optimizers.REGISTRY, reference.OPTIMIZERS)
    )
    θ = net.theta.copy()
    start = θ.copy()
    for step in range(5):
        X, y = data(seed=step)
        images.load(net, layers, θ)
        want, G, g = reference.gradients(layers, "squared_error", X, y)
        θ = peer.step(θ, nets.theta_of(G, g, net))
        if step % 2:
            got = net.step(X, y, engine, update=update)
        else:
            got = net.fit(X, y, batch_size=7, optimizer=engine, update=update)["loss"][0]
        assert got == pytest.approx(want, rel=1e-10)
        assert np.linalg.norm(net.theta - θ) <= 1e-10 * np.linalg.norm(θ - start)


def test_modes_and_threads_give_the_same_bits():
    thetas = []
    for mode in images.MODES:
        for n_threads in (1, 3):
            net, _ = around("methods", memory=mode, n_threads=n_threads)
            net.fit(*data(150), epochs=2, batch_size=64)
            thetas.append(np.concatenate([net.theta, net.predict(data(150)[0]).ravel()]))
    for theta in thetas[1:]:
        nets.assert_same_bits(theta, thetas[0])


@pytest.mark.parametrize("optimizer", [
    lambda: fnn.SGD(0.1, clip_norm=0.2),
    lambda: fnn.Adam(0.1, clip_norm=0.2),
])  # fmt: skip
def test_clipping(optimizer):
    thetas = []
    for update in ("deferred", "immediate"):
        net, _ = around("methods")
        net.fit(*data(20), epochs=2, batch_size=8, optimizer=optimizer(), update=update)
        thetas.append(net.theta.copy())
    nets.assert_close(thetas[1], thetas[0], terms=10_000)


@pytest.mark.parametrize("form", ["methods", "function"])
def test_operators(form, rng):
    net, layers = around(form, "gelu")
    X, y = data()
    v, dx = rng.normal(size=net.theta.size), rng.normal(size=X.shape)
    want = reference_operators.tangent(layers, X, *images.split(net, v), dx)
    F, dF = net.jvp(X, v, dx)
    nets.assert_close(F, want[1][-1], terms=10_000)
    nets.assert_close(dF, want[3][-1], terms=10_000)
    a, F = reference.forward(layers, X)
    h = rng.normal(size=y.shape)
    G, g, T = reference.backward(layers, a, F, h)
    dtheta, dX = net.vjp(X, h)
    nets.assert_close(dtheta, nets.theta_of(G, g, net), terms=10_000)
    nets.assert_close(dX, T, terms=10_000)
    for kind, gauss_newton in (("hessian", False), ("gauss_newton", True)):
        want = images.second_derivative(
            net, layers, "squared_error", X, y, gauss_newton=gauss_newton, directions=v[:, None]
        )
        got = getattr(net, kind)(X, y) @ v
        assert np.linalg.norm(got - want[:, 0]) <= 1e-10 * np.linalg.norm(want)
    J = net.jacobian(X)
    nets.assert_close(J @ v, net.jvp(X, v)[1].ravel(), terms=10_000)
    nets.assert_close(J.T @ h.ravel(), dtheta, terms=10_000)


def test_norms_and_private_steps():
    net, layers = around("methods")
    X, y = data()
    each = [
        images.flat_gradient(net, layers, "squared_error", X[i : i + 1], y[i : i + 1])
        for i in range(7)
    ]
    norms = np.linalg.norm(each, axis=1)
    nets.assert_close(net.per_sample_gradient_norms(X, y), norms, terms=10_000)
    largest = np.median(norms)
    want = sum(g * min(1, largest / size) for g, size in zip(each, norms, strict=True)) / 7
    before = net.theta.copy()
    net.step(X, y, fnn.DPSGD(0.1, 0.0, largest))
    nets.assert_close((before - net.theta) / 0.1, want, c=1e6)


def test_frozen(rng):
    net = fnn.Network(
        [fnn.Dense(4, "tanh"), fnn.Bilinear(forms(rng)[1]["methods"], trainable=False)],
        input_shape=3,
        dtype="float64",
    )
    X, y, before = rng.normal(size=(5, 3)), rng.normal(size=(5, 5)), net.weights[1].copy()
    assert not net.gradients(X, y)[1].weights[1].any()
    net.fit(X, y, epochs=3)
    assert np.array_equal(net.weights[1], before)


def test_first_and_last_and_alone(rng):
    t, maps = forms(rng)
    for form, chosen in maps.items():
        net = fnn.Network([fnn.Bilinear(chosen, "tanh")], input_shape=4, dtype="float64")
        X, y = rng.normal(size=(6, 4)), rng.normal(size=(6, 5))
        layer = reference_maps.Tensor(
            np.array(net.weights[0]), np.array(net.biases[0]), t, (4,), (5,), "tanh"
        )
        images.assert_gradients_right(net, [layer], X, y)
        before = net.loss(X, y)
        net.fit(X, y, epochs=50, optimizer=fnn.Adam(0.01))
        assert net.loss(X, y) < before, form


def test_it_is_the_dense_layer(rng):
    class DenseMap(fnn.BilinearMap):
        input_shape, weight_shape, output_shape = (5,), (4, 5), (4,)

        def apply(self, x, w):
            return x @ w.T

        def adjoint_input(self, h, w):
            return h @ w

        def adjoint_weight(self, x, h):
            return h.T @ x

    mine, built_in = (
        fnn.Network([layer, fnn.Dense(2)], input_shape=5, dtype="float64", seed=3)
        for layer in (fnn.Bilinear(DenseMap(), "tanh"), fnn.Dense(4, "tanh"))
    )
    nets.assert_same_bits(np.array(mine.weights[0]), np.array(built_in.weights[0]))
    X, y = rng.normal(size=(9, 5)), rng.normal(size=(9, 2))
    for net in (mine, built_in):
        net.fit(X, y, epochs=5, batch_size=4)
    for one, two in zip(mine.weights, built_in.weights, strict=True):
        nets.assert_close(one, two, terms=1000)


def test_what_the_methods_are_given():
    """Arrays of the net's dtype in the map's shapes, with a leading sample axis; all rows once."""
    seen, rows = {}, []

    class Watching(WithBias):
        def apply(self, x, w):
            seen["apply"] = (x.shape[1:], w.shape, x.dtype, w.dtype)
            rows.append(len(x))
            return super().apply(x, w)

        def adjoint_input(self, h, w):
            seen["adjoint_input"] = (h.shape[1:], w.shape, h.dtype, w.dtype)
            return super().adjoint_input(h, w)

        def adjoint_weight(self, x, h):
            seen["adjoint_weight"] = (x.shape[1:], h.shape[1:], x.dtype, h.dtype)
            assert len(x) == len(h)
            return super().adjoint_weight(x, h)

        def spread(self, b):
            seen["spread"] = (b.shape, b.dtype)
            return super().spread(b)

        def gather(self, h):
            seen["gather"] = (h.shape[1:], h.dtype)
            return super().gather(h)

    net = fnn.Network(
        [fnn.Conv(2, 1), fnn.Bilinear(Watching()), fnn.Flatten(), fnn.Dense(3)], input_shape=(6, 2)
    )
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(9, 6, 2)), rng.normal(size=(9, 3))
    net.predict(X)
    assert sum(rows) == 9
    net.gradients(X, y)
    dtype, x, w, h = np.dtype("float32"), (6, 2), (3, 4, 2), (6, 3)
    assert seen == {
        "apply": (x, w, dtype, dtype),
        "adjoint_input": (h, w, dtype, dtype),
        "adjoint_weight": (x, h, dtype, dtype),
        "spread": ((3,), dtype),
        "gather": (h, dtype),
    }


def test_arguments_cannot_be_spoiled(rng):
    """A map that writes to what it is given, or keeps it, harms nobody but itself."""
    kept = []

    class Spoiling(WithBias):
        def apply(self, x, w):
            result = super().apply(x, w)
            kept.extend([x, w, result])
            for array in (x, w):
                if array.flags.writeable:
                    array[...] = 0
            return result

    net = fnn.Network([fnn.Bilinear(Spoiling())], input_shape=(6, 2), dtype="float64")
    X, theta = rng.normal(size=(9, 6, 2)), net.theta.copy()
    before = X.copy()
    net.predict(X)
    nets.assert_same_bits(X, before)
    nets.assert_same_bits(net.theta, theta)
    copies = [array.copy() for array in kept]
    net.predict(2 * X)
    del net
    for array, copied in zip(kept[2:3], copies[2:3], strict=True):
        assert np.array_equal(array, copied)
    [array.sum() for array in kept]
