"""Adam, and Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from fnn_core.optimizers.base import Optimizer, Rate, Setting, non_negative, share


class Adam(Optimizer):
    """Adam of Kingma and Ba: steps scaled by running means of G and G².

    Parameters
    ----------
    lr : float or callable
    betas : sequence of two floats
        Decay of the two means, each in [0, 1).
    eps : float
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
    >>> from fnn_core import Adam
    >>> Adam(betas=(0.8, 0.99)).betas
    (0.8, 0.99)
    """

    name = "adam"
    checks: ClassVar = Optimizer.checks | {
        "beta1": Setting(share, "beta1"),
        "beta2": Setting(share, "beta2"),
        "eps": Setting(non_negative, "epsilon"),
        "weight_decay": Setting(non_negative, "weight_decay"),
    }

    def __init__(
        self,
        lr: Rate = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(lr, clip_norm)
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay

    @property
    def betas(self) -> tuple[float, float]:
        """Decay of the two means."""
        return self.beta1, self.beta2

    @betas.setter
    def betas(self, betas: Sequence[float]) -> None:
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise TypeError(f"betas: expected two numbers in [0, 1), got {betas!r}")
        self.beta1, self.beta2 = [
            share(beta, f"betas[{place}]") for place, beta in enumerate(betas)
        ]

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        del settings["beta1"], settings["beta2"]
        return settings | {"betas": self.betas}

    @property
    def state_slots(self) -> tuple[bool, ...]:
        return True, True


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter): θ shrinks by ηλ beside the step.

    The parameters are Adam's; `weight_decay` is 0.01 by default.

    Raises
    ------
    TypeError, ValueError
        Where a setting is out of its range.

    Examples
    --------
    >>> from fnn_core import AdamW
    >>> AdamW().weight_decay
    0.01
    """

    name = "adamw"

    def __init__(
        self,
        lr: Rate = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, clip_norm)
