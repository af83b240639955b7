"""The bar of `fit(progress=True)`."""

from __future__ import annotations

from collections.abc import Mapping

from tqdm.auto import tqdm


class EpochBar:
    """One bar over all steps of a `fit`, its postfix the last epoch's numbers."""

    def __init__(self, epochs: int, steps: int) -> None:
        self._bar = tqdm(total=epochs * steps, unit="step", leave=True)
        self._steps = steps
        self._epoch = 0

    def at_step(self, step: int) -> None:
        """Move to a step of the epoch in progress."""
        self._bar.update(self._epoch * self._steps + step - self._bar.n)

    def end_epoch(self, numbers: Mapping[str, float]) -> None:
        """An epoch is done."""
        self._epoch += 1
        self._bar.update(self._epoch * self._steps - self._bar.n)
        self._bar.set_postfix({name: f"{number:.4g}" for name, number in numbers.items()})

    def close(self) -> None:
        self._bar.close()
