"""Derive the constants of src/kernels/vecmath.inc and print src/kernels/coefficients.inc.

Each table is a minimax polynomial, found with Remez's exchange in multiple precision and rounded to
the precision in which the kernels evaluate it. It needs mpmath and takes half a minute:

    python tools/coefficients.py > src/kernels/coefficients.inc
"""

import struct

import mpmath as mp

mp.mp.dps = 60


def remez(function, weight, low, high, degree, grid=1500):
    """Minimax polynomial for `weight * (function - polynomial)` on [low, high].

    Returns the coefficients, lowest power first, and the largest weighted error. The weight is
    positive.
    """
    count = degree + 2
    middle, half = (high + low) / 2, (high - low) / 2
    samples = [middle - half * mp.cos(mp.pi * k / grid) for k in range(grid + 1)]
    values = [function(x) for x in samples]
    weights = [weight(x) for x in samples]
    reference = [round(grid * k / (count - 1)) for k in range(count)]  # indices into samples
    for _ in range(40):
        # The error alternates on the reference and is of one size there, the last unknown.
        matrix = mp.matrix(count, count)
        for row, index in enumerate(reference):
            for power in range(degree + 1):
                matrix[row, power] = samples[index] ** power
            matrix[row, count - 1] = (-1) ** row / weights[index]
        *coefficients, level = mp.lu_solve(matrix, mp.matrix([values[i] for i in reference]))
        polynomial = coefficients[::-1]
        errors = [
            w * (value - mp.polyval(polynomial, x))
            for x, value, w in zip(samples, values, weights, strict=True)
        ]
        largest = max(map(abs, errors))
        if largest <= abs(level) * (1 + mp.mpf("1e-9")):
            return coefficients, largest
        reference = alternation(errors, count)
    raise ArithmeticError("the exchange did not settle")


def alternation(errors, count):
    """Where errors of alternating sign peak: the `count` neighbours with the largest among them."""
    peaks = []
    for index, error in enumerate(errors):
        if peaks and (error > 0) == (errors[peaks[-1]] > 0):
            if abs(error) > abs(errors[peaks[-1]]):
                peaks[-1] = index
        else:
            peaks.append(index)
    while len(peaks) > count:
        peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
    if len(peaks) < count:
        raise ArithmeticError("too few changes of sign: raise the working precision")
    return peaks


def exponential_tail(double):
    """(exp(r) - 1 - r) / r² for |r| <= ln(2)/2; its error counts relative to exp(r) - 1."""
    end = mp.log(2) / 2 * mp.mpf("1.0001")  # the reduction rounds, and so may overshoot
    small = mp.mpf("1e-20")

    def function(r):
        return (mp.expm1(r) - r) / r**2 if abs(r) > small else mp.mpf("0.5") + r / 6

    def weight(r):
        return max(r**2 / abs(mp.expm1(r)), end / 50) if r else end / 50

    return remez(function, weight, -end, end, 9 if double else 4)


def tangent_tail(double):
    """(exp(2 r) - 1 - 2 r) / (2 r²) for |r| <= ln(2)/4: the same in other units, exactly."""
    coefficients, error = exponential_tail(double)
    return [c * 2 ** (k + 1) for k, c in enumerate(coefficients)], error


SEGMENTS = 32  # of a table that two 64-byte vectors hold
SEGMENT_DEGREE = 5


def tangent_segments():
    """tanh(a) around a centre of each segment, four an octave from 1/16 to 16.

    Returns, for each segment, the centre and the coefficients in a - centre. A centre is a number
    whose tangent is all but a float32 itself, so that rounding it costs nothing. The segments below
    1/8 are one, and the last ones are constant.
    """
    segments = []
    for place in range(SEGMENTS):
        scale = mp.mpf(2) ** (place // 4 - 4) / 4
        low, high = (place % 4 + 4) * scale, (place % 4 + 5) * scale
        if high <= mp.mpf("0.125"):
            if not segments:
                segments.append([mp.mpf(0), mp.mpf(0), mp.mpf(1), *tangent_near_0(mp.mpf("0.125"))])
            else:
                segments.append(segments[0])
        elif low < TANGENT_END:
            segments.append(tangent_segment(low, high))
        else:
            segments.append([low, mp.mpf(1)] + [mp.mpf(0)] * SEGMENT_DEGREE)
    return segments


TANGENT_END = 10  # tanh rounds to 1 from 9.02 on


def tangent_near_0(end):
    """(tanh(a) / a - 1) / a."""
    return remez(
        lambda a: (mp.tanh(a) / a - 1) / a if a > mp.mpf("1e-12") else -a / 3,
        lambda a: max(a * a / mp.tanh(a), end / 50) if a else end / 50,
        mp.mpf(0),
        end,
        SEGMENT_DEGREE - 2,
        grid=400,
    )[0]


def tangent_segment(low, high):
    """The centre and the coefficients of a segment."""
    middle = mp.atanh(single(mp.tanh((low + high) / 2)))  # where tanh is flat, that is not near by
    bits = struct.unpack("i", struct.pack("f", float(middle)))[0]
    nearby = (
        mp.mpf(struct.unpack("f", struct.pack("i", bits + away))[0])
        for away in sorted(range(-2000, 2001), key=abs)
    )

    def rounding(a):
        return abs(single(mp.tanh(a)) / mp.tanh(a) - 1)

    centre = min(nearby, key=rounding)
    level = mp.tanh(centre)

    def function(t):
        return (mp.tanh(centre + t) - level) / t if abs(t) > mp.mpf("1e-15") else 1 - level**2

    def weight(t):
        return max(abs(t) / mp.tanh(centre + t), (high - low) / 200)

    degree = SEGMENT_DEGREE - 1
    slopes = remez(function, weight, low - centre, high - centre, degree, grid=400)[0]
    return [centre, level, *slopes]


NODES = 8  # that one 32-byte vector holds
LONGEST_STEP = mp.mpf("1.22")  # a longer one costs the polynomial its accuracy


def tangent_step():
    """The step between nodes 0, 1, ..., 7 steps from zero whose tangents are all but float32.

    The last node's half step reaches to where tanh rounds to 1. A step has so few bits that its
    multiples are exact. The tangent of the first node counts most.
    """
    unit = mp.mpf(2) ** -20
    first = int(mp.mpf("9.02") / (NODES - mp.mpf("0.5")) / unit) + 1

    def rounding(step):
        tangents = [mp.tanh(node * step) for node in range(1, NODES)]
        errors = [abs(single(tangent) - tangent) for tangent in tangents]
        return max(2 * errors[0], *errors)

    return min((k * unit for k in range(first, int(LONGEST_STEP / unit))), key=rounding)


def cotangent_tail(step):
    """(b coth(b) - 1) / b² in z = b² for b up to half a step."""
    end = (step / 2 * mp.mpf("1.0001")) ** 2

    def function(z):
        b = mp.sqrt(z)
        return (b * mp.coth(b) - 1) / z if z > mp.mpf("1e-20") else mp.mpf(1) / 3

    return remez(function, lambda z: max(z, end / 1000), mp.mpf(0), end, 2, grid=400)


def logarithm_tail(double):
    """(2 atanh(s) - 2 s) / s³ in z = s², where sqrt(1/2) <= (1 + s) / (1 - s) <= sqrt(2)."""
    end = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2 * mp.mpf("1.0001")
    small = mp.mpf("1e-20")

    def function(z):
        s = mp.sqrt(z)
        return 2 * (mp.atanh(s) - s) / s**3 if z > small else mp.mpf(2) / 3 + 2 * z / 5

    return remez(function, lambda z: max(z, end / 50), mp.mpf(0), end, 6 if double else 2)


# Beyond these Phi(-a) rounds to zero. The centres make the polynomials shortest.
NORMAL_END = {True: mp.mpf("38.6"), False: mp.mpf("14.4")}
NORMAL_CENTRE = {True: mp.mpf(5), False: mp.mpf("3.5")}
NORMAL_LEVEL = mp.mpf("0.4375")


def normal_tail(double):
    """(a + 1) exp(a²/2) Phi(-a) - level in t = a / (a + centre) - 1/2; the error is relative."""
    end, centre = NORMAL_END[double], NORMAL_CENTRE[double]

    def scaled_tail(t):
        a = centre * (mp.mpf("0.5") + t) / (mp.mpf("0.5") - t)
        return (a + 1) * mp.erfc(a / mp.sqrt(2)) * mp.exp(a * a / 2) / 2

    return remez(
        lambda t: scaled_tail(t) - NORMAL_LEVEL,
        lambda t: 1 / scaled_tail(t),
        -mp.mpf("0.5"),
        end / (end + centre) - mp.mpf("0.5"),
        22 if double else 9,
    )


def single(value):
    """`value` as a float32."""
    return struct.unpack("f", struct.pack("f", float(value)))[0]


def literal(value, double):
    """`value` as a C literal with enough digits to be read back as it was rounded."""
    return f"{float(value):.16e}" if double else f"{single(value):.8e}f"


def leading_part(value, bits):
    """`value` cut to so many bits, which leaves room for exact products with small integers."""
    unit = mp.mpf(2) ** (mp.floor(mp.log(value, 2)) + 1 - bits)
    return mp.floor(value / unit) * unit


def print_both(comment, lines_of):
    """Print what `lines_of(double)` yields for both precisions, as the preprocessor picks them."""
    print(f"/* {comment} */")
    for double in (True, False):
        print("#if REAL_DOUBLE" if double else "#else")
        print("\n".join(lines_of(double)))
    print("#endif")


def print_table(name, comment, derive):
    """Print the table `name` in both precisions, with the errors of its polynomials."""
    derived = {double: derive(double) for double in (True, False)}

    def lines(double):
        yield f"static const real {name}[] = {{"
        literals = [literal(c, double) for c in derived[double][0]]
        for row in range(0, len(literals), 4):
            yield "    " + ", ".join(literals[row : row + 4]) + ","
        yield "};"

    bits = [mp.nstr(mp.log(derived[double][1], 2), 3) for double in (True, False)]
    print_both(f"{comment}; error 2^{bits[0]} and 2^{bits[1]}", lines)


def print_segments():
    """Print the tables of `tangent_segments`, in the order of the bits that pick a segment."""
    first = 123 % 8 * 4  # the exponent of 1/16, by its last three bits, before two of the fraction
    segments = tangent_segments()
    in_order = [segments[(place - first) % SEGMENTS] for place in range(SEGMENTS)]
    print("/* tanh(a) by segments of 1/16 <= a < 16, of which those below 1/8 are one: their")
    print(" * centres, and the powers of a - centre from 0 on */")
    print("#if VECTOR_BYTES == 64 && !REAL_DOUBLE")
    print(f"static const real tangent_segments[][{SEGMENTS}] = {{")
    for values in zip(*in_order, strict=True):
        print("    {")
        for row in range(0, SEGMENTS, 4):
            print("        " + ", ".join(literal(v, False) for v in values[row : row + 4]) + ",")
        print("    },")
    print("};\n#endif")


def print_nodes():
    """Print the tangents of the nodes, and the polynomial between them."""
    step = tangent_step()
    tail, error = cotangent_tail(step)
    bits = mp.nstr(mp.log(error, 2), 3)
    print(f"/* tanh(a) of {NODES} nodes, one step after the other from 0; and (b coth(b) - 1) / b²")
    print(f" * in b² for |b| of up to half a step; error 2^{bits} */")
    print("#if VECTOR_BYTES == 32 && !REAL_DOUBLE")
    print(f"#define TANGENT_STEP {literal(step, False)}")
    tables = {
        "tangent_nodes": [mp.tanh(node * step) for node in range(NODES)],
        "cotangent_tail": tail,
    }
    for name, values in tables.items():
        print(f"static const real {name}[] = {{")
        for row in range(0, len(values), 4):
            print("    " + ", ".join(literal(v, False) for v in values[row : row + 4]) + ",")
        print("};")
    print("#endif")


def main():
    """Print all constants of vecmath.inc that are not obvious."""
    print("/* Constants of vecmath.inc, printed by tools/coefficients.py. */")

    def logarithm_of_two(double):
        high = leading_part(mp.log(2), 42 if double else 15)
        yield f"#define LN_2_HIGH {literal(high, double)}"
        yield f"#define LN_2_LOW {literal(mp.log(2) - high, double)}"

    def normal_centre(double):
        yield f"#define NORMAL_CENTRE R({mp.nstr(NORMAL_CENTRE[double])})"

    print("/* clang-format off */")
    print_both("ln 2: its high part times the exponent of any number is exact", logarithm_of_two)
    print_table("exponential_tail", "(exp(r) - 1 - r) / r² for |r| <= ln(2)/2", exponential_tail)
    print_table("tangent_tail", "(exp(2r) - 1 - 2r) / (2r²) for |r| <= ln(2)/4", tangent_tail)
    print_segments()
    print_nodes()
    print_table(
        "logarithm_tail", "(2 atanh(s) - 2s) / s³ in s², for |s| <= 3 - sqrt(8)", logarithm_tail
    )
    print_both("where t = a / (a + centre) - 1/2 is zero", normal_centre)
    print_table("normal_tail", "(a + 1) exp(a²/2) Phi(-a) - 7/16 in t", normal_tail)
    print("/* clang-format on */")


if __name__ == "__main__":
    main()
