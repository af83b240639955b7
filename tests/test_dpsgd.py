"""Differentially private steps: clipped for each sample, noise, Poisson samples."""

import pickle

import images
import nets
import numpy as np
import pytest
import reference

import fnn_core as fnn
from fnn_core.testing import allocation_counts

NETS = {
    **images.NETS,
    "dense": (
        (7,),
        lambda σ: [images.Dense(11, σ), images.Dense(5, σ, bias=False), images.Dense(3)],
    ),
}


def case(name, activation="tanh", loss="squared_error", n=9, dtype="float64", **options):
    shape, specs = NETS[name]
    net, layers = images.both(specs(activation), shape, loss, dtype=dtype, **options)
    rng = np.random.default_rng(2)
    X = rng.normal(size=(n, *shape)).astype(dtype)
    return net, layers, X, nets.targets(rng, loss, n, 3).astype(dtype)


def clipped_sum(net, layers, loss, X, y, largest):
    """``Σ_i g_i min(1, C / ‖g_i‖)``, and how many are clipped."""
    total, clipped = np.zeros(net.theta.size), 0
    for i in range(len(X)):
        g = images.flat_gradient(net, layers, loss, X[i : i + 1], y[i : i + 1])
        scale = min(1.0, largest / np.linalg.norm(g))
        clipped += scale < 1
        total += scale * g
    return total, clipped


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("loss", ["squared_error", "softmax_cross_entropy"])
@pytest.mark.parametrize("name", NETS)
def test_a_step_without_noise(name, loss, dtype):
    """The sum of the clipped gradients over the rows given."""
    net, layers, X, y = case(name, "tanh", loss, dtype=dtype)
    largest = float(np.median(net.per_sample_gradient_norms(X, y)))
    for norm in (largest, 1e-3 * largest, 1e3 * largest):
        total, clipped = clipped_sum(net, layers, loss, X, y, norm)
        assert clipped == {0: 0, 1e-3: 9, 1e3: 0}.get(norm / largest, clipped)
        before, value = net.theta.copy(), net.loss(X, y)
        got = net.step(X, y, fnn.DPSGD(0.5, 0.0, norm))
        assert got == pytest.approx(value, rel=1e-12 if dtype == "float64" else 1e-5)
        moved, want = (before - net.theta) / 0.5, total / len(X)
        room = 1e-11 if dtype == "float64" else 1e-4
        rounding = np.finfo(dtype).eps * np.linalg.norm(before)
        assert np.linalg.norm(moved - want) <= room * np.linalg.norm(want) + 4 * rounding
        net.theta[:] = before


@pytest.mark.parametrize("mode", images.MODES)
@pytest.mark.parametrize("name", NETS)
def test_every_memory_mode_and_number_of_threads(name, mode):
    thetas = []
    for memory, n_threads in (("store", 1), (mode, 1), (mode, 3)):
        net, _, X, y = case(name, n=61, memory=memory, n_threads=n_threads)
        optimizer = fnn.DPSGD(0.1, 0.7, 0.5, seed=3)
        for _ in range(3):
            net.step(X, y, optimizer)
        net.fit(X, y, epochs=2, batch_size=16, optimizer=optimizer)
        thetas.append(net.theta.copy())
    nets.assert_close(thetas[1], thetas[0], terms=10_000)
    nets.assert_same_bits(thetas[2], thetas[1], "3 threads")


def test_frozen_layers_and_labels(rng):
    shape, specs = images.NETS["image"]
    specs = specs("tanh")
    specs[0] = specs[0]._replace(options={**specs[0].options, "trainable": False})
    net, layers = images.both(specs, shape, "softmax_cross_entropy")
    X, y = rng.normal(size=(9, *shape)), rng.integers(0, 3, 9)
    total, clipped = clipped_sum(net, layers, "softmax_cross_entropy", X, y, 0.2)
    assert clipped
    before = net.theta.copy()
    net.step(X, y, fnn.DPSGD(1.0, 0.0, 0.2))
    nets.assert_close(before - net.theta, total / 9, c=1e6)
    net.step(X, y, fnn.DPSGD(1.0, 5.0, 0.2))
    frozen = nets.places_in_theta(net)[0][0]
    assert np.array_equal(net.theta[frozen], before[frozen]), "noise on a frozen layer"


def test_a_sample_without_a_gradient_is_no_division_by_zero():
    net, _, X, y = case("dense")
    y[:] = net.predict(X)
    before = net.theta.copy()
    net.step(X, y, fnn.DPSGD(0.5, 0.0, 1.0))
    assert np.isfinite(net.theta).all()
    assert np.linalg.norm(net.theta - before) <= 1e-12


def test_a_rate_may_follow_a_schedule():
    asked = []

    def schedule(step):
        asked.append(step)
        return 0.1 / (1 + step)

    net, layers, X, y = case("dense")
    optimizer = fnn.DPSGD(schedule, 0.0, 0.3)
    for step in range(3):
        total, _ = clipped_sum(net, layers, "squared_error", X, y, 0.3)
        before = net.theta.copy()
        net.step(X, y, optimizer)
        nets.assert_close(before - net.theta, 0.1 / (1 + step) * total / len(X), c=1e6)
        images.load(net, layers, net.theta.copy())
    assert sorted(set(asked)) == [0, 1, 2]


# --- noise ----------------------------------------------------------------------------------------


def noise(seed=0, multiplier=1.5, largest=0.4, lr=2.0, n=8, steps=1, dtype="float64"):
    """What a step adds where there is no gradient, as multiples of ``C σ``."""
    net = nets.network([100, 200], dtype=dtype)
    net.theta[:] = 0
    optimizer = fnn.DPSGD(lr, multiplier, largest, seed=seed)
    moved = []
    for _ in range(steps):
        before = net.theta.copy()
        net.step(np.zeros((n, 100)), np.zeros((n, 200)), optimizer)
        moved.append((net.theta - before) * n / (lr * multiplier * largest))
        net.theta[:] = 0
    return np.array(moved)


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_noise_is_normal(dtype):
    (z,) = noise(dtype=dtype)
    count = z.size
    assert abs(z.mean()) < 5 / np.sqrt(count)
    assert abs(z.std() - 1) < 5 / np.sqrt(2 * count)
    assert abs(np.mean(z**3)) < 5 * np.sqrt(15 / count)
    assert abs(np.mean(z**4) - 3) < 5 * np.sqrt(96 / count)
    inside = np.mean(np.abs(z) < 1)
    assert abs(inside - 0.6827) < 5 * np.sqrt(0.6827 * 0.3173 / count)
    assert 3.5 < np.abs(z).max() < 6
    neighbours = np.mean(z[1:] * z[:-1])
    assert abs(neighbours) < 5 / np.sqrt(count)
    assert np.unique(z).size > 0.99 * count


def test_scale_of_the_noise():
    """``lr · σ · C / B`` of the rows given."""
    for options in ({"lr": 0.1}, {"multiplier": 7.0}, {"largest": 30.0}, {"n": 64}):
        (z,) = noise(**options)
        assert abs(z.std() - 1) < 0.03


def test_noise_is_new_in_every_step_and_repeats_with_the_seed():
    one, two = noise(steps=2)
    assert abs(np.mean(one * two)) < 5 / np.sqrt(one.size)
    assert np.array_equal(noise(steps=2), np.array([one, two]))
    other = noise(seed=1)[0]
    assert abs(np.mean(one * other)) < 5 / np.sqrt(one.size)
    without = [noise(seed=None)[0] for _ in range(2)]
    assert not np.array_equal(*without), "no seed: a random one"


def test_no_sample_shifts_the_noise(rng):
    """The noise depends on nothing that is private: two batches get the same."""
    moved = []
    for X in (rng.normal(size=(6, 7)), 5 * rng.normal(size=(6, 7))):
        steps = []
        for multiplier in (0.0, 1.0):
            net = nets.network([7, 5, 3], "tanh")
            net.step(X, np.zeros((6, 3)), fnn.DPSGD(1.0, multiplier, 0.5, seed=5))
            steps.append(net.theta.copy())
        moved.append(steps[1] - steps[0])
    assert np.linalg.norm(moved[0]) > 0.1
    np.testing.assert_allclose(moved[0], moved[1], rtol=0, atol=1e-13)


# --- Poisson samples ------------------------------------------------------------------------------


def visits(n, batch_size, epochs=1, seed=0, largest=1.0, **options):
    """How often each sample was in a batch, epoch by epoch: each moves its own weight by C / B."""
    net = fnn.Network(
        [fnn.Dense(1, bias=False)], input_shape=n, loss="absolute_error", dtype="float64", seed=seed
    )
    net.theta[:] = 0
    counts, last = [], net.theta.copy()

    def note(net, history):
        nonlocal last
        counts.append((net.theta - last) * batch_size / (1e-3 * largest))
        last = net.theta.copy()

    net.fit(
        4.0 * np.eye(n),
        np.full(n, 1e6),
        epochs=epochs,
        batch_size=batch_size,
        optimizer=fnn.DPSGD(1e-3, 0.0, largest, seed=seed),
        callbacks=(note,),
        **options,
    )
    rounded = np.round(counts)
    np.testing.assert_allclose(counts, rounded, atol=1e-6)
    return rounded


@pytest.mark.parametrize(("n", "batch_size"), [(60, 6), (50, 25), (200, 20), (40, 1)])
def test_each_sample_is_drawn_with_the_same_probability(n, batch_size):
    """In each step of an epoch by itself, with probability B / N; and B is what is divided by."""
    epochs, steps, q = 100, n // batch_size, batch_size / n
    counts = visits(n, batch_size, epochs)
    trials = epochs * steps
    spread = np.sqrt(trials * q * (1 - q))
    assert np.all(np.abs(counts.sum(axis=0) - trials * q) < 5 * spread), "of each sample"
    sizes = counts.sum(axis=1)
    deviation = np.sqrt(n * steps * q * (1 - q))
    assert abs(sizes.mean() - n) < 5 * deviation / np.sqrt(epochs), "batches are not cut off"
    assert 0.7 * deviation < sizes.std() < 1.4 * deviation, "sizes vary as a binomial's"
    assert counts.max() > 1, "with replacement between steps"
    together = np.cov(counts[:, :-1].ravel(), counts[:, 1:].ravel())
    bound = 5 * steps * q * (1 - q) / np.sqrt(counts.size)
    assert abs(together[0, 1]) < bound, "drawn on their own"


def test_samples_are_new_in_every_epoch_and_repeat_with_the_net(rng):
    counts = visits(50, 10, 4)
    assert len({row.tobytes() for row in counts}) == 4
    assert np.array_equal(counts, visits(50, 10, 4))
    assert not np.array_equal(counts, visits(50, 10, 4, seed=1))


def test_all_of_the_data_in_each_batch():
    """Where B is N, the probability is one."""
    counts = visits(12, 12, 3)
    assert np.array_equal(counts, np.ones((3, 12)))


def test_an_empty_batch_is_a_step_of_noise():
    net = nets.network([3, 2])
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 3)), rng.normal(size=(30, 2))
    history = net.fit(X, y, epochs=5, batch_size=1, optimizer=fnn.DPSGD(1e-3, 1.0, 1.0, seed=0))
    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(net.theta).all()


def test_the_noise_of_fit_is_scaled_by_the_expected_batch():
    net = nets.network([100, 200])
    net.theta[:] = 0
    X, y = np.zeros((64, 100)), np.zeros((64, 200))
    net.fit(X, y, batch_size=16, optimizer=fnn.DPSGD(1.0, 1.0, 1.0, seed=0))
    assert abs(net.theta.std() * 16 / 2 - 1) < 0.03, "four steps"


# --- beside the steps -----------------------------------------------------------------------------


def test_it_learns():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 5))
    y = (X @ rng.normal(size=5) > 0).astype(int)
    net = nets.network([5, 16, 2], "tanh", "softmax_cross_entropy")
    history = net.fit(
        X, y, epochs=10, batch_size=100, optimizer=fnn.DPSGD(0.5, 1.0, 1.0, seed=0),
        metrics=("accuracy",), validation_data=(X, y),
    )  # fmt: skip
    assert history["val_accuracy"][-1] > 0.93
    assert history["val_loss"][-1] < 0.6 * history["val_loss"][0]


@pytest.mark.parametrize("n_threads", [1, 3])
def test_the_plan_is_what_is_allocated(n_threads):
    net = nets.network([60, 70, 80, 3], "relu", "softmax_cross_entropy", n_threads=n_threads)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(400, 60)), rng.integers(0, 3, 400)
    optimizer = fnn.DPSGD(0.1, 1.0, 1.0, seed=0)
    plan = net.memory_plan(batch_size=64, optimizer=optimizer)
    before = allocation_counts()
    net.fit(X, y, batch_size=64, optimizer=optimizer)
    after = allocation_counts()
    assert after.bytes - before.bytes == plan.workspace_bytes
    net.fit(X, y, epochs=3, batch_size=64, optimizer=optimizer)
    assert allocation_counts().calls == after.calls
    assert plan.optimizer_bytes == 0


def test_no_gradient_of_a_single_sample_is_formed():
    """The workspace grows by the factors of a sample, not by its gradient."""
    net = nets.network([400, 500, 600, 10], "relu", "softmax_cross_entropy")
    small, large = (
        net.memory_plan(batch_size=n, optimizer=fnn.DPSGD(0.1, 1.0, 1.0)).workspace_bytes
        for n in (2**14, 2**15)
    )
    numbers = (large - small) / 2**14 / 8
    assert numbers <= 4 * (400 + 500 + 600 + 10)


def test_settings_come_back():
    optimizer = fnn.DPSGD(0.1, 1.5, 0.5, seed=3)
    assert (optimizer.lr, optimizer.noise_multiplier, optimizer.max_grad_norm) == (0.1, 1.5, 0.5)
    for again in (optimizer.fresh(), pickle.loads(pickle.dumps(optimizer))):
        assert repr(again) == repr(optimizer)
        assert again.noise_multiplier == 1.5
    assert isinstance(optimizer, fnn.optimizers.Optimizer)


def test_settings_may_change():
    net, layers, X, y = case("dense")
    optimizer = fnn.DPSGD(1.0, 0.0, 0.1)
    net.step(X, y, optimizer)
    for norm in (1e9, 0.05):
        optimizer.max_grad_norm = norm
        images.load(net, layers, net.theta.copy())
        total, _ = clipped_sum(net, layers, "squared_error", X, y, norm)
        before = net.theta.copy()
        net.step(X, y, optimizer)
        nets.assert_close(before - net.theta, total / len(X), c=1e6)
    before = net.theta.copy()
    optimizer.noise_multiplier = 100.0
    net.step(X, y, optimizer)
    assert np.linalg.norm(net.theta - before) > 1
    with pytest.raises(ValueError, match="max_grad_norm"):
        optimizer.max_grad_norm = -1.0
    assert optimizer.max_grad_norm == 0.05


def test_a_loss_that_is_not_finite_stops_it():
    net = nets.network([3, 2])
    before = net.theta.copy()
    with pytest.raises(fnn.NonFiniteLossError):
        net.fit(
            np.full((4, 3), 1e200), np.zeros((4, 2)), batch_size=4, optimizer=fnn.DPSGD(1, 1, 1)
        )
    nets.assert_same_bits(net.theta, before)


def test_unclipped_it_is_gradient_descent():
    """A norm that no gradient reaches, and no noise: the mean gradient."""
    net, layers, X, y = case("decoder")
    _, G, g = reference.gradients(layers, "squared_error", X, y)
    before = net.theta.copy()
    net.step(X, y, fnn.DPSGD(0.1, 0.0, 1e9))
    nets.assert_close(before - net.theta, 0.1 * nets.theta_of(G, g, net), c=1e6)


def test_a_gradient_whose_square_overflows_is_clipped(rng):
    """In float32, where the norm is still a number."""
    net = fnn.Network(
        [fnn.Dense(3, bias=False), fnn.Dense(4), fnn.Dense(1)], input_shape=2, loss="huber"
    )
    net.weights[1][...] = 1e20
    net.biases[1][...] = 100
    X, y = np.zeros((8, 2)), np.full((8, 1), 1e6)
    norms = net.per_sample_gradient_norms(X, y)
    assert np.isfinite(norms).all()
    before = net.theta.astype(np.float64)
    net.step(X, y, fnn.DPSGD(1.0, noise_multiplier=0.0, max_grad_norm=1.0))
    moved = (net.theta - before)[np.abs(before) < 1e10]
    assert np.linalg.norm(moved) <= 1 + 1e-5


def test_a_gradient_without_a_norm_adds_nothing():
    """Of an infinite delta: it is no part of the sum, whatever the other samples are."""
    net = fnn.Network([fnn.Dense(1, bias=False), fnn.Dense(1, bias=False)], input_shape=1)
    X, y = np.array([[1e8], [0.0]]), np.zeros((2, 1))
    net.theta[:] = 1e-20, 1e30
    norms = net.per_sample_gradient_norms(X, y)
    assert not np.isfinite(norms[0])
    assert norms[1] == 0
    before = net.theta.copy()
    net.step(X, y, fnn.DPSGD(1e-3, noise_multiplier=0.0, max_grad_norm=1.0))
    nets.assert_same_bits(net.theta, before)
