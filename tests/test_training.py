"""fit and step: what an epoch is, that it repeats, and that a step that fails leaves no trace."""

import tracemalloc

import nets
import numpy as np
import pytest

import fnn_core as fnn


def visits(n, batch_size, shuffle=True, seed=0, epochs=1):
    """How each sample's own weight moved in an epoch from zero: 2η/B for its batch of B."""
    net = fnn.Network(
        [fnn.Dense(1, bias=False)], input_shape=n, loss="squared_error", dtype="float64", seed=seed
    )
    net.theta[:] = 0
    net.fit(
        np.eye(n),
        np.ones(n),
        epochs=epochs,
        batch_size=batch_size,
        optimizer=fnn.SGD(1e-9),
        shuffle=shuffle,
    )
    return net.theta / 2e-9


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (12, 4), (1, 1), (5, 8), (257, 16)])
def test_an_epoch_visits_each_sample_once(n, batch_size, shuffle):
    moved = visits(n, batch_size, shuffle)
    last = n % batch_size
    want = np.full(n, 1 / min(batch_size, n))
    if last:
        want[n - last :] = 1 / last
    if shuffle:
        moved, want = np.sort(moved), np.sort(want)
    np.testing.assert_allclose(moved, want, rtol=1e-6)


def test_shuffling_is_seeded_and_changes():
    lone = [int(np.argmax(visits(41, 8, seed=seed))) for seed in range(12)]
    assert lone == [int(np.argmax(visits(41, 8, seed=seed))) for seed in range(12)]
    assert len(set(lone)) > 6
    once, thrice = visits(41, 8), visits(41, 8, epochs=3)
    assert not np.allclose(thrice, 3 * once, rtol=1e-3), "every epoch in the same order"


def data(rng, n=50, loss="squared_error", dtype="float64"):
    X = rng.normal(size=(n, 7)).astype(dtype)
    return X, nets.targets(rng, loss, n, 3)


@pytest.mark.parametrize("update", ["deferred", "immediate"])
@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_an_epoch_is_its_steps(dtype, update, rng):
    X, y = data(rng, dtype=dtype)
    s = rng.uniform(0.5, 2, 50).astype(dtype)
    whole, stepwise = (nets.network([7, 11, 3], dtype=dtype) for _ in range(2))
    one, two = fnn.Adam(1e-2), fnn.Adam(1e-2)
    for _ in range(2):
        whole.fit(X, y, batch_size=16, optimizer=one, sample_weight=s, shuffle=False, update=update)
        for i in range(0, 50, 16):
            part = slice(i, i + 16)
            stepwise.step(X[part], y[part], two, sample_weight=s[part])
    nets.assert_same_bits(whole.theta, stepwise.theta)


@pytest.mark.parametrize("loss", nets.LOSSES)
def test_step_returns_the_loss_before(loss, rng):
    X, y = data(rng, loss=loss)
    net = nets.network([7, 11, 3], "relu", loss)
    for s in (None, rng.uniform(0.1, 3, 50)):
        before = net.loss(X, y, sample_weight=s)
        value = net.step(X, y, fnn.SGD(1e-3), sample_weight=s)
        assert isinstance(value, float)
        assert value == pytest.approx(before, rel=1e-13)
        assert net.loss(X, y, sample_weight=s) < before


@pytest.mark.parametrize("weighted", [False, True])
def test_history_of_losses(weighted, rng):
    """An epoch's loss is the mean over its samples, as its steps saw them."""
    X, y = data(rng)
    Xv, yv = data(rng, 23)
    net, stepwise = (nets.network([7, 11, 3]) for _ in range(2))
    s = rng.uniform(0.1, 3, 50) if weighted else np.ones(50)
    history = net.fit(
        X,
        y,
        epochs=3,
        batch_size=16,
        optimizer="sgd",
        shuffle=False,
        sample_weight=s if weighted else None,
        validation_data=(Xv, yv),
    )
    optimizer, total = fnn.SGD(), 0.0
    for i in range(0, 50, 16):
        part = slice(i, i + 16)
        total += stepwise.loss(X[part], y[part], sample_weight=s[part]) * s[part].sum()
        stepwise.step(X[part], y[part], optimizer, sample_weight=s[part])
    assert history["loss"][0] == pytest.approx(total / s.sum(), rel=1e-12)
    assert history["val_loss"][-1] == pytest.approx(net.loss(Xv, yv), rel=1e-12)
    assert len(history["loss"]) == len(history["val_loss"]) == 3
    assert all(type(number) is float for number in history["loss"])


@pytest.fixture
def calls_of_engine(monkeypatch):
    """One entry a call of the engine's training loop, which makes at most twelve steps."""
    calls = []
    passes = fnn.training._passes
    monkeypatch.setattr(fnn.training, "STEPS_A_CALL", 3 * 4)
    monkeypatch.setattr(fnn.training, "_passes", lambda *a: calls.append(1) or passes(*a))
    return calls


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: fnn.Adam(1e-2),
        lambda: fnn.SGD(fnn.schedules.Cosine(1e-2, 40)),
        lambda: fnn.DPSGD(1e-2, 0.5, 1.0, seed=3),
    ],
    ids=["constant", "schedule", "private"],
)
def test_epochs_without_a_break_are_like_others(optimizer, n_threads, dtype, rng, calls_of_engine):
    """Where nothing happens between them, the engine makes several in one call."""
    X, y = data(rng, dtype=dtype)
    layers = [fnn.Dense(11, "tanh"), fnn.Dropout(0.3), fnn.Dense(3)]
    settings = {"input_shape": 7, "loss": "squared_error", "dtype": dtype, "n_threads": n_threads}
    plain, called = (fnn.Network(layers, **settings) for _ in range(2))
    epochs, options = np.uint8(11), {"batch_size": 16}
    history = plain.fit(X, y, epochs=epochs, optimizer=optimizer(), **options)
    assert len(calls_of_engine) == 4
    watch = {"callbacks": lambda net, history: None}
    other = called.fit(X, y, epochs=epochs, optimizer=optimizer(), **watch, **options)
    assert len(calls_of_engine) == 4 + 11
    nets.assert_same_bits(plain.theta, called.theta)
    assert list(history) == list(other) == ["loss", "seconds"]
    assert history["loss"] == other["loss"]
    assert len(history["seconds"]) == 11
    assert all(seconds > 0 for seconds in history["seconds"])


@pytest.mark.parametrize("watch", ["callbacks", "metrics", "validation_data", "progress", "loss"])
def test_python_comes_between_epochs_where_it_is_wanted(watch, rng, calls_of_engine):
    X, y = data(rng)
    own = fnn.Loss(lambda y, t: ((t - y) ** 2).sum(axis=1), lambda y, t: 2 * (t - y))
    net = nets.network([7, 11, 3], loss=own if watch == "loss" else "squared_error")
    wanted = {
        "callbacks": {"callbacks": [lambda net, history: None]},
        "metrics": {"metrics": ["r2"]},
        "validation_data": {"validation_data": (X, y)},
        "progress": {"progress": True},
        "loss": {},
    }
    net.fit(X, y, epochs=5, batch_size=16, **wanted[watch])
    assert len(calls_of_engine) == 5


def test_divergence_names_the_epoch(rng, calls_of_engine):
    """Also of an epoch that is not the first of its call."""
    X, y = data(rng)
    options = {"epochs": 500, "batch_size": 16, "shuffle": False}
    epochs = []
    for callbacks in ([], [lambda *_: epochs.append(1)]):
        net = nets.network([7, 11, 3], "relu", dtype="float32")
        with pytest.raises(fnn.NonFiniteLossError) as caught, np.errstate(all="ignore"):
            net.fit(X, y, optimizer=fnn.SGD(0.3), callbacks=callbacks, **options)
        if not callbacks:
            first, steps = caught.value, net.sessions.writer.steps
    assert first.epoch == caught.value.epoch == len(epochs)
    assert first.epoch % 3 != 0, "the first of its call"
    assert first.batch == caught.value.batch
    assert steps == net.sessions.writer.steps == 4 * first.epoch + first.batch


@pytest.mark.parametrize("update", ["immediate", "deferred"])
@pytest.mark.parametrize("schedule", ["blocks", "layers", "two_phase", "streaming"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_without_weight(rng, schedule, update, threads):
    """It asks for no step: neither the parameters, nor the optimizer, nor its rates see it."""
    if (schedule, update) == ("streaming", "immediate"):
        pytest.skip("no such step")
    X = rng.normal(size=(128 * 3, 128)).astype("float32")
    y = rng.normal(size=(len(X), 4)).astype("float32")
    s = np.repeat([1.0, 0.0, 1.0], 128)
    kept = s > 0

    def trained(X, y, s, callbacks=()):
        net = nets.network(
            [128, 192, 192, 4],
            "relu",
            dtype="float32",
            n_threads=threads,
            schedule=schedule,
            gemm="native",  # blocks of BLAS's size would leave one thread nothing to do
        )
        optimizer = fnn.Adam(lambda step: 0.01 * 0.7**step)
        planned = net.sessions.training_plan(128, False, update, optimizer)
        assert (planned.threads > 1) == (threads > 1)
        options = {"epochs": 3, "batch_size": 128, "shuffle": False, "update": update}
        history = net.fit(
            X, y, sample_weight=s, optimizer=optimizer, callbacks=callbacks, **options
        )
        return net, history["loss"], optimizer.steps

    weighted, losses, steps = trained(X, y, s)
    stepwise = trained(X, y, s, callbacks=lambda net, history: None)[0]
    without, expected, _ = trained(X[kept], y[kept], s[kept])
    for net in (weighted, stepwise):
        nets.assert_same_bits(net.theta, without.theta)
        assert net.sessions.writer.steps == 9
    assert (losses, steps) == (expected, 6)


def test_fit_repeats_and_depends_on_the_seed(rng):
    X, y = data(rng)

    def theta(seed):
        net = nets.network([7, 11, 3], seed=seed)
        net.fit(X, y, epochs=2, batch_size=16)
        net.fit(X, y, epochs=1, batch_size=8)
        return net.theta

    nets.assert_same_bits(theta(1), theta(1))
    assert not np.array_equal(theta(1), theta(2))


def test_sample_weights_in_fit(rng):
    """A sample of weight zero, alone in what it would teach, teaches nothing."""
    X, y = data(rng)
    s = np.ones(50)
    s[::3] = 0
    wild = y.copy()
    wild[::3] = 1e6
    thetas = []
    for labels in (y, wild):
        net = nets.network([7, 11, 3])
        net.fit(X, labels, epochs=2, batch_size=16, sample_weight=s)
        thetas.append(net.theta.copy())
    nets.assert_same_bits(*thetas)


@pytest.mark.parametrize("optimizer", nets.OPTIMIZERS)
@pytest.mark.parametrize("loss", nets.LOSSES)
def test_training_learns(loss, optimizer, rng):
    X, y = data(rng, 200, loss)
    net = nets.network([7, 24, 3], "tanh", loss, dtype="float32")
    history = net.fit(
        X, y, epochs=20, batch_size=20, optimizer=fnn.optimizers.REGISTRY[optimizer](0.01)
    )
    assert history["loss"][-1] < history["loss"][0]


def test_digits():
    datasets = pytest.importorskip("sklearn.datasets")
    X, y = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    X, y = X[order] / 16, y[order]
    net = fnn.Network(
        [fnn.Dense(100, "relu"), fnn.Dense(10)], input_shape=64, loss="softmax_cross_entropy"
    )
    net.fit(X[:1400], y[:1400], epochs=40, batch_size=32, optimizer=fnn.Adam(1e-3))
    assert np.mean(net.predict(X[1400:]).argmax(axis=1) == y[1400:]) >= 0.97


# --- data as it comes -----------------------------------------------------------------------------

LAYOUTS = {
    "fortran": np.asfortranarray,
    "strided": lambda X: np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3],
    "reversed": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "big_endian": lambda X: X.astype(X.dtype.newbyteorder(">")),
    "int8": lambda X: X.astype("int8"),
    "uint16": lambda X: X.astype("uint16"),
    "int64": lambda X: X.astype("int64"),
    "float16": lambda X: X.astype("float16"),
    "float32": lambda X: X.astype("float32"),
    "float64": lambda X: X.astype("float64"),
    "bool": lambda X: X.astype("bool"),
    "list": lambda X: X.tolist(),
}


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_dtype_and_strides(layout, dtype, rng):
    """Small whole numbers, which every dtype holds."""
    X, y = rng.integers(0, 2, (20, 7)).astype(dtype), rng.integers(0, 2, (20, 3)).astype(dtype)
    Xs, ys = LAYOUTS[layout](X), LAYOUTS[layout](y)
    for array in (Xs, ys):
        if isinstance(array, np.ndarray):
            array.flags.writeable = False  # the engine never writes to what it is given
    plain, strange = (nets.network([7, 11, 3], dtype=dtype) for _ in range(2))
    assert strange.loss(Xs, ys) == plain.loss(X, y)
    nets.assert_same_bits(strange.predict(Xs), plain.predict(X))
    nets.assert_same_bits(strange.gradients(Xs, ys)[1].theta, plain.gradients(X, y)[1].theta)
    one, two = fnn.Adam(), fnn.Adam()
    for net, a, b, optimizer in ((plain, X, y, one), (strange, Xs, ys, two)):
        net.step(a, b, optimizer)
        net.fit(a, b, epochs=2, batch_size=8, optimizer=optimizer, validation_data=(a, b))
    nets.assert_same_bits(strange.theta, plain.theta)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64", ">i2"])
def test_labels_of_any_integer_dtype(dtype, rng):
    X, y = rng.normal(size=(20, 7)), rng.integers(0, 3, 20)
    plain, other = (nets.network([7, 11, 3], "relu", "softmax_cross_entropy") for _ in range(2))
    strided = np.repeat(y.astype(dtype), 2)[::2]
    strided.flags.writeable = False
    plain.fit(X, y, batch_size=8)
    other.fit(X, strided, batch_size=8)
    nets.assert_same_bits(other.theta, plain.theta)


def test_flat_targets_where_the_output_is_one_number(rng):
    X, y = rng.normal(size=(20, 7)), rng.normal(size=20)
    flat, column = (nets.network([7, 11, 1]) for _ in range(2))
    flat.fit(X, y, batch_size=8, validation_data=(X, y))
    column.fit(X, y[:, None], batch_size=8, validation_data=(X, y[:, None]))
    nets.assert_same_bits(flat.theta, column.theta)
    binary = (y > 0).astype(int)
    net = nets.network([7, 11, 1], loss="binary_cross_entropy")
    assert net.loss(X, binary) == net.loss(X, binary[:, None].astype(float))


def test_no_copy_of_data_that_fits():
    X, y = np.ones((40_000, 100), "float32"), np.zeros(40_000, int)
    net = fnn.Network([fnn.Dense(2)], input_shape=100, loss="softmax_cross_entropy")
    tracemalloc.start()
    net.fit(X, y, batch_size=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.nbytes / 4


# --- a loss that is not finite --------------------------------------------------------------------


def counts(rng, dtype, n=32):
    X = rng.normal(size=(n, 7)).astype(dtype)
    return X, rng.poisson(2.0, (n, 3)).astype(dtype)


def spoil(net, X, i):
    """Sample i becomes one with a finite output t whose exp(t), and so its loss, is infinite."""
    t = net.predict(X[i : i + 1])[0, 0]
    X[i] *= 1e5 / t


@pytest.mark.parametrize("update", ["deferred", "immediate"])
@pytest.mark.parametrize("optimizer", nets.OPTIMIZERS)
@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_a_step_that_is_not_finite_leaves_no_trace(dtype, optimizer, update, rng):
    """Neither in the parameters nor in the optimizer."""
    kind = fnn.optimizers.REGISTRY[optimizer]
    good, bad = counts(rng, dtype), counts(rng, dtype)
    net, spared = (nets.network([7, 11, 3], "identity", "poisson", dtype=dtype) for _ in range(2))
    one, two = kind(0.001), kind(0.001)
    options = {"batch_size": 16, "shuffle": False, "update": update}
    spared.fit(*good, optimizer=two, **options)
    spared.fit(bad[0][:16], bad[1][:16], optimizer=two, **options)
    net.fit(*good, optimizer=one, **options)
    spoil(spared, bad[0], 20)
    with pytest.raises(fnn.NonFiniteLossError) as caught:
        net.fit(*bad, optimizer=one, epochs=3, **options)
    assert caught.value.epoch == 0
    assert caught.value.batch == 1
    assert not np.isfinite(caught.value.value)
    assert "batch" in str(caught.value)
    assert "epoch" in str(caught.value)
    nets.assert_same_bits(net.theta, spared.theta)
    for each, its in ((net, one), (spared, two)):
        each.fit(*good, optimizer=its, **options)
    nets.assert_same_bits(net.theta, spared.theta)


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_step_refuses_a_loss_that_is_not_finite(dtype, rng):
    X, y = counts(rng, dtype)
    net = nets.network([7, 11, 3], "identity", "poisson", dtype=dtype)
    spoil(net, X, 3)
    before = net.theta.copy()
    with pytest.raises(fnn.NonFiniteLossError):
        net.step(X, y, fnn.Adam())
    nets.assert_same_bits(net.theta, before)


def test_divergence_is_reported(rng):
    X, y = data(rng)
    net = nets.network([7, 11, 3], "relu", dtype="float32")
    with pytest.raises(fnn.NonFiniteLossError), np.errstate(all="ignore"):
        net.fit(X, y, epochs=200, batch_size=5, optimizer=fnn.SGD(1e6))
