"""fnn.testing: what it passes, what it finds, and that it says which and by how much."""

import re

import images
import nets
import numpy as np
import pytest
import reference

import fnn_core as fnn
from fnn_core.testing import check_gradient, check_map


class Ring(fnn.BilinearMap):
    """Correlation around a ring with two taps, and one bias."""

    input_shape, weight_shape, output_shape, bias_shape = (5,), (2,), (5,), (1,)

    def apply(self, x, w):
        return w[0] * x + w[1] * np.roll(x, -1, axis=1)

    def adjoint_input(self, h, w):
        return w[0] * h + w[1] * np.roll(h, 1, axis=1)

    def adjoint_weight(self, x, h):
        return np.array([np.vdot(x, h), np.vdot(np.roll(x, -1, axis=1), h)])

    def spread(self, b):
        return np.full(5, b[0])

    def gather(self, h):
        return h.sum(keepdims=True).reshape(1)


def finds(chosen, *words):
    for seed in (None, 0, 1):
        rng = None if seed is None else np.random.default_rng(seed)
        with pytest.raises(AssertionError) as caught:
            check_map(chosen, rng)
        message = str(caught.value)
        for word in words:
            assert word in message, f"{word!r} is not in: {message}"
        assert re.search(r"\d|inf|nan", message), "it says by how much"


def test_a_right_map_passes():
    check_map(Ring())
    check_map(Ring(), np.random.default_rng(3))
    check_map(Ring(), rng=np.random.default_rng(4))


BROKEN = {
    "adjoint_input": [
        lambda self, h, w: w[0] * h + w[1] * np.roll(h, -1, axis=1),
        lambda self, h, w: -Ring().adjoint_input(h, w),
        lambda self, h, w: 1.0001 * Ring().adjoint_input(h, w),
        lambda self, h, w: 0 * h,
        lambda self, h, w: h,
        lambda self, h, w: h * np.nan,
    ],
    "adjoint_weight": [
        lambda self, x, h: Ring().adjoint_weight(x, h)[::-1],
        lambda self, x, h: Ring().adjoint_weight(x, h) / len(x),
        lambda self, x, h: Ring().adjoint_weight(x[:1], h[:1]),
        lambda self, x, h: Ring().adjoint_weight(x, h) * 1.0001,
        lambda self, x, h: np.array([np.inf, 1.0]),
    ],
    "gather": [
        lambda self, h: h[0].sum(keepdims=True),
        lambda self, h: h.mean(keepdims=True).reshape(1),
        lambda self, h: np.zeros(1),
    ],
}


@pytest.mark.parametrize(("name", "which"), [(n, i) for n in BROKEN for i in range(len(BROKEN[n]))])
def test_a_wrong_adjoint_is_found(name, which):
    finds(type("Wrong", (Ring,), {name: BROKEN[name][which]})(), name)


def test_a_map_that_is_not_linear_is_found():
    for apply, argument in (
        (lambda self, x, w: w[0] * x * x, "x"),
        (lambda self, x, w: w[0] * np.abs(x), "x"),
        (lambda self, x, w: w[0] * w[1] * x, "w"),
        (lambda self, x, w: np.sin(w[0]) * x, "w"),
        (lambda self, x, w: w[0] * (x + 1), "x"),
        (lambda self, x, w: (w[0] + 1) * x, "w"),
        (lambda self, x, w: w[0] * x + 1e-6 * x * x, "x"),
    ):
        finds(type("Wrong", (Ring,), {"apply": apply})(), "linear", f"in {argument}")


@pytest.mark.parametrize(
    "apply", [lambda x, w: x * x * w, lambda x, w: x * w + 1, lambda x, w: x * np.abs(w)]
)
def test_a_function_that_is_not_bilinear_is_found(apply):
    """When the map is made, or at the latest here; its values at unit vectors do not show it."""
    with pytest.raises((ValueError, AssertionError), match="linear"):
        check_map(
            fnn.BilinearMap.from_function(apply, input_shape=3, weight_shape=3, output_shape=3)
        )


def test_a_bias_map_that_is_not_linear_is_found():
    finds(type("Wrong", (Ring,), {"spread": lambda self, b: np.full(5, b[0] ** 2)})())
    finds(type("Wrong", (Ring,), {"spread": lambda self, b: np.full(5, b[0] + 1)})())


@pytest.mark.parametrize("name", ["apply", "adjoint_input", "adjoint_weight", "gather", "spread"])
def test_a_wrong_shape_is_found(name):
    """By its name: NumPy would broadcast some of them."""

    def wrong(self, *arguments):
        return np.asarray(getattr(Ring(), name)(*arguments))[None]

    with pytest.raises((AssertionError, ValueError), match=name):
        check_map(type("Wrong", (Ring,), {name: wrong})())


def test_an_exception_of_the_map_is_its_own():
    def fails(self, x, w):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        check_map(type("Wrong", (Ring,), {"apply": fails})())


@pytest.mark.parametrize("wrong", [None, 3, "map", Ring, np.ones((2, 3, 4))])
def test_not_a_map(wrong):
    with pytest.raises((TypeError, ValueError), match="map"):
        check_map(wrong)


# --- the Taylor test of Definition 1 --------------------------------------------------------------

SMOOTH = [name for name in nets.ACTIVATIONS if name not in reference.KINKED]


@pytest.mark.parametrize("loss", nets.LOSSES)
@pytest.mark.parametrize("name", images.NETS)
def test_gradients_of_the_engine_pass(name, loss):
    net = images.case(name, "tanh", loss)[0]
    X, y = images.data(name, loss)
    if loss == "absolute_error":
        y = y - 100.0
    before = net.theta.copy()
    check_gradient(net, X, y)
    nets.assert_same_bits(net.theta, before)


@pytest.mark.parametrize("activation", SMOOTH)
def test_every_smooth_activation_passes(activation):
    net = images.case("volume", activation)[0]
    check_gradient(net, *images.data("volume"))


def wrong_slopes():
    value = lambda y, t: ((y - t) ** 2).sum(axis=1)  # noqa: E731
    return {
        "twice": fnn.Loss(value, lambda y, t: 4 * (t - y)),
        "the other way": fnn.Loss(value, lambda y, t: 2 * (y - t)),
        "none": fnn.Loss(value, lambda y, t: 0 * t),
        "one output": fnn.Loss(value, lambda y, t: 2 * (t - y) * [1, 1, 0]),
        "a little": fnn.Loss(value, lambda y, t: 2.02 * (t - y)),
    }


@pytest.mark.parametrize("kind", wrong_slopes())
def test_a_wrong_gradient_is_found(kind):
    net = nets.network([4, 6, 3], "tanh", wrong_slopes()[kind])
    rng = np.random.default_rng(0)
    before = net.theta.copy()
    with pytest.raises(AssertionError, match=r"\d"):
        check_gradient(net, rng.normal(size=(9, 4)), rng.normal(size=(9, 3)))
    nets.assert_same_bits(net.theta, before)


@pytest.mark.parametrize("name", ["adjoint_input", "adjoint_weight"])
def test_a_wrong_map_is_found_by_its_gradient(name):
    wrong = type("Wrong", (Ring,), {name: BROKEN[name][0]})()
    net = fnn.Network(
        [fnn.Dense(5, "tanh"), fnn.Bilinear(wrong, "tanh"), fnn.Dense(2)],
        input_shape=3,
        dtype="float64",
    )
    rng = np.random.default_rng(0)
    with pytest.raises(AssertionError):
        check_gradient(net, rng.normal(size=(9, 3)), rng.normal(size=(9, 2)))


def test_a_linear_net_has_no_remainder():
    """Nothing is left to take the slope of; that is no error."""
    net = nets.network([3, 2], loss="absolute_error")
    rng = np.random.default_rng(0)
    check_gradient(net, rng.normal(size=(5, 3)), np.full((5, 2), 100.0))
