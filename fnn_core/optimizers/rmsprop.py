"""RMSprop."""

from __future__ import annotations

from typing import ClassVar

from fnn_core.checks import as_flag
from fnn_core.optimizers.base import Optimizer, Rate, Setting, non_negative, share


class RMSprop(Optimizer):
    """RMSprop of Hinton: steps scaled by a running mean of G².

    Parameters
    ----------
    lr : float or callable
    alpha : float
        Decay of the mean, in [0, 1).
    eps : float
    weight_decay : float
        λ of a penalty λ‖θ‖²/2.
    momentum : float
    centered : bool
        Whether the square of the mean gradient is subtracted.
    clip_norm : float, optional
        G is scaled down to this norm where it is longer.

    Raises
    ------
    TypeError, ValueError
        Where a setting is out of its range.

    Examples
    --------
    >>> from fnn_core import RMSprop
    >>> RMSprop(alpha=0.9, centered=True).alpha
    0.9
    """

    name = "rmsprop"
    checks: ClassVar = Optimizer.checks | {
        "alpha": Setting(share, "beta2"),
        "eps": Setting(non_negative, "epsilon"),
        "weight_decay": Setting(non_negative, "weight_decay"),
        "momentum": Setting(non_negative, "momentum"),
        "centered": Setting(as_flag, "centered"),
    }

    def __init__(
        self,
        lr: Rate = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(lr, clip_norm)
        self.alpha = alpha
        self.eps = eps
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.centered = centered

    @property
    def state_slots(self) -> tuple[bool, ...]:
        return True, self.momentum > 0, self.centered
