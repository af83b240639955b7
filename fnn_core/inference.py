"""What a net says of samples: predictions, probabilities and the loss, in blocks of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fnn_core import _engine
from fnn_core.checks import as_inputs
from fnn_core.data import Data, as_data
from fnn_core.losses import Loss

if TYPE_CHECKING:
    from fnn_core.network import Network


class Predictive:
    """The forward passes of a `Network`, which is the one class that this is a part of."""

    @property
    def _net(self) -> Network:
        return cast("Network", self)

    def predict(self, X: Any, *, out: np.ndarray | None = None) -> np.ndarray:
        """F_n(X), shape ``(N, *output_shape)``; written to `out` where given.

        Any N, in blocks; from several Python threads at once, if need be.

        Raises
        ------
        TypeError, ValueError
            Where `X` is not as in `fit`, or `out` not a contiguous array of that shape and dtype.

        Examples
        --------
        >>> import numpy as np, fnn_core as fnn
        >>> fnn.Network([fnn.Dense(3)], input_shape=2).predict(np.zeros((5, 2))).shape
        (5, 3)
        """
        net: Network = self  # type: ignore[assignment]  # `_net` is a tenth of a brief call
        if out is None:
            outputs = _engine.Forward.try_one(net.sessions.inference(), net.theta, X)
            if outputs is not None:
                return outputs
        return _predict(net, X, out, probabilities=False)

    def predict_proba(self, X: Any, *, out: np.ndarray | None = None) -> np.ndarray:
        """Probabilities, shape ``(N, *output_shape)``: the loss's softmax or sigmoid of F_n(X).

        Raises
        ------
        TypeError, ValueError
            As `predict`, and where the loss has no probabilities.

        Examples
        --------
        >>> import numpy as np, fnn_core as fnn
        >>> net = fnn.Network([fnn.Dense(3)], input_shape=2, loss="softmax_cross_entropy")
        >>> bool(np.allclose(net.predict_proba(np.ones((5, 2))).sum(axis=1), 1))
        True
        """
        net = self._net
        if not net.loss_function.has_probabilities:
            raise ValueError(
                f"predict_proba: the loss {net.loss_function.name} has no probabilities; "
                "softmax_cross_entropy and binary_cross_entropy have"
            )
        return _predict(net, X, out, probabilities=True)

    def loss(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The mean loss Σ s_i ℓ(y_i, F_n(x_i)) / Σ s_i; arguments as in `fit`.

        Raises
        ------
        TypeError, ValueError
            Where an argument is not as in `fit`.

        Examples
        --------
        >>> import numpy as np, fnn_core as fnn
        >>> fnn.Network([fnn.Dense(1)], input_shape=2).loss(np.zeros((5, 2)), np.full((5, 1), 3.0))
        9.0
        """
        return _loss(self._net, as_data(self._net, X, y, sample_weight))


def _predict(net: Network, X: Any, out: np.ndarray | None, probabilities: bool) -> np.ndarray:
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


def _loss(net: Network, data: Data) -> float:
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
