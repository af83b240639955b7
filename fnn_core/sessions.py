"""The engine's plans and sessions of one net, made when first needed and kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fnn_core import _engine
from fnn_core._blas import THREADS as BLAS_THREADS
from fnn_core.cutting import BACKWARD_ROWS, forward_rows, gradient_rows
from fnn_core.data import Data
from fnn_core.forward_planning import plan_inference, plan_tangents
from fnn_core.layers import Connection
from fnn_core.losses import Loss, NamedLoss
from fnn_core.optimizers import Optimizer
from fnn_core.plan import Pass, PassPlan
from fnn_core.planning import plan_training, without_flatten
from fnn_core.privacy import DPSGD

if TYPE_CHECKING:
    from fnn_core.network import Network


def _private_settings(optimizer: Optimizer) -> dict[str, Any]:
    """What the engine needs to know of a private step."""
    if not isinstance(optimizer, DPSGD):
        return {}
    names = ("noise_multiplier", "max_grad_norm", "noise_seed")
    return {name: getattr(optimizer, name) for name in names}


class Sessions:
    """What the net has planned and allocated: at most one plan of each kind, the last one used."""

    def __init__(self, net: Network) -> None:
        self._net = net
        #: Held by whoever changes the parameters; counts steps and epochs.
        self.writer = _engine.Writer()
        self._plans: dict[str, tuple[Any, _engine.CompiledPlan]] = {}
        self._training: tuple[Any, _engine.OptimizerState, _engine.Session] | None = None
        self._stepping: tuple[Optimizer, float | None, _engine.Session] | None = None

    def _pass(self, rows: int, labels: bool) -> Pass:
        return self._pass_of(without_flatten(self._net.connections), rows, labels)

    def _pass_of(self, connections: Sequence[Connection], rows: int, labels: bool) -> Pass:
        net = self._net
        loss = net.loss_function
        has_user_map = any(connection.layer.kind == "bilinear" for connection in connections)
        return Pass(
            connections=connections,
            dtype=net.dtype,
            rows=rows,
            threads=1 if has_user_map else net.n_threads,
            loss_index=loss.index if isinstance(loss, NamedLoss) else None,
            labels=labels,
            any_target=loss.target_range == (-math.inf, math.inf),
            input_shape=net.input_shape,
            output_shape=net.output_shape,
            gemm=net.gemm,
            schedule=net.schedule,
        )

    def _compiled(self, kind: str, key: Any, plan: Callable[[], PassPlan]) -> _engine.CompiledPlan:
        """The plan of that kind; another key replaces it, and frees its workspaces."""
        key = (key, self._net.n_threads)
        kept = self._plans.get(kind)
        if kept is None or kept[0] != key:
            kept = self._plans[kind] = (key, _engine.CompiledPlan(plan()))
        return kept[1]

    def training_plan(self, rows: int, labels: bool, update: str, optimizer: Optimizer) -> PassPlan:
        """The plan of a step, not allocated."""
        return plan_training(
            self._pass(rows, labels),
            self._net.memory,
            {"immediate": "panels", "deferred": "whole", "auto": "either"}[update],
            # A norm that is needed before any weight changes comes from the factors.
            keeps_factors=isinstance(optimizer, DPSGD)
            or (update == "immediate" and optimizer.clip_norm is not None),
        )

    def training(
        self,
        rows: int,
        labels: bool,
        update: str,
        optimizer: Optimizer,
        progress: Callable[[int], None] | None = None,
    ) -> _engine.Session:
        """A session that makes steps of at most `rows` samples. Hold `writer` around its use."""
        net = self._net
        key = (
            labels,
            update,
            net.n_threads,
            optimizer.clip_norm,
            tuple(_private_settings(optimizer).values()),
        )
        kept = self._training
        state = optimizer.state_of(net.identity)
        if kept is not None and kept[:2] == (key, state) and kept[2].rows >= rows:
            kept[2].progress = progress
            return kept[2]
        # What cannot be planned leaves the optimizer free for another net.
        planned = self.training_plan(rows, labels, update, optimizer)
        if state is None:
            state = optimizer.bind(net.identity, net.dtype, net.n_parameters)
        self.forget_training()
        loss = net.loss_function
        session = _engine.Session(
            _engine.CompiledPlan(planned),
            net.theta,
            state,
            self.writer,
            immediate=planned.immediate,
            clip_norm=optimizer.clip_norm or 0.0,
            **_private_settings(optimizer),
            mask_seed=net.mask_seed,
            shuffle_seed=net.shuffle_seed,
            user_loss=loss.evaluate if isinstance(loss, Loss) else None,
            progress=progress,
        )
        self._training = (key, state, session)
        return session

    def forget_training(self) -> None:
        """The next step is planned anew."""
        self._training = self._stepping = None

    def forget(self) -> None:
        """Everything is planned anew."""
        self.forget_training()
        self._plans.clear()

    def remember_step(self, optimizer: Optimizer, session: _engine.Session) -> None:
        """Later steps with that optimizer may take the short way."""
        self._stepping = (optimizer, optimizer.clip_norm, session)

    def try_step(self, X: Any, y: Any, optimizer: Any) -> float | None:
        """A step like the last one, without conversions; None where anything differs."""
        if self._stepping is None:
            return None
        last, clip_norm, session = self._stepping
        rate = optimizer.lr if last is optimizer and optimizer.clip_norm == clip_norm else None
        return session.try_step(X, y, rate) if type(rate) is float else None

    @contextmanager
    def differentiation(
        self, data: Data, theta: np.ndarray | None = None
    ) -> Iterator[_engine.Session]:
        """A session that has the data loaded, in blocks that are accumulated over.

        `theta`: parameters in the place of the net's own.
        """
        net = self._net
        rows = max(1, min(data.count, gradient_rows(net.connections, net.dtype.itemsize)))
        compiled = self._compiled(
            "gradient",
            (rows, data.labels),
            lambda: plan_training(self._pass(rows, data.labels), net.memory, "elsewhere"),
        )
        with self._loaded(compiled, data, rows, net.theta if theta is None else theta) as session:
            yield session

    @contextmanager
    def _loaded(
        self, compiled: _engine.CompiledPlan, data: Data, rows: int, theta: np.ndarray
    ) -> Iterator[_engine.Session]:
        """A session for one call."""
        loss = self._net.loss_function
        user_loss = loss.evaluate if isinstance(loss, Loss) else None
        session = _engine.Session(compiled, theta, user_loss=user_loss)
        try:
            session.load(_engine.Samples(compiled, data.inputs, data.targets, data.weights), rows)
            with self.blas_held(compiled):
                yield session
        finally:
            session.close()

    @contextmanager
    def factorization(self, data: Data) -> Iterator[_engine.Session]:
        """A session that has the data loaded, and keeps delta beside the layers' outputs."""
        rows = min(data.count, gradient_rows(self._net.connections, self._net.dtype.itemsize))
        compiled = self._compiled(
            "factors",
            (rows, data.labels),
            lambda: plan_training(
                self._pass(rows, data.labels), "auto", "elsewhere", keeps_factors=True
            ),
        )
        with self._loaded(compiled, data, rows, self._net.theta) as session:
            yield session

    def weight_product(
        self, connection: Connection, inputs: np.ndarray, delta: np.ndarray
    ) -> np.ndarray:
        """C††(inputs, delta) of one layer, summed over samples, laid out as its part of theta."""
        alone = replace(connection, offset=0, index=0)
        compiled = self._compiled(
            f"product {connection.index}",
            None,
            lambda: plan_training(
                self._pass_of((alone,), BACKWARD_ROWS, False), "auto", "elsewhere"
            ),
        )
        gradient = np.zeros(connection.offset + connection.n_parameters, self._net.dtype)
        part = gradient[connection.offset :]
        _engine.weight_product(compiled, inputs, delta, part)
        return gradient

    def _forward_pass(self, labels: bool) -> Pass:
        net = self._net
        return self._pass(forward_rows(net.connections, net.dtype.itemsize), labels)

    def tangents(self, labels: bool = False) -> _engine.CompiledPlan:
        """The plan of passes with tangents."""
        return self._compiled(
            f"tangents {labels}", None, lambda: plan_tangents(self._forward_pass(labels))
        )

    def inference(self, labels: bool = False) -> _engine.CompiledPlan:
        """The plan of forward passes."""
        return self._compiled(
            f"inference {labels}", None, lambda: plan_inference(self._forward_pass(labels))
        )

    def blas_held(self, compiled: _engine.CompiledPlan) -> AbstractContextManager[None]:
        """BLAS on one thread, where the plan uses it."""
        return BLAS_THREADS.held() if compiled.uses_blas else nullcontext()
