"""What the parameters are before training."""

import nets
import numpy as np
import pytest

import fnn_core as fnn

HE = ["relu", "leaky_relu", "elu", "gelu", "silu", "mish", "softplus"]


def network(layers, width, dtype="float64", **options):
    return fnn.Network(layers, input_shape=width, loss="squared_error", dtype=dtype, **options)


def weight(activation, fan_in=300, fan_out=200, **options):
    net = network([fnn.Dense(fan_out, activation, **options)], fan_in, seed=2)
    assert not net.biases[0].any()
    return net.weights[0]


def assert_uniform(W, bound):
    assert np.abs(W).max() <= bound
    assert np.abs(W).max() > 0.999 * bound
    assert abs(W.std() - bound / np.sqrt(3)) < 0.01 * bound
    assert abs(W.mean()) < 0.01 * bound


@pytest.mark.parametrize("activation", nets.ACTIVATIONS)
def test_defaults(activation):
    W = weight(activation)
    if activation in HE:
        assert_uniform(W, np.sqrt(6 / 300))
    elif activation == "selu":
        assert abs(W.std() - np.sqrt(1 / 300)) < 0.01 * np.sqrt(1 / 300)
        assert np.abs(W).max() > 3.5 * W.std(), "normal, not uniform"
    else:
        assert_uniform(W, np.sqrt(6 / 500))


def test_own_initializer():
    seen = []

    def mine(rng, shape):
        seen.append((type(rng), shape))
        return np.arange(np.prod(shape)).reshape(shape)

    W = weight("tanh", 3, 2, initializer=mine)
    assert seen == [(np.random.Generator, (2, 3))]
    assert W.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_by_name():
    by_default, by_name = weight("tanh"), weight("tanh", initializer="glorot_uniform")
    nets.assert_same_bits(np.ascontiguousarray(by_name), np.ascontiguousarray(by_default))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda rng, shape: np.zeros((9, 9)),
        lambda rng, shape: np.full(shape, np.nan),
        lambda rng, shape: "text",
        lambda rng, shape: None,
        "glorot_unifrom",
        7,
    ],
)
def test_wrong_initializers(wrong):
    with pytest.raises((ValueError, TypeError), match="initializer"):
        weight("tanh", 3, 2, initializer=wrong)


def test_seed(rng):
    def theta(seed, dtype="float64"):
        net = network([fnn.Dense(5, "relu"), fnn.Dense(2)], 3, seed=seed, dtype=dtype)
        return net.theta

    nets.assert_same_bits(theta(1), theta(1))
    assert not np.array_equal(theta(1), theta(2))
    nets.assert_same_bits(theta(1).astype("float32"), theta(1, "float32"), "one net, two dtypes")
