"""Propositions 5 and 9 run forward, and second derivatives, in plain NumPy, float64."""

from dataclasses import replace

import numpy as np
import reference
from reference import ACTIVATIONS, LOSSES, each, sample_shares
from reference_maps import MaxPool
from scipy.special import expit, softmax


def silu_curvature(a, F):
    s = expit(a)
    return s * expit(-a) * (2 + a * (1 - 2 * s))


def mish_curvature(a, F):
    s, t = expit(a), np.tanh(reference.softplus(a))
    return s * (1 - t) * (1 + t) * (2 + a * (expit(-a) - 2 * s * t))


#: σ''(a, F); at a kink of σ' it is that of the side where σ'' is given for a ≤ 0.
CURVATURES = {
    "identity": lambda a, F: np.zeros_like(a),
    "relu": lambda a, F: np.zeros_like(a),
    "leaky_relu": lambda a, F: np.zeros_like(a),
    "hard_tanh": lambda a, F: np.zeros_like(a),
    "elu": lambda a, F: np.where(a > 0, 0, np.exp(np.minimum(a, 0))),
    "selu": lambda a, F: np.where(
        a > 0, 0, reference.SELU_SCALE * reference.SELU_ALPHA * np.exp(np.minimum(a, 0))
    ),
    "sigmoid": lambda a, F: F * (1 - F) * (1 - 2 * F),
    "tanh": lambda a, F: -2 * F * (1 - F * F),
    "softplus": lambda a, F: expit(a) * expit(-a),
    "gelu": lambda a, F: reference.normal_density(a) * (2 - a * a),
    "silu": silu_curvature,
    "mish": mish_curvature,
}


def softmax_curvature(y, t, v):
    p = softmax(t, axis=-1)
    pv = p * v
    total = reference.probabilities(y, t).sum(axis=-1, keepdims=True)
    return total * (pv - p * pv.sum(axis=-1, keepdims=True))


#: ``ℓ''(y, t) v``
LOSS_CURVATURES = {
    "squared_error": lambda y, t, v: 2 * v,
    "absolute_error": lambda y, t, v: np.zeros_like(v),
    "huber": lambda y, t, v: v * (np.abs(t - y) < 1),
    "poisson": lambda y, t, v: np.exp(t) * v,
    "binary_cross_entropy": lambda y, t, v: expit(t) * expit(-t) * v,
    "softmax_cross_entropy": softmax_curvature,
}


def linear(layer, h):
    """``C(h, W)``; of a pool, its linear map at the selection of the last forward pass."""
    if isinstance(layer, MaxPool):
        return layer.at_selection(h)
    return layer.preactivation(h) if layer.W is None else replace(layer, b=None).preactivation(h)


def along(layer, dW, db):
    """The layer with dW for W: C, C† and ι are linear in them."""
    return replace(layer, W=dW, b=None if layer.b is None else db)


def tangent(layers, x, dW, db, dx):
    """``a_k`` and ``F_k``, and their derivatives along ``(dW, db, dx)``: T, S and R run forward."""
    a, F = reference.forward(layers, x)
    da, dF = [dx], [dx]
    for k, layer in enumerate(layers):
        _, slope = ACTIVATIONS[layer.activation]
        d = linear(layer, dF[k])
        if layer.W is not None:
            d = d + along(layer, dW[k], db[k]).preactivation(F[k])
        da.append(d)
        dF.append(slope(a[k + 1], F[k + 1]) * d)
    return a, F, da, dF


def second_order(layers, name, x, y, dW, db, s=None, gauss_newton=False):
    """Every ``G_k`` and ``g_k`` differentiated along ``(dW, db)``; Gauss-Newton: ``Jᵀ ℓ'' J``."""
    x, y, n = np.asarray(x, float), np.asarray(y, float), len(layers)
    c = sample_shares(len(x), s)
    a, F, da, dF = tangent(layers, x, dW, db, np.zeros_like(x))
    u = each(c, LOSSES[name][1](y, F[n])) * (not gauss_newton)
    du = each(c, LOSS_CURVATURES[name](y, F[n], dF[n]))
    dG, dg = [None] * n, [None] * n
    for k in range(n, 0, -1):
        layer = layers[k - 1]
        slope, curvature = ACTIVATIONS[layer.activation][1], CURVATURES[layer.activation]
        T = u * slope(a[k], F[k])
        dT = du * slope(a[k], F[k]) + u * curvature(a[k], F[k]) * da[k]
        if layer.W is not None:
            dG[k - 1] = layer.adjoint_weight(dF[k - 1], T) + layer.adjoint_weight(F[k - 1], dT)
        if layer.b is not None:
            dg[k - 1] = layer.gather(dT)
        u, du = layer.adjoint_input(T), layer.adjoint_input(dT)
        if layer.W is not None:
            du = du + along(layer, dW[k - 1], None).adjoint_input(T)
    return dG, dg
