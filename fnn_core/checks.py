"""Checks of arguments: what comes in is named, with what was expected and what came."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from fnn_core import _engine

#: The largest number of entries that an array of the engine may have.
LARGEST_SIZE = 2**48

#: What the engine takes labels in.
LABELS = np.dtype(np.int64)


def as_positive_int(value: Any, name: str, most: int | None = None) -> int:
    """An int of at least 1, and at most `most`, or else 2**48."""
    # Most are plain ints; asking an abstract class takes a microsecond.
    if type(value) is not int and (
        isinstance(value, bool) or not isinstance(value, numbers.Integral)
    ):
        raise TypeError(f"{name}: expected a positive int, got {value!r}")
    number = int(value)
    if not 1 <= number <= (most or LARGEST_SIZE):
        raise ValueError(f"{name} = {number}: expected an int in 1..{most or '2**48'}")
    return number


def as_flag(value: Any, name: str) -> bool:
    """A bool."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def as_number(
    value: Any,
    name: str,
    *,
    at_least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """A finite real number in the given range."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    number = float(value)
    if not (math.isfinite(number) and at_least <= number and above < number < below):
        bounds = [f">= {at_least:g}"] if at_least > -math.inf else []
        bounds += [f"> {above:g}"] if above > -math.inf else []
        bounds += [f"< {below:g}"] if below < math.inf else []
        raise ValueError(
            f"{name} = {value!r}: expected a finite number {' and '.join(bounds)}".rstrip()
        )
    return number


def as_choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """One of a few names."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
    if value not in choices:
        raise ValueError(f"{name} = {value!r}: expected one of {', '.join(choices)}")
    return value


def as_sequence(value: Any, name: str) -> tuple[Any, ...]:
    """Anything that can be gone through, as a tuple."""
    try:
        return tuple(value)
    except TypeError:
        raise TypeError(f"{name}: expected a sequence, got {value!r}") from None


def as_seed(seed: Any) -> np.random.SeedSequence:
    """A seed sequence; None draws a random one."""
    if seed is None:
        return np.random.SeedSequence()
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed: expected an int >= 0 or None, got {seed!r}")
    if seed < 0:
        raise ValueError(f"seed = {seed}: expected an int >= 0 or None")
    return np.random.SeedSequence(int(seed))


def as_shape(value: Any, name: str) -> tuple[int, ...]:
    """An int, or a non-empty tuple of ints, as a tuple."""
    sizes = value if isinstance(value, tuple | list) else (value,)
    if not sizes:
        raise ValueError(f"{name} = {value!r}: expected an int or a non-empty tuple of ints")
    shape = tuple(as_positive_int(size, name) for size in sizes)
    if math.prod(shape) > LARGEST_SIZE:
        raise ValueError(f"{name} = {value!r}: more than 2**48 entries")
    return shape


def _as_real_array(value: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:  # ragged nested lists
        raise ValueError(
            f"{name}: expected an array, got {type(value).__name__} ({error})"
        ) from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")
    return array


def _require_finite(array: np.ndarray, given: np.ndarray, name: str) -> None:
    if array.size == 0 or _engine.all_finite(array):
        return
    place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
    came = given.reshape(array.shape)[place]
    fits = "is not finite" if not np.isfinite(came) else f"does not fit {array.dtype}"
    raise ValueError(f"{name}[{', '.join(map(str, place))}] = {came} {fits}")


def _convert(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """C-contiguous and of that dtype; the array itself where it is so already."""
    if array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned:
        return array  # what NumPy would find out too, in several microseconds
    with np.errstate(over="ignore"):  # an overflow is found, and named, by the check for finiteness
        return np.require(array, dtype, ["C", "A"])


def as_array(value: Any, shape: tuple[int, ...], dtype: np.dtype, name: str) -> np.ndarray:
    """Finite reals of that shape, in the engine's dtype."""
    given = _as_real_array(value, name)
    if given.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {given.shape}")
    array = _convert(given, dtype)
    _require_finite(array, given, name)
    return array


def as_inputs(
    X: Any, input_shape: tuple[int, ...], dtype: np.dtype, name: str = "X", *, finite: bool = True
) -> np.ndarray:
    """``(N, *input_shape)`` in the engine's dtype, without a copy where it is so already."""
    given = _as_real_array(X, name)
    if given.ndim == 0 or given.shape[1:] != input_shape:
        expected = ", ".join(["N", *map(str, input_shape)])
        raise ValueError(f"{name}: expected shape ({expected}), got {given.shape}")
    inputs = _convert(given, dtype)
    if finite:
        _require_finite(inputs, given, name)
    return inputs


def as_labels(y: np.ndarray, classes: int, name: str) -> np.ndarray:
    """Class labels ``(N,)`` as int64."""
    if y.dtype.kind not in "biu":
        raise TypeError(f"{name}: expected integer class labels, got dtype {y.dtype}")
    labels = _convert(y, LABELS)
    place = _engine.label_outside(labels, classes)
    if place >= 0:
        raise ValueError(f"{name}[{place}] = {y[place]} is not a class label in 0..{classes - 1}")
    return labels


def as_targets(
    y: Any, loss: Any, output_shape: tuple[int, ...], dtype: np.dtype, count: int, name: str = "y"
) -> tuple[np.ndarray, bool]:
    """Targets as the engine takes them, and whether they are labels."""
    given = _as_real_array(y, name)
    if given.ndim == 0 or given.shape[0] != count:
        raise ValueError(
            f"{name}: expected {count} targets, one a sample of X, got shape {given.shape}"
        )
    if loss.takes_labels and given.ndim == 1 and math.prod(output_shape) > 1:
        return as_labels(given, math.prod(output_shape), name), True
    if given.shape[1:] != output_shape and not (given.ndim == 1 and math.prod(output_shape) == 1):
        expected = ", ".join(["N", *map(str, output_shape)])
        labels = " or labels (N,)" if loss.takes_labels else ""
        raise ValueError(f"{name}: expected shape ({expected}){labels}, got {given.shape}")
    targets = _convert(given.reshape(count, *output_shape), dtype)
    _require_finite(targets, given, name)
    low, high = loss.target_range
    if low == -math.inf and high == math.inf:
        return targets, False
    wrong = (targets < low) | (targets > high)
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{name}[{', '.join(map(str, place))}] = {targets[place]}: {loss.name} takes targets "
            f"in [{low:g}, {high:g}]"
        )
    return targets, False


def as_weights(
    sample_weight: Any, dtype: np.dtype, count: int, name: str = "sample_weight"
) -> np.ndarray | None:
    """Sample weights ``(N,)``: finite, not negative, not all zero."""
    if sample_weight is None:
        return None
    given = _as_real_array(sample_weight, name)
    if given.shape != (count,):
        raise ValueError(f"{name}: expected shape ({count},), got {given.shape}")
    weights = _convert(given, dtype)
    _require_finite(weights, given, name)
    if (weights < 0).any():
        place = int(np.argmax(weights < 0))
        raise ValueError(f"{name}[{place}] = {weights[place]}: expected a number >= 0")
    if count and weights.max() < np.finfo(dtype).tiny:  # what is less counts as zero
        raise ValueError(f"{name}: all weights are zero, or too small to be normal numbers")
    with np.errstate(over="ignore"):
        total = weights.sum(dtype=np.float64)
    if not math.isfinite(total):
        raise ValueError(f"{name}: the sum of the weights is not finite")
    return weights
