"""The errors that are fnn_core's own."""

from __future__ import annotations


class NonFiniteLossError(FloatingPointError):
    """A step's loss was not finite; the step was not made, and the parameters are as before it.

    Attributes
    ----------
    epoch, batch : int
        Where it happened, counted from 0.
    value : float
        The loss.

    Examples
    --------
    >>> import numpy as np, fnn_core as fnn
    >>> net = fnn.Network([fnn.Dense(1)], input_shape=1)
    >>> try:
    ...     net.fit(np.full((9, 1), 1e30), np.ones(9), batch_size=3)
    ... except fnn.NonFiniteLossError as error:
    ...     print(error.epoch, error.batch, error.value)
    0 0 inf
    """

    def __init__(self, epoch: int, batch: int, value: float) -> None:
        super().__init__(epoch, batch, value)
        self.epoch = epoch
        self.batch = batch
        self.value = value

    def __str__(self) -> str:
        return (
            f"the loss of batch {self.batch} of epoch {self.epoch} is {self.value}; the step was "
            "not made. A smaller learning rate, scaled inputs or clip_norm usually help"
        )
