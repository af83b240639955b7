"""Dropout: which units fall, what scale the others get, and gradients at the drawn mask."""

import nets
import numpy as np
import pytest
import reference

import fnn_core as fnn


def net_of(layers, width, **options):
    options = {"loss": "squared_error", "dtype": "float64", "seed": 4, "n_threads": 1, **options}
    net = fnn.Network(layers, input_shape=width, **options)
    nets.spread_biases(net)
    return net


def step_gradient(net, X, y, update="auto"):
    """What a step subtracts at rate 1, and the loss it returns; the parameters are put back."""
    before = net.theta.copy()
    history = net.fit(X, y, batch_size=len(X), optimizer=fnn.SGD(1.0), shuffle=False, update=update)
    gradient = before - net.theta
    net.theta[:] = before
    return history["loss"][0], gradient


def input_masks(rate, n=50, width=40, **options):
    """The masks of n samples on the input: each sample has its own columns, so G shows them."""
    net = net_of([fnn.Dropout(rate), fnn.Dense(1, bias=False)], n * width, **options)
    net.theta[:] = 0
    X = np.kron(np.eye(n), np.ones(width))
    _, gradient = step_gradient(net, X, np.full((n, 1), -0.5))  # L = 2(t − y) = 1
    return gradient.reshape(n, width) * n


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_share_and_scale(rate):
    """The expected value stays: what is kept is divided by the share that is kept."""
    masks = input_masks(rate)
    np.testing.assert_allclose(masks[masks != 0], 1 / (1 - rate), rtol=1e-12)
    kept, n = np.mean(masks != 0), masks.size
    assert abs(kept - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / n)
    for axis in (0, 1):  # neither a sample nor a unit is favoured
        spread = np.std(np.mean(masks != 0, axis=axis))
        assert spread < 2 * np.sqrt(rate * (1 - rate) / masks.shape[axis])


def test_samples_steps_and_seeds_have_masks_of_their_own():
    masks = input_masks(0.5) != 0
    assert len({row.tobytes() for row in masks}) == len(masks)
    assert np.array_equal(masks, input_masks(0.5) != 0), "the same seed repeats"
    assert np.mean(masks == (input_masks(0.5, seed=5) != 0)) < 0.6
    net = net_of([fnn.Dropout(0.5), fnn.Dense(1, bias=False)], 100)
    X, y = np.ones((1, 100)), np.full((1, 1), -50.0)
    one, two = (step_gradient(net, X, y)[1] != 0 for _ in range(2))
    assert not np.array_equal(one, two), "the same mask in two steps"
    net.theta[:] = 0
    net.fit(np.ones((2, 100)), np.ones((2, 1)), batch_size=1, optimizer=fnn.SGD(1e-9))
    times = np.round(net.theta / 4e-9).astype(int)  # −η L / (1 − rate) a time, with L = −2
    assert set(times) == {0, 1, 2}, "the same mask in two steps of an epoch"


def test_layers_have_masks_of_their_own():
    net = net_of([fnn.Dropout(0.5), fnn.Dense(100), fnn.Dropout(0.5), fnn.Dense(1)], 100)
    gradient = step_gradient(net, np.ones((1, 100)), np.full((1, 1), -50.0))[1]
    W1, W2 = (p for p in nets.places_in_theta(net)[0] if p is not None)
    first, second = (gradient[W1] != 0).any(axis=0), (gradient[W2] != 0).any(axis=0)
    assert 0.3 < np.mean(first == second) < 0.7


@pytest.mark.parametrize("update", ["deferred", "immediate"])
@pytest.mark.parametrize("mode", nets.MODES)
@pytest.mark.parametrize("activation", ["tanh", "relu", "softplus"])
def test_gradients_at_the_drawn_mask(activation, mode, update, rng):
    """A dropped unit's column of the next G is zero: this shows the mask, the rest follows."""
    d, rate = [9, 31, 23, 4], 0.4
    layers = [
        fnn.Dense(d[1], activation),
        fnn.Dropout(rate),
        fnn.Dense(d[2], "tanh"),
        fnn.Dropout(rate),
        fnn.Dense(d[3]),
    ]
    net = net_of(layers, d[0], memory=mode)
    X, y = rng.normal(size=(1, d[0])), rng.normal(size=(1, d[3]))
    value, gradient = step_gradient(net, X, y, update)
    W = [p for p in nets.places_in_theta(net)[0] if p is not None]
    b = [p for p in nets.places_in_theta(net)[1] if p is not None]
    θ, mirror = net.theta, []
    for k, name in enumerate([activation, "tanh", "identity"]):
        mirror.append(reference.Dense(θ[W[k]], θ[b[k]], name))
        if k < 2:
            kept = (gradient[W[k + 1]] != 0).any(axis=0)
            assert activation == "relu" or 0.2 < kept.mean() < 0.95
            mirror.append(reference.Mask(kept / (1 - rate)))
    want, G, g = reference.gradients(mirror, "squared_error", X, y)
    assert abs(value - want) <= 1e-12 * want
    for where, part in zip([*W, *b], [G[0], G[2], G[4], g[0], g[2], g[4]], strict=True):
        nets.assert_close(gradient[where], part, c=1000)


@pytest.mark.parametrize("mode", nets.MODES)
@pytest.mark.parametrize(("n", "units"), [(3, 500), (70, 4), (130, 3), (300, 3)])
def test_forward_and_backward_draw_the_same_masks(n, units, mode, rng):
    """Sample i lights the units of run i alone, so G_2 shows the mask that the forward pass drew of
    them; column i of G_1 is delta of sample i, and shows the mask of the backward pass.
    """
    width = n * units
    net = net_of([fnn.Dense(width), fnn.Dropout(0.5), fnn.Dense(1, bias=False)], n, memory=mode)
    net.theta[:] = 0
    net.weights[0][...] = np.repeat(np.eye(n), units, axis=0)
    net.weights[2][...] = rng.uniform(0.5, 1.5, (1, width))
    gradient = step_gradient(net, np.eye(n), np.full((n, 1), -1.0))[1]
    W = nets.places_in_theta(net)[0]
    forward, delta = gradient[W[2]][0], gradient[W[0]]
    backward = delta.reshape(n, units, n)[np.arange(n), :, np.arange(n)].ravel()
    nets.assert_close(backward, forward * net.weights[2][0], c=1000)
    masks = delta.T != 0
    assert 0.4 < masks.mean() < 0.6
    assert len({row.tobytes() for row in masks}) == n, "two samples with one mask"


@pytest.mark.parametrize("update", ["deferred", "immediate"])
def test_modes_draw_the_same_masks(update, rng):
    X, y = rng.normal(size=(40, 9)), rng.normal(size=(40, 4))
    thetas = []
    for mode in nets.MODES:
        layers = [fnn.Dense(31, "tanh"), fnn.Dropout(0.4), fnn.Dropout(0.2), fnn.Dense(4)]
        net = net_of(layers, 9, memory=mode)
        net.fit(X, y, epochs=3, batch_size=16, optimizer="adam", update=update)
        thetas.append(net.theta.copy())
    for theta in thetas[1:]:
        nets.assert_same_bits(theta, thetas[0])


def test_only_training_drops(rng):
    X, y = rng.normal(size=(40, 9)), rng.normal(size=(40, 4))
    dropping = net_of([fnn.Dense(31, "tanh"), fnn.Dropout(0.9), fnn.Dense(4)], 9)
    plain = net_of([fnn.Dense(31, "tanh"), fnn.Dense(4)], 9)
    plain.theta[:] = dropping.theta
    nets.assert_same_bits(dropping.predict(X), plain.predict(X))
    assert dropping.loss(X, y) == plain.loss(X, y)
    nets.assert_same_bits(dropping.gradients(X, y)[1].theta, plain.gradients(X, y)[1].theta)
    assert dropping.step(X, y, fnn.SGD(0.1)) != plain.step(X, y, fnn.SGD(0.1))
    history = dropping.fit(X, y, validation_data=(X, y), optimizer=fnn.SGD(0.01))
    assert history["val_loss"][-1] == pytest.approx(dropping.loss(X, y), rel=1e-12)


def test_rate_zero_drops_nothing(rng):
    X, y = rng.normal(size=(40, 9)), rng.normal(size=(40, 4))
    dropping = net_of([fnn.Dense(31, "tanh"), fnn.Dropout(0.0), fnn.Dense(4)], 9)
    plain = net_of([fnn.Dense(31, "tanh"), fnn.Dense(4)], 9)
    plain.theta[:] = dropping.theta
    for net in (dropping, plain):
        net.fit(X, y, epochs=2, batch_size=16)
    nets.assert_same_bits(dropping.theta, plain.theta)


def test_weights_and_shuffling_do_not_depend_on_dropout(rng):
    """Separate streams: adding a dropout layer leaves the initial weights as they were."""
    options = {"input_shape": 5, "loss": "squared_error", "seed": 9}
    plain = fnn.Network([fnn.Dense(8, "relu"), fnn.Dense(2)], **options)
    layers = [fnn.Dropout(0.5), fnn.Dense(8, "relu"), fnn.Dropout(0.5), fnn.Dense(2)]
    nets.assert_same_bits(fnn.Network(layers, **options).theta, plain.theta)
