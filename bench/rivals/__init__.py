"""One small class a library, each training the same net on the same batch in its own best way.

All take the same weights and make the same Adam steps, so that their times can be compared; `check`
proves it in float64 before anyone is timed, against plain NumPy, or against fnn_core where the net
is none that plain NumPy has here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.nets import Net, Parameters, Problem
from bench.rivals.base import Rival
from bench.rivals.fnn import FnnFit, FnnStep
from bench.rivals.jax import JaxScan, JaxStep
from bench.rivals.plain_numpy import PlainNumPy
from bench.rivals.pytorch import PyTorch, PyTorchCompiled
from bench.rivals.scikit_learn import ScikitLearn

__all__ = ["RIVALS", "FnnFit", "FnnStep", "MismatchError", "Rival", "check"]

RIVALS: dict[str, type[Rival]] = {
    rival.name: rival
    for rival in (
        FnnFit, FnnStep, PlainNumPy, ScikitLearn, PyTorch, PyTorchCompiled, JaxStep, JaxScan
    )
}  # fmt: skip

#: How far, relative to its norm, a gradient may be from the float64 one. A preactivation next to
#: zero may round to either side of ReLU's kink, hence the room in float32.
GRADIENT_TOLERANCE = {"float32": 5e-3, "float64": 1e-9}
#: How far the parameters may be after some steps, relative to how far they moved. Adam blows up
#: rounding where a gradient is nearly zero, and libraries place its epsilon differently.
STEP_TOLERANCE = 5e-2


class MismatchError(AssertionError):
    """A library's numbers differ from the reference: its time would mean nothing."""


def check(kind: type[Rival], net: Net, dtype: str, threads: int) -> None:
    """Hold a library's gradients, and its parameters after two steps, against a float64 reference.

    Raises
    ------
    MismatchError
        If they differ by more than rounding explains.
    """
    start = Problem(net, dtype)
    reference_kind = PlainNumPy if PlainNumPy.can_train(net) else FnnStep
    reference = reference_kind(Problem(net, "float64"), threads=1, steps=2)
    rival = kind(start, threads, steps=2)

    gradients = rival.gradients()
    if gradients is not None:
        expected = reference.gradients()
        error = distance(gradients, expected) / distance(expected)
        if not error <= GRADIENT_TOLERANCE[dtype]:
            raise MismatchError(f"{kind.name}, {net.name}: gradients are off by {error:.1e}")

    rival.run()
    reference.run()
    moved = distance(reference.parameters(), start.parameters)
    error = distance(rival.parameters(), reference.parameters()) / moved
    if not error <= STEP_TOLERANCE:
        raise MismatchError(f"{kind.name}, {net.name}: two steps are off by {error:.1e}")


def distance(values: Parameters, others: Parameters | None = None) -> float:
    """The Euclidean norm of all parameters, or of their difference from others."""
    flat = flatten(values)
    return float(np.linalg.norm(flat if others is None else flat - flatten(others)))


def flatten(parameters: Parameters) -> NDArray[Any]:
    """All parameters as one float64 vector."""
    return np.concatenate(
        [value.ravel().astype("float64") for pair in parameters for value in pair]
    )
