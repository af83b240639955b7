"""What `fit` returns and what it calls after every epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fnn_core.checks import as_choice, as_flag, as_number, as_positive_int

if TYPE_CHECKING:
    from fnn_core.network import Network


class History(Mapping[str, list[float]]):
    """One number an epoch: `loss`, `val_loss`, each metric and its `val_` twin, `seconds`.

    The loss of an epoch is the mean over its samples, by their weights, each as its step saw it
    before the update; metrics likewise are of the outputs that the steps saw.

    >>> history = History()
    >>> history.append({"loss": 1.0})
    >>> history["loss"]
    [1.0]
    """

    def __init__(self) -> None:
        self._columns: dict[str, list[float]] = {}

    def append(self, numbers: Mapping[str, float]) -> None:
        """Add an epoch."""
        for name, number in numbers.items():
            self._columns.setdefault(name, []).append(number)

    @property
    def epochs(self) -> int:
        """How many epochs there were."""
        return max((len(column) for column in self._columns.values()), default=0)

    def __getitem__(self, name: str) -> list[float]:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        last = ", ".join(f"{name}={column[-1]:.4g}" for name, column in self._columns.items())
        return f"History({self.epochs} epochs: {last})"


class EarlyStopping:
    """A callback that ends `fit` when a number of the history has stopped improving.

    Parameters
    ----------
    monitor : str
        A column of the history.
    patience : int
        Epochs without improvement before it stops.
    min_delta : float
        What counts as an improvement. A number that is not finite is none.
    mode : {"auto", "min", "max"}
        Which way is better; "auto": down for losses and errors, up for the rest.
    restore_best : bool
        Whether the parameters of the best epoch are put back when `fit` ends.

    Raises
    ------
    TypeError, ValueError
        Where an argument is out of its range.
        Also by `fit`, where the history has no column `monitor`.

    Examples
    --------
    >>> import numpy as np, fnn_core as fnn
    >>> X, net = np.ones((20, 2)), fnn.Network([fnn.Dense(1)], input_shape=2)
    >>> stop = fnn.EarlyStopping("loss", patience=3, min_delta=1e9)   # nothing is an improvement
    >>> net.fit(X, np.ones(20), epochs=100, callbacks=stop).epochs
    4
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 10,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best: bool = True,
    ) -> None:
        if not isinstance(monitor, str):
            raise TypeError(f"monitor: expected a name, got {monitor!r}")
        self.monitor = monitor
        self.patience = as_positive_int(patience, "patience")
        self.min_delta = as_number(min_delta, "min_delta", at_least=0.0)
        self.mode = as_choice(mode, "mode", ("auto", "min", "max"))
        self.restore_best = as_flag(restore_best, "restore_best")
        self.begin()

    def begin(self) -> None:
        """Forget what an earlier `fit` has seen."""
        self.best = math.nan
        self.best_epoch = -1
        self._theta: np.ndarray | None = None

    def __call__(self, net: Network, history: History) -> bool:
        """Note an epoch; returns whether to stop."""
        if self.monitor not in history:
            raise ValueError(f"monitor = {self.monitor!r}: the history has {', '.join(history)}")
        down = self.mode == "min" or (
            self.mode == "auto" and ("loss" in self.monitor or "error" in self.monitor)
        )
        number = history[self.monitor][-1]
        gain = self.best - number if down else number - self.best
        if math.isfinite(number) and (self.best_epoch < 0 or gain > self.min_delta):
            self.best, self.best_epoch = number, history.epochs - 1
            if self.restore_best:
                self._theta = net.theta.copy()
        return history.epochs - 1 - self.best_epoch >= self.patience

    def end(self, net: Network) -> None:
        """Put the best epoch's parameters back."""
        if self._theta is not None:
            net.theta[...] = self._theta
            self._theta = None


def call(callbacks: tuple[Any, ...], hook: str, *arguments: Any) -> None:
    """Call a hook of those callbacks that have it."""
    for callback in callbacks:
        function = getattr(callback, hook, None)
        if function is not None:
            function(*arguments)
