"""JAX, jitted step by step or as one scan."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.nets import Parameters
from bench.rivals.base import LEARNING_RATE, Rival


class JaxStep(Rival):
    """JAX with optax, one jitted call a step."""

    name = "jax_step"
    modules = ("jax", "optax")

    def prepare(self) -> None:
        import jax
        import jax.numpy as jnp
        import optax

        jax.config.update("jax_enable_x64", self.problem.dtype == "float64")
        activation = {"relu": jax.nn.relu, "tanh": jnp.tanh}[self.net.activation]
        optimizer = optax.adam(LEARNING_RATE)

        def loss(parameters: Any, features: Any, target: Any) -> Any:
            for weight, bias in parameters[:-1]:
                features = activation(features @ weight + bias)
            prediction = features @ parameters[-1][0] + parameters[-1][1]
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
        parameters = [(jnp.array(w.T), jnp.array(b)) for w, b in self.problem.parameters]
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
        return [(np.asarray(w).T, np.asarray(b)) for w, b in self.state[0]]

    def gradients(self) -> Parameters:
        slopes = self.slopes(self.state[0], self.features, self.target)
        return [(np.asarray(w).T, np.asarray(b)) for w, b in slopes]


class JaxScan(JaxStep):
    """JAX with optax, all steps in one jitted ``lax.scan``."""

    name = "jax_scan"

    def function_to_jit(self, step: Any) -> Any:
        """What is jitted: here, the loop over all steps."""
        import jax

        def loop(state: Any, features: Any, target: Any) -> Any:
            def body(state: Any, _: None) -> Any:
                return step(state, features, target), None

            return jax.lax.scan(body, state, None, length=self.steps)[0]

        return loop

    def run(self) -> None:
        self.state = self.advance(self.state, self.features, self.target)
        self.wait()
