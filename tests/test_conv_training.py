"""Nets of convolutions in training: optimizers, memory modes, threads, the plan, files, digits."""

import pickle
from functools import lru_cache

import images
import nets
import numpy as np
import pytest
import reference
from test_allocations import counter  # noqa: F401  (a fixture)

import fnn_core as fnn
from fnn_core.testing import allocation_counts

UPDATES = ["deferred", "immediate"]
MODES = images.MODES

OPTIONS = {
    "sgd": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "adam": {"weight_decay": 0.1},
    "adamw": {"weight_decay": 0.2},
    "rmsprop": {"momentum": 0.5, "centered": True},
    "adagrad": {"lr_decay": 0.1},
}


def test_every_layer_and_optimizer_is_tested():
    """A new one is to be added to the reference, to images.NETS and here."""
    in_nets = {spec.kind for _, specs in images.NETS.values() for spec in specs("tanh")}
    elsewhere = {"Dropout", "Bilinear"}
    assert set(fnn.layers.REGISTRY) - elsewhere <= in_nets
    assert set(nets.OPTIMIZERS) - {"dpsgd"} == set(OPTIONS)


def follow(net, layers, name, engine, peer, *, update, dtype="float64", steps=5):
    """Steps on new batches, the reference beside them; errors are relative to the way gone."""
    θ = np.array(net.theta, float)
    start = θ.copy()
    for step in range(steps):
        X, y = images.data(name, n=6, dtype=dtype, seed=step)
        images.load(net, layers, θ)
        want, G, g = reference.gradients(layers, "squared_error", X, y)
        θ = peer.step(θ, nets.theta_of(G, g, net))
        got = net.fit(X, y, batch_size=6, optimizer=engine, update=update, shuffle=False)["loss"][0]
        tolerance = 1e-10 if dtype == "float64" else 1e-3
        assert abs(got - want) <= tolerance * abs(want)
        assert np.linalg.norm(net.theta - θ) <= tolerance * np.linalg.norm(θ - start)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("optimizer", OPTIONS)
def test_every_optimizer_in_every_mode(optimizer, mode, update):
    for k, name in enumerate(images.NETS):
        clip = {"clip_norm": 0.5} if k == 1 and update == "deferred" else {}
        net, layers = images.case(name, memory=mode)
        engine, peer = (
            kinds[optimizer](0.01, **OPTIONS[optimizer], **clip)
            for kinds in (fnn.optimizers.REGISTRY, reference.OPTIMIZERS)
        )
        follow(net, layers, name, engine, peer, update=update)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
@pytest.mark.parametrize("name", images.NETS)
def test_float32(name, optimizer, update):
    net, layers = images.case(name, dtype="float32")
    engine, peer = (
        kinds[optimizer](0.01) for kinds in (fnn.optimizers.REGISTRY, reference.OPTIMIZERS)
    )
    follow(net, layers, name, engine, peer, update=update, dtype="float32")


# --- memory modes ---------------------------------------------------------------------------------


def trained(name, activation, mode, update="deferred", dtype="float64", n_threads=1, n=37):
    """Loss, gradients, and parameters after three epochs."""
    net = images.case(
        name, activation, "softmax_cross_entropy", memory=mode, dtype=dtype, n_threads=n_threads
    )[0]
    X, y = images.data(name, "softmax_cross_entropy", n, dtype)
    value, grads = net.gradients(X, y)
    net.fit(X, y, epochs=3, batch_size=16, optimizer=fnn.Adam(1e-3), update=update)
    return np.array([value]), grads.theta, net.theta, net.predict(X)


def assert_same(some, others, what):
    for got, want in zip(others, some, strict=True):
        nets.assert_same_bits(got, want, what)


@lru_cache
def stored(name, activation, dtype="float64"):
    return trained(name, activation, "store", dtype=dtype)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("activation", nets.REUSABLE)
@pytest.mark.parametrize("name", images.NETS)
def test_all_modes_give_the_same_bits(name, activation, mode, dtype):
    for update in UPDATES:
        got = trained(name, activation, mode, update, dtype)
        assert_same(stored(name, activation, dtype), got, update)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "reuse"])
@pytest.mark.parametrize("activation", nets.NOT_REUSABLE)
@pytest.mark.parametrize("name", images.NETS)
def test_modes_of_the_other_activations_agree(name, activation, mode):
    for update in UPDATES:
        some = trained(name, activation, mode, update)
        for got, want in zip(some, stored(name, activation), strict=True):
            nets.assert_close(got, want, terms=1000)


# --- threads --------------------------------------------------------------------------------------

BIG = (
    (14, 13, 5),
    [
        images.Conv(24, 3, "relu", padding="same"),
        images.MaxPool(2),
        images.Conv(20, 3, "tanh", groups=4),
        images.ConvTranspose(18, 3, "relu", stride=2),
        images.Conv(18, 3, "tanh", groups=18),
        images.AvgPool(3, 2),
        images.Dropout(0.3),
        images.Flatten(),
        images.Dense(11),
    ],
)


def results(n_threads, mode, update, dtype, n=43):
    """Enough work that threads are used, in uneven blocks."""
    shape, specs = BIG
    net = images.network(
        specs, shape, "softmax_cross_entropy", memory=mode, dtype=dtype, n_threads=n_threads
    )
    rng = np.random.default_rng(5)
    X, y = rng.normal(size=(n, *shape)).astype(dtype), rng.integers(0, 11, n)
    value, grads = net.gradients(X, y)
    options = {"batch_size": 31, "update": update, "validation_data": (X, y)}
    history = net.fit(X, y, epochs=2, **options)
    losses = np.array([value, net.loss(X, y), *history["loss"], *history["val_loss"]])
    return grads.theta, net.theta, net.predict(X), losses


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("mode", MODES)
def test_same_bits_for_any_number_of_threads(mode, update, dtype):
    one = results(1, mode, update, dtype)
    for n_threads in (2, 3, 8, 16):
        assert_same(one, results(n_threads, mode, update, dtype), f"{n_threads} threads")


@pytest.mark.parametrize("n", [1, 2, 3, 17, 200])
def test_batches_of_any_size_with_any_number_of_threads(n):
    one = results(1, "auto", "immediate", "float32", n)
    for n_threads in (2, 3, 8, 16):
        several = results(n_threads, "auto", "immediate", "float32", n)
        assert_same(one, several, f"{n_threads} threads")


# --- the plan -------------------------------------------------------------------------------------

PLANS = [
    (name, mode, update, dtype)
    for name in ("image", "decoder", "big")
    for mode in MODES
    for update in UPDATES
    for dtype in nets.DTYPES
]


def planned(name, **options):
    if name != "big":
        return images.case(name, loss="softmax_cross_entropy", **options)[0]
    return images.network(BIG[1], BIG[0], "softmax_cross_entropy", **options)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize(("name", "mode", "update", "dtype"), PLANS)
def test_the_plan_is_what_is_allocated(name, mode, update, dtype, n_threads):
    net = planned(name, memory=mode, dtype=dtype, n_threads=n_threads)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(53, *net.input_shape)).astype(dtype)
    y = rng.integers(0, net.output_shape[0], 53)
    optimizer = fnn.SGD(0.01)
    plan = net.memory_plan(batch_size=53, optimizer=optimizer, update=update)
    names = [buffer.name for buffer in plan.buffers]
    assert len(names) == len(set(names))
    own = sum(buffer.bytes for buffer in plan.buffers if buffer.shares_with is None)
    assert own == plan.total_bytes
    assert plan.total_bytes == net.theta.nbytes + plan.workspace_bytes
    before = allocation_counts()
    net.fit(X, y, batch_size=53, optimizer=optimizer, update=update)
    after = allocation_counts()
    assert after.bytes - before.bytes == plan.workspace_bytes
    assert after.calls - before.calls == 1
    net.fit(X, y, epochs=2, batch_size=53, optimizer=optimizer, update=update)
    net.step(X, y, optimizer, update=update)
    assert allocation_counts().calls == after.calls


def growth(net, update="immediate"):
    """Bytes a sample that the workspace grows by, for batches larger than any block."""
    sizes = [
        net.memory_plan(batch_size=n, optimizer="sgd", update=update).workspace_bytes
        for n in (2**16, 2**17)
    ]
    return (sizes[1] - sizes[0]) / 2**16


@pytest.mark.parametrize("n_threads", [1, 8])
def test_patches_are_never_kept(n_threads):
    """A kernel of 25 taps: the patches of an image would be 25 times the image."""
    shape, specs = (
        (32, 32, 16),
        [images.Conv(16, 5, "relu", padding="same"), images.GlobalAvgPool()],
    )
    net = images.network(specs, shape, memory="reuse", n_threads=n_threads)
    image = 32 * 32 * 16 * 8
    assert growth(net) <= 2.1 * image, "the input and the output of a sample"
    small, large = (
        images.network(specs, (side, side, 16), memory="reuse")
        .memory_plan(batch_size=1, optimizer="sgd", update="immediate")
        .workspace_bytes
        for side in (32, 320)
    )
    assert large <= 100 * 4 * image + small, "scratch is an image or two"


STEPS = """
import ctypes, sys
import numpy as np
import fnn_core as fnn

counted = ctypes.CDLL(None).counted
counted.restype = ctypes.c_long
n_threads, update, mode = int(sys.argv[1]), sys.argv[2], sys.argv[3]
layers = [
    fnn.Conv(6, 3, "relu", padding="same"), fnn.MaxPool(2), fnn.Conv(7, 3, "gelu", groups=1),
    fnn.ConvTranspose(4, 2, "tanh", stride=2), fnn.AvgPool(2, 1), fnn.Dropout(0.1), fnn.Flatten(),
    fnn.Dense(5),
]
net = fnn.Network(layers, input_shape=(10, 10, 3), loss="softmax_cross_entropy",
                  n_threads=n_threads, memory=mode)
X = np.random.default_rng(0).normal(size=(8 * 400, 10, 10, 3)).astype("float32")
y = np.arange(len(X)) % 5
optimizer = fnn.Adam()

def calls(steps):
    before = counted()
    net.fit(X[:8 * steps], y[:8 * steps], batch_size=8, optimizer=optimizer, update=update)
    return counted() - before

calls(200), calls(400)
print(min(calls(400) for _ in range(3)) - min(calls(200) for _ in range(3)))
"""


@pytest.mark.parametrize(("n_threads", "update"), [("1", "immediate"), ("2", "deferred")])
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("reuse", "recompute")])
def test_steps_call_malloc_no_more(counter, mode, n_threads, update):  # noqa: F811
    more = int(nets.run_python("-c", STEPS, n_threads, update, mode, LD_PRELOAD=counter))
    assert abs(more) < 20, "some calls follow the length of an epoch, but none a step"


# --- dropout on images ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_modes_draw_the_same_masks(mode):
    shape, specs = BIG
    thetas = []
    for memory, update in (("recompute", "deferred"), (mode, "deferred"), (mode, "immediate")):
        net = images.network(specs, shape, "softmax_cross_entropy", memory=memory, dtype="float32")
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(20, *shape)).astype("float32"), rng.integers(0, 11, 20)
        net.fit(X, y, epochs=2, batch_size=8, update=update)
        thetas.append(net.theta.copy())
    for theta in thetas[1:]:
        nets.assert_same_bits(theta, thetas[0])


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["file", "pickle"])
@pytest.mark.parametrize("name", [*images.NETS, "big"])
def test_the_same_net_again(name, way, tmp_path):
    net = planned(name)
    if way == "file":
        net.save(tmp_path / "net.safetensors")
        again = fnn.load(tmp_path / "net.safetensors")
    else:
        again = pickle.loads(pickle.dumps(net))
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(9, *net.input_shape)), rng.integers(0, net.output_shape[0], 9)
    nets.assert_same_bits(again.theta, net.theta)
    nets.assert_same_bits(again.predict(X), net.predict(X))
    assert again.layers == net.layers
    assert [repr(layer) for layer in again.layers] == [repr(layer) for layer in net.layers]
    for each in (net, again):
        each.fit(X, y, batch_size=4, optimizer=fnn.SGD(0.01))
    nets.assert_same_bits(again.theta, net.theta)


def test_a_repr_makes_the_layer_again():
    for _, specs in images.NETS.values():
        for spec in specs("tanh"):
            layer = getattr(fnn, spec.kind)(*spec.args, **spec.options)
            assert eval(repr(layer), vars(fnn)) == layer


# --- whole nets -----------------------------------------------------------------------------------

LENET = [
    images.Conv(6, 5, "tanh", padding="same"),
    images.AvgPool(2),
    images.Conv(16, 5, "tanh"),
    images.AvgPool(2),
    images.Conv(120, 5, "tanh"),
    images.Flatten(),
    images.Dense(84, "tanh"),
    images.Dense(10),
]


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_lenet(dtype, rng):
    loss = "softmax_cross_entropy"
    net, layers = images.both(LENET, (28, 28, 1), loss, dtype=dtype)
    assert net.n_parameters == 61_706
    X, y = rng.normal(size=(4, 28, 28, 1)).astype(dtype), rng.integers(0, 10, 4)
    images.assert_gradients_right(net, layers, X, y, loss=loss, dtype=dtype, terms=X.size)
    gradient = images.flat_gradient(net, layers, loss, X, y)
    before = net.theta.copy()
    history = net.fit(X, y, batch_size=4, optimizer=fnn.SGD(0.1), update="immediate", epochs=1)
    nets.assert_close(before - net.theta, 0.1 * gradient, dtype, X.size, c=1000)
    history = net.fit(X, y, batch_size=4, optimizer=fnn.Adam(3e-3), epochs=15)
    assert history["loss"][-1] < 0.2 * history["loss"][0], "four images can be learned"


def test_digits():
    """8 x 8 images of handwriting: a small net is right on 98 % of those that it has not seen."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    X, y = load_digits(return_X_y=True)
    X = (X.reshape(-1, 8, 8, 1) / 16).astype("float32")
    X, X_test, y, y_test = train_test_split(X, y, test_size=450, random_state=0, stratify=y)
    net = fnn.Network(
        [
            fnn.Conv(16, 3, "relu", padding="same"),
            fnn.Conv(32, 3, "relu", padding="same"),
            fnn.MaxPool(2),
            fnn.Dropout(0.25),
            fnn.Flatten(),
            fnn.Dense(64, "relu"),
            fnn.Dropout(0.5),
            fnn.Dense(10),
        ],
        input_shape=(8, 8, 1),
        loss="softmax_cross_entropy",
        n_threads=1,
        seed=0,
    )
    net.fit(X, y, epochs=20, batch_size=32, optimizer=fnn.Adam(fnn.schedules.Cosine(3e-3, 20 * 43)))
    accuracy = np.mean(net.predict(X_test).argmax(axis=1) == y_test)
    assert accuracy >= 0.98
