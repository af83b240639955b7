"""How a pass's work is cut, and which product does it.

What is summed in which order depends on the net, the batch and the instruction set alone, never on
the number of threads: that is why results do not. What may depend on it are cuts that change no
bits: between samples on their way forward, and between a dense layer's inputs or outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from fnn_core import _engine
from fnn_core.layers import Connection
from fnn_core.layers.bilinear import Caller
from fnn_core.plan import LayerPlan, Pass

GEMMS = ("auto", "blas", "native")

#: Samples that go through all layers together, one layer after the other.
BLOCK_ROWS = 64
#: Likewise, at most, where that gives every thread as many.
MOST_BLOCK_ROWS = 112
#: Sums of losses of a batch that threads share out: blocks of samples are cut between them.
LOSS_SUMS = 16
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
#: Multiplies and adds of a step for each thread of its team, at least.
THREAD_FLOPS = 1_000_000
#: Likewise, for each layer, after which the threads meet.
MEETING_FLOPS = 100_000
#: Input features of a backward task, at most, and outputs of a forward one where threads share them
#: out: more of them spread the packing of the other operand over more rows, fewer leave more tasks.
FEATURES = 256
#: Outputs of a forward task, at most, where there are tasks enough for the threads: what a batch
#: has of them stays in the second-level cache between the runs of the reduction.
OUTPUTS = 512
#: Forward tasks for each thread, from which on they are not made narrower than FEATURES.
TASKS_OF_THREAD = 2
#: Samples over which a copy of a part of W_k is spread, where threads share out both samples and
#: outputs.
SHARED_ROWS = 256
#: Tasks are multiples of so many features, and what threads share out of so many samples: columns
#: and rows of the native product's tiles.
TILE = 16
TILE_ROWS = 8
#: Multiplies of a task that shares a layer with others, at least.
SHARED_PRODUCT = 64_000
#: Samples that go forward together through a net with convolutions: few, so that they stay in the
#: cache.
CONVOLUTION_BLOCK_ROWS = 16
#: Samples that a forward pass alone is planned for: enough that its blocks are whole.
FORWARD_ROWS = 256
#: Bytes of one layer's values, at most, unless a single sample has more: they should stay in a
#: cache.
FORWARD_BYTES = 8 << 20
#: Samples of a block of `gradients`, over which it is accumulated.
GRADIENT_ROWS = 1024
#: Bytes of all layers' outputs, at most, unless a single sample has more.
GRADIENT_BYTES = 256 << 20
#: Entries of the input that a layer which is no dense one takes backward at a time.
BACKWARD_ENTRIES = 32768
#: Chunks of samples, each with its part of G_k: the tasks that a convolution goes backward in, and
#: those of a streaming step.
CHUNKS = 16
#: Multiplies and adds forward of a convolution's chunk, about.
CHUNK_FLOPS = 1_500_000
#: Entries of all those parts of one layer.
PART_ENTRIES = 4_000_000


def forward_rows(connections: Sequence[Connection], itemsize: int) -> int:
    """Samples that a forward pass alone is planned for."""
    widest = max(max(connection.inputs, connection.outputs) for connection in connections)
    return max(1, min(FORWARD_ROWS, FORWARD_BYTES // (widest * itemsize)))


def gradient_rows(connections: Sequence[Connection], itemsize: int) -> int:
    """Samples over which a gradient is accumulated."""
    kept = sum(connection.outputs for connection in connections)
    return max(1, min(GRADIENT_ROWS, GRADIENT_BYTES // (kept * itemsize)))


def flops_of_sample(connections: Sequence[Connection]) -> int:
    """Multiplies and adds of a forward pass over one sample."""
    return sum(connection.flops for connection in connections)


def team(wanted: Pass, flops: int) -> int:
    """How many threads share out a step of so many multiplies and adds, at most."""
    if flops < SERIAL_FLOPS:
        return 1
    least = max(THREAD_FLOPS, MEETING_FLOPS * len(wanted.connections))
    return max(1, min(wanted.threads, flops // least))


def rows_of_stream(wanted: Pass) -> int:
    """Samples of a block of a streaming step, whatever the number of threads."""
    if not wanted.sums_apart:
        alone = replace(wanted, threads=1)
        return _layer_rows(alone) if _uses_blas(alone) else even_blocks(alone)[0]
    unit = loss_rows(wanted)
    # Few parts, since each costs a little, but as many as two threads or more can share evenly.
    parts = 2
    while parts * MOST_BLOCK_ROWS < wanted.rows:
        parts *= 2
    return -(-wanted.rows // (parts * unit)) * unit


def _uses_blas(wanted: Pass) -> bool:
    return any(
        connection.layer.kind == "dense" and _product(connection, wanted) == "blas"
        for connection in wanted.connections
    )


def is_native(wanted: Pass) -> bool:
    """Whether all layers are dense, with the engine's own product, whose bits no cut changes."""
    kinds = {connection.layer.kind for connection in wanted.connections}
    return kinds == {"dense"} and not _uses_blas(wanted)


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
            row=connection.outputs,
            geometry=connection.geometry,
        )
        if layer.kind == "bilinear":
            layer.user = Caller(connection, wanted.dtype)
        if layer.kind == "dense":
            _cut_into_panels(layer, wanted)
        else:
            _cut_into_chunks(layer, connection, wanted)
            layer.part_rows = _layer_rows(wanted)
        layers.append(layer)
    return layers


def _cut_into_panels(layer: LayerPlan, wanted: Pass) -> None:
    """A dense layer goes backward by panels of its input features, each over the whole batch."""
    layer.gemm = _product(layer, wanted)
    if layer.gemm == "blas":
        # Its bits depend on the cut, so that the number of threads may not count.
        sharers = _sharers(layer, replace(wanted, threads=2))
        layer.panel = _part(layer.inputs, BLAS_PANEL, sharers)
        layer.part = _part(layer.outputs, BLAS_PANEL, sharers)
    else:
        sharers = _sharers(layer, wanted)
        layer.panel = _part(layer.inputs, FEATURES, sharers)
        # Rather fewer samples than fewer outputs, as long as they are worth copying the weight for.
        narrow = -(-sharers * FEATURES // layer.outputs)
        splits = max(1, min(wanted.rows // SHARED_ROWS, narrow))
        layer.part = _part(layer.outputs, _widest_part(layer, wanted), -(-sharers // splits))
    layer.panels = -(-layer.inputs // layer.panel)
    layer.parts = -(-layer.outputs // layer.part)
    layer.part_rows = _rows_of_part(layer, wanted, sharers)
    layer.backward_rows = min(wanted.rows, BACKWARD_ROWS)


def _sharers(layer: LayerPlan, wanted: Pass) -> int:
    """The threads that share out a dense layer, each with enough to do."""
    multiplies = layer.weight_count * wanted.rows
    return max(1, min(wanted.threads, multiplies // SHARED_PRODUCT))


def _widest_part(layer: LayerPlan, wanted: Pass) -> int:
    """The outputs of a forward task, at most."""
    blocks = -(-wanted.rows // LAYER_ROWS)
    wanted_parts = -(-TASKS_OF_THREAD * wanted.threads // blocks)
    return max(FEATURES, min(OUTPUTS, layer.outputs // wanted_parts))


def _rows_of_part(layer: LayerPlan, wanted: Pass, sharers: int) -> int:
    """The samples of a forward task: fewer where a layer has not outputs enough for its threads."""
    rows = _layer_rows(wanted)
    blocks = -(-wanted.rows // rows) * layer.parts
    if layer.gemm == "blas" or blocks >= sharers:
        return rows
    of_thread = -(-wanted.rows * layer.parts // sharers)
    return min(rows, -(-of_thread // TILE_ROWS) * TILE_ROWS)


def _product(layer: LayerPlan | Connection, wanted: Pass) -> str:
    """Which product a dense layer takes: the one asked for, or the one measured to be faster."""
    if wanted.gemm != "auto":
        return wanted.gemm
    fewest = BLAS_FROM_MULTIPLIES.get(_engine.build_facts()["isa"], math.inf)
    return "blas" if layer.weight_count * wanted.rows >= fewest else "native"


def _part(size: int, widest: int, sharers: int) -> int:
    """The width of a task that takes part of a layer's inputs or outputs.

    As even as can be, and as many for each of the threads that share them.
    """
    parts = -(-size // widest)
    parts += -parts % sharers
    return min(size, -(-size // (parts * TILE)) * TILE)


def _cut_into_chunks(layer: LayerPlan, connection: Connection, wanted: Pass) -> None:
    """Any other layer goes backward by chunks of the batch, each with its part of G_k."""
    layer.panel = layer.inputs
    if layer.kind == "bilinear":
        layer.backward_rows = wanted.rows  # one call of the user's function
        return
    if layer.n_parameters:
        # The order of summation: the number of threads may not count. A power of two is even for
        # most of them.
        by_work = 2 * (wanted.rows * connection.flops // CHUNK_FLOPS) - 1
        most = max(2, min(CHUNKS, by_work, PART_ENTRIES // layer.n_parameters))
        layer.chunks = min(wanted.rows, 1 << (most.bit_length() - 1))
    else:
        layer.chunks = min(wanted.rows, wanted.threads)
    of_chunk = -(-wanted.rows // layer.chunks)
    layer.backward_rows = min(of_chunk, max(1, BACKWARD_ENTRIES // layer.inputs))


def loss_rows(wanted: Pass) -> int:
    """Samples whose losses are summed together: at most a block, and enough sums for a team."""
    most = BLOCK_ROWS if _is_dense(wanted) else CONVOLUTION_BLOCK_ROWS
    flops = 3 * wanted.rows * flops_of_sample(wanted.connections)
    sums = team(replace(wanted, threads=LOSS_SUMS), flops)
    sums = 1 << (sums.bit_length() - 1)  # most batches are multiples of such
    rows = min(most, -(-wanted.rows // sums))
    # Two of them at least in a part whose gradient is summed apart: a product of less than five
    # samples (TRANSPOSE_FROM_ROWS of src/kernels/gemm.inc) sums in another order.
    return rows // 2 if wanted.sums_apart and 2 * rows > BLOCK_ROWS else rows


def block_rows(wanted: Pass, layers: Sequence[LayerPlan], schedule: str) -> int:
    """Samples of a forward task: those of one or more sums of losses."""
    if schedule == "layers" or any(layer.gemm == "blas" for layer in layers):
        return _layer_rows(wanted)
    return even_blocks(wanted)[0]


def _layer_rows(wanted: Pass) -> int:
    """Samples of a forward task, at most, where a layer is done for the whole batch."""
    if not _is_dense(wanted):
        return even_blocks(wanted)[0]
    unit = loss_rows(wanted)
    return min(wanted.rows, LAYER_ROWS // unit * unit)


def _is_dense(wanted: Pass) -> bool:
    return all(connection.geometry is None for connection in wanted.connections)


def even_blocks(wanted: Pass) -> tuple[int, int]:
    """Samples that a thread takes forward at once, and those that the busiest thread has in all."""
    rows, threads, unit = wanted.rows, wanted.threads, loss_rows(wanted)
    usual, most, least = BLOCK_ROWS, MOST_BLOCK_ROWS, TILE_ROWS
    if not _is_dense(wanted):
        usual, most, least = CONVOLUTION_BLOCK_ROWS, CONVOLUTION_BLOCK_ROWS, 1
    if threads == 1:
        return min(rows, usual // unit * unit), rows
    choices = [(_busiest(rows, usual // unit * unit, threads), 0, min(rows, usual // unit * unit))]
    fewest = -(-rows // (threads * most))
    for rounds in range(fewest, fewest + 3):
        size = max(least, -(-rows // (threads * rounds)))
        size = min(rows, -(-size // unit) * unit)
        if size <= most:
            choices.append((_busiest(rows, size, threads), rounds, size))
    busiest, _, size = min(choices)
    return size, busiest


def _busiest(rows: int, size: int, threads: int) -> int:
    """The samples of the thread that has most, where they share out blocks of that size."""
    blocks = -(-rows // size)
    last = rows - (blocks - 1) * size
    turns, more = divmod(blocks, threads)
    return turns * size + (last if more == 1 else size if more else 0)
