"""The kernels' elementary functions, on all of their range, against wider arithmetic and mpmath."""

import subprocess
import sys
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest
from scipy.special import ndtr

from fnn_core.testing import vector_function

ROOT = Path(__file__).parent.parent
DTYPES = [np.float32, np.float64]
BOUND = {np.float32: 2, np.float64: 4}  # units in the last place, or spacings of subnormal results
WIDER = {np.float32: np.float64, np.float64: np.longdouble}
SAMPLES = 200_000


def logistic(x):
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def normal_pdf(x):
    x = np.clip(x, -100, 100)
    short = x.astype(np.float32).astype(x.dtype)  # whose square is exact
    rest = (x - short) * (x + short) / 2
    return np.exp(-short * short / 2) * np.exp(-rest) / np.sqrt(2 * np.arccos(x.dtype.type(-1)))


# name: in the arithmetic of its argument, in mpmath, and where the function is neither constant nor
# a straight line in float64 (in float32 that is within)
FUNCTIONS = {
    "exponential": (np.exp, mp.exp, (-750, 712)),
    "exponential_minus_one": (np.expm1, mp.expm1, (-40, 712)),
    "logarithm": (np.log, mp.log, (0, 4)),
    "log_one_plus": (np.log1p, mp.log1p, (-1, 4)),
    "hyperbolic_tangent": (np.tanh, mp.tanh, (-21, 21)),
    "logistic": (logistic, lambda x: 1 / (1 + mp.exp(-x)), (-750, 40)),
    "softplus": (softplus, lambda x: mp.log1p(mp.exp(x)), (-750, 40)),
    "normal_cdf": (ndtr, mp.ncdf, (-39, 9)),
    "normal_pdf": (normal_pdf, mp.npdf, (-39, 39)),
}
each_function = pytest.mark.parametrize("name", FUNCTIONS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def apply(name, *x, dtype):
    return vector_function(name, np.array(x, dtype))


def arguments(name, dtype, count, rng):
    """Numbers of every size and sign, and more where the function bends."""
    bits = np.dtype(f"u{np.dtype(dtype).itemsize}")
    everywhere = rng.integers(0, np.iinfo(bits).max, count, bits, endpoint=True).view(dtype)
    bend = rng.uniform(*FUNCTIONS[name][2], count)
    near_zero = rng.uniform(-1, 1, count) * 2.0 ** rng.integers(-30, 3, count)
    return np.concatenate([everywhere, bend.astype(dtype), near_zero.astype(dtype)])


def assert_close(name, x, y, exact):
    """`exact`, in wider arithmetic, is within the bound of y; infinities and NaN are equal."""
    dtype = x.dtype.type
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rounded = exact.astype(dtype)
        away = np.abs(rounded) > np.abs(exact)  # perhaps into the binade above
        spacing = np.spacing(np.abs(np.where(away, np.nextafter(rounded, dtype(0)), rounded)))
        error = np.abs(y - exact) / spacing
    finite = np.isfinite(rounded) & np.isfinite(y)
    np.testing.assert_array_equal(y[~finite], rounded[~finite])
    worst = np.argmax(np.where(finite, error, 0))
    assert error[worst] <= BOUND[dtype], f"{name}({x[worst]!r}) is {y[worst]!r}: {error[worst]} ulp"


@each_dtype
@each_function
def test_accuracy(name, dtype, rng):
    wider = WIDER[dtype]
    if np.finfo(wider).nmant < np.finfo(dtype).nmant + 10:
        pytest.skip("long double is no wider than double here")
    if name == "normal_cdf" and dtype is np.float64:
        pytest.skip("SciPy has no long double: against mpmath only")
    x = arguments(name, dtype, SAMPLES, rng)
    with np.errstate(all="ignore"):
        exact = FUNCTIONS[name][0](x.astype(wider))
    assert_close(name, x, vector_function(name, x), exact)


@each_dtype
@each_function
def test_accuracy_against_mpmath(name, dtype, rng):
    x = arguments(name, dtype, 1000, rng)
    lowest = FUNCTIONS[name][2][0] if name in ("logarithm", "log_one_plus") else -np.inf
    x = x[np.isfinite(x) & (x > lowest) & (np.abs(x) < 1e4)]
    y = vector_function(name, x)
    with mp.workdps(40):
        error = [
            abs(mp.mpf(float(out)) - exact) / unit_in_the_last_place(exact, dtype)
            for exact, out in zip((FUNCTIONS[name][1](mp.mpf(float(v))) for v in x), y, strict=True)
            if np.isfinite(out) or abs(exact) <= float(np.finfo(dtype).max)
        ]
    assert max(error) <= BOUND[dtype]


def unit_in_the_last_place(exact, dtype):
    info = np.finfo(dtype)
    exponent = mp.frexp(exact)[1] - info.nmant - 1 if exact else info.minexp - info.nmant
    return mp.mpf(2) ** max(exponent, int(info.minexp) - info.nmant)


@each_dtype
@each_function
def test_nan_stays_nan_and_in_its_lane(name, dtype):
    x = np.full(67, 0.5, dtype)
    x[::3] = np.nan
    x[3::6] *= -1
    y = vector_function(name, x)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    assert np.unique(y[~np.isnan(y)]).size == 1


@each_dtype
@each_function
def test_length_and_place_do_not_matter(name, dtype, rng):
    x = rng.uniform(0, 3, 67).astype(dtype)
    whole = vector_function(name, x)
    for length in range(x.size):
        np.testing.assert_array_equal(vector_function(name, x[:length]), whole[:length])
        np.testing.assert_array_equal(vector_function(name, x[length:]), whole[length:])


LIMITS = {
    "exponential": {-np.inf: 0, 0.0: 1, np.inf: np.inf},
    "exponential_minus_one": {-np.inf: -1, -50.0: -1, 0.0: 0, np.inf: np.inf},
    "logarithm": {-np.inf: np.nan, -1.0: np.nan, 0.0: -np.inf, 1.0: 0, np.inf: np.inf},
    "log_one_plus": {-np.inf: np.nan, -2.0: np.nan, -1.0: -np.inf, 0.0: 0, np.inf: np.inf},
    "hyperbolic_tangent": {-np.inf: -1, -30.0: -1, 0.0: 0, 30.0: 1, np.inf: 1},
    "logistic": {-np.inf: 0, 0.0: 0.5, 50.0: 1, np.inf: 1},
    "softplus": {-np.inf: 0, 1000.0: 1000, np.inf: np.inf},
    "normal_cdf": {-np.inf: 0, -40.0: 0, 0.0: 0.5, 10.0: 1, np.inf: 1},
    "normal_pdf": {-np.inf: 0, -40.0: 0, 40.0: 0, np.inf: 0},
}


@each_dtype
@each_function
def test_limits(name, dtype):
    y = apply(name, *LIMITS[name], dtype=dtype)
    np.testing.assert_array_equal(y, np.array(list(LIMITS[name].values()), dtype))


@each_dtype
@pytest.mark.parametrize("name", ["exponential", "exponential_minus_one"])
def test_overflow_sets_in_where_it_must(name, dtype):
    last = np.log(np.finfo(dtype).max)
    if np.exp(last.astype(WIDER[dtype])) > np.finfo(dtype).max:
        last = np.nextafter(last, dtype(0))
    finite, infinite = apply(name, last, np.nextafter(last, dtype(np.inf)), dtype=dtype)
    assert np.isfinite(finite)
    assert infinite == np.inf


@each_dtype
@pytest.mark.parametrize("name", ["exponential", "logistic", "softplus"])
def test_underflow_is_gradual(name, dtype):
    smallest = np.finfo(dtype).smallest_subnormal
    steps = np.log(smallest) + np.log(np.array([5, 4, 3, 2, 1], dtype))
    y = vector_function(name, steps.astype(dtype)) / smallest
    assert np.all(np.abs(y - [5, 4, 3, 2, 1]) <= 1)
    assert apply(name, np.log(smallest) - 1, dtype=dtype) == 0


@each_dtype
def test_exponential_below_zero(dtype, rng):
    """As exact as the other one, but where it is too small for a normal number."""
    name, tiny = "exponential_below_zero", np.finfo(dtype).tiny
    x = -np.abs(arguments("exponential", dtype, SAMPLES, rng))
    x = x[~np.isnan(x)]
    y = vector_function(name, x)
    exact = np.exp(x.astype(WIDER[dtype]))
    normal = exact >= tiny
    assert np.all((y[~normal] >= 0) & (y[~normal] <= tiny))
    np.testing.assert_array_equal(apply(name, -np.inf, 0, np.nan, dtype=dtype), [0, 1, np.nan])
    if np.finfo(exact.dtype).nmant >= np.finfo(dtype).nmant + 10:
        assert_close(name, x[normal], y[normal], exact[normal])


@each_dtype
def test_tanh_of_a_tiny_number_is_that_number(dtype):
    info = np.finfo(dtype)
    x = np.array([0, info.smallest_subnormal, info.tiny, info.eps / 16], dtype)
    for signed in (x, -x):
        y = vector_function("hyperbolic_tangent", signed)
        np.testing.assert_array_equal(y, signed)
        np.testing.assert_array_equal(np.signbit(y), np.signbit(signed))


@each_dtype
def test_tanh_is_odd(dtype, rng):
    x = rng.uniform(0, 12, 1000).astype(dtype)
    y = vector_function("hyperbolic_tangent", x)
    np.testing.assert_array_equal(vector_function("hyperbolic_tangent", -x), -y)


def test_coefficients_are_those_that_the_script_derives():
    command = [sys.executable, str(ROOT / "tools" / "coefficients.py")]
    tables = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    assert tables == (ROOT / "src" / "kernels" / "coefficients.inc").read_text()
