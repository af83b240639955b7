"""Learning rates that change: functions of the step, counted from 0. Any such function will do."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

from fnn_core.checks import as_number, as_positive_int


@dataclass(frozen=True)
class Constant:
    """Always `lr`.

    Raises
    ------
    TypeError, ValueError
        Where a number is out of its range.

    Examples
    --------
    >>> Constant(0.1)(1000)
    0.1
    """

    lr: float

    def __post_init__(self) -> None:
        as_number(self.lr, "lr", at_least=0.0)

    def __call__(self, step: int) -> float:
        return self.lr


@dataclass(frozen=True)
class Step:
    """`lr`, times `factor` after every `every` steps.

    Raises
    ------
    TypeError, ValueError
        Where a number is out of its range.

    Examples
    --------
    >>> [Step(1.0, every=2, factor=0.5)(step) for step in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    lr: float
    every: int
    factor: float

    def __post_init__(self) -> None:
        as_number(self.lr, "lr", at_least=0.0)
        as_positive_int(self.every, "every")
        as_number(self.factor, "factor", above=0.0)

    def __call__(self, step: int) -> float:
        return self.lr * self.factor ** (step // self.every)


@dataclass(frozen=True)
class Exponential:
    """`lr`, times `factor` after every step.

    Raises
    ------
    TypeError, ValueError
        Where a number is out of its range.

    Examples
    --------
    >>> Exponential(1.0, 0.5)(3)
    0.125
    """

    lr: float
    factor: float

    def __post_init__(self) -> None:
        as_number(self.lr, "lr", at_least=0.0)
        as_number(self.factor, "factor", above=0.0)

    def __call__(self, step: int) -> float:
        return self.lr * self.factor**step


@dataclass(frozen=True)
class Cosine:
    """From 0 up to `lr` over `warmup` steps, then along half a cosine to `minimum` at step `steps`.

    Raises
    ------
    TypeError, ValueError
        Where a number is out of its range.

    Examples
    --------
    >>> schedule = Cosine(1.0, steps=10, warmup=2)
    >>> [round(schedule(step), 3) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """

    lr: float
    steps: int
    warmup: int = 0
    minimum: float = 0.0

    def __post_init__(self) -> None:
        as_number(self.lr, "lr", at_least=0.0)
        as_positive_int(self.steps, "steps")
        as_number(self.minimum, "minimum", at_least=0.0)
        if isinstance(self.warmup, bool) or not isinstance(self.warmup, numbers.Integral):
            raise TypeError(f"warmup: expected an int, got {self.warmup!r}")
        if not 0 <= self.warmup < self.steps:
            raise ValueError(f"warmup = {self.warmup}: expected an int in 0..{self.steps - 1}")

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        progress = min(1.0, (step - self.warmup) / (self.steps - self.warmup))
        return self.minimum + (self.lr - self.minimum) * (1 + math.cos(math.pi * progress)) / 2
