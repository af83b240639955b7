"""Wrong data and wrong arguments of calls: refused before anything is touched."""

import nets
import numpy as np
import pytest
from test_errors_descriptions import INF, NAN, REFUSED

import fnn_core as fnn

N, D, OUT = 30, 4, 10


def regression(dtype="float64"):
    return nets.network([D, 6, OUT], "relu", dtype=dtype)


def classifier(dtype="float64"):
    return nets.network([D, 6, OUT], "relu", "softmax_cross_entropy", dtype=dtype)


def data(labels=False):
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, D)), rng.integers(0, OUT, N) if labels else rng.normal(size=(N, OUT))


def step_again(net, X, y, **options):
    """A second step with one optimizer: it checks as much as the first."""
    optimizer = fnn.SGD(0.0)
    inputs, labels = data(labels=True)
    uses_labels = net.loss_function.name == "softmax_cross_entropy"
    targets = labels if uses_labels else np.eye(OUT, dtype=net.dtype)[labels]
    net.step(inputs.astype(net.dtype), targets, optimizer)
    net.step(X, y, optimizer, **options)


CALLS = {
    "step again": step_again,
    "fit": lambda net, X, y, **options: net.fit(X, y, **options),
    "immediate fit": lambda net, X, y, **options: net.fit(X, y, update="immediate", **options),
    "step": lambda net, X, y, **options: net.step(X, y, fnn.SGD(0.1), **options),
    "gradients": lambda net, X, y, **options: net.gradients(X, y, **options),
    "loss": lambda net, X, y, **options: net.loss(X, y, **options),
}


def refuses(net, call, *words):
    """An error that holds every word; the net is as it was, and still works."""
    before = net.theta.copy()
    with pytest.raises(REFUSED) as caught:
        call()
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"
    nets.assert_same_bits(net.theta, before)
    net.predict(np.zeros((2, D)))


# --- X --------------------------------------------------------------------------------------------

WRONG_X = {
    "features": (np.zeros((N, D + 1)), ["X", str(D), str(D + 1)]),
    "one axis": (np.zeros(D), ["X", str(D)]),
    "three axes": (np.zeros((N, D, 1)), ["X", str(D)]),
    "a scalar": (3.0, ["X"]),
    "complex": (np.zeros((N, D), complex), ["X", "complex"]),
    "text": (np.full((N, D), "a"), ["X"]),
    "objects": (np.full((N, D), None), ["X"]),
    "dates": (np.zeros((N, D), "datetime64[s]"), ["X", "datetime64"]),
    "ragged": ([[1.0] * D, [1.0]], ["X"]),
    "nothing": (None, ["X"]),
}


@pytest.mark.parametrize("call", [*CALLS, "predict"])
@pytest.mark.parametrize("kind", WRONG_X)
def test_wrong_x(kind, call):
    X, words = WRONG_X[kind]
    net, y = regression(), data()[1]
    if call == "predict":
        refuses(net, lambda: net.predict(X), *words)
    else:
        refuses(net, lambda: CALLS[call](net, X, y), *words)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("call", ["fit", "immediate fit", "step", "step again"])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_x_must_be_finite(bad, call, dtype):
    """Wherever it lies, and before the first step: a pass over all of X comes first."""
    for given in nets.DTYPES:
        X, y = data()
        X = X.astype(given)
        for i in (0, 13, N - 1):
            spoiled = X.copy()
            spoiled[i, 2] = bad
            net = regression(dtype)
            refuses(net, lambda n=net, X=spoiled, y=y: CALLS[call](n, X, y), "X", str(i))


@pytest.mark.parametrize("call", ["fit", "step", "step again"])
def test_x_that_overflows_the_dtype(call):
    X, y = data()
    X[3, 1] = 1e300
    net = regression("float32")
    refuses(net, lambda: CALLS[call](net, X, y), "X", "3")


@pytest.mark.parametrize("call", CALLS)
def test_empty_data(call):
    net = regression()
    refuses(net, lambda: CALLS[call](net, np.empty((0, D)), np.empty((0, OUT))), "X")


# --- y --------------------------------------------------------------------------------------------

WRONG_Y = {
    "too few": (np.zeros((N - 1, OUT)), ["y", str(N), str(N - 1)]),
    "outputs": (np.zeros((N, OUT + 1)), ["y", str(OUT), str(OUT + 1)]),
    "flat": (np.zeros(N), ["y", str(OUT)]),
    "complex": (np.zeros((N, OUT), complex), ["y", "complex"]),
    "text": (np.full((N, OUT), "a"), ["y"]),
    "nothing": (None, ["y"]),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", WRONG_Y)
def test_wrong_y(kind, call):
    y, words = WRONG_Y[kind]
    net, X = regression(), data()[0]
    refuses(net, lambda: CALLS[call](net, X, y), *words)


@pytest.mark.parametrize("call", ["fit", "immediate fit", "step", "step again"])
@pytest.mark.parametrize("bad", [NAN, INF])
def test_y_must_be_finite(bad, call):
    X, y = data()
    y[17, 3] = bad
    net = regression()
    refuses(net, lambda: CALLS[call](net, X, y), "y", "17")


@pytest.mark.parametrize(
    ("loss", "wrong"),
    [
        ("binary_cross_entropy", -0.1),
        ("binary_cross_entropy", 1.5),
        ("softmax_cross_entropy", -0.1),
        ("softmax_cross_entropy", 1.5),
        ("poisson", -1.0),
    ],
)
def test_targets_that_a_loss_does_not_take(loss, wrong):
    X, y = data()[0], np.zeros((N, OUT))
    y[17, 3] = wrong
    net = nets.network([D, 6, OUT], "relu", loss)
    for call in CALLS.values():
        refuses(net, lambda call=call: call(net, X, y), "y[17, 3]", str(wrong), loss)


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint64"])
@pytest.mark.parametrize("call", CALLS)
def test_labels_out_of_range(call, dtype):
    X, y = data(labels=True)
    for wrong in (12, OUT, -1, 100):
        if wrong < 0 and dtype.startswith("u"):
            continue
        y = y.astype(dtype)
        y[17] = wrong
        net = classifier()
        refuses(net, lambda n=net, y=y: CALLS[call](n, X, y), f"y[17] = {wrong}", "0..9")


@pytest.mark.parametrize("call", CALLS)
def test_huge_labels_do_not_wrap_around(call):
    X, y = data(labels=True)
    net = classifier()
    for wrong, dtype in ((2**32, "int64"), (2**63 + 1, "uint64"), (-(2**62), "int64")):
        y = y.astype(dtype)
        y[17] = wrong
        refuses(net, lambda y=y: CALLS[call](net, X, y), "y[17]", str(wrong))


@pytest.mark.parametrize("call", CALLS)
def test_labels_must_be_whole(call):
    X, y = data(labels=True)
    net = classifier()
    refuses(net, lambda: CALLS[call](net, X, y + 0.5), "y")
    refuses(net, lambda: CALLS[call](net, X, np.full(N, "a")), "y")
    refuses(net, lambda: CALLS[call](net, X, y[:-1]), "y", str(N), str(N - 1))


# --- sample weights -------------------------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "weights",
    [
        np.ones(N - 1),
        np.ones((N, 2)),
        -np.ones(N),
        np.where(np.arange(N) == 5, -1e-3, 1),
        np.zeros(N),
        np.full(N, NAN),
        np.where(np.arange(N) == 5, INF, 1),
        "heavy",
        3,
    ],
)
def test_sample_weights(weights, call):
    X, y = data()
    net = regression()
    refuses(net, lambda: CALLS[call](net, X, y, sample_weight=weights), "sample_weight")


def test_labels_that_change_while_they_are_used():
    """The caller's array is read as it lies, and may be written to: nothing else is then."""
    X, y = data(labels=True)
    for classes in (OUT, 200):  # a sample a lane, and a sample a row
        for validation in (False, True):
            net = nets.network([D, 6, classes], "relu", "softmax_cross_entropy")
            labels = y.copy()
            options = {"validation_data": (X, labels)} if validation else {}

            def spoil(net, history, labels=labels):
                labels[3] = 10**9

            targets = y if validation else labels
            call = lambda: net.fit(X, targets, epochs=2, callbacks=spoil, **options)  # noqa: E731,B023
            if validation:
                assert np.isnan(call()["val_loss"][1])
            else:
                with pytest.raises(fnn.NonFiniteLossError):
                    call()
            assert np.isfinite(net.theta).all()


# --- the other arguments of fit -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("epochs", -1),
        ("epochs", 1.5),
        ("epochs", "two"),
        ("batch_size", 0),
        ("batch_size", -1),
        ("batch_size", 2.5),
        ("batch_size", "all"),
        ("optimizer", "adams"),
        ("optimizer", 3),
        ("optimizer", None),
        ("optimizer", fnn.Adam),
        ("update", "at once"),
        ("update", None),
        ("shuffle", "yes"),
        ("metrics", ("acuracy",)),
        ("metrics", (3,)),
        ("metrics", 3),
        ("callbacks", (3,)),
        ("callbacks", 3),
        ("validation_data", 3),
        ("validation_data", (np.zeros((3, D)),)),
        ("validation_data", (np.zeros((3, D + 1)), np.zeros((3, OUT)))),
        ("validation_data", (np.zeros((3, D)), np.zeros((4, OUT)))),
        ("validation_data", (np.full((3, D), NAN), np.zeros((3, OUT)))),
        ("validation_data", (np.zeros((0, D)), np.zeros((0, OUT)))),
    ],
)
def test_arguments_of_fit(name, wrong):
    net = regression()
    shown = [str(wrong)] if isinstance(wrong, int | float | str) else []
    refuses(net, lambda: net.fit(*data(), **{name: wrong}), name, *shown)


def test_unknown_names_come_with_the_known():
    net = regression()
    refuses(net, lambda: net.fit(*data(), optimizer="adams"), "adamw", "sgd")
    refuses(net, lambda: net.fit(*data(), metrics=("acuracy",)), "accuracy")
    refuses(net, lambda: net.fit(*data(), update="soon"), "immediate", "deferred", "auto")


@pytest.mark.parametrize(
    ("name", "wrong"), [("optimizer", "adams"), ("update", "x"), ("batch_size", 0)]
)
def test_arguments_of_memory_plan(name, wrong):
    net = regression()
    options = {"batch_size": 8, name: wrong}
    refuses(net, lambda: net.memory_plan(**options), name, str(wrong))


@pytest.mark.parametrize("wrong", ["adams", 3, None, fnn.Adam])
def test_optimizer_of_step(wrong):
    net = regression()
    refuses(net, lambda: net.step(*data(), wrong), "optimizer")


# --- out ------------------------------------------------------------------------------------------


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "out",
    [
        np.empty((N, OUT + 1)),
        np.empty((N - 1, OUT)),
        np.empty((N, OUT), "float32"),
        np.empty((N, OUT), ">f8"),
        np.empty((OUT, N)).T,
        np.empty((N, 2 * OUT))[:, ::2],
        read_only(np.empty((N, OUT))),
        [[0.0] * OUT] * N,
        3,
    ],
)
def test_out_of_predict(out):
    net = regression()
    refuses(net, lambda: net.predict(data()[0], out=out), "out")


def test_out_that_is_the_input():
    net = nets.network([D, 6, D])
    X = data()[0]
    refuses(net, lambda: net.predict(X, out=X), "out", "X")
    refuses(net, lambda: net.predict(X[:-1], out=X[1:]), "out", "X")


def test_out_of_gradients():
    net, other = regression(), nets.network([D, 7, OUT])
    foreign = other.gradients(*data())[1]
    for wrong in (3, np.empty(net.n_parameters), foreign):
        refuses(net, lambda wrong=wrong: net.gradients(*data(), out=wrong), "out")


def test_the_boundary_checks_what_changed_under_it():
    """A view's shape or dtype cannot be changed from outside, so that C never reads past it."""
    net = regression()
    with pytest.raises((AttributeError, ValueError, TypeError)):
        net.theta = np.zeros(3)
    assert net.theta.size == net.n_parameters
    net.predict(np.zeros((2, D)))


def test_own_slopes_must_be_finite():
    """Where the value is: else the parameters would be lost before a loss shows it."""
    for wrong in (NAN, INF):
        loss = fnn.Loss(lambda y, t: ((t - y) ** 2).sum(1), lambda y, t, w=wrong: t * 0 + w)
        net = nets.network([D, OUT], loss=loss)
        refuses(net, lambda net=net: net.fit(*data()), "slope(y, t)", "finite")


def test_wrong_validation_weights_are_named():
    X, y = data()
    net = regression()
    wrong = (X, y, -np.ones(N))
    refuses(net, lambda: net.fit(X, y, validation_data=wrong), "validation_data[2]")


def test_predictions_are_not_written_over_the_parameters():
    net = nets.network([D, D + 1])
    X = np.zeros((D + 1, D))
    out = net.theta[: (D + 1) ** 2].reshape(D + 1, D + 1)
    refuses(net, lambda: net.predict(X, out=out), "out")


@pytest.mark.parametrize(("dtype", "weight"), [("float32", 1e-40), ("float64", 1e308)])
def test_weights_that_no_sum_can_have(dtype, weight):
    """They would count as zero, or as infinite."""
    X, y = (array.astype(dtype) for array in data())
    net = regression(dtype)
    for call in ("fit", "step", "gradients", "loss"):
        refuses(
            net,
            lambda call=call: CALLS[call](net, X, y, sample_weight=np.full(N, weight)),
            "sample_weight",
        )
