"""The order of a step's work: whichever it is, the step is the same."""

import images
import nets
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from images import Conv, Dense, Dropout, Flatten
from test_drawn_nets import moving

import fnn_core as fnn
from fnn_core.cutting import LAYER_ROWS

SCHEDULES = ["blocks", "layers", "two_phase", "streaming"]
#: Of each schedule, the updates that it can have.
WAYS = [
    (schedule, update)
    for schedule in SCHEDULES
    for update in ("auto", "deferred", "immediate")
    if (schedule, update) != ("streaming", "immediate")
]

#: Layers, a sample's shape, how many samples, and a batch of several blocks; the last is short.
NETS = {
    "reusable": ([Dense(13, "tanh"), Dense(8, "softplus"), Dense(3)], 9, 460, 200),
    "others": ([Dense(13, "gelu"), Dense(8, "silu"), Dense(3, "mish")], 9, 460, 200),
    "frozen": (
        [Dense(13, "tanh", trainable=False), Dense(8, "tanh", bias=False), Dense(3)],
        9,
        460,
        200,
    ),
    "one layer": ([Dense(3, "tanh")], 9, 460, 200),
    "wide": ([Dense(48, "tanh"), Dense(64, "tanh"), Dense(3)], 20, 460, 200),
    # Rows of 2048 and 4096 bytes and more: what is kept of these layers lies apart.
    "apart": ([Dense(512, "tanh"), Dense(256, "tanh"), Dense(512, "tanh"), Dense(3)], 9, 230, 100),
    "image": (images.NETS["image"][1]("tanh"), images.NETS["image"][0], 95, 40),
    "line": (images.NETS["line"][1]("gelu"), images.NETS["line"][0], 95, 40),
}


def data(input_shape, n, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, *np.atleast_1d(input_shape))).astype(dtype)
    return X, rng.normal(size=(n, 3)).astype(dtype), rng.uniform(0.1, 3, n).astype(dtype)


def training_trace(net, layers, X, y, s, batch_size, epochs, optimizer):
    """The reference's θ, and the mean losses and mean absolute errors of its epochs."""
    θ, places = np.array(net.theta, float), nets.places_in_theta(net)
    trained = moving(net)
    losses, errors = [], []
    for _ in range(epochs):
        total, outputs = 0.0, []
        for first in range(0, len(X), batch_size):
            rows = slice(first, first + batch_size)
            for layer, W, b in zip(layers, *images.parts_of(θ, places), strict=True):
                layer.W, layer.b = W, b
            outputs.append(reference.predict(layers, X[rows]))
            value, G, g = reference.gradients(layers, "squared_error", X[rows], y[rows], s[rows])
            θ[trained] = optimizer.step(θ[trained], nets.theta_of(G, g, net)[trained])
            total += value * np.sum(s[rows], dtype=float)
        losses.append(total / np.sum(s, dtype=float))
        errors.append(np.abs(np.concatenate(outputs) - y).mean())
    return θ, losses, errors


def assert_follows(net, layers, X, y, s, batch_size, update, *, epochs=2, clip=None, what=""):
    """Two epochs along the reference's, to a few roundings of θ; it has gone far beside them."""
    dtype, settings = net.dtype.name, {"momentum": 0.9, "clip_norm": clip}
    start = np.array(net.theta, float)
    θ, losses, errors = training_trace(
        net, layers, X, y, s, batch_size, epochs, reference.SGD(0.05, **settings)
    )
    history = net.fit(
        X,
        y,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=fnn.SGD(0.05, **settings),
        sample_weight=s,
        shuffle=False,
        metrics=("mean_absolute_error",),
        update=update,
    )
    terms = len(X) * epochs
    nets.assert_close(net.theta, θ, dtype, terms, what=f"{what} θ")
    nets.assert_close(history["loss"], losses, dtype, terms, what=f"{what} loss")
    nets.assert_close(history["mean_absolute_error"], errors, dtype, terms, what=f"{what} metric")
    assert np.linalg.norm(θ - start) > 0.01 * np.linalg.norm(start), "hardly a step"


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("mode", nets.MODES)
@pytest.mark.parametrize(("schedule", "update"), WAYS)
def test_training_follows_the_reference(schedule, update, mode, dtype):
    """Sample weights, metrics, a short last batch."""
    for name, (specs, input_shape, n, batch_size) in NETS.items():
        if mode == "reuse" and name in ("others", "line"):
            continue
        net, layers = images.both(
            specs, input_shape, dtype=dtype, memory=mode, schedule=schedule, n_threads=2
        )
        samples = data(input_shape, n, dtype)
        assert_follows(net, layers, *samples, batch_size, update, epochs=1, what=name)


@pytest.mark.parametrize(("schedule", "update"), WAYS)
@pytest.mark.parametrize("name", ["reusable", "frozen", "image"])
def test_clipped_steps_follow_the_reference(name, schedule, update):
    """The norm is over all of the gradient, wherever its parts were summed."""
    specs, input_shape, n, batch_size = NETS[name]
    for clip in (0.5, 1e9):
        net, layers = images.both(specs, input_shape, schedule=schedule)
        assert_follows(net, layers, *data(input_shape, n), batch_size, update, clip=clip)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("n", "batch_size"), [(1, 1), (5, 5), (64, 64), (65, 65), (131, 130), (1100, 1000)]
)
def test_batches_of_any_size(n, batch_size, schedule, dtype):
    """Less than a block, a whole one, one and a sample; chunks that a short batch leaves empty."""
    specs, input_shape = NETS["reusable"][:2]
    net, layers = images.both(specs, input_shape, dtype=dtype, schedule=schedule)
    assert_follows(net, layers, *data(input_shape, n, dtype), batch_size, "auto", epochs=3)


@given(
    images.stacks(),
    st.sampled_from(WAYS),
    st.sampled_from(["auto", "native", "blas"]),
    st.sampled_from([None, 0.1]),
)
@settings(max_examples=120)
def test_a_step_of_any_net(drawn, way, gemm, clip):
    schedule, update = way
    mode = "auto" if drawn.mode == "checkpoint" else drawn.mode
    net, layers = images.both(
        drawn.specs,
        drawn.input_shape,
        scale=0.5,
        seed=drawn.seed,
        memory=mode,
        n_threads=drawn.n_threads,
        gemm=gemm,
        schedule=schedule,
    )
    rng = np.random.default_rng(drawn.seed)
    X = rng.normal(size=(drawn.n, *net.input_shape))
    y = rng.normal(size=(drawn.n, *net.output_shape))
    if not net.theta.size:
        return
    want = images.flat_gradient(net, layers, "squared_error", X, y)
    step = want if clip is None else reference.clip(want, clip)
    before = net.theta.copy()
    optimizer = fnn.SGD(0.5, clip_norm=clip)
    net.fit(X, y, batch_size=drawn.n, optimizer=optimizer, update=update, shuffle=False)
    error = np.linalg.norm((before - net.theta) / 0.5 - step)
    scale = np.linalg.norm(want) + np.linalg.norm(before)
    assert error <= 1e-12 * (np.linalg.norm(step) + 0.01 * (1 + scale)), f"{error:.2e}"


# --- beside one another ---------------------------------------------------------------------------

DROPPING = [Dense(40, "tanh"), Dropout(0.3), Dense(23, "gelu"), Dropout(0.2), Dense(3)]


def trained(schedule, specs=DROPPING, input_shape=9, n=500, batch_size=192, **options):
    """All that a shuffled training gives, with masks, momentum and validation."""
    update = options.pop("update", "auto")
    net = images.network(specs, input_shape, schedule=schedule, **options)
    X, y, s = data(input_shape, n, net.dtype)
    history = net.fit(
        X,
        y,
        epochs=2,
        batch_size=batch_size,
        optimizer=fnn.SGD(0.05, momentum=0.9),
        sample_weight=s,
        update=update,
        metrics=("mean_absolute_error", "r2"),
        validation_data=(X, y),
    )
    step = net.step(X[:batch_size], y[:batch_size], fnn.SGD(0.05), update=update)
    numbers = [value for name, values in history.items() if name != "seconds" for value in values]
    return net.theta, np.array([*numbers, step])


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("mode", ["auto", "store", "recompute"])
def test_the_same_masks_and_the_same_order_of_samples(mode, dtype):
    """Were one mask another one, or one sample another, the difference would be no rounding."""
    theta, numbers = trained("blocks", dtype=dtype, memory=mode)
    for schedule in SCHEDULES[1:]:
        got = trained(schedule, dtype=dtype, memory=mode)
        nets.assert_close(got[0], theta, dtype, 1000, what=schedule)
        nets.assert_close(got[1], numbers, dtype, 1000, what=schedule)


def uses(net, batch_size, update="auto", optimizer="sgd"):
    """How many threads a step is planned for: each has room for its packed operands."""
    plan = net.memory_plan(batch_size=batch_size, optimizer=optimizer, update=update)
    return next(b.shape[0] for b in plan.buffers if b.name == "packed operands, strips")


MANY = 2 * LAYER_ROWS + 30
#: Batches of enough blocks for three threads, and an epoch of one and a short one. In two of the
#: nets the first layer, or one that has no panels, is the largest.
SHARED = {
    "dropping": (DROPPING, 9, MANY + 200, MANY),
    "wide input": ([Dense(32, "tanh"), Dense(32, "tanh"), Dense(3)], 300, MANY + 100, MANY),
    "wide filter": (
        [Conv(24, 3, "tanh"), Conv(48, 3, "tanh"), Flatten(), Dense(3)],
        (6, 6, 2),
        230,
        200,
    ),
}


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize(("schedule", "update"), WAYS)
@pytest.mark.parametrize("kind", SHARED)
def test_same_bits_for_any_number_of_threads(kind, schedule, update, dtype, monkeypatch):
    specs, input_shape, n, batch_size = SHARED[kind]
    nets.share_everything(monkeypatch)
    one = None
    for n_threads in (1, 2, 3):
        options = {"dtype": dtype, "n_threads": n_threads}
        net = images.network(specs, input_shape, schedule=schedule, **options)
        assert uses(net, batch_size, update) == n_threads
        got = trained(schedule, specs, input_shape, n, batch_size, update=update, **options)
        one = one or got
        for some, others in zip(got, one, strict=True):
            nets.assert_same_bits(some, others, f"{n_threads} threads")


#: Widths, and a batch: threads go by blocks or by layers, of which some are shared out by their
#: outputs, some by samples, some by both, and few of which are of equal parts.
MANY_WAYS = {
    "deep": ([64, *[128] * 9, 10], 128),
    "uneven": ([300, 509, 77, 3], 61),
    "wide": ([100, 700, 530, 7], 777),
    "one output": ([40, 300, 300, 1], 200),
}


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("name", MANY_WAYS)
def test_same_bits_however_a_net_is_cut(name, dtype):
    widths, batch_size = MANY_WAYS[name]
    rng = np.random.default_rng(1)
    X = rng.normal(size=(batch_size + 50, widths[0])).astype(dtype)
    y = rng.normal(size=(batch_size + 50, widths[-1])).astype(dtype)
    cuts, results = set(), []
    for n_threads in (1, 2, 3, 4, 7, 16):
        net = nets.network(widths, "tanh", dtype=dtype, n_threads=n_threads, gemm="native")
        plan = net.sessions.training_plan(batch_size, False, "auto", fnn.Adam(1e-3))
        cuts.add((plan.schedule, plan.block_rows, *((p.panel, p.part) for p in plan.layers)))
        history = net.fit(
            X, y, epochs=2, batch_size=batch_size, optimizer=fnn.Adam(1e-3), validation_data=(X, y)
        )
        loss, gradient = net.gradients(X, y)
        losses = np.array([*history["loss"], *history["val_loss"], loss])
        results.append([net.theta, losses, net.predict(X), *gradient.weights, *gradient.biases])
    assert len(cuts) > 3
    for result in results[1:]:
        for got, want in zip(result, results[0], strict=True):
            nets.assert_same_bits(got, want)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_same_bits_where_only_some_stream(weighted, dtype, rng, monkeypatch):
    """Two threads stream, one goes layer by layer; a batch has one sample more than a block."""
    nets.reckon_as_with_avx512(monkeypatch)
    X, y = rng.normal(size=(301, 64)).astype(dtype), rng.integers(0, 10, 301)
    weights = rng.uniform(0.5, 2, 301) if weighted else None
    schedules, results = set(), []
    for n_threads, update, memory in (
        (1, "auto", "auto"),
        (2, "auto", "auto"),
        (5, "deferred", "auto"),
        (1, "deferred", "store"),
        (2, "immediate", "store"),
        (3, "auto", "checkpoint"),
        (4, "auto", "store"),
    ):
        net = nets.network(
            [64, 100, 10],
            "tanh",
            "softmax_cross_entropy",
            dtype=dtype,
            n_threads=n_threads,
            memory=memory,
            gemm="native",
        )
        plan = net.sessions.training_plan(200, True, update, fnn.Adam(1e-3))
        schedules.add(plan.schedule)
        history = net.fit(
            X,
            y,
            sample_weight=weights,
            epochs=2,
            batch_size=200,
            optimizer=fnn.Adam(1e-3),
            update=update,
            metrics=["accuracy"],
        )
        results.append([net.theta, np.array(history["loss"]), np.array(history["accuracy"])])
    assert "streaming" in schedules
    assert len(schedules) > 1
    for result in results[1:]:
        for got, want in zip(result, results[0], strict=True):
            nets.assert_same_bits(got, want)


@pytest.mark.parametrize("update", ["auto", "immediate"])
@pytest.mark.parametrize("optimizer", ["clipped", "private"])
@pytest.mark.parametrize("kind", SHARED)
def test_same_bits_where_factors_are_kept(kind, optimizer, update, monkeypatch):
    """The norm of a clipped step, and of each sample's gradient, comes from the factors."""
    specs, input_shape, n, batch_size = SHARED[kind]
    nets.share_everything(monkeypatch)
    X, y, _ = data(input_shape, n)
    thetas = []
    for n_threads in (1, 2, 3):
        net = images.network(specs, input_shape, n_threads=n_threads)
        engine = (
            fnn.SGD(0.05, clip_norm=0.1)
            if optimizer == "clipped"
            else fnn.DPSGD(0.05, noise_multiplier=0.5, max_grad_norm=0.1, seed=3)
        )
        assert uses(net, batch_size, update, engine) == n_threads
        net.fit(X, y, epochs=2, batch_size=batch_size, optimizer=engine, update=update)
        thetas.append(net.theta.copy())
    for theta in thetas[1:]:
        nets.assert_same_bits(theta, thetas[0])


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_immediate_is_deferred(schedule, dtype):
    thetas = [
        trained(schedule, dtype=dtype, update=update)[0] for of, update in WAYS if of == schedule
    ]
    for theta in thetas[1:]:
        nets.assert_same_bits(theta, thetas[0])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_all_modes_give_the_same_bits(schedule):
    specs = [Dense(40, "tanh"), Dropout(0.3), Dense(23, "relu"), Dense(3, "sigmoid")]
    theta = trained(schedule, specs, memory="store")[0]
    for mode in nets.MODES:
        nets.assert_same_bits(trained(schedule, specs, memory=mode)[0], theta, mode)


@pytest.mark.parametrize("schedule", ["blocks", "layers"])
def test_a_loss_and_a_map_of_your_own(schedule, rng):
    X, y = rng.normal(size=(150, 9)), rng.normal(size=(150, 3))
    scale = fnn.BilinearMap.from_function(
        lambda x, w: x * w, input_shape=(9,), weight_shape=(9,), output_shape=(9,)
    )
    own = fnn.Loss(lambda y, t: ((y - t) ** 2).sum(axis=1), lambda y, t: 2 * (t - y))
    thetas = {}
    for loss in ("squared_error", own):
        layers = [fnn.Dense(9, "tanh"), fnn.Bilinear(scale, "gelu"), fnn.Dense(3)]
        for chosen in ("auto", schedule):
            net = fnn.Network(layers, 9, loss, "float64", schedule=chosen)
            net.fit(X, y, epochs=2, batch_size=128, optimizer=fnn.SGD(0.05))
            thetas[chosen, str(loss)] = net.theta
    first, *others = thetas.values()
    for theta in others:
        nets.assert_close(theta, first, terms=1000)


# --- a loss that is not finite --------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(("schedule", "update"), WAYS)
def test_a_step_that_is_not_finite_leaves_no_trace(schedule, update, optimizer, rng):
    """The sample whose loss is infinite comes in the last block, after much was done."""
    X = rng.normal(size=(400, 7))
    y = rng.poisson(2.0, (400, 3)) * 1.0
    net, spared = (
        nets.network([7, 11, 3], "identity", "poisson", schedule=schedule) for _ in range(2)
    )
    one, two = (fnn.optimizers.REGISTRY[optimizer](0.001) for _ in range(2))
    options = {"batch_size": 200, "shuffle": False, "update": update}
    spared.fit(X[:200], y[:200], optimizer=two, **options)
    bad = X.copy()
    bad[399] *= 1e5 / spared.predict(X[399:])[0, 0]
    with pytest.raises(fnn.NonFiniteLossError) as caught:
        net.fit(bad, y, optimizer=one, **options)
    assert caught.value.batch == 1
    nets.assert_same_bits(net.theta, spared.theta)
    for each, its in ((net, one), (spared, two)):
        each.fit(X, y, optimizer=its, **options)
    nets.assert_same_bits(net.theta, spared.theta)
