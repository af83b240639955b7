"""Maps of a user's own, nets with them, and their references by a tensor."""

import images
import nets
import numpy as np
import reference_maps
from scipy import sparse

import fnn_core as fnn


class Circular(fnn.BilinearMap):
    """Correlation of each channel around a ring, to as many filters."""

    def __init__(self, n=6, channels=2, filters=3, taps=4):
        self.input_shape, self.output_shape = (n, channels), (n, filters)
        self.weight_shape, self.taps = (filters, taps, channels), taps

    def apply(self, x, w):
        return sum(np.roll(x, -j, axis=1) @ w[:, j].T for j in range(self.taps))

    def adjoint_input(self, h, w):
        return sum(np.roll(h @ w[:, j], j, axis=1) for j in range(self.taps))

    def adjoint_weight(self, x, h):
        each = [np.einsum("nof,noc->fc", h, np.roll(x, -j, axis=1)) for j in range(self.taps)]
        return np.stack(each, axis=1)


class WithBias(Circular):
    """A bias of its own: one for each filter."""

    bias_shape = (3,)

    def spread(self, b):
        return np.broadcast_to(b, self.output_shape)

    def gather(self, h):
        return h.sum(axis=(0, 1))


def tensor_of(chosen):
    """``t[output, input, weight]``, from the images of all pairs of unit vectors."""
    o, i, w = (
        int(np.prod(s)) for s in (chosen.output_shape, chosen.input_shape, chosen.weight_shape)
    )
    t = np.zeros((o, i, w))
    for k, e in enumerate(np.eye(w)):
        values = chosen.apply(
            np.eye(i).reshape(i, *chosen.input_shape), e.reshape(chosen.weight_shape)
        )
        t[:, :, k] = np.asarray(values).reshape(i, o).T
    return t


def dense_tensor(rng, o=5, i=4, w=7):
    t = rng.normal(size=(o, i, w))
    return np.where(rng.uniform(size=t.shape) < 0.5, t, 0)


def forms(rng):
    """The same tensor in all its forms, as maps of (4,) and (7,) to (5,)."""
    t = dense_tensor(rng)

    class ByMethods(fnn.BilinearMap):
        input_shape, weight_shape, output_shape = (4,), (7,), (5,)

        def apply(self, x, w):
            return np.einsum("oiw,ni,w->no", t, x, w)

        def adjoint_input(self, h, w):
            return np.einsum("oiw,no,w->ni", t, h, w)

        def adjoint_weight(self, x, h):
            return np.einsum("oiw,ni,no->w", t, x, h)

    shapes = {"input_shape": (4,), "weight_shape": (7,), "output_shape": (5,)}
    flat = t.reshape(5, 28)
    return t, {
        "methods": ByMethods(),
        "tensor": fnn.BilinearMap.from_tensor(t),
        "tensor of lists": fnn.BilinearMap.from_tensor(t.tolist()),
        "sparse array": fnn.BilinearMap.from_tensor(sparse.csr_array(flat), shape=(5, 4, 7)),
        "sparse matrix": fnn.BilinearMap.from_tensor(sparse.coo_matrix(flat), shape=(5, 4, 7)),
        "csc": fnn.BilinearMap.from_tensor(sparse.csc_array(flat), shape=(5, 4, 7)),
        "function": fnn.BilinearMap.from_function(ByMethods().apply, **shapes),
    }


def around(form, activation="tanh", own_bias=True, **options):
    """A net with such a layer amid the package's own, and its reference by the tensor."""
    circular = WithBias() if own_bias else Circular()
    chosen = {
        "methods": lambda: circular,
        "function": lambda: fnn.BilinearMap.from_function(
            circular.apply,
            input_shape=circular.input_shape,
            weight_shape=circular.weight_shape,
            output_shape=circular.output_shape,
        ),
    }[form]()
    bias = options.pop("bias", True)
    options = {"loss": "squared_error", "dtype": "float64", "n_threads": 1, "seed": 1, **options}
    net = fnn.Network(
        [
            fnn.Conv(2, 2, activation),
            fnn.Bilinear(chosen, activation, bias=bias),
            fnn.MaxPool(2),
            fnn.Flatten(),
            fnn.Dense(4, activation),
            fnn.Dense(3),
        ],
        input_shape=(7, 2),
        **options,
    )
    nets.spread_biases(net)
    return net, mirror(net, circular, activation, own_bias and form == "methods")


class Spread(reference_maps.Tensor):
    """With one bias a filter."""

    def gather(self, h):
        return h.sum(axis=(0, 1))


def mirror(net, circular, activation, own_bias):
    specs = [
        images.Conv(2, 2, activation),
        None,
        images.MaxPool(2),
        images.Flatten(),
        images.Dense(4, activation),
        images.Dense(3),
    ]
    x, layers = np.zeros((1, 7, 2)), []
    for spec, W, b in zip(specs, net.weights, net.biases, strict=True):
        if spec is None:
            kind = Spread if own_bias else reference_maps.Tensor
            layer = kind(W, b, tensor_of(circular), (6, 2), (6, 3), activation)
        else:
            layer = reference_maps.BUILD[spec.kind](x.shape[1:], *spec.args, **spec.options)
        if W is not None:
            assert W.shape == layer.W.shape
            layer.W = np.array(W, float)
            layer.b = None if b is None else np.array(b, float)
        x = layer.preactivation(x)
        layers.append(layer)
    return layers


def data(n=7, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 7, 2)).astype(dtype), rng.normal(size=(n, 3)).astype(dtype)
