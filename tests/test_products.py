"""The three products of a dense layer, by the engine's own kernel and by BLAS, at every size."""

import itertools

import nets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fnn_core as fnn

GEMMS = ["native", "blas"]

# On both sides of all that the kernels cut by, for vectors of 16 to 64 bytes: runs of a reduction,
# groups of panels, tiles and blocks of rows; and strides that fall into few cache sets.
LENGTHS = [1, 5, 127, 128, 129, 170, 171, 255, 256, 257, 259, 511, 512, 515, 1024]
COLUMNS = [*range(1, 6), 7, 8, 9, 10, 15, 16, 17, 18, 19, 24, 33, 36, 48, 49, 52, 63, 64, 65, 100]
COLUMNS += [127, 128, 129, 195, 200, 256]
ROWS = [1, 4, 5, 6, 11, 12, 13, 23, 24, 48, 49, 64, 65, 255, 256, 257, 300]


def layer(inputs, outputs, dtype, gemm="native", n_threads=1):
    """One layer, its parameters all different."""
    net = fnn.Network(
        [fnn.Dense(outputs)], inputs, dtype=dtype, n_threads=n_threads, gemm=gemm, seed=None
    )
    net.theta[:] = np.random.default_rng(inputs).normal(size=net.theta.size)
    assert net.sessions.inference().uses_blas == (gemm == "blas")
    return net


def drawn(rows, inputs, outputs, dtype):
    rng = np.random.default_rng([rows, inputs, outputs])
    return (rng.normal(size=(rows, width)).astype(dtype) for width in (inputs, outputs))


def assert_product(got, left, right, addend=0.0, *, dtype, what):
    """``left @ right + addend``, each entry to a few roundings of its row's and column's norms."""
    left, right = np.asarray(left, float), np.asarray(right, float)
    scale = np.outer(np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=0))
    error = np.abs(np.asarray(got, float) - (left @ right + addend))
    worst = np.max(error / (scale + np.abs(addend)))
    assert worst <= 16 * np.finfo(dtype).eps, f"{what}: {worst:.1e} at {got.shape}"


def weight_of(net, vector):
    """The part of a vector that lies as the weight does, in its shape."""
    return vector[nets.places_in_theta(net)[0][0]]


def check(rows, inputs, outputs, dtype, gemm, n_threads=1):
    """W x + b, Wᵀ h, h xᵀ and the sum of h."""
    net = layer(inputs, outputs, dtype, gemm, n_threads)
    X, H = drawn(rows, inputs, outputs, dtype)
    W, b = (np.asarray(p, float) for p in (net.weights[0], net.biases[0]))
    what = f"{rows} x {inputs} x {outputs}"
    assert_product(net.predict(X), X, W.T, b, dtype=dtype, what=f"{what}: W x + b")
    dtheta, dX = net.vjp(X, H)
    assert_product(dX, H, W, dtype=dtype, what=f"{what}: Wᵀ h")
    assert_product(weight_of(net, dtheta), H.T, X, dtype=dtype, what=f"{what}: h xᵀ")
    g = dtheta[nets.places_in_theta(net)[1][0]]
    assert_product(g[:, None], H.T, np.ones((rows, 1)), dtype=dtype, what=f"{what}: sum of h")


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("gemm", GEMMS)
@pytest.mark.parametrize("over", ["inputs", "outputs", "rows"])
def test_every_length_and_every_width(over, gemm, dtype):
    """The reduction of W x is over inputs, that of Wᵀ h over outputs, that of h xᵀ over samples."""
    others = itertools.cycle(ROWS)
    for length, columns in itertools.product(LENGTHS, COLUMNS):
        sizes = {
            "inputs": (next(others), length, columns),
            "outputs": (next(others), columns, length),
            "rows": (length, next(others), columns),
        }
        check(*sizes[over], dtype, gemm)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("gemm", GEMMS)
def test_every_height_and_every_width(gemm, dtype):
    lengths = itertools.cycle([3, 64, 129, 257, 512])
    for turn, (rows, columns) in enumerate(itertools.product(ROWS, COLUMNS)):
        sizes = (columns, next(lengths))
        check(rows, *(sizes if turn // 5 % 2 else sizes[::-1]), dtype, gemm)


sizes = st.one_of(
    st.integers(1, 40), st.integers(1, 600), st.sampled_from([128, 256, 512, 768, 1024])
)


@given(sizes, sizes, sizes, st.sampled_from(nets.DTYPES), st.sampled_from(GEMMS), st.integers(1, 3))
@settings(max_examples=80)
def test_drawn_sizes(rows, inputs, outputs, dtype, gemm, n_threads):
    check(rows, inputs, outputs, dtype, gemm, n_threads)


LARGE = ["BLOCK_ROWS", "LAYER_ROWS", "BACKWARD_ROWS", "FEATURES"]


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("gemm", GEMMS)
@pytest.mark.parametrize("rows", [257, 512, 513, 777])
def test_tasks_larger_than_a_block(rows, gemm, dtype, monkeypatch):
    """All samples and features in one product: several blocks of rows, several runs of samples.

    The last task of 530 features has 258 of them: packed, two in its second block, which is lower
    than a tile; so is the second block of 257 or 513 rows.
    """
    for name in LARGE:
        monkeypatch.setattr(f"fnn_core.cutting.{name}", 1024)
    for inputs, outputs in [(257, 17), (600, 128), (512, 256), (300, 515), (530, 521)]:
        check(rows, inputs, outputs, dtype, gemm)
        net = layer(inputs, outputs, dtype, gemm)
        X, H = drawn(rows, inputs, outputs, dtype)
        delta, _ = net.gradient_factors(X, H)[0]  # 2 (F − h)
        W, b = (np.asarray(p, float) for p in (net.weights[0], net.biases[0]))
        assert_product(delta / 2, X, W.T, b - H, dtype=dtype, what="F − h")


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("rows", [1, 23, 24, 300])
def test_rows_that_lie_pages_apart(rows, dtype):
    """They are copied by the tile that first reads them, and fetched while others run.

    Or, where they lie whole pages apart, copied while others run.
    """
    for inputs, outputs in [(30, 2068), (300, 2048), (600, 2048), (2068, 270)]:
        check(rows, inputs, outputs, dtype, "native")
    check(rows, 600, 2048, dtype, "native", n_threads=3)


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_few_inputs_and_few_outputs(dtype):
    """Going forward from few inputs, and back from few outputs, there are no tiles."""
    others = itertools.cycle([7, 8, 9, 33, 200])
    for few, columns in itertools.product(range(2, 19), [1, 4, 7, 8, 9, 16, 17, 31, 32, 33, 100]):
        check(next(others), few, columns, dtype, "native")
        check(next(others), columns, few, dtype, "native")


# --- bits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("rows", [20, 300, 900])
def test_bits_do_not_depend_on_how_many_outputs(rows, dtype):
    """Nor on whether a gradient's columns fill a vector, or are reckoned by way of their transpose.

    900 samples are summed in two parts, the second of which, too, takes more than one run.
    """
    X, H = drawn(rows, 64, 16, dtype)
    whole = layer(64, 16, dtype)
    want = weight_of(whole, whole.vjp(X, H)[0])
    for outputs in (1, 5, 10, 13):
        part = layer(64, outputs, dtype)
        got = weight_of(part, part.vjp(X, np.ascontiguousarray(H[:, :outputs]))[0])
        assert np.array_equal(got, want[:outputs]), outputs


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [(3, 7), (16, 12), (9, 35), (64, 1), (129, 65), (300, 200), (512, 128), (70, 519)],
)
def test_bits_do_not_depend_on_how_many_samples(inputs, outputs, dtype):
    """Going back, from five on: fewer are inner products."""
    net = layer(inputs, outputs, dtype)
    X, H = drawn(301, inputs, outputs, dtype)
    F, dX = net.predict(X), net.vjp(X, H)[1]
    for n in (1, 2, 3, 4):
        nets.assert_same_bits(net.predict(X[7 : 7 + n]), F[7 : 7 + n], f"{n}: F")
    for n in (5, 6, 12, 23, 24, 64, 70, 256, 262):
        for first in (0, 1, 30):
            some = slice(first, first + n)
            nets.assert_same_bits(net.predict(X[some]), F[some], f"{n} from {first}: F")
            got = net.vjp(X[some], H[some])[1]
            nets.assert_same_bits(got, dX[some], f"{n} from {first}: dX")


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("rows", [5, 70, 300, 512])
def test_bits_do_not_depend_on_how_many_units(rows, dtype):
    """An entry is summed in one order, in whatever tile it lies."""
    inputs, outputs = 300, 200
    X, H = drawn(rows, inputs, outputs, dtype)
    whole = layer(inputs, outputs, dtype)
    F, (dtheta, dX) = whole.predict(X), whole.vjp(X, H)
    G = weight_of(whole, dtheta)
    for fewer in (2, 3, 5, 8, 17, 37, 64, 66, 100, 129, 199):
        net = layer(inputs, fewer, dtype)
        net.weights[0][...], net.biases[0][...] = whole.weights[0][:fewer], whole.biases[0][:fewer]
        nets.assert_same_bits(net.predict(X), np.ascontiguousarray(F[:, :fewer]), "F")
        got = weight_of(net, net.vjp(X, np.ascontiguousarray(H[:, :fewer]))[0])
        nets.assert_same_bits(got, G[:fewer], f"G of {fewer} outputs")
        net = layer(fewer, outputs, dtype)
        net.weights[0][...] = whole.weights[0][:, :fewer]
        dtheta, got = net.vjp(np.ascontiguousarray(X[:, :fewer]), H)
        nets.assert_same_bits(got, np.ascontiguousarray(dX[:, :fewer]), f"dX of {fewer} inputs")
        nets.assert_same_bits(
            weight_of(net, dtheta), np.ascontiguousarray(G[:, :fewer]), f"G of {fewer} inputs"
        )
