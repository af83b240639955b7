"""Theorem 7: the engine's gradients against Algorithm 2 in NumPy, and against Definition 1."""

import copy
import pickle

import nets
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import fnn_core as fnn

WIDTHS = [  # depth 1 to 6; ones, primes, and odd tails on both sides of a vector and of a tile
    [3, 1],
    [17, 31, 5],
    [1, 8, 1, 3],
    [13, 16, 33, 7, 2],
    [5, 23, 3, 64, 11, 4],
    [70, 67, 12, 29, 47, 9, 6],
]


def check(net, names, loss, X, y, s=None, trainable=None, dtype="float64"):
    """Every gradient of ``net`` against the reference; X and y as the net's dtype holds them."""
    value, grads = net.gradients(X, y, sample_weight=s)
    layers = nets.mirror(net, names, trainable)
    want, G, g = reference.gradients(layers, loss, X, y, s)
    terms = len(X) * max(net.theta.size // len(names), 1)
    if dtype == "float64":
        terms *= 100  # through a layer of one unit much cancels; 1e-12 bounds it anyway
    assert isinstance(value, float)
    nets.assert_close(value, want, dtype, len(X), what="loss")
    for k in range(len(names)):
        nets.assert_close(grads.weights[k], G[k], dtype, terms, what=f"G_{k + 1}")
        if g[k] is None:
            assert grads.biases[k] is None
        else:
            # As one more row of G_k, the bias being the weight of a constant 1: alone, its terms
            # may cancel.
            assert grads.biases[k].shape == g[k].shape
            got, expected = np.append(grads.weights[k], grads.biases[k]), np.append(G[k], g[k])
            nets.assert_close(got, expected, dtype, terms, what=f"G_{k + 1}, g_{k + 1}")
    nets.assert_close(grads.theta, nets.theta_of(G, g, net), dtype, terms, what="theta")
    nets.assert_close(net.loss(X, y, sample_weight=s), want, dtype, len(X), what="net.loss")


@pytest.mark.parametrize("loss", nets.LOSSES)
@pytest.mark.parametrize("activation", nets.ACTIVATIONS)
def test_every_activation_and_loss_at_every_depth(activation, loss, rng):
    for n, widths in zip((1, 7, 16, 5, 33, 12), WIDTHS, strict=True):
        net = nets.network(widths, activation, loss)
        X, y = rng.normal(size=(n, widths[0])), nets.targets(rng, loss, n, widths[-1])
        names = [activation] * (len(widths) - 2) + ["identity"]
        check(net, names, loss, X, y)
        check(net, names, loss, X, y, s=rng.uniform(0.1, 2, n))


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("memory", ["recompute", "store", "reuse", "checkpoint"])
def test_rows_that_share_sets_of_the_cache(memory, dtype, rng):
    """What is kept of layers whose rows take multiples of 1024 bytes lies apart."""
    widths, n = [6, 512, 256, 512, 256, 3], 70
    net = nets.network(widths, "sigmoid", dtype=dtype, memory=memory)
    shapes = [buffer.shape for buffer in net.memory_plan(n, optimizer="sgd").buffers]
    assert (n, 512 + 64 // net.dtype.itemsize) in shapes
    X, y = rng.normal(size=(n, 6)).astype(dtype), rng.normal(size=(n, 3)).astype(dtype)
    names = ["sigmoid"] * 4 + ["identity"]
    check(net, names, "squared_error", X, y, dtype=dtype)
    layers = nets.mirror(net, names)
    _, T = net.vjp(X, y)
    expected = reference.backward(layers, *reference.forward(layers, X), y)[2]
    nets.assert_close(T, expected, dtype, 512)
    nets.assert_close(net.predict(X), reference.predict(layers, X), dtype, 512)


@pytest.mark.parametrize("loss", nets.LOSSES)
@pytest.mark.parametrize("activation", nets.ACTIVATIONS)
def test_float32(activation, loss, rng):
    widths, n = WIDTHS[3], 19
    net = nets.network(widths, activation, loss, dtype="float32")
    X = rng.normal(size=(n, widths[0])).astype("float32")
    y = nets.targets(rng, loss, n, widths[-1]).astype("float32")
    names = [activation] * (len(widths) - 2) + ["identity"]
    check(net, names, loss, X, y, dtype="float32")
    check(net, names, loss, X, y, s=rng.uniform(0.1, 2, n).astype("float32"), dtype="float32")


@pytest.mark.parametrize("activation", nets.ACTIVATIONS)
def test_activation_at_the_output(activation, rng):
    net = nets.network([7, 11, 5], "tanh", last=activation)
    check(
        net, ["tanh", activation], "squared_error", rng.normal(size=(9, 7)), rng.normal(size=(9, 5))
    )


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_labels_are_one_hot_probabilities(dtype, rng):
    net = nets.network([7, 11, 5], "relu", "softmax_cross_entropy", dtype=dtype)
    X, y = rng.normal(size=(23, 7)).astype(dtype), rng.integers(0, 5, 23)
    check(net, ["relu", "identity"], "softmax_cross_entropy", X, y, dtype=dtype)
    same = np.eye(5, dtype=dtype)[y]
    nets.assert_close(net.gradients(X, y)[1].theta, net.gradients(X, same)[1].theta, dtype, 23)


@pytest.mark.parametrize("bias", [[True, False, True], [False, True, False], [False] * 3])
def test_without_bias(bias, rng):
    net = nets.network([7, 11, 5, 3], "tanh", bias=bias)
    assert [b is not None for b in net.biases] == bias
    X, y = rng.normal(size=(9, 7)), rng.normal(size=(9, 3))
    check(net, ["tanh", "tanh", "identity"], "squared_error", X, y)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_layer_has_zero_gradient_and_the_others_theirs(frozen, rng):
    trainable = [k != frozen for k in range(3)]
    net = nets.network([7, 11, 5, 3], "tanh", trainable=trainable)
    X, y = rng.normal(size=(9, 7)), rng.normal(size=(9, 3))
    check(net, ["tanh", "tanh", "identity"], "squared_error", X, y, trainable=trainable)
    _, grads = net.gradients(X, y)
    assert not grads.weights[frozen].any()
    assert not grads.biases[frozen].any()


shapes = st.lists(st.integers(1, 70), min_size=2, max_size=7)


@given(
    widths=shapes,
    n=st.integers(1, 70),
    activation=st.sampled_from(nets.ACTIVATIONS),
    loss=st.sampled_from(nets.LOSSES),
    mode=st.sampled_from(["recompute", "store", "auto"]),
    seed=st.integers(0, 2**16),
)
def test_drawn_nets(widths, n, activation, loss, mode, seed):
    rng = np.random.default_rng(seed)
    net = nets.network(widths, activation, loss, memory=mode, seed=seed)
    X, y = rng.normal(size=(n, widths[0])), nets.targets(rng, loss, n, widths[-1])
    check(net, [activation] * (len(widths) - 2) + ["identity"], loss, X, y)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("n", [1, 15, 16, 17, 129, 1031, 2100])
def test_batches_across_blocks(n, dtype, rng):
    net = nets.network([19, 37, 8], "tanh", dtype=dtype)
    X, y = rng.normal(size=(n, 19)).astype(dtype), rng.normal(size=(n, 8)).astype(dtype)
    check(net, ["tanh", "identity"], "squared_error", X, y, dtype=dtype)


@pytest.mark.parametrize("gemm", ["native", "blas"])
@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("mode", nets.MODES)
@pytest.mark.parametrize(
    ("n", "activation"),
    [(3, "tanh"), (67, "tanh"), (300, "tanh"), (67, "sigmoid"), (67, "relu"), (777, "relu")],
)
def test_wide_layers(n, activation, mode, dtype, gemm, rng):
    """Wide enough for several panels; activations that tiles know, by blocks."""
    net = nets.network(
        [61, 523, 521, 10], activation, "softmax_cross_entropy", dtype=dtype, memory=mode, gemm=gemm
    )
    X, y = rng.normal(size=(n, 61)).astype(dtype), rng.integers(0, 10, n)
    names = [activation, activation, "identity"]
    check(net, names, "softmax_cross_entropy", X, y, dtype=dtype)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("n", [18, 67, 256])
def test_layers_of_middling_width(n, activation, dtype, rng):
    """Runs long enough for tiles that end by halves, there and back; two, the last with a finish.

    After 300 units there are few columns behind the last whole panel.
    """
    for sizes in ([61, 83, 67, 10], [300, 99, 50, 3], [70, 300, 67, 2]):
        net = nets.network(sizes, activation, dtype=dtype, gemm="native")
        X, y = (rng.normal(size=(n, width)).astype(dtype) for width in (sizes[0], sizes[-1]))
        check(net, [activation, activation, "identity"], "squared_error", X, y, dtype=dtype)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("few", [1, 2, 5, 9, 10, 11, 12, 16])
def test_between_few_inputs_and_few_outputs(few, activation, dtype, rng):
    """Products too short for tiles finish their part of C as they do.

    Few columns are formed as rows, or with samples in the lanes.
    """
    for units, n in [(7, 9), (16, 8), (21, 9), (37, 130), (18, 33), (51, 16), (36, 47), (17, 71)]:
        net = nets.network([few, units, few], activation, dtype=dtype)
        X, y = rng.normal(size=(n, few)).astype(dtype), rng.normal(size=(n, few)).astype(dtype)
        check(net, [activation, "identity"], "squared_error", X, y, dtype=dtype)


# --- sample weights -------------------------------------------------------------------------------


def test_only_the_proportions_of_sample_weights_matter(rng):
    net = nets.network([5, 9, 2])
    X, y, s = rng.normal(size=(8, 5)), rng.normal(size=(8, 2)), rng.uniform(size=8)
    one, two = (net.gradients(X, y, sample_weight=w) for w in (s, 1000 * s))
    nets.assert_close(one[0], two[0])
    nets.assert_close(one[1].theta, two[1].theta, terms=8)


def test_whole_sample_weights_repeat_samples(rng):
    net = nets.network([5, 9, 2])
    X, y, s = rng.normal(size=(6, 5)), rng.normal(size=(6, 2)), np.array([0, 1, 2, 0, 3, 1])
    weighted = net.gradients(X, y, sample_weight=s)
    repeated = net.gradients(np.repeat(X, s, axis=0), np.repeat(y, s, axis=0))
    nets.assert_close(weighted[0], repeated[0], terms=8)
    nets.assert_close(weighted[1].theta, repeated[1].theta, terms=8)


# --- Definition 1 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", nets.LOSSES)
@pytest.mark.parametrize("activation", nets.ACTIVATIONS)
def test_central_differences(activation, loss, rng):
    """Along random directions, so that it needs nothing but ``net.loss``."""
    net = nets.network([4, 6, 5, 3], activation, loss)
    X, y = rng.normal(size=(7, 4)), nets.targets(rng, loss, 7, 3)
    start, h = net.theta.copy(), 1e-6
    gradient = net.gradients(X, y)[1].theta.copy()
    for _ in range(4):
        v = rng.normal(size=start.size)
        v /= np.linalg.norm(v)
        net.theta[:] = start + h * v
        above = net.loss(X, y)
        net.theta[:] = start - h * v
        below = net.loss(X, y)
        net.theta[:] = start
        error = abs((above - below) / (2 * h) - gradient @ v)
        assert error <= 1e-8 * (np.linalg.norm(gradient) + abs(above))


SMOOTH = [name for name in nets.ACTIVATIONS if name not in reference.KINKED]


@pytest.mark.parametrize("loss", [name for name in nets.LOSSES if name != "absolute_error"])
@pytest.mark.parametrize("activation", [name for name in SMOOTH if name != "identity"])
def test_taylor_remainder_is_quadratic(activation, loss, rng):
    """``|ℓ(θ+hv) − ℓ(θ) − h⟨∇ℓ, v⟩|`` falls as h²: its slope in a log-log plot is 2."""
    net = nets.network([4, 9, 8, 3], activation, loss, last="sigmoid")
    X, y = rng.normal(size=(11, 4)), nets.targets(rng, loss, 11, 3)
    start = net.theta.copy()
    value, grads = net.gradients(X, y)
    steps = 2.0 ** -np.arange(5, 11)
    remainders = np.zeros(len(steps))
    for _ in range(5):  # along one direction alone, the second derivative may happen to vanish
        v = rng.normal(size=start.size)
        v /= np.linalg.norm(v)
        for i, h in enumerate(steps):
            net.theta[:] = start + h * v
            remainders[i] += abs(net.loss(X, y) - value - h * (grads.theta @ v))
    slope = np.polyfit(np.log(steps), np.log(remainders), 1)[0]
    assert 1.9 < slope < 2.1


# --- what gradients() returns ---------------------------------------------------------------------


def test_gradients_own_their_memory_and_reuse_out(rng):
    net = nets.network([5, 9, 2])
    X, y = rng.normal(size=(8, 5)), rng.normal(size=(8, 2))
    _, first = net.gradients(X, y)
    kept = first.theta.copy()
    _, second = net.gradients(2 * X, y)
    nets.assert_same_bits(first.theta, kept, "a later call changed earlier gradients")
    assert not np.shares_memory(first.theta, second.theta)
    assert not np.shares_memory(first.theta, net.theta)
    _, third = net.gradients(X, y, out=second)
    assert third is second
    nets.assert_same_bits(second.theta, kept)


def test_gradients_are_laid_out_as_theta(rng):
    net = nets.network([5, 9, 4, 2], bias=[True, False, True])
    _, grads = net.gradients(rng.normal(size=(8, 5)), rng.normal(size=(8, 2)))
    net.theta[:] = grads.theta[:] = np.arange(net.theta.size)
    for got, want in zip([*grads.weights, *grads.biases], [*net.weights, *net.biases], strict=True):
        if want is None:
            assert got is None
        else:
            nets.assert_same_bits(np.ascontiguousarray(got), np.ascontiguousarray(want))
            assert np.shares_memory(want, net.theta)


def test_gradients_change_nothing(rng):
    net = nets.network([5, 9, 2])
    before = net.theta.copy()
    X, y = rng.normal(size=(8, 5)), rng.normal(size=(8, 2))
    one = net.gradients(X, y)
    two = net.gradients(X, y)
    nets.assert_same_bits(net.theta, before)
    nets.assert_same_bits(one[1].theta, two[1].theta)
    assert one[0] == two[0]


def test_a_copy_of_gradients_is_whole(rng):
    """Its weights and biases are views of its own theta: it can be written to again."""
    net = fnn.Network(
        [fnn.Dense(5, initializer=lambda rng, shape: np.ones(shape)), fnn.Dense(2, bias=False)],
        input_shape=4,
        dtype="float64",
    )
    X, y = rng.normal(size=(9, 4)), rng.normal(size=(9, 2))
    first = net.gradients(X, y)[1]
    for copied in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        nets.assert_same_bits(copied.weights[1], first.weights[1])
        nets.assert_same_bits(copied.biases[0], first.biases[0])
        assert copied.biases[1] is None
        net.gradients(X, 2 * y, out=copied)
        assert np.shares_memory(copied.theta, copied.weights[1])
        assert not np.array_equal(copied.weights[1], first.weights[1])


def test_gradients_are_not_written_over_the_parameters(rng):
    net = nets.network([4, 5, 2])
    X, y = rng.normal(size=(9, 4)), rng.normal(size=(9, 2))
    wrong = fnn.Gradients(net.connections, net.theta)
    with pytest.raises(ValueError, match="out"):
        net.gradients(X, y, out=wrong)


def test_large_samples_take_memory_for_few(rng):
    """Also of a batch that training would take by parts."""
    net = fnn.Network(
        [fnn.Conv(16, 1, "tanh"), fnn.GlobalAvgPool(), fnn.Dense(1)], (256, 256, 1), n_threads=1
    )
    X, y = rng.normal(size=(72, 256, 256, 1)).astype("float32"), rng.normal(size=(72, 1))
    before = fnn.testing.allocation_counts().bytes
    loss, gradients = net.gradients(X, y)
    assert fnn.testing.allocation_counts().bytes - before < 300 << 20
    parts = [net.gradients(X[part], y[part])[1].theta / 2 for part in (slice(36), slice(36, 72))]
    nets.assert_close(gradients.theta, sum(parts), "float32", 72)
    assert abs(loss - net.loss(X, y)) <= 1e-6 * loss
