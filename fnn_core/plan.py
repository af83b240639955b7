"""The memory plan: a pass's buffers, laid out in one workspace before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fnn_core.layers import Connection
from fnn_core.layers.geometry import Geometry

ALIGNMENT = 64


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
    schedule : str
        The order in which a step does its work.

    Examples
    --------
    >>> import fnn_core as fnn
    >>> plan = fnn.Network([fnn.Dense(1)], input_shape=2).memory_plan(batch_size=10)
    >>> plan.total_bytes == plan.parameter_bytes + plan.optimizer_bytes + plan.workspace_bytes
    True
    """

    parameter_bytes: int
    optimizer_bytes: int
    workspace_bytes: int
    buffers: tuple[Buffer, ...]
    title: str = field(default="", repr=False)
    schedule: str = "blocks"

    @property
    def total_bytes(self) -> int:
        """Of parameters, optimizer and workspace."""
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
            "Beside these: the order of shuffled samples, 8 bytes each; copies of data of another\n"
            "dtype; what validation and metrics take; BLAS's own packing buffers; what a user's\n"
            "Python functions allocate."
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

    def repeated(self, times: int) -> Workspace:
        """So many of these workspaces behind each other, as one; offsets are those of the first."""
        together = Workspace()
        together.offsets = dict(self.offsets)
        together.buffers = [
            replace(buffer, shape=(times, *buffer.shape)) for buffer in self.buffers
        ]
        together.bytes, together.padding = times * self.bytes, times * self.padding
        return together

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
    inputs: int
    outputs: int
    offset: int
    weight_count: int
    bias_count: int
    trainable: bool
    memory: str
    rate: float
    row: int
    geometry: Geometry | None
    gemm: str = "native"
    panel: int = 0
    panels: int = 1
    part: int = 0
    parts: int = 1
    part_rows: int = 1
    chunks: int = 1
    backward_rows: int = 1
    kept: int = 0
    signal: int = 0
    restart: int = -1
    user: object = None
    output: int = 0
    kept_tangent: int = 0
    output_tangent: int = 0

    @property
    def n_parameters(self) -> int:
        return self.weight_count + self.bias_count

    @property
    def task_parameters(self) -> int:
        """The entries of G_k and g_k that a backward task forms."""
        weights = self.panel * self.outputs if self.panels > 1 else self.weight_count
        return weights + self.bias_count

    def forward_tasks(self, rows: int) -> int:
        """What the threads share out of the layer for a whole batch."""
        return self.parts * -(-rows // self.part_rows)

    @property
    def tasks(self) -> int:
        """What the threads share out of the layer's way back."""
        return self.panels * self.chunks


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
    resume: int
    block_rows: int
    loss_rows: int
    sum_rows: int
    threads: int
    flops: int
    schedule: str
    immediate: bool
    streams: int
    panel_entries: int
    gradient_entries: int
    offsets: dict[str, int]
    buffers: list[Buffer]
    scratch_bytes: int
    keeps_factors: bool
    sample_gradient_bytes: int
    output_block_bytes: int
    bytes_of_one_workspace: int
    workspace_bytes: int
    serial_flops: int


@dataclass(frozen=True)
class Pass:
    """What a pass is planned for.

    Attributes
    ----------
    sums_apart : bool
        Whether parts of a batch are each summed to a part of G_k before these are added.
    """

    connections: Sequence[Connection]
    dtype: np.dtype
    rows: int
    threads: int
    loss_index: int | None
    labels: bool
    any_target: bool
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    gemm: str = "auto"
    schedule: str = "auto"
    sums_apart: bool = False
