"""The optimizers, with PyTorch's formulas and defaults.

An optimizer belongs to the first net that uses it and goes on where it stopped in later calls.
`REGISTRY` maps the names that `fit` and `step` accept to the classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fnn_core import _engine
from fnn_core.checks import as_flag, as_number

Rate = float | Callable[[int], float]


def _non_negative(value: Any, name: str) -> float:
    return as_number(value, name, at_least=0.0)


def _share(value: Any, name: str) -> float:
    return as_number(value, name, at_least=0.0, below=1.0)


def _rate(value: Any, name: str) -> Rate:
    return value if callable(value) else _non_negative(value, name)


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


class SGD(Optimizer):
    """Gradient descent: θ ← θ − η G (Remark 8 iii), with momentum where asked for.

    Parameters
    ----------
    lr : float or callable
    momentum : float
    nesterov : bool
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
    >>> from fnn_core import SGD
    >>> SGD(0.1, momentum=0.9, nesterov=True).momentum
    0.9
    """

    name = "sgd"
    checks: ClassVar = Optimizer.checks | {
        "momentum": Setting(_non_negative, "momentum"),
        "nesterov": Setting(as_flag, "nesterov"),
        "weight_decay": Setting(_non_negative, "weight_decay"),
    }
    momentum: float = 0.0
    nesterov: bool = False

    def __init__(
        self,
        lr: Rate = 1e-3,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(lr, clip_norm)
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay

    def _check_together(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov = True: expected a momentum above 0, got 0")

    @property
    def state_slots(self) -> tuple[bool, ...]:
        return (self.momentum > 0,)


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
        "beta1": Setting(_share, "beta1"),
        "beta2": Setting(_share, "beta2"),
        "eps": Setting(_non_negative, "epsilon"),
        "weight_decay": Setting(_non_negative, "weight_decay"),
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
            _share(beta, f"betas[{place}]") for place, beta in enumerate(betas)
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
        "alpha": Setting(_share, "beta2"),
        "eps": Setting(_non_negative, "epsilon"),
        "weight_decay": Setting(_non_negative, "weight_decay"),
        "momentum": Setting(_non_negative, "momentum"),
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


class Adagrad(Optimizer):
    """Adagrad of Duchi, Hazan and Singer: steps scaled by the sum of G² so far.

    Parameters
    ----------
    lr : float or callable
    lr_decay : float
        η falls as ``lr / (1 + step * lr_decay)``.
    weight_decay : float
        λ of a penalty λ‖θ‖²/2.
    initial_accumulator_value : float
        What the sum starts from.
    eps : float
    clip_norm : float, optional
        G is scaled down to this norm where it is longer.

    Raises
    ------
    TypeError, ValueError
        Where a setting is out of its range.

    Examples
    --------
    >>> from fnn_core import Adagrad
    >>> Adagrad(0.1).rate(step=7)
    0.1
    """

    name = "adagrad"
    checks: ClassVar = Optimizer.checks | {
        "lr_decay": Setting(_non_negative, "rate_decay"),
        "weight_decay": Setting(_non_negative, "weight_decay"),
        "initial_accumulator_value": Setting(_non_negative, None),
        "eps": Setting(_non_negative, "epsilon"),
    }

    def __init__(
        self,
        lr: Rate = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(lr, clip_norm)
        self.lr_decay = lr_decay
        self.weight_decay = weight_decay
        self.initial_accumulator_value = initial_accumulator_value
        self.eps = eps

    def _initial(self) -> float:
        return self.initial_accumulator_value

    @property
    def state_slots(self) -> tuple[bool, ...]:
        return (True,)


REGISTRY: dict[str, type[Optimizer]] = {
    kind.name: kind for kind in (SGD, Adam, AdamW, RMSprop, Adagrad)
}


def as_optimizer(optimizer: Any) -> Optimizer:
    """An optimizer; a name stands for a new one with defaults."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if not isinstance(optimizer, str):
        raise TypeError(f"optimizer: expected a name or an Optimizer, got {optimizer!r}")
    if optimizer not in REGISTRY:
        raise ValueError(f"optimizer = {optimizer!r}: expected one of {', '.join(REGISTRY)}")
    return REGISTRY[optimizer]()
