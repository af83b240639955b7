"""How a pass is planned: the buffers that its work needs, as fnn_core/cutting.py cuts it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from fnn_core import _engine
from fnn_core.activations import REGISTRY as ACTIVATIONS
from fnn_core.costs import choose_schedule, quickest_schedule, quickest_team, sums_apart
from fnn_core.cutting import (
    CHUNKS,
    SERIAL_FLOPS,
    block_rows,
    flops_of_sample,
    loss_rows,
    plan_layers,
    rows_of_stream,
)
from fnn_core.layers import Connection
from fnn_core.plan import ALIGNMENT, LayerPlan, Pass, PassPlan, Workspace

MEMORY_MODES = ("recompute", "store", "reuse", "checkpoint", "auto")
UPDATES = ("immediate", "deferred", "auto")
#: Rows of a multiple of so many bytes fall into a few of the cache's sets: those that
#: src/kernels/gemm.inc copies.
COLLIDING_BYTES = 1024


def without_flatten(connections: Sequence[Connection]) -> Sequence[Connection]:
    """The layers that compute: Flatten only names the same numbers anew."""
    return [connection for connection in connections if connection.layer.kind != "flatten"] or [
        connections[0]
    ]


def layer_memory(connections: Sequence[Connection], mode: str) -> list[str]:
    """The memory mode of each layer (Remark 8 i), or a ValueError where `mode` cannot be had."""
    chosen = []
    for connection in connections:
        activation = connection.layer.activation
        if activation.name == "identity":
            chosen.append("reuse")  # σ' is one: there is nothing to store or to compute
        elif mode in ("auto", "checkpoint"):
            chosen.append("reuse" if activation.reusable else "recompute")
        elif mode == "reuse" and not activation.reusable:
            can = ", ".join(name for name, other in ACTIVATIONS.items() if other.reusable)
            raise ValueError(
                f"memory = 'reuse': layer {connection.index} ({connection.layer!r}) has the "
                f"activation {activation.name}, whose slope cannot be had from its value; it can "
                f"for {can}"
            )
        else:
            chosen.append(mode)
    return chosen


def scratch_entries(wanted: Pass) -> int:
    """What a map needs while it works: packed operands of products, strips of images."""
    real_bytes = wanted.dtype.itemsize
    entries = [0]
    for connection in wanted.connections:
        if connection.layer.kind == "dense":
            sizes = (wanted.rows, connection.inputs, connection.outputs)
            entries.append(_engine.product_scratch(*sizes, real_bytes))
        elif connection.geometry is not None and connection.n_parameters:
            entries.append(_engine.convolution_scratch(connection.geometry, real_bytes))
    unit = ALIGNMENT // real_bytes
    return -(-max(entries) // unit) * unit  # so that each thread's is aligned


def keep_apart(layers: list[LayerPlan], wanted: Pass) -> None:
    """A line of the cache between samples of dense layers whose rows would share few of its sets.

    Products need not copy them then, above all that with the weights' transpose, which would copy
    delta for each of its panels.
    """
    line = ALIGNMENT // wanted.dtype.itemsize
    for layer, above in pairwise(layers):
        bytes_of_row = layer.outputs * wanted.dtype.itemsize
        collide = bytes_of_row > COLLIDING_BYTES and bytes_of_row % COLLIDING_BYTES == 0
        if layer.kind == above.kind == "dense" and collide:
            layer.row = layer.outputs + line


def finish(
    wanted: Pass,
    layers: list[LayerPlan],
    workspace: Workspace,
    threads: int,
    rows_of_block: int,
    *,
    flops: int,
    schedule: str = "blocks",
    copies: int = 1,
) -> PassPlan:
    """The plan of a pass whose buffers are known; fields of training passes are left empty."""
    connections = wanted.connections
    trained = [layer.trainable for layer in layers]
    widest = max(layer.row for layer in layers)
    return PassPlan(
        dtype=wanted.dtype,
        rows=wanted.rows,
        layers=layers,
        inputs=connections[0].inputs,
        outputs=connections[-1].outputs,
        input_shape=wanted.input_shape,
        output_shape=wanted.output_shape,
        any_target=wanted.any_target,
        n_parameters=sum(connection.n_parameters for connection in connections),
        loss_index=wanted.loss_index,
        labels=wanted.labels,
        lowest=trained.index(True) if True in trained else len(layers),
        resume=max((k + 1 for k, layer in enumerate(layers) if layer.restart >= 0), default=0),
        block_rows=rows_of_block,
        loss_rows=loss_rows(wanted),
        sum_rows=rows_of_stream(wanted) if wanted.sums_apart else 0,
        threads=threads,
        flops=flops,
        schedule=schedule,
        immediate=False,
        streams=0,
        panel_entries=0,
        gradient_entries=0,
        offsets=workspace.offsets,
        buffers=workspace.all_buffers(),
        scratch_bytes=scratch_entries(wanted) * wanted.dtype.itemsize,
        keeps_factors=False,
        serial_flops=SERIAL_FLOPS,
        sample_gradient_bytes=max(layer.n_parameters for layer in layers) * wanted.dtype.itemsize,
        output_block_bytes=rows_of_block * widest * wanted.dtype.itemsize,
        bytes_of_one_workspace=workspace.bytes,
        workspace_bytes=copies * workspace.bytes,
    )


def plan_training(
    wanted: Pass, memory: str, gradient: str, *, keeps_factors: bool = False
) -> PassPlan:
    """A pass that trains or differentiates.

    `gradient`: "panels" (immediate update), "whole" (deferred), "either" (as the schedule likes
    it), or "elsewhere" (the caller's). With `keeps_factors`, delta gets a place of its own beside
    each layer's output (Remark 8 ii).
    """
    connections, rows = wanted.connections, wanted.rows
    modes = layer_memory(connections, memory)
    is_step = gradient != "elsewhere" and not keeps_factors
    hands_out_factors = keeps_factors
    if not is_step and (wanted.schedule not in ("blocks", "layers") or memory == "checkpoint"):
        wanted = replace(wanted, schedule="auto")
    kinds = [connection.layer.kind for connection in connections]
    may_split = wanted.loss_index is not None and "bilinear" not in kinds
    if is_step and may_split and wanted.schedule == "auto":
        wanted = replace(wanted, sums_apart=sums_apart(wanted))
    schedule = choose_schedule(
        wanted,
        "auto" if keeps_factors else memory,
        may_stream=is_step and gradient != "panels",
        may_split=may_split,
    )
    flops = 3 * rows * flops_of_sample(connections)
    if schedule == "streaming":
        return _plan_streaming(wanted, modes, flops)
    if gradient == "either":
        gradient = "panels"
    keeps_factors = keeps_factors or schedule == "two_phase"
    wanted = replace(wanted, threads=quickest_team(wanted, schedule))
    # Norms from factors are summed panel by panel: the number of threads may not count for these.
    cut = replace(wanted, threads=2) if keeps_factors else wanted
    layers = plan_layers(cut, ["store"] * len(modes) if keeps_factors else modes)
    if not hands_out_factors:
        keep_apart(layers, wanted)
    alike = quickest_schedule(wanted, may_stream=False) if memory == "checkpoint" else schedule
    rows_of_block = block_rows(cut, layers, alike)
    tasks = max(-(-rows // rows_of_block), *(layer.tasks for layer in layers))
    if schedule == "layers":
        tasks = max(tasks, *(layer.forward_tasks(rows) for layer in layers))
    threads = max(1, min(wanted.threads, tasks))

    workspace = Workspace()
    if gradient != "elsewhere":
        _add_batch(workspace, wanted)
    if memory == "checkpoint" and not keeps_factors:
        _add_checkpoints(workspace, wanted, layers)
    else:
        _add_activations(workspace, wanted, layers, range(len(layers)))
    _add_prediction(workspace, wanted)
    sums = -(-rows // loss_rows(wanted))
    workspace.add("block_losses", "losses of blocks", "", (sums,), np.dtype(np.float64))
    if gradient == "whole":
        total = sum(connection.n_parameters for connection in connections)
        workspace.add("gradient", "gradient", "G, g", (total,), wanted.dtype)
    if gradient == "whole" or (gradient == "panels" and keeps_factors):
        length = _engine.run_length()
        runs = sum(max(layer.panels, -(-layer.n_parameters // length)) for layer in layers)
        workspace.add("norms", "squares of runs of G", "", (runs,), np.dtype(np.float64))
    if keeps_factors:
        shape = (threads, max(layer.n_parameters for layer in layers))
        workspace.add("sample_norms", "norms of samples", "", (rows,), np.dtype(np.float64))
        if any(layer.n_parameters and layer.kind != "dense" for layer in layers):
            workspace.add("sample_gradients", "a sample's gradient", "G", shape, wanted.dtype)
    _add_scratch(
        workspace, wanted, layers, rows_of_block, threads, gradient, keeps_factors=keeps_factors
    )
    planned = finish(
        wanted, layers, workspace, threads, rows_of_block, flops=flops, schedule=schedule
    )
    planned = replace(planned, keeps_factors=keeps_factors, immediate=gradient == "panels")
    if not keeps_factors:
        return planned
    return replace(
        planned,
        panel_entries=max(
            (layer.panel * layer.backward_rows for layer in _sent_back(layers, gradient)), default=0
        ),
        gradient_entries=max(
            (layer.task_parameters for layer in layers if layer.trainable and layer.chunks == 1),
            default=0,
        ),
    )


def _plan_streaming(wanted: Pass, modes: Sequence[str], flops: int) -> PassPlan:
    """A step whose activations take a block a thread, however large the batch.

    Blocks of samples go forward and backward one after another, and chunks of blocks have each
    their part of the gradient.
    """
    alone = replace(wanted, threads=1)  # as each block is taken, however many are in hand
    rows_of_block = rows_of_stream(alone)
    blocks = -(-wanted.rows // rows_of_block)
    chunks = min(CHUNKS, blocks)
    threads = min(quickest_team(wanted, "streaming"), chunks)
    block = replace(alone, rows=rows_of_block)
    layers = plan_layers(block, modes)
    keep_apart(layers, block)
    for layer in layers:
        layer.chunks, layer.backward_rows = 1, rows_of_block
    of_thread = Workspace()
    _add_batch(of_thread, block)
    _add_activations(of_thread, block, layers, range(len(layers)))
    _add_prediction(of_thread, block)
    _add_scratch(of_thread, block, layers, rows_of_block, 1, "whole")
    workspace = of_thread.repeated(threads)
    total = sum(connection.n_parameters for connection in wanted.connections)
    shape = (parts_at_once(chunks, threads), total)
    workspace.add("gradient", "parts of the gradient", "G, g", shape, wanted.dtype)
    sums = (chunks, -(-rows_of_block // loss_rows(wanted)))
    workspace.add("block_losses", "losses of chunks", "", sums, np.dtype(np.float64))
    runs = sum(-(-layer.n_parameters // _engine.run_length()) for layer in layers)
    workspace.add("norms", "squares of runs of G", "", (runs,), np.dtype(np.float64))
    planned = finish(
        wanted, layers, workspace, threads, rows_of_block, flops=flops, schedule="streaming"
    )
    return replace(
        planned,
        streams=chunks,
        sum_rows=rows_of_block,
        bytes_of_one_workspace=of_thread.bytes,
    )


def _add_batch(workspace: Workspace, wanted: Pass) -> None:
    """Room for the samples of a batch, gathered in the order in which they come."""
    rows, outputs = wanted.rows, wanted.connections[-1].outputs
    target_shape = (rows,) if wanted.labels else (rows, outputs)
    target_dtype = np.dtype(np.int64) if wanted.labels else wanted.dtype
    shape = (rows, *wanted.input_shape)
    workspace.add("batch_input", "gathered inputs", "x", shape, wanted.dtype)
    workspace.add("batch_targets", "gathered targets", "y", target_shape, target_dtype)
    workspace.add("batch_weights", "gathered weights", "s", (rows,), wanted.dtype)


def _add_prediction(workspace: Workspace, wanted: Pass) -> None:
    """F_n, then L, apart from what is kept of a_n."""
    last = wanted.connections[-1]
    if last.layer.activation.name != "identity":
        shape = (wanted.rows, *wanted.output_shape)
        workspace.add("prediction", "outputs", f"F_{last.index + 1}", shape, wanted.dtype)
        workspace.share("loss slope", "L", "outputs")


def _add_checkpoints(workspace: Workspace, wanted: Pass, layers: list[LayerPlan]) -> None:
    """Every √n-th layer is kept; those between take turns in the same buffers, forward again."""
    length = max(1, round(math.sqrt(len(layers))))
    last = len(layers) - 1
    kept = [k for k in range(len(layers)) if (k + 1) % length == 0 or k == last]
    _add_activations(workspace, wanted, layers, kept)
    start = 0
    for checkpoint in kept:
        for place, k in enumerate(range(start, checkpoint)):
            outputs = max(layers[j].row for j in range(place, last, length) if j not in kept)
            key = f"turn {place}"
            if key not in workspace.offsets:
                shape = (wanted.rows, outputs)
                name = f"outputs between checkpoints {place + 1}"
                workspace.add(key, name, "F or a", shape, wanted.dtype)
            layers[k].kept = layers[k].signal = workspace.offsets[key]
        if checkpoint < last:
            layers[checkpoint].restart = start
        start = checkpoint + 1


def _add_activations(
    workspace: Workspace, wanted: Pass, layers: list[LayerPlan], chosen: Iterable[int]
) -> None:
    """What the forward pass keeps (Remark 8 i); delta takes its place on the way back."""
    for layer, connection in [(layers[k], wanted.connections[k]) for k in chosen]:
        k = connection.index + 1
        apart = layer.row > layer.outputs
        shape = (wanted.rows, *((layer.row,) if apart else connection.output_shape))
        kept, symbol = (
            (f"pre-activation {k}", f"a_{k}")
            if layer.memory == "recompute"
            else (f"output {k}", f"F_{k}")
        )
        layer.kept = layer.signal = workspace.add(f"kept {k}", kept, symbol, shape, wanted.dtype)
        if layer.memory == "store":
            kept = f"slope {k}"
            layer.signal = workspace.add(f"slope {k}", kept, f"σ'(a_{k})", shape, wanted.dtype)
        workspace.share(f"delta {k}", f"∂ℓ/∂a_{k}", kept)


def _add_scratch(
    workspace: Workspace,
    wanted: Pass,
    layers: list[LayerPlan],
    rows_of_block: int,
    threads: int,
    gradient: str,
    *,
    keeps_factors: bool = False,
) -> None:
    """What a thread or a task needs for itself; none of it grows with the batch beyond a block."""
    dtype = wanted.dtype
    workspace.add(
        "scratch", "packed operands, strips", "", (threads, scratch_entries(wanted)), dtype
    )
    recomputed = [layer.memory == "recompute" for layer in layers]
    if any(recomputed):
        widest = max(layer.row for layer in layers)
        shape = (threads, rows_of_block, widest)
        workspace.add("output_blocks", "blocks of outputs", "σ(a)", shape, dtype)

    # A layer of few tasks keeps few threads busy, and needs scratch for those alone; unless the
    # threads are at different layers, as they may be where the factors are kept.
    def entries_of_tasks(layer: LayerPlan) -> int:
        busy = threads if keeps_factors else min(threads, layer.tasks)
        return busy * layer.panel * layer.backward_rows

    below = [k for k in range(1, len(layers)) if recomputed[k - 1]]
    if below:
        entries = max(entries_of_tasks(layers[k]) for k in below)
        workspace.add("input_panels", "panels of inputs", "σ(a)", (entries,), dtype)
    sent_back = _sent_back(layers, gradient)
    if sent_back:
        entries = max(entries_of_tasks(layer) for layer in sent_back)
        workspace.add("delta_panels", "panels of delta", "u", (entries,), dtype)
    trained = [layer for layer in layers if layer.trainable]
    parts = [
        parts_at_once(layer.chunks, threads) * layer.n_parameters
        for layer in trained
        if layer.chunks > 1
    ]
    if parts:
        workspace.add("gradient_parts", "parts of the gradient", "G, g", (max(parts),), dtype)
    panels = [
        (threads if keeps_factors else min(threads, layer.panels)) * layer.task_parameters
        for layer in trained
        if layer.chunks == 1
    ]
    if gradient == "panels" and panels:
        workspace.add("gradient_panels", "panels of the gradient", "G, g", (max(panels),), dtype)


def parts_at_once(chunks: int, threads: int) -> int:
    """Parts of a gradient that wait to be added up: one thread adds each as soon as it is known."""
    return chunks if threads > 1 else min(chunks, 2)


def _sent_back(layers: list[LayerPlan], gradient: str) -> list[LayerPlan]:
    """The layers from which delta goes on to what lies below: the inputs' is for the caller."""
    return layers if gradient == "elsewhere" else layers[1:]
