"""Microseconds of a step as a net grows sure of the samples that it is trained on.

    python bench/long_run.py
    python bench/long_run.py --net mnist_b128 --rivals fnn_fit,torch

What such a net sends back is full of numbers too small to be normal, each of which takes a
processor a hundred cycles and more, unless a library has it count them as zero. The libraries take
turns; each trains on from where it was, and all make as many steps.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    # As a script, the folder of this file is on the path instead of the one above it.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench import flags, machine
from bench.compare import named
from bench.turns import seconds_of

ROWS = 12


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for every so many steps."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--net", default="digits_b200", help="from bench/nets.py (%(default)s)")
    add("--rivals", default="fnn_fit,torch,jax_scan", metavar="NAME,...",
        help="libraries from bench/rivals (%(default)s)")  # fmt: skip
    add("--threads", type=flags.thread_count, default=1, metavar="N", help="(%(default)s)")
    add("--steps", type=flags.whole_number, default=120 if flags.smoke() else 180_000, metavar="N",
        help="of each library, about, in all (%(default)s)")  # fmt: skip
    options = parser.parse_args(arguments)
    machine.limit_threads(options.threads)
    # Only now: most libraries read their number of threads when they are imported.
    from bench.nets import NETS, Problem
    from bench.rivals import RIVALS

    try:
        (net,) = named(options.net, NETS, "net")
        kinds = [kind for kind in named(options.rivals, RIVALS, "rival") if kind.installed()]
    except ValueError as error:
        parser.error(str(error))
    steps = min(net.steps_a_call, -(-options.steps // ROWS))
    calls = max(1, options.steps // (ROWS * steps))
    runs = {kind.name: kind(Problem(net), options.threads, steps).run for kind in kinds}
    for run in runs.values():
        run()  # compiles
    print(f"{net.name}, on {options.threads} thread(s), microseconds a step")
    print(f"{'steps':>9s}" + "".join(f"{name:>12s}" for name in runs))
    for row in range(1, ROWS + 1):
        times = [1e6 * seconds_of(run, calls) / steps for run in runs.values()]
        print(f"{row * calls * steps:9d}" + "".join(f"{time:12.2f}" for time in times), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
