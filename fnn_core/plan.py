"""The memory plan: which buffers a pass needs, where they lie in one workspace, and how the work is cut.

Everything here is decided before anything is allocated. How work is cut (blocks of samples, panels of features,
which product) depends on the net and the batch alone, never on the number of threads: that is why results do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fnn_core import _engine
from fnn_core.layers import Connection

MEMORY_MODES = ("recompute", "store", "reuse", "auto")
UPDATES = ("immediate", "deferred", "auto")

ALIGNMENT = 64

#: Samples that go through all layers together. More of them spread the packing of a weight over more
#: rows; fewer leave more blocks to share out.
BLOCK_ROWS = 64
BLAS_BLOCK_ROWS = 256
#: Samples that go backward together: the reduction that one tile of G_k is held in registers for.
BACKWARD_ROWS = 256
#: Input features of a backward task where BLAS computes it, which packs its operands anew for each.
BLAS_PANEL = 512
#: A weight of at least this many entries is multiplied by BLAS (bench/test_products.py measures where it
#: overtakes the engine's own product).
BLAS_FROM_WEIGHTS = 512 * 512
BLAS_FROM_ROWS = 64
#: Multiplies and adds below which a team of threads costs more than it brings.
SERIAL_FLOPS = 2_000_000
#: Samples of a block of `gradients`, over which it is accumulated.
GRADIENT_ROWS = 1024


@dataclass(frozen=True)
class Buffer:
    """A buffer of the plan.

    Attributes
    ----------
    name, symbol : str
        What it is, and the paper's symbol for it.
    shape : tuple of int
    dtype : numpy.dtype
    bytes : int
    shares_with : str or None
        The buffer in whose place it lies; its bytes then count there alone.
    """

    name: str
    symbol: str
    shape: tuple[int, ...]
    dtype: np.dtype
    shares_with: str | None = None

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class MemoryPlan:
    """The bytes that training needs, before anything is allocated; prints as a table.

    Attributes
    ----------
    parameter_bytes, optimizer_bytes, workspace_bytes, total_bytes : int
    buffers : tuple of Buffer
    """

    parameter_bytes: int
    optimizer_bytes: int
    workspace_bytes: int
    buffers: tuple[Buffer, ...]
    title: str = field(default="", repr=False)

    @property
    def total_bytes(self) -> int:
        return self.parameter_bytes + self.optimizer_bytes + self.workspace_bytes

    def __str__(self) -> str:
        rows = [("buffer", "symbol", "shape", "dtype", "bytes", "in the place of")]
        for buffer in self.buffers:
            shape = " x ".join(map(str, buffer.shape))
            size = "" if buffer.shares_with else f"{buffer.bytes:,}"
            rows.append(
                (
                    buffer.name,
                    buffer.symbol,
                    shape,
                    str(buffer.dtype),
                    size,
                    buffer.shares_with or "",
                )
            )
        for name in ("parameter", "optimizer", "workspace", "total"):
            rows.append((f"{name} bytes", "", "", "", f"{getattr(self, f'{name}_bytes'):,}", ""))
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        lines = [
            "  ".join(
                cell.rjust(width) if column == 4 else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        rule = "-" * max(map(len, lines))
        table = [lines[0], rule, *lines[1:-4], rule, *lines[-4:]]
        note = (
            "Beside these: BLAS's own packing buffers, and what a user's Python functions allocate."
        )
        return "\n".join([self.title, *table, note] if self.title else [*table, note])


class Workspace:
    """Lays buffers out behind each other, each aligned."""

    def __init__(self) -> None:
        self.bytes = 0
        self.padding = 0
        self.offsets: dict[str, int] = {}
        self.buffers: list[Buffer] = []

    def add(self, key: str, name: str, symbol: str, shape: tuple[int, ...], dtype: np.dtype) -> int:
        """Room for a buffer; returns its offset."""
        self.buffers.append(Buffer(name, symbol, shape, dtype))
        self.offsets[key] = self.bytes
        self.bytes += self.buffers[-1].bytes
        self._align()
        return self.offsets[key]

    def share(self, name: str, symbol: str, owner: str) -> None:
        """Note a buffer that lies in the place of another."""
        there = next(buffer for buffer in self.buffers if buffer.name == owner)
        self.buffers.append(Buffer(name, symbol, there.shape, there.dtype, shares_with=owner))

    def _align(self) -> None:
        padding = -self.bytes % ALIGNMENT
        self.bytes += padding
        self.padding += padding

    def all_buffers(self) -> list[Buffer]:
        """The buffers, and what aligning them costs."""
        if not self.padding:
            return self.buffers
        return [*self.buffers, Buffer("alignment", "", (self.padding,), np.dtype(np.uint8))]


@dataclass
class LayerPlan:
    """A layer as src/plan.pxd reads it."""

    kind: str
    activation_index: int
    gemm: str
    inputs: int
    outputs: int
    offset: int
    weight_count: int
    bias_count: int
    trainable: bool
    memory: str
    panel: int
    panels: int
    rate: float
    kept: int = 0
    signal: int = 0


@dataclass
class PassPlan:
    """A pass as src/plan.pxd reads it."""

    dtype: np.dtype
    rows: int
    layers: list[LayerPlan]
    inputs: int
    outputs: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    any_target: bool
    n_parameters: int
    loss_index: int | None
    labels: bool
    lowest: int
    block_rows: int
    backward_rows: int
    threads: int
    flops: int
    offsets: dict[str, int]
    buffers: list[Buffer]
    product_panel_bytes: int
    output_block_bytes: int
    bytes_of_one_workspace: int
    workspace_bytes: int
    serial_flops: int = SERIAL_FLOPS


@dataclass(frozen=True)
class Pass:
    """What a pass is planned for."""

    connections: Sequence[Connection]
    dtype: np.dtype
    rows: int
    threads: int
    loss_index: int | None
    labels: bool
    any_target: bool


def flops_of_sample(connections: Sequence[Connection]) -> int:
    """Multiplies and adds of a forward pass over one sample."""
    return 2 * sum(connection.weight_count for connection in connections)


def layer_memory(connections: Sequence[Connection], mode: str) -> list[str]:
    """The memory mode of each layer (Remark 8 i), or a ValueError where `mode` cannot be had."""
    chosen = []
    for connection in connections:
        activation = connection.layer.activation
        if activation.name == "identity":
            chosen.append("reuse")  # σ' is one: there is nothing to store or to compute
        elif mode == "auto":
            chosen.append("reuse" if activation.reusable else "recompute")
        elif mode == "reuse" and not activation.reusable:
            from fnn_core.activations import REGISTRY

            can = ", ".join(name for name, other in REGISTRY.items() if other.reusable)
            raise ValueError(
                f"memory = 'reuse': layer {connection.index} ({connection.layer!r}) has the activation "
                f"{activation.name}, whose slope cannot be had from its value; it can for {can}"
            )
        else:
            chosen.append(mode)
    return chosen


def plan_layers(wanted: Pass, modes: Sequence[str]) -> list[LayerPlan]:
    """How each layer's work is cut."""
    panel = _engine.sizes(wanted.dtype.itemsize)["feature_panel"]
    layers = []
    for connection, mode in zip(wanted.connections, modes, strict=True):
        blas = connection.weight_count >= BLAS_FROM_WEIGHTS and wanted.rows >= BLAS_FROM_ROWS
        size = min(connection.inputs, BLAS_PANEL if blas else panel)
        layers.append(
            LayerPlan(
                kind=connection.layer.kind,
                activation_index=connection.layer.activation.index,
                gemm="blas" if blas else "native",
                inputs=connection.inputs,
                outputs=connection.outputs,
                offset=connection.offset,
                weight_count=connection.weight_count,
                bias_count=connection.bias_count,
                trainable=connection.layer.trainable and connection.n_parameters > 0,
                memory=mode,
                panel=size,
                panels=-(-connection.inputs // size),
                rate=connection.rate,
            )
        )
    return layers


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
        input_shape=connections[0].input_shape,
        output_shape=connections[-1].output_shape,
        any_target=wanted.any_target,
        n_parameters=sum(connection.n_parameters for connection in connections),
        loss_index=wanted.loss_index,
        labels=wanted.labels,
        lowest=trained.index(True) if True in trained else len(layers),
        block_rows=block_rows,
        backward_rows=min(wanted.rows, BACKWARD_ROWS),
        threads=threads,
        flops=flops,
        offsets=workspace.offsets,
        buffers=workspace.all_buffers(),
        product_panel_bytes=_engine.sizes(wanted.dtype.itemsize)["product_panel_bytes"],
        output_block_bytes=block_rows * widest * wanted.dtype.itemsize,
        bytes_of_one_workspace=workspace.bytes,
        workspace_bytes=copies * workspace.bytes,
    )


def _block_rows(layers: list[LayerPlan], rows: int) -> int:
    blas = any(layer.gemm == "blas" for layer in layers)
    return min(rows, BLAS_BLOCK_ROWS if blas else BLOCK_ROWS)


def plan_training(wanted: Pass, memory: str, gradient: str) -> PassPlan:
    """A pass that trains or differentiates.

    `gradient`: "panels" (immediate update), "whole" (deferred update), or "elsewhere" (the caller's).
    """
    connections, dtype, rows = wanted.connections, wanted.dtype, wanted.rows
    layers = plan_layers(wanted, layer_memory(connections, memory))
    block_rows = _block_rows(layers, rows)
    flops = 3 * rows * flops_of_sample(connections)
    tasks = max(-(-rows // block_rows), *(layer.panels for layer in layers))
    threads = 1 if flops < SERIAL_FLOPS else max(1, min(wanted.threads, tasks))
    sizes = _engine.sizes(dtype.itemsize)

    workspace = Workspace()
    if gradient != "elsewhere":
        target_shape = (rows,) if wanted.labels else (rows, connections[-1].outputs)
        target_dtype = np.dtype(np.int64) if wanted.labels else dtype
        workspace.add("batch_input", "gathered inputs", "x", (rows, connections[0].inputs), dtype)
        workspace.add("batch_targets", "gathered targets", "y", target_shape, target_dtype)
        workspace.add("batch_weights", "gathered weights", "s", (rows,), dtype)
    _add_activations(workspace, layers, rows, dtype)
    last = layers[-1]
    if connections[-1].layer.activation.name != "identity":
        workspace.add("prediction", "outputs", f"F_{len(layers)}", (rows, last.outputs), dtype)
        workspace.share("loss slope", "L", "outputs")
    workspace.add(
        "block_losses", "losses of blocks", "", (-(-rows // block_rows),), np.dtype(np.float64)
    )
    if gradient == "whole":
        total = sum(connection.n_parameters for connection in connections)
        runs = sum(-(-connection.n_parameters // sizes["run_length"]) for connection in connections)
        workspace.add("gradient", "gradient", "G, g", (total,), dtype)
        workspace.add("norms", "squares of runs of G", "", (runs,), np.dtype(np.float64))
    _add_scratch(workspace, layers, min(rows, BACKWARD_ROWS), block_rows, threads, dtype, gradient)
    return _finish(wanted, layers, workspace, threads, block_rows, flops=flops)


def _add_activations(
    workspace: Workspace, layers: list[LayerPlan], rows: int, dtype: np.dtype
) -> None:
    """What the forward pass keeps (Remark 8 i); delta takes its place on the way back."""
    for k, layer in enumerate(layers, start=1):
        shape = (rows, layer.outputs)
        kept, symbol = (
            (f"pre-activation {k}", f"a_{k}")
            if layer.memory == "recompute"
            else (f"output {k}", f"F_{k}")
        )
        layer.kept = layer.signal = workspace.add(f"kept {k}", kept, symbol, shape, dtype)
        if layer.memory == "store":
            kept = f"slope {k}"
            layer.signal = workspace.add(f"slope {k}", kept, f"σ'(a_{k})", shape, dtype)
        workspace.share(f"delta {k}", f"∂ℓ/∂a_{k}", kept)


def _add_scratch(
    workspace: Workspace,
    layers: list[LayerPlan],
    backward_rows: int,
    block_rows: int,
    threads: int,
    dtype: np.dtype,
    gradient: str,
) -> None:
    """What a thread or a task needs for itself; none of it grows with the batch beyond a block."""
    panel = _engine.sizes(dtype.itemsize)["product_panel_bytes"] // dtype.itemsize
    workspace.add("product_panels", "packed panels of B", "", (threads, panel), dtype)
    recomputed = [layer.memory == "recompute" for layer in layers]
    if any(recomputed):
        widest = max(layer.outputs for layer in layers)
        workspace.add(
            "output_blocks", "blocks of outputs", "σ(a)", (threads, block_rows, widest), dtype
        )

    # A layer of few panels keeps few threads busy, and needs scratch for those alone.
    def tasks(layer: LayerPlan) -> int:
        return min(threads, layer.panels)

    below = [k for k in range(1, len(layers)) if recomputed[k - 1]]
    if below:
        entries = max(tasks(layers[k]) * layers[k].panel for k in below) * backward_rows
        workspace.add("input_panels", "panels of inputs", "σ(a)", (entries,), dtype)
    if len(layers) > 1:
        entries = max(tasks(layer) * layer.panel for layer in layers[1:]) * backward_rows
        workspace.add("delta_panels", "panels of delta", "u", (entries,), dtype)
    if gradient == "panels":
        entries = max(
            tasks(layer) * (layer.panel * layer.outputs + layer.bias_count) for layer in layers
        )
        workspace.add("gradient_panels", "panels of the gradient", "G, g", (entries,), dtype)


def plan_inference(wanted: Pass) -> PassPlan:
    """A forward pass alone: in each thread's workspace the layers' outputs take turns in two buffers."""
    layers = plan_layers(wanted, ["reuse"] * len(wanted.connections))
    block_rows = _block_rows(layers, wanted.rows)
    threads = max(1, wanted.threads)
    workspace = Workspace()
    widest = max(layer.outputs for layer in layers)
    places = [
        workspace.add(
            f"turn {turn}", f"outputs, turn {turn}", "F", (block_rows, widest), wanted.dtype
        )
        for turn in range(min(2, len(layers)))
    ]
    for k, layer in enumerate(layers):
        layer.kept = layer.signal = places[k % 2]
    workspace.add("prediction", "loss slope", "L", (block_rows, layers[-1].outputs), wanted.dtype)
    panel = _engine.sizes(wanted.dtype.itemsize)["product_panel_bytes"] // wanted.dtype.itemsize
    workspace.add("product_panels", "packed panel of B", "", (panel,), wanted.dtype)
    flops = flops_of_sample(wanted.connections)
    return _finish(wanted, layers, workspace, threads, block_rows, flops=flops, copies=threads)
