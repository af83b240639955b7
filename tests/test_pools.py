"""Pools and Flatten: linear in x at the selection that the forward pass makes."""

import itertools

import images
import nets
import numpy as np
import pytest
import reference
from hypothesis import given, settings

import fnn_core as fnn

KINDS = ["AvgPool", "MaxPool"]


def check(drawn, dtype="float64"):
    """A convolution below it, in which every cell counts on its own, shows the adjoint."""
    specs = [images.Conv(drawn.input_shape[-1], 3, "tanh", padding="same"), drawn.spec]
    net, layers = images.both(specs, drawn.input_shape, seed=drawn.seed, dtype=dtype)
    rng = np.random.default_rng(drawn.seed)
    X = rng.normal(size=(drawn.n, *drawn.input_shape)).astype(dtype)
    y = rng.normal(size=(drawn.n, *net.output_shape)).astype(dtype)
    images.assert_gradients_right(net, layers, X, y, dtype=dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_drawn_pools(axes, kind):
    @given(images.pools(kind, axes))
    @settings(max_examples=100)
    def run(drawn):
        check(drawn)

    run()


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_pools_in_float32(kind):
    @given(images.pools(kind, 2))
    @settings(max_examples=25)
    def run(drawn):
        check(drawn, "float32")

    run()


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize(
    "shape", [(1, 1), (7, 3), (1, 1, 5), (5, 7, 17), (2, 3, 5, 4), (31, 33, 2)]
)
def test_global_average(shape, dtype, rng):
    specs = [images.Conv(shape[-1], 1, "tanh"), images.GlobalAvgPool(), images.Dense(3)]
    net, layers = images.both(specs, shape, dtype=dtype)
    X, y = rng.normal(size=(5, *shape)).astype(dtype), rng.normal(size=(5, 3)).astype(dtype)
    images.assert_gradients_right(net, layers, X, y, dtype=dtype)
    alone = fnn.Network([fnn.GlobalAvgPool()], input_shape=shape, dtype=dtype)
    assert alone.output_shape == shape[-1:]
    nets.assert_close(alone.predict(X), X.mean(axis=tuple(range(1, X.ndim - 1))), dtype, X[0].size)


@pytest.mark.parametrize("shape", [(5,), (3, 2), (4, 3, 5), (2, 3, 4, 2)])
def test_flatten_is_row_major(shape, rng):
    net = fnn.Network([fnn.Flatten()], input_shape=shape, dtype="float64")
    X = rng.normal(size=(5, *shape))
    nets.assert_same_bits(net.predict(X), X.reshape(5, -1))
    assert net.output_shape == (int(np.prod(shape)),)
    specs = [images.Flatten(), images.Dense(3)]
    net, layers = images.both(specs, shape)
    images.assert_gradients_right(net, layers, X, rng.normal(size=(5, 3)))


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_shapes_and_exact_maxima(dtype, rng):
    X = rng.normal(size=(3, 7, 8, 5)).astype(dtype)
    for args, output in (
        ((2,), (3, 4, 5)),
        ((3,), (2, 2, 5)),
        ((3, 1), (5, 6, 5)),
        ((2, 3), (2, 3, 5)),
        (((7, 8),), (1, 1, 5)),
        (((1, 3), (2, 1)), (4, 6, 5)),
        ((1, 4), (2, 2, 5)),
    ):
        net = fnn.Network([fnn.MaxPool(*args)], input_shape=(7, 8, 5), dtype=dtype)
        assert net.output_shape == output
        layers = images.mirror(net, [images.MaxPool(*args)])
        assert np.array_equal(net.predict(X), reference.predict(layers, X))
        net = fnn.Network([fnn.AvgPool(*args)], input_shape=(7, 8, 5), dtype=dtype)
        assert net.output_shape == output
        layers = images.mirror(net, [images.AvgPool(*args)])
        nets.assert_close(net.predict(X), reference.predict(layers, X), dtype, 56)


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_pixels_of_every_width(dtype, rng):
    """Narrow pixels are written as whole vectors, or some windows at once."""
    for channels, (height, width) in itertools.product(range(1, 20), ((6, 8), (7, 11), (2, 3))):
        net = fnn.Network([fnn.MaxPool(2)], input_shape=(height, width, channels), dtype=dtype)
        rows, columns = height // 2, width // 2
        X = rng.normal(size=(3, height, width, channels)).astype(dtype)
        H = rng.normal(size=(3, rows, columns, channels)).astype(dtype)
        windows = X[:, : 2 * rows, : 2 * columns].reshape(3, rows, 2, columns, 2, channels)
        greatest = windows.max(axis=(2, 4), keepdims=True)
        nets.assert_same_bits(net.predict(X), greatest[:, :, 0, :, 0])
        expected = np.zeros_like(X)
        expected[:, : 2 * rows, : 2 * columns] = np.where(
            windows == greatest, H[:, :, None, :, None], 0
        ).reshape(3, 2 * rows, 2 * columns, channels)
        nets.assert_same_bits(net.vjp(X, H)[1], expected)


@pytest.mark.parametrize("mode", nets.MODES)
@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("args", [(2,), (3,), (3, 1), (2, 3), ((2, 3), (1, 2))])
def test_of_equals_the_first_takes_the_whole_slope(args, dtype, mode, rng):
    """Whole numbers, so that ties are exact; the kernel below sees where the slope went."""
    specs = [images.Conv(4, 2, bias=False), images.MaxPool(*args)]
    net = images.network(specs, (9, 8, 2), dtype=dtype, memory=mode)
    net.theta[:] = rng.integers(-1, 2, size=net.theta.size)
    layers = images.mirror(net, specs)
    X = rng.integers(-1, 2, size=(6, 9, 8, 2)).astype(dtype)
    y = rng.normal(size=(6, *net.output_shape)).astype(dtype)
    pooled = reference.forward(layers, X.astype(float))[0][1]
    assert len(np.unique(pooled)) < pooled.size / 50, "ties are everywhere"
    images.assert_gradients_right(net, layers, X, y, dtype=dtype, terms=1000)


def test_overlapping_windows_add_up(rng):
    """One large cell takes the slopes of all windows that see it."""
    specs = [images.Conv(1, 3, bias=False, padding="same"), images.MaxPool(3, 1)]
    net = images.network(specs, (5, 5, 1))
    net.weights[0][...] = 0
    net.weights[0][0, 1, 1, 0] = 1
    X = rng.uniform(size=(1, 5, 5, 1))
    X[0, 2, 2, 0] = 10
    _, grads = net.gradients(X, np.zeros((1, 3, 3, 1)))
    nets.assert_close(grads.weights[0][0, 1, 1, 0], 9 * 2 * 10 * 10, terms=9)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("kind", [*KINDS, "GlobalAvgPool"])
def test_nan_goes_through(kind, dtype):
    """0 · ∞ below gives a NaN wherever it lies in a window, and only there."""
    for channels, size in itertools.product((1, 2, 4, 6, 16, 19), (2, 3)):
        args = () if kind == "GlobalAvgPool" else (size,)
        layers = [fnn.Conv(channels, 1, groups=channels, bias=False), getattr(fnn, kind)(*args)]
        net = fnn.Network(layers, input_shape=(2 * size, 2 * size, channels), dtype=dtype)
        net.theta[:] = np.inf
        for i in range(size**2):
            X = np.ones((1, 2 * size, 2 * size, channels), dtype)
            X[0, i // size, size + i % size, channels - 1] = 0
            got = np.isnan(net.predict(X))
            assert got.sum() == 1
            assert got.ravel()[channels - 1 if kind == "GlobalAvgPool" else 2 * channels - 1]


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_the_maximum_of_infinities(dtype):
    net = fnn.Network(
        [fnn.Conv(3, 1, groups=3, bias=False), fnn.MaxPool(2)], input_shape=(2, 2, 3), dtype=dtype
    )
    net.theta[:] = np.inf
    got = net.predict(-np.ones((1, 2, 2, 3), dtype))
    assert np.array_equal(got, np.full((1, 1, 1, 3), -np.inf, dtype))


def test_a_net_of_pools_alone(rng):
    net = fnn.Network(
        [fnn.AvgPool(2), fnn.MaxPool(2), fnn.Flatten()], input_shape=(8, 8, 3), dtype="float64"
    )
    X = rng.normal(size=(4, 8, 8, 3))
    want = X.reshape(4, 4, 2, 4, 2, 3).mean(axis=(2, 4))
    want = want.reshape(4, 2, 2, 2, 2, 3).max(axis=(2, 4)).reshape(4, -1)
    nets.assert_close(net.predict(X), want)
    assert net.theta.size == net.n_parameters == 0
    value, grads = net.gradients(X, np.zeros((4, 12)))
    nets.assert_close(value, (want**2).sum(axis=1).mean())
    assert grads.theta.size == 0


@pytest.mark.parametrize("mode", nets.MODES)
@pytest.mark.parametrize("activation", ["relu", "tanh", "softplus"])
def test_pools_after_pools_and_dropout(activation, mode, rng):
    """Whatever follows an activation without a weight of its own."""
    specs = [
        images.Conv(5, 3, activation),
        images.MaxPool(2, 1),
        images.Dropout(0.0),
        images.AvgPool(2),
        images.MaxPool(2),
        images.Flatten(),
        images.Dropout(0.0),
        images.Dense(3),
    ]
    net, layers = images.both(specs, (11, 12, 2), memory=mode)
    X, y = rng.normal(size=(6, 11, 12, 2)), rng.normal(size=(6, 3))
    images.assert_gradients_right(net, layers, X, y)
    want = images.flat_gradient(net, layers, "squared_error", X, y)
    before = net.theta.copy()
    net.step(X, y, fnn.SGD(0.01))
    nets.assert_close((before - net.theta) / 0.01, want, c=1e6)
