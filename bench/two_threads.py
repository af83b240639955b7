"""What a second thread gains, by how far apart the two processors are at the time.

    python bench/two_threads.py

Where processors are lent, as in a virtual machine, the host moves them: at times two of them are
one core's, at times their caches are far from each other. The time that a line of the cache takes
between them, there and back, tells. A net is trained on one thread and on two in turns; a turn
counts for the distance that was measured before it and after it, where the two agree.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if not __package__:
    # As a script, the folder of this file is on the path instead of the one above it.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench import flags, machine
from bench.compare import named
from bench.turns import seconds_of

if TYPE_CHECKING:
    from bench.nets import Net

THREADS = 2
#: Those of the README's nets whose step takes a millisecond or more on one thread.
LONG = "mnist_b128,deep_b128,lenet_b64,large_b4096,wide_b256,cifar_b32,huge_b512"
#: Nanoseconds of a round trip up to which two processors were one core's, or shared a cache, on
#: AMD's EPYC (Zen 3: 60 to 65 on one core; Zen 5: from 70 near) and an Intel Xeon (Emerald Rapids).
DISTANCES = {"one core": 67.0, "near": 260.0, "far": float("inf")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each net and distance."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--nets", default="tiny_b1,digits_b200" if flags.smoke() else LONG, metavar="NAME,...",
        help="from bench/nets.py (those whose step takes a millisecond)")  # fmt: skip
    flags.add_turns(parser, rounds=30, seconds=0.1)
    options = parser.parse_args(arguments)
    machine.limit_threads(THREADS)
    # Only now: it imports NumPy, which reads its number of threads then.
    from bench.nets import NETS

    try:
        nets = named(options.nets, NETS, "net")
    except ValueError as error:
        parser.error(str(error))
    if machine.available_cores() < THREADS:
        parser.error("there are no two processors to run on")
    measure_round_trip = machine.round_trip_meter()
    if measure_round_trip is None:
        parser.error("measuring the distance wants a C compiler, and threads that can be pinned")
    heads = f"{'net':14s}{'distance':>10s}{'ns':>6s}{'turns':>7s}"
    print(heads + f"{'1 thread':>12s}{'2':>12s}{'gain':>7s}")
    for net in nets:
        turns = take_turns_by_distance(net, options, measure_round_trip)
        for distance in DISTANCES:
            if distance in turns:
                print_row(net.name, distance, turns[distance])
    return 0


def distance_of(round_trip: float) -> str:
    """What a round trip of so many nanoseconds tells."""
    return next(name for name, most in DISTANCES.items() if round_trip <= most)


def take_turns_by_distance(
    net: Net, options: argparse.Namespace, measure_round_trip: Callable[[], float]
) -> dict[str, list[tuple[float, float, float]]]:
    """For each distance: nanoseconds of a round trip, microseconds a step on 1 and 2 threads."""
    from bench.nets import Problem
    from bench.rivals import FnnFit

    steps = 1 if flags.smoke() else net.steps_a_call
    runs = [FnnFit(Problem(net), threads, steps).run for threads in (1, THREADS)]
    calls = []
    for run in runs:
        run()
        calls.append(max(1, round(options.seconds / seconds_of(run, calls=1))))
    turns = defaultdict(list)
    for _ in range(options.rounds):
        before = measure_round_trip()
        one, two = (
            1e6 * seconds_of(run, count) / steps for run, count in zip(runs, calls, strict=True)
        )
        if distance_of(before) == distance_of(measure_round_trip()):
            turns[distance_of(before)].append((before, one, two))
    return turns


def print_row(name: str, distance: str, turns: Sequence[tuple[float, float, float]]) -> None:
    """The medians, and that of the gains."""
    round_trip, one, two = (median(numbers) for numbers in zip(*turns, strict=True))
    gain = median(alone / together for _, alone, together in turns)
    print(
        f"{name:14s}{distance:>10s}{round_trip:6.0f}{len(turns):7d}{one:12.1f}{two:12.1f}{gain:7.2f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
