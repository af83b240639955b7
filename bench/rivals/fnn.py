"""fnn_core, whose place among the others is the question."""

from __future__ import annotations

import math
from typing import Any

from bench.layers import Conv, Dense, Flatten, MaxPool, Place
from bench.nets import Parameters
from bench.rivals.base import LEARNING_RATE, Rival

#: Of the data that `fit` goes over: half of a small second-level cache.
DATA_BYTES = 2**18


def pairs(owner: Any) -> Parameters:
    """The weights and biases of a net, or of its gradients, of the layers that have them."""
    return [
        (weight, bias)
        for weight, bias in zip(owner.weights, owner.biases, strict=True)
        if weight is not None
    ]


def layer_at(place: Place) -> Any:
    """The layer as fnn_core has it."""
    import fnn_core as fnn

    match place.layer:
        case Dense(units):
            return fnn.Dense(units, place.activation)
        case Conv(filters, size, padding):
            return fnn.Conv(filters, size, place.activation, padding=padding)
        case MaxPool(size):
            return fnn.MaxPool(size)
        case Flatten():
            return fnn.Flatten()


class FnnStep(Rival):
    """fnn_core, one call of `Network.step` a step."""

    name = "fnn_step"
    modules = ("fnn_core",)

    def prepare(self) -> None:
        import fnn_core as fnn

        self.network = fnn.Network(
            [layer_at(place) for place in self.net.places],
            input_shape=self.net.input_shape,
            loss=self.net.loss,
            dtype=self.problem.dtype,
            n_threads=self.threads,
        )
        self.optimizer = fnn.Adam(LEARNING_RATE)
        for (weight, bias), (mine, my_bias) in zip(
            self.problem.parameters, self.parameters(), strict=True
        ):
            mine[...] = weight
            my_bias[...] = bias

    def run(self) -> None:
        step, optimizer = self.network.step, self.optimizer
        features, target = self.problem.features, self.problem.target
        for _ in range(self.steps):
            step(features, target, optimizer)

    def parameters(self) -> Parameters:
        return pairs(self.network)

    def gradients(self) -> Parameters:
        _, slopes = self.network.gradients(self.problem.features, self.problem.target)
        return pairs(slopes)


class FnnFit(FnnStep):
    """fnn_core, all steps in one call of `Network.fit`: epochs over the batch, again and again.

    The data set stays in a second-level cache, as the one batch of the others does.
    """

    name = "fnn_fit"

    def prepare(self) -> None:
        super().prepare()
        most = max(1, DATA_BYTES // self.problem.features.nbytes)
        batches = math.gcd(self.steps, 2 ** int(math.log2(most)))
        self.repeated = self.problem.repeated(batches)
        self.epochs = self.steps // batches

    def run(self) -> None:
        self.network.fit(
            *self.repeated,
            epochs=self.epochs,
            batch_size=self.net.batch_size,
            optimizer=self.optimizer,
            shuffle=False,
        )
