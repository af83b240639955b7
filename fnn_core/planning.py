"""How a pass is planned: how its work is cut, and which buffers it needs.

How work is cut (blocks and chunks of samples, panels of features, which product) depends on the net
and the batch alone, never on the number of threads: that is why results do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from fnn_core import _engine
from fnn_core.activations import REGISTRY as ACTIVATIONS
from fnn_core.layers import Connection
from fnn_core.layers.bilinear import Caller
from fnn_core.plan import LayerPlan, Pass, PassPlan, Workspace

MEMORY_MODES = ("recompute", "store", "reuse", "checkpoint", "auto")
UPDATES = ("immediate", "deferred", "auto")

#: Samples that go through all layers together. More of them spread the packing of a weight over
#: more rows; fewer leave more blocks to share out.
BLOCK_ROWS = 64
BLAS_BLOCK_ROWS = 256
#: Samples that go backward together: the reduction that one tile of G_k is held in registers for.
BACKWARD_ROWS = 256
#: Input features of a backward task where BLAS computes it, which packs its operands anew for each.
BLAS_PANEL = 1024
BLAS_BACKWARD_ROWS = 512
#: A weight of at least this many entries is multiplied by BLAS (bench/test_products.py measures
#: where it overtakes the engine's own product).
BLAS_FROM_WEIGHTS = 512 * 512
BLAS_FROM_ROWS = 64
#: Multiplies and adds below which a team of threads costs more than it brings.
SERIAL_FLOPS = 2_000_000
#: Samples of a block of `gradients`, over which it is accumulated.
GRADIENT_ROWS = 1024
#: Samples that go forward together through a net with convolutions: few, so that they stay in the
#: cache.
CONVOLUTION_BLOCK_ROWS = 16
#: Entries of the input that a layer which is no dense one takes backward at a time.
BACKWARD_ENTRIES = 32768
#: Chunks of samples, each with its part of G_k: the tasks that a convolution goes backward in.
CHUNKS = 8
#: Entries of all those parts of one layer.
PART_ENTRIES = 4_000_000


def without_flatten(connections: Sequence[Connection]) -> Sequence[Connection]:
    """The layers that compute: Flatten only names the same numbers anew."""
    return [connection for connection in connections if connection.layer.kind != "flatten"] or [
        connections[0]
    ]


def flops_of_sample(connections: Sequence[Connection]) -> int:
    """Multiplies and adds of a forward pass over one sample."""
    return sum(connection.flops for connection in connections)


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
    if layer.weight_count >= BLAS_FROM_WEIGHTS and wanted.rows >= BLAS_FROM_ROWS:
        layer.gemm = "blas"
    widest = BLAS_PANEL if layer.gemm == "blas" else _sizes(wanted)["feature_panel"]
    layer.panel = min(layer.inputs, widest)
    layer.panels = -(-layer.inputs // layer.panel)
    rows = BLAS_BACKWARD_ROWS if layer.gemm == "blas" else BACKWARD_ROWS
    layer.backward_rows = min(wanted.rows, rows)


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


def _sizes(wanted: Pass) -> _engine.Sizes:
    return _engine.sizes(wanted.dtype.itemsize)


def _scratch_entries(wanted: Pass) -> int:
    """What a map needs while it works: a packed panel, and what convolutions ask for."""
    real_bytes = wanted.dtype.itemsize
    beyond = [
        _engine.convolution_scratch(connection.geometry, real_bytes)
        for connection in wanted.connections
        if connection.geometry is not None and connection.n_parameters
    ]
    return _sizes(wanted)["product_panel_bytes"] // real_bytes + max(beyond, default=0)


def _finish(
    wanted: Pass,
    layers: list[LayerPlan],
    workspace: Workspace,
    threads: int,
    block_rows: int,
    *,
    flops: int,
    copies: int = 1,
) -> PassPlan:
    connections = wanted.connections
    trained = [layer.trainable for layer in layers]
    widest = max(connection.outputs for connection in connections)
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
        block_rows=block_rows,
        threads=threads,
        flops=flops,
        offsets=workspace.offsets,
        buffers=workspace.all_buffers(),
        scratch_bytes=_scratch_entries(wanted) * wanted.dtype.itemsize,
        keeps_factors=False,
        serial_flops=SERIAL_FLOPS,
        sample_gradient_bytes=max(layer.n_parameters for layer in layers) * wanted.dtype.itemsize,
        output_block_bytes=block_rows * widest * wanted.dtype.itemsize,
        bytes_of_one_workspace=workspace.bytes,
        workspace_bytes=copies * workspace.bytes,
    )


def _block_rows(layers: list[LayerPlan], rows: int) -> int:
    if any(layer.geometry is not None for layer in layers):
        return min(rows, CONVOLUTION_BLOCK_ROWS)
    blas = any(layer.gemm == "blas" for layer in layers)
    return min(rows, BLAS_BLOCK_ROWS if blas else BLOCK_ROWS)


def plan_training(
    wanted: Pass, memory: str, gradient: str, *, keeps_factors: bool = False
) -> PassPlan:
    """A pass that trains or differentiates.

    `gradient`: "panels" (immediate update), "whole" (deferred), or "elsewhere" (the caller's). With
    `keeps_factors`, delta gets a place of its own beside each layer's output (Remark 8 ii).
    """
    connections, dtype, rows = wanted.connections, wanted.dtype, wanted.rows
    modes = layer_memory(connections, memory)
    layers = plan_layers(wanted, ["store"] * len(modes) if keeps_factors else modes)
    block_rows = _block_rows(layers, rows)
    flops = 3 * rows * flops_of_sample(connections)
    tasks = max(-(-rows // block_rows), *(layer.tasks for layer in layers))
    threads = 1 if flops < SERIAL_FLOPS else max(1, min(wanted.threads, tasks))

    workspace = Workspace()
    if gradient != "elsewhere":
        target_shape = (rows,) if wanted.labels else (rows, connections[-1].outputs)
        target_dtype = np.dtype(np.int64) if wanted.labels else dtype
        shape = (rows, *wanted.input_shape)
        workspace.add("batch_input", "gathered inputs", "x", shape, dtype)
        workspace.add("batch_targets", "gathered targets", "y", target_shape, target_dtype)
        workspace.add("batch_weights", "gathered weights", "s", (rows,), dtype)
    if memory == "checkpoint" and not keeps_factors:
        _add_checkpoints(workspace, wanted, layers)
    else:
        _add_activations(workspace, wanted, layers, range(len(layers)))
    if connections[-1].layer.activation.name != "identity":
        shape = (rows, *wanted.output_shape)
        workspace.add("prediction", "outputs", f"F_{connections[-1].index + 1}", shape, dtype)
        workspace.share("loss slope", "L", "outputs")
    blocks = -(-rows // block_rows)
    workspace.add("block_losses", "losses of blocks", "", (blocks,), np.dtype(np.float64))
    if gradient == "whole":
        total = sum(connection.n_parameters for connection in connections)
        workspace.add("gradient", "gradient", "G, g", (total,), dtype)
    if gradient == "whole" or (gradient == "panels" and keeps_factors):
        length = _sizes(wanted)["run_length"]
        runs = sum(max(layer.panels, -(-layer.n_parameters // length)) for layer in layers)
        workspace.add("norms", "squares of runs of G", "", (runs,), np.dtype(np.float64))
    if keeps_factors:
        shape = (threads, max(layer.n_parameters for layer in layers))
        workspace.add("sample_norms", "norms of samples", "", (rows,), np.dtype(np.float64))
        if any(layer.n_parameters and layer.kind != "dense" for layer in layers):
            workspace.add("sample_gradients", "a sample's gradient", "G", shape, dtype)
    _add_scratch(workspace, wanted, layers, block_rows, threads, gradient)
    planned = _finish(wanted, layers, workspace, threads, block_rows, flops=flops)
    return replace(planned, keeps_factors=keeps_factors)


def _add_checkpoints(workspace: Workspace, wanted: Pass, layers: list[LayerPlan]) -> None:
    """Every √n-th layer is kept; those between take turns in the same buffers, forward again."""
    length = max(1, round(math.sqrt(len(layers))))
    last = len(layers) - 1
    kept = [k for k in range(len(layers)) if (k + 1) % length == 0 or k == last]
    _add_activations(workspace, wanted, layers, kept)
    start = 0
    for checkpoint in kept:
        for place, k in enumerate(range(start, checkpoint)):
            outputs = max(layers[j].outputs for j in range(place, last, length) if j not in kept)
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
        shape = (wanted.rows, *connection.output_shape)
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
    block_rows: int,
    threads: int,
    gradient: str,
) -> None:
    """What a thread or a task needs for itself; none of it grows with the batch beyond a block."""
    dtype = wanted.dtype
    workspace.add(
        "scratch", "packed panels, strips", "", (threads, _scratch_entries(wanted)), dtype
    )
    recomputed = [layer.memory == "recompute" for layer in layers]
    if any(recomputed):
        widest = max(layer.outputs for layer in layers)
        shape = (threads, block_rows, widest)
        workspace.add("output_blocks", "blocks of outputs", "σ(a)", shape, dtype)

    # A layer of few tasks keeps few threads busy, and needs scratch for those alone.
    def entries_of_tasks(layer: LayerPlan) -> int:
        return min(threads, layer.tasks) * layer.panel * layer.backward_rows

    below = [k for k in range(1, len(layers)) if recomputed[k - 1]]
    if below:
        entries = max(entries_of_tasks(layers[k]) for k in below)
        workspace.add("input_panels", "panels of inputs", "σ(a)", (entries,), dtype)
    sent_back = layers if gradient == "elsewhere" else layers[1:]
    if sent_back:
        entries = max(entries_of_tasks(layer) for layer in sent_back)
        workspace.add("delta_panels", "panels of delta", "u", (entries,), dtype)
    trained = [layer for layer in layers if layer.trainable]
    parts = [
        layer.chunks * (layer.weight_count + layer.bias_count)
        for layer in trained
        if layer.chunks > 1
    ]
    if parts:
        workspace.add("gradient_parts", "parts of the gradient", "G, g", (max(parts),), dtype)
    panels = [
        min(threads, layer.panels) * (layer.panel * layer.outputs + layer.bias_count)
        if layer.panels > 1
        else layer.weight_count + layer.bias_count
        for layer in trained
        if layer.chunks == 1
    ]
    if gradient == "panels" and panels:
        workspace.add("gradient_panels", "panels of the gradient", "G, g", (max(panels),), dtype)


def plan_inference(wanted: Pass) -> PassPlan:
    """A forward pass alone: in each thread's workspace the outputs take turns in two buffers."""
    layers = plan_layers(wanted, ["reuse"] * len(wanted.connections))
    block_rows = _block_rows(layers, wanted.rows)
    threads = max(1, wanted.threads)
    workspace = Workspace()
    dtype = wanted.dtype
    shape = (block_rows, max(layer.outputs for layer in layers))
    places = [
        workspace.add(f"turn {turn}", f"outputs, turn {turn}", "F", shape, dtype)
        for turn in range(min(2, len(layers)))
    ]
    for k, layer in enumerate(layers):
        layer.kept = layer.signal = places[k % 2]
    workspace.add("prediction", "loss slope", "L", (block_rows, layers[-1].outputs), dtype)
    workspace.add("scratch", "packed panel, strip", "", (_scratch_entries(wanted),), dtype)
    flops = flops_of_sample(wanted.connections)
    return _finish(wanted, layers, workspace, threads, block_rows, flops=flops, copies=threads)


def plan_tangents(wanted: Pass) -> PassPlan:
    """A pass that carries tangents (Propositions 5, 9), and its way back for second-order products.

    Each thread takes blocks of samples through all layers in a workspace of its own.
    """
    layers = plan_layers(wanted, ["reuse"] * len(wanted.connections))
    block_rows = _block_rows(layers, wanted.rows)
    threads = max(1, wanted.threads)
    workspace = Workspace()
    dtype = wanted.dtype
    for k, (layer, connection) in enumerate(zip(layers, wanted.connections, strict=True), start=1):
        shape = (block_rows, *connection.output_shape)

        def add(name: str, symbol: str, k: int = k, shape: tuple[int, ...] = shape) -> int:
            return workspace.add(f"{name} {k}", f"{name} {k}", f"{symbol}_{k}", shape, dtype)

        layer.kept = layer.output = add("pre-activation", "a")
        layer.kept_tangent = layer.output_tangent = add("tangent of a", "da")
        if connection.layer.activation.name != "identity":
            layer.output, layer.output_tangent = add("output", "F"), add("tangent of F", "dF")
    widest = (block_rows, max(max(layer.inputs, layer.outputs) for layer in layers))
    for turn in range(2):
        workspace.add(f"delta {turn}", f"delta, turn {turn}", "T", widest, dtype)
        workspace.add(
            f"delta tangent {turn}", f"tangent of delta, turn {turn}", "dT", widest, dtype
        )
    workspace.add("prediction", "a term of a sum", "", widest, dtype)
    workspace.add("scratch", "packed panel, strip", "", (_scratch_entries(wanted),), dtype)
    flops = 3 * flops_of_sample(wanted.connections)
    return _finish(wanted, layers, workspace, threads, block_rows, flops=flops, copies=threads)
