"""Differentially private training."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np

from fnn_core.checks import as_number, as_seed
from fnn_core.data import Data
from fnn_core.optimizers import Optimizer, Rate, Setting


def _no_norm(value: Any, name: str) -> None:
    if value is not None:
        raise ValueError(
            f"{name} = {value!r}: expected None with DPSGD, which clips to max_grad_norm"
        )


class DPSGD(Optimizer):
    """Differentially private gradient descent (Abadi and others, 2016).

    θ ← θ − η (Σ_i clip(g_i) + noise) / B, where clip scales the gradient g_i of each ℓ_i to at most
    `max_grad_norm`, and the noise is normal with deviation ``noise_multiplier * max_grad_norm``.
    The clipping scales the factors of g_i (Remark 8 ii): no gradient of a single sample is formed.
    In `fit` every sample is in a step's batch with probability ``batch_size / N``, and B is
    `batch_size`, as accountants assume; in `step` B is the rows given. The accounting is left to a
    library such as dp-accounting, and the noise comes from Philox, which is not made for
    cryptography.

    Parameters
    ----------
    lr : float or callable
    noise_multiplier : float
    max_grad_norm : float
    seed : int or None
        Of the noise; None: a random one.

    Raises
    ------
    TypeError, ValueError
        Where a setting is out of its range.

    Examples
    --------
    >>> import numpy as np, fnn_core as fnn
    >>> net = fnn.Network([fnn.Dense(1)], input_shape=2)
    >>> optimizer = fnn.DPSGD(0.1, noise_multiplier=1.0, max_grad_norm=1.0, seed=0)
    >>> history = net.fit(np.ones((20, 2)), np.ones(20), batch_size=5, optimizer=optimizer)
    >>> optimizer.steps
    4
    """

    name = "sgd"
    checks: ClassVar = Optimizer.checks | {
        "clip_norm": Setting(_no_norm, None),
        "noise_multiplier": Setting(partial(as_number, at_least=0.0), None),
        "max_grad_norm": Setting(partial(as_number, above=0.0), None),
    }
    noise_multiplier: float
    max_grad_norm: float

    def __init__(
        self, lr: Rate, noise_multiplier: float, max_grad_norm: float, seed: int | None = None
    ) -> None:
        super().__init__(lr, None)
        self.noise_multiplier = noise_multiplier
        self.max_grad_norm = max_grad_norm
        self.seed = seed

    @property
    def seed(self) -> int | None:
        """As it was given: a copy of an optimizer without a seed draws noise of its own."""
        return self._seed

    @seed.setter
    def seed(self, seed: int | None) -> None:
        #: What the engine draws the noise from.
        self.noise_seed = int(as_seed(seed).generate_state(1, np.uint64)[0])
        self._seed = seed

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        del settings["clip_norm"]
        return settings | {"seed": self.seed}

    @property
    def state_slots(self) -> tuple[bool, ...]:
        return ()


def without_weights(data: Data) -> Data:
    """Private steps weigh every sample alike: their privacy is accounted for so."""
    if data.weights is not None:
        raise ValueError("sample_weight: expected None with DPSGD, which weighs all samples alike")
    return data
