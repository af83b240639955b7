"""The optimizers, with PyTorch's formulas and defaults, a file each.

An optimizer belongs to the first net that uses it and goes on where it stopped in later calls.
`REGISTRY` maps the names that `fit` and `step` accept to the classes.
"""

from __future__ import annotations

from typing import Any

from fnn_core.optimizers.adagrad import Adagrad
from fnn_core.optimizers.adam import Adam, AdamW
from fnn_core.optimizers.base import Optimizer, Rate, Setting
from fnn_core.optimizers.rmsprop import RMSprop
from fnn_core.optimizers.sgd import SGD

REGISTRY: dict[str, type[Optimizer]] = {
    kind.name: kind for kind in (SGD, Adam, AdamW, RMSprop, Adagrad)
}


def as_optimizer(optimizer: Any) -> Optimizer:
    """An optimizer; a name stands for a new one with defaults."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if not isinstance(optimizer, str):
        raise TypeError(f"optimizer: expected a name or an Optimizer, got {optimizer!r}")
    if optimizer not in REGISTRY:
        raise ValueError(f"optimizer = {optimizer!r}: expected one of {', '.join(REGISTRY)}")
    return REGISTRY[optimizer]()


__all__ = [
    "REGISTRY",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "Rate",
    "Setting",
    "as_optimizer",
]
