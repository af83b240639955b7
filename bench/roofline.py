"""The engine's products under the machine's roof: its speed at arithmetic, and at copying.

    python bench/roofline.py                    # one thread
    python bench/roofline.py --threads all

Nets of two equal layers, dense ones of growing width and convolutions of growing channels, with no
activation between: `predict` makes two products, and `gradients` five (two forward, the gradients
of both weights, and of the second layer's input). The intensity is that of a machine with endless
caches: operations over the bytes of parameters, samples, outputs and gradients, each counted once.
The slanted roof is a copy in main memory, so what stays in a cache may lie above it.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

if not __package__:
    # As a script, the folder of this file is on the path instead of the one above it.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench import drawing, flags, machine
from bench.layers import Conv, Dense, Layer, Place
from bench.turns import take_turns

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = (16, 32, 64, 128, 256, 512, 1024, 2048)
BATCH_SIZES = (1, 32, 256)
CHANNELS = (4, 8, 16, 32, 64, 128)
IMAGE = 16
IMAGES = 32
SMOKE_SIZES = 2

#: Products of each call, and how often it reads or writes all parameters.
CALLS = {"predict": (2, 1), "gradients": (5, 2)}
MARKS = ("o", "s", "^", "D")
COLOURS = ("#6c757d", "#2a6f97", "#e07a00", "#588157")


@dataclass(frozen=True)
class Case:
    """A net of two equal layers, and the samples of a call."""

    family: str
    size: int
    layer: Layer
    input_shape: tuple[int, ...]
    batch_size: int


@dataclass(frozen=True)
class Point:
    """What a call achieved: operations a byte, and billions of operations a second."""

    case: Case
    call: str
    intensity: float
    speed: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and draw the figure."""
    options = build_parser().parse_args(arguments)
    machine.limit_threads(options.threads)
    pyplot = drawing.prepared_pyplot()
    peak = machine.measure_fma_peak(options.dtype, options.threads)
    bandwidth = machine.measure_bandwidth(options.threads)
    roof = f"{peak:.1f} GFLOP/s" if peak else "unknown: no C compiler"
    print(f"{options.threads} thread(s), {options.dtype}; peak {roof}, copies {bandwidth:.1f} GB/s")
    points = measure(cases(), options)
    print_points(points, peak)
    draw(pyplot, points, peak, bandwidth, options)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--threads", type=flags.thread_count, default=1, metavar="N",
        help="'all' is one a core (%(default)s)")  # fmt: skip
    add("--dtype", choices=("float32", "float64"), default="float32")
    flags.add_turns(parser, rounds=5, seconds=0.1)
    add("--figure", type=Path, default=ROOT / "docs" / "roofline.png", metavar="FILE",
        help="where to draw (docs/roofline.png)")  # fmt: skip
    return parser


def cases() -> list[Case]:
    """Dense nets of each batch, and convolutions."""
    few = SMOKE_SIZES if flags.smoke() else None
    dense = [
        Case(f"dense, batch of {batch_size}", width, Dense(width), (width,), batch_size)
        for batch_size in BATCH_SIZES
        for width in WIDTHS[:few]
    ]
    family = f"3 x 3 convolution, {IMAGES} images of {IMAGE} x {IMAGE}"
    return dense + [
        Case(family, channels, Conv(channels, 3, "same"), (IMAGE, IMAGE, channels), IMAGES)
        for channels in CHANNELS[:few]
    ]


def measure(all_cases: Sequence[Case], options: argparse.Namespace) -> list[Point]:
    """Take turns at both calls of every case."""
    runs: dict[tuple[Case, str], Callable[[], object]] = {}
    for case in all_cases:
        for call, run in calls_of(case, options).items():
            runs[case, call] = run
    times = take_turns(runs, options.rounds, options.seconds)
    itemsize = {"float32": 4, "float64": 8}[options.dtype]
    points = []
    for (case, call), seconds in times.items():
        flops, numbers = cost(case, call)
        points.append(
            Point(case, call, flops / (itemsize * numbers), flops / median(seconds) / 1e9)
        )
    return points


def calls_of(case: Case, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """The calls to time, which write their results to the same memory each time."""
    import numpy as np

    import fnn_core as fnn
    from bench.rivals.fnn import layer_at

    layers = [layer_at(Place(case.layer, case.input_shape, "identity")) for _ in range(2)]
    net = fnn.Network(
        layers, case.input_shape, "squared_error", options.dtype, n_threads=options.threads
    )
    draw = np.random.default_rng(0)
    features, target = (
        draw.standard_normal((case.batch_size, *case.input_shape)).astype(options.dtype)
        for _ in range(2)
    )
    outputs = np.empty_like(target)
    _, gradients = net.gradients(features, target)
    return {
        "predict": partial(net.predict, features, out=outputs),
        "gradients": partial(net.gradients, features, target, out=gradients),
    }


def cost(case: Case, call: str) -> tuple[int, int]:
    """Operations of a call, and the numbers that it cannot but read or write.

    These are the samples, both layers' outputs, the parameters, and for the gradients the targets
    and as many numbers as there are parameters. What goes back lies in the place of the outputs.
    """
    place = Place(case.layer, case.input_shape, "identity")
    assert place.weight_shape is not None
    products, passes = CALLS[call]
    parameters = 2 * (math.prod(place.weight_shape) + place.weight_shape[0])
    arrays = 3 if call == "predict" else 4
    samples = arrays * case.batch_size * math.prod(case.input_shape)
    return 2 * products * case.batch_size * place.products, passes * parameters + samples


def print_points(points: Sequence[Point], peak: float | None) -> None:
    """A line a case: both calls' intensity, speed and share of the peak."""
    columns = "".join(f"{call + ', FLOP/B':>20s}{'GFLOP/s':>10s}{'peak':>8s}" for call in CALLS)
    print(f"{'layers':46s}{'width':>6s}{columns}")
    by_case: dict[Case, list[Point]] = {}
    for point in points:
        by_case.setdefault(point.case, []).append(point)
    for case, of_case in by_case.items():
        cells = ""
        for point in of_case:
            share = f"{point.speed / peak:.0%}" if peak else "-"
            cells += f"{point.intensity:20.2f}{point.speed:10.2f}{share:>8s}"
        print(f"{case.family:46s}{case.size:6d}{cells}")


def draw(
    pyplot: Any,
    points: Sequence[Point],
    peak: float | None,
    bandwidth: float,
    options: argparse.Namespace,
) -> None:
    """Speed over intensity, a colour a family, under the roof; a panel a call."""
    figure, panels = pyplot.subplots(
        1, len(CALLS), figsize=(9.2, 3.9), sharey=True, sharex=True, layout="constrained"
    )
    families = list(dict.fromkeys(point.case.family for point in points))
    intensities = [point.intensity for point in points]
    ends = (min(intensities) / 1.5, max(intensities) * 1.5)
    for axes, call in zip(panels, CALLS, strict=True):
        draw_roof(axes, ends, peak, bandwidth)
        for family, mark, colour in zip(families, MARKS, COLOURS, strict=True):
            mine = [
                (point.intensity, point.speed)
                for point in points
                if point.call == call and point.case.family == family
            ]
            axes.plot(*zip(*mine, strict=True), mark + "-", color=colour, ms=5, lw=0.8,
                      label=family)  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(f"{call}: {CALLS[call][0]} products", fontsize=9)
    panels[0].set_ylabel("GFLOP/s")
    panels[-1].legend(frameon=False, fontsize=8, loc="lower right")
    figure.supxlabel(
        "operations a byte of parameters, samples, outputs and gradients, each counted once; "
        f"{options.dtype}, threads: {options.threads}",
        fontsize=9,
    )
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.figure, dpi=130)


def draw_roof(axes: Any, ends: tuple[float, float], peak: float | None, bandwidth: float) -> None:
    """The least of what the cores can calculate and what memory can bring."""
    highest = peak or float("inf")
    ridge = highest / bandwidth
    corners = [ends[0], *([ridge] if ends[0] < ridge < ends[1] else []), ends[1]]
    heights = [min(highest, bandwidth * intensity) for intensity in corners]
    axes.plot(corners, heights, color="black", lw=1, label="FMA peak, and a copy in memory")


if __name__ == "__main__":
    sys.exit(main())
