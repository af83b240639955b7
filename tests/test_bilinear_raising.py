"""What becomes of errors in a user's own map: they surface, and the net is unharmed."""

import threading
from concurrent.futures import ThreadPoolExecutor

import nets
import numpy as np
import pytest
from bilinear_nets import WithBias, data

import fnn_core as fnn

METHODS = ["apply", "adjoint_input", "adjoint_weight", "spread", "gather"]
CALLS = {
    "predict": lambda net, X, y: net.predict(X),
    "loss": lambda net, X, y: net.loss(X, y),
    "gradients": lambda net, X, y: net.gradients(X, y),
    "step": lambda net, X, y: net.step(X, y, fnn.SGD(0.1)),
    "fit": lambda net, X, y: net.fit(X, y, optimizer=fnn.Adam(0.1), shuffle=False),
    "immediate fit": lambda net, X, y: net.fit(
        X, y, optimizer="sgd", update="immediate", shuffle=False
    ),
    "vjp": lambda net, X, y: net.vjp(X, y),
    "jvp": lambda net, X, y: net.jvp(X, net.theta),
    "hessian": lambda net, X, y: net.hessian(X, y) @ np.ones(net.n_parameters),
    "norms": lambda net, X, y: net.per_sample_gradient_norms(X, y),
    "dpsgd": lambda net, X, y: net.step(X, y, fnn.DPSGD(0.1, 1.0, 1.0)),
}
FORWARD = {"predict", "loss", "jvp"}


def breaking(method, what):
    """A net whose map fails in one method, after ``broken`` is set."""

    class Breaking(WithBias):
        broken = False

    def replacement(self, *arguments):
        result = getattr(WithBias, method)(self, *arguments)
        return what(result) if self.broken else result

    setattr(Breaking, method, replacement)
    chosen = Breaking()
    net = fnn.Network(
        [fnn.Conv(2, 2, "tanh"), fnn.Bilinear(chosen, "tanh"), fnn.Flatten(), fnn.Dense(3)],
        input_shape=(7, 2),
        dtype="float64",
    )
    return net, chosen


class MineError(Exception):
    pass


def fails(result):
    raise MineError("mine")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("method", METHODS)
def test_an_exception_surfaces_and_the_net_is_unharmed(method, call):
    net, chosen = breaking(method, fails)
    X, y = data()
    before, expected = net.theta.copy(), net.predict(X)
    chosen.broken = True
    if call in FORWARD and method not in ("apply", "spread"):
        CALLS[call](net, X, y)
        return
    with pytest.raises(MineError, match="mine"):
        CALLS[call](net, X, y)
    nets.assert_same_bits(net.theta, before)
    chosen.broken = False
    nets.assert_same_bits(net.predict(X), expected)
    CALLS[call](net, X, y)
    other, _ = breaking(method, fails)
    if call in ("step", "immediate fit"):
        CALLS[call](other, X, y)
        nets.assert_same_bits(net.theta, other.theta, "the failed step left a trace")


@pytest.mark.parametrize("update", ["deferred", "immediate"])
@pytest.mark.parametrize("method", METHODS)
def test_an_exception_in_the_midst_of_training(method, update):
    """The steps before it stand; the net goes on once the map works again."""
    calls = []

    def fails_in_the_third_step(result):
        calls.append(0)
        if len(calls) == 3:
            raise MineError("mine")
        return result

    net, chosen = breaking(method, fails_in_the_third_step)
    alone, _ = breaking(method, fails)
    X, y = data(20)
    options = {"batch_size": 5, "shuffle": False, "update": update}
    chosen.broken = True
    with pytest.raises(MineError, match="mine"):
        net.fit(X, y, optimizer=fnn.SGD(0.01), **options)
    alone.fit(X[:10], y[:10], optimizer=fnn.SGD(0.01), **options)
    nets.assert_same_bits(net.theta, alone.theta)
    for each in (net, alone):
        each.fit(X, y, optimizer=fnn.SGD(0.01), **options)
    nets.assert_same_bits(net.theta, alone.theta)


@pytest.mark.parametrize("call", ["predict", "gradients", "step", "fit", "immediate fit", "vjp"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "what",
    [
        lambda result: None,
        lambda result: "text",
        lambda result: result[..., :1],
        lambda result: result[None],
        lambda result: result.T if result.ndim > 1 else result[:-1],
        lambda result: result * 1j,
    ],
)
def test_what_a_method_returns_is_checked(what, method, call):
    net, chosen = breaking(method, what)
    X, y = data()
    before = net.theta.copy()
    chosen.broken = True
    if call == "predict" and method not in ("apply", "spread"):
        return
    with pytest.raises((ValueError, TypeError), match=method):
        CALLS[call](net, X, y)
    nets.assert_same_bits(net.theta, before)
    chosen.broken = False
    CALLS[call](net, X, y)


def test_any_real_dtype_may_come_back(rng):
    """Lists, other floats and non-contiguous results are taken as they are."""
    X, y = data()
    want = breaking("apply", fails)[0].gradients(X, y)[1].theta
    for what in (
        lambda result: result.tolist(),
        lambda result: result.astype(">f8"),
        np.asfortranarray,
        lambda result: np.repeat(result, 2, axis=0)[::2],
        lambda result: np.lib.stride_tricks.as_strided(result, writeable=False),
    ):
        for method in METHODS:
            net, chosen = breaking(method, what)
            chosen.broken = True
            nets.assert_close(net.gradients(X, y)[1].theta, want, terms=100)


def test_not_finite():
    net, chosen = breaking("apply", lambda result: result * np.nan)
    X, y = data()
    before = net.theta.copy()
    chosen.broken = True
    with pytest.raises(fnn.NonFiniteLossError):
        net.fit(X, y)
    nets.assert_same_bits(net.theta, before)


def test_a_map_that_uses_the_net_itself(rng):
    """A second writer gets an error, not a wait for itself."""
    inner = []

    class Reentrant(WithBias):
        def apply(self, x, w):
            if not inner:
                inner.append(0)
                with pytest.raises(RuntimeError):
                    net.step(*data(), fnn.SGD(0.1))
            return super().apply(x, w)

    net = fnn.Network(
        [fnn.Conv(2, 2), fnn.Bilinear(Reentrant()), fnn.Flatten(), fnn.Dense(3)],
        input_shape=(7, 2),
        dtype="float64",
    )
    net.step(*data(), fnn.SGD(0.1))
    assert inner


def test_an_exception_reaches_the_thread_that_it_is_of():
    """Of two in the same plan, one fails while the other is still in its call."""
    failed, begun = threading.Event(), threading.Event()

    class Waiting(WithBias):
        def apply(self, x, w):
            if (x == 7).any():
                raise MineError("seven")
            if not begun.is_set():
                begun.set()
                failed.wait(30)
            return super().apply(x, w)

    waiting = Waiting()
    shape = waiting.input_shape
    net = fnn.Network([fnn.Bilinear(waiting)], input_shape=shape, dtype="float64")
    begun.set()
    expected = net.predict(np.ones((4, *shape)))
    begun.clear()
    with ThreadPoolExecutor(1) as pool:
        fine = pool.submit(net.predict, np.ones((4, *shape)))
        begun.wait(30)
        with pytest.raises(MineError, match="seven"):
            net.predict(np.full((4, *shape), 7.0))
        failed.set()
        nets.assert_same_bits(fine.result(), expected)


def test_an_exception_in_validation_alone():
    """It comes out of `fit`, not of whatever is called next."""

    class Few(WithBias):
        def apply(self, x, w):
            if len(x) == 3:
                raise MineError("three")
            return super().apply(x, w)

    few = Few()
    net = fnn.Network(
        [fnn.Bilinear(few), fnn.Flatten(), fnn.Dense(1)], few.input_shape, dtype="float64"
    )
    X, y = np.ones((8, *few.input_shape)), np.ones((8, 1))
    with pytest.raises(MineError, match="three"):
        net.fit(X, y, validation_data=(X[:3], y[:3]))
    assert net.predict(X[:2]).shape == (2, 1)
