"""scikit-learn's multi-layer perceptrons."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.nets import Net, Parameters
from bench.rivals.base import LEARNING_RATE, Rival


class ScikitLearn(Rival):
    """scikit-learn's ``MLPClassifier`` or ``MLPRegressor``, many batches in one `partial_fit`."""

    name = "sklearn"
    modules = ("sklearn",)

    @classmethod
    def can_train(cls, net: Net) -> bool:
        """Dense nets; but two classes have one output there, and not a softmax of two."""
        return net.hidden_units is not None and net.outputs != 2

    def prepare(self) -> None:
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        classes = self.net.loss == "softmax_cross_entropy"
        kind = MLPClassifier if classes else MLPRegressor
        self.model: Any = kind(
            hidden_layer_sizes=self.net.hidden_units,
            activation={"sigmoid": "logistic"}.get(self.net.activation, self.net.activation),
            batch_size=self.net.batch_size,
            learning_rate_init=LEARNING_RATE,
            alpha=0.0,
            shuffle=False,
        )
        features, target = self.problem.repeated(self.steps)
        self.arguments: dict[str, Any] = {"X": features, "y": target if classes else target[:, 0]}
        if classes:
            self.arguments["classes"] = np.arange(self.net.outputs)
        # The model draws its weights in its first call, so that comes before they are replaced;
        # the optimizer goes, so that the next call starts a fresh one.
        self.run()
        del self.model._optimizer
        for (weight, bias), mine, my_bias in zip(
            self.problem.parameters, self.model.coefs_, self.model.intercepts_, strict=True
        ):
            mine[...] = weight.T
            my_bias[...] = bias

    def run(self) -> None:
        self.model.partial_fit(**self.arguments)

    def parameters(self) -> Parameters:
        pairs = zip(self.model.coefs_, self.model.intercepts_, strict=True)
        return [(weight.T, bias) for weight, bias in pairs]
