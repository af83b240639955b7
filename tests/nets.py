"""Nets and data drawn at random, the same nets for the reference, and how to compare the two."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import reference

import fnn_core as fnn
from fnn_core import costs, cutting

ACTIVATIONS = sorted(fnn.activations.REGISTRY)
LOSSES = sorted(fnn.losses.REGISTRY)
OPTIMIZERS = sorted(fnn.optimizers.REGISTRY)
REUSABLE = [name for name in ACTIVATIONS if fnn.activations.REGISTRY[name].reusable]
NOT_REUSABLE = [name for name in ACTIVATIONS if name not in REUSABLE]
MODES = ["recompute", "store", "reuse", "auto"]
#: Whether the engine sets the processor to count subnormal numbers as zero.
DROPS_SUBNORMALS = platform.machine() in ("x86_64", "aarch64", "arm64")
DTYPES = ["float32", "float64"]


def network(widths, activation="tanh", loss="squared_error", *, last="identity", **options):
    """A dense net of ``widths[1:]``; ``activation`` is one name, or one for each hidden layer."""
    hidden = len(widths) - 2
    names = [activation] * hidden if isinstance(activation, str) else list(activation)
    per_layer = {k: options.pop(k) for k in ("bias", "trainable") if k in options}
    layers = []
    for k, (units, name) in enumerate(zip(widths[1:], [*names, last], strict=True)):
        chosen = {key: value[k] for key, value in per_layer.items()}
        layers.append(fnn.Dense(units, name, **chosen))
    options = {"dtype": "float64", "seed": 1, "n_threads": 1, **options}
    net = fnn.Network(layers, input_shape=widths[0], loss=loss, **options)
    spread_biases(net)
    return net


def spread_biases(net, seed=7):
    """Biases start at zero, where errors in them hide."""
    rng = np.random.default_rng(seed)
    for b in net.biases:
        if b is not None:
            b[...] = rng.normal(scale=0.3, size=b.shape)


def mirror(net, names, trainable=None):
    """The same net for the reference, in float64: ``names`` are its activations."""
    trainable = trainable or [True] * len(names)
    return [
        reference.Dense(np.array(W, float), None if b is None else np.array(b, float), name, kept)
        for W, b, name, kept in zip(net.weights, net.biases, names, trainable, strict=True)
    ]


def share_everything(monkeypatch):
    """Threads share out the least of steps."""
    for name, value in {
        "SERIAL_FLOPS": 0,
        "THREAD_FLOPS": 1,
        "MEETING_FLOPS": 0,
        "SHARED_PRODUCT": 1,
    }.items():
        monkeypatch.setattr(cutting, name, value)
    monkeypatch.setattr(costs, "MEETING", 0)
    monkeypatch.setattr(costs, "EXCHANGED_ENTRY", 0)


def reckon_as_with_avx512(monkeypatch):
    """The cost model's choices, on any processor."""
    monkeypatch.setattr(costs, "FLOP", dict.fromkeys(costs.FLOP, 0.007))


def targets(rng, loss, n, width, *, labels=False):
    """Targets that the loss takes: numbers, counts, zeros and ones, probabilities or labels."""
    if loss == "softmax_cross_entropy":
        return rng.integers(0, width, n) if labels else rng.dirichlet(np.ones(width), n)
    if loss == "binary_cross_entropy":
        return rng.integers(0, 2, (n, width)) * 1.0
    if loss == "poisson":
        return rng.poisson(2.0, (n, width)) * 1.0
    return rng.normal(size=(n, width))


def theta_of(G, g, like):
    """Lists of ``G_k`` and ``g_k`` as one vector laid out as ``like.theta``."""
    flat = np.zeros(like.theta.size)
    places = places_in_theta(like)
    for values, where in zip([*G, *g], [*places[0], *places[1]], strict=True):
        if values is not None:
            flat[where] = values
    return flat


def places_in_theta(net):
    """For each weight and bias, the index in ``theta`` of each of its numbers."""
    kept = net.theta.copy()
    net.theta[:] = np.arange(net.theta.size)
    assert net.theta.size < 2**23, "an index must be a whole number in float32"
    places = [
        [None if p is None else p.astype(int) for p in ps] for ps in (net.weights, net.biases)
    ]
    net.theta[:] = kept
    return places


def assert_close(got, want, dtype="float64", terms=1, c=32, what=""):
    """``‖got − want‖ ≤ c ε √terms ‖want‖``; in float64 never looser than 1e-12."""
    got, want = np.asarray(got, float), np.asarray(want, float)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    tolerance = c * np.finfo(dtype).eps * np.sqrt(max(terms, 1))
    if dtype == "float64":
        tolerance = min(tolerance, 1e-12)
    error, size = np.linalg.norm(got - want), np.linalg.norm(want)
    assert error <= tolerance * size, f"{what}: relative error {error / (size or 1):.2e}"


def assert_same_bits(got, want, what=""):
    got, want = np.asarray(got), np.asarray(want)
    assert (got.dtype, got.shape) == (want.dtype, want.shape), what
    assert got.tobytes() == want.tobytes(), f"{what}: {np.sum(got != want)} numbers differ"


def run_python(*arguments, timeout=120, **environment):
    """A fresh interpreter that finds this package; its output, or an assertion with its errors."""
    done = run_python_unchecked(*arguments, timeout=timeout, **environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def run_python_unchecked(*arguments, timeout=120, **environment):
    tests = Path(__file__).parent
    found = os.pathsep.join([str(Path(fnn.__file__).parent.parent), str(tests)])
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": found, **environment},
        cwd=tests,
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )
