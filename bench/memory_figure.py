"""Remark 8's trade of time for memory, measured, as a table and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import fnn_core as fnn
from bench import flags
from bench import test_memory_trade as trade
from bench.turns import take_turns

UPDATES = ("deferred", "immediate")
MODE_COLOURS = {
    "recompute": "#2a6f97",
    "store": "#e07a00",
    "reuse": "#c1121f",
    "checkpoint": "#588157",
}

#: Activation, memory mode, update, MB of workspace, milliseconds a step.
Point = tuple[str, str, str, float, float]


def measure() -> list[Point]:
    """Take turns at SGD steps of a deep net in every mode."""
    features, target = trade.batches()
    steps = len(features) / trade.BATCH_SIZE
    depth = trade.SMOKE_DEPTH if flags.smoke() else trade.DEPTH
    runs, sizes = {}, {}
    for way in (
        (activation, memory, update)
        for activation in trade.ACTIVATIONS
        for memory in trade.MODES
        for update in UPDATES
    ):
        activation, memory, update = way
        net = trade.deep_net(activation, memory, depth, threads=1)
        optimizer = fnn.SGD(1e-3)
        runs[way] = partial(
            net.fit, features, target, batch_size=trade.BATCH_SIZE, optimizer=optimizer,
            update=update, shuffle=False,
        )  # fmt: skip
        sizes[way] = net.memory_plan(trade.BATCH_SIZE, optimizer, update).workspace_bytes
    times = take_turns(runs, rounds=1 if flags.smoke() else 21, seconds=0.0)
    return [(*way, sizes[way] / 1e6, 1e3 * median(times[way]) / steps) for way in runs]


def table(points: Sequence[Point]) -> list[str]:
    """Bytes and time of each mode, as Markdown: a row for each pair of mode and update."""
    by_way: dict[tuple[str, str], dict[str, Point]] = {}
    for point in points:
        by_way.setdefault(point[1:3], {})[point[0]] = point
    lines = ["| `memory` | `update` | workspace, MB | ms a step, tanh | ms a step, relu |"]
    lines.append("|---|---|--:|--:|--:|")
    for (memory, update), of in by_way.items():
        assert of["tanh"][3] == of["relu"][3]
        lines.append(
            f"| `{memory}` | `{update}` | {of['tanh'][3]:.1f} | {of['tanh'][4]:.1f} | "
            f"{of['relu'][4]:.1f} |"
        )
    return lines


def draw(pyplot: Any, points: Sequence[Point], path: Path) -> None:
    """Bytes against time, a panel an activation."""
    figure, panels = pyplot.subplots(
        1, len(trade.ACTIVATIONS), figsize=(7.2, 2.9), sharey=True, layout="constrained"
    )
    for activation, memory, update, size, milliseconds in points:
        axes = panels[trade.ACTIVATIONS.index(activation)]
        colour = MODE_COLOURS[memory]
        filled = colour if update == "immediate" else "none"
        axes.plot(size, milliseconds, "o", ms=8, color=colour, markerfacecolor=filled,
                  label=f"{memory}, {update}")  # fmt: skip
    largest = max(size for *_, size, _ in points)
    slowest = max(milliseconds for *_, milliseconds in points)
    for axes, activation in zip(panels, trade.ACTIVATIONS, strict=True):
        axes.set_title(f"{trade.DEPTH} layers of {trade.WIDTH}, {activation}", fontsize=9)
        axes.set_xlabel("MB of workspace")
        axes.set_xlim(0, 1.1 * largest)
        axes.set_ylim(0, 1.1 * slowest)
    panels[0].set_ylabel("milliseconds of a step")
    panels[0].legend(frameon=False, fontsize=8, loc="lower center", ncols=2, columnspacing=1)
    figure.savefig(path, dpi=130)
