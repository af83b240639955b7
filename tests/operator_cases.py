"""Nets of every kind whose operators are tested, and how near results must be."""

import images
import nets
import numpy as np

NETS = {
    **images.NETS,
    "dense": ((4,), lambda σ: [images.Dense(6, σ), images.Dense(5, σ), images.Dense(3)]),
}


def case(name, activation="tanh", loss="squared_error", n=5, dtype="float64", **options):
    shape, specs = NETS[name]
    net, layers = images.both(specs(activation), shape, loss, dtype=dtype, **options)
    rng = np.random.default_rng(2)
    X = rng.normal(size=(n, *shape)).astype(dtype)
    return net, layers, X, nets.targets(rng, loss, n, 3).astype(dtype)


def close(got, want, dtype="float64", what=""):
    """Relative to the norm: 1e-10 in float64."""
    got, want = np.asarray(got, float), np.asarray(want, float)
    assert got.shape == want.shape, what
    tolerance = 1e-10 if dtype == "float64" else 2e-3
    error, size = np.linalg.norm(got - want), np.linalg.norm(want)
    assert error <= tolerance * size, f"{what}: relative error {error / (size or 1):.2e}"
