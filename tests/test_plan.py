"""The memory plan: it adds up, it is what is allocated, and it is as short as Remark 8 says."""

import nets
import numpy as np
import pytest

import fnn_core as fnn
from fnn_core.testing import allocation_counts

WIDTHS, BATCH = [50, 64, 37, 80, 10], 96


def net_of(activation="tanh", widths=WIDTHS, **options):
    return nets.network(widths, activation, "softmax_cross_entropy", **options)


def data(n=BATCH, dtype="float64", widths=WIDTHS):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, widths[0])).astype(dtype), rng.integers(0, widths[-1], n)


CASES = [
    (mode, update, dtype)
    for mode in nets.MODES
    for update in ("deferred", "immediate", "auto")
    for dtype in nets.DTYPES
]


@pytest.mark.parametrize(("mode", "update", "dtype"), CASES)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_plan_adds_up(optimizer, mode, update, dtype):
    net = net_of(memory=mode, dtype=dtype)
    plan = net.memory_plan(batch_size=BATCH, optimizer=optimizer, update=update)
    assert plan.parameter_bytes == net.theta.nbytes
    assert plan.optimizer_bytes == (2 * net.theta.nbytes if optimizer == "adam" else 0)
    assert plan.total_bytes == plan.parameter_bytes + plan.optimizer_bytes + plan.workspace_bytes
    names = [buffer.name for buffer in plan.buffers]
    assert len(names) == len(set(names))
    for buffer in plan.buffers:
        assert buffer.bytes == int(np.prod(buffer.shape)) * np.dtype(buffer.dtype).itemsize
        assert buffer.shares_with is None or buffer.shares_with in names
    own = sum(buffer.bytes for buffer in plan.buffers if buffer.shares_with is None)
    assert own == plan.total_bytes
    printed = str(plan)
    assert f"{plan.total_bytes:,}" in printed or str(plan.total_bytes) in printed
    for buffer in plan.buffers:
        assert buffer.name in printed
        assert buffer.symbol in printed


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize(("mode", "update", "dtype"), CASES)
def test_the_plan_is_what_is_allocated(mode, update, dtype, n_threads):
    net = net_of(memory=mode, dtype=dtype, n_threads=n_threads)
    X, y = data(dtype=dtype)
    optimizer = fnn.SGD(0.01)
    plan = net.memory_plan(batch_size=BATCH, optimizer=optimizer, update=update)
    before = allocation_counts()
    net.fit(X, y, batch_size=BATCH, optimizer=optimizer, update=update)
    after = allocation_counts()
    assert after.bytes - before.bytes == plan.workspace_bytes
    assert after.calls - before.calls == 1, "one aligned allocation"
    for _ in range(10):
        net.fit(X, y, epochs=2, batch_size=BATCH, optimizer=optimizer, update=update)
    assert allocation_counts().calls == after.calls


def test_planning_allocates_nothing():
    net = net_of()
    before = allocation_counts()
    net.memory_plan(batch_size=100_000, optimizer="adam")
    after = allocation_counts()
    assert (after.calls, after.bytes) == (before.calls, before.bytes)


def test_a_thousand_steps_allocate_nothing():
    net, (X, y), optimizer = net_of(), data(), fnn.Adam()
    net.step(X, y, optimizer)
    before = allocation_counts()
    for _ in range(1000):
        net.step(X, y, optimizer)
    assert allocation_counts().calls == before.calls


def growth(mode, update, optimizer="sgd", activation="tanh", **options):
    """Bytes a sample that the workspace grows by, for batches larger than any block."""
    net = net_of(activation, memory=mode, **options)
    small, large = (
        net.memory_plan(batch_size=n, optimizer=optimizer, update=update).workspace_bytes
        for n in (2**16, 2**17)
    )
    return (large - small) / 2**16


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("n_threads", [1, 8])
def test_reuse_needs_the_outputs_and_the_batch_only(n_threads, dtype):
    """Remark 8: delta takes the place of F_k; a sample has its label and its weight beside X."""
    numbers = sum(WIDTHS[1:]) + WIDTHS[0]
    got = growth("reuse", "immediate", dtype=dtype, n_threads=n_threads)
    assert got <= numbers * np.dtype(dtype).itemsize + 3 * 8


def test_modes_cost_what_remark_8_says():
    itemsize = 8
    reuse, recompute, store = (growth(m, "immediate") for m in ("reuse", "recompute", "store"))
    assert reuse <= recompute <= store
    hidden = sum(WIDTHS[1:-1])
    assert store >= (WIDTHS[0] * 0 + 2 * hidden) * itemsize
    assert growth("auto", "immediate") == reuse
    mixed = growth("auto", "immediate", activation=["gelu", "tanh", "tanh"])
    assert reuse <= mixed <= growth("recompute", "immediate")


def test_immediate_never_holds_more_than_one_layers_gradient():
    widths = [300] * 9
    net = net_of(widths=widths, memory="reuse")
    deferred, immediate = (
        net.memory_plan(batch_size=1, optimizer="sgd", update=update).workspace_bytes
        for update in ("deferred", "immediate")
    )
    layer = 300 * 301 * 8
    assert deferred >= 8 * layer, "all of G is held"
    assert immediate <= 1.5 * layer
    assert deferred - immediate >= 6 * layer


@pytest.mark.parametrize("n_threads", [1, 3])
def test_gradients_and_predict_stay_within_their_workspace(n_threads):
    """Later calls of the same size allocate nothing."""
    net, (X, y) = net_of(n_threads=n_threads), data()
    net.gradients(X, y)
    net.predict(X)
    net.loss(X, y)
    before = allocation_counts()
    for _ in range(20):
        net.gradients(X, y)
        net.predict(X)
        net.loss(X, y)
    assert allocation_counts().calls == before.calls
