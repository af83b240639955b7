"""The dense layer σ(W x + b) of Section 3."""

from __future__ import annotations

from typing import Any

from fnn_core.activations import Activation, as_activation
from fnn_core.checks import as_flag, as_positive_int
from fnn_core.initializers import Initializer, as_initializer
from fnn_core.layers.base import Connection, Layer
from fnn_core.layers.geometry import Shape


class Dense(Layer):
    """Every output sees every input: F = σ(W x + b), the layer of Section 3 and Algorithm 1.

    Parameters
    ----------
    units : int
        Outputs d_k. The weight has shape ``(units, inputs)``, the bias ``(units,)``.
    activation : str or Activation
        σ, by name or from `fnn_core.activations`.
    bias : bool
        Whether there is a b.
    trainable : bool
        Whether training changes W and b; their gradients are zero where it does not.
    initializer : str or callable, optional
        A name of `fnn_core.initializers`, or a function ``(rng, shape)``. By default the one that
        suits the activation.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not of that kind.

    Examples
    --------
    >>> from fnn_core import Dense
    >>> Dense(10, "relu").connect((4,)).weight_shape
    (10, 4)
    """

    kind = "dense"

    def __init__(
        self,
        units: int,
        activation: str | Activation = "identity",
        *,
        bias: bool = True,
        trainable: bool = True,
        initializer: Initializer | None = None,
    ) -> None:
        self.units = as_positive_int(units, "units")
        self.activation = as_activation(activation)
        self.bias = as_flag(bias, "bias")
        self.trainable = as_flag(trainable, "trainable")
        self.initializer = as_initializer(initializer)

    def connect(self, input_shape: Shape) -> Connection:
        if len(input_shape) != 1:
            raise ValueError(
                f"Dense({self.units}): expected an input of shape (d,), got {input_shape}; "
                "flatten it before"
            )
        return Connection(
            layer=self,
            input_shape=input_shape,
            output_shape=(self.units,),
            weight_shape=(self.units, *input_shape),
            bias_shape=(self.units,) if self.bias else None,
        )

    def settings(self) -> dict[str, Any]:
        return {
            "units": self.units,
            "activation": self.activation.name,
            "bias": self.bias,
            "trainable": self.trainable,
            **self._setting_of_initializer(),
        }
