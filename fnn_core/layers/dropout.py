"""Dropout: a random mask, in training only."""

from __future__ import annotations

from typing import Any

from fnn_core.activations import as_activation
from fnn_core.checks import as_number
from fnn_core.layers.base import Connection, Layer
from fnn_core.layers.geometry import Shape


class Dropout(Layer):
    """Sets a share of its inputs to zero and scales the others by ``1 / (1 - rate)``, in training.

    Training is `fit` and `step`; elsewhere the layer is the identity. It is linear in x and has no
    weight. The mask comes from a counter-based generator, so the backward pass draws it again
    instead of storing it, and it does not depend on the number of threads.

    Parameters
    ----------
    rate : float
        The share that is dropped, in [0, 1).

    Raises
    ------
    TypeError, ValueError
        Where `rate` is not such a number.

    Examples
    --------
    >>> from fnn_core import Dropout
    >>> Dropout(0.5).connect((4,)).output_shape
    (4,)
    """

    kind = "dropout"

    def __init__(self, rate: float) -> None:
        self.rate = as_number(rate, "rate", at_least=0.0, below=1.0)
        self.activation = as_activation("identity")

    def connect(self, input_shape: Shape) -> Connection:
        return Connection(
            layer=self, input_shape=input_shape, output_shape=input_shape, rate=self.rate
        )

    def settings(self) -> dict[str, Any]:
        return {"rate": self.rate}
