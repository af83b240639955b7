"""Convolutions and their transposes: forward and all three gradients, over drawn configurations."""

import ctypes
import mmap

import images
import nets
import numpy as np
import pytest
from hypothesis import given, settings

import fnn_core as fnn

AXES = [1, 2, 3]


def check(specs, drawn, dtype="float64"):
    net, layers = images.both(specs, drawn.input_shape, scale=0.7, seed=drawn.seed, dtype=dtype)
    rng = np.random.default_rng(drawn.seed)
    X = rng.normal(size=(drawn.n, *drawn.input_shape)).astype(dtype)
    y = rng.normal(size=(drawn.n, *net.output_shape)).astype(dtype)
    terms = 10_000 if dtype == "float64" else X.size + y.size + net.theta.size
    images.assert_gradients_right(net, layers, X, y, dtype=dtype, terms=terms)


def under(drawn):
    """The layer with another below, whose gradients show C† of the upper."""
    channels = drawn.input_shape[-1]
    return [images.Conv(channels, 1, "tanh"), drawn.spec]


def over_all_axes(transposed, examples):
    def decorate(test):
        drawn = {d: images.convolutions(d, transposed) for d in AXES}

        @pytest.mark.parametrize("axes", AXES)
        def test_of(axes):
            settings(max_examples=examples)(given(drawn[axes])(test))()

        return test_of

    return decorate


@over_all_axes(transposed=False, examples=150)
def test_drawn_convolutions(drawn):
    check([drawn.spec], drawn)


@over_all_axes(transposed=True, examples=100)
def test_drawn_transposes(drawn):
    check([drawn.spec], drawn)


@over_all_axes(transposed=False, examples=100)
def test_convolutions_over_another_layer(drawn):
    check(under(drawn), drawn)


@over_all_axes(transposed=True, examples=60)
def test_transposes_over_another_layer(drawn):
    check(under(drawn), drawn)


@over_all_axes(transposed=False, examples=40)
def test_convolutions_in_float32(drawn):
    check(under(drawn), drawn, "float32")


@over_all_axes(transposed=True, examples=25)
def test_transposes_in_float32(drawn):
    check(under(drawn), drawn, "float32")


# --- sizes around those of vectors and tiles ------------------------------------------------------

WIDE = {  # channels and filters with odd tails; kernels that read most of a row, or one cell
    "3x3, 64 to 64": (
        (9, 11, 64),
        [images.Conv(64, 3, "tanh", padding="same", algorithm="direct")],
    ),
    "3x3, 31 to 67": ((7, 8, 31), [images.Conv(67, 3, "tanh", algorithm="direct")]),
    "1x1, 130 to 33": ((5, 6, 130), [images.Conv(33, 1)]),
    "5x5 on one channel": ((28, 28, 1), [images.Conv(6, 5, "relu"), images.AvgPool(2)]),
    "one channel to 8": ((20, 21, 1), [images.Conv(8, 3, padding="same")]),
    "one channel to one": ((9, 19, 1), [images.Conv(1, (3, 2), "tanh")]),
    "one channel, every other line": ((9, 19, 1), [images.Conv(5, 3, "tanh", stride=(2, 1))]),
    "one channel, dilated": ((15, 21, 1), [images.Conv(3, (2, 3), dilation=(2, 4), padding=1)]),
    "one channel, a long kernel": ((5, 40, 1), [images.Conv(6, (2, 17), "tanh")]),
    "one channel, in space": ((5, 6, 17, 1), [images.Conv(4, (2, 3, 5), padding="same")]),
    "few channels below many": ((12, 13, 6), [images.Conv(16, 5, "tanh")]),
    "few channels, strides": ((13, 17, 6), [images.Conv(33, 5, stride=(2, 3), padding=2)]),
    "few channels, in space": ((5, 6, 9, 3), [images.Conv(40, (2, 2, 3), "tanh")]),
    "3x3, 16 to 128": (
        (10, 9, 16),
        [images.Conv(128, 3, "tanh", padding="same", algorithm="direct")],
    ),
    "stride 2": ((17, 19, 16), [images.Conv(32, 3, "tanh", stride=2, padding=1)]),
    "depthwise": ((13, 12, 37), [images.Conv(37, 3, padding="same", groups=37)]),
    "depthwise, two each": ((9, 9, 19), [images.Conv(38, 3, groups=19, stride=2)]),
    "groups of 16": ((6, 7, 48), [images.Conv(96, 3, "tanh", groups=3)]),
    "groups of 5": ((6, 7, 20), [images.Conv(36, (2, 3), groups=4)]),
    "dilated": ((15, 14, 17), [images.Conv(18, 3, "tanh", dilation=(2, 5), padding=3)]),
    "long line": ((509, 3), [images.Conv(21, 9, "tanh", stride=3), images.Conv(4, 31)]),
    "deep": ((5, 6, 7, 9), [images.Conv(18, (2, 3, 3), "tanh", padding="same")]),
    "one pixel": ((1, 1, 40), [images.Conv(24, 3, padding=1)]),
    "whole image": ((6, 5, 18), [images.Conv(20, (6, 5), "tanh")]),
    "upwards": ((6, 5, 32), [images.ConvTranspose(17, 4, "tanh", stride=2, padding=1)]),
    "upwards, 3x3 same": (
        (7, 7, 33),
        [images.ConvTranspose(64, 3, padding="same", algorithm="direct")],
    ),
    # ReLU in the last pass of a long reduction's tiles, and after all that has no such tiles.
    "ReLU, long reductions": (
        (8, 9, 70),
        [images.Conv(48, 3, "relu", algorithm="direct"), images.Conv(33, (2, 6), "relu")],
    ),
    "ReLU, depthwise": ((9, 9, 19), [images.Conv(38, 3, "relu", groups=19)]),
    "ReLU, Winograd": ((9, 10, 35), [images.Conv(36, 3, "relu", algorithm="winograd")]),
    "ReLU, upwards": ((5, 6, 7), [images.ConvTranspose(20, 3, "relu", stride=2)]),
    "upwards, gaps": ((4, 5, 6), [images.ConvTranspose(5, 2, stride=3, padding="same")]),
    "upwards, depthwise": ((6, 6, 35), [images.ConvTranspose(35, 3, stride=2, groups=35)]),
}


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("name", WIDE)
def test_widths_around_those_of_tiles(name, dtype, rng):
    shape, specs = WIDE[name]
    specs = [images.Conv(shape[-1], 1, "tanh", groups=shape[-1]), *specs]
    net, layers = images.both(specs, shape, dtype=dtype)
    X = rng.normal(size=(3, *shape)).astype(dtype)
    y = rng.normal(size=(3, *net.output_shape)).astype(dtype)
    images.assert_gradients_right(net, layers, X, y, dtype=dtype, terms=X.size)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("channels", [4, 5, 6, 7, 9, 13])
def test_lines_of_kernels_over_several_vectors(channels, dtype, rng):
    """C† adds to whole lines of a kernel, cut off at both ends of the image."""
    for rows in range(1, 9):
        shape = (rows + 4, 6, channels)
        specs = [
            images.Conv(channels, 1, "tanh", groups=channels),
            images.Conv(10, 5, padding=(0, 2)),
        ]
        net, layers = images.both(specs, shape, dtype=dtype)
        X = rng.normal(size=(2, *shape)).astype(dtype)
        y = rng.normal(size=(2, *net.output_shape)).astype(dtype)
        images.assert_gradients_right(net, layers, X, y, dtype=dtype, terms=X.size)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 63, 64, 65, 131, 300, 1025])
def test_batches_across_blocks(n, dtype, rng):
    specs = [images.Conv(5, 3, "tanh", padding="same"), images.MaxPool(2), images.Conv(3, 2)]
    net, layers = images.both(specs, (5, 6, 2), dtype=dtype)
    X = rng.normal(size=(n, 5, 6, 2)).astype(dtype)
    y = rng.normal(size=(n, *net.output_shape)).astype(dtype)
    images.assert_gradients_right(net, layers, X, y, dtype=dtype, terms=X.size)
    images.assert_gradients_right(
        net, layers, X, y, dtype=dtype, terms=X.size, s=rng.uniform(0.1, 2, n).astype(dtype)
    )


@pytest.mark.parametrize("activation", nets.ACTIVATIONS)
@pytest.mark.parametrize("name", images.NETS)
def test_every_activation(name, activation):
    for loss in ("softmax_cross_entropy", "huber"):
        net, layers = images.case(name, activation, loss)
        X, y = images.data(name, loss)
        images.assert_gradients_right(net, layers, X, y, loss=loss)


@pytest.mark.parametrize("loss", [name for name in nets.LOSSES if "softmax" not in name])
def test_every_loss_on_images(loss, rng):
    """The loss is a sum over all outputs, whatever their shape."""
    net, layers = images.both([images.Conv(2, 3, "tanh"), images.Conv(3, 2)], (5, 6, 2), loss)
    X = rng.normal(size=(6, 5, 6, 2))
    y = nets.targets(rng, loss, 6, 18).reshape(6, 2, 3, 3)
    images.assert_gradients_right(net, layers, X, y, loss=loss)


@pytest.mark.parametrize("name", images.NETS)
@pytest.mark.parametrize("frozen", [0, 1, 2, 3, 4])
def test_frozen_layers(name, frozen):
    shape, specs = images.NETS[name]
    specs = specs("tanh")
    chosen = specs[frozen]
    if chosen.kind in ("Conv", "ConvTranspose", "Dense"):
        specs[frozen] = chosen._replace(options={**chosen.options, "trainable": False})
    net, layers = images.both(specs, shape)
    X, y = images.data(name)
    images.assert_gradients_right(net, layers, X, y)
    if net.weights[frozen] is not None:
        assert not net.gradients(X, y)[1].weights[frozen].any()
        before = net.weights[frozen].copy()
        net.fit(X, y, optimizer=fnn.AdamW(0.1, weight_decay=0.5), batch_size=3)
        assert np.array_equal(net.weights[frozen], before)


# --- shapes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape", "weight", "output"),
    [
        (fnn.Conv(6, 5), (28, 28, 1), (6, 5, 5, 1), (24, 24, 6)),
        (fnn.Conv(6, 3, stride=2), (11, 4), (6, 3, 4), (5, 6)),
        (fnn.Conv(4, 3, stride=2, padding="same"), (11, 4), (4, 3, 4), (6, 4)),
        (fnn.Conv(4, 3, stride=2, padding="same"), (12, 4), (4, 3, 4), (6, 4)),
        (fnn.Conv(4, 1, stride=3, padding="same"), (10, 2), (4, 1, 2), (4, 4)),
        (fnn.Conv(8, (1, 2, 3), groups=2), (4, 5, 6, 4), (8, 1, 2, 3, 2), (4, 4, 4, 8)),
        (fnn.Conv(8, 3, groups=8), (7, 7, 8), (8, 3, 3, 1), (5, 5, 8)),
        (fnn.Conv(2, 3, dilation=3), (7, 1), (2, 3, 1), (1, 2)),
        (fnn.Conv(2, 3, padding=(1, 0)), (7, 7, 1), (2, 3, 3, 1), (7, 5, 2)),
        (fnn.Conv(2, 3, padding=((1, 0), (0, 2))), (7, 7, 1), (2, 3, 3, 1), (6, 7, 2)),
        (fnn.ConvTranspose(3, 4, stride=2, padding=1), (7, 7, 8), (8, 4, 4, 3), (14, 14, 3)),
        (fnn.ConvTranspose(3, 2, stride=3), (5, 8), (8, 2, 3), (14, 3)),
        (fnn.ConvTranspose(3, 2, stride=3, padding="same"), (5, 8), (8, 2, 3), (15, 3)),
        (fnn.ConvTranspose(6, 3, dilation=2, groups=2), (5, 4), (4, 3, 3), (9, 6)),
        (fnn.ConvTranspose(6, 3, padding=((1, 0),)), (5, 4), (4, 3, 6), (6, 6)),
    ],
)
def test_shapes(layer, shape, weight, output):
    net = fnn.Network([layer], input_shape=shape)
    assert net.weights[0].shape == weight
    assert net.biases[0].shape == output[-1:]
    assert net.output_shape == output
    assert net.predict(np.zeros((2, *shape))).shape == (2, *output)
    assert net.theta.size == net.n_parameters == np.prod(weight) + output[-1]


def test_lists_are_as_good_as_tuples(rng):
    X = rng.normal(size=(2, 7, 8, 3))
    one, two = (
        fnn.Network(
            [fnn.Conv(4, given([2, 3]), stride=given([1, 2]), padding=given([1, 0]))],
            input_shape=(7, 8, 3),
        )
        for given in (list, tuple)
    )
    nets.assert_same_bits(one.predict(X), two.predict(X))


def test_one_axis_is_two_with_one_cell(rng):
    line, plane = (
        fnn.Network(
            [fnn.Conv(4, kernel, stride=2, padding=pad)], input_shape=shape, dtype="float64"
        )
        for kernel, pad, shape in ((3, 1, (9, 3)), ((1, 3), (0, 1), (1, 9, 3)))
    )
    plane.weights[0][...] = line.weights[0][:, None]
    X = rng.normal(size=(5, 9, 3))
    nets.assert_close(line.predict(X), plane.predict(X[:, None])[:, 0])


def test_a_convolution_of_the_whole_image_is_a_dense_layer(rng):
    conv, dense = (
        images.network(specs, (4, 5, 3))
        for specs in (
            [images.Conv(6, (4, 5), "tanh"), images.Flatten()],
            [images.Flatten(), images.Dense(6, "tanh")],
        )
    )
    dense.weights[1][...] = conv.weights[0].reshape(6, -1)
    dense.biases[1][...] = conv.biases[0]
    X, y = rng.normal(size=(7, 4, 5, 3)), rng.normal(size=(7, 6))
    nets.assert_close(conv.predict(X), dense.predict(X))
    G, want = conv.gradients(X, y)[1].weights[0], dense.gradients(X, y)[1].weights[1]
    nets.assert_close(G.reshape(6, -1), want, terms=100)


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_layouts_of_images(dtype, rng):
    """Any strides and dtypes, and nothing is written to."""
    net = images.network([images.Conv(4, 3, "tanh"), images.MaxPool(2)], (8, 7, 3), dtype=dtype)
    X = rng.integers(0, 256, size=(5, 8, 7, 3)).astype("uint8")
    want = net.predict(X.astype(dtype))
    for same in (
        X,
        np.asfortranarray(X),
        np.moveaxis(np.ascontiguousarray(np.moveaxis(X, -1, 1)), 1, -1),
        np.repeat(X, 2, axis=2)[:, :, ::2],
        X.astype(">f8"),
        X.tolist(),
    ):
        kept = np.array(same)
        nets.assert_same_bits(net.predict(same), want)
        assert np.array_equal(same, kept)


def test_initial_weights_fit_the_fans():
    """He's variance 2 / (inputs that one output sums over)."""
    net = fnn.Network([fnn.Conv(32, 5, "relu", groups=2)], input_shape=(9, 9, 16), dtype="float64")
    bound = np.sqrt(6 / (5 * 5 * 16 // 2))
    assert 0.99 * bound < np.abs(net.weights[0]).max() <= bound
    assert not net.biases[0].any()


# --- bounds ---------------------------------------------------------------------------------------


def at_the_end_of_a_page(array):
    """The array, behind which nothing may be read."""
    libc = ctypes.CDLL(None)
    size = -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = mmap.mmap(-1, size + mmap.PAGESIZE)
    there = np.frombuffer(pages, array.dtype, array.size, size - array.nbytes).reshape(array.shape)
    end = ctypes.c_void_p(there.ctypes.data + array.nbytes)
    assert libc.mprotect(end, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    there[...] = array
    return there


@pytest.mark.skipif(not hasattr(mmap, "MAP_PRIVATE"), reason="needs mprotect")
@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("width", [8, 9, 12, 17, 23])
def test_nothing_is_read_behind_an_image(width, channels, dtype, rng):
    X = at_the_end_of_a_page(rng.normal(size=(2, 4, width, channels)).astype(dtype))
    for layer in (fnn.Conv(1, 3), fnn.Conv(3, (2, 5)), fnn.ConvTranspose(1, 3), fnn.MaxPool(2)):
        net = fnn.Network([layer], input_shape=X.shape[1:], dtype=dtype, n_threads=1)
        net.gradients(X, np.zeros((2, *net.output_shape), dtype))
