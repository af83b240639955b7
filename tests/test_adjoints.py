"""``⟨C(x, w), h⟩ = ⟨x, C†(h, w)⟩ = ⟨w, C††(x, h)⟩`` for every map of the engine, to c·ε."""

from dataclasses import replace

import images
import nets
import numpy as np
import pytest
import reference_maps
from hypothesis import given, settings

MAPS = {
    **{f"conv {d}": (images.convolutions(d), 60) for d in (1, 2, 3)},
    **{f"transpose {d}": (images.convolutions(d, transposed=True), 40) for d in (1, 2, 3)},
    "winograd": (images.by_winograd(), 60),
    "winograd, transposed": (images.by_winograd(transposed=True), 60),
    **{f"average {d}": (images.pools("AvgPool", d), 30) for d in (1, 2, 3)},
    **{f"maximum {d}": (images.pools("MaxPool", d), 30) for d in (1, 2, 3)},
}


def alone(drawn, dtype):
    """A net of that layer alone, drawn data, and the reference."""
    spec = drawn.spec
    net, (layer,) = images.both([spec], drawn.input_shape, scale=1.0, seed=drawn.seed, dtype=dtype)
    rng = np.random.default_rng(drawn.seed)
    X = rng.normal(size=(drawn.n, *drawn.input_shape)).astype(dtype)
    h = rng.normal(size=(drawn.n, *net.output_shape)).astype(dtype)
    return net, layer, X, h


def terms_added(layer, X, h):
    """``⟨|C|(|x|, |w|), |h|⟩``: all that is added up, without signs, to scale an error by."""
    if layer.W is None:
        return np.linalg.norm(X) * np.linalg.norm(h)
    x, size = np.abs(X.astype(float)), replace(layer, W=np.abs(layer.W), b=None)
    return np.vdot(size.preactivation(x), np.abs(h))


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("name", MAPS)
def test_adjoint_identities(name, dtype):
    strategy, examples = MAPS[name]

    @given(strategy)
    @settings(max_examples=examples)
    def run(drawn):
        net, layer, X, h = alone(drawn, dtype)
        if layer.b is not None:
            net.biases[0][...] = 0
        F = net.predict(X).astype(float)
        dtheta, dX = net.vjp(X, h)
        assert dtheta.dtype == dX.dtype == dtype
        assert dtheta.shape == net.theta.shape
        assert dX.shape == X.shape
        room = 32 * np.finfo(dtype).eps * (1e-300 + terms_added(layer, X, h))
        through_output = np.vdot(F, h.astype(float))
        through_input = np.vdot(X.astype(float), dX.astype(float))
        assert abs(through_output - through_input) <= room
        if layer.W is not None:
            where = nets.places_in_theta(net)[0][0]
            through_weight = np.vdot(layer.W, dtheta[where].astype(float))
            assert abs(through_output - through_weight) <= room
        if layer.b is not None:
            where = nets.places_in_theta(net)[1][0]
            want = layer.gather(h.astype(float))
            nets.assert_close(dtheta[where], want, dtype, h.size, what="ι*")

    run()


@pytest.mark.parametrize("name", MAPS)
def test_all_three_gradients(name):
    """C†, C†† and ι* each against the reference, to 1e-12."""
    strategy, examples = MAPS[name]

    @given(strategy)
    @settings(max_examples=2 * examples)
    def run(drawn):
        net, layer, X, h = alone(drawn, "float64")
        layer.preactivation(X)
        dtheta, dX = net.vjp(X, h)
        nets.assert_close(dX, layer.adjoint_input(h), terms=10_000, what="C†")
        for k, (part, want) in enumerate(
            ((layer.W, lambda: layer.adjoint_weight(X, h)), (layer.b, lambda: layer.gather(h)))
        ):
            if part is not None:
                where = nets.places_in_theta(net)[k][0]
                nets.assert_close(dtheta[where], want(), terms=10_000, what=("C††", "ι*")[k])

    run()


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_a_dense_layer_too(dtype, rng):
    for outputs, inputs in ((1, 1), (5, 3), (17, 33), (67, 130), (520, 530)):
        net = images.network([images.Dense(outputs)], inputs, dtype=dtype)
        X = rng.normal(size=(9, inputs)).astype(dtype)
        h = rng.normal(size=(9, outputs)).astype(dtype)
        W = np.array(net.weights[0], float)
        dtheta, dX = net.vjp(X, h)
        places = nets.places_in_theta(net)
        nets.assert_close(dX, h.astype(float) @ W, dtype, outputs, what="C†")
        want = h.astype(float).T @ X.astype(float)
        nets.assert_close(dtheta[places[0][0]], want, dtype, 9, what="C††")
        nets.assert_close(dtheta[places[1][0]], h.astype(float).sum(axis=0), dtype, 9, what="ι*")


@pytest.mark.parametrize("args", [(2,), (3,), (3, 1), (2, 3), ((2, 3), (1, 2))])
def test_where_the_slope_of_a_maximum_goes(args, rng):
    """Whole numbers, so that ties are exact: the first in row-major order takes the whole slope."""
    X = rng.integers(0, 3, size=(5, 9, 8, 19)) * 1.0
    net = images.network([images.MaxPool(*args)], (9, 8, 19))
    layer = reference_maps.BUILD["MaxPool"]((9, 8, 19), *args)
    h = rng.normal(size=layer.preactivation(X).shape)
    _, dX = net.vjp(X, h)
    nets.assert_close(dX, layer.adjoint_input(h))
    assert np.array_equal(dX != 0, layer.adjoint_input(h) != 0)
