"""How time and memory of a training step grow with batch, width, depth and threads.

    python bench/scaling.py

Nets of equal hidden layers, one size changed at a time, on one thread and on all. The exponent is
the slope of a line through the logarithms of time, or of the memory plan's bytes, against those of
the step's operations. Then the base net is trained by one process, and by two at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if not __package__:
    # As a script, the folder of this file is on the path instead of the one above it.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench import drawing, flags, machine
from bench.turns import take_turns

if TYPE_CHECKING:
    from bench.nets import Net

ROOT = Path(__file__).resolve().parents[1]
BASE = {"batch": 128, "width": 256, "depth": 4}
SIZES = {
    "batch": (8, 16, 32, 64, 128, 256, 512, 1024, 2048),
    "width": (32, 64, 128, 256, 512, 1024),
    "depth": (1, 2, 4, 8, 16, 32),
}
SMOKE_BASE = {"batch": 8, "width": 16, "depth": 2}
SMOKE_SIZES = {"batch": (8, 16), "width": (16, 32), "depth": (1, 2)}
CLASSES = 10
AXES = (*SIZES, "threads")
COLOURS = dict(zip(AXES, ("#2a6f97", "#e07a00", "#588157", "#c1121f"), strict=True))


@dataclass(frozen=True)
class Point:
    """One training step: what was changed, and what it took.

    Attributes
    ----------
    axis : str
        ``"batch"``, ``"width"``, ``"depth"`` or ``"threads"``.
    size : int
        Its value.
    threads : int
        That the net may use.
    work : int
        Operations.
    seconds : float
        The median over the rounds.
    bytes : int
        The memory plan's total.
    """

    axis: str
    size: int
    threads: int
    work: int
    seconds: float
    bytes: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables, and draw the figure."""
    options = build_parser().parse_args(arguments)
    machine.limit_threads(options.threads)
    pyplot = drawing.prepared_pyplot()
    # Only now: it imports NumPy, which reads its number of threads then.
    from bench.oversubscription import compare_processes

    points = measure(options)
    print_points(points)
    print_exponents(points)
    draw(pyplot, points, options.figure)
    base = net_of(SMOKE_BASE if flags.smoke() else BASE)
    compare_processes(base, options.threads, 0.2 if flags.smoke() else 3.0)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--threads", type=flags.thread_count, default="all", metavar="N",
        help="the most; 'all' is one a core (%(default)s)")  # fmt: skip
    flags.add_turns(parser, rounds=7, seconds=0.1)
    add("--figure", type=Path, default=ROOT / "docs" / "scaling.png", metavar="FILE",
        help="where to draw (docs/scaling.png)")  # fmt: skip
    return parser


def net_of(sizes: dict[str, int]) -> Net:
    """A classifier of equal ReLU layers, with as many inputs as each is wide."""
    from bench.nets import dense_net

    widths = [sizes["width"]] * (sizes["depth"] + 1)
    loss = "softmax_cross_entropy"
    return dense_net("scaling", (*widths, CLASSES), "relu", loss, sizes["batch"])


def thread_counts(most: int) -> list[int]:
    """Powers of two below the most, and the most."""
    powers = [2**power for power in range(most.bit_length())]
    return sorted({*powers, most})


def cases(most_threads: int) -> list[tuple[str, int, int, Net]]:
    """What is measured: the axis, its size, the threads and the net."""
    base, all_sizes = (SMOKE_BASE, SMOKE_SIZES) if flags.smoke() else (BASE, SIZES)
    sweeps = [
        (axis, size, threads, net_of(base | {axis: size}))
        for axis, sizes in all_sizes.items()
        for size in sizes
        for threads in sorted({1, most_threads})
    ]
    return sweeps + [
        ("threads", threads, threads, net_of(base)) for threads in thread_counts(most_threads)
    ]


def measure(options: argparse.Namespace) -> list[Point]:
    """Take turns at an Adam step of every case."""
    from bench.nets import Problem
    from bench.rivals import FnnStep

    runs: dict[tuple[str, int, int], Callable[[], object]] = {}
    costs: dict[tuple[str, int, int], tuple[int, int]] = {}
    for axis, size, threads, net in cases(options.threads):
        ours = FnnStep(Problem(net), threads, steps=1)
        plan = ours.network.memory_plan(net.batch_size, ours.optimizer)
        runs[axis, size, threads] = ours.run
        costs[axis, size, threads] = net.flops, plan.total_bytes
    times = take_turns(runs, options.rounds, options.seconds)
    return [
        Point(*case, costs[case][0], median(seconds), costs[case][1])
        for case, seconds in times.items()
    ]


def exponent(over: Sequence[float], values: Sequence[float]) -> float:
    """The power of one that the other grows with: least squares of the logarithms."""
    import numpy as np

    return float(np.polyfit(np.log(over), np.log(values), 1)[0])


def groups(points: Sequence[Point]) -> dict[tuple[str, int], list[Point]]:
    """The points by axis and threads, without those where the threads themselves change."""
    grouped: dict[tuple[str, int], list[Point]] = {}
    for point in points:
        if point.axis != "threads":
            grouped.setdefault((point.axis, point.threads), []).append(point)
    return grouped


def print_points(points: Sequence[Point]) -> None:
    """A line a step."""
    print(f"{'axis':10s}{'size':>8s}{'threads':>9s}{'MFLOP':>12s}{'µs':>12s}{'MB':>10s}")
    for point in points:
        print(
            f"{point.axis:10s}{point.size:8d}{point.threads:9d}{point.work / 1e6:12.2f}"
            f"{1e6 * point.seconds:12.1f}{point.bytes / 1e6:10.3f}"
        )


def print_exponents(points: Sequence[Point]) -> None:
    """How time and memory grow with the work, and with the threads at the same work."""
    print(f"\n{'exponent, over':24s}{'threads':>9s}{'of time':>10s}{'of memory':>12s}")
    for (axis, threads), of_group in groups(points).items():
        print_exponent(f"work, by {axis}", str(threads), [p.work for p in of_group], of_group)
    by_threads = [point for point in points if point.axis == "threads"]
    if len(by_threads) > 1:
        print_exponent("threads", "-", [p.threads for p in by_threads], by_threads)
    print(flush=True)


def print_exponent(over: str, threads: str, sizes: list[int], points: Sequence[Point]) -> None:
    """A line of the table of exponents."""
    time = exponent(sizes, [point.seconds for point in points])
    # Rounded here, for adding nothing turns a zero's minus into a plus.
    memory = round(exponent(sizes, [point.bytes for point in points]), 2) + 0.0
    print(f"{over:24s}{threads:>9s}{time:10.2f}{memory:12.2f}")


def draw(pyplot: Any, points: Sequence[Point], path: Path) -> None:
    """Time over work, memory over work, and the gain of threads."""
    figure, (times, memory, gain) = pyplot.subplots(1, 3, figsize=(10.5, 3.6), layout="constrained")
    grouped = groups(points)
    most = max(threads for _, threads in grouped)
    for (axis, threads), of_group in grouped.items():
        work = [point.work for point in of_group]
        style = "o-" if threads == most else "o:"
        for axes, values in (
            (times, [1e3 * point.seconds for point in of_group]),
            (memory, [point.bytes / 1e6 for point in of_group]),
        ):
            label = f"{axis}, threads: {threads}; exponent {exponent(work, values):.2f}"
            axes.plot(work, values, style, ms=4, color=COLOURS[axis], label=label)
    for axes, title in ((times, "milliseconds of a step"), (memory, "MB in all")):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("operations of a step")
        axes.set_title(title, fontsize=9)
        axes.legend(frameon=False, fontsize=7)
    draw_gain(gain, [point for point in points if point.axis == "threads"])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def draw_gain(axes: Any, points: Sequence[Point]) -> None:
    """How many times as fast the base net trains on more threads."""
    counts = [point.threads for point in points]
    gains = [points[0].seconds / point.seconds for point in points]
    axes.plot(counts, counts, "--", color="black", lw=0.8, label="as many times as threads")
    axes.plot(counts, gains, "o-", color=COLOURS["threads"], label="the base net")
    axes.set_xticks(counts)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("threads")
    axes.set_title("steps a second, over those of one thread", fontsize=9)
    axes.legend(frameon=False, fontsize=7)


if __name__ == "__main__":
    sys.exit(main())
