"""Derive the polynomial coefficients of src/kernels/vecmath.inc and print its tables.

Each table is a minimax polynomial, found with Remez's exchange in multiple precision and rounded to
the precision in which the kernels evaluate it.  Run it (it needs mpmath) and compare:

    python tools/coefficients.py
"""

import struct

import mpmath as mp

mp.mp.dps = 60


def remez(function, weight, low, high, degree, grid=4000):
    """Minimax polynomial for `weight * (function - polynomial)` on [low, high].

    Returns the coefficients, lowest power first, and the largest weighted error.The weight may
    vanish inside the interval (where an error is measured relative to a zero of the result).
    """
    count = degree + 2
    middle, half = (high + low) / 2, (high - low) / 2
    reference = [middle - half * mp.cos(mp.pi * k / (count - 1)) for k in range(count)]
    samples = [middle - half * mp.cos(mp.pi * k / grid) for k in range(grid + 1)]
    values = [(function(x), weight(x)) for x in samples]
    for _ in range(60):
        # Alternating error of one size on the reference: count unknowns, the last is that size.
        matrix = mp.matrix(count, count)
        right = mp.matrix(count, 1)
        for row, x in enumerate(reference):
            for power in range(degree + 1):
                matrix[row, power] = x**power
            matrix[row, degree + 1] = (-1) ** row / abs(weight(x))
            right[row] = function(x)
        solution = mp.lu_solve(matrix, right)
        coefficients = list(solution[: degree + 1])
        levelled = abs(solution[degree + 1])
        errors = [
            abs(w) * (f - mp.polyval(coefficients[::-1], x))
            for x, (f, w) in zip(samples, values, strict=True)
        ]
        largest = max(abs(error) for error in errors)
        if largest < levelled * (1 + mp.mpf("1e-4")):
            return coefficients, largest
        reference = _alternation(samples, errors, count)
    raise ArithmeticError("the exchange did not settle")


def _alternation(samples, errors, count):
    """The `count` consecutive extrema of alternating sign that hold the largest error."""
    extrema = []
    for x, error in zip(samples, errors, strict=True):
        if error == 0:
            continue
        if extrema and (error > 0) == (extrema[-1][1] > 0):
            if abs(error) > abs(extrema[-1][1]):
                extrema[-1] = (x, error)
        else:
            extrema.append((x, error))
    while len(extrema) > count:
        extrema.pop(0 if abs(extrema[0][1]) < abs(extrema[-1][1]) else -1)
    if len(extrema) < count:
        raise ArithmeticError("too few sign changes: raise the working precision")
    return [x for x, _ in extrema]


def rounded(value, double):
    """`value` in the precision of the kernel, as the shortest safe decimal literal."""
    if double:
        return f"{float(value):.16e}"
    single = struct.unpack("f", struct.pack("f", float(value)))[0]
    return f"{single:.8e}f"


def leading_bits(value, bits):
    """`value` cut to so many significant bits, so that small multiples of it are exact."""
    exponent = mp.floor(mp.log(abs(value), 2)) + 1 - bits
    return mp.nint(value / mp.mpf(2) ** exponent) * mp.mpf(2) ** exponent


def exponential_tail(double):
    """(exp(r) - 1 - r) / r² for |r| <= ln(2)/2; the error is relative to exp(r) - 1."""
    half = mp.log(2) / 2 * (1 + mp.mpf("1e-4"))  # a little slack: log2(e) is rounded as well

    def function(r):
        return (mp.expm1(r) - r) / r**2 if abs(r) > mp.mpf("1e-20") else mp.mpf(1) / 2

    def weight(r):
        return max(abs(r), half / 50)  # about r² / (exp(r) - 1), kept off zero

    return remez(function, weight, -half, half, 9 if double else 4)


def logarithm_tail(double):
    """(2 atanh(s) - 2 s) / s³ in z = s² for s = f / (2 + f), 1 + f from sqrt(1/2) to sqrt(2)."""
    top = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2 * (1 + mp.mpf("1e-4"))

    def function(z):
        s = mp.sqrt(z)
        return (2 * mp.atanh(s) - 2 * s) / s**3 if z > mp.mpf("1e-25") else mp.mpf(2) / 3

    return remez(function, lambda z: max(z, top / 50), mp.mpf(0), top, 6 if double else 2)


def normal_tail(double):
    """(a + c) exp(a²/2) Phi(-a) in t = (a - c) / (a + c), for a from 0 until Phi underflows."""
    centre, end, degree = (
        (mp.mpf(4), mp.mpf("38.6"), 22) if double else (mp.mpf(3), mp.mpf("14.3"), 9)
    )

    def function(t):
        a = centre * (1 + t) / (1 - t)
        return (a + centre) * mp.erfc(a / mp.sqrt(2)) * mp.exp(a * a / 2) / 2

    return remez(
        function,
        lambda t: 1 / function(t),
        mp.mpf(-1),
        (end - centre) / (end + centre),
        degree,
        grid=1000,
    )


def print_table(name, derive):
    """Both precisions of one table as they stand in the file."""
    for double in (True, False):
        coefficients, error = derive(double)
        print("#if REAL_DOUBLE" if double else "#else")
        print(f"/* minimax error {mp.nstr(error, 2)} = 2^{mp.nstr(mp.log(error, 2), 3)} */")
        print(f"static const real {name}[] = {{")
        for coefficient in coefficients:
            print(f"    {rounded(coefficient, double)},")
        print("};")
    print("#endif")


def main():
    """Print every table of vecmath.inc."""
    for double, bits in ((True, 42), (False, 15)):
        high = leading_bits(mp.log(2), bits)
        print(rounded(high, double), rounded(mp.log(2) - high, double))
    print_table("exponential_tail", exponential_tail)
    print_table("logarithm_tail", logarithm_tail)
    print_table("normal_tail", normal_tail)


if __name__ == "__main__":
    main()
