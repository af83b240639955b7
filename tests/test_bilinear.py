"""A user's own maps: their three forms, alone and in nets, and what becomes of their errors."""

import copy
import pickle

import images
import nets
import numpy as np
import pytest
import reference
import reference_maps
import reference_operators
from scipy import sparse

import fnn_core as fnn
from fnn_core.testing import check_gradient, check_map


class Circular(fnn.BilinearMap):
    """Correlation of each channel around a ring, to as many filters."""

    def __init__(self, n=6, channels=2, filters=3, taps=4):
        self.input_shape, self.output_shape = (n, channels), (n, filters)
        self.weight_shape, self.taps = (filters, taps, channels), taps

    def apply(self, x, w):
        return sum(np.roll(x, -j, axis=1) @ w[:, j].T for j in range(self.taps))

    def adjoint_input(self, h, w):
        return sum(np.roll(h @ w[:, j], j, axis=1) for j in range(self.taps))

    def adjoint_weight(self, x, h):
        each = [np.einsum("nof,noc->fc", h, np.roll(x, -j, axis=1)) for j in range(self.taps)]
        return np.stack(each, axis=1)


class WithBias(Circular):
    """A bias of its own: one for each filter."""

    bias_shape = (3,)

    def spread(self, b):
        return np.broadcast_to(b, self.output_shape)

    def gather(self, h):
        return h.sum(axis=(0, 1))


def tensor_of(chosen):
    """``t[output, input, weight]``, from the images of all pairs of unit vectors."""
    o, i, w = (
        int(np.prod(s)) for s in (chosen.output_shape, chosen.input_shape, chosen.weight_shape)
    )
    t = np.zeros((o, i, w))
    for k, e in enumerate(np.eye(w)):
        values = chosen.apply(
            np.eye(i).reshape(i, *chosen.input_shape), e.reshape(chosen.weight_shape)
        )
        t[:, :, k] = np.asarray(values).reshape(i, o).T
    return t


def dense_tensor(rng, o=5, i=4, w=7):
    t = rng.normal(size=(o, i, w))
    return np.where(rng.uniform(size=t.shape) < 0.5, t, 0)


def forms(rng):
    """The same tensor in all its forms, as maps of (4,) and (7,) to (5,)."""
    t = dense_tensor(rng)

    class ByMethods(fnn.BilinearMap):
        input_shape, weight_shape, output_shape = (4,), (7,), (5,)

        def apply(self, x, w):
            return np.einsum("oiw,ni,w->no", t, x, w)

        def adjoint_input(self, h, w):
            return np.einsum("oiw,no,w->ni", t, h, w)

        def adjoint_weight(self, x, h):
            return np.einsum("oiw,ni,no->w", t, x, h)

    shapes = {"input_shape": (4,), "weight_shape": (7,), "output_shape": (5,)}
    flat = t.reshape(5, 28)
    return t, {
        "methods": ByMethods(),
        "tensor": fnn.BilinearMap.from_tensor(t),
        "tensor of lists": fnn.BilinearMap.from_tensor(t.tolist()),
        "sparse array": fnn.BilinearMap.from_tensor(sparse.csr_array(flat), shape=(5, 4, 7)),
        "sparse matrix": fnn.BilinearMap.from_tensor(sparse.coo_matrix(flat), shape=(5, 4, 7)),
        "csc": fnn.BilinearMap.from_tensor(sparse.csc_array(flat), shape=(5, 4, 7)),
        "function": fnn.BilinearMap.from_function(ByMethods().apply, **shapes),
    }


FORMS = list(forms(np.random.default_rng(0))[1])


@pytest.mark.parametrize("form", FORMS)
def test_forms(form, rng):
    t, maps = forms(rng)
    chosen = maps[form]
    assert (chosen.output_shape, chosen.input_shape, chosen.weight_shape) == ((5,), (4,), (7,))
    x, h, w = rng.normal(size=(6, 4)), rng.normal(size=(6, 5)), rng.normal(size=7)
    nets.assert_close(chosen.apply(x, w), np.einsum("oiw,ni,w->no", t, x, w), terms=28)
    nets.assert_close(chosen.adjoint_input(h, w), np.einsum("oiw,no,w->ni", t, h, w), terms=28)
    nets.assert_close(chosen.adjoint_weight(x, h), np.einsum("oiw,ni,no->w", t, x, h), terms=99)
    check_map(chosen)
    check_map(chosen, np.random.default_rng(5))


def test_a_function_on_shapes_of_several_axes(rng):
    """Both adjoints by Equation (3)."""
    circular = Circular()
    shapes = {
        name: getattr(circular, name) for name in ("input_shape", "weight_shape", "output_shape")
    }
    derived = fnn.BilinearMap.from_function(circular.apply, **shapes)
    x, h = rng.normal(size=(5, 6, 2)), rng.normal(size=(5, 6, 3))
    w = rng.normal(size=(3, 4, 2))
    nets.assert_close(derived.apply(x, w), circular.apply(x, w), terms=99)
    nets.assert_close(derived.adjoint_input(h, w), circular.adjoint_input(h, w), terms=99)
    nets.assert_close(derived.adjoint_weight(x, h), circular.adjoint_weight(x, h), terms=999)
    check_map(derived)


def test_numbers_for_shapes(rng):
    chosen = fnn.BilinearMap.from_function(
        lambda x, w: x * w, input_shape=3, weight_shape=1, output_shape=3
    )
    net = fnn.Network([fnn.Bilinear(chosen)], input_shape=3, dtype="float64")
    net.weights[0][...] = 2
    net.biases[0][...] = [1, 2, 3]
    nets.assert_close(net.predict([[1.0, 2.0, 3.0]]), [[3, 6, 9]])


# --- in nets --------------------------------------------------------------------------------------


def around(form, activation="tanh", own_bias=True, **options):
    """A net with such a layer amid the package's own, and its reference by the tensor."""
    circular = WithBias() if own_bias else Circular()
    chosen = {
        "methods": lambda: circular,
        "function": lambda: fnn.BilinearMap.from_function(
            circular.apply,
            input_shape=circular.input_shape,
            weight_shape=circular.weight_shape,
            output_shape=circular.output_shape,
        ),
    }[form]()
    bias = options.pop("bias", True)
    options = {"loss": "squared_error", "dtype": "float64", "n_threads": 1, "seed": 1, **options}
    net = fnn.Network(
        [
            fnn.Conv(2, 2, activation),
            fnn.Bilinear(chosen, activation, bias=bias),
            fnn.MaxPool(2),
            fnn.Flatten(),
            fnn.Dense(4, activation),
            fnn.Dense(3),
        ],
        input_shape=(7, 2),
        **options,
    )
    nets.spread_biases(net)
    return net, mirror(net, circular, activation, own_bias and form == "methods")


class Spread(reference_maps.Tensor):
    """With one bias a filter."""

    def gather(self, h):
        return h.sum(axis=(0, 1))


def mirror(net, circular, activation, own_bias):
    specs = [
        images.Conv(2, 2, activation),
        None,
        images.MaxPool(2),
        images.Flatten(),
        images.Dense(4, activation),
        images.Dense(3),
    ]
    x, layers = np.zeros((1, 7, 2)), []
    for spec, W, b in zip(specs, net.weights, net.biases, strict=True):
        if spec is None:
            kind = Spread if own_bias else reference_maps.Tensor
            layer = kind(W, b, tensor_of(circular), (6, 2), (6, 3), activation)
        else:
            layer = reference_maps.BUILD[spec.kind](x.shape[1:], *spec.args, **spec.options)
        if W is not None:
            assert W.shape == layer.W.shape
            layer.W = np.array(W, float)
            layer.b = None if b is None else np.array(b, float)
        x = layer.preactivation(x)
        layers.append(layer)
    return layers


def data(n=7, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 7, 2)).astype(dtype), rng.normal(size=(n, 3)).astype(dtype)


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


# --- copies and files -----------------------------------------------------------------------------


def test_copies_and_files(tmp_path, rng):
    """A map of one's own cannot be in a file; it can be pickled where Python can."""
    net, _ = around("methods")
    X = data()[0]
    for again in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        nets.assert_same_bits(again.predict(X), net.predict(X))
    with pytest.raises((ValueError, TypeError), match=r"map.*layers\[1\]|layers\[1\].*map"):
        net.save(tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


def test_repr_and_equality(rng):
    chosen = forms(rng)[1]["tensor"]
    layer = fnn.Bilinear(chosen, "tanh")
    assert "Bilinear" in repr(layer)
    assert layer == fnn.Bilinear(chosen, "tanh")
    assert layer != fnn.Bilinear(chosen, "relu")


def test_initial_weights(rng):
    t = dense_tensor(rng)
    seen = []

    def mine(rng, shape):
        seen.append(shape)
        return np.arange(7.0)

    chosen = fnn.BilinearMap.from_tensor(t)
    net = fnn.Network([fnn.Bilinear(chosen, initializer=mine)], input_shape=4, dtype="float64")
    assert seen == [(7,)]
    assert net.weights[0].tolist() == list(range(7))
    net = fnn.Network([fnn.Bilinear(chosen)], input_shape=4, dtype="float64")
    assert np.isfinite(net.weights[0]).all()
    assert len(set(net.weights[0].tolist())) == 7


def test_the_plan_names_what_it_cannot_know():
    net, _ = around("methods")
    assert "Python functions" in str(net.memory_plan())


def test_check_gradient_of_a_net_with_a_map():
    check_gradient(around("methods")[0], *data())
