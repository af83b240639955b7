"""What the flags of the commands mean, and what they refuse."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from typing import TypeVar

from bench import machine

Number = TypeVar("Number", int, float)


def smoke() -> bool:
    """Whether a run is only to show that everything works, on small nets and in seconds."""
    return os.environ.get("FNN_BENCH_SMOKE") == "1"


def number_from(
    kind: Callable[[str], Number], minimum: Number, meaning: str
) -> Callable[[str], Number]:
    """A parser of numbers that refuses those below a minimum."""

    def parse(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = None
        # What is refused is not `value < minimum`, which a NaN would pass.
        if value is None or not minimum <= value < math.inf:
            raise argparse.ArgumentTypeError(f"expected {meaning}, got {text!r}")
        return value

    return parse


whole_number = number_from(int, 1, "a whole number >= 1")
duration = number_from(float, 0.0, "seconds >= 0")


def thread_count(text: str) -> int:
    """Parse a number of threads, or ``"all"`` for one on each core that the process may use."""
    if text.strip() == "all":
        return machine.available_cores()
    try:
        return whole_number(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"expected a whole number >= 1 or 'all', got {text!r}"
        ) from None


def thread_counts(text: str) -> list[int]:
    """Parse ``"1,all"`` into the numbers of threads, each once."""
    return list(dict.fromkeys(thread_count(part) for part in text.split(",")))


def add_turns(parser: argparse.ArgumentParser, rounds: int, seconds: float) -> None:
    """Add how often and how long to measure, which in a smoke run is once and at once."""
    add = parser.add_argument
    add("--rounds", type=whole_number, default=1 if smoke() else rounds, metavar="N",
        help="how often everything has its turn (%(default)s)")  # fmt: skip
    add("--seconds", type=duration, default=0.0 if smoke() else seconds, metavar="S",
        help="of each turn, at least (%(default)s)")  # fmt: skip
