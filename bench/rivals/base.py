"""What every library's way to train has in common."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from typing import ClassVar

from bench.nets import Net, Parameters, Problem

#: Of Adam, the same for all; the other constants are everyone's defaults.
LEARNING_RATE = 1e-4


class Rival(ABC):
    """A library's way to train.

    Parameters
    ----------
    problem : Problem
        Net, batch and starting weights.
    threads : int
        How many the library may use.
    steps : int
        How many one call of `run` makes.
    """

    name: ClassVar[str]
    modules: ClassVar[tuple[str, ...]] = ()

    def __init__(self, problem: Problem, threads: int, steps: int) -> None:
        self.problem = problem
        self.net = problem.net
        self.threads = threads
        self.steps = steps
        self.prepare()

    @classmethod
    def installed(cls) -> bool:
        """Whether its modules can be imported."""
        return all(importlib.util.find_spec(module) is not None for module in cls.modules)

    @classmethod
    def can_train(cls, net: Net) -> bool:
        """Whether the library has what the net is made of."""
        return True

    @abstractmethod
    def prepare(self) -> None:
        """Build net and optimizer, with the problem's weights."""

    @abstractmethod
    def run(self) -> None:
        """Make the steps, and wait until they are done."""

    @abstractmethod
    def parameters(self) -> Parameters:
        """The parameters as they are now, in the problem's layout."""

    def gradients(self) -> Parameters | None:
        """The gradients at these parameters, or None if the library does not show them."""
        return None
