"""The losses ℓ(y, t), as the kernels offer them, and a user's own.

`REGISTRY` maps each name to its `NamedLoss`. A loss's value is the mean over samples; over outputs
it is a sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fnn_core import _engine

_TARGET_RANGES = {
    "binary_cross_entropy": (0.0, 1.0),
    "softmax_cross_entropy": (0.0, 1.0),
    "poisson": (0.0, math.inf),
}


@dataclass(frozen=True)
class NamedLoss:
    """A loss of the kernels.

    Attributes
    ----------
    name : str
    has_probabilities : bool
        Whether its outputs are logits of probabilities.
    """

    name: str
    has_probabilities: bool
    index: int = field(repr=False)

    @property
    def takes_labels(self) -> bool:
        """Whether a target may be a class label."""
        return self.name == "softmax_cross_entropy"

    @property
    def target_range(self) -> tuple[float, float]:
        """What a target's entries must lie in."""
        return _TARGET_RANGES.get(self.name, (-math.inf, math.inf))


@dataclass(frozen=True)
class Loss:
    """A loss of the user's: functions of targets y and outputs t, each ``(N, *output_shape)``.

    Parameters
    ----------
    value : callable
        ``value(y, t)`` gives ℓ of each sample, shape ``(N,)``.
    slope : callable
        ``slope(y, t)`` gives L = ∂ℓ/∂t, of the shape of `t`.
    curvature : callable, optional
        ``curvature(y, t, v)`` gives ℓ''(y, t) v, of the shape of `t`; second-order products need
        it.

    Raises
    ------
    TypeError
        Where an argument is not a function.

    Examples
    --------
    >>> import numpy as np, fnn_core as fnn
    >>> half_square = fnn.Loss(lambda y, t: 0.5 * ((t - y) ** 2).sum(axis=1), lambda y, t: t - y)
    >>> net = fnn.Network([fnn.Dense(1)], input_shape=2, loss=half_square, seed=0)
    >>> net.loss(np.zeros((3, 2)), np.ones((3, 1)))
    0.5
    """

    value: Callable[[np.ndarray, np.ndarray], Any]
    slope: Callable[[np.ndarray, np.ndarray], Any]
    curvature: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        for name in ("value", "slope", "curvature"):
            function = getattr(self, name)
            if not callable(function) and not (function is None and name == "curvature"):
                raise TypeError(f"{name}: expected a function of (y, t), got {function!r}")

    name = "a user's"
    has_probabilities = False
    takes_labels = False
    target_range = (-math.inf, math.inf)

    def evaluate(self, y: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values and slopes, of the shapes and the dtype that the engine takes."""
        values = self._values(y, t)
        slopes = self._checked("slope", self.slope(y, t), t.shape, t.dtype)
        if np.isfinite(values).all() and not np.isfinite(slopes).all():
            raise ValueError("slope(y, t) of the loss: expected finite numbers where the value is")
        return values, slopes

    def second_order(
        self, y: np.ndarray, t: np.ndarray, v: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """L and ℓ'' v, in arrays that may be written to."""
        assert self.curvature is not None
        slopes = self._checked("slope", self.slope(y, t), t.shape, t.dtype)
        return slopes.copy(), self._checked(
            "curvature", self.curvature(y, t, v), t.shape, t.dtype
        ).copy()

    def mean(self, y: np.ndarray, t: np.ndarray, weights: np.ndarray | None) -> float:
        """The mean over samples, weighted where there are weights."""
        return float(np.average(self._values(y, t), weights=weights))

    def _values(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        return self._checked("value", self.value(y, t), t.shape[:1], t.dtype)

    @staticmethod
    def _checked(name: str, result: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        array = np.asarray(result)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name}(y, t) of the loss: expected real numbers, got {array.dtype}")
        if array.shape != shape:
            raise ValueError(f"{name}(y, t) of the loss: expected shape {shape}, got {array.shape}")
        return np.ascontiguousarray(array, dtype)


REGISTRY: dict[str, NamedLoss] = {
    name: NamedLoss(name, has_probabilities, index)
    for index, (name, has_probabilities) in enumerate(_engine.loss_table())
}


def as_loss(loss: Any) -> NamedLoss | Loss:
    """The loss of that name; a `Loss`, or one of the registry, is returned as it is."""
    if isinstance(loss, NamedLoss) and REGISTRY.get(loss.name) != loss:
        raise ValueError(
            f"loss: expected one of {', '.join(REGISTRY)}, got {loss!r}, which the kernels do not "
            "have"
        )
    if isinstance(loss, Loss | NamedLoss):
        return loss
    if not isinstance(loss, str):
        raise TypeError(
            f"loss: expected an fnn_core.Loss or one of {', '.join(REGISTRY)}, got {loss!r}"
        )
    if loss not in REGISTRY:
        raise ValueError(f"loss = {loss!r}: expected one of {', '.join(REGISTRY)}")
    return REGISTRY[loss]
