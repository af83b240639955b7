"""The reference checks itself: a wrong reference would make every other test worthless."""

import numpy as np
import pytest
import reference as ref


def drawn(activation, loss, rng):
    layers = [
        ref.Dense(rng.normal(size=(5, 4)) / 2, rng.normal(size=5), activation),
        ref.Mask(rng.integers(0, 2, 5) * 2.0),
        ref.Dense(rng.normal(size=(3, 5)) / 2, rng.normal(size=3)),
    ]
    return layers, rng.normal(size=(6, 4)), rng.dirichlet(np.ones(3), 6), rng.uniform(size=6)


@pytest.mark.parametrize("loss", ref.LOSSES)
@pytest.mark.parametrize("activation", ref.ACTIVATIONS)
def test_gradients_are_central_differences(activation, loss, rng):
    layers, x, y, s = drawn(activation, loss, rng)
    _, G, g = ref.gradients(layers, loss, x, y, s)
    for k in (0, 2):
        for parameter, gradient in ((layers[k].W, G[k]), (layers[k].b, g[k])):
            h, numeric = 1e-6, np.zeros_like(parameter)
            for i in np.ndindex(parameter.shape):
                kept = parameter[i]
                parameter[i] = kept + h
                above = ref.loss(layers, loss, x, y, s)
                parameter[i] = kept - h
                below = ref.loss(layers, loss, x, y, s)
                parameter[i] = kept
                numeric[i] = (above - below) / (2 * h)
            assert np.linalg.norm(gradient - numeric) <= 1e-7 * (1 + np.linalg.norm(gradient))


@pytest.mark.parametrize("name", ref.ACTIVATIONS)
def test_slopes_are_central_differences(name):
    a = np.linspace(-6.05, 6.15, 123)  # no kink within h of any point
    value, slope = ref.ACTIVATIONS[name]
    h = 1e-6
    numeric = (value(a + h) - value(a - h)) / (2 * h)
    np.testing.assert_allclose(slope(a, value(a)), numeric, rtol=1e-8, atol=1e-9)


def test_slopes_at_kinks():
    zero = np.zeros(1)
    at = {name: float(slope(zero, zero)[0]) for name, (_, slope) in ref.ACTIVATIONS.items()}
    assert at["relu"] == 0
    assert at["leaky_relu"] == 0.01
    assert at["elu"] == 1
    assert at["selu"] == ref.SELU_SCALE * ref.SELU_ALPHA
    edges = np.array([-1.0, 1.0])
    assert not ref.ACTIVATIONS["hard_tanh"][1](edges, edges).any()


@pytest.mark.parametrize("name", ref.OPTIMIZERS)
def test_optimizers_descend(name):
    optimizer, θ = ref.OPTIMIZERS[name](0.05), np.array([1.0, -2.0, 3.0])
    start = θ @ θ
    for _ in range(100):
        θ = optimizer.step(θ, 2 * θ)
    assert θ @ θ < start * (0.9 if name == "adagrad" else 0.5)
