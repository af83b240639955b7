"""Remark 8 (ii): the factors of each sample's gradient, its norm, and clipping by them."""

import tracemalloc

import images
import nets
import numpy as np
import pytest
import reference

import fnn_core as fnn
from fnn_core.testing import allocation_counts

NETS = {
    **images.NETS,
    "dense": (
        (7,),
        lambda σ: [
            images.Dense(11, σ),
            images.Dropout(0.3),
            images.Dense(5, σ, bias=False),
            images.Dense(3),
        ],
    ),
    "few positions": (  # a norm from the patches' products costs less than a gradient, and
        (4, 5, 16),
        lambda σ: [images.Conv(17, 3, σ), images.Flatten(), images.Dense(3)],
    ),
    "many positions": (  # the other way round
        (15, 14, 2),
        lambda σ: [images.Conv(3, 3, σ, stride=2), images.Flatten(), images.Dense(3)],
    ),
    "depthwise": (
        (6, 7, 8),
        lambda σ: [images.Conv(16, 3, σ, groups=8), images.GlobalAvgPool(), images.Dense(3)],
    ),
}


def case(name, activation="tanh", loss="squared_error", n=6, dtype="float64", **options):
    shape, specs = NETS[name]
    net, layers = images.both(specs(activation), shape, loss, dtype=dtype, **options)
    rng = np.random.default_rng(2)
    X = rng.normal(size=(n, *shape)).astype(dtype)
    return net, layers, X, nets.targets(rng, loss, n, 3).astype(dtype)


def of_each_sample(layers, loss, X, y):
    """``G_k`` and ``g_k`` of each ℓ_i, one at a time."""
    return [
        reference.gradients(layers, loss, X[i : i + 1], y[i : i + 1])[1:] for i in range(len(X))
    ]


def norm(arrays):
    return np.sqrt(sum(np.sum(a * a) for a in arrays if a is not None))


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("loss", ["squared_error", "softmax_cross_entropy"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("name", NETS)
def test_factors(name, activation, loss, dtype):
    net, layers, X, y = case(name, activation, loss, dtype=dtype)
    factors = net.gradient_factors(X, y)
    assert isinstance(factors, list)
    assert len(factors) == len(layers)
    singles = of_each_sample(layers, loss, X.astype(float), y.astype(float))
    _, grads = net.gradients(X, y)
    x, terms = X, 10_000 if dtype == "float64" else 1000
    for k, (factor, layer) in enumerate(zip(factors, layers, strict=True)):
        h = layer.preactivation(x.astype(float))
        if layer.W is None:
            assert factor is None
        else:
            delta, given = factor
            assert delta is factor.delta
            assert given is factor.input
            assert delta.shape == h.shape
            assert given.shape == (len(X), *x.shape[1:])
            assert delta.dtype == given.dtype == dtype
            assert factor.nbytes == delta.nbytes + given.nbytes
            nets.assert_close(given, x, dtype, terms, what=f"F_{k}")
            want = np.array([G[k] for G, _ in singles])
            each = factor.per_sample()
            assert each.dtype == dtype
            nets.assert_close(each, want, dtype, terms, what=f"G_{k + 1} of each")
            norms = factor.norms()
            assert norms.shape == (len(X),)
            nets.assert_close(norms, [norm([G]) for G in want], dtype, terms, what="norms")
            nets.assert_close(factor.dense(), grads.weights[k], dtype, terms, what="the mean")
        x = reference.ACTIVATIONS[layer.activation][0](h)


@pytest.mark.parametrize("name", NETS)
def test_delta_is_of_each_loss_and_not_scaled(name):
    """``∂ℓ_i/∂a_k``: its sum over the outputs' positions is the bias gradient."""
    net, layers, X, y = case(name)
    singles = of_each_sample(layers, "squared_error", X, y)
    for k, factor in enumerate(net.gradient_factors(X, y)):
        if factor is not None and layers[k].b is not None:
            want = np.array([g[k] for _, g in singles])
            got = factor.delta.reshape(len(X), -1, factor.delta.shape[-1]).sum(axis=1)
            nets.assert_close(got, want, terms=10_000)


@pytest.mark.parametrize("loss", nets.LOSSES)
@pytest.mark.parametrize("name", NETS)
def test_norms(name, loss):
    """Over all parameters, biases too, to 1e-12."""
    net, layers, X, y = case(name, "softplus", loss)
    got = net.per_sample_gradient_norms(X, y)
    want = [norm([*G, *g]) for G, g in of_each_sample(layers, loss, X, y)]
    assert got.shape == (len(X),)
    assert got.dtype == "float64"
    nets.assert_close(got, want, terms=10_000)
    each = [net.gradients(X[i : i + 1], y[i : i + 1])[1].theta for i in range(len(X))]
    nets.assert_close(got, np.linalg.norm(each, axis=1), terms=10_000)


@pytest.mark.parametrize("name", NETS)
def test_norms_in_float32(name):
    net, layers, X, y = case(name, dtype="float32")
    got = net.per_sample_gradient_norms(X, y)
    assert got.dtype == "float32"
    want = [norm([*G, *g]) for G, g in of_each_sample(layers, "squared_error", X, y)]
    nets.assert_close(got, want, "float32", 1000)


@pytest.mark.parametrize("n", [1, 16, 63, 65, 300, 1031])
def test_any_number_of_samples(n):
    net, _, X, y = case("image", n=n)
    norms = net.per_sample_gradient_norms(X, y)
    for i in (0, n // 2, n - 1):
        alone = net.gradients(X[i : i + 1], y[i : i + 1])[1].theta
        nets.assert_close(norms[i], np.linalg.norm(alone), terms=10_000)
    for factor, G in zip(net.gradient_factors(X, y), net.gradients(X, y)[1].weights, strict=True):
        if factor is not None:
            nets.assert_close(factor.dense(), G, terms=10_000)


def drawn_norms(drawn):
    net, (layer,) = images.both([drawn.spec], drawn.input_shape, scale=0.7, seed=drawn.seed)
    rng = np.random.default_rng(drawn.seed)
    X = rng.normal(size=(drawn.n, *drawn.input_shape))
    y = rng.normal(size=(drawn.n, *net.output_shape))
    singles = of_each_sample([layer], "squared_error", X, y)
    want = [norm([*G, *g]) for G, g in singles]
    nets.assert_close(net.per_sample_gradient_norms(X, y), want, terms=10_000)
    (factor,) = net.gradient_factors(X, y)
    nets.assert_close(factor.norms(), [norm(G) for G, _ in singles], terms=10_000)
    nets.assert_close(factor.per_sample(), [G[0] for G, _ in singles], terms=10_000)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_drawn_convolutions(axes, transposed):
    from hypothesis import given, settings

    settings(max_examples=40)(given(images.convolutions(axes, transposed))(drawn_norms))()


def test_labels_and_losses_of_ones_own(rng):
    net, _, X, _ = case("image", loss="softmax_cross_entropy")
    y = rng.integers(0, 3, len(X))
    nets.assert_close(
        net.per_sample_gradient_norms(X, y), net.per_sample_gradient_norms(X, np.eye(3)[y])
    )
    shape, specs = NETS["dense"]
    own = fnn.Loss(lambda y, t: ((y - t) ** 2).sum(axis=1), lambda y, t: 2 * (t - y))
    mine, built_in = (images.network(specs("tanh"), shape, loss) for loss in (own, "squared_error"))
    X, y = rng.normal(size=(6, 7)), rng.normal(size=(6, 3))
    nets.assert_close(
        mine.per_sample_gradient_norms(X, y), built_in.per_sample_gradient_norms(X, y)
    )


@pytest.mark.parametrize("frozen", [0, 2, 4])
def test_frozen_layers_do_not_count(frozen):
    shape, specs = images.NETS["image"]
    specs = specs("tanh")
    specs[frozen] = specs[frozen]._replace(options={**specs[frozen].options, "trainable": False})
    net = images.network(specs, shape)
    X, y = images.data("image")
    each = [net.gradients(X[i : i + 1], y[i : i + 1])[1].theta for i in range(len(X))]
    got = net.per_sample_gradient_norms(X, y)
    nets.assert_close(got, np.linalg.norm(each, axis=1), terms=10_000)


def test_a_sample_without_a_gradient():
    net, _, X, y = case("dense")
    y[2] = net.predict(X)[2]
    got = net.per_sample_gradient_norms(X, y)
    assert got[2] <= 1e-14
    assert np.isfinite(got).all()


def test_nothing_is_changed_and_results_are_ones_own():
    net, _, X, y = case("image")
    theta = net.theta.copy()
    first = net.gradient_factors(X, y)
    kept = [None if f is None else (f.delta.copy(), f.input.copy()) for f in first]
    norms = net.per_sample_gradient_norms(X, y)
    net.gradient_factors(2 * X, y)
    net.step(X, y, fnn.SGD(0.1))
    for factor, copies in zip(first, kept, strict=True):
        if factor is not None:
            nets.assert_same_bits(factor.delta, copies[0])
            nets.assert_same_bits(factor.input, copies[1])
            assert not np.shares_memory(factor.input, X)
    net.theta[:] = theta
    nets.assert_same_bits(net.per_sample_gradient_norms(X, y), norms)


@pytest.mark.parametrize("mode", images.MODES)
def test_same_bits_for_any_number_of_threads(mode):
    net, _, X, y = case("image", n=301, memory=mode)

    def results():
        factors = [f for f in net.gradient_factors(X, y) if f is not None]
        parts = [part for f in factors for part in (f.delta, f.input, f.norms(), f.dense())]
        return [net.per_sample_gradient_norms(X, y), *parts]

    one = results()
    for n_threads in (2, 3, 8, 16):
        net.n_threads = n_threads
        for got, want in zip(results(), one, strict=True):
            nets.assert_same_bits(got, want, f"{n_threads} threads")


def test_norms_take_little_memory():
    """One gradient of each of 300 samples would be 560 MB."""
    net = nets.network([784, 256, 128, 10], "relu", "softmax_cross_entropy")
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 784)), rng.integers(0, 10, 300)
    per_sample = 300 * net.theta.nbytes
    net.step(X[:4], y[:4], fnn.SGD(0.0))
    before = allocation_counts().bytes
    tracemalloc.start()
    net.per_sample_gradient_norms(X, y)
    factors = net.gradient_factors(X, y)
    [f.norms() for f in factors]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    used = peak + allocation_counts().bytes - before
    assert used < per_sample / 20
    widths = [784, 256, 128, 10]
    for factor, inputs, outputs in zip(factors, widths, widths[1:], strict=False):
        assert factor.nbytes == 300 * (inputs + outputs) * 8


# --- clip_norm together with the immediate update -------------------------------------------------

OPTIONS = {"sgd": {"momentum": 0.9}, "adam": {}, "adamw": {}, "rmsprop": {}, "adagrad": {}}


@pytest.mark.parametrize("mode", images.MODES)
@pytest.mark.parametrize("optimizer", OPTIONS)
@pytest.mark.parametrize("name", ["image", "decoder", "dense"])
def test_clipping_at_once_is_clipping_later(name, optimizer, mode):
    """The norm is known before any weight changes, and over all parameters together."""
    for clip in (0.3, 1e9):
        thetas = []
        for update in ("deferred", "immediate"):
            net, _, X, y = case(name, n=21, memory=mode)
            engine = fnn.optimizers.REGISTRY[optimizer](0.01, clip_norm=clip, **OPTIONS[optimizer])
            net.fit(X, y, epochs=3, batch_size=8, optimizer=engine, update=update)
            thetas.append(net.theta.copy())
        nets.assert_close(thetas[1], thetas[0], terms=10_000)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("clip", [0.01, 1.0, 1e9])
def test_clipping_at_once_follows_the_reference(clip, dtype):
    net, layers, X, y = case("volume", dtype=dtype)
    peer = reference.SGD(0.1, clip_norm=clip)
    want = peer.step(
        np.array(net.theta, float), images.flat_gradient(net, layers, "squared_error", X, y)
    )
    before = np.array(net.theta, float)
    net.fit(X, y, batch_size=6, optimizer=fnn.SGD(0.1, clip_norm=clip), update="immediate")
    moved = np.linalg.norm(want - before)
    tolerance = 1e-12 if dtype == "float64" else 1e-4
    assert np.linalg.norm(net.theta - want) <= tolerance * max(moved, np.linalg.norm(want) * 1e-3)


def test_clipping_with_sample_weights(rng):
    s = rng.uniform(0.1, 3, size=21)
    thetas = []
    for update in ("deferred", "immediate"):
        net, _, X, y = case("image", n=21)
        engine = fnn.SGD(0.1, clip_norm=0.2)
        net.fit(X, y, epochs=2, batch_size=8, optimizer=engine, update=update, sample_weight=s)
        thetas.append(net.theta.copy())
    nets.assert_close(thetas[1], thetas[0], terms=10_000)


@pytest.mark.parametrize("frozen", [0, 2, 4])
def test_clipping_counts_no_frozen_layer(frozen):
    shape, specs = images.NETS["image"]
    specs = specs("tanh")
    specs[frozen] = specs[frozen]._replace(options={**specs[frozen].options, "trainable": False})
    X, y = images.data("image")
    thetas = []
    for update in ("deferred", "immediate"):
        net = images.network(specs, shape)
        engine = fnn.SGD(0.1, clip_norm=0.2)
        net.fit(X, y, epochs=2, batch_size=4, optimizer=engine, update=update)
        thetas.append(net.theta.copy())
    nets.assert_close(thetas[1], thetas[0], terms=10_000)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("mode", images.MODES)
def test_the_plan_of_clipping_at_once(mode, n_threads):
    """Exact; and the gradient is not held: for a sample, two layers' factors, not their product."""
    net = nets.network([300] * 6, "tanh", memory=mode, n_threads=n_threads)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(16, 300)), rng.normal(size=(16, 300))
    optimizer = fnn.SGD(0.01, clip_norm=1.0)
    plan = net.memory_plan(batch_size=16, optimizer=optimizer, update="immediate")
    before = allocation_counts()
    net.fit(X, y, batch_size=16, optimizer=optimizer, update="immediate")
    after = allocation_counts()
    assert after.bytes - before.bytes == plan.workspace_bytes
    net.fit(X, y, epochs=2, batch_size=16, optimizer=optimizer, update="immediate")
    assert allocation_counts().calls == after.calls
    assert "factors" in str(plan).lower() or "delta" in str(plan)
    layer = 300 * 301 * 8
    assert plan.workspace_bytes < 3 * layer


@pytest.mark.parametrize("n", [2, 61])
def test_clipping_at_once_with_any_number_of_threads(n):
    thetas = []
    for n_threads in (1, 2, 3, 8):
        net, _, X, y = case("image", n=n, n_threads=n_threads, dtype="float32")
        engine = fnn.Adam(0.01, clip_norm=0.1)
        net.fit(X, y, epochs=2, batch_size=47, optimizer=engine, update="immediate")
        thetas.append(net.theta.copy())
    for theta in thetas[1:]:
        nets.assert_same_bits(theta, thetas[0])


def test_clipping_at_once_with_dropout():
    thetas = []
    for update in ("deferred", "immediate"):
        net, _, X, y = case("dense", n=40)
        engine = fnn.SGD(0.05, clip_norm=0.3)
        net.fit(X, y, epochs=3, batch_size=16, optimizer=engine, update=update)
        thetas.append(net.theta.copy())
    nets.assert_close(thetas[1], thetas[0], terms=10_000)
