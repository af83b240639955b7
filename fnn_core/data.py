"""Samples as the engine takes them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fnn_core.checks import as_inputs, as_targets, as_weights

if TYPE_CHECKING:
    from fnn_core.network import Network


@dataclass(frozen=True)
class Data:
    """Inputs, targets (labels or numbers) and sample weights, checked, in the engine's dtype."""

    inputs: np.ndarray
    targets: Any
    labels: bool
    weights: np.ndarray | None

    @property
    def count(self) -> int:
        return len(self.inputs)

    def copy(self) -> Data:
        """The same, for whoever keeps them: the arrays may be the caller's own."""
        weights = None if self.weights is None else self.weights.copy()
        return replace(
            self, inputs=self.inputs.copy(), targets=self.targets.copy(), weights=weights
        )

    @property
    def total_weight(self) -> float:
        """Σ s_i."""
        return self.count if self.weights is None else float(self.weights.sum(dtype=np.float64))


def as_data(
    net: Network,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    names: tuple[str, str, str] = ("X", "y", "sample_weight"),
) -> Data:
    """Check samples against a net; there must be at least one."""
    inputs = as_inputs(X, net.input_shape, net.dtype, names[0])
    if len(inputs) == 0:
        raise ValueError(f"{names[0]}: expected at least one sample, got none")
    targets, labels = as_targets(
        y, net.loss_function, net.output_shape, net.dtype, len(inputs), names[1]
    )
    weights = as_weights(sample_weight, net.dtype, len(inputs), names[2])
    return Data(inputs, targets, labels, weights)


def as_batch_size(batch_size: int, count: int) -> int:
    """No batch is larger than the data."""
    return min(batch_size, count)


def steps_of(count: int, batch_size: int) -> int:
    """Batches of an epoch, a last short one included."""
    return math.ceil(count / batch_size)
