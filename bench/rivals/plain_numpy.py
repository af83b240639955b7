"""Plain NumPy: the net as one writes it by hand, and the reference for all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.nets import Net, Parameters
from bench.rivals.base import LEARNING_RATE, Rival

DECAYS = (0.9, 0.999)
EPSILON = 1e-8

Function = Callable[[NDArray[Any]], NDArray[Any]]

#: Each with its slope, as a function of its output.
ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "relu": (lambda a: np.maximum(a, 0), lambda output: output > 0),
    "tanh": (np.tanh, lambda output: 1 - output * output),
    "sigmoid": (lambda a: 1 / (1 + np.exp(-a)), lambda output: output * (1 - output)),
}


class PlainNumPy(Rival):
    """What one writes by hand for dense layers: matrix products, and Adam in place."""

    name = "numpy"

    @classmethod
    def can_train(cls, net: Net) -> bool:
        return net.hidden_units is not None

    def prepare(self) -> None:
        self.current = [(w.copy(), b.copy()) for w, b in self.problem.parameters]
        self.moments = [[(np.zeros_like(p), np.zeros_like(p)) for p in pair]
                        for pair in self.current]  # fmt: skip
        self.count = 0

    def run(self) -> None:
        for _ in range(self.steps):
            self.step()

    def step(self) -> None:
        gradients = self.gradients()
        self.count += 1
        first_decay, second_decay = DECAYS
        rate = LEARNING_RATE / (1 - first_decay**self.count)
        correction = (1 - second_decay**self.count) ** 0.5
        for pair, moments, slopes in zip(self.current, self.moments, gradients, strict=True):
            for values, (first, second), slope in zip(pair, moments, slopes, strict=True):
                first += (1 - first_decay) * (slope - first)
                second += (1 - second_decay) * (slope * slope - second)
                values -= rate * first / (np.sqrt(second) / correction + EPSILON)

    def gradients(self) -> Parameters:
        activate, slope = ACTIVATIONS[self.net.activation]
        outputs = [self.problem.features]
        for weight, bias in self.current[:-1]:
            outputs.append(activate(outputs[-1] @ weight.T + bias))
        weight, bias = self.current[-1]
        delta = self.loss_slope(outputs[-1] @ weight.T + bias)
        gradients: Parameters = []
        for layer in reversed(range(len(self.current))):
            incoming = outputs[layer]
            gradients.append((delta.T @ incoming, delta.sum(axis=0)))
            if layer:
                delta = delta @ self.current[layer][0]
                delta *= slope(incoming)
        return gradients[::-1]

    def loss_slope(self, prediction: NDArray[Any]) -> NDArray[Any]:
        target = self.problem.target
        if self.net.loss == "squared_error":
            return 2 / len(target) * (prediction - target)
        weights: NDArray[Any] = np.exp(prediction - prediction.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        weights[np.arange(len(target)), target] -= 1
        return weights / len(target)

    def parameters(self) -> Parameters:
        return self.current
