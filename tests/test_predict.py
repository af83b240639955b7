"""predict, predict_proba, and the parameters as views."""

import nets
import numpy as np
import pytest
import reference
from scipy.special import expit, softmax

import fnn_core as fnn


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("activation", nets.ACTIVATIONS)
def test_predict_is_the_forward_pass(activation, dtype, rng):
    net = nets.network([13, 29, 17, 5], activation, dtype=dtype)
    layers = nets.mirror(net, [activation, activation, "identity"])
    for n in (1, 2, 15, 64, 1031):
        X = rng.normal(size=(n, 13)).astype(dtype)
        got = net.predict(X)
        assert got.dtype == dtype
        assert got.shape == (n, 5)
        nets.assert_close(got, reference.predict(layers, X), dtype, 30)


def test_predict_nothing(rng):
    net = nets.network([13, 29, 5])
    got = net.predict(np.empty((0, 13)))
    assert got.shape == (0, 5)
    assert got.dtype == "float64"


def test_one_sample_after_the_other_is_all_at_once(rng):
    net = nets.network([13, 29, 5], "relu")
    X = rng.normal(size=(300, 13))
    singly = np.concatenate([net.predict(X[i : i + 1]) for i in range(300)])
    nets.assert_close(net.predict(X), singly, terms=30)


def test_modes_predict_the_same(rng):
    X, net = rng.normal(size=(70, 13)), nets.network([13, 29, 5], "sigmoid")
    expected = net.predict(X)
    for mode in nets.MODES:
        net.memory = mode
        nets.assert_same_bits(net.predict(X), expected, mode)


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_out(dtype, rng):
    net = nets.network([13, 29, 5], dtype=dtype)
    X, out = rng.normal(size=(700, 13)).astype(dtype), np.full((700, 5), np.nan, dtype)
    assert net.predict(X, out=out) is out
    nets.assert_same_bits(out, net.predict(X))


def test_results_are_ones_own(rng):
    net = nets.network([13, 29, 5])
    first = net.predict(rng.normal(size=(3, 13)))
    kept = first.copy()
    net.predict(rng.normal(size=(3, 13)))
    nets.assert_same_bits(first, kept)


def test_many_sizes_in_turn(rng):
    """A workspace planned for one batch serves the others or is planned anew."""
    net = nets.network([13, 29, 5], "softplus")
    layers = nets.mirror(net, ["softplus", "identity"])
    for n in (1, 1000, 3, 1, 517, 2000, 2):
        X = rng.normal(size=(n, 13))
        nets.assert_close(net.predict(X), reference.predict(layers, X), terms=30)


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_probabilities(dtype, rng):
    X = (10 * rng.normal(size=(40, 13))).astype(dtype)
    net = nets.network([13, 29, 5], loss="softmax_cross_entropy", dtype=dtype)
    got = net.predict_proba(X)
    assert got.dtype == dtype
    assert got.shape == (40, 5)
    nets.assert_close(got, softmax(net.predict(X).astype(float), axis=1), dtype, 30)
    np.testing.assert_allclose(got.sum(axis=1), 1, rtol=1e-5)
    net = nets.network([13, 29, 5], loss="binary_cross_entropy", dtype=dtype)
    nets.assert_close(net.predict_proba(X), expit(net.predict(X).astype(float)), dtype, 30)


def test_probabilities_of_extreme_logits():
    net = nets.network([3, 3], loss="softmax_cross_entropy")
    net.theta[:] = 0
    net.weights[0][...] = np.eye(3)
    got = net.predict_proba(np.array([[1e4, 0.0, -1e4], [1e300, 1e300, 0.0]]))
    np.testing.assert_allclose(got, [[1, 0, 0], [0.5, 0.5, 0]], atol=1e-300)


def test_no_probabilities_without_a_loss_that_has_them(rng):
    net = nets.network([13, 29, 5])
    with pytest.raises((ValueError, AttributeError), match="squared_error"):
        net.predict_proba(rng.normal(size=(4, 13)))


# --- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_theta_is_the_storage(dtype, rng):
    net = nets.network([13, 29, 17, 5], bias=[True, False, True], dtype=dtype)
    theta = net.theta
    assert theta.ndim == 1
    assert theta.dtype == dtype
    assert theta.flags.c_contiguous
    assert theta.flags.writeable
    assert theta.size == net.n_parameters == 29 * 14 + 17 * 29 + 5 * 18
    assert [W.shape for W in net.weights] == [(29, 13), (17, 29), (5, 17)]
    assert [b if b is None else b.shape for b in net.biases] == [(29,), None, (5,)]
    places = [p.ravel() for ps in nets.places_in_theta(net) for p in ps if p is not None]
    assert sorted(np.concatenate(places)) == list(range(theta.size)), "each number once"
    X = rng.normal(size=(4, 13)).astype(dtype)
    before = net.predict(X)
    net.weights[2][...] *= 2
    net.biases[2][...] *= 2
    nets.assert_close(net.predict(X), 2 * before, dtype, 30)
    theta[:] = 0
    assert not net.predict(X).any()
    assert not net.weights[1].any()


def test_theta_outlives_the_net():
    theta = nets.network([13, 29, 5]).theta
    assert np.isfinite(theta).all()
    assert theta.any()


def test_dropout_has_no_parameters():
    net = fnn.Network(
        [fnn.Dense(4), fnn.Dropout(0.5), fnn.Dense(2)], input_shape=3, loss="squared_error"
    )
    assert net.weights[1] is None
    assert net.biases[1] is None
    assert len(net.weights) == len(net.biases) == len(net.layers) == 3


def test_describes_itself():
    net = nets.network([13, 29, 5])
    assert tuple(np.atleast_1d(net.input_shape)) == (13,)
    assert tuple(np.atleast_1d(net.output_shape)) == (5,)
    assert np.dtype(net.dtype) == "float64"
    assert len(net.layers) == 2
    assert "Dense" in repr(net.layers[0])
    assert "29" in repr(net.layers[0])
    assert "Network" in repr(net)


def test_few_large_samples_take_little_memory():
    """As many go forward together as a near cache holds, however many threads are idle."""
    net = fnn.Network(
        [fnn.Conv(8, 3, "relu", padding="same"), fnn.Conv(1, 1)], (600, 500, 3), n_threads=2
    )
    X = np.zeros((1, 600, 500, 3), np.float32)
    sample = 600 * 500 * 8 * 4
    for call, most in (
        (lambda: net.predict(X), 3 * sample),
        (lambda: net.loss(X, X[..., :1]), 0),
        (lambda: net.jvp(X, dX=X), 20 * sample),
    ):
        before = fnn.testing.allocation_counts().bytes
        call()
        assert fnn.testing.allocation_counts().bytes - before <= most
