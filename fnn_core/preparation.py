"""From a data set as it was read to one ready for training: the task, the split, the scaling.

The splitting and scaling are scikit-learn's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fnn_core.tables import Table, TableError, optional

if TYPE_CHECKING:
    from fnn_core import Network

#: A target of whole numbers with more distinct values than this is taken for a quantity.
MAX_GUESSED_CLASSES = 50


@dataclass(frozen=True)
class Prepared:
    """A data set ready for training: split in two, scaled, with classes as labels 0, 1, ...

    Attributes
    ----------
    task : str
        ``"classification"`` or ``"regression"``.
    n_outputs : int
        The number of classes, or of regression targets.
    train, validation : tuple of ndarray
        Features and target of each part.
    feature_scaler, target_scaler : sklearn.preprocessing.StandardScaler
        What scaled them, fitted to the training part. Classes have no target scaler.
    """

    task: str
    n_outputs: int
    train: tuple[NDArray[Any], NDArray[Any]]
    validation: tuple[NDArray[Any], NDArray[Any]]
    feature_scaler: Any
    target_scaler: Any | None


def guess_task(target: NDArray[Any]) -> str:
    """``"classification"`` for names, booleans and few distinct whole numbers, else regression."""
    if target.ndim == 2:
        return "regression"
    if target.dtype.kind not in "iuf":
        return "classification"
    n_distinct = len(np.unique(target))
    whole = bool(np.all(target == np.floor(target)))
    few = n_distinct <= min(MAX_GUESSED_CLASSES, len(target) // 2)
    return "classification" if whole and few else "regression"


def prepare(
    table: Table, *, task: str = "auto", validation: float = 0.2, seed: int = 0, dtype: str
) -> Prepared:
    """Split a data set in two and scale it by the means and deviations of its training part.

    Parameters
    ----------
    table : Table
        The data set.
    task : str, optional
        ``"classification"`` (the split is then stratified), ``"regression"``, or ``"auto"`` for
        what `guess_task` says.
    validation : float, optional
        The share of the samples to validate on.
    seed : int, optional
        Seeds the split.
    dtype : str
        The type of the result's real numbers.
    """
    task = guess_task(table.target) if task == "auto" else task
    if task == "classification":
        target, n_outputs = _class_labels(table)
    else:
        target, n_outputs = _quantities(table)
    scaler = optional("sklearn.preprocessing").StandardScaler
    try:
        train, valid, train_target, valid_target = optional(
            "sklearn.model_selection"
        ).train_test_split(
            table.features,
            target,
            test_size=validation,
            random_state=seed % 2**32,  # as much of it as scikit-learn takes
            stratify=target if task == "classification" else None,
        )
    except ValueError as error:
        raise TableError(f"{table.name}: cannot be split: {error}") from error
    if len(valid) < 2:
        raise TableError(f"{table.name}: {len(valid)} samples to validate on; 2 is the least")

    feature_scaler = scaler().fit(train)
    target_scaler = None if task == "classification" else scaler().fit(train_target)

    def scaled(features: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        if target_scaler is not None:
            values = target_scaler.transform(values).astype(dtype, copy=False)
        return feature_scaler.transform(features).astype(dtype, copy=False), values

    return Prepared(
        task=task,
        n_outputs=n_outputs,
        train=scaled(train, train_target),
        validation=scaled(valid, valid_target),
        feature_scaler=feature_scaler,
        target_scaler=target_scaler,
    )


def _class_labels(table: Table) -> tuple[NDArray[Any], int]:
    if table.target.ndim != 1:
        raise TableError(f"{table.name}: classes need one target, got {table.target.shape[1]}")
    names, labels, counts = np.unique(table.target, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise TableError(f"{table.name}: every target is {names[0]}; expected 2 classes or more")
    if counts.min() < 2:
        alone = names[np.argmin(counts)]
        raise TableError(f"{table.name}: class {alone} has one sample; the split needs two of each")
    return labels, len(names)


def _quantities(table: Table) -> tuple[NDArray[Any], int]:
    if table.target.dtype.kind not in "biuf":
        raise TableError(f"{table.name}: regression needs a target of numbers, got text")
    columns = table.target.reshape(len(table.target), -1).astype(np.float64, copy=False)
    return columns, columns.shape[1]


def r2_on_validation(net: Network, data: Prepared) -> float:
    """R² on the validation part, on the target's own scale, averaged over targets."""
    features, target = data.validation
    assert data.target_scaler is not None
    unscale = data.target_scaler.inverse_transform
    r2_score = optional("sklearn.metrics").r2_score
    return float(r2_score(unscale(target), unscale(net.predict(features))))


def fold_scaling(net: Network, data: Prepared) -> None:
    """Move the scaling into the net's first and last layer, so that it takes and gives raw numbers.

    Scaling is affine, and so are the first layer before its activation and a last layer without
    one: ``W (x - m) / s + b = (W / s) x + (b - (W / s) m)``.
    """
    weights = [weight for weight in net.weights if weight is not None]
    biases = [bias for bias in net.biases if bias is not None]
    first = weights[0] / data.feature_scaler.scale_
    weights[0][...] = first
    biases[0][...] = biases[0] - first @ data.feature_scaler.mean_
    if data.target_scaler is not None:
        weights[-1][...] = weights[-1] * data.target_scaler.scale_[:, np.newaxis]
        biases[-1][...] = biases[-1] * data.target_scaler.scale_ + data.target_scaler.mean_
