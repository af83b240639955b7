"""Nets of any layers together with their reference, and configurations of maps drawn at random."""

from typing import Any, NamedTuple

import nets
import numpy as np
import reference
import reference_maps
import reference_operators
from hypothesis import strategies as st

import fnn_core as fnn

MODES = list(dict.fromkeys([*nets.MODES, "checkpoint"]))


class Spec(NamedTuple):
    """A layer by the arguments that the package and the reference both take."""

    kind: str
    args: tuple[Any, ...]
    options: dict[str, Any]


def _maker(kind):
    return lambda *args, **options: Spec(kind, args, options)


Dense, Conv, ConvTranspose, AvgPool, MaxPool, GlobalAvgPool, Flatten, Dropout = map(
    _maker, reference_maps.BUILD
)


def network(specs, input_shape, loss="squared_error", *, scale=None, seed=1, **options):
    """The package's net; parameters drawn anew, biases too, unless ``scale`` is 0."""
    options = {"dtype": "float64", "n_threads": 1, "seed": seed, **options}
    layers = [getattr(fnn, spec.kind)(*spec.args, **spec.options) for spec in specs]
    net = fnn.Network(layers, input_shape=input_shape, loss=loss, **options)
    if scale is None:
        nets.spread_biases(net)
    elif scale:
        net.theta[:] = np.random.default_rng(seed).normal(scale=scale, size=net.theta.size)
    return net


def mirror(net, specs):
    """The same net for the reference, in float64."""
    x, layers = np.zeros((1, *np.atleast_1d(net.input_shape))), []
    for spec, W, b in zip(specs, net.weights, net.biases, strict=True):
        # How a convolution is computed is not the reference's concern.
        options = {name: it for name, it in spec.options.items() if name != "algorithm"}
        layer = reference_maps.BUILD[spec.kind](x.shape[1:], *spec.args, **options)
        x = layer.preactivation(x)
        if W is not None:
            assert W.shape == layer.W.shape
            layer.W = np.array(W, float)
        if b is not None:
            assert b.shape == layer.b.shape
            layer.b = np.array(b, float)
        layers.append(layer)
    assert x.shape[1:] == tuple(np.atleast_1d(net.output_shape))
    return layers


def both(specs, input_shape, loss="squared_error", **options):
    net = network(specs, input_shape, loss, **options)
    return net, mirror(net, specs)


def load(net, layers, theta):
    """Set the reference's parameters from one flat vector laid out as ``net.theta``."""
    for layer, W, b in zip(layers, *split(net, theta), strict=True):
        if W is not None:
            layer.W = W
        if b is not None:
            layer.b = b


def split(net, vector):
    """A vector laid out as ``net.theta``, as lists of weights and biases in the paper's shapes."""
    return parts_of(vector, nets.places_in_theta(net))


def parts_of(vector, places):
    weights, biases = (
        [None if where is None else vector[where] for where in several] for several in places
    )
    return weights, biases


def flat_gradient(net, layers, loss, X, y, s=None):
    _, G, g = reference.gradients(layers, loss, X, y, s)
    return nets.theta_of(G, g, net)


def assert_gradients_right(
    net, layers, X, y, *, loss="squared_error", s=None, dtype="float64", terms=10_000
):
    """F_n, the loss and every G_k and g_k against the reference; to 1e-12 in float64."""
    nets.assert_close(net.predict(X), reference.predict(layers, X), dtype, terms, what="F")
    value, grads = net.gradients(X, y, sample_weight=s)
    want, G, g = reference.gradients(layers, loss, X, y, s)
    nets.assert_close(value, want, dtype, terms, what="loss")
    for k in range(len(layers)):
        for name, got, expected in (("G", grads.weights[k], G[k]), ("g", grads.biases[k], g[k])):
            if expected is None:
                assert got is None
            else:
                nets.assert_close(got, expected, dtype, terms, what=f"{name}_{k + 1}")
    nets.assert_close(grads.theta, nets.theta_of(G, g, net), dtype, terms, what="theta")


def jacobian(net, layers, X):
    """∂F_n(X)/∂θ column by column, by the tangents of the reference; rows sample by sample."""
    X, places = np.asarray(X, float), nets.places_in_theta(net)
    still, columns = np.zeros_like(X), []
    for e in np.eye(net.theta.size):
        dF = reference_operators.tangent(layers, X, *parts_of(e, places), still)[3][-1]
        columns.append(dF.ravel())
    return np.array(columns).T


def second_derivative(net, layers, loss, X, y, s=None, *, gauss_newton=False, directions=None):
    """The Hessian of the mean loss, or its Gauss-Newton part, column by column.

    With ``directions``, its products with their columns alone.
    """
    places, columns = nets.places_in_theta(net), []
    for v in np.eye(net.theta.size) if directions is None else directions.T:
        dG, dg = reference_operators.second_order(
            layers, loss, X, y, *parts_of(v, places), s, gauss_newton
        )
        column = np.zeros(net.theta.size)
        for value, where in zip([*dG, *dg], [*places[0], *places[1]], strict=True):
            if where is not None:
                column[where] = value
        columns.append(column)
    return np.array(columns).T


# --- what is drawn --------------------------------------------------------------------------------

LONGEST = {1: 19, 2: 7, 3: 4}  # cells beside a window, by the number of axes
WIDEST = {1: 7, 2: 4, 3: 3}
CHANNELS = [1, 1, 2, 3, 4, 5, 7, 8]


class Drawn(NamedTuple):
    spec: Spec
    input_shape: tuple[int, ...]
    n: int
    seed: int


def alike(draw, values):
    """As one number, where all axes have the same and the draw says so; else as a tuple."""
    return values[0] if len(set(values)) == 1 and draw(st.booleans()) else tuple(values)


def drawn_padding(draw, axes, widest):
    kind = draw(st.sampled_from(["valid", "same", "number", "numbers", "pairs"]))
    cells = st.integers(0, widest)
    if kind == "number":
        return draw(cells)
    if kind == "numbers":
        return tuple(draw(cells) for _ in range(axes))
    if kind == "pairs":
        return tuple((draw(cells), draw(cells)) for _ in range(axes))
    return kind


@st.composite
def convolutions(draw, axes, transposed=False):
    """Kernel, stride, padding, dilation and groups, and an image that at least one window fits."""
    k = [draw(st.integers(1, WIDEST[axes])) for _ in range(axes)]
    stride = [draw(st.sampled_from([1, 1, 2, 3])) for _ in range(axes)]
    dilation = [draw(st.sampled_from([1, 1, 2, 3])) for _ in range(axes)]
    padding = drawn_padding(draw, axes, 3)
    beside = [draw(st.integers(0, LONGEST[axes])) for _ in range(axes)]
    reach = [reference_maps.reach(*each) for each in zip(k, dilation, strict=True)]
    pads = (
        [(0, 0)] * axes
        if isinstance(padding, str)
        else reference_maps.pads_of(padding, reach, k, stride, dilation)
    )
    sizes = []
    for axis, (before, after) in enumerate(pads):
        room = reach[axis] - before - after
        if transposed:  # at least one cell comes out
            sizes.append(1 + beside[axis] // 2 + max(-(-(1 - room) // stride[axis]), 0))
        else:
            sizes.append(max(room * (padding != "same"), 1) + beside[axis])
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 4]))
    widths = st.sampled_from(CHANNELS if groups == 1 else [1, 1, 2, 3, 5])
    if groups == 1 and draw(st.integers(0, 9)) == 0:
        widths = st.sampled_from([16, 17, 33])
    channels, filters = (groups * draw(widths) for _ in range(2))
    options = {
        "stride": alike(draw, stride),
        "padding": padding,
        "dilation": alike(draw, dilation),
        "groups": groups,
        "bias": draw(st.sampled_from([True, True, False])),
    }
    spec = Spec("ConvTranspose" if transposed else "Conv", (filters, alike(draw, k)), options)
    return Drawn(spec, (*sizes, channels), draw(st.integers(1, 5)), draw(st.integers(0, 2**16)))


@st.composite
def by_winograd(draw, transposed=False):
    """A kernel of 3 × 3 after Winograd, whatever the sizes; at least one cell comes out."""
    pads = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(2))
    least = [sum(pad) - 1 if transposed else 3 - sum(pad) for pad in pads]
    sizes = [max(each, 1) + draw(st.integers(0, 9)) for each in least]
    widths = st.sampled_from([1, 2, 3, 5, 7, 8, 9, 16, 17, 31, 33, 40])
    channels, filters = draw(widths), draw(widths)
    options = {"padding": pads, "bias": draw(st.booleans()), "algorithm": "winograd"}
    spec = Spec("ConvTranspose" if transposed else "Conv", (filters, 3), options)
    return Drawn(spec, (*sizes, channels), draw(st.integers(1, 5)), draw(st.integers(0, 2**16)))


@st.composite
def pools(draw, kind, axes):
    size = [draw(st.integers(1, WIDEST[axes])) for _ in range(axes)]
    sizes = [k + draw(st.integers(0, LONGEST[axes])) for k in size]
    channels = draw(st.sampled_from([*CHANNELS, 17]))
    args = (alike(draw, size),)
    if draw(st.booleans()):
        args += (alike(draw, [draw(st.integers(1, 4)) for _ in range(axes)]),)
    return Drawn(
        Spec(kind, args, {}), (*sizes, channels), draw(st.integers(1, 5)), draw(st.integers(0, 999))
    )


class Stack(NamedTuple):
    specs: list[Spec]
    input_shape: tuple[int, ...]
    n: int
    mode: str
    update: str
    n_threads: int
    seed: int


@st.composite
def stacks(draw, activations=tuple(nets.ACTIVATIONS)):
    """One to seven layers of any kind, each on what the last one gives."""
    axes = draw(st.integers(1, 3))
    shape = (*(draw(st.integers(1, 6)) for _ in range(axes)), draw(st.integers(1, 5)))
    input_shape, specs = shape, []
    units, names = st.integers(1, 9), st.sampled_from(activations)
    small = st.integers(1, 2)
    for _ in range(draw(st.integers(1, 7))):
        flat = len(shape) == 1
        kinds = ["Dense", "Dense", "Flatten", "Dropout"] if flat else [
            "Conv", "Conv", "ConvTranspose", "MaxPool", "AvgPool", "Dropout", "Flatten",
            "GlobalAvgPool",
        ]  # fmt: skip
        kind = draw(st.sampled_from(kinds))
        options = {}
        if kind == "Dense":
            args = (draw(units), draw(names))
        elif kind in ("Conv", "ConvTranspose"):
            args = (draw(units), draw(st.integers(1, 3)), draw(names))
            options = {"stride": draw(small), "padding": "same", "dilation": draw(small)}
            if max(shape[:-1]) > 8:
                options["stride"] = 1 if kind == "ConvTranspose" else 2
        elif kind in ("MaxPool", "AvgPool"):
            args = (tuple(draw(st.integers(1, min(n, 3))) for n in shape[:-1]), draw(small))
        else:
            args = (0.0,) if kind == "Dropout" else ()
        if kind in ("Dense", "Conv", "ConvTranspose"):
            options |= {"bias": draw(st.booleans()), "trainable": draw(st.integers(0, 5)) > 0}
        specs.append(Spec(kind, args, options))
        layer = reference_maps.BUILD[kind](shape, *args, **options)
        shape = layer.preactivation(np.zeros((1, *shape))).shape[1:]
    mode = draw(st.sampled_from(MODES))
    if mode == "reuse" and any(a in nets.NOT_REUSABLE for spec in specs for a in spec.args):
        mode = "auto"
    return Stack(
        specs,
        input_shape,
        draw(st.sampled_from([1, 2, 5, 17, 70])),
        mode,
        draw(st.sampled_from(["deferred", "immediate"])),
        draw(st.integers(1, 3)),
        draw(st.integers(0, 2**16)),
    )


# --- nets that many tests share -------------------------------------------------------------------

#: One of each kind of layer, in 1, 2 and 3 axes.
NETS = {
    "line": (
        (17, 2),
        lambda σ: [
            Conv(5, 4, σ, stride=2, padding=(1,)),
            AvgPool(2, 1),
            Conv(4, 3, σ, dilation=2, padding="same"),
            Flatten(),
            Dense(3),
        ],
    ),
    "image": (
        (8, 9, 3),
        lambda σ: [
            Conv(6, 3, σ, padding=((1, 0), (0, 2)), groups=3),
            MaxPool(2),
            Conv(4, (2, 3), σ, groups=2, bias=False),
            GlobalAvgPool(),
            Dense(3),
        ],
    ),
    "volume": (
        (4, 5, 3, 2),
        lambda σ: [
            Conv(4, (1, 3, 2), σ, padding=1, stride=(2, 1, 1), groups=2),
            MaxPool((2, 2, 2), (1, 2, 2)),
            Flatten(),
            Dense(4, σ),
            Dense(3),
        ],
    ),
    "decoder": (
        (4, 5, 3),
        lambda σ: [
            Conv(4, 3, σ, stride=2, padding="same"),
            ConvTranspose(4, (3, 2), σ, stride=2, padding=((1, 0), (0, 1)), groups=2),
            ConvTranspose(1, 3, σ, padding="same", bias=False),
            Flatten(),
            Dense(3),
        ],
    ),
}


def case(name, activation="tanh", loss="squared_error", **options):
    """One of ``NETS`` and its reference."""
    shape, specs = NETS[name]
    return both(specs(activation), shape, loss, **options)


def data(name, loss="squared_error", n=7, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, *NETS[name][0])).astype(dtype)
    return X, nets.targets(rng, loss, n, 3).astype(dtype)
