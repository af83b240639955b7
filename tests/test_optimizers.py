"""Ten steps of every optimizer, with all its options, along the reference's."""

import nets
import numpy as np
import pytest
import reference

import fnn_core as fnn

CASES = {
    "sgd": [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1},
        {"weight_decay": 0.2},
    ],
    "adam": [{}, {"betas": (0.8, 0.95), "eps": 1e-4}, {"weight_decay": 0.1}],
    "adamw": [{}, {"weight_decay": 0.3}, {"betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": 0.0}],
    "rmsprop": [
        {},
        {"alpha": 0.9, "eps": 1e-4},
        {"momentum": 0.8},
        {"centered": True},
        {"momentum": 0.5, "centered": True, "weight_decay": 0.1},
    ],
    "adagrad": [{}, {"lr_decay": 0.1}, {"eps": 1e-3, "weight_decay": 0.2}],
}
ALL = [(name, options) for name, several in CASES.items() for options in several]
NAMES = ["tanh", "tanh", "identity"]


def test_every_optimizer_is_tested():
    assert set(CASES) == set(nets.OPTIMIZERS)


def follow(net, engine, peer, *, trainable=None, steps=10, update=None, dtype="float64"):
    """Steps on new batches, the reference beside them; errors are relative to the way gone."""
    rng = np.random.default_rng(11)
    θ = np.array(net.theta, float)
    start = θ.copy()
    trainable = trainable or [True] * 3
    moving = np.zeros(θ.size, bool)
    for k, places in enumerate(zip(*nets.places_in_theta(net), strict=True)):
        for where in places:
            if where is not None:
                moving[where] = trainable[k]
    layers = nets.mirror(net, NAMES, trainable)
    for _ in range(steps):
        X, y = rng.normal(size=(9, 7)).astype(dtype), rng.normal(size=(9, 3)).astype(dtype)
        load(layers, net, θ)
        want, G, g = reference.gradients(layers, "squared_error", X, y)
        θ[moving] = peer.step(θ[moving], nets.theta_of(G, g, net)[moving])
        if update is None:
            got = net.step(X, y, engine)
        else:
            history = net.fit(X, y, batch_size=9, optimizer=engine, update=update, shuffle=False)
            got = history["loss"][0]
        tolerance = 1e-10 if dtype == "float64" else 1e-4
        assert abs(got - want) <= tolerance * abs(want)
        assert np.linalg.norm(net.theta - θ) <= tolerance * np.linalg.norm(θ - start)
        assert np.array_equal(net.theta[~moving], start[~moving]), "a frozen layer moved"


def load(layers, net, θ):
    for layer, W, b in zip(layers, *nets.places_in_theta(net), strict=True):
        layer.W = θ[W]
        layer.b = None if b is None else θ[b]


def pair(name, lr=0.01, **options):
    return fnn.optimizers.REGISTRY[name](lr, **options), reference.OPTIMIZERS[name](lr, **options)


@pytest.mark.parametrize(("name", "options"), ALL)
def test_ten_steps(name, options):
    follow(nets.network([7, 11, 5, 3]), *pair(name, **options))


@pytest.mark.parametrize("update", ["immediate", "deferred"])
@pytest.mark.parametrize(("name", "options"), ALL)
def test_ten_steps_within_fit(name, options, update):
    """State and step number go on from one call of fit to the next."""
    follow(nets.network([7, 11, 5, 3]), *pair(name, **options), update=update)


@pytest.mark.parametrize(("name", "options"), ALL)
def test_float32(name, options):
    follow(nets.network([7, 11, 5, 3], dtype="float32"), *pair(name, **options), dtype="float32")


@pytest.mark.parametrize("name", nets.OPTIMIZERS)
def test_clip_norm(name):
    """The norm is over all parameters together; some steps are clipped and some are not."""
    for norm in (0.5, 5.0, 1e9):
        follow(nets.network([7, 11, 5, 3]), *pair(name, clip_norm=norm))


@pytest.mark.parametrize("name", nets.OPTIMIZERS)
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_layers_stay(name, frozen):
    """Whatever decay, momentum and clipping do to the others."""
    trainable = [k != frozen for k in range(3)]
    net = nets.network([7, 11, 5, 3], trainable=trainable)
    engine, peer = pair(name, weight_decay=0.1, clip_norm=0.7)
    follow(net, engine, peer, trainable=trainable)
    net = nets.network([7, 11, 5, 3], trainable=trainable, bias=[True, False, True])
    engine, peer = pair(name, weight_decay=0.1)
    follow(net, engine, peer, trainable=trainable, update="immediate")


@pytest.mark.parametrize("name", nets.OPTIMIZERS)
def test_defaults_by_name(name, rng):
    X, y = rng.normal(size=(9, 7)), rng.normal(size=(9, 3))
    named, given = (nets.network([7, 11, 5, 3]) for _ in range(2))
    named.fit(X, y, epochs=5, batch_size=4, optimizer=name)
    given.fit(X, y, epochs=5, batch_size=4, optimizer=fnn.optimizers.REGISTRY[name]())
    nets.assert_same_bits(named.theta, given.theta)


def test_state_belongs_to_one_net(rng):
    X, y = rng.normal(size=(9, 7)), rng.normal(size=(9, 3))
    mine, other = (nets.network([7, 11, 5, 3]) for _ in range(2))
    optimizer = fnn.Adam(1e-3)
    mine.step(X, y, optimizer)
    before = other.theta.copy()
    for attempt in (other.step, other.fit):
        with pytest.raises((ValueError, RuntimeError), match="optimizer"):
            attempt(X, y, optimizer=optimizer)
    nets.assert_same_bits(other.theta, before)
    mine.step(X, y, optimizer)


DECAYING = {
    "sgd": {"momentum": 0.75},
    "adam": {"betas": (0.75, 0.75)},
    "adamw": {"betas": (0.75, 0.75), "weight_decay": 0.0},
    "rmsprop": {"alpha": 0.75, "momentum": 0.75, "centered": True},
}


@pytest.mark.skipif(not nets.DROPS_SUBNORMALS, reason="no such setting is known here")
@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("name", DECAYING)
def test_what_decays_ends_at_zero(name, dtype, rng):
    """It does not stay a few subnormal spacings above it, where steps take longer."""
    net, optimizer = nets.network([7, 3], dtype=dtype), pair(name, **DECAYING[name])[0]
    weights = nets.places_in_theta(net)[0][0]
    X, y = rng.normal(size=(9, 7)).astype(dtype), rng.normal(size=(9, 3)).astype(dtype)
    net.step(X, y, optimizer)
    state = [array[weights] for array in optimizer._state.arrays if array is not None]
    assert all(np.all(moment != 0) for moment in state)
    for _ in range(3000):
        net.step(np.zeros_like(X), y, optimizer)  # G_1 is zero
    state = [array[weights] for array in optimizer._state.arrays if array is not None]
    assert all(np.all(moment == 0) for moment in state)
    assert np.isfinite(net.theta).all()


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("name", ["adam", "rmsprop", "adagrad"])
def test_quotients_at_every_magnitude(name, dtype):
    """To a few roundings, though root and quotient may be refined estimates.

    Also where v is zero, and where it has overflowed.
    """
    x = np.concatenate([[0, np.sqrt(np.finfo(dtype).max) * 1e3], 10 ** np.linspace(-15, 15, 301)])
    net = fnn.Network([fnn.Dense(1, bias=False)], x.size, dtype=dtype, seed=None)
    net.theta[:] = 0
    optimizer, _ = pair(name)
    net.step(x[None].astype(dtype), np.ones((1, 1), dtype), optimizer)
    g = -2.0 * x.astype(dtype).astype(float)  # 2 (F - y) x
    rest = 0.01 if name == "rmsprop" else 1.0  # Adam's mean and root lose their bias at once
    expected = -0.01 * g / (np.sqrt(rest) * np.abs(g) + optimizer.eps)
    expected[1] = 0  # v is infinite
    np.testing.assert_allclose(net.theta, expected, rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_no_spread_is_not_less_than_none(dtype):
    """Where a gradient does not change, v less the square of its mean is only rounding."""
    x = np.linspace(0.1, 3, 5000, dtype=dtype)[None]
    dense = fnn.Dense(1, bias=False)
    net = fnn.Network([dense], 5000, loss="absolute_error", dtype=dtype, seed=None)
    optimizer, _ = pair("rmsprop", 1e-9, alpha=0.5, centered=True)
    for _ in range(1000):
        net.step(x, np.full((1, 1), 1e30, dtype), optimizer)
    assert np.isfinite(net.theta).all()


# --- schedules ------------------------------------------------------------------------------------

SCHEDULES = {
    "constant": lambda: fnn.schedules.Constant(0.02),
    "step": lambda: fnn.schedules.Step(0.02, every=3, factor=0.5),
    "exponential": lambda: fnn.schedules.Exponential(0.02, 0.9),
    "cosine": lambda: fnn.schedules.Cosine(0.02, 8, warmup=2, minimum=0.001),
    "callable": lambda: lambda step: 0.02 / (1 + step),
}


@pytest.mark.parametrize("update", [None, "deferred", "immediate"])
@pytest.mark.parametrize("name", nets.OPTIMIZERS)
@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedules_are_followed(kind, name, update):
    follow(nets.network([7, 11, 5, 3]), *pair(name, SCHEDULES[kind]()), update=update)


def test_schedule_counts_steps_through_epochs_and_calls(rng):
    asked = []

    def schedule(step):
        asked.append(step)
        return 0.01

    net, optimizer = nets.network([7, 11, 5, 3]), fnn.SGD(schedule)
    X, y = rng.normal(size=(10, 7)), rng.normal(size=(10, 3))
    net.fit(X, y, epochs=2, batch_size=4, optimizer=optimizer)  # 3 steps an epoch
    net.step(X, y, optimizer)
    assert sorted(set(asked)) == list(range(7))


def test_schedule_values():
    step = fnn.schedules.Step(0.8, every=3, factor=0.5)
    assert [step(i) for i in (0, 2, 3, 5, 6)] == [0.8, 0.8, 0.4, 0.4, 0.2]
    exponential = fnn.schedules.Exponential(0.8, 0.5)
    assert [exponential(i) for i in range(3)] == [0.8, 0.4, 0.2]
    assert fnn.schedules.Constant(0.8)(10**6) == 0.8
    cosine = fnn.schedules.Cosine(0.8, 100, minimum=0.2)
    want = 0.2 + 0.3 * (1 + np.cos(np.pi * np.arange(0, 101, 25) / 100))
    np.testing.assert_allclose([cosine(i) for i in range(0, 101, 25)], want, rtol=1e-12)
    assert cosine(1000) == pytest.approx(0.2)


def test_cosine_warms_up():
    cosine = fnn.schedules.Cosine(0.8, 100, warmup=10)
    rates = np.array([cosine(i) for i in range(101)])
    assert np.all(np.diff(rates[:10]) > 0)
    assert np.all(np.diff(rates[11:]) < 0)
    assert rates.max() == pytest.approx(0.8)
    assert 0 <= rates[0] < 0.2
    assert rates[100] == pytest.approx(0.0, abs=1e-3)


def test_two_nets_at_once():
    """One that another net has taken while this one was planned is that net's."""
    one, two = nets.network([2, 3]), nets.network([2, 3])
    optimizer = fnn.Adam()
    assert optimizer.state_of(one.identity) is optimizer.state_of(two.identity) is None
    state = optimizer.bind(two.identity, two.dtype, two.n_parameters)
    with pytest.raises(ValueError, match="another net"):
        optimizer.bind(one.identity, one.dtype, one.n_parameters)
    assert optimizer.bind(two.identity, two.dtype, two.n_parameters) is state
