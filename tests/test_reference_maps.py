"""The reference of the general layers checks itself, against the definitions and Equation (3)."""

import images
import numpy as np
import pytest
import reference
import reference_maps as maps
import reference_operators as operators
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate

convolutions = st.one_of(*(images.convolutions(d, t) for d in (1, 2, 3) for t in (False, True)))
pools = st.one_of(*(images.pools(kind, d) for kind in ("AvgPool", "MaxPool") for d in (1, 2, 3)))


def build(drawn):
    rng = np.random.default_rng(drawn.seed)
    spec = drawn.spec
    layer = maps.BUILD[spec.kind](drawn.input_shape, *spec.args, **spec.options)
    if layer.W is not None:
        layer.W = rng.normal(size=layer.W.shape)
    x = rng.normal(size=(drawn.n, *drawn.input_shape))
    h = rng.normal(size=layer.preactivation(x).shape)
    return layer, x, h


def close(one, two, scale):
    return abs(one - two) <= 1e-13 * scale


@given(convolutions)
@settings(max_examples=150)
def test_adjoints_of_convolutions(drawn):
    layer, x, h = build(drawn)
    inner, scale = np.vdot(operators.linear(layer, x), h), np.linalg.norm(x) * np.linalg.norm(h)
    scale *= np.linalg.norm(layer.W)
    assert close(np.vdot(x, layer.adjoint_input(h)), inner, scale)
    assert close(np.vdot(layer.W, layer.adjoint_weight(x, h)), inner, scale)


@given(pools)
@settings(max_examples=60)
def test_adjoints_of_pools(drawn):
    layer, x, h = build(drawn)
    inner = np.vdot(operators.linear(layer, x), h)
    scale = np.linalg.norm(x) * np.linalg.norm(h)
    assert close(np.vdot(x, layer.adjoint_input(h)), inner, scale)


@given(convolutions)
@settings(max_examples=15)
def test_adjoints_from_the_standard_basis(drawn):
    """Equation (3): ``T* x = Σ_i ⟨x, T e_i⟩ e_i``, for one sample and in the first 40 entries."""
    layer, x, h = build(drawn)
    x, h = x[:1], h[:1]
    got = layer.adjoint_input(h).ravel()
    for i in range(min(x.size, 40)):
        e = np.zeros(x.size)
        e[i] = 1
        want = np.vdot(h, operators.linear(layer, e.reshape(x.shape)))
        assert close(got[i], want, 1 + abs(want) * 100)
    got, W = layer.adjoint_weight(x, h).ravel(), layer.W
    for i in range(min(W.size, 40)):
        e = np.zeros(W.size)
        e[i] = 1
        layer.W = e.reshape(W.shape)
        want = np.vdot(h, operators.linear(layer, x))
        assert close(got[i], want, 1 + abs(want) * 100)


@pytest.mark.parametrize("shape", [(11,), (6, 7), (4, 5, 3)])
def test_convolution_is_correlation(shape, rng):
    x, W = rng.normal(size=(1, *shape, 1)), rng.normal(size=(1, *(2 for _ in shape), 1))
    layer = maps.BUILD["Conv"]((*shape, 1), 1, 2, bias=False)
    layer.W = W
    want = correlate(x[0, ..., 0], W[0, ..., 0], "valid")
    np.testing.assert_allclose(layer.apply(x)[0, ..., 0], want, rtol=0, atol=1e-13)
    padded = maps.BUILD["Conv"]((*shape, 1), 1, 2, padding=1, bias=False)
    padded.W = W
    want = correlate(x[0, ..., 0], W[0, ..., 0], "full")
    np.testing.assert_allclose(padded.apply(x)[0, ..., 0], want, rtol=0, atol=1e-13)


def test_by_hand():
    x = np.array([1.0, 2, 3, 4, 5]).reshape(1, 5, 1)

    def of(kind, *args, **options):
        layer = maps.BUILD[kind](x.shape[1:], *args, **options)
        if layer.W is not None:
            layer.W = np.arange(1.0, layer.W.size + 1).reshape(layer.W.shape)
        return layer.preactivation(x).ravel().tolist()

    assert of("Conv", 1, 2) == [1 + 4, 2 + 6, 3 + 8, 4 + 10]
    assert of("Conv", 1, 2, padding="same") == [5, 8, 11, 14, 5], "the odd cell after"
    assert of("Conv", 1, 2, padding=((1, 0),)) == [2, 5, 8, 11, 14]
    assert of("Conv", 1, 2, stride=2, dilation=2) == [1 + 6, 3 + 10]
    assert of("Conv", 1, 2, stride=2, padding="same") == [5, 11, 5]
    assert of("ConvTranspose", 1, 2, stride=2) == [1, 2, 2, 4, 3, 6, 4, 8, 5, 10]
    assert of("ConvTranspose", 1, 3, stride=2, padding="same")[:4] == [1, 2, 3 + 2, 4]
    assert of("ConvTranspose", 1, 2, padding=((0, 1),)) == [1, 4, 7, 10, 13]
    assert of("AvgPool", 2) == [1.5, 3.5]
    assert of("MaxPool", 3, 2) == [3, 5]
    assert of("GlobalAvgPool") == [3]


def test_of_equals_the_first_takes_the_slope():
    layer = maps.BUILD["MaxPool"]((2, 2, 1), 2)
    layer.preactivation(np.array([0.0, 1, 1, 1]).reshape(1, 2, 2, 1))
    assert layer.adjoint_input(np.ones((1, 1, 1, 1))).ravel().tolist() == [0, 1, 0, 0]
    nan = np.array([9, 1, np.nan, 1]).reshape(1, 2, 2, 1)
    assert np.isnan(layer.preactivation(nan)).all()


@pytest.mark.parametrize("name", reference.ACTIVATIONS)
def test_curvatures_are_central_differences(name):
    a = np.linspace(-6.05, 6.15, 123)  # no kink within h of any point
    value, slope = reference.ACTIVATIONS[name]
    h = 1e-6
    numeric = (slope(a + h, value(a + h)) - slope(a - h, value(a - h))) / (2 * h)
    got = operators.CURVATURES[name](a, value(a))
    np.testing.assert_allclose(got, numeric, rtol=1e-8, atol=2e-9)


@pytest.mark.parametrize("name", reference.LOSSES)
def test_curvatures_of_losses_are_central_differences(name, rng):
    y, t, v = rng.dirichlet(np.ones(3), 6), rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    slope, h = reference.LOSSES[name][1], 1e-6
    numeric = (slope(y, t + h * v) - slope(y, t - h * v)) / (2 * h)
    got = operators.LOSS_CURVATURES[name](y, t, v)
    np.testing.assert_allclose(got, numeric, rtol=1e-7, atol=1e-8)


class Unplaced:
    """Enough of a net for vectors of parameters, without the package."""

    def __init__(self, layers):
        self.layers = [layer for layer in layers if layer.W is not None]

    def get(self):
        parts = [p.ravel() for layer in self.layers for p in (layer.W, layer.b) if p is not None]
        return np.concatenate(parts)

    def set(self, theta):
        for layer in self.layers:
            for name in ("W", "b"):
                if getattr(layer, name) is not None:
                    shape = getattr(layer, name).shape
                    size = int(np.prod(shape))
                    setattr(layer, name, theta[:size].reshape(shape))
                    theta = theta[size:]

    def lists(self, layers, v):
        kept = self.get()
        self.set(v)
        lists = [[getattr(layer, name) for layer in layers] for name in ("W", "b")]
        self.set(kept)
        return lists

    @staticmethod
    def flat(G, g):
        pairs = [p for pair in zip(G, g, strict=True) for p in pair if p is not None]
        return np.concatenate([p.ravel() for p in pairs])


def drawn_net(name, activation, rng):
    shape, specs = images.NETS[name]
    x, layers = np.zeros((1, *shape)), []
    for spec in specs(activation):
        layer = maps.BUILD[spec.kind](x.shape[1:], *spec.args, **spec.options)
        x = layer.preactivation(x)
        layers.append(layer)
    flat = Unplaced(layers)
    flat.set(rng.normal(scale=0.4, size=flat.get().size))
    return layers, flat, rng.normal(size=(5, *shape)), rng.dirichlet(np.ones(3), 5)


@pytest.mark.parametrize("activation", ["tanh", "gelu", "mish", "elu"])
@pytest.mark.parametrize("name", images.NETS)
def test_operators_are_central_differences(name, activation, rng):
    layers, flat, x, y = drawn_net(name, activation, rng)
    θ, h = flat.get(), 1e-5
    v, dx = rng.normal(size=θ.size), rng.normal(size=x.shape)
    v /= np.linalg.norm(v)
    lists = flat.lists(layers, v)
    dF = operators.tangent(layers, x, *lists, dx)[3][-1]
    for loss in ("squared_error", "softmax_cross_entropy", "poisson"):
        s = rng.uniform(size=5)
        H = flat.flat(*operators.second_order(layers, loss, x, y, *lists, s))
        either = []
        for sign in (1, -1):
            flat.set(θ + sign * h * v)
            _, G, g = reference.gradients(layers, loss, x, y, s)
            F = reference.predict(layers, x + sign * h * dx)
            either.append((flat.flat(G, g), F))
            flat.set(θ)
        (above, F_above), (below, F_below) = either
        assert np.linalg.norm((above - below) / (2 * h) - H) <= 1e-7 * (1 + np.linalg.norm(H))
        assert np.linalg.norm((F_above - F_below) / (2 * h) - dF) <= 1e-7 * np.linalg.norm(dF)
