"""Adagrad."""

from __future__ import annotations

from typing import ClassVar

from fnn_core.optimizers.base import Optimizer, Rate, Setting, non_negative


class Adagrad(Optimizer):
    """Adagrad of Duchi, Hazan and Singer: steps scaled by the sum of G² so far.

    Parameters
    ----------
    lr : float or callable
    lr_decay : float
        η falls as ``lr / (1 + step * lr_decay)``.
    weight_decay : float
        λ of a penalty λ‖θ‖²/2.
    initial_accumulator_value : float
        What the sum starts from.
    eps : float
    clip_norm : float, optional
        G is scaled down to this norm where it is longer.

    Raises
    ------
    TypeError, ValueError
        Where a setting is out of its range.

    Examples
    --------
    >>> from fnn_core import Adagrad
    >>> Adagrad(0.1).rate(step=7)
    0.1
    """

    name = "adagrad"
    checks: ClassVar = Optimizer.checks | {
        "lr_decay": Setting(non_negative, "rate_decay"),
        "weight_decay": Setting(non_negative, "weight_decay"),
        "initial_accumulator_value": Setting(non_negative, None),
        "eps": Setting(non_negative, "epsilon"),
    }

    def __init__(
        self,
        lr: Rate = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(lr, clip_norm)
        self.lr_decay = lr_decay
        self.weight_decay = weight_decay
        self.initial_accumulator_value = initial_accumulator_value
        self.eps = eps

    def _initial(self) -> float:
        return self.initial_accumulator_value

    @property
    def state_slots(self) -> tuple[bool, ...]:
        return (True,)
