"""The same bits for any number of threads; several Python threads; signals and forks."""

import threading
from concurrent.futures import ThreadPoolExecutor

import nets
import numpy as np
import pytest

import fnn_core as fnn

WIDTHS, BATCH = [31, 96, 67, 11], 1021  # enough work that threads are used, in uneven blocks


def data(dtype="float32", n=BATCH):
    rng = np.random.default_rng(5)
    return rng.normal(size=(n, WIDTHS[0])).astype(dtype), rng.integers(0, WIDTHS[-1], n)


def results(n_threads, mode="auto", update="auto", activation="tanh", dtype="float32", dropout=0):
    layers = [fnn.Dense(WIDTHS[1], activation), fnn.Dense(WIDTHS[2], activation)]
    if dropout:
        layers.insert(1, fnn.Dropout(dropout))
    net = fnn.Network(
        [*layers, fnn.Dense(WIDTHS[-1])],
        input_shape=WIDTHS[0],
        loss="softmax_cross_entropy",
        memory=mode,
        dtype=dtype,
        n_threads=n_threads,
        seed=3,
    )
    X, y = data(dtype)
    value, grads = net.gradients(X, y)
    history = net.fit(
        X, y, epochs=2, batch_size=509, optimizer="adam", update=update, validation_data=(X, y)
    )
    losses = np.array([value, net.loss(X, y), *history["loss"], *history["val_loss"]])
    return grads.theta, net.theta, net.predict(X), losses


def assert_same(several, one, what):
    for got, want in zip(several, one, strict=True):
        nets.assert_same_bits(got, want, what)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("update", ["immediate", "deferred"])
@pytest.mark.parametrize("mode", nets.MODES)
def test_same_bits_for_any_number_of_threads(mode, update, dtype):
    one = results(1, mode, update, dtype=dtype)
    for n_threads in (2, 3, 8):
        several = results(n_threads, mode, update, dtype=dtype)
        assert_same(several, one, f"{n_threads} threads")


@pytest.mark.parametrize("activation", nets.NOT_REUSABLE)
def test_same_bits_for_the_other_activations(activation):
    one = results(1, activation=activation)
    for n_threads in (2, 3, 8):
        assert_same(results(n_threads, activation=activation), one, f"{n_threads} threads")


def test_same_dropout_masks_for_any_number_of_threads():
    one = results(1, dropout=0.4)
    for n_threads in (2, 3, 8):
        assert_same(results(n_threads, dropout=0.4), one, f"{n_threads} threads")


@pytest.mark.parametrize("n", [1, 2, 8, 61, 256, 4099])
def test_same_bits_for_any_batch(n, rng):
    X, y = rng.normal(size=(n, 40)).astype("float32"), rng.normal(size=(n, 3)).astype("float32")
    net = nets.network([40, 128, 3], "relu", dtype="float32")
    expected = net.gradients(X, y)[1].theta
    for n_threads in (2, 3, 8):
        net.n_threads = n_threads
        assert net.n_threads == n_threads
        nets.assert_same_bits(net.gradients(X, y)[1].theta, expected, f"{n_threads} threads")


@pytest.mark.parametrize("gemm", ["native", "blas"])
@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("n", [63, 70, 300])
def test_same_bits_for_wide_layers(n, dtype, gemm, rng):
    """Wide enough for several panels; BLAS is held to one thread and to fixed shapes."""
    X, y = rng.normal(size=(n, 40)).astype(dtype), rng.normal(size=(n, 3)).astype(dtype)
    thetas = []
    for n_threads in (1, 2, 3, 8):
        net = nets.network([40, 523, 521, 3], "relu", dtype=dtype, n_threads=n_threads, gemm=gemm)
        net.fit(X, y, batch_size=n, epochs=2, update="immediate", validation_data=(X, y))
        thetas.append(np.concatenate([net.theta, net.predict(X).ravel()]))
    for theta in thetas[1:]:
        nets.assert_same_bits(theta, thetas[0])


def test_threads_can_change_between_steps():
    X, y = data()
    options = {"loss": "softmax_cross_entropy", "dtype": "float32"}
    still, changing = (nets.network(WIDTHS, "relu", **options) for _ in range(2))
    one, two = fnn.Adam(), fnn.Adam()
    for n_threads in (2, 1, 8, 3):
        changing.n_threads = n_threads
        assert changing.step(X, y, two) == still.step(X, y, one)
    nets.assert_same_bits(changing.theta, still.theta)


# --- several Python threads -----------------------------------------------------------------------


@pytest.mark.parametrize("n_threads", [1, 2])
def test_predict_from_several_python_threads(n_threads, rng):
    net = nets.network(WIDTHS, "gelu", "softmax_cross_entropy", n_threads=n_threads)
    batches = [rng.normal(size=(n, WIDTHS[0])) for n in (1, 3, 100, 700) * 6]
    labels = [rng.integers(0, WIDTHS[-1], len(X)) for X in batches]
    expected = [(net.predict(X), net.loss(X, y)) for X, y in zip(batches, labels, strict=True)]
    with ThreadPoolExecutor(8) as pool:
        got = pool.map(lambda X, y: (net.predict(X), net.loss(X, y)), batches, labels)
        for (t, value), (t_expected, value_expected) in zip(got, expected, strict=True):
            nets.assert_same_bits(t, t_expected)
            assert value == value_expected


def test_a_second_writer_is_refused(rng):
    """A user's loss runs within the step, and there another thread tries to step too."""
    caught, X, y = [], rng.normal(size=(4, 3)), rng.normal(size=(4, 2))

    def intrude():
        for attempt in (
            lambda: net.step(X, y, fnn.SGD(0.1)),
            lambda: net.fit(X, y, optimizer=fnn.SGD(0.1)),
        ):
            try:
                attempt()
            except Exception as error:
                caught.append(error)

    def value(y, t):
        if not caught:
            thread = threading.Thread(target=intrude)
            thread.start()
            thread.join(30)
            assert not thread.is_alive(), "the second writer waits for the first"
        return ((y - t) ** 2).sum(axis=1)

    loss = fnn.Loss(value, lambda y, t: 2 * (t - y))
    net, alone = (nets.network([3, 4, 2], loss=kind) for kind in (loss, "squared_error"))
    net.step(X, y, fnn.SGD(0.1))
    assert [type(error) for error in caught] == [RuntimeError, RuntimeError]
    alone.step(X, y, fnn.SGD(0.1))
    nets.assert_close(net.theta, alone.theta, what="the refused step left a trace")
    net.step(X, y, fnn.SGD(0.1))


def test_two_nets_train_in_two_python_threads():
    X, y = data()

    def train(seed):
        net = nets.network(
            WIDTHS, "relu", "softmax_cross_entropy", dtype="float32", n_threads=2, seed=seed
        )
        net.fit(X, y, epochs=2, batch_size=256)
        return net.theta

    alone = [train(seed) for seed in (1, 2, 3)]
    with ThreadPoolExecutor(3) as pool:
        for got, want in zip(pool.map(train, (1, 2, 3)), alone, strict=True):
            nets.assert_same_bits(got, want)


# --- processes and signals ------------------------------------------------------------------------

FORK = """
import os, sys, warnings
warnings.simplefilter("ignore")  # Python warns of forks in a process with threads
import numpy as np
import fnn_core as fnn
from test_threads import WIDTHS, data

X, y = data()
def net():
    return fnn.Network([fnn.Dense(96, "relu"), fnn.Dense(WIDTHS[-1])], input_shape=WIDTHS[0],
                       loss="softmax_cross_entropy", n_threads=2)
def theta():
    trained = net()
    trained.fit(X, y, batch_size=256)
    return trained.theta.tobytes() + trained.predict(X).tobytes()

warm = net()
optimizer = fnn.Adam()
warm.step(X, y, optimizer)  # starts the threads that a fork loses
expected = theta()
reading, writing = os.pipe()
if os.fork() == 0:
    warm.step(X, y, optimizer)  # a net, an optimizer and a workspace from before the fork
    os.write(writing, b"same" if theta() == expected else b"differs")
    os._exit(0)
os.close(writing)
print(os.read(reading, 100).decode())
os.wait()
assert theta() == expected
"""


def test_training_goes_on_in_a_forked_child():
    assert nets.run_python("-c", FORK, timeout=100).strip() == "same"


INTERRUPT = """
import signal, sys
import numpy as np
import fnn_core as fnn
from test_threads import WIDTHS, data

X, y = data(n=8192)
net = fnn.Network([fnn.Dense(96, "relu"), fnn.Dense(WIDTHS[-1])], input_shape=WIDTHS[0],
                  loss="softmax_cross_entropy", n_threads=int(sys.argv[1]))
signal.signal(signal.SIGALRM, signal.default_int_handler)
for update in ("deferred", "immediate"):
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        net.fit(X, y, epochs=10**6, batch_size=64, update=update)
    except KeyboardInterrupt:
        print("interrupted")
    assert np.isfinite(net.theta).all()
    optimizer = fnn.Adam(1e-3)
    before = net.loss(X[:999], y[:999])
    for _ in range(20):
        net.step(X[:999], y[:999], optimizer)
    assert net.loss(X[:999], y[:999]) < before
"""


@pytest.mark.parametrize("n_threads", ["1", "2"])
def test_interrupt_ends_fit_and_leaves_a_usable_net(n_threads):
    assert nets.run_python("-c", INTERRUPT, n_threads, timeout=100).split() == ["interrupted"] * 2


def test_interrupt_ends_a_long_epoch():
    """Signals are answered within an epoch too, not only between epochs."""
    one_epoch = INTERRUPT.replace("data(n=8192)", "data(n=200_000)").replace("=10**6", "=10**4")
    assert nets.run_python("-c", one_epoch, "1", timeout=100).split() == ["interrupted"] * 2


def test_parts_of_a_wide_layer_have_the_same_bits(rng):
    """How many outputs a forward task takes depends on the number of threads."""
    X, y = rng.normal(size=(300, 70)), rng.normal(size=(300, 5))

    def trained(n_threads):
        layers = [fnn.Dense(1030, "tanh"), fnn.Dense(769, "relu"), fnn.Dense(5)]
        net = fnn.Network(
            layers,
            input_shape=70,
            loss="squared_error",
            n_threads=n_threads,
            schedule="layers",
            seed=0,
        )
        net.fit(X, y, batch_size=300, epochs=2)
        return net.theta

    alone = trained(1)
    for n_threads in (2, 3, 4):
        assert (trained(n_threads) == alone).all()


@pytest.mark.parametrize("schedule", ["blocks", "layers"])
@pytest.mark.parametrize("update", ["immediate", "deferred"])
def test_losses_of_a_net_that_is_not_trained(update, schedule, rng):
    """Nothing goes backward, where threads meet: none may be ahead of those that sum losses up."""
    X = rng.normal(size=(128 * 60, 128)).astype("float32")
    y = rng.normal(size=(len(X), 4)).astype("float32")
    histories = []
    for n_threads in (1, 2, 3):
        net = nets.network(
            [128, 192, 192, 4],
            "relu",
            dtype="float32",
            trainable=[False] * 3,
            n_threads=n_threads,
            schedule=schedule,
        )
        history = net.fit(X, y, epochs=2, batch_size=128, update=update, optimizer="sgd")
        histories.append((history["loss"], net.gradients(X, y)[0]))
    assert histories[1:] == histories[:1] * 2
