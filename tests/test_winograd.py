"""Convolution after Winograd: its three maps, what it rounds, and where it is chosen."""

import images
import nets
import numpy as np
import pytest
import reference_operators
from test_errors_descriptions import says

import fnn_core as fnn

WIDE = {  # several blocks of tiles, panels and runs of a reduction; odd sizes everywhere
    "one tile": ((2, 2, 16), 16, "same"),
    "one pixel": ((1, 1, 40), 33, "same"),
    "odd": ((7, 9, 31), 67, "same"),
    "no padding": ((12, 11, 33), 40, "valid"),
    "one line": ((1, 50, 16), 17, "same"),
    "several blocks": ((30, 31, 24), 24, "same"),
    "many channels": ((6, 5, 530), 35, "same"),
    "many filters": ((5, 6, 19), 300, ((2, 1), (0, 2))),
    "more zeros than the kernel reaches": ((4, 3, 17), 18, 4),
}


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("kind", [images.Conv, images.ConvTranspose])
@pytest.mark.parametrize("name", WIDE)
def test_sizes_around_those_of_tiles(name, kind, dtype, rng):
    shape, filters, padding = WIDE[name]
    if kind is images.ConvTranspose and padding in (4, "same"):
        padding = 1 if min(shape[:-1]) > 1 else 0
    upper = kind(filters, 3, "tanh", padding=padding, algorithm="winograd")
    specs = [images.Conv(shape[-1], 1, "tanh", groups=shape[-1]), upper]
    net, layers = images.both(specs, shape, dtype=dtype)
    X = rng.normal(size=(3, *shape)).astype(dtype)
    y = rng.normal(size=(3, *net.output_shape)).astype(dtype)
    images.assert_gradients_right(net, layers, X, y, dtype=dtype, terms=X.size)


def network(algorithm, shape=(13, 12, 24), filters=32, **options):
    layer = fnn.Conv(filters, 3, "tanh", padding="same", algorithm=algorithm)
    return fnn.Network([layer], input_shape=shape, **{"seed": 1, "dtype": "float64", **options})


def test_tangents_and_second_derivatives(rng):
    specs = [images.Conv(17, 3, "tanh", padding="same", algorithm="winograd")]
    net, layers = images.both(specs, (7, 6, 9))
    X, y = rng.normal(size=(3, 7, 6, 9)), rng.normal(size=(3, 7, 6, 17))
    v, dX = rng.normal(size=net.theta.size), rng.normal(size=X.shape)
    want = reference_operators.tangent(layers, X, *images.split(net, v), dX)[3][-1]
    nets.assert_close(net.jvp(X, v, dX)[1], want, terms=10_000)
    want = images.second_derivative(net, layers, "squared_error", X, y, directions=v[:, None])
    nets.assert_close(net.hessian(X, y) @ v, want[:, 0], terms=10_000)


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_bits_depend_on_neither_threads_nor_the_rest_of_the_batch(dtype, rng):
    X = rng.normal(size=(40, 13, 12, 24)).astype(dtype)
    y = rng.normal(size=(40, 13, 12, 32)).astype(dtype)
    one, three = (network("winograd", dtype=dtype, n_threads=n) for n in (1, 3))
    assert np.array_equal(one.predict(X), three.predict(X))
    assert np.array_equal(one.predict(X)[7:8], one.predict(X[7:8]))
    assert np.array_equal(one.gradients(X, y)[1].theta, three.gradients(X, y)[1].theta)


# --- rounding -------------------------------------------------------------------------------------


def errors(algorithm, X, W, h):
    """Root mean squares of what C and C†† are off in float32."""
    specs = [images.Conv(len(W), 3, padding="same", bias=False, algorithm=algorithm)]
    net = images.network(specs, X.shape[1:], dtype="float32")
    net.weights[0][...] = W
    (layer,) = images.mirror(net, specs)
    got = net.predict(X), images.split(net, net.vjp(X, h)[0])[0][0]
    want = (
        layer.preactivation(X.astype(float)),
        layer.adjoint_weight(X.astype(float), h.astype(float)),
    )
    return [
        np.sqrt(np.mean((low.astype(float) - high) ** 2))
        for low, high in zip(got, want, strict=True)
    ]


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 16, 64, 256])
def test_rounds_at_most_three_times_as_much_as_the_direct_sum(channels, positive, rng):
    draw = rng.random if positive else rng.normal
    X, W, h = (
        draw(size=size).astype("float32")
        for size in ((4, 12, 12, channels), (32, 3, 3, channels), (4, 12, 12, 32))
    )
    for mine, direct in zip(errors("winograd", X, W, h), errors("direct", X, W, h), strict=True):
        assert mine <= 3 * direct


# --- where it is chosen ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "filters", "chosen"),
    [
        ((32, 32, 32), 32, "winograd"),
        ((8, 8, 256), 256, "winograd"),
        ((16, 16, 16), 16, "winograd"),
        ((32, 32, 3), 32, "direct"),
        ((16, 16, 8), 8, "direct"),
        ((1, 1, 64), 64, "direct"),
    ],
)
def test_auto_takes_the_one_that_was_measured_to_be_quicker(shape, filters, chosen, rng):
    X = rng.normal(size=(2, *shape)).astype("float32")
    of = {
        name: network(name, shape, filters, dtype="float32").predict(X)
        for name in ("auto", "direct", "winograd")
    }
    assert np.array_equal(of["auto"], of[chosen])
    assert not np.array_equal(of["direct"], of["winograd"])


def test_algorithm_is_kept_in_files(tmp_path, rng):
    net = network("direct")
    net.save(tmp_path / "net")
    assert fnn.load(tmp_path / "net").layers[0] == net.layers[0]


@pytest.mark.parametrize("kind", [fnn.Conv, fnn.ConvTranspose])
def test_errors(kind):
    says(lambda: kind(4, 3, algorithm="fft"), "algorithm", "fft", "auto", "direct", "winograd")
    for wrong, shape in [
        ({"kernel_size": 5}, (8, 8, 2)),
        ({"kernel_size": (3, 1)}, (8, 8, 2)),
        ({"stride": 2}, (8, 8, 2)),
        ({"dilation": (1, 2)}, (8, 8, 2)),
        ({"groups": 2}, (8, 8, 2)),
        ({}, (8, 2)),
        ({}, (8, 8, 8, 2)),
    ]:
        layer = kind(4, **{"kernel_size": 3, "algorithm": "winograd", **wrong})
        says(lambda: fnn.Network([layer], input_shape=shape), "layers[0]", "algorithm", "winograd")  # noqa: B023
