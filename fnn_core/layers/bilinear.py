"""The paper's general layer with a map of the user's: σ(C(x, W) + ι(b))."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnn_core.activations import Activation, as_activation
from fnn_core.checks import as_flag, as_shape
from fnn_core.initializers import Initializer, as_initializer
from fnn_core.layers.base import Connection, Layer
from fnn_core.layers.geometry import Shape
from fnn_core.maps import BilinearMap, result_of_map


class Bilinear(Layer):
    """σ(C(x, W) + ι(b)) of Section 4, with a `BilinearMap` as C.

    Parameters
    ----------
    map : BilinearMap
    activation : str or Activation
    bias, trainable, initializer
        As in `Dense`. The weight has the map's `weight_shape`, the bias its `bias_shape`, or one
        number for each output entry.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not of that kind. What a function of the map raises comes out of the
        call that it was raised in, with the net unharmed.

    Notes
    -----
    A net with such a layer runs on one thread, and updates after the whole gradient is known.

    Examples
    --------
    >>> import fnn_core as fnn
    >>> scale = fnn.BilinearMap.from_function(
    ...     lambda x, w: x * w, input_shape=3, weight_shape=3, output_shape=3
    ... )
    >>> fnn.Network([fnn.Bilinear(scale, "tanh")], input_shape=3).predict([[1, 2, 3]]).shape
    (1, 3)
    """

    kind = "bilinear"

    def __init__(
        self,
        map: BilinearMap,
        activation: str | Activation = "identity",
        *,
        bias: bool = True,
        trainable: bool = True,
        initializer: Initializer | None = None,
    ) -> None:
        if not isinstance(map, BilinearMap):
            raise TypeError(f"map: expected a BilinearMap, got {map!r}")
        for name in ("input_shape", "weight_shape", "output_shape"):
            if not hasattr(map, name):
                raise TypeError(f"map: expected it to have {name}, got {map!r}")
            as_shape(getattr(map, name), f"map.{name}")
        names = ["apply", "adjoint_input", "adjoint_weight"]
        brings_bias = any(
            getattr(type(map), name) is not getattr(BilinearMap, name) or name in vars(map)
            for name in ("spread", "gather")
        )
        if map.bias_shape is not None or brings_bias:
            as_shape(map.bias_shape, "map.bias_shape")
            names += ["spread", "gather"]
        for name in names:
            function = getattr(map, name, None)
            if not callable(function) or getattr(function, "__func__", None) is getattr(
                BilinearMap, name
            ):
                raise TypeError(f"map.{name}: expected a method of its own, got {function!r}")
        self.map = map
        self.activation = as_activation(activation)
        self.bias = as_flag(bias, "bias")
        self.trainable = as_flag(trainable, "trainable")
        self.initializer = as_initializer(initializer)

    def connect(self, input_shape: Shape) -> Connection:
        expected = as_shape(self.map.input_shape, "map.input_shape")
        if input_shape != expected:
            raise ValueError(f"Bilinear: expected an input of shape {expected}, got {input_shape}")
        output_shape = as_shape(self.map.output_shape, "map.output_shape")
        bias_shape = None
        if self.bias:
            brought = self.map.bias_shape
            bias_shape = output_shape if brought is None else as_shape(brought, "map.bias_shape")
        return Connection(
            layer=self,
            input_shape=input_shape,
            output_shape=output_shape,
            weight_shape=as_shape(self.map.weight_shape, "map.weight_shape"),
            bias_shape=bias_shape,
            is_stored_transposed=False,
        )

    def settings(self) -> dict[str, Any]:
        return {
            "map": self.map,
            "activation": self.activation.name,
            "bias": self.bias,
            "trainable": self.trainable,
            **self._setting_of_initializer(),
        }


class Caller:
    """What the engine calls: the map's functions on flat rows, their results checked.

    `errors` holds what a function has raised, by the thread, until the call that it happened in
    reports it.
    """

    def __init__(self, connection: Connection, dtype: np.dtype) -> None:
        assert isinstance(connection.layer, Bilinear)
        self._map = connection.layer.map
        self._connection = connection
        self._dtype = dtype
        self.errors: dict[int, BaseException] = {}

    def _checked(self, name: str, result: Any, shape: Shape) -> np.ndarray:
        return np.ascontiguousarray(result_of_map(name, result, shape), self._dtype)

    def apply(self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None) -> np.ndarray:
        place = self._connection
        shape = (len(x), *place.output_shape)
        result = self._map.apply(
            x.reshape(len(x), *place.input_shape), w.reshape(self._map.weight_shape)
        )
        output = self._checked("apply", result, shape)
        if b is None:
            return output
        assert place.bias_shape is not None
        b = b.reshape(place.bias_shape)
        if self._map.bias_shape is not None:
            b = self._checked("spread", self._map.spread(b), place.output_shape)
        return np.add(output, b, dtype=self._dtype)

    def adjoint_input(self, h: np.ndarray, w: np.ndarray) -> np.ndarray:
        place = self._connection
        result = self._map.adjoint_input(
            h.reshape(len(h), *place.output_shape), w.reshape(self._map.weight_shape)
        )
        return self._checked("adjoint_input", result, (len(h), *place.input_shape))

    def adjoint_weight(self, x: np.ndarray, h: np.ndarray) -> np.ndarray:
        place = self._connection
        assert place.weight_shape is not None
        result = self._map.adjoint_weight(
            x.reshape(len(x), *place.input_shape), h.reshape(len(h), *place.output_shape)
        )
        return self._checked("adjoint_weight", result, place.weight_shape)

    def gather(self, h: np.ndarray) -> np.ndarray:
        place = self._connection
        assert place.bias_shape is not None
        h = h.reshape(len(h), *place.output_shape)
        result = h.sum(axis=0) if self._map.bias_shape is None else self._map.gather(h)
        return self._checked("gather", result, place.bias_shape)
