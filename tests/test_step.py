"""A step that is like the one before takes a shorter way: it must lead to the same place."""

import nets
import numpy as np
import pytest

import fnn_core as fnn


def data(n=24, dtype="float64", labels=False):
    rng = np.random.default_rng(n)
    X = rng.normal(size=(n, 7)).astype(dtype)
    return X, rng.integers(0, 3, n) if labels else rng.normal(size=(n, 3)).astype(dtype)


class Twins:
    """One net that makes steps, and one that makes the same steps by way of fit."""

    def __init__(self, optimizer, loss="squared_error", dtype="float64", **options):
        self.net, self.other = (
            nets.network([7, 11, 3], loss=loss, dtype=dtype, **options) for _ in range(2)
        )
        self.optimizers = optimizer(), optimizer()

    def change(self, **settings):
        for optimizer in self.optimizers:
            for name, value in settings.items():
                setattr(optimizer, name, value)

    def step(self, X, y, sample_weight=None):
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        loss = self.net.step(X, y, self.optimizers[0], **weights)
        history = self.other.fit(
            X, y, batch_size=len(X), optimizer=self.optimizers[1], shuffle=False, **weights
        )
        assert loss == pytest.approx(history["loss"][0], rel=1e-14)
        nets.assert_same_bits(self.net.theta, self.other.theta)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("loss", nets.LOSSES)
def test_many_steps(loss, dtype, rng):
    twins = Twins(lambda: fnn.Adam(1e-2), loss, dtype)
    for _ in range(5):
        X = rng.normal(size=(24, 7)).astype(dtype)
        twins.step(X, nets.targets(rng, loss, 24, 3).astype(dtype))


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_batches_of_any_size_in_turn(dtype):
    twins = Twins(lambda: fnn.Adam(1e-2), dtype=dtype)
    for n in (24, 24, 7, 24, 24, 100, 100, 24, 1, 1):
        twins.step(*data(n, dtype))


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_layouts_in_turn(dtype):
    twins = Twins(lambda: fnn.SGD(0.01, momentum=0.9), dtype=dtype)
    X, y = data(dtype=dtype)
    for change in (
        np.copy,
        np.copy,
        np.asfortranarray,
        lambda a: a.astype("float32"),
        lambda a: a.astype("float64"),
        lambda a: np.repeat(a, 2, axis=0)[::2],
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: a[::-1].copy()[::-1],
        lambda a: a.astype(a.dtype.newbyteorder(">")),
        lambda a: np.lib.stride_tricks.as_strided(a, writeable=False),
        lambda a: a.tolist(),
        lambda a: a.view(type("Subclass", (np.ndarray,), {})),
        lambda a: np.frombuffer(b"\0" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    ):
        twins.step(change(X), y)
        twins.step(X, change(y))
        twins.step(change(X), change(y))


def test_targets_of_several_kinds_in_turn():
    twins = Twins(lambda: fnn.SGD(0.01), "softmax_cross_entropy")
    X, labels = data(labels=True)
    for y in (labels, labels, np.eye(3)[labels], labels.astype("uint8"), labels, labels.tolist()):
        twins.step(X, y)


def test_sample_weights_in_turn(rng):
    twins = Twins(lambda: fnn.Adam(1e-2))
    X, y = data()
    for s in (None, None, rng.uniform(size=24), rng.uniform(size=24), None, None):
        twins.step(X, y, s)


@pytest.mark.parametrize("name", nets.OPTIMIZERS)
def test_settings_of_the_optimizer_in_turn(name):
    twins = Twins(lambda: fnn.optimizers.REGISTRY[name](0.01))
    X, y = data()
    for settings in (
        {},
        {"lr": 0.02},
        {"clip_norm": 0.1},
        {"lr": lambda step: 0.01 / (1 + step)},
        {"clip_norm": None, "weight_decay": 0.1},
        {"lr": 0.005},
    ):
        before = twins.net.theta.copy()
        twins.change(**settings)
        twins.step(X, y)
        twins.step(X, y)
        if settings.get("clip_norm") and name == "sgd":
            assert np.linalg.norm(twins.net.theta - before) <= 2 * 0.02 * 0.1 * (1 + 1e-12)


def test_settings_of_the_net_in_turn():
    twins = Twins(lambda: fnn.Adam(1e-2))
    X, y = data()
    for mode in ("reuse", "reuse", "store", "recompute", "auto"):
        twins.net.memory = mode
        for n_threads in (1, 2):
            twins.net.n_threads = n_threads
            twins.step(X, y)


def test_other_calls_in_between():
    twins = Twins(lambda: fnn.Adam(1e-2))
    X, y = data()
    for net in (twins.net, twins.other):
        twins.step(X, y)
        net.predict(X)
        twins.step(X, y)
        net.gradients(*data(100))
        twins.step(X, y)
        net.loss(X, y)
        twins.step(X, y)
    twins.net.theta[:] = twins.other.theta[:] = 0.1
    twins.step(X, y)


def test_two_optimizers_in_turn():
    """Each keeps its own state."""
    alone, one, two = fnn.Adam(0.0), fnn.Adam(0.0), fnn.SGD(0.0, momentum=0.9)
    net, other = (nets.network([7, 11, 3]) for _ in range(2))
    X, y = data()
    for _ in range(3):
        other.step(X, y, alone)
        net.step(X, y, one)
        net.step(X, y, two)
    one.lr = alone.lr = 0.01
    net.step(X, y, one)
    other.step(X, y, alone)
    nets.assert_same_bits(net.theta, other.theta)


# --- settings changed after the state was made ----------------------------------------------------

LATE = """
import numpy as np
import fnn_core as fnn
from test_step import data
import nets

net = nets.network([7, 11, 3])
for build, name, value in [
    (lambda: fnn.SGD(0.01), "momentum", 0.9),
    (lambda: fnn.RMSprop(0.01), "momentum", 0.9),
    (lambda: fnn.RMSprop(0.01), "centered", True),
    (lambda: fnn.SGD(0.01), "momentum", float("nan")),
    (lambda: fnn.SGD(0.01), "momentum", "much"),
    (lambda: fnn.Adam(0.01), "weight_decay", -1.0),
    (lambda: fnn.Adam(0.01), "lr", float("inf")),
    (lambda: fnn.Adam(0.01), "eps", None),
]:
    optimizer = build()
    net.step(*data(), optimizer)
    try:
        setattr(optimizer, name, value)
        net.step(*data(), optimizer)
        print("taken" if value in (0.9, True) else f"{name} = {value!r} was taken")
    except (ValueError, TypeError, AttributeError) as error:
        assert name in str(error), error
        print("refused")
    assert np.isfinite(net.theta).all()
"""


def test_settings_that_come_late():
    """They work or are refused; memory that was never allocated is not written to."""
    assert set(nets.run_python("-c", LATE).split()) <= {"taken", "refused"}
