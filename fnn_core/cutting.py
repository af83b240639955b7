"""How a pass's work is cut, in which order it is done, and which product does it.

All of this depends on the net, the batch and the instruction set alone, never on the number of
threads: that is why results do not. The one exception, how wide a forward task is, changes no bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fnn_core import _engine
from fnn_core.layers import Connection
from fnn_core.layers.bilinear import Caller
from fnn_core.plan import LayerPlan, Pass

GEMMS = ("auto", "blas", "native")
#: In which order a step is done; `Network` says what each means.
SCHEDULES = ("auto", "blocks", "layers", "two_phase", "streaming")

#: Samples that go through all layers together, one layer after the other.
BLOCK_ROWS = 64
#: Samples of a task where a layer is done for the whole batch before the next.
LAYER_ROWS = 512
#: Samples that go backward together: so many rows share a copy of a part of W_k.
BACKWARD_ROWS = 512
#: Input features of a backward task where BLAS computes it, which packs its operands anew for each.
BLAS_PANEL = 1024
#: A product of at least this many multiplies is left to BLAS, by instruction set; on those that are
#: not named, the engine's own product has not been slower. `pytest bench/test_products.py` measures
#: it.
BLAS_FROM_MULTIPLIES = {"generic": 500_000}
#: Multiplies and adds below which a team of threads costs more than it brings.
SERIAL_FLOPS = 2_000_000
#: Input features of a backward task, at most, and outputs of a forward one where threads share them
#: out: more of them spread the packing of the other operand over more rows, fewer leave more tasks.
FEATURES = 256
#: Outputs of a forward task, at most, where there are tasks enough for the threads.
OUTPUTS = 2048
#: Forward tasks for each thread, from which on they are not made narrower.
TASKS_OF_THREAD = 2
#: Those tasks are multiples of this many features: the columns of the native product's tiles.
TILE = 16
#: Multiplies from which a layer is shared out in an even number of tasks.
SHARED_PRODUCT = 250_000
#: Samples that go forward together through a net with convolutions: few, so that they stay in the
#: cache.
CONVOLUTION_BLOCK_ROWS = 16
#: Entries of the input that a layer which is no dense one takes backward at a time.
BACKWARD_ENTRIES = 32768
#: Chunks of samples, each with its part of G_k: the tasks that a convolution goes backward in, and
#: those of a streaming step.
CHUNKS = 8
#: Entries of all those parts of one layer.
PART_ENTRIES = 4_000_000

# The cost model behind schedule="auto", in nanoseconds, as measured on a Zen 3 core: a multiply or
# an addition, an entry of a weight packed once more, an entry moved between the second-level cache
# and the next, and a meeting of the threads.
FLOP = 0.01
PACKED_ENTRY = 0.15
MOVED_ENTRY = 0.15
MEETING = 1500.0
#: What the second-level cache holds beside what a task works on.
CACHED_BYTES = 512 * 1024


def flops_of_sample(connections: Sequence[Connection]) -> int:
    """Multiplies and adds of a forward pass over one sample."""
    return sum(connection.flops for connection in connections)


def choose_schedule(wanted: Pass, memory: str, *, may_stream: bool, may_split: bool) -> str:
    """The order of the work: the one asked for, or the cheapest by the cost model.

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
        return cheapest(wanted, may_stream=may_stream and may_split)
    if asked != "blocks" and memory == "checkpoint":
        raise ValueError(f"schedule = {asked!r}: expected 'blocks' with memory = 'checkpoint'")
    if asked in ("two_phase", "streaming") and not may_split:
        raise ValueError(
            f"schedule = {asked!r}: expected 'blocks' or 'layers' with a loss or a map of your own"
        )
    if asked == "streaming" and not may_stream:
        raise ValueError("schedule = 'streaming': expected update = 'deferred' or 'auto'")
    return asked


def cheapest(wanted: Pass, *, may_stream: bool) -> str:
    """What moves and waits least: each schedule's cost beyond the arithmetic, the same in all.

    It is reckoned for two threads, whatever their number is.
    """
    connections = wanted.connections
    if any(connection.layer.kind != "dense" for connection in connections):
        return "blocks"
    rows = wanted.rows
    blocks = -(-rows // BLOCK_ROWS)
    entries = rows * sum(connection.outputs for connection in connections)
    parameters = sum(connection.n_parameters for connection in connections)
    # Written and read again, forward and backward, unless all of it stays in the cache.
    moved = MOVED_ENTRY * entries if entries * wanted.dtype.itemsize > CACHED_BYTES else 0.0
    packed = PACKED_ENTRY * parameters
    meetings = MEETING * len(connections)
    chunks = min(CHUNKS, blocks)
    flops = rows * flops_of_sample(connections)
    # One of two threads goes forward with half of the blocks, while the other one may have fewer.
    idle = FLOP * flops * (-(-blocks // 2) / blocks - 0.5)
    costs = {
        "blocks": (blocks - 1) * packed + 2 * moved + meetings + idle,
        "layers": 4 * moved + 2 * meetings,
        "streaming": 2 * (blocks - 1) * packed
        + 2 * chunks * MOVED_ENTRY * parameters
        + 2 * MEETING,
    }
    # A net that one thread steps through alone has nothing to gain from parts of the gradient.
    if not may_stream or blocks == 1 or 3 * flops < SERIAL_FLOPS:
        del costs["streaming"]
    return min(costs, key=costs.__getitem__)


def plan_layers(wanted: Pass, modes: Sequence[str]) -> list[LayerPlan]:
    """How each layer's work is cut."""
    layers = []
    for connection, mode in zip(wanted.connections, modes, strict=True):
        layer = LayerPlan(
            kind=connection.layer.kind,
            activation_index=connection.layer.activation.index,
            inputs=connection.inputs,
            outputs=connection.outputs,
            offset=connection.offset,
            weight_count=connection.weight_count,
            bias_count=connection.bias_count,
            trainable=connection.layer.trainable and connection.n_parameters > 0,
            memory=mode,
            rate=connection.rate,
            geometry=connection.geometry,
        )
        if layer.kind == "bilinear":
            layer.user = Caller(connection, wanted.dtype)
        if layer.kind == "dense":
            _cut_into_panels(layer, wanted)
        else:
            _cut_into_chunks(layer, wanted)
        layers.append(layer)
    return layers


def _cut_into_panels(layer: LayerPlan, wanted: Pass) -> None:
    """A dense layer goes backward by panels of its input features, each over the whole batch."""
    layer.gemm = _product(layer, wanted)
    widest = BLAS_PANEL if layer.gemm == "blas" else FEATURES
    is_shared = layer.weight_count * wanted.rows >= SHARED_PRODUCT
    layer.panel = _part(layer.inputs, widest, is_shared)
    layer.panels = -(-layer.inputs // layer.panel)
    layer.part = _part(layer.outputs, _widest_part(layer, wanted), is_shared)
    layer.parts = -(-layer.outputs // layer.part)
    layer.backward_rows = min(wanted.rows, BACKWARD_ROWS)


def _widest_part(layer: LayerPlan, wanted: Pass) -> int:
    """The outputs of a forward task, at most.

    The engine's own product has the same bits however its columns are cut, so the number of threads
    may count here.
    """
    if layer.gemm == "blas":
        return BLAS_PANEL
    blocks = -(-wanted.rows // LAYER_ROWS)
    wanted_parts = -(-TASKS_OF_THREAD * max(1, wanted.threads) // blocks)
    return max(FEATURES, min(OUTPUTS, layer.outputs // wanted_parts))


def _product(layer: LayerPlan, wanted: Pass) -> str:
    """Which product a dense layer takes: the one asked for, or the one measured to be faster."""
    if wanted.gemm != "auto":
        return wanted.gemm
    fewest = BLAS_FROM_MULTIPLIES.get(_engine.build_facts()["isa"], math.inf)
    return "blas" if layer.weight_count * wanted.rows >= fewest else "native"


def _part(size: int, widest: int, is_shared: bool) -> int:
    """The width of a task that takes part of a layer's inputs or outputs: as even as can be."""
    parts = -(-size // widest)
    if is_shared and size >= 2 * TILE:
        parts += parts % 2
    return min(size, -(-size // (parts * TILE)) * TILE)


def _cut_into_chunks(layer: LayerPlan, wanted: Pass) -> None:
    """Any other layer goes backward by chunks of the batch, each with its part of G_k."""
    layer.panel = layer.inputs
    layer.backward_rows = min(wanted.rows, max(1, BACKWARD_ENTRIES // layer.inputs))
    if layer.kind == "bilinear":
        layer.backward_rows = wanted.rows  # one call of the user's function
        return
    parameters = layer.weight_count + layer.bias_count
    most = max(2, min(CHUNKS, PART_ENTRIES // parameters)) if parameters else CHUNKS
    layer.chunks = min(most, -(-wanted.rows // layer.backward_rows))


def block_rows(wanted: Pass, layers: Sequence[LayerPlan], schedule: str) -> int:
    """Samples of a forward task."""
    rows = wanted.rows
    if any(layer.geometry is not None for layer in layers):
        return min(rows, CONVOLUTION_BLOCK_ROWS)
    if schedule == "layers" or any(layer.gemm == "blas" for layer in layers):
        return min(rows, LAYER_ROWS)
    return min(rows, BLOCK_ROWS)
