"""Remark 8 (i) and (iii): what is kept, and when G_k is applied, never changes a number."""

import nets
import numpy as np
import pytest

import fnn_core as fnn


def trained(activation, loss, mode, update="deferred", dtype="float64", optimizer=None, n=37):
    """Loss, gradients and parameters after three steps, all as bytes would see them."""
    rng = np.random.default_rng(3)
    net = nets.network([13, 29, 17, 5], activation, loss, memory=mode, dtype=dtype)
    X, y = rng.normal(size=(n, 13)).astype(dtype), nets.targets(rng, loss, n, 5)
    value, grads = net.gradients(X, y)
    net.fit(
        X,
        y,
        epochs=3,
        batch_size=16,
        optimizer=optimizer or fnn.SGD(0.01, momentum=0.9),
        update=update,
    )
    return value, grads.theta, net.theta


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("loss", nets.LOSSES)
@pytest.mark.parametrize("activation", nets.REUSABLE)
def test_all_modes_give_the_same_bits(activation, loss, dtype):
    value, gradient, theta = trained(activation, loss, "store", dtype=dtype)
    for mode in ("recompute", "reuse", "auto"):
        other = trained(activation, loss, mode, dtype=dtype)
        assert other[0] == value, mode
        nets.assert_same_bits(other[1], gradient, mode)
        nets.assert_same_bits(other[2], theta, mode)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("outputs", [2, 3, 5, 8, 10, 11])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_few_outputs(activation, outputs, dtype, rng):
    """Where F_{k−1} is kept, G_k and T come in one pass; else one after the other."""
    for units in (1, 15, 16, 33, 100):
        for n in (1, 7, 8, 9, 67, 300):
            X = rng.normal(size=(n, 3)).astype(dtype)
            y = rng.normal(size=(n, outputs)).astype(dtype)
            assert_few_outputs_agree([3, units, outputs], activation, X, y)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("n", [100, 515, 1100])
def test_few_outputs_of_wide_layers_and_large_batches(n, dtype, rng):
    """Rows that lie a line apart, batches in parts and in several blocks of samples."""
    X, y = rng.normal(size=(n, 3)).astype(dtype), rng.normal(size=(n, 7)).astype(dtype)
    assert_few_outputs_agree([3, 512, 7], "relu", X, y)
    at_once, in_turn = (
        nets.network([3, 40, 7], "tanh", memory=mode, dtype=dtype)
        for mode in ("reuse", "recompute")
    )
    for net in (at_once, in_turn):
        net.fit(X, y, epochs=2, batch_size=min(n, 300), optimizer=fnn.Adam(), shuffle=False)
    nets.assert_same_bits(at_once.theta, in_turn.theta)


def assert_few_outputs_agree(widths, activation, X, y):
    at_once, in_turn = (
        nets.network(widths, activation, memory=mode, dtype=X.dtype.name)
        for mode in ("reuse", "recompute")
    )
    _, gradients = at_once.gradients(X, y)
    _, expected = in_turn.gradients(X, y)
    nets.assert_same_bits(gradients.theta, expected.theta, f"{widths}, {len(X)} samples")


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("activation", nets.NOT_REUSABLE)
def test_modes_of_the_other_activations_agree(activation, dtype):
    value, gradient, theta = trained(activation, "squared_error", "store", dtype=dtype)
    for mode in ("recompute", "auto"):
        other = trained(activation, "squared_error", mode, dtype=dtype)
        nets.assert_close(other[0], value, dtype, 37)
        nets.assert_close(other[1], gradient, dtype, 37)
        nets.assert_close(other[2], theta, dtype, 1000)


@pytest.mark.parametrize("mode", nets.MODES)
@pytest.mark.parametrize("n", [1, 30, 300])
@pytest.mark.parametrize("units", [1, 3, 40])
def test_a_dead_unit_is_sent_nothing_however_large(units, n, mode):
    net = nets.network([2, units, 20, 1], "relu", memory=mode, dtype="float32")
    net.weights[0][...] = -1
    net.weights[1][...] = 1e38
    X, y = np.ones((n, 2), "f"), np.full((n, 1), 1e5, "f")
    net.biases[1][...] = 1  # all of the second layer's units live, and send 1e38 and more back
    _, gradients = net.gradients(X, y)
    assert np.all(np.isfinite(gradients.theta))
    nets.assert_same_bits(gradients.weights[0], np.zeros((units, 2), "f"))


def updates(optimizer, mode, dtype):
    return [
        trained("relu", "squared_error", mode, update, dtype, fnn.optimizers.REGISTRY[optimizer]())
        for update in ("deferred", "immediate", "auto")
    ]


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("mode", nets.MODES)
@pytest.mark.parametrize("optimizer", nets.OPTIMIZERS)
def test_immediate_is_deferred(optimizer, mode, dtype):
    """Remark 8 (iii), with the erratum: the old weight is read before it changes."""
    deferred, *others = updates(optimizer, mode, dtype)
    for other in others:
        nets.assert_same_bits(other[2], deferred[2], optimizer)


@pytest.mark.parametrize("gemm", ["native", "blas"])
@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_wide_layers(activation, dtype, gemm):
    """Wide enough for several panels."""
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(140, 30)).astype(dtype), rng.integers(0, 9, 140)
    thetas = []
    modes = nets.MODES if activation == "relu" else ["recompute", "store"]
    for mode in modes:
        for update in ("deferred", "immediate"):
            net = nets.network(
                [30, 523, 521, 9],
                activation,
                "softmax_cross_entropy",
                memory=mode,
                dtype=dtype,
                gemm=gemm,
            )
            net.fit(X, y, batch_size=70, update=update)
            thetas.append(net.theta.copy())
    for theta in thetas[1:]:
        nets.assert_close(theta, thetas[0], dtype, 500)
        if activation == "relu":
            nets.assert_same_bits(theta, thetas[0])


@pytest.mark.parametrize("activation", nets.NOT_REUSABLE)
def test_immediate_is_deferred_for_the_other_activations(activation):
    for mode in ("recompute", "store", "auto"):
        deferred = trained(activation, "huber", mode, "deferred")
        nets.assert_same_bits(trained(activation, "huber", mode, "immediate")[2], deferred[2])


def test_immediate_with_frozen_layers_and_without_biases(rng):
    X, y = rng.normal(size=(20, 7)), rng.normal(size=(20, 3))
    thetas = []
    for update in ("deferred", "immediate"):
        net = nets.network(
            [7, 11, 5, 3], bias=[True, False, True], trainable=[True, False, True], memory="reuse"
        )
        frozen = net.weights[1].copy()
        for _ in range(3):
            net.fit(X, y, batch_size=8, optimizer=fnn.SGD(0.05), update=update)
        nets.assert_same_bits(net.weights[1].copy(), frozen)
        thetas.append(net.theta.copy())
    nets.assert_same_bits(*thetas)


@pytest.mark.parametrize("mode", nets.MODES)
def test_mode_can_change_between_calls(mode, rng):
    X, y = rng.normal(size=(20, 7)), rng.normal(size=(20, 3))
    still, changing = (nets.network([7, 11, 5, 3], memory="recompute") for _ in range(2))
    one, two = fnn.Adam(1e-2), fnn.Adam(1e-2)
    for new in ("store", mode, "recompute"):
        changing.memory = new
        assert changing.memory == new
        assert still.step(X, y, one) == changing.step(X, y, two)
        nets.assert_same_bits(changing.theta, still.theta)


# --- reuse where it cannot be had -----------------------------------------------------------------


def assert_says_why(caught, activation):
    message = str(caught.value)
    assert activation in message
    for works in nets.REUSABLE:
        assert works in message, f"{works} is not named: {message}"
    assert "1" in message, f"the layer is not named: {message}"


@pytest.mark.parametrize("activation", nets.NOT_REUSABLE)
def test_reuse_is_refused_where_the_slope_does_not_follow(activation, rng):
    with pytest.raises(ValueError, match="reuse") as caught:
        nets.network([7, 11, 5, 3], ["tanh", activation], memory="reuse")
    assert_says_why(caught, activation)
    net = nets.network([7, 11, 5, 3], ["tanh", activation], memory="store")
    with pytest.raises(ValueError, match="reuse") as caught:
        net.memory = "reuse"
    assert_says_why(caught, activation)
    assert net.memory == "store"
    net.gradients(rng.normal(size=(4, 7)), rng.normal(size=(4, 3)))


def test_registry_says_which_can_be_reused():
    assert set(nets.NOT_REUSABLE) == {"gelu", "silu", "mish"}
