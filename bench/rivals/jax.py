"""JAX, jitted step by step or as one scan."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bench.layers import Conv, Dense, Flatten, MaxPool, Place
from bench.nets import Parameters
from bench.rivals.base import LEARNING_RATE, Rival

#: More takes minutes to compile.
MOST_UNROLLED = 4


def apply(places: list[Place], parameters: Any, values: Any) -> Any:
    """The net's outputs; weights have their outputs last."""
    import jax
    import jax.numpy as jnp

    activations = {
        "relu": jax.nn.relu,
        "tanh": jnp.tanh,
        "sigmoid": jax.nn.sigmoid,
        "identity": lambda values: values,
    }
    remaining = iter(parameters)
    for place in places:
        activation = activations[place.activation]
        match place.layer:
            case Dense():
                weight, bias = next(remaining)
                values = activation(values @ weight + bias)
            case Conv(padding=padding):
                weight, bias = next(remaining)
                order = ("NHWC", "HWIO", "NHWC")
                values = jax.lax.conv_general_dilated(
                    values, weight, (1, 1), padding.upper(), dimension_numbers=order
                )
                values = activation(values + bias)
            case MaxPool(size):
                values = max_pool(values, size)
            case Flatten():
                values = values.reshape(len(values), -1)
    return values


def max_pool(images: Any, size: int) -> Any:
    """The greatest of each window, by an axis for the places in a window.

    On a CPU its gradient takes a sixth of the time that ``lax.reduce_window``'s takes. They differ
    where entries of a window are equal, which after a ReLU only those are whose gradient it stops.
    """
    samples, height, width, channels = images.shape
    rows, columns = height // size, width // size
    whole = images[:, : rows * size, : columns * size]
    return whole.reshape(samples, rows, size, columns, size, channels).max(axis=(2, 4))


class JaxStep(Rival):
    """JAX with optax, one jitted call a step."""

    name = "jax_step"
    modules = ("jax", "optax")

    def prepare(self) -> None:
        import jax
        import jax.numpy as jnp
        import optax

        jax.config.update("jax_enable_x64", self.problem.dtype == "float64")
        optimizer = optax.adam(LEARNING_RATE)
        places = self.net.places

        def loss(parameters: Any, features: Any, target: Any) -> Any:
            prediction = apply(places, parameters, features)
            if self.net.loss == "squared_error":
                return ((prediction - target) ** 2).mean()
            return optax.softmax_cross_entropy_with_integer_labels(prediction, target).mean()

        def step(state: Any, features: Any, target: Any) -> Any:
            parameters, moments = state
            slopes = jax.grad(loss)(parameters, features, target)
            updates, moments = optimizer.update(slopes, moments, parameters)
            return optax.apply_updates(parameters, updates), moments

        self.features = jnp.asarray(self.problem.features)
        self.target = jnp.asarray(self.problem.target)
        parameters = [
            (jnp.array(np.moveaxis(weight, 0, -1)), jnp.array(bias))
            for weight, bias in self.problem.parameters
        ]
        self.state: Any = (parameters, optimizer.init(parameters))
        self.slopes = jax.jit(jax.grad(loss))
        self.advance = jax.jit(self.function_to_jit(step), donate_argnums=0)

    def function_to_jit(self, step: Any) -> Any:
        """What is jitted: here, one step."""
        return step

    def run(self) -> None:
        for _ in range(self.steps):
            self.state = self.advance(self.state, self.features, self.target)
        self.wait()

    def wait(self) -> None:
        """JAX returns before its work is done."""
        import jax

        jax.block_until_ready(self.state)

    def parameters(self) -> Parameters:
        return outputs_first(self.state[0])

    def gradients(self) -> Parameters:
        return outputs_first(self.slopes(self.state[0], self.features, self.target))


def outputs_first(parameters: Any) -> Parameters:
    """Weights and biases as arrays in the problem's layout."""
    return [
        (np.moveaxis(np.asarray(weight), -1, 0), np.asarray(bias)) for weight, bias in parameters
    ]


class JaxScan(JaxStep):
    """JAX with optax, all steps in one jitted ``lax.scan``.

    Inside of a loop, though, XLA on a CPU takes some twenty times as long for the gradients of
    convolutions. So with convolutions it is a few steps a call, unrolled.
    """

    name = "jax_scan"

    @property
    def loops(self) -> bool:
        """Whether the steps are a loop for XLA."""
        return not any(isinstance(layer, Conv) for layer in self.net.layers)

    @property
    def length(self) -> int:
        """Steps of one call: all, or some that divide them."""
        return self.steps if self.loops else math.gcd(self.steps, MOST_UNROLLED)

    def function_to_jit(self, step: Any) -> Any:
        """What is jitted: here, a scan over steps."""
        import jax

        def scan(state: Any, features: Any, target: Any) -> Any:
            def body(state: Any, _: None) -> Any:
                return step(state, features, target), None

            unroll = 1 if self.loops else self.length
            return jax.lax.scan(body, state, None, length=self.length, unroll=unroll)[0]

        return scan

    def run(self) -> None:
        for _ in range(self.steps // self.length):
            self.state = self.advance(self.state, self.features, self.target)
        self.wait()
