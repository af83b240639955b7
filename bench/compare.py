"""Microseconds of one training step, fnn_core and other libraries side by side.

    python bench/compare.py                                  # on one thread, and on all
    python bench/compare.py --set untuned --threads 1
    python bench/compare.py --nets digits_b200,mnist_b128 --rivals fnn_fit,jax_scan

Each library is first held against a float64 reference; one that disagrees is left out. Then all
take turns, in alternating order, so that whatever else the machine does hits them alike. A column
is the median over the rounds. `ratio` is how many times longer the best other library took than the
best of fnn_core's two ways, the median over the rounds of the ratio within each; `peak` is
fnn_core's share of what the cores can multiply and add.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if not __package__:
    # As a script, the folder of this file is on the path instead of the one above it.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench import flags, machine
from bench.turns import take_turns

if TYPE_CHECKING:
    from bench.nets import Net
    from bench.rivals import Rival

OURS = ("fnn_fit", "fnn_step")
#: Compiling takes half a minute a net, so it is for those who ask.
SLOW_TO_START = ("torch_compile",)
SMOKE_STEPS = 10
EXIT_WRONG = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and return 1 if a library's numbers were wrong."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if len(options.threads) > 1:
        return run_apart(sys.argv[1:] if arguments is None else arguments, options)
    (threads,) = options.threads
    machine.limit_threads(threads)
    # Only now: most libraries read their number of threads when they are imported.
    from bench.nets import NETS, nets_of_set
    from bench.rivals import RIVALS

    try:
        nets = named(options.nets, NETS, "net") or nets_of_set(options.set, flags.smoke())
        kinds = named(options.rivals, RIVALS, "rival") or [
            kind
            for name, kind in RIVALS.items()
            if options.torch_compile or name not in SLOW_TO_START
        ]
    except ValueError as error:
        parser.error(str(error))
    installed = [kind for kind in kinds if kind.installed()]
    for kind in kinds:
        if kind not in installed:
            print(f"left out: {kind.name} is not installed", file=sys.stderr)
    peak = machine.measure_fma_peak(options.dtype, threads)
    print_header(installed, options.dtype, threads, peak)
    modules = [module for kind in installed for module in kind.modules]
    settings = {name: getattr(options, name) for name in ("dtype", "rounds", "seconds")}
    about = settings | machine.describe(modules)
    wrong = 0
    rows: dict[str, Any] = {}
    for net in nets:
        able = [kind for kind in installed if kind.can_train(net)]
        correct = [kind for kind in able if is_right(kind, net, options.dtype, threads)]
        wrong += len(able) - len(correct)
        if peak:  # the highest counts: a host may have had two processors on one core just then
            peak = max(peak, machine.measure_fma_peak(options.dtype, threads) or 0.0)
        rows[net.name] = summary(net, measure(net, correct, threads, options), peak)
        print_row(net, installed, able, rows[net.name])
        if options.json:  # after each net, so that a run that is cut off leaves what it has
            write(options.json, about, [{"threads": threads, "peak": peak, "nets": rows}])
    return EXIT_WRONG if wrong else 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--threads", type=flags.thread_counts, default="1,all", metavar="N,...",
        help="for every library; 'all' is one a core (%(default)s)")  # fmt: skip
    add("--set", choices=("table", "untuned", "all"), default="table",
        help="of nets: the README's, others, or both (%(default)s)")  # fmt: skip
    add("--nets", default="", metavar="NAME,...", help="nets from bench/nets.py, of any set")
    add("--rivals", default="", metavar="NAME,...",
        help="libraries from bench/rivals (all but torch_compile)")  # fmt: skip
    add("--torch-compile", action="store_true",
        help="torch_compile, too, which takes half a minute a net to start")  # fmt: skip
    add("--dtype", choices=("float32", "float64"), default="float32")
    flags.add_turns(parser, rounds=7, seconds=0.35)
    add("--json", type=Path, metavar="FILE", help="keep the numbers in a file, for figures.py")
    return parser


def run_apart(arguments: Sequence[str], options: argparse.Namespace) -> int:
    """Measure each number of threads in a process of its own, and join their files."""
    worst = 0
    runs: list[Any] = []
    about: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for threads in options.threads:
            kept = Path(folder) / f"{threads}.json"
            # The last of a flag counts.
            changed = ["--threads", str(threads), "--json", str(kept)]
            command = [sys.executable, str(Path(__file__).resolve()), *arguments, *changed]
            code = subprocess.run(command, check=False).returncode
            if code not in (0, EXIT_WRONG):
                return code
            worst = max(worst, code)
            measured = json.loads(kept.read_text())
            about = measured["about"]
            runs += measured["runs"]
            if options.json:
                write(options.json, about, runs)
            print(flush=True)
    return worst


def write(path: Path, about: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    """Keep the numbers of each number of threads, as figures.py reads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"about": about, "runs": runs}, indent=1) + "\n")


def named(names: str, table: dict[str, Any], meaning: str) -> list[Any]:
    """The entries of a table that a flag names.

    Raises
    ------
    ValueError
        Where a name is not in the table.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in table:
            raise ValueError(f"no {meaning} {name!r}; there are {', '.join(table)}")
    return [table[name] for name in wanted]


def is_right(kind: type[Rival], net: Net, dtype: str, threads: int) -> bool:
    """Whether a library's numbers are the reference's; says so where they are not."""
    from bench.rivals import MismatchError, check

    try:
        check(kind, net, dtype, threads)
    except MismatchError as error:
        print(f"left out: {error}", file=sys.stderr)
        return False
    return True


def measure(
    net: Net, kinds: Sequence[type[Rival]], threads: int, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Microseconds a step of each library, one number a round."""
    from bench.nets import Problem

    steps = SMOKE_STEPS if flags.smoke() else net.steps_a_call
    runs = {kind.name: kind(Problem(net, options.dtype), threads, steps).run for kind in kinds}
    times = take_turns(runs, options.rounds, options.seconds)
    return {name: [1e6 * seconds / steps for seconds in turns] for name, turns in times.items()}


def summary(net: Net, times: dict[str, list[float]], peak: float | None) -> dict[str, Any]:
    """The median of each library, the ratio of the best two, and the share of the peak."""
    medians = {name: median(turns) for name, turns in times.items()}
    ours = [times[name] for name in times if name in OURS]
    theirs = [times[name] for name in times if name not in OURS]
    ratio, share = None, None
    if ours and theirs:
        rounds = zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True)
        ratio = median(min(other) / min(own) for own, other in rounds)
    if ours and peak:
        share = net.flops / (min(medians[name] for name in medians if name in OURS) * 1e3) / peak
    return {
        "flops": net.flops,
        "microseconds": medians,
        "ratio": ratio,
        "peak": share,
        "rounds": times,
    }


def print_header(
    kinds: Sequence[type[Rival]], dtype: str, threads: int, peak: float | None
) -> None:
    """Say what is measured, and name the columns."""
    machine_peak = f"{peak:.1f} GFLOP/s" if peak else "unknown: no C compiler"
    print(f"{threads} thread(s), {dtype}, peak {machine_peak}; microseconds a step")
    names = [kind.name for kind in kinds]
    print(f"{'net':14s}" + "".join(f"{name:>14s}" for name in [*names, "ratio", "peak"]))


def print_row(
    net: Net, kinds: Sequence[type[Rival]], able: Sequence[type[Rival]], row: dict[str, Any]
) -> None:
    """Print a net's medians, the ratio and the share of the peak."""
    medians = row["microseconds"]
    cells = [
        f"{medians[kind.name]:.2f}" if kind.name in medians else "wrong" if kind in able else "-"
        for kind in kinds
    ]
    cells.append("-" if row["ratio"] is None else f"{row['ratio']:.2f}")
    cells.append("-" if row["peak"] is None else f"{row['peak']:.1%}")
    print(f"{net.name:14s}" + "".join(f"{cell:>14s}" for cell in cells), flush=True)


if __name__ == "__main__":
    sys.exit(main())
