"""Checks for users' maps and nets, and hooks for the engine's own tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fnn_core import _engine
from fnn_core.checks import as_shape
from fnn_core.maps import BilinearMap, result_of_map

if TYPE_CHECKING:
    from fnn_core.network import Network

#: Of an identity that should hold to rounding, relative to the sizes of what is compared.
TOLERANCE = 1e-10


class AllocationCounts(NamedTuple):
    """Aligned allocations of the engine (parameters and workspaces) since the process started."""

    calls: int
    bytes: int


def allocation_counts() -> AllocationCounts:
    """How often the engine has allocated, and how many bytes."""
    return AllocationCounts(*_engine.allocations())


def vector_function(name: str, x: np.ndarray) -> np.ndarray:
    """A function of the kernels' vector math, by its name in the kernels, on a 1-D array."""
    return _engine.vector_function(name, np.ascontiguousarray(x))


def _require_equal(property_name: str, left: Any, right: Any, size: float) -> None:
    error = float(np.linalg.norm(np.asarray(left) - np.asarray(right)))
    if not (np.isfinite(size) and error <= TOLERANCE * max(size, np.finfo(float).tiny)):
        raise AssertionError(
            f"{property_name} does not hold: off by {error:.3g}, relative to {size:.3g}"
        )


def _require_linear(name: str, function: Callable[..., np.ndarray], one: Any, other: Any) -> None:
    """``f(2 a + 3 b) = 2 f(a) + 3 f(b)``, which an affine f does not fulfil either."""
    apart = 2 * function(one) + 3 * function(other)
    size = float(np.linalg.norm(function(one)) + np.linalg.norm(apart))
    _require_equal(name, function(2 * one + 3 * other), apart, size)


def _require_adjoint(name: str, pairs: tuple[Any, Any], back: tuple[Any, Any]) -> None:
    """⟨pairs⟩ = ⟨back⟩, relative to the sizes of both pairs."""
    size = max(float(np.linalg.norm(a) * np.linalg.norm(b)) for a, b in (pairs, back))
    _require_equal(name, np.vdot(*pairs), np.vdot(*back), size)


def check_map(map: BilinearMap, rng: np.random.Generator | None = None) -> None:
    """Check that a map is linear in each argument, and that its adjoints are its adjoints.

    Parameters
    ----------
    map : BilinearMap
    rng : numpy.random.Generator, optional
        Draws the points at which it is checked.

    Raises
    ------
    AssertionError
        Naming the property that does not hold, and by how much.
    TypeError, ValueError
        Where `map` is no map, or a method's result is not of its shape.

    Examples
    --------
    >>> import fnn_core as fnn
    >>> fnn.testing.check_map(fnn.BilinearMap.from_function(
    ...     lambda x, w: x * w, input_shape=3, weight_shape=3, output_shape=3
    ... ))
    """
    if not isinstance(map, BilinearMap):
        raise TypeError(f"map: expected a BilinearMap, got {map!r}")
    rng = _as_generator(rng)
    samples = 3
    input_shape, weight_shape, output_shape = (
        as_shape(getattr(map, name, None), f"map.{name}")
        for name in ("input_shape", "weight_shape", "output_shape")
    )

    def apply(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return result_of_map("apply", map.apply(x, w), (samples, *output_shape))

    x, other_x = (rng.standard_normal((samples, *input_shape)) for _ in range(2))
    w, other_w = (rng.standard_normal(weight_shape) for _ in range(2))
    h = rng.standard_normal((samples, *output_shape))
    _require_linear("apply: linear in x", lambda x: apply(x, w), x, other_x)
    _require_linear("apply: linear in w", lambda w: apply(x, w), w, other_w)
    back = result_of_map("adjoint_input", map.adjoint_input(h, w), (samples, *input_shape))
    _require_adjoint("adjoint_input: ⟨C(x, w), h⟩ = ⟨x, C†(h, w)⟩", (apply(x, w), h), (x, back))
    back = result_of_map("adjoint_weight", map.adjoint_weight(x, h), weight_shape)
    _require_adjoint("adjoint_weight: ⟨C(x, w), h⟩ = ⟨w, C††(x, h)⟩", (apply(x, w), h), (w, back))
    if map.bias_shape is None:
        return
    bias_shape = as_shape(map.bias_shape, "map.bias_shape")

    def spread(b: np.ndarray) -> np.ndarray:
        return result_of_map("spread", map.spread(b), output_shape)

    b, other_b = (rng.standard_normal(bias_shape) for _ in range(2))
    _require_linear("spread: linear in b", spread, b, other_b)
    back = result_of_map("gather", map.gather(h), bias_shape)
    spread_b = np.broadcast_to(spread(b), h.shape)
    _require_adjoint("gather: ⟨ι(b), h⟩ = ⟨b, ι*(h)⟩", (spread_b, h), (b, back))


def _as_generator(rng: Any) -> np.random.Generator:
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng: expected a numpy.random.Generator or None, got {rng!r}")
    return np.random.default_rng(0) if rng is None else rng


def check_gradient(net: Network, X: Any, y: Any, rng: np.random.Generator | None = None) -> float:
    """The Taylor test of Definition 1: ``|f(θ + h) − f(θ) − Df(θ) h|`` falls with ``‖h‖²``.

    Parameters
    ----------
    net : Network
        Of float64; its parameters are not changed.
    X, y
        As in `Network.fit`.
    rng : numpy.random.Generator, optional
        Draws the direction.

    Returns
    -------
    float
        The slope of the logarithm of the remainder against that of ‖h‖; 2 for a gradient.

    Raises
    ------
    AssertionError
        Where the slope is less than 1.8. Near a kink of a ReLU that may be no fault.
    TypeError, ValueError
        Where `net` is no net of float64, or X and y are not as in `Network.fit`.

    Examples
    --------
    >>> import numpy as np, fnn_core as fnn
    >>> net = fnn.Network([fnn.Dense(3, "tanh"), fnn.Dense(1)], input_shape=2, dtype="float64")
    >>> round(fnn.testing.check_gradient(net, np.ones((4, 2)), np.zeros((4, 1))))
    2
    """
    if not isinstance(getattr(net, "dtype", None), np.dtype):
        raise TypeError(f"net: expected a Network, got {net!r}")
    if net.dtype != np.float64:
        raise ValueError(f"net: expected a net of float64, got {net.dtype}")
    rng = _as_generator(rng)
    objective = net.objective(X, y)
    theta = net.theta.copy()
    direction = rng.standard_normal(theta.size)
    direction /= np.linalg.norm(direction)
    value, along = objective.fun(theta), float(objective.jac(theta) @ direction)
    steps = np.array([1e-2, 5e-3, 2.5e-3, 1.25e-3])
    remainders = np.array(
        [abs(objective.fun(theta + step * direction) - value - step * along) for step in steps]
    )
    rounding = 1e2 * np.finfo(float).eps * max(abs(value), 1.0)
    if (remainders <= rounding).all():
        return 2.0  # the loss is linear along the direction: there is no remainder
    slope = float(np.polyfit(np.log(steps), np.log(np.maximum(remainders, rounding)), 1)[0])
    if slope < 1.8:
        raise AssertionError(
            f"the remainder falls with the power {slope:.2f} of the step instead of 2: the "
            f"gradient is off, or a kink lies within {steps[0]:g} of θ"
        )
    return slope
