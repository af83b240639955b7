"""`fit` and `step`: epochs of the engine's training loop, and what happens between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fnn_core import _engine
from fnn_core import callbacks as hooks
from fnn_core.callbacks import History
from fnn_core.checks import as_choice, as_flag, as_positive_int, as_sequence
from fnn_core.data import Data, as_batch_size, as_data, steps_of
from fnn_core.errors import NonFiniteLossError
from fnn_core.losses import Loss
from fnn_core.metrics import Metric, as_metrics, require_fitting, values
from fnn_core.optimizers import Optimizer
from fnn_core.plan import Buffer, MemoryPlan
from fnn_core.planning import UPDATES
from fnn_core.privacy import DPSGD, without_weights
from fnn_core.progress import EpochBar

if TYPE_CHECKING:
    from fnn_core.network import Network

#: At most, where a call of the engine makes several epochs: their rates are set out beforehand.
STEPS_A_CALL = 8192


def _has_user_map(net: Network) -> bool:
    return any(layer.kind == "bilinear" for layer in net.layers)


def update_of(net: Network, update: str, optimizer: Optimizer) -> str:
    """What becomes of each G_k: "immediate", "deferred", or "auto": as the schedule chooses."""
    as_choice(update, "update", UPDATES)
    if isinstance(optimizer, DPSGD) or _has_user_map(net):
        # Noise is added to a whole gradient; a user's map may raise until the last G_k is known.
        return "deferred"
    return "deferred" if update == "auto" and optimizer.clip_norm is not None else update


def fit(
    net: Network,
    data: Data,
    *,
    epochs: int,
    batch_size: int,
    optimizer: Optimizer,
    validation_data: Any,
    shuffle: bool,
    metrics: Any,
    update: str,
    callbacks: Iterable[Any],
    progress: bool,
) -> History:
    """`Network.fit` on checked data."""
    if isinstance(optimizer, DPSGD):
        without_weights(data)
    epochs = as_positive_int(epochs, "epochs")
    rows = as_batch_size(as_positive_int(batch_size, "batch_size"), data.count)
    chosen_update = update_of(net, update, optimizer)
    chosen = as_metrics(metrics)
    require_fitting(chosen, data.labels)
    validation = _Validation(net, validation_data, chosen) if validation_data is not None else None
    called = _as_callbacks(callbacks)
    steps = steps_of(data.count, rows)
    # A private step draws its batch, and needs room for which samples it drew.
    shuffled = as_flag(shuffle, "shuffle") or isinstance(optimizer, DPSGD)
    bar = EpochBar(epochs, steps) if as_flag(progress, "progress") else None
    # Where nothing of Python's happens between two epochs, nor in one, several are one call.
    calls_python = isinstance(net.loss_function, Loss) or _has_user_map(net)
    unbroken = not (called or chosen or validation or bar or calls_python)
    at_once = max(1, STEPS_A_CALL // steps) if unbroken else 1
    outputs = np.empty((data.count, *net.output_shape), net.dtype) if chosen else None
    history = History()
    with net.sessions.writer:
        at_step = bar.at_step if bar is not None else None
        session = net.sessions.training(rows, data.labels, chosen_update, optimizer, at_step)
        session.load(
            _engine.Samples(session.compiled, data.inputs, data.targets, data.weights),
            rows,
            shuffled=shuffled,
            outputs=outputs,
        )
        hooks.call(called, "begin")
        try:
            for first in range(0, epochs, at_once):
                rates = _rates(optimizer, min(at_once, epochs - first), steps)
                *before, numbers = _passes(net, session, first, rates, validation)
                for each in before:
                    history.append(each)
                if outputs is not None:
                    numbers |= values(chosen, data.targets, outputs)
                if validation is not None:
                    numbers |= validation.numbers()
                history.append(numbers)
                if bar is not None:
                    bar.end_epoch(numbers)
                # All of them are called, also where the first has seen enough.
                wants_end = [callback(net, history) for callback in called]
                if any(wants_end):
                    break
        finally:
            if bar is not None:
                bar.close()
            session.unload()
            hooks.call(called, "end", net)
            if validation is not None:
                validation.close()
    return history


def _as_callbacks(callbacks: Any) -> tuple[Callable[..., Any], ...]:
    called = (callbacks,) if callable(callbacks) else as_sequence(callbacks, "callbacks")
    for callback in called:
        if not callable(callback) or isinstance(callback, type):
            raise TypeError(f"callbacks: expected functions of (net, history), got {callback!r}")
    return called


def _rates(optimizer: Optimizer, epochs: int, steps: int) -> np.ndarray:
    """The learning rates of the next steps, a row an epoch."""
    if not callable(optimizer.lr):
        rates = np.empty((epochs, steps))
        rates.fill(optimizer.lr)
        return rates
    first = optimizer.steps
    planned = [optimizer.rate(step) for step in range(first, first + epochs * steps)]
    return np.array(planned).reshape(epochs, steps)


def _passes(
    net: Network,
    session: _engine.Session,
    epoch: int,
    rates: np.ndarray,
    validation: _Validation | None,
) -> list[dict[str, float]]:
    """Passes over the data, from that epoch on, in one call of the engine: the numbers of each.

    With validation data there is one.
    """
    forward = validation.forward if validation is not None else None
    with net.sessions.blas_held(session.compiled):
        passes, validation_loss, done, failed = session.run(rates, forward)
    if failed is not None:
        raise NonFiniteLossError(epoch + len(passes) - 1, done, failed)
    validated = {} if validation_loss is None else {"val_loss": validation_loss}
    return [{"loss": loss, **validated, "seconds": seconds} for loss, seconds in passes]


class _Validation:
    """The validation data of a `fit`: the epoch's call gives its loss; its metrics come after."""

    def __init__(self, net: Network, validation_data: Any, metrics: dict[str, Metric]) -> None:
        if not isinstance(validation_data, tuple | list) or len(validation_data) not in (2, 3):
            raise TypeError(
                "validation_data: expected (X, y) or (X, y, sample_weight), "
                f"got {validation_data!r}"
            )
        self._net = net
        self._metrics = metrics
        X, y, weights = (*validation_data, None)[:3]
        names = ("validation_data[0]", "validation_data[1]", "validation_data[2]")
        self._data = as_data(net, X, y, weights, names)
        require_fitting(metrics, self._data.labels)
        user_loss = isinstance(net.loss_function, Loss)
        self._outputs = (
            np.empty((self._data.count, *net.output_shape), net.dtype)
            if metrics or user_loss
            else None
        )
        compiled = net.sessions.inference(self._data.labels)
        samples = _engine.Samples(
            compiled, self._data.inputs, self._data.targets, self._data.weights
        )
        self.forward = _engine.Forward(
            compiled,
            net.theta,
            samples,
            outputs=self._outputs,
            losses=not user_loss,
            weight=self._data.total_weight,
        )

    def numbers(self) -> dict[str, float]:
        """What the last forward pass gave, beside the loss."""
        numbers = {}
        loss = self._net.loss_function
        if self._outputs is not None:
            if isinstance(loss, Loss):
                numbers["val_loss"] = loss.mean(
                    self._data.targets, self._outputs, self._data.weights
                )
            found = values(self._metrics, self._data.targets, self._outputs)
            numbers |= {f"val_{name}": value for name, value in found.items()}
        return numbers

    def close(self) -> None:
        self.forward.close()


def step(
    net: Network, X: Any, y: Any, optimizer: Optimizer, sample_weight: Any, update: str
) -> float:
    """`Network.step` where something has yet to be checked, converted or planned."""
    data = as_data(net, X, y, sample_weight)
    if isinstance(optimizer, DPSGD):
        without_weights(data)
    with net.sessions.writer:
        session = net.sessions.training(
            data.count, data.labels, update_of(net, update, optimizer), optimizer
        )
        samples = _engine.Samples(session.compiled, data.inputs, data.targets, data.weights)
        with net.sessions.blas_held(session.compiled):
            loss, made = session.step(samples, optimizer.rate(optimizer.steps))
    if not made:
        raise NonFiniteLossError(0, 0, loss)
    if update == "auto" and sample_weight is None and not isinstance(optimizer, DPSGD):
        net.sessions.remember_step(optimizer, session)
    return loss


def memory_plan(net: Network, batch_size: int, optimizer: Optimizer, update: str) -> MemoryPlan:
    """`Network.memory_plan`."""
    planned = net.sessions.training_plan(
        as_positive_int(batch_size, "batch_size"),
        net.loss_function.takes_labels,
        update_of(net, update, optimizer),
        optimizer,
    )
    parameters = Buffer("parameters", "θ", (net.n_parameters,), net.dtype)
    states = [
        replace(parameters, name=f"optimizer state {slot + 1}", symbol="")
        for slot in range(sum(optimizer.state_slots))
    ]
    return MemoryPlan(
        parameter_bytes=parameters.bytes,
        optimizer_bytes=sum(state.bytes for state in states),
        workspace_bytes=planned.workspace_bytes,
        buffers=(parameters, *states, *planned.buffers),
        title=f"memory = {net.memory!r}, batch of {batch_size}, "
        f"{type(optimizer).__name__.lower()}, update = {update!r}, "
        f"schedule = {planned.schedule!r}",
        schedule=planned.schedule,
    )
