"""The README's figures and its table of speed.

    python bench/compare.py --json docs/speed.json    # measures; wants every library installed
    python bench/figures.py                           # draws docs/speed.png and docs/memory.png

The second prints the table of the first's numbers, and measures the memory modes itself, in turns.
It wants matplotlib.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

if not __package__:
    # As a script, the folder of this file is on the path instead of the one above it.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench import machine

DOCS = Path(__file__).resolve().parents[1] / "docs"
ROUNDS = 7
UPDATES = ("deferred", "immediate")

#: What the table and the figure call each library, and its mark; the best of our two ways counts.
OURS = "fnn_core"
LIBRARIES = {
    OURS: ("o", "#c1121f"),
    "jax_scan": ("D", "#2a6f97"),
    "jax_step": ("d", "#61a5c2"),
    "numpy": ("s", "#6c757d"),
    "torch": ("^", "#e07a00"),
    "sklearn": ("v", "#588157"),
}
LABELS = {
    "jax_scan": "JAX, one `lax.scan`",
    "jax_step": "JAX, a call a step",
    "numpy": "NumPy",
    "torch": "PyTorch",
    "sklearn": "scikit-learn",
}
MODE_COLOURS = {
    "recompute": "#2a6f97",
    "store": "#e07a00",
    "reuse": "#c1121f",
    "checkpoint": "#588157",
}


def main() -> int:
    """Draw both figures, and print the table."""
    machine.limit_threads(1)
    # Only now: it imports NumPy, which reads its number of threads then.
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    speed = json.loads((DOCS / "speed.json").read_text())
    rows = {name: columns(net["microseconds"]) for name, net in speed["nets"].items()}
    print_table(rows, speed)
    draw_speed(rows, speed["about"])
    draw_memory(measure_memory())
    return 0


def columns(medians: dict[str, float]) -> dict[str, float]:
    """Microseconds a step of each library, the better of fnn_core's two ways as one."""
    ours = {OURS: min(medians[name] for name in medians if name.startswith("fnn"))}
    return ours | {name: medians[name] for name in LIBRARIES if name in medians}


def print_table(rows: dict[str, dict[str, float]], speed: dict[str, Any]) -> None:
    """The table as Markdown."""
    print("| net | " + " | ".join(LABELS.get(name, name) for name in LIBRARIES) + " | ratio |")
    print("|---|" + "--:|" * (len(LIBRARIES) + 1))
    for net, row in rows.items():
        cells = [f"{row[name]:,.{1 if row[name] < 100 else 0}f}" for name in LIBRARIES]
        print(f"| `{net}` | **{cells[0]}** | {' | '.join(cells[1:])} | "
              f"{speed['nets'][net]['ratio']:.2f} |")  # fmt: skip


def draw_speed(rows: dict[str, dict[str, float]], about: dict[str, Any]) -> None:
    """A row a net, a mark a library, on a logarithmic axis of time."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 3.4), layout="constrained")
    heights = range(len(rows))[::-1]
    for height, row in zip(heights, rows.values(), strict=True):
        axes.plot([min(row.values()), max(row.values())], [height, height], color="#dee2e6", lw=1)
    for name, (mark, colour) in LIBRARIES.items():
        times = [row[name] for row in rows.values()]
        axes.plot(times, heights, mark, color=colour, ms=7 if name == OURS else 5,
                  label=LABELS.get(name, name).replace("`", ""))  # fmt: skip
    axes.set_xscale("log")
    axes.set_yticks(heights, list(rows))
    axes.set_xlabel(f"microseconds of a training step, {about['dtype']}, "
                    f"{about['threads']} thread of {about['cpu']}")  # fmt: skip
    axes.legend(frameon=False, loc="upper right")
    figure.savefig(DOCS / "speed.png", dpi=130)


Point = tuple[str, str, str, float, float]


def measure_memory() -> list[Point]:
    """Remark 8's trade: (activation, memory mode, update, MB of workspace, milliseconds a step)."""
    import fnn_core as fnn
    from bench import test_memory_trade as trade

    features, target = trade.batches()
    ways = [
        (activation, memory, update, trade.deep_net(activation, memory, trade.DEPTH, threads=1))
        for activation in trade.ACTIVATIONS
        for memory in trade.MODES
        for update in UPDATES
    ]
    optimizers = [fnn.SGD(1e-3) for _ in ways]
    times: list[list[float]] = [[] for _ in ways]
    for turn in range(ROUNDS + 1):
        order = range(len(ways))
        for place in order if turn % 2 == 0 else reversed(order):
            _, _, update, net = ways[place]
            start = time.perf_counter()
            history = net.fit(
                features, target, batch_size=trade.BATCH_SIZE, optimizer=optimizers[place],
                update=update, shuffle=False,
            )  # fmt: skip
            assert history["loss"][-1] > 0
            times[place].append(time.perf_counter() - start)
    steps = len(features) / trade.BATCH_SIZE
    points = []
    for (activation, memory, update, net), optimizer, seconds in zip(
        ways, optimizers, times, strict=True
    ):
        plan = net.memory_plan(trade.BATCH_SIZE, optimizer, update)
        # The first turn warms up.
        points.append((activation, memory, update, plan.workspace_bytes / 1e6,
                       1e3 * median(seconds[1:]) / steps))  # fmt: skip
    return points


def draw_memory(points: Sequence[Point]) -> None:
    """Bytes against time, a panel an activation; and the same as Markdown."""
    from matplotlib import pyplot

    from bench import test_memory_trade as trade

    print("\n| activation | memory | update | workspace, MB | ms a step |")
    print("|---|---|---|--:|--:|")
    figure, panels = pyplot.subplots(
        1, len(trade.ACTIVATIONS), figsize=(7.2, 2.9), sharey=True, layout="constrained"
    )
    for activation, memory, update, size, milliseconds in points:
        print(f"| {activation} | {memory} | {update} | {size:.1f} | {milliseconds:.1f} |")
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
    panels[0].legend(frameon=False, fontsize=8, loc="lower right", ncols=2, columnspacing=1)
    figure.savefig(DOCS / "memory.png", dpi=130)


if __name__ == "__main__":
    sys.exit(main())
