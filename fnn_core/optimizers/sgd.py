"""Gradient descent, with momentum."""

from __future__ import annotations

from typing import ClassVar

from fnn_core.checks import as_flag
from fnn_core.optimizers.base import Optimizer, Rate, Setting, non_negative


class SGD(Optimizer):
    """Gradient descent: θ ← θ − η G (Remark 8 iii), with momentum where asked for.

    Parameters
    ----------
    lr : float or callable
    momentum : float
    nesterov : bool
    weight_decay : float
        λ of a penalty λ‖θ‖²/2.
    clip_norm : float, optional
        G is scaled down to this norm where it is longer.

    Raises
    ------
    TypeError, ValueError
        Where a setting is out of its range.

    Examples
    --------
    >>> from fnn_core import SGD
    >>> SGD(0.1, momentum=0.9, nesterov=True).momentum
    0.9
    """

    name = "sgd"
    checks: ClassVar = Optimizer.checks | {
        "momentum": Setting(non_negative, "momentum"),
        "nesterov": Setting(as_flag, "nesterov"),
        "weight_decay": Setting(non_negative, "weight_decay"),
    }
    momentum: float = 0.0
    nesterov: bool = False

    def __init__(
        self,
        lr: Rate = 1e-3,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(lr, clip_norm)
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay

    def _check_together(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov = True: expected a momentum above 0, got 0")

    @property
    def state_slots(self) -> tuple[bool, ...]:
        return (self.momentum > 0,)
