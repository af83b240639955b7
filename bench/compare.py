"""Microseconds of one training step, fnn_core and other libraries side by side.

    python bench/compare.py --threads 1 --nets digits_b200,mnist_b128

Each library is first held against float64 NumPy; one that disagrees is left out. Then all take
turns, in alternating order, so that whatever else the machine does hits them alike. A column is the
median over the rounds. `ratio` is how many times longer the best other library took than the best
of fnn_core's two ways, the median over the rounds of the ratio within each; `peak` is fnn_core's
share of what the cores can multiply and add.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if not __package__:
    # As a script, the folder of this file is on the path instead of the one above it.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench import machine

if TYPE_CHECKING:
    from bench.nets import Net
    from bench.rivals import Rival

OURS = ("fnn_fit", "fnn_step")
#: Compiling takes half a minute a net, so it is for those who ask.
LEFT_OUT = ("torch_compile",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and return 1 if a library's numbers were wrong."""
    options = parse(arguments)
    machine.limit_threads(options.threads)
    # Only now: most libraries read their number of threads when they are imported.
    from bench.nets import NETS
    from bench.rivals import RIVALS, MismatchError, check

    nets = choose(options.nets, NETS, "net")
    kinds = choose(options.rivals, RIVALS, "rival", leave_out=LEFT_OUT)
    installed = [kind for kind in kinds if kind.installed()]
    peak = machine.measure_fma_peak(options.dtype)
    print_header(installed, options, peak)
    measured: dict[str, Any] = {}
    wrong = 0
    for net in nets:
        correct = []
        for kind in installed:
            try:
                check(kind, net, options.dtype, options.threads)
                correct.append(kind)
            except MismatchError as error:
                print(f"left out: {error}", file=sys.stderr)
                wrong += 1
        times = take_turns(net, correct, options)
        measured[net.name] = summary(net, times, peak and peak * options.threads)
        print_row(net, installed, measured[net.name])
    if options.json:
        about = {"threads": options.threads, "dtype": options.dtype, "peak": peak}
        about |= machine.describe(module for kind in installed for module in kind.modules)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"about": about, "nets": measured}, indent=1) + "\n")
    return 1 if wrong else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--threads", type=int, default=1, help="for every library (%(default)s)")
    add("--nets", default="", help="names from bench/nets.py (all)")
    add("--rivals", default="", help="names from bench/rivals (all but torch_compile)")
    add("--dtype", choices=("float32", "float64"), default="float32")
    add("--rounds", type=int, default=7, help="(%(default)s)")
    add("--seconds", type=float, default=0.35, help="of each turn, at least (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="keep the numbers in a file, for figures.py")
    return parser.parse_args(arguments)


def choose(
    names: str, table: dict[str, Any], meaning: str, leave_out: Sequence[str] = ()
) -> list[Any]:
    """The entries of a table that a flag names, or all but some if it names none."""
    if not names:
        return [entry for name, entry in table.items() if name not in leave_out]
    unknown = [name for name in names.split(",") if name not in table]
    if unknown:
        raise SystemExit(f"no {meaning} {unknown[0]!r}; there are {', '.join(table)}")
    return [table[name] for name in names.split(",")]


def take_turns(
    net: Net, kinds: Sequence[type[Rival]], options: argparse.Namespace
) -> dict[str, list[float]]:
    """Microseconds a step of each library, one number a round."""
    from bench.nets import Problem

    rivals = [
        kind(Problem(net, options.dtype), options.threads, net.steps_a_call) for kind in kinds
    ]
    calls = {}
    for rival in rivals:
        rival.run()  # compiles, fills caches
        calls[rival.name] = max(1, round(options.seconds / seconds_of(rival, calls=1)))
    times: dict[str, list[float]] = {rival.name: [] for rival in rivals}
    for turn in range(options.rounds):
        for rival in rivals if turn % 2 == 0 else reversed(rivals):
            seconds = seconds_of(rival, calls[rival.name])
            times[rival.name].append(1e6 * seconds / net.steps_a_call)
    return times


def seconds_of(rival: Rival, calls: int) -> float:
    """How long one call of a library took, on average over some in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        rival.run()
    return (time.perf_counter() - start) / calls


def print_header(
    kinds: Sequence[type[Rival]], options: argparse.Namespace, peak: float | None
) -> None:
    """Say what is measured, and name the columns."""
    machine_peak = f"{peak:.1f} GFLOP/s a core" if peak else "unknown: no C compiler"
    print(f"{options.threads} thread(s), {options.dtype}, peak {machine_peak}; microseconds a step")
    names = [kind.name for kind in kinds]
    print(f"{'net':14s}" + "".join(f"{name:>14s}" for name in [*names, "ratio", "peak"]))


def summary(net: Net, times: dict[str, list[float]], peak: float | None) -> dict[str, Any]:
    """The median of each library, the ratio of the best two, and the share of the peak."""
    medians = {name: median(column) for name, column in times.items()}
    ours = [times[name] for name in times if name in OURS]
    theirs = [times[name] for name in times if name not in OURS]
    ratio, share = None, None
    if ours and theirs:
        rounds = zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True)
        ratio = median(min(other) / min(own) for own, other in rounds)
    if ours and peak:
        share = net.flops / (min(medians[name] for name in medians if name in OURS) * 1e3) / peak
    return {"microseconds": medians, "ratio": ratio, "peak": share}


def print_row(net: Net, kinds: Sequence[type[Rival]], row: dict[str, Any]) -> None:
    """Print a net's medians, the ratio and the share of the peak."""
    medians = row["microseconds"]
    cells = [f"{medians[k.name]:.2f}" if k.name in medians else "wrong" for k in kinds]
    cells.append("-" if row["ratio"] is None else f"{row['ratio']:.2f}")
    cells.append("-" if row["peak"] is None else f"{row['peak']:.1%}")
    print(f"{net.name:14s}" + "".join(f"{cell:>14s}" for cell in cells), flush=True)


if __name__ == "__main__":
    sys.exit(main())
