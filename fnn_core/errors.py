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
