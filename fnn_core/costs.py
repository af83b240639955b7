"""In which order a step is done, and by how many threads: the one asked for, or the quickest.

By a cost model of the net, the batch and the threads. Where its choice is one of an order of
summation, the number of threads does not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from fnn_core import _engine
from fnn_core.cutting import (
    BACKWARD_ROWS,
    BLOCK_ROWS,
    CHUNKS,
    PART_ENTRIES,
    even_blocks,
    flops_of_sample,
    is_native,
    rows_of_stream,
    team,
)
from fnn_core.plan import Pass

#: In which order a step is done; `Network` says what each means.
SCHEDULES = ("auto", "blocks", "layers", "two_phase", "streaming")
#: Those whose backward pass sums over the whole batch as it goes.
WHOLE_BATCH = ("blocks", "layers")

# The cost model behind schedule="auto", in nanoseconds, some of whose choices are of an order of
# summation: other numbers here are other bits. A multiply or an addition in float32, by
# instruction set; an entry of a weight packed once more; one moved between the second-level cache
# and the next; one that another thread has written, and so lies in another core's cache; and a
# meeting of two threads, which takes longer by the logarithm of their number. Exchanged entries and
# the first were measured on Emerald Rapids, the others on Zen 3.
FLOP = {"avx512": 0.007, "avx2": 0.012, "generic": 0.05}
PACKED_ENTRY = 0.15
MOVED_ENTRY = 0.15
EXCHANGED_ENTRY = 1.4
MEETING = 1500.0
#: Numbers of threads for which streaming has to pay, for a gradient to be summed as it does.
TEAMS = (2, 4, 8, 16)
#: By so much, at least: elsewhere, sums of fewer samples cost some percent.
STREAMING_GAIN = 0.92
#: What the second-level cache holds beside what a task works on.
CACHED_BYTES = 512 * 1024


def choose_schedule(wanted: Pass, memory: str, *, may_stream: bool, may_split: bool) -> str:
    """The order of the work: the one asked for, or the quickest by the cost model.

    Parameters
    ----------
    memory : str
        The net's memory mode. Checkpoints go with "blocks" alone.
    may_stream : bool
        Whether the gradient may be summed over blocks of samples before it is applied.
    may_split : bool
        Whether samples go forward and backward independently: not with a loss of the user's, which
        sees a whole batch, nor with a user's map, whose calls are not cut.

    Raises
    ------
    ValueError
        Where the schedule asked for cannot be had.
    """
    asked = wanted.schedule
    if asked == "auto":
        if memory == "checkpoint":
            return "blocks"
        return quickest_schedule(wanted, may_stream=may_stream and may_split)
    if asked in ("two_phase", "streaming") and not may_split:
        raise ValueError(
            f"schedule = {asked!r}: expected 'blocks' or 'layers' with a loss or a map of your own"
        )
    if asked == "streaming" and not may_stream:
        raise ValueError("schedule = 'streaming': expected update = 'deferred' or 'auto'")
    return asked


def quickest_schedule(wanted: Pass, *, may_stream: bool) -> str:
    """The quickest schedule by the cost model, with the number of threads that is best for it."""
    if any(connection.layer.kind != "dense" for connection in wanted.connections):
        return "blocks"
    if may_stream and wanted.rows > BACKWARD_ROWS and _streaming_pays(wanted, (2,)):
        return "streaming"
    if not is_native(wanted):
        # BLAS's bits depend on the cut, so that the number of threads may not count.
        times = _nanoseconds(wanted, 2)
        return min(WHOLE_BATCH, key=lambda name: times[name])
    teams = _teams(wanted)
    best = {name: min(_nanoseconds(wanted, some)[name] for some in teams) for name in WHOLE_BATCH}
    if may_stream and wanted.sums_apart and len(teams) > 1:
        # One thread gains nothing: the others' order of summation costs it less than streaming.
        best["streaming"] = min(_nanoseconds(wanted, some)["streaming"] for some in teams[1:])
    return min(best, key=lambda name: best[name])


def quickest_team(wanted: Pass, schedule: str) -> int:
    """How many threads are quickest at a schedule: more of them meet and exchange more."""
    teams = _teams(wanted)
    if schedule == "two_phase" or not is_native(wanted):
        return teams[-1]
    return min(teams, key=lambda threads: _nanoseconds(wanted, threads)[schedule])


def sums_apart(wanted: Pass) -> bool:
    """Whether parts of the batch are each summed to a part of the gradient before these are added.

    So it is in a streaming step. It is another order of summation: whether it is taken does not
    depend on the threads there are, but on whether streaming is the quickest for some number of
    them, so that any number can take the schedule that is best for it, with the same result.
    """
    # More samples go backward in several blocks; fewer could leave parts of less than two sums.
    if not BLOCK_ROWS < wanted.rows <= BACKWARD_ROWS or not is_native(wanted):
        return False
    wanted = replace(wanted, sums_apart=True)
    parts = _blocks(wanted) * sum(connection.n_parameters for connection in wanted.connections)
    return parts <= PART_ENTRIES and _streaming_pays(wanted, TEAMS)


def _blocks(wanted: Pass) -> int:
    return -(-wanted.rows // rows_of_stream(wanted))


def _streaming_pays(wanted: Pass, numbers: Sequence[int]) -> bool:
    """Whether it is the quickest for some of these numbers of threads."""
    for threads in numbers:
        times = [_nanoseconds(wanted, some) for some in _teams(replace(wanted, threads=threads))]
        others = min(time[name] for time in times for name in WHOLE_BATCH)
        if min(time["streaming"] for time in times) < STREAMING_GAIN * others:
            return True
    return False


def _teams(wanted: Pass) -> list[int]:
    """Numbers of threads to choose from: powers of two, and all that may share the step out."""
    most = team(wanted, 3 * wanted.rows * flops_of_sample(wanted.connections))
    return sorted({1 << k for k in range(most.bit_length())} | {most})


def _nanoseconds(wanted: Pass, threads: int) -> dict[str, float]:
    """What a step of each schedule takes by the cost model."""
    connections, rows = wanted.connections, wanted.rows
    wanted = replace(wanted, threads=threads)
    flop = FLOP[_engine.build_facts()["isa"]] * wanted.dtype.itemsize / 4
    forward = flop * rows * flops_of_sample(connections)
    entries = rows * sum(connection.outputs for connection in connections)
    parameters = sum(connection.n_parameters for connection in connections)
    # Written and read again, forward and backward, unless all of it stays in the cache.
    moved = MOVED_ENTRY * entries if entries * wanted.dtype.itemsize > CACHED_BYTES else 0.0
    packed = PACKED_ENTRY * parameters
    meeting = MEETING * math.log2(threads)
    size, busiest = even_blocks(wanted)
    turns = -(-rows // (size * threads))
    # What a thread reads of what the others have written: all weights, once they are updated; and
    # backward, T of all samples, and its features of F, or its part of the sum of all parts of G.
    others = EXCHANGED_ENTRY * (threads - 1) / threads * wanted.dtype.itemsize / 4
    weights = others * parameters
    signals = others * entries * (1 + 1 / threads)
    blocks = _blocks(wanted)
    chunks = min(CHUNKS, blocks)
    streams = min(threads, chunks)
    share = -(-chunks // streams) / chunks
    return {
        "blocks": forward * (busiest / rows + 2 / threads)
        + (turns - 1 / threads) * packed
        + 2 * moved / threads
        + weights
        + signals
        + meeting * len(connections),
        "layers": 3 * forward / threads
        + 4 * moved / threads
        + weights
        + signals
        + 2 * meeting * len(connections),
        "streaming": 3 * forward * share
        + (blocks * share - 1 / streams) * packed
        + chunks * MOVED_ENTRY * parameters / streams
        + weights
        + others * chunks * parameters / streams
        + 2 * meeting,
    }
