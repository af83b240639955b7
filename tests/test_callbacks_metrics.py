"""History, metrics, callbacks and early stopping."""

from collections.abc import Mapping

import nets
import numpy as np
import pytest

import fnn_core as fnn


def classes(rng, n=60):
    X = rng.normal(size=(n, 7))
    return X, (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def classifier():
    return nets.network([7, 11, 3], "relu", "softmax_cross_entropy")


def test_history_is_a_mapping(rng):
    history = classifier().fit(*classes(rng), epochs=3, metrics=("accuracy",))
    assert isinstance(history, fnn.History)
    assert isinstance(history, Mapping)
    assert {"loss", "accuracy"} <= set(history)
    assert len(history) == len(set(history))
    assert all(len(numbers) == 3 for numbers in history.values())
    with pytest.raises(KeyError):
        history["val_loss"]


def test_accuracy(rng):
    """In training from the outputs that the steps produced: here one step, from before it."""
    X, y = classes(rng)
    Xv, yv = classes(rng, 33)
    net = classifier()
    before = np.mean(net.predict(X).argmax(axis=1) == y)
    history = net.fit(X, y, batch_size=60, metrics=("accuracy",), validation_data=(Xv, yv))
    assert history["accuracy"] == [pytest.approx(before)]
    after = np.mean(net.predict(Xv).argmax(axis=1) == yv)
    assert history["val_accuracy"] == [pytest.approx(after)]


def test_accuracy_of_short_last_batches(rng):
    X, y = classes(rng)
    net, stepwise, optimizer, right = classifier(), classifier(), fnn.Adam(), 0
    history = net.fit(X, y, batch_size=16, metrics=("accuracy",), shuffle=False)
    for i in range(0, 60, 16):
        part = slice(i, i + 16)
        right += np.sum(stepwise.predict(X[part]).argmax(axis=1) == y[part])
        stepwise.step(X[part], y[part], optimizer)
    assert history["accuracy"] == [pytest.approx(right / 60)]


def test_accuracy_of_probabilities_and_of_binary_targets(rng):
    X, y = classes(rng)
    history = classifier().fit(X, np.eye(3)[y], batch_size=60, metrics=("accuracy",))
    assert (
        history["accuracy"]
        == classifier().fit(X, y, batch_size=60, metrics=("accuracy",))["accuracy"]
    )
    net = nets.network([7, 11, 1], loss="binary_cross_entropy")
    before = np.mean((net.predict(X)[:, 0] > 0) == (y > 0))
    history = net.fit(X, (y > 0).astype(int), batch_size=60, metrics=("accuracy",))
    assert history["accuracy"] == [pytest.approx(before)]


def test_metrics_of_regression(rng):
    X, y = rng.normal(size=(60, 7)), rng.normal(size=(60, 1))
    Xv, yv = rng.normal(size=(23, 7)), rng.normal(size=(23, 1))
    net = nets.network([7, 11, 1])

    def both(X, y):
        error = y - net.predict(X)
        return 1 - np.sum(error**2) / np.sum((y - y.mean()) ** 2), np.mean(np.abs(error))

    before = both(X, y)
    history = net.fit(
        X, y, batch_size=60, metrics=("r2", "mean_absolute_error"), validation_data=(Xv, yv)
    )
    after = both(Xv, yv)
    got = [history[name][0] for name in ("r2", "mean_absolute_error")]
    np.testing.assert_allclose(got, before, rtol=1e-10)
    got = [history[name][0] for name in ("val_r2", "val_mean_absolute_error")]
    np.testing.assert_allclose(got, after, rtol=1e-10)


def test_own_metric(rng):
    X, y = rng.normal(size=(60, 7)), rng.normal(size=(60, 3))

    def worst(y, t):
        return np.max(np.abs(y - t))

    net = nets.network([7, 11, 3])
    before = worst(y, net.predict(X))
    history = net.fit(X, y, batch_size=60, metrics=(worst,), validation_data=(X, y))
    assert history["worst"] == [pytest.approx(before)]
    assert history["val_worst"] == [pytest.approx(worst(y, net.predict(X)))]


def test_metrics_change_no_number(rng):
    X, y = classes(rng)
    plain, measured = classifier(), classifier()
    plain.fit(X, y, epochs=2, batch_size=16)
    measured.fit(X, y, epochs=2, batch_size=16, metrics=("accuracy",), validation_data=(X, y))
    nets.assert_same_bits(measured.theta, plain.theta)


def test_callbacks_are_called_after_every_epoch(rng):
    X, y = classes(rng)
    net, seen = classifier(), []

    def callback(given, history):
        assert given is net
        seen.append((len(history["loss"]), history["val_loss"][-1], given.loss(X, y)))

    net.fit(X, y, epochs=4, validation_data=(X, y), callbacks=(callback,))
    assert [epoch for epoch, _, _ in seen] == [1, 2, 3, 4]
    for _, reported, measured in seen:
        assert reported == pytest.approx(measured, rel=1e-12)


def test_a_callback_stops(rng):
    history = classifier().fit(
        *classes(rng), epochs=50, callbacks=[lambda net, history: len(history["loss"]) == 3]
    )
    assert len(history["loss"]) == 3


def test_a_callbacks_exception_surfaces(rng):
    def callback(net, history):
        raise ZeroDivisionError("mine")

    net = classifier()
    with pytest.raises(ZeroDivisionError, match="mine"):
        net.fit(*classes(rng), epochs=3, callbacks=[callback])
    net.fit(*classes(rng))


# --- early stopping -------------------------------------------------------------------------------


def stopped(rng, rates, epochs=30, **options):
    """Training at one rate an epoch, so that the monitored numbers fall and rise as told."""
    X, y = rng.normal(size=(40, 7)), rng.normal(size=(40, 3))
    net, thetas = nets.network([7, 3]), []
    per_epoch = 40 // 8
    schedule = lambda step: rates[min(step // per_epoch, len(rates) - 1)]  # noqa: E731
    history = net.fit(
        X,
        y,
        epochs=epochs,
        batch_size=8,
        optimizer=fnn.SGD(schedule),
        validation_data=(X, y),
        metrics=("mean_absolute_error", "r2"),
        callbacks=(
            lambda n, h: thetas.append(n.theta.copy()) and None,
            fnn.EarlyStopping(**options),
        ),
    )
    return net, thetas, history


@pytest.mark.parametrize("monitor", ["val_loss", "loss", "val_mean_absolute_error", "val_r2"])
@pytest.mark.parametrize("restore_best", [True, False])
def test_early_stopping(monitor, restore_best, rng):
    """Learns for six epochs, then is thrown off by a large rate."""
    net, thetas, history = stopped(
        rng, [0.02] * 6 + [0.3], monitor=monitor, patience=3, restore_best=restore_best
    )
    values = np.array(history[monitor])
    best = int(np.argmax(values) if monitor == "val_r2" else np.argmin(values))
    assert len(values) == best + 1 + 3 < 30
    nets.assert_same_bits(net.theta, thetas[best if restore_best else -1])


def test_the_best_is_restored_after_the_last_epoch_too(rng):
    net, thetas, history = stopped(rng, [0.02] * 3 + [0.3], epochs=5, patience=10)
    assert len(history["val_loss"]) == 5
    nets.assert_same_bits(net.theta, thetas[int(np.argmin(history["val_loss"]))])


def test_min_delta(rng):
    """Improvements that are too small do not count."""
    _, _, history = stopped(rng, [1e-4], patience=4, min_delta=10.0)
    assert len(history["val_loss"]) == 5


def test_mode(rng):
    _, _, history = stopped(rng, [0.01], monitor="val_loss", mode="max", patience=2)
    assert len(history["val_loss"]) == 3


def test_unknown_monitor_names_the_known(rng):
    with pytest.raises(ValueError, match=r"val_los.*val_loss"):
        stopped(rng, [0.01], monitor="val_los")


def test_one_object_serves_two_fits(rng):
    X, y = rng.normal(size=(40, 7)), rng.normal(size=(40, 3))
    early = fnn.EarlyStopping(patience=2)
    lengths = []
    for _ in range(2):
        net = nets.network([7, 3])
        history = net.fit(
            X, y, epochs=6, optimizer=fnn.SGD(1e-3), validation_data=(X, y), callbacks=[early]
        )
        lengths.append(len(history["loss"]))
    assert lengths == [6, 6], "the first fit's best loss stops the second"


def test_progress(rng, capsys):
    pytest.importorskip("tqdm")
    history = classifier().fit(*classes(rng), epochs=3, progress=True)
    shown = capsys.readouterr()
    assert "loss" in shown.err + shown.out
    assert len(history["loss"]) == 3
    classifier().fit(*classes(rng), epochs=3)
    shown = capsys.readouterr()
    assert not shown.err + shown.out


def test_early_stopping_when_a_number_is_none():
    """One that is not finite is no improvement, wherever it comes."""
    numbers = iter([np.nan, 0.5, np.nan, 0.25, 0.3, 0.3])
    net, stop = classifier(), fnn.EarlyStopping("score", patience=2, mode="min")
    history = fnn.History()
    thetas = []
    for number in numbers:
        net.theta[...] = len(thetas)
        thetas.append(net.theta.copy())
        history.append({"score": number})
        if stop(net, history):
            break
    assert (history.epochs, stop.best, stop.best_epoch) == (6, 0.25, 3)
    stop.end(net)
    assert np.array_equal(net.theta, thetas[3])


def test_the_best_number_is_as_the_history_has_it(rng):
    X, y = classes(rng)
    stop = fnn.EarlyStopping("accuracy")
    history = classifier().fit(X, y, epochs=3, metrics="accuracy", callbacks=stop)
    assert stop.best == max(history["accuracy"])


@pytest.mark.parametrize(
    "metrics",
    [
        (lambda y, t: 1.0, lambda y, t: 2.0),
        ("accuracy", "accuracy"),
        pytest.param(lambda y, t: 1.0, id="loss"),
        "r2",
        "mean_absolute_error",
    ],
)
def test_metrics_that_cannot_be_reported(metrics, rng, request):
    X, y = classes(rng)
    if callable(metrics):
        metrics.__name__ = "loss"
    net = classifier()
    before = net.theta.copy()
    with pytest.raises(ValueError, match="metrics"):
        net.fit(X, y, metrics=metrics)
    assert np.array_equal(net.theta, before)


def test_metrics_that_do_not_fit_what_validates(rng):
    X, y = classes(rng)
    net = classifier()
    before = net.theta.copy()
    with pytest.raises(ValueError, match="metrics"):
        net.fit(X, np.eye(3)[y], metrics="r2", validation_data=(X, y))
    assert np.array_equal(net.theta, before)


@pytest.mark.parametrize("value", [None, "much", np.ones(2), 1j])
def test_a_metric_that_is_no_number(value, rng):
    with pytest.raises(TypeError, match=r"metrics.*share\(y, t\)"):
        classifier().fit(*classes(rng), metrics=_named("share", lambda y, t: value))


def _named(name, function):
    function.__name__ = name
    return function


def test_a_callback_is_no_class(rng):
    with pytest.raises(TypeError, match="callbacks"):
        classifier().fit(*classes(rng), callbacks=[fnn.EarlyStopping])
