"""Checks for users' maps and nets, and hooks for the engine's own tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fnn_core import _engine
from fnn_core.maps import BilinearMap

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
    if not error <= TOLERANCE * max(size, np.finfo(float).tiny):
        raise AssertionError(
            f"{property_name} does not hold: off by {error:.3g}, relative to {size:.3g}"
        )


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
    """
    rng = np.random.default_rng(0) if rng is None else rng

    def draw(shape: Any, samples: int | None = None) -> np.ndarray:
        whole = tuple(np.atleast_1d(shape))
        return rng.standard_normal(whole if samples is None else (samples, *whole))

    def inner(a: Any, b: Any) -> float:
        return float(np.vdot(np.asarray(a), np.asarray(b)))

    x, other_x = draw(map.input_shape, 3), draw(map.input_shape, 3)
    w, other_w = draw(map.weight_shape), draw(map.weight_shape)
    h = draw(map.output_shape, 3)
    applied = np.asarray(map.apply(x, w))
    size = float(np.linalg.norm(applied))

    for name, together, apart in (
        ("linearity in x", map.apply(2 * x - other_x, w), 2 * applied - map.apply(other_x, w)),
        ("linearity in w", map.apply(x, 2 * w - other_w), 2 * applied - map.apply(x, other_w)),
    ):
        _require_equal(name, together, apart, size + float(np.linalg.norm(apart)))

    paired = inner(applied, h)
    scale = size * float(np.linalg.norm(h))
    back = map.adjoint_input(h, w)
    _require_equal("adjoint_input: ⟨C(x, w), h⟩ = ⟨x, C†(h, w)⟩", paired, inner(x, back), scale)
    to_weight = map.adjoint_weight(x, h)
    _require_equal(
        "adjoint_weight: ⟨C(x, w), h⟩ = ⟨w, C††(x, h)⟩", paired, inner(w, to_weight), scale
    )
    if map.bias_shape is not None:
        b = draw(map.bias_shape)
        spread = np.asarray(map.spread(b))
        paired = inner(np.broadcast_to(spread, h.shape), h)
        scale = float(np.linalg.norm(spread) * np.linalg.norm(h))
        _require_equal("gather: ⟨ι(b), h⟩ = ⟨b, ι*(h)⟩", paired, inner(b, map.gather(h)), scale)


def check_gradient(net: Network, X: Any, y: Any, rng: np.random.Generator | None = None) -> float:
    """The Taylor test of Definition 1: ``|f(θ + h) − f(θ) − Df(θ) h|`` falls with the square of ``‖h‖``.

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
    ValueError
        Where the net is not of float64.
    """
    if net.dtype != np.float64:
        raise ValueError(f"net: expected a net of float64, got {net.dtype}")
    rng = np.random.default_rng(0) if rng is None else rng
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
            f"the remainder falls with the power {slope:.2f} of the step instead of 2: the gradient "
            f"is off, or a kink lies within {steps[0]:g} of θ"
        )
    return slope
