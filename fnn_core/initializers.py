"""Initial weights: draws around zero whose spread fits the layer's fan-in and fan-out.

`REGISTRY` maps names to functions ``(rng, shape)``, `shape` being the weight's, outputs first: a
dense ``(d_k, d_{k-1})``, a convolution ``(filters, *kernel_size, channels // groups)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np

from fnn_core.activations import Activation

Initializer = str | Callable[[np.random.Generator, tuple[int, ...]], Any]


def _draw(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    *,
    fan: Literal["in", "mean"],
    gain: float,
    normal: bool,
) -> np.ndarray:
    """Entries of variance ``gain / fan``."""
    fan_in = math.prod(shape[1:])
    fan_out = shape[0] * math.prod(shape[1:-1])
    deviation = math.sqrt(gain / (fan_in if fan == "in" else (fan_in + fan_out) / 2))
    if normal:
        return rng.normal(0.0, deviation, shape)
    return rng.uniform(-math.sqrt(3) * deviation, math.sqrt(3) * deviation, shape)


def _zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape)


REGISTRY: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "he_uniform": partial(_draw, fan="in", gain=2.0, normal=False),
    "he_normal": partial(_draw, fan="in", gain=2.0, normal=True),
    "lecun_uniform": partial(_draw, fan="in", gain=1.0, normal=False),
    "lecun_normal": partial(_draw, fan="in", gain=1.0, normal=True),
    "glorot_uniform": partial(_draw, fan="mean", gain=1.0, normal=False),
    "glorot_normal": partial(_draw, fan="mean", gain=1.0, normal=True),
    "zeros": _zeros,
}

_RELU_KIN = {"relu", "leaky_relu", "elu", "gelu", "silu", "mish", "softplus"}


def as_initializer(initializer: Initializer | None) -> Initializer | None:
    """Check a name or a function; None means the one that suits the activation."""
    if initializer is None or callable(initializer):
        return initializer
    if not isinstance(initializer, str):
        raise TypeError(
            f"initializer: expected a name or a function (rng, shape), got {initializer!r}"
        )
    if initializer not in REGISTRY:
        raise ValueError(f"initializer = {initializer!r}: expected one of {', '.join(REGISTRY)}")
    return initializer


def initializer_for(
    initializer: Initializer | None, activation: Activation
) -> Callable[[np.random.Generator, tuple[int, ...]], Any]:
    """The function behind a layer's `initializer`."""
    if callable(initializer):
        return initializer
    if initializer is None:
        if activation.name in _RELU_KIN:
            initializer = "he_uniform"
        else:
            initializer = "lecun_normal" if activation.name == "selu" else "glorot_uniform"
    return REGISTRY[initializer]
