"""What every optimizer is: settings that are checked, and the state that training builds up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fnn_core import _engine
from fnn_core.checks import as_number

Rate = float | Callable[[int], float]


def non_negative(value: Any, name: str) -> float:
    """A finite number of at least 0."""
    return as_number(value, name, at_least=0.0)


def share(value: Any, name: str) -> float:
    """A number in [0, 1)."""
    return as_number(value, name, at_least=0.0, below=1.0)


def _rate(value: Any, name: str) -> Rate:
    return value if callable(value) else non_negative(value, name)


def _norm(value: Any, name: str) -> float | None:
    return None if value is None else as_number(value, name, above=0.0)


class Setting(NamedTuple):
    """What a setting must be, and what the kernel calls it; None where only Python knows it."""

    check: Callable[[Any, str], Any]
    kernel_name: str | None


class Optimizer:
    """Settings, and the state that a net's training has built up.

    A new optimizer is a subclass with its settings, a line in `REGISTRY`, and a kernel. A setting
    may be changed later, and holds from the next call on.

    Where a running mean or a velocity decays to less than the smallest normal number of its dtype,
    it becomes zero, which rounding would keep it from.

    Attributes
    ----------
    lr : float or callable
        The learning rate η, or a schedule: a function of the step, counted from 0. `fit` may ask it
        for the steps of several epochs at once.
    clip_norm : float or None
        G is scaled down to this norm where it is longer.

    Examples
    --------
    >>> import numpy as np, fnn_core as fnn
    >>> net, optimizer = fnn.Network([fnn.Dense(1)], input_shape=2), fnn.Adam(1e-2)
    >>> history = net.fit(np.ones((10, 2)), np.ones(10), batch_size=5, optimizer=optimizer)
    >>> optimizer.lr = 1e-3
    >>> optimizer.steps
    2
    """

    #: The name of the kernel.
    name: ClassVar[str]
    #: The settings of every optimizer; a subclass adds its own.
    checks: ClassVar[dict[str, Setting]] = {
        "lr": Setting(_rate, None),
        "clip_norm": Setting(_norm, None),
    }

    lr: Rate
    clip_norm: float | None

    def __init__(self, lr: Rate = 1e-3, clip_norm: float | None = None) -> None:
        self._net_token: object | None = None
        self._state: _engine.OptimizerState | None = None
        self.lr = lr
        self.clip_norm = clip_norm

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.checks:
            super().__setattr__(name, value)
            return
        before = getattr(self, name, None)
        super().__setattr__(name, self.checks[name].check(value, name))
        try:
            self._check_together()
            if self._state is not None and self.state_slots != self._slots_made(self._state):
                raise ValueError(
                    f"{name} = {value!r}: expected to be set before the first step, which made "
                    "the state"
                )
        except ValueError:
            super().__setattr__(name, before)
            raise
        if self._state is not None:
            self._configure(self._state)

    def _check_together(self) -> None:
        """Raises ValueError where settings that are each in their range do not fit each other."""

    @staticmethod
    def _slots_made(state: _engine.OptimizerState) -> tuple[bool, ...]:
        return tuple(array is not None for array in state.arrays)

    @property
    def steps(self) -> int:
        """How many steps it has made."""
        return 0 if self._state is None else self._state.step

    @property
    def state_slots(self) -> tuple[bool, ...]:
        """Which of the kernel's arrays of state, each as large as theta, are in use."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """The arguments that make this optimizer again."""
        return {name: getattr(self, name) for name in self.checks}

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.settings().items())
        return f"{type(self).__name__}({arguments})"

    def rate(self, step: int) -> float:
        """η at a step counted from 0."""
        if not callable(self.lr):
            return self.lr
        return as_number(self.lr(step), f"lr({step})", at_least=0.0)

    def _initial(self) -> float:
        """What the state starts from."""
        return 0.0

    def state_of(self, net_token: object) -> _engine.OptimizerState | None:
        """The state that it has for a net; None where it is free."""
        if self._net_token not in (None, net_token):
            raise ValueError(
                "optimizer: it holds the state of another net; make one for each, or copy it "
                "with optimizer.fresh()"
            )
        return self._state

    def bind(self, net_token: object, dtype: np.dtype, n_parameters: int) -> _engine.OptimizerState:
        """Make the state for a net; the optimizer is that net's from then on."""
        arrays = [
            np.full(n_parameters, self._initial(), dtype) if used else None
            for used in self.state_slots
        ]
        state = _engine.OptimizerState(self.name, dtype, n_parameters, arrays)
        self._configure(state)
        bound = self.state_of(net_token)  # by another thread, meanwhile
        if bound is not None:
            return bound
        self._state = state
        self._net_token = net_token
        return state

    def _configure(self, state: _engine.OptimizerState) -> None:
        state.configure(
            **{
                setting.kernel_name: getattr(self, name)
                for name, setting in self.checks.items()
                if setting.kernel_name is not None
            }
        )

    def fresh(self) -> Optimizer:
        """The same settings, without a net and without state."""
        return type(self)(**self.settings())

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has the settings; the state stays with the net that it belongs to."""
        return _make, (type(self), self.settings())


def _make(kind: type[Optimizer], settings: dict[str, Any]) -> Optimizer:
    return kind(**settings)
