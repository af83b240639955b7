"""σ, σ', ℓ and L number by number, to the ends of their range, through a net with W = I."""

import nets
import numpy as np
import pytest
import reference
from scipy.special import softmax

import fnn_core as fnn

FAR = {"float32": 3e30, "float64": 3e200}


def identity_net(width, activation="identity", loss="squared_error", dtype="float64", **options):
    net = fnn.Network(
        [fnn.Dense(width, activation)], input_shape=width, loss=loss, dtype=dtype, **options
    )
    net.weights[0][...] = np.eye(width)
    net.biases[0][...] = 0
    return net


def points(dtype):
    """Dense near zero, far out both ways, every kink from both sides, odd in number."""
    far = np.logspace(-30, np.log10(FAR[dtype]), 90)
    edges = [0.0, 1.0, np.nextafter(1, 0, dtype=dtype), np.nextafter(1, 2, dtype=dtype)]
    positive = np.concatenate([np.linspace(0.01, 12, 150), np.linspace(13, 120, 90), far, edges])
    return np.concatenate([positive, -positive, [-0.0]]).astype(dtype)


def values_and_slopes(name, a, dtype, mode="auto"):
    """σ from predict; σ' from the bias gradient, with ℓ = |y − t| and y far below: L = 1."""
    net = identity_net(len(a), name, "absolute_error", dtype, memory=mode)
    X, y = a[None], np.full((1, len(a)), -1e2 * FAR[dtype], dtype)
    return net.predict(X)[0], net.gradients(X, y)[1].biases[0]


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("name", nets.ACTIVATIONS)
def test_activation_values(name, dtype):
    """Relative to the value itself, also where it underflows; gelu's far tail is a difference."""
    a, eps = points(dtype), np.finfo(dtype).eps
    got, _ = values_and_slopes(name, a, dtype)
    with np.errstate(under="ignore"):
        want = reference.ACTIVATIONS[name][0](a.astype(float))
    room = np.finfo(dtype).tiny + (8 * eps if name == "gelu" else 0)
    error = np.abs(got - want)
    worst = np.argmax(error - 16 * eps * np.abs(want))
    assert np.all(error <= 16 * eps * np.abs(want) + room), (a[worst], got[worst], want[worst])


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("mode", ["recompute", "store", "auto"])
@pytest.mark.parametrize("name", nets.ACTIVATIONS)
def test_activation_slopes(name, mode, dtype):
    """To a few ε of the largest slope: where σ' follows from σ it is a difference."""
    a, eps = points(dtype), np.finfo(dtype).eps
    _, got = values_and_slopes(name, a, dtype, mode)
    value, slope = reference.ACTIVATIONS[name]
    with np.errstate(under="ignore", over="ignore", invalid="ignore"):
        exact = a.astype(float)
        want = slope(exact, value(exact))
    error = np.abs(got - want)
    worst = np.argmax(error)
    assert np.all(error <= 32 * eps * (1 + np.abs(want))), (a[worst], got[worst], want[worst])


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("name", nets.ACTIVATIONS)
def test_nan_in_nan_out(name, dtype):
    net = identity_net(9, name, dtype=dtype)
    net.biases[0][[0, 4, 8]] = np.nan
    got = net.predict(np.ones((5, 9), dtype))
    is_nan = np.isnan(got)
    assert is_nan[:, [0, 4, 8]].all()
    assert is_nan.sum() == 15


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_slopes_at_kinks(dtype):
    zeros, edges = np.zeros(3, dtype), np.array([-1, 0, 1], dtype)
    for mode in ("recompute", "store", "reuse"):
        assert not values_and_slopes("relu", zeros, dtype, mode)[1].any()
        assert np.all(
            values_and_slopes("leaky_relu", zeros, dtype, mode)[1] == dtype_of(0.01, dtype)
        )
        assert np.all(values_and_slopes("elu", zeros, dtype, mode)[1] == 1)
        assert list(values_and_slopes("hard_tanh", edges, dtype, mode)[1]) == [0, 1, 0]


def dtype_of(number, dtype):
    return np.dtype(dtype).type(number)


# --- losses ---------------------------------------------------------------------------------------


def loss_and_slope(loss, y, t, dtype):
    """ℓ of each sample, and L: the bias gradient of a net with one sample and W = I."""
    net = identity_net(t.shape[1], loss=loss, dtype=dtype)
    pairs = [net.gradients(t[i : i + 1], y[i : i + 1]) for i in range(len(t))]
    return np.array([p[0] for p in pairs]), np.array([p[1].biases[0] for p in pairs])


def assert_loss_right(loss, y, t, dtype):
    y, t = np.asarray(y), np.asarray(t, dtype)
    y = y if y.ndim == 1 else y.astype(dtype)
    got, got_slope = loss_and_slope(loss, y, t, dtype)
    value, slope = reference.LOSSES[loss]
    want, want_slope = (
        value(y.astype(float), t.astype(float)),
        slope(y.astype(float), t.astype(float)),
    )
    eps = float(np.finfo(dtype).eps)
    scale = 1 + np.abs(t).max(axis=1).astype(float) * max(1, np.abs(y).max() if y.ndim == 2 else 1)
    if loss in ("squared_error", "poisson"):
        scale = scale + np.abs(want)
    assert np.isfinite(got).all()
    assert np.isfinite(got_slope).all()
    assert np.all(np.abs(got - want) <= 64 * eps * scale), (got, want)
    assert np.all(np.abs(got_slope - want_slope) <= 32 * eps * (1 + np.abs(want_slope)))


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("loss", nets.LOSSES)
def test_losses(loss, dtype, rng):
    t = rng.normal(scale=3, size=(25, 7))
    assert_loss_right(loss, nets.targets(rng, loss, 25, 7), t, dtype)


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_cross_entropy_of_rows_that_do_not_sum_to_one(dtype, rng):
    y = rng.uniform(size=(25, 7))
    y[3] = 0
    y[4] = 1
    assert_loss_right("softmax_cross_entropy", y, rng.normal(scale=3, size=(25, 7)), dtype)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("classes", [1, 2, 4, 5, 8, 9, 10, 16, 17, 32, 33, 63, 64, 65, 200])
def test_cross_entropy_of_many_samples(classes, dtype, labels, rng):
    """On both sides of a vector of classes, of the most that are spread out, and of samples."""
    net = identity_net(classes, loss="softmax_cross_entropy", dtype=dtype)
    eps = float(np.finfo(dtype).eps)
    for rows in (1, 7, 16, 37):
        t = rng.normal(scale=3, size=(rows, classes)).astype(dtype)
        y = rng.integers(0, classes, rows) if labels else rng.uniform(size=t.shape).astype(dtype)
        value, slope = reference.LOSSES["softmax_cross_entropy"]
        wide_t, wide_y = t.astype(float), y if labels else y.astype(float)
        scale = 1 + np.abs(wide_t).max() * (1 if labels else classes)
        assert abs(net.loss(t, y) - value(wide_y, wide_t).mean()) <= 32 * eps * scale
        delta, _ = net.gradient_factors(t, y)[0]
        want = slope(wide_y, wide_t)
        assert np.all(np.abs(delta - want) <= 32 * eps * (1 + np.abs(want))), rows
        p = softmax(wide_t, axis=1)
        assert np.all(np.abs(net.predict_proba(t) - p) <= 32 * eps * p), rows


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("size", [40, 90, 1e3, 1e5, 1e30])
def test_cross_entropy_at_extreme_logits(size, dtype, rng):
    """Where exp overflows, the loss and its slope do not."""
    t = np.array([[size, 0, -size], [size, size, size], [-size, -size, 0], [0, size, size - 1]])
    assert_loss_right("softmax_cross_entropy", rng.integers(0, 3, 4), t, dtype)
    assert_loss_right("softmax_cross_entropy", rng.dirichlet(np.ones(3), 4), t, dtype)
    assert_loss_right("softmax_cross_entropy", np.eye(3)[[0, 1, 2, 0]], t, dtype)
    for y in (np.zeros((4, 3)), np.ones((4, 3)), np.full((4, 3), 0.25)):
        assert_loss_right("binary_cross_entropy", y, t, dtype)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("classes", [3, 40])
def test_cross_entropy_of_logits_that_are_not_finite(classes, dtype):
    """An impossible class is none; NaN, or a logit above all others, is no loss."""
    X = np.zeros((2, classes), dtype)
    for logit, label, want in [
        (-np.inf, 0, np.log(classes - 1)),
        (-np.inf, 1, np.inf),
        (np.inf, 0, np.nan),
        (np.nan, 0, np.nan),
    ]:
        net = identity_net(classes, loss="softmax_cross_entropy", dtype=dtype)
        net.biases[0][1] = logit
        got = net.loss(X, np.full(2, label))
        np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("loss", ["absolute_error", "huber"])
def test_robust_losses_far_from_the_target(loss, dtype):
    t = np.array([[1e10, -1e10, 1.0, -1.0, 0.5, 0.0]])
    assert_loss_right(loss, np.zeros((1, 6)), t, dtype)


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_absolute_error_has_slope_zero_at_a_tie(dtype):
    t = np.array([[2.0, -3.0, 0.0]], dtype)
    assert not loss_and_slope("absolute_error", t.copy(), t, dtype)[1].any()


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_small_cross_entropies_keep_their_digits(dtype):
    """log1p, not log of one plus: a confident and right output still has a loss."""
    t = np.array([[-10.0], [-15.0]], dtype)
    got, _ = loss_and_slope("binary_cross_entropy", np.zeros((2, 1)), t, dtype)
    np.testing.assert_allclose(got, np.log1p(np.exp(t[:, 0].astype(float))), rtol=1e-5)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_cross_entropy_does_not_depend_on_where_logits_lie(dtype, labels):
    """Exact differences of large logits: the loss has the digits that the small ones give it."""
    t = np.array([[3.0, 0.0, -2.0], [0.0, 7.0, 1.0], [4.0, 4.0, 9.0]])
    y = np.array([0, 1, 2]) if labels else np.array([[1, 0, 0], [0, 0.5, 0.5], [0.25, 0, 0.75]])
    want = reference.LOSSES["softmax_cross_entropy"][0](y, t)
    eps = float(np.finfo(dtype).eps)
    for shift in (0, 64, 1024, -4096, 2**20):
        got, _ = loss_and_slope("softmax_cross_entropy", y, (t + shift).astype(dtype), dtype)
        assert np.all(got >= 0)
        assert np.all(np.abs(got - want) <= 4 * eps * (1 + want)), (shift, got - want)


def test_registries_are_those_of_the_reference():
    assert set(nets.ACTIVATIONS) == set(reference.ACTIVATIONS)
    assert set(nets.LOSSES) == set(reference.LOSSES)
    for name, activation in fnn.activations.REGISTRY.items():
        assert activation.name == name


def test_activation_by_object_is_activation_by_name(rng):
    X = rng.normal(size=(6, 5))
    for name in nets.ACTIVATIONS:
        by_object = identity_net(5, fnn.activations.REGISTRY[name])
        nets.assert_same_bits(by_object.predict(X), identity_net(5, name).predict(X))
    nets.assert_same_bits(
        identity_net(5, fnn.activations.tanh).predict(X), identity_net(5, "tanh").predict(X)
    )


# --- a user's own loss ----------------------------------------------------------------------------


def value_of(y, t):
    return ((y - t) ** 2).sum(axis=1)


def slope_of(y, t):
    return 2 * (t - y)


@pytest.mark.parametrize("update", ["deferred", "immediate"])
@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_own_loss_is_the_built_in_one(dtype, update, rng):
    X, y, s = rng.normal(size=(17, 5)), rng.normal(size=(17, 3)), rng.uniform(size=17)
    X, y = X.astype(dtype), y.astype(dtype)
    own, built_in = (
        nets.network([5, 9, 3], loss=loss, dtype=dtype)
        for loss in (fnn.Loss(value_of, slope_of), "squared_error")
    )
    one, two = (net.gradients(X, y, sample_weight=s) for net in (own, built_in))
    nets.assert_close(one[0], two[0], dtype, 17)
    nets.assert_close(one[1].theta, two[1].theta, dtype, 17)
    for net in (own, built_in):
        net.fit(X, y, epochs=3, batch_size=4, update=update, optimizer=fnn.SGD(0.01))
    nets.assert_close(own.theta, built_in.theta, dtype, 500)
    nets.assert_close(own.loss(X, y), built_in.loss(X, y), dtype, 500)


@pytest.mark.parametrize("update", ["deferred", "immediate"])
@pytest.mark.parametrize("broken", ["value", "slope"])
def test_an_exception_in_ones_own_loss_surfaces(broken, update, rng):
    def fails(y, t):
        raise ZeroDivisionError("mine")

    functions = {"value": value_of, "slope": slope_of, broken: fails}
    net = nets.network([5, 9, 3], loss=fnn.Loss(**functions))
    X, y, before = rng.normal(size=(7, 5)), rng.normal(size=(7, 3)), net.theta.copy()
    with pytest.raises(ZeroDivisionError, match="mine"):
        net.fit(X, y, update=update, optimizer="sgd")
    with pytest.raises(ZeroDivisionError, match="mine"):
        net.gradients(X, y)
    nets.assert_same_bits(net.theta, before)
    net.predict(X)


@pytest.mark.parametrize("update", ["deferred", "immediate"])
@pytest.mark.parametrize("broken", ["value", "slope"])
def test_an_exception_in_the_midst_of_training(broken, update, rng):
    """The steps before it stand; the net goes on training once the loss works again."""
    calls, works = [], {"value": value_of, "slope": slope_of}

    def fails_the_third_time(y, t):
        calls.append(len(t))
        if len(calls) == 3:
            raise ZeroDivisionError("mine")
        return works[broken](y, t)

    loss = fnn.Loss(**{**works, broken: fails_the_third_time})
    net, alone = nets.network([5, 9, 3], loss=loss), nets.network([5, 9, 3])
    X, y = rng.normal(size=(20, 5)), rng.normal(size=(20, 3))
    options = {"batch_size": 5, "shuffle": False, "update": update}
    with pytest.raises(ZeroDivisionError, match="mine"):
        net.fit(X, y, optimizer=fnn.SGD(0.01), **options)
    alone.fit(X[:10], y[:10], optimizer=fnn.SGD(0.01), **options)
    nets.assert_close(net.theta, alone.theta, terms=100)
    for each in (net, alone):
        each.fit(X, y, optimizer=fnn.SGD(0.01), **options)
    nets.assert_close(net.theta, alone.theta, terms=100)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_ones_own_loss_that_is_not_finite(wrong, rng):
    net = nets.network([5, 9, 3], loss=fnn.Loss(lambda y, t: np.full(len(t), wrong), slope_of))
    before = net.theta.copy()
    with pytest.raises(fnn.NonFiniteLossError):
        net.fit(rng.normal(size=(7, 5)), rng.normal(size=(7, 3)))
    nets.assert_same_bits(net.theta, before)


@pytest.mark.parametrize(
    ("value", "slope", "named"),
    [
        (lambda y, t: 1.0, slope_of, "value"),
        (lambda y, t: np.ones((len(t), 2)), slope_of, "value"),
        (value_of, lambda y, t: t[:, :1], "slope"),
        (value_of, lambda y, t: "no numbers", "slope"),
    ],
)
def test_ones_own_loss_must_return_what_it_should(value, slope, named, rng):
    net = nets.network([5, 9, 3], loss=fnn.Loss(value, slope))
    before = net.theta.copy()
    with pytest.raises((ValueError, TypeError), match=named):
        net.step(rng.normal(size=(7, 5)), rng.normal(size=(7, 3)), fnn.SGD(0.1))
    nets.assert_same_bits(net.theta, before)
