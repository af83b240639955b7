"""How passes that change nothing are planned: forward alone, and with tangents."""

from __future__ import annotations

from dataclasses import replace

from fnn_core.costs import quickest_schedule
from fnn_core.cutting import block_rows, flops_of_sample, plan_layers
from fnn_core.plan import Pass, PassPlan, Workspace
from fnn_core.planning import finish, keep_apart, scratch_entries


def plan_inference(wanted: Pass) -> PassPlan:
    """A forward pass alone: in each thread's workspace the outputs take turns in two buffers."""
    threads, wanted = max(1, wanted.threads), replace(wanted, threads=1)
    layers = plan_layers(wanted, ["reuse"] * len(wanted.connections))
    keep_apart(layers, wanted)
    rows_of_block = block_rows(wanted, layers, quickest_schedule(wanted, may_stream=False))
    workspace = Workspace()
    dtype = wanted.dtype
    for turn, taking_it in enumerate((layers[::2], layers[1::2])):
        shape = (rows_of_block, max((layer.row for layer in taking_it), default=0))
        place = workspace.add(f"turn {turn}", f"outputs, turn {turn}", "F", shape, dtype)
        for layer in taking_it:
            layer.kept = layer.signal = place
    workspace.add("prediction", "loss slope", "L", (rows_of_block, layers[-1].outputs), dtype)
    workspace.add("scratch", "packed operands, strips", "", (scratch_entries(wanted),), dtype)
    flops = flops_of_sample(wanted.connections)
    return finish(wanted, layers, workspace, threads, rows_of_block, flops=flops, copies=threads)


def plan_tangents(wanted: Pass) -> PassPlan:
    """A pass that carries tangents (Propositions 5, 9), and its way back for second-order products.

    Each thread takes blocks of samples through all layers in a workspace of its own.
    """
    threads, wanted = max(1, wanted.threads), replace(wanted, threads=1)
    layers = plan_layers(wanted, ["reuse"] * len(wanted.connections))
    rows_of_block = block_rows(wanted, layers, "blocks")
    workspace = Workspace()
    dtype = wanted.dtype
    for k, (layer, connection) in enumerate(zip(layers, wanted.connections, strict=True), start=1):
        shape = (rows_of_block, *connection.output_shape)

        def add(name: str, symbol: str, k: int = k, shape: tuple[int, ...] = shape) -> int:
            return workspace.add(f"{name} {k}", f"{name} {k}", f"{symbol}_{k}", shape, dtype)

        layer.kept = layer.output = add("pre-activation", "a")
        layer.kept_tangent = layer.output_tangent = add("tangent of a", "da")
        if connection.layer.activation.name != "identity":
            layer.output, layer.output_tangent = add("output", "F"), add("tangent of F", "dF")
    widest = (rows_of_block, max(max(layer.inputs, layer.outputs) for layer in layers))
    for turn in range(2):
        workspace.add(f"delta {turn}", f"delta, turn {turn}", "T", widest, dtype)
        workspace.add(
            f"delta tangent {turn}", f"tangent of delta, turn {turn}", "dT", widest, dtype
        )
    workspace.add("prediction", "a term of a sum", "", widest, dtype)
    workspace.add("scratch", "packed operands, strips", "", (scratch_entries(wanted),), dtype)
    flops = 3 * flops_of_sample(wanted.connections)
    return finish(wanted, layers, workspace, threads, rows_of_block, flops=flops, copies=threads)
