"""Wrong descriptions of nets, layers, optimizers and schedules: said at once, and said clearly."""

import copy
import pickle

import nets
import numpy as np
import pytest

import fnn_core as fnn

NAN, INF = float("nan"), float("inf")
REFUSED = (ValueError, TypeError)


def network(layers=None, **options):
    options = {"input_shape": 4, "loss": "squared_error", **options}
    return fnn.Network(
        [fnn.Dense(3, "relu"), fnn.Dense(2)] if layers is None else layers, **options
    )


def says(call, *words):
    """The error's message holds every word: the argument, what was expected, and what came."""
    with pytest.raises(REFUSED) as caught:
        call()
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"


@pytest.mark.parametrize("layers", [[], (), None, 3, "Dense"])
def test_no_layers(layers):
    says(lambda: fnn.Network(layers, input_shape=4, loss="squared_error"), "layers")


@pytest.mark.parametrize("wrong", [None, 3, "relu", fnn.Dense])
def test_not_a_layer(wrong):
    says(lambda: network([fnn.Dense(3), wrong]), "layers[1]")


@pytest.mark.parametrize("shape", [0, -1, 2.5, "4", None, (), (4, 0), NAN])
def test_input_shape(shape):
    says(lambda: network(input_shape=shape), "input_shape")


@pytest.mark.parametrize(
    ("name", "wrong", "known"),
    [
        ("loss", "squared_eror", "squared_error"),
        ("loss", 3, "squared_error"),
        ("loss", None, "squared_error"),
        ("dtype", "float16", "float32"),
        ("dtype", "int32", "float64"),
        ("dtype", "no dtype", "float64"),
        ("memory", "stor", "store"),
        ("memory", None, "recompute"),
    ],
)
def test_names_come_with_those_that_work(name, wrong, known):
    says(lambda: network(**{name: wrong}), name, known, str(wrong))


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "two", NAN, 10**6, 10**30])
def test_n_threads(wrong):
    says(lambda: network(n_threads=wrong), "n_threads", str(wrong))
    net = network(n_threads=1)
    with pytest.raises(REFUSED, match="n_threads"):
        net.n_threads = wrong
    assert net.n_threads == 1


@pytest.mark.parametrize("wrong", [-1, 1.5, "zero"])
def test_seed(wrong):
    says(lambda: network(seed=wrong), "seed", str(wrong))


def test_memory_setter():
    net = network(memory="store")
    with pytest.raises(ValueError, match=r"memory.*recompute"):
        net.memory = "nothing"
    assert net.memory == "store"


def test_an_unknown_argument_is_an_error():
    with pytest.raises(TypeError, match="dtypes"):
        network(dtypes="float32")


@pytest.mark.parametrize("units", [0, -3, 2.5, "x", None, NAN, True])
def test_units(units):
    says(lambda: network([fnn.Dense(units)]), "units", str(units))


@pytest.mark.parametrize("activation", ["rellu", 3, None])
def test_activation(activation):
    says(lambda: network([fnn.Dense(3, activation)]), "activation", "relu", str(activation))


@pytest.mark.parametrize("rate", [1.0, -0.1, 2, NAN, INF, "half", None])
def test_dropout_rate(rate):
    says(lambda: network([fnn.Dropout(rate), fnn.Dense(2)]), "rate", str(rate))


@pytest.mark.parametrize("name", ["bias", "trainable"])
def test_flags(name):
    says(lambda: network([fnn.Dense(3, **{name: "no"})]), name, "no")


def test_sizes_that_overflow():
    """Refused by arithmetic, before memory is asked for."""
    says(lambda: network([fnn.Dense(2**40)], input_shape=2**40), "layers[0]")
    says(lambda: network([fnn.Dense(10**30)]), "units")
    says(lambda: network(input_shape=(2**33, 2**33)), "input_shape")
    net = network()
    says(lambda: net.memory_plan(batch_size=2**62), "batch_size")


@pytest.mark.parametrize(
    "functions", [(), (None, None), (3, lambda y, t: t), (lambda y, t: t, "x")]
)
def test_own_loss_must_be_functions(functions):
    with pytest.raises(REFUSED):
        network(loss=fnn.Loss(*functions))


# --- optimizers -----------------------------------------------------------------------------------

OPTIMIZERS = sorted(fnn.optimizers.REGISTRY)
NUMBERS = {
    "sgd": {"momentum": [-0.1, NAN, INF, "x"]},
    "adam": {
        "betas": [(0.9,), (1.0, 0.9), (0.9, -0.1), (0.9, NAN), "ab", 0.9],
        "eps": [-1e-8, NAN],
    },
    "rmsprop": {"alpha": [-0.1, 1.5, NAN], "eps": [-1e-8, NAN], "momentum": [-1.0, NAN]},
    "adagrad": {"lr_decay": [-0.1, NAN], "eps": [-1e-8, NAN]},
}
NUMBERS["adamw"] = NUMBERS["adam"]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("lr", [-0.1, NAN, INF, "fast", None, (0.1,)])
def test_rates(name, lr):
    says(lambda: fnn.optimizers.REGISTRY[name](lr), "lr")


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("wrong", [-0.1, NAN, INF, "x"])
def test_weight_decay(name, wrong):
    kind = fnn.optimizers.REGISTRY[name]
    says(lambda: kind(0.1, weight_decay=wrong), "weight_decay", str(wrong))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("wrong", [0, -1.0, NAN, "x"])
def test_clip_norm(name, wrong):
    kind = fnn.optimizers.REGISTRY[name]
    says(lambda: kind(0.1, clip_norm=wrong), "clip_norm", str(wrong))


@pytest.mark.parametrize(
    ("name", "option", "wrong"),
    [
        (n, o, w)
        for n, options in NUMBERS.items()
        for o, several in options.items()
        for w in several
    ],
)
def test_optimizer_options(name, option, wrong):
    says(lambda: fnn.optimizers.REGISTRY[name](0.1, **{option: wrong}), option)


def test_nesterov_needs_momentum():
    says(lambda: fnn.SGD(0.1, nesterov=True), "nesterov", "momentum")


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: fnn.schedules.Constant(-1.0), "lr"),
        (lambda: fnn.schedules.Constant(NAN), "lr"),
        (lambda: fnn.schedules.Step(-1.0, 3, 0.5), "lr"),
        (lambda: fnn.schedules.Step(0.1, 0, 0.5), "every"),
        (lambda: fnn.schedules.Step(0.1, 1.5, 0.5), "every"),
        (lambda: fnn.schedules.Step(0.1, 3, -0.5), "factor"),
        (lambda: fnn.schedules.Exponential(0.1, NAN), "factor"),
        (lambda: fnn.schedules.Cosine(0.1, 0), "steps"),
        (lambda: fnn.schedules.Cosine(0.1, -5), "steps"),
        (lambda: fnn.schedules.Cosine(0.1, 10, warmup=-1), "warmup"),
        (lambda: fnn.schedules.Cosine(0.1, 10, warmup=11), "warmup"),
        (lambda: fnn.schedules.Cosine(0.1, 10, minimum=-0.1), "minimum"),
    ],
)
def test_schedules(build, named):
    says(build, named)


@pytest.mark.parametrize("rate", [NAN, -0.1, INF, "fast", None])
@pytest.mark.parametrize("call", ["fit", "step"])
def test_a_schedule_must_return_a_rate(call, rate):
    net = network()
    before = net.theta.copy()
    X, y = np.ones((5, 4)), np.ones((5, 2))
    says(lambda: getattr(net, call)(X, y, optimizer=fnn.SGD(lambda step: rate)), "lr")
    assert np.array_equal(net.theta, before)


@pytest.mark.parametrize("options", [{"patience": -1}, {"mode": "best"}, {"min_delta": NAN}])
def test_early_stopping(options):
    says(lambda: fnn.EarlyStopping(**options), next(iter(options)))


@pytest.mark.parametrize("index", [-1, 99, 10**6])
def test_what_the_kernels_do_not_have(index):
    """An object of the right kind that is none of the registry's."""
    with pytest.raises(ValueError, match="activation"):
        fnn.Dense(3, fnn.Activation("relu", True, index))
    with pytest.raises(ValueError, match="loss"):
        nets.network([2, 3], loss=fnn.losses.NamedLoss("huber", False, index))


def test_samples_too_large_to_count():
    """The kernels count a sample's entries in 32 bits."""
    with pytest.raises(ValueError, match=r"layers\[0\].*2\*\*31"):
        fnn.Network([fnn.Conv(2, (3, 1), dilation=(1100, 1))], input_shape=(2201, 1000000, 1))


@pytest.mark.parametrize(
    ("optimizer", "name", "wrong"),
    [
        (fnn.SGD(momentum=0.9, nesterov=True), "momentum", 0.0),
        (fnn.SGD(), "nesterov", True),
        (fnn.Adam(), "betas", (0.9, 1.0)),
        (fnn.DPSGD(0.1, 1.0, 1.0), "clip_norm", 1.0),
        (fnn.DPSGD(0.1, 1.0, 1.0), "seed", -1),
    ],
)
def test_a_setting_that_does_not_fit_is_not_taken(optimizer, name, wrong):
    before = repr(optimizer)
    with pytest.raises(ValueError, match=name if name != "momentum" else "nesterov"):
        setattr(optimizer, name, wrong)
    assert repr(optimizer) == before == repr(optimizer.fresh())


def test_an_optimizer_stays_free_where_nothing_was_trained():
    net, other, optimizer = nets.network([2, 3]), nets.network([2, 3]), fnn.Adam()
    X, y = np.zeros((5, 2)), np.zeros((5, 3))
    with pytest.raises(TypeError, match="shuffle"):
        net.fit(X, y, optimizer=optimizer, shuffle="a")
    net.schedule = "streaming"
    with pytest.raises(ValueError, match="schedule"):
        net.step(X, y, optimizer, update="immediate")
    other.step(X, y, optimizer)


def test_a_layer_is_read_once():
    """By the first net that has it: a later change would hold for some calls and not for others."""
    layer, flatten = fnn.Dense(3), fnn.Flatten()
    with pytest.raises(ValueError, match="memory"):
        network([flatten, layer], memory="none")
    layer.activation = fnn.activations.relu
    network([flatten, layer])
    for each, name, value in (
        (layer, "trainable", False),
        (layer, "units", 4),
        (flatten, "trainable", False),
    ):
        with pytest.raises(AttributeError, match=rf"{name}.*description"):
            setattr(each, name, value)
    assert (layer.trainable, layer.units) == (True, 3)
    for other in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other == layer
        other.trainable = False
    assert layer.trainable


def test_no_dtype_is_none():
    with pytest.raises(TypeError, match="dtype"):
        network(dtype=None)


def test_weights_are_written_to_in_place():
    net = network()
    with pytest.raises(TypeError):
        net.weights[0] = np.zeros((3, 4))
