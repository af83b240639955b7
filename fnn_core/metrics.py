"""What `fit` reports beside the loss: functions of targets y and outputs t."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnn_core.checks import as_sequence

Metric = Callable[[np.ndarray, np.ndarray], float]

#: Columns of the history that are not metrics.
_TAKEN = ("loss", "seconds")


def accuracy(y: np.ndarray, t: np.ndarray) -> float:
    """The share of samples whose class is right.

    The class of an output is its largest entry, or, where there is one output, whether that is
    above 0: the logit of one half. `y` holds labels, or one row of probabilities a sample.

    >>> accuracy(np.array([0, 1]), np.array([[2.0, 1.0], [3.0, 1.0]]))
    0.5
    """
    if t[0].size == 1:
        return float(np.mean((t.reshape(len(t)) > 0) == (np.reshape(y, len(t)) > 0.5)))
    t = t.reshape(len(t), -1)
    labels = y if np.ndim(y) == 1 else np.argmax(np.reshape(y, t.shape), axis=1)
    return float(np.mean(np.argmax(t, axis=1) == labels))


def r2(y: np.ndarray, t: np.ndarray) -> float:
    """R², the coefficient of determination, averaged over outputs; 0 for one without variance.

    >>> r2(np.array([1.0, 3.0]), np.array([2.0, 3.0]))
    0.5
    """
    y, t = (np.asarray(a, float).reshape(len(t), -1) for a in (y, t))
    residual = ((y - t) ** 2).sum(axis=0)
    total = ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    scores = np.divide(residual, total, out=np.ones_like(total), where=total > 0)
    return float(np.mean(1 - scores))


def mean_absolute_error(y: np.ndarray, t: np.ndarray) -> float:
    """|y − t|, the mean over samples and outputs.

    >>> mean_absolute_error(np.array([1.0, 3.0]), np.array([2.0, 3.0]))
    0.5
    """
    return float(np.mean(np.abs(np.reshape(y, t.shape) - t)))


REGISTRY: dict[str, Metric] = {
    "accuracy": accuracy,
    "r2": r2,
    "mean_absolute_error": mean_absolute_error,
}


def as_metrics(metrics: Any) -> dict[str, Metric]:
    """Names and functions, by the name that the history uses."""
    if isinstance(metrics, str) or callable(metrics):
        metrics = (metrics,)
    chosen: dict[str, Metric] = {}
    for metric in as_sequence(metrics, "metrics"):
        if callable(metric):
            name, function = getattr(metric, "__name__", type(metric).__name__), metric
        elif not isinstance(metric, str):
            raise TypeError(f"metrics: expected names or functions of (y, t), got {metric!r}")
        elif metric not in REGISTRY:
            raise ValueError(
                f"metrics = {metric!r}: expected one of {', '.join(REGISTRY)}, or a function"
            )
        else:
            name, function = metric, REGISTRY[metric]
        if name in chosen or name in _TAKEN or name.startswith("val_"):
            raise ValueError(
                "metrics: expected different names, and none of loss, seconds and val_..., which "
                f"the history has, got {name!r}"
            )
        chosen[name] = function
    return chosen


def require_fitting(metrics: dict[str, Metric], labels: bool) -> None:
    """Raises ValueError where a metric of the registry compares numbers, and targets are labels."""
    for name, metric in metrics.items():
        if labels and metric in (r2, mean_absolute_error):
            raise ValueError(f"metrics = {name!r}: expected targets of numbers, got class labels")


def values(metrics: dict[str, Metric], y: np.ndarray, t: np.ndarray) -> dict[str, float]:
    """Each metric of targets and outputs."""
    return {name: _as_real(name, metric(y, t)) for name, metric in metrics.items()}


def _as_real(name: str, value: Any) -> float:
    if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "biuf":
        return float(value)
    raise TypeError(f"metrics: expected a number from {name}(y, t), got {value!r}")
