"""The paper in plain NumPy, float64: what every kernel of the engine is held against.

T. Hamm, *A Derivation of Feedforward Neural Network Gradients Using Fréchet Calculus*. The symbols
are the paper's: ``a`` pre-activation, ``F`` output, ``W`` and ``b`` parameters, ``T`` the backward
signal, ``G`` and ``g`` the gradients of weight and bias, ``σ`` activation, ``ℓ`` loss, ``L`` its
slope. Samples are rows here, where the paper's are columns. Constants are PyTorch's defaults.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import erf, expit, log_softmax, softmax

# --- activations: σ(a) and σ'(a, F) --------------------------------------------------------------

SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
LEAK = 0.01


def normal_density(a):
    return np.exp(-0.5 * a * a) / np.sqrt(2 * np.pi)


def softplus(a):
    return np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))


def elu(a):
    return np.where(a > 0, a, np.expm1(np.minimum(a, 0)))


def gelu_slope(a, F):
    return 0.5 * (1 + erf(a / np.sqrt(2))) + a * normal_density(a)


def silu_slope(a, F):
    return expit(a) * (1 + a * expit(-a))


def mish_slope(a, F):
    t = np.tanh(softplus(a))
    return t + a * expit(a) * (1 - t) * (1 + t)


ACTIVATIONS = {
    "identity": (lambda a: a, lambda a, F: np.ones_like(a)),
    "relu": (lambda a: np.maximum(a, 0), lambda a, F: (a > 0) * 1.0),
    "leaky_relu": (lambda a: np.where(a > 0, a, LEAK * a), lambda a, F: np.where(a > 0, 1.0, LEAK)),
    "elu": (elu, lambda a, F: np.where(F > 0, 1.0, F + 1)),
    "selu": (
        lambda a: SELU_SCALE * np.where(a > 0, a, SELU_ALPHA * np.expm1(np.minimum(a, 0))),
        lambda a, F: np.where(F > 0, SELU_SCALE, F + SELU_SCALE * SELU_ALPHA),
    ),
    "sigmoid": (expit, lambda a, F: expit(a) * expit(-a)),
    "tanh": (np.tanh, lambda a, F: (1 - F) * (1 + F)),
    "softplus": (softplus, lambda a, F: expit(a)),
    "hard_tanh": (lambda a: np.clip(a, -1, 1), lambda a, F: (np.abs(a) < 1) * 1.0),
    "gelu": (lambda a: 0.5 * a * (1 + erf(a / np.sqrt(2))), gelu_slope),
    "silu": (lambda a: a * expit(a), silu_slope),
    "mish": (lambda a: a * np.tanh(softplus(a)), mish_slope),
}
KINKED = {"relu", "leaky_relu", "elu", "selu", "hard_tanh"}  # σ' or σ'' jumps: not smooth

# --- losses: ℓ(y, t) per sample and L(y, t) = ∂ℓ/∂t -----------------------------------------------


def outputs_summed(values):
    return values.reshape(len(values), -1).sum(axis=1)


def probabilities(y, t):
    """The labels as rows of probabilities; probabilities pass through."""
    return y if np.ndim(y) == t.ndim else np.eye(t.shape[-1])[np.asarray(y, int)]


def huber(r):
    return np.where(np.abs(r) <= 1, 0.5 * r * r, np.abs(r) - 0.5)


def cross_entropy(y, t):
    return -outputs_summed(probabilities(y, t) * log_softmax(t, axis=-1))


def cross_entropy_slope(y, t):
    p = probabilities(y, t)
    return softmax(t, axis=-1) * p.sum(axis=-1, keepdims=True) - p


LOSSES = {
    "squared_error": (lambda y, t: outputs_summed((y - t) ** 2), lambda y, t: 2 * (t - y)),
    "absolute_error": (lambda y, t: outputs_summed(np.abs(y - t)), lambda y, t: np.sign(t - y)),
    "huber": (lambda y, t: outputs_summed(huber(t - y)), lambda y, t: np.clip(t - y, -1, 1)),
    "poisson": (lambda y, t: outputs_summed(np.exp(t) - y * t), lambda y, t: np.exp(t) - y),
    "binary_cross_entropy": (
        lambda y, t: outputs_summed(np.maximum(t, 0) - y * t + np.log1p(np.exp(-np.abs(t)))),
        lambda y, t: expit(t) - y,
    ),
    "softmax_cross_entropy": (cross_entropy, cross_entropy_slope),
}

# --- layers: C, C†, C††, ι* ----------------------------------------------------------------------


@dataclass
class Dense:
    """``C(x, W) = W x``, ``C†(h, W) = Wᵀ h``, ``C††(x, h) = h xᵀ``, ``ι = id``."""

    W: np.ndarray
    b: np.ndarray | None
    activation: str = "identity"
    trainable: bool = True

    def preactivation(self, x):
        a = x @ self.W.T
        return a if self.b is None else a + self.b

    def adjoint_input(self, h):
        return h @ self.W

    def adjoint_weight(self, x, h):
        return h.T @ x

    def gather(self, h):
        return h.sum(axis=0)


@dataclass
class Mask:
    """Dropout at one drawn mask: linear in x, self-adjoint, and without parameters."""

    m: np.ndarray
    activation: str = "identity"
    W = b = None

    def preactivation(self, x):
        return x * self.m

    def adjoint_input(self, h):
        return h * self.m


# --- Algorithm 2 ---------------------------------------------------------------------------------


def forward(layers, x):
    """``a_k`` and ``F_k`` for k = 0..n, with ``F_0 = x``."""
    a, F = [x], [x]
    for layer in layers:
        σ, _ = ACTIVATIONS[layer.activation]
        a.append(layer.preactivation(F[-1]))
        F.append(σ(a[-1]))
    return a, F


def predict(layers, x):
    return forward(layers, np.asarray(x, float))[1][-1]


def sample_shares(n, s=None):
    """``c_i = s_i / Σ s``."""
    s = np.ones(n) if s is None else np.asarray(s, float)
    return s / s.sum()


def each(c, values):
    """``c_i`` times the values of sample i, whatever their shape."""
    return (c * values.T).T


def loss(layers, name, x, y, s=None):
    ℓ_of, _ = LOSSES[name]
    return float(sample_shares(len(x), s) @ ℓ_of(np.asarray(y, float), predict(layers, x)))


def backward(layers, a, F, T):
    """Theorems 7 and 10 from ``T`` at the output: ``G_k``, ``g_k``, and ``T`` at the input."""
    n = len(layers)
    G, g = [None] * n, [None] * n
    for k in range(n, 0, -1):
        layer = layers[k - 1]
        _, slope = ACTIVATIONS[layer.activation]
        T = T * slope(a[k], F[k])
        if layer.W is not None:
            G[k - 1] = layer.adjoint_weight(F[k - 1], T) * layer.trainable
        if layer.b is not None:
            g[k - 1] = layer.gather(T) * layer.trainable
        T = layer.adjoint_input(T)
    return G, g, T


def gradients(layers, name, x, y, s=None):
    """The mean loss, and lists of ``G_k`` and ``g_k``: ``None`` where a layer has none."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    ℓ_of, L = LOSSES[name]
    c = sample_shares(len(x), s)
    a, F = forward(layers, x)
    G, g, _ = backward(layers, a, F, each(c, L(y, F[-1])))
    return float(c @ ℓ_of(y, F[-1])), G, g


# --- optimizers: one flat θ, PyTorch's formulas --------------------------------------------------


def clip(gradient, max_norm):
    """``torch.nn.utils.clip_grad_norm_``."""
    return gradient * min(1.0, max_norm / (np.linalg.norm(gradient) + 1e-6))


class Optimizer:
    """Holds the step number t (from 1) and the schedule; a subclass gives ``update(θ, g, η)``."""

    def __init__(self, lr, clip_norm=None, **options):
        self.lr, self.clip_norm, self.t, self.state = lr, clip_norm, 0, {}
        for name, default in self.defaults.items():
            setattr(self, name, options.pop(name, default))
        assert not options, f"unknown options: {sorted(options)}"

    def kept(self, name, θ):
        return self.state.setdefault(name, np.zeros_like(θ))

    def step(self, θ, g):
        η = self.lr(self.t) if callable(self.lr) else self.lr
        self.t += 1
        return self.update(θ, g if self.clip_norm is None else clip(g, self.clip_norm), η)


class SGD(Optimizer):
    defaults: ClassVar = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}

    def update(self, θ, g, η):
        g = g + self.weight_decay * θ
        if self.momentum:
            v = self.state["v"] = self.momentum * self.kept("v", θ) + g
            g = g + self.momentum * v if self.nesterov else v
        return θ - η * g


class Adam(Optimizer):
    defaults: ClassVar = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}

    def update(self, θ, g, η):
        return self.adam(θ, g + self.weight_decay * θ, η)

    def adam(self, θ, g, η):
        β1, β2 = self.betas
        m = self.state["m"] = β1 * self.kept("m", θ) + (1 - β1) * g
        v = self.state["v"] = β2 * self.kept("v", θ) + (1 - β2) * g * g
        m, v = m / (1 - β1**self.t), v / (1 - β2**self.t)
        return θ - η * m / (np.sqrt(v) + self.eps)


class AdamW(Adam):
    defaults: ClassVar = {**Adam.defaults, "weight_decay": 1e-2}

    def update(self, θ, g, η):
        return self.adam(θ * (1 - η * self.weight_decay), g, η)


class RMSprop(Optimizer):
    defaults: ClassVar = {
        "alpha": 0.99,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "momentum": 0.0,
        "centered": False,
    }

    def update(self, θ, g, η):
        g, α = g + self.weight_decay * θ, self.alpha
        v = self.state["v"] = α * self.kept("v", θ) + (1 - α) * g * g
        if self.centered:
            m = self.state["m"] = α * self.kept("m", θ) + (1 - α) * g
            v = np.maximum(0, v - m * m)
        step = g / (np.sqrt(v) + self.eps)
        if self.momentum:
            step = self.state["u"] = self.momentum * self.kept("u", θ) + step
        return θ - η * step


class Adagrad(Optimizer):
    defaults: ClassVar = {"lr_decay": 0.0, "eps": 1e-10, "weight_decay": 0.0}

    def update(self, θ, g, η):
        g = g + self.weight_decay * θ
        v = self.state["v"] = self.kept("v", θ) + g * g
        return θ - η / (1 + (self.t - 1) * self.lr_decay) * g / (np.sqrt(v) + self.eps)


OPTIMIZERS = {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop, "adagrad": Adagrad}
