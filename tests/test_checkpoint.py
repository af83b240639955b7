"""memory="checkpoint": every √n-th layer is kept, each segment runs forward again."""

import images
import nets
import numpy as np
import pytest

import fnn_core as fnn
from fnn_core.testing import allocation_counts

UPDATES = ["deferred", "immediate"]


def deep(depth, activation="tanh", width=24, memory="checkpoint", **options):
    return nets.network([width] * (depth + 1), activation, memory=memory, **options)


def trained(build, n=37, update="deferred", optimizer="adam", clip=None):
    rng = np.random.default_rng(3)
    net = build()
    X = rng.normal(size=(n, *np.atleast_1d(net.input_shape))).astype(net.dtype)
    y = rng.normal(size=(n, *net.output_shape)).astype(net.dtype)
    value, grads = net.gradients(X, y)
    engine = fnn.optimizers.REGISTRY[optimizer](0.003, clip_norm=clip)
    history = net.fit(X, y, epochs=2, batch_size=16, optimizer=engine, update=update)
    net.step(X, y, engine, update=update)
    return np.array([value, *history["loss"]]), grads.theta, net.theta, net.predict(X)


def assert_same(some, others, what=""):
    for got, want in zip(others, some, strict=True):
        nets.assert_same_bits(got, want, what)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("activation", nets.ACTIVATIONS)
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 9, 10, 16, 17])
def test_same_bits_as_auto(depth, activation, dtype):
    for update in UPDATES:
        one, two = (
            trained(
                lambda memory=memory: deep(depth, activation, memory=memory, dtype=dtype),
                update=update,
            )
            for memory in ("auto", "checkpoint")
        )
        assert_same(one, two, update)


@pytest.mark.parametrize("optimizer", nets.OPTIMIZERS)
@pytest.mark.parametrize("clip", [None, 0.1])
def test_every_optimizer(optimizer, clip):
    for update in UPDATES:
        one, two = (
            trained(lambda memory=memory: deep(7, memory=memory), 37, update, optimizer, clip)
            for memory in ("auto", "checkpoint")
        )
        assert_same(one, two, update)


def mixed(memory, n_threads=1, dtype="float64", σ="tanh"):
    """Layers of every kind, of uneven sizes, with dropout amid a segment."""
    specs = [
        images.Conv(6, 3, σ, padding="same"),
        images.Dropout(0.2),
        images.MaxPool(2, 1),
        images.Conv(9, 3, "relu"),
        images.AvgPool(2),
        images.ConvTranspose(5, 2, "gelu", stride=2),
        images.Conv(4, 3, σ, groups=1),
        images.Dropout(0.3),
        images.Flatten(),
        images.Dense(20, σ),
        images.Dropout(0.1),
        images.Dense(17, "relu"),
        images.Dense(12, "silu"),
        images.Dense(3),
    ]
    return images.network(specs, (9, 8, 2), memory=memory, n_threads=n_threads, dtype=dtype)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("n_threads", [1, 3])
def test_layers_of_every_kind_and_the_same_masks(n_threads, update, dtype):
    one = trained(lambda: mixed("auto", 1, dtype), update=update)
    two = trained(lambda: mixed("checkpoint", n_threads, dtype), update=update)
    assert_same(one, two)


@pytest.mark.parametrize("gemm", ["native", "blas"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_wide_layers(activation, gemm):
    """Wide enough for several panels; the bits of BLAS depend on how a layer is cut."""
    for update in UPDATES:
        one, two = (
            trained(
                lambda memory=memory: nets.network(
                    [30, 523, 521, 522, 523, 5],
                    activation,
                    memory=memory,
                    dtype="float32",
                    gemm=gemm,
                ),
                140,
                update,
            )
            for memory in ("auto", "checkpoint")
        )
        for got, want in zip(two, one, strict=True):
            nets.assert_close(got, want, "float32", 500, what=update)
            if gemm == "native":
                nets.assert_same_bits(got, want, update)


def test_frozen_layers():
    kept = [[True] * 8, [False, True] * 4, [False] * 4 + [True] * 4, [True] * 4 + [False] * 4]
    for trainable in kept:
        one, two = (
            trained(lambda m=memory, t=trainable: deep(8, memory=m, trainable=t))
            for memory in ("auto", "checkpoint")
        )
        assert_same(one, two)


def test_mode_can_change_between_calls():
    still, changing = deep(9, memory="auto"), deep(9, memory="auto")
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 24)), rng.normal(size=(20, 24))
    one, two = fnn.Adam(1e-2), fnn.Adam(1e-2)
    for mode in ("checkpoint", "auto", "store", "checkpoint"):
        changing.memory = mode
        assert changing.memory == mode
        assert still.step(X, y, one) == changing.step(X, y, two)
    nets.assert_same_bits(changing.theta, still.theta)


# --- what it needs --------------------------------------------------------------------------------


def growth(net, update="immediate", **options):
    """Numbers a sample that the workspace grows by, for batches larger than any block."""
    sizes = [
        net.memory_plan(batch_size=n, optimizer="sgd", update=update, **options).workspace_bytes
        for n in (2**16, 2**17)
    ]
    return (sizes[1] - sizes[0]) / 2**16 / net.dtype.itemsize


@pytest.mark.parametrize("n_threads", [1, 8])
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
@pytest.mark.parametrize("depth", [16, 36, 100])
def test_memory_grows_with_the_root_of_the_depth(depth, activation, n_threads):
    """``x``, about ``√n`` layers that are kept, and about as many of one segment."""
    width = 50
    net = deep(depth, activation, width, n_threads=n_threads)
    layers = growth(net) / width
    assert layers <= 2 * np.sqrt(depth) + 5
    assert layers < growth(deep(depth, activation, width, "auto", n_threads=n_threads)) / width


def test_the_plan_shows_it():
    net = deep(25)
    plan = net.memory_plan(batch_size=64)
    assert "checkpoint" in str(plan)
    names = [buffer.name for buffer in plan.buffers]
    assert len(names) == len(set(names))
    assert any("checkpoint" in name for name in names), names


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("kind", ["deep", "mixed"])
def test_the_plan_is_what_is_allocated(kind, clip, update, n_threads):
    net = deep(17, n_threads=n_threads) if kind == "deep" else mixed("checkpoint", n_threads)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(96, *np.atleast_1d(net.input_shape)))
    y = rng.normal(size=(96, *net.output_shape))
    optimizer = fnn.SGD(0.01, clip_norm=clip)
    plan = net.memory_plan(batch_size=96, optimizer=optimizer, update=update)
    own = sum(buffer.bytes for buffer in plan.buffers if buffer.shares_with is None)
    assert own == plan.total_bytes
    before = allocation_counts()
    net.fit(X, y, batch_size=96, optimizer=optimizer, update=update)
    after = allocation_counts()
    assert after.bytes - before.bytes == plan.workspace_bytes
    assert after.calls - before.calls == 1
    net.fit(X, y, epochs=3, batch_size=96, optimizer=optimizer, update=update)
    assert allocation_counts().calls == after.calls


@pytest.mark.parametrize("activation", nets.ACTIVATIONS)
def test_every_activation_can_have_it(activation):
    assert deep(4, activation).memory == "checkpoint"


def test_files_keep_it(tmp_path):
    net = deep(4)
    net.save(tmp_path / "net.safetensors")
    assert fnn.load(tmp_path / "net.safetensors").memory == "checkpoint"


def test_a_relu_before_a_pool_needs_no_more_than_its_output():
    """One bit a unit is enough where only maps without weights follow; never more than auto."""
    specs = [
        images.Conv(16, 3, "relu", padding="same"),
        images.MaxPool(2),
        images.Conv(16, 3, "relu", padding="same"),
        images.AvgPool(2),
        images.Flatten(),
        images.Dense(10),
    ]
    auto, reuse, recompute = (
        growth(images.network(specs, (16, 16, 3), memory=mode, dtype="float32"))
        for mode in ("auto", "reuse", "recompute")
    )
    assert auto <= reuse <= recompute
