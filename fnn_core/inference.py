"""`predict` and `loss`: passes forward, in blocks of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fnn_core import _engine
from fnn_core.checks import as_inputs
from fnn_core.data import Data
from fnn_core.losses import Loss

if TYPE_CHECKING:
    from fnn_core.network import Network


def predict(net: Network, X: Any, out: np.ndarray | None, probabilities: bool) -> np.ndarray:
    """F_n(X), or the probabilities that the loss makes of it, in `out` where given."""
    inputs = as_inputs(X, net.input_shape, net.dtype)
    if out is None:
        out = np.empty((len(inputs), *net.output_shape), net.dtype)
    elif not isinstance(out, np.ndarray) or out.dtype != net.dtype:
        raise TypeError(
            f"out: expected an array of {net.dtype}, got {getattr(out, 'dtype', out)!r}"
        )
    elif out.shape != (len(inputs), *net.output_shape) or not out.flags.carray:
        raise ValueError(
            "out: expected a C-contiguous writeable array of shape "
            f"{(len(inputs), *net.output_shape)}, got {out.shape}"
        )
    elif np.may_share_memory(out, inputs) or np.may_share_memory(out, net.theta):
        raise ValueError(
            "out: expected an array that shares no memory with X or with the parameters"
        )
    compiled = net.sessions.inference()
    running = _engine.Forward(
        compiled,
        net.theta,
        _engine.Samples(compiled, inputs),
        outputs=out,
        probabilities=probabilities,
    )
    with net.sessions.blas_held(compiled):
        running.run()
    running.close()
    return out


def loss(net: Network, data: Data) -> float:
    """`Network.loss` on checked data."""
    if isinstance(net.loss_function, Loss):
        return net.loss_function.mean(data.targets, net.predict(data.inputs), data.weights)
    compiled = net.sessions.inference(data.labels)
    running = _engine.Forward(
        compiled,
        net.theta,
        _engine.Samples(compiled, data.inputs, data.targets, data.weights),
        losses=True,
        weight=data.total_weight,
    )
    with net.sessions.blas_held(compiled):
        running.run()
    running.close()
    mean = running.mean_loss()
    assert mean is not None
    return mean
