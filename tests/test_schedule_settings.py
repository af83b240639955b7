"""Which schedule a step takes: the one asked for, the quickest, or an error; and its memory."""

import copy
import pickle

import images
import nets
import numpy as np
import pytest
from test_schedules import DROPPING, SCHEDULES, SHARED, WAYS

import fnn_core as fnn
from fnn_core.testing import allocation_counts

SMALL = [16, 32, 32, 1]
DIGITS = [784, 256, 128, 10]
ARGUMENTS = {"gemm": ["auto", "blas", "native"], "schedule": ["auto", *SCHEDULES]}


def schedule_of(net, batch_size, update="auto", optimizer="sgd"):
    plan = net.memory_plan(batch_size=batch_size, optimizer=optimizer, update=update)
    assert f"schedule = {plan.schedule!r}" in str(plan).splitlines()[0]
    return plan.schedule


def data(rng, width, n, outputs, dtype="float64"):
    return rng.normal(size=(n, width)).astype(dtype), rng.normal(size=(n, outputs)).astype(dtype)


# --- the cost model -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_what_auto_takes(dtype):
    options = {"dtype": dtype, "gemm": "native"}
    small, digits = (nets.network(widths, "relu", **options) for widths in (SMALL, DIGITS))
    assert schedule_of(small, 10_000) == "streaming"
    assert schedule_of(digits, 128) == "layers"
    for net in (small, digits):
        for n in (1, 16, 64):
            assert schedule_of(net, n) != "streaming", "of one block"
    assert schedule_of(small, 64) == schedule_of(digits, 64) == "blocks", "the same, of one block"
    digits.n_threads = 2
    assert schedule_of(digits, 64) == "layers", "else each thread would copy all weights"
    image = images.network(images.NETS["image"][1]("relu"), images.NETS["image"][0], dtype=dtype)
    for n in (1, 64, 10_000):
        assert schedule_of(image, n) == "blocks"


@pytest.mark.parametrize("n", [64, 1000, 10_000, 100_000])
@pytest.mark.parametrize("widths", [SMALL, DIGITS])
def test_what_auto_never_takes(widths, n):
    """What needs G as it comes, or the whole of it before a parameter moves, is not streamed."""
    net = nets.network(widths, "relu")
    clipped = fnn.SGD(0.1, clip_norm=1.0)
    private = fnn.DPSGD(0.1, noise_multiplier=1.0, max_grad_norm=1.0)
    for optimizer, update in (("sgd", "immediate"), (clipped, "immediate"), (private, "auto")):
        assert schedule_of(net, n, update, optimizer) in ("blocks", "layers")
    own = fnn.Loss(lambda y, t: ((y - t) ** 2).sum(axis=1), lambda y, t: 2 * (t - y))
    assert schedule_of(nets.network(widths, "relu", own), n) in ("blocks", "layers")
    net.memory = "checkpoint"
    assert schedule_of(net, n) == "blocks"


def test_threads_do_not_choose_how_a_gradient_is_summed():
    """Else results would depend on them. In which order samples and layers are done is theirs."""
    for widths in (SMALL, DIGITS, [64, 100, 10], [2, 64, 64, 1]):
        for n in (1, 65, 128, 200, 1000, 10_000):
            plans = [
                nets.network(widths, "relu", n_threads=n_threads).sessions.training_plan(
                    n, False, "auto", fnn.Adam(1e-3)
                )
                for n_threads in (1, 2, 8, 16)
            ]
            apart = {
                plan.block_rows if plan.schedule == "streaming" else plan.sum_rows for plan in plans
            }
            assert len(apart) == 1


def test_a_part_of_a_sum_has_two_sums_of_losses(monkeypatch):
    """Of fewer samples than five, a product sums in another order."""
    nets.reckon_as_with_avx512(monkeypatch)
    net = nets.network([64, 100, 10], "relu", gemm="native")
    cut = set()
    for n in range(2, 600):
        plan = net.sessions.training_plan(n, False, "auto", fnn.Adam(1e-3))
        cut.add(plan.sum_rows > 0)
        if plan.schedule != "streaming" and plan.sum_rows:
            assert plan.sum_rows >= 2 * plan.loss_rows >= 10
    assert cut == {False, True}


def test_two_threads_stream_where_one_goes_layer_by_layer(monkeypatch):
    nets.reckon_as_with_avx512(monkeypatch)
    one, two = (
        nets.network([64, 100, 10], "relu", dtype="float32", n_threads=n_threads, gemm="native")
        for n_threads in (1, 2)
    )
    assert schedule_of(one, 200) in ("blocks", "layers")
    assert schedule_of(two, 200) == "streaming"
    assert schedule_of(two, 200, "immediate") in ("blocks", "layers")


def test_auto_is_the_schedule_that_it_names(rng):
    X, y = data(rng, SMALL[0], 10_000, 1)
    auto, named = (
        nets.network(SMALL, "tanh", schedule=schedule) for schedule in ("auto", "streaming")
    )
    for net in (auto, named):
        net.fit(X, y, batch_size=5000)
    nets.assert_same_bits(auto.theta, named.theta)


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_a_setting_can_be_changed(argument, rng):
    """At once: the next call is as that of a net that never had another."""
    X, y = data(rng, 90, 700, 3)
    changing = nets.network([90, 120, 3])
    optimizer = fnn.SGD(0.01)
    assert getattr(changing, argument) == "auto"
    for value in [*ARGUMENTS[argument], "auto"]:
        setattr(changing, argument, value)
        assert getattr(changing, argument) == value
        still = nets.network([90, 120, 3], **{argument: value})
        assert getattr(still, argument) == value
        still.theta[:] = changing.theta
        if argument == "schedule" and value != "auto":
            assert schedule_of(changing, 700) == value
        nets.assert_same_bits(changing.predict(X), still.predict(X))
        for _ in range(2):
            assert changing.step(X, y, optimizer) == still.step(X, y, fnn.SGD(0.01))
            nets.assert_same_bits(changing.theta, still.theta, value)


def through_file(net, path):
    net.save(path / "net.safetensors")
    return fnn.load(path / "net.safetensors")


@pytest.mark.parametrize(
    "again",
    [
        through_file,
        lambda net, _: pickle.loads(pickle.dumps(net)),
        lambda net, _: copy.deepcopy(net),
    ],
    ids=["file", "pickle", "deepcopy"],
)
def test_files_and_copies_keep_them(again, tmp_path):
    for argument, values in ARGUMENTS.items():
        for value in values:
            net = again(nets.network([3, 4, 2], **{argument: value}), tmp_path)
            assert getattr(net, argument) == value


@pytest.mark.parametrize("wrong", ["fastest", "", "Blas", None, 1])
@pytest.mark.parametrize("argument", ARGUMENTS)
def test_an_unknown_name(argument, wrong):
    net = nets.network([3, 4, 2])
    for attempt in (
        lambda: nets.network([3, 4, 2], **{argument: wrong}),
        lambda: setattr(net, argument, wrong),
    ):
        with pytest.raises(ValueError if isinstance(wrong, str) else TypeError) as caught:
            attempt()
        for word in (argument, repr(wrong), *ARGUMENTS[argument]):
            assert word in str(caught.value)
    assert getattr(net, argument) == "auto"


def test_they_are_given_by_name():
    with pytest.raises(TypeError, match="positional"):
        fnn.Network([fnn.Dense(2)], 3, "squared_error", "float32", "auto", 1, 0, "native")


# --- what cannot be had ---------------------------------------------------------------------------


def refuses(net, X, y, *words, update="auto"):
    """Before anything is changed, by every call that trains or plans it."""
    before = net.theta.copy()
    for attempt in (
        lambda: net.memory_plan(batch_size=len(X), update=update),
        lambda: net.fit(X, y, update=update),
        lambda: net.step(X, y, update=update),
    ):
        with pytest.raises(ValueError, match="schedule") as caught:
            attempt()
        for word in (net.schedule, *words):
            assert word in str(caught.value)
    nets.assert_same_bits(net.theta, before)
    net.schedule = "auto"
    net.step(X, y, update=update)
    assert not np.array_equal(net.theta, before)


def test_streaming_has_no_immediate_update(rng):
    net = nets.network([5, 8, 2], schedule="streaming")
    refuses(net, *data(rng, 5, 200, 2), "deferred", update="immediate")


@pytest.mark.parametrize("schedule", ["two_phase", "streaming"])
def test_samples_that_do_not_go_independently(schedule, rng):
    X, y = data(rng, 5, 200, 2)
    own = fnn.Loss(lambda y, t: ((y - t) ** 2).sum(axis=1), lambda y, t: 2 * (t - y))
    refuses(nets.network([5, 8, 2], loss=own, schedule=schedule), X, y, "blocks", "layers")
    scale = fnn.BilinearMap.from_function(
        lambda x, w: x * w, input_shape=(5,), weight_shape=(5,), output_shape=(5,)
    )
    net = fnn.Network([fnn.Bilinear(scale), fnn.Dense(2)], 5, dtype="float64", schedule=schedule)
    refuses(net, X, y, "blocks", "layers")


@pytest.mark.parametrize("schedule", [s for s in SCHEDULES if s not in ("auto", "blocks")])
def test_checkpoints_go_with_blocks_alone(schedule):
    """Wherever the one meets the other."""
    widths = [5, 8, 8, 8, 2]
    other, checkpoints = nets.network(widths, schedule=schedule), nets.network(widths)
    checkpoints.memory = "checkpoint"
    for call in (
        lambda: nets.network(widths, memory="checkpoint", schedule=schedule),
        lambda: setattr(other, "memory", "checkpoint"),
        lambda: setattr(checkpoints, "schedule", schedule),
    ):
        with pytest.raises(ValueError, match=r"blocks.*checkpoint"):
            call()
    assert (other.memory, checkpoints.schedule) == ("auto", "auto")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_other_calls_do_as_ever(schedule, rng):
    """A schedule is of steps; gradients, norms and private steps are the same beside any."""
    X, y = data(rng, 9, 300, 3)
    results = []
    for chosen in ("auto", schedule):
        net = images.network(DROPPING, 9, schedule=chosen)
        gradients = net.gradients(X, y)[1].theta.copy()
        norms, outputs = net.per_sample_gradient_norms(X, y), net.predict(X)
        private = fnn.DPSGD(0.1, noise_multiplier=0.5, max_grad_norm=1.0, seed=0)
        net.fit(X, y, batch_size=200, optimizer=private)
        results.append(np.concatenate([gradients, norms, outputs.ravel(), net.theta]))
    nets.assert_close(results[1], results[0], terms=300)


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("name", ["dropping", *images.NETS])
@pytest.mark.parametrize(("schedule", "update"), WAYS)
def test_the_plan_is_what_is_allocated(schedule, update, name, n_threads, clip, monkeypatch):
    nets.share_everything(monkeypatch)
    if name == "dropping":
        net = images.network(DROPPING, 9, schedule=schedule, n_threads=n_threads)
    else:
        net = images.case(name, schedule=schedule, n_threads=n_threads)[0]
    if (update, clip) != ("immediate", 0.5):  # by the factors, whatever the schedule
        assert schedule_of(net, 150, update) == schedule
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(150, *net.input_shape)), rng.normal(size=(150, 3))
    optimizer = fnn.SGD(0.01, clip_norm=clip)
    plan = net.memory_plan(batch_size=150, optimizer=optimizer, update=update)
    names = [buffer.name for buffer in plan.buffers]
    assert len(names) == len(set(names))
    assert all(b.shares_with is None or b.shares_with in names for b in plan.buffers)
    assert sum(b.bytes for b in plan.buffers if b.shares_with is None) == plan.total_bytes
    before = allocation_counts()
    net.fit(X, y, batch_size=150, optimizer=optimizer, update=update)
    after = allocation_counts()
    assert after.bytes - before.bytes == plan.workspace_bytes
    assert after.calls - before.calls == 1
    net.fit(X, y, epochs=2, batch_size=150, optimizer=optimizer, update=update)
    assert allocation_counts().calls == after.calls


@pytest.mark.parametrize("n_threads", [1, 3, 8])
@pytest.mark.parametrize("kind", SHARED)
@pytest.mark.parametrize(
    "optimizer",
    [
        fnn.SGD(0.1),
        fnn.SGD(0.1, clip_norm=1.0),
        fnn.DPSGD(0.1, noise_multiplier=1.0, max_grad_norm=1.0),
    ],
    ids=["plain", "clipped", "private"],
)
@pytest.mark.parametrize(("schedule", "update"), WAYS)
def test_every_thread_has_room(schedule, update, optimizer, kind, n_threads, monkeypatch):
    """Where threads may be at different layers, all have as much, as the largest layer needs."""
    nets.share_everything(monkeypatch)
    specs, input_shape, _, batch_size = SHARED[kind]
    net = images.network(specs, input_shape, schedule=schedule, n_threads=n_threads)
    plan = net.sessions.training_plan(batch_size, False, update, optimizer)
    rooms = {buffer.name: np.prod(buffer.shape) for buffer in plan.buffers}
    panels = [layer.panel * layer.backward_rows for layer in plan.layers[1:]]
    gradients = [layer.task_parameters for layer in plan.layers if layer.chunks == 1]
    for name, of_thread, largest in (
        ("panels of delta", plan.panel_entries, max(panels, default=0)),
        ("panels of the gradient", plan.gradient_entries, max(gradients, default=0)),
    ):
        if name in rooms and of_thread:
            assert of_thread >= largest
            assert plan.threads * of_thread <= rooms[name], name


@pytest.mark.parametrize("n_threads", [1, 8])
@pytest.mark.parametrize("mode", ["auto", "store", "recompute"])
@pytest.mark.parametrize("widths", [SMALL, DIGITS])
def test_streaming_does_not_grow_with_the_batch(widths, mode, n_threads):
    net = nets.network(
        widths, "gelu", memory=mode, n_threads=n_threads, schedule="streaming", dtype="float32"
    )
    small, large = (
        net.memory_plan(batch_size=n, optimizer="sgd").workspace_bytes for n in (2**16, 2**20)
    )
    assert large == small
    net.schedule = "blocks"
    assert net.memory_plan(batch_size=2**16, optimizer="sgd").workspace_bytes > 2 * small


def test_two_phase_keeps_every_delta_and_every_input():
    """Remark 8 (ii): no delta lies in the place of an output."""
    numbers = []
    for schedule in ("blocks", "two_phase"):
        net = nets.network(DIGITS, "tanh", schedule=schedule, dtype="float32")
        small, large = (
            net.memory_plan(batch_size=n, optimizer="sgd").workspace_bytes for n in (2**16, 2**17)
        )
        numbers.append((large - small) / 2**16 / 4)
    assert sum(DIGITS[1:]) <= numbers[1] - numbers[0] <= sum(DIGITS[1:]) + 2
