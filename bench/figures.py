"""The README's two figures and two tables.

    python bench/compare.py --json docs/speed.json    # measures; wants every library installed
    python bench/figures.py                           # draws docs/speed.png and docs/memory.png

The second measures the memory modes itself, in turns, and writes both tables into the README,
between the comments that name it. It wants matplotlib.
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

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
ROUNDS = 21
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
    """Draw both figures, and write both tables."""
    machine.limit_threads(1)
    # Only now: it imports NumPy, which reads its number of threads then.
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    speed = json.loads((DOCS / "speed.json").read_text())
    rows = {name: columns(net["microseconds"]) for name, net in speed["nets"].items()}
    write("speed", speed_table(rows, speed))
    draw_speed(rows, speed["about"])
    points = measure_memory()
    write("memory", memory_table(points))
    draw_memory(points)
    return 0


def columns(medians: dict[str, float]) -> dict[str, float]:
    """Microseconds a step of each library, the better of fnn_core's two ways as one."""
    ours = {OURS: min(medians[name] for name in medians if name.startswith("fnn"))}
    return ours | {name: medians[name] for name in LIBRARIES if name in medians}


def write(name: str, table: list[str]) -> None:
    """Put a table into the README, between the comments with its name."""
    before, _, rest = README.read_text().partition(f"<!-- {name}, by bench/figures.py -->\n")
    _, _, after = rest.partition("<!-- end -->\n")
    marked = [f"<!-- {name}, by bench/figures.py -->", *table, "<!-- end -->", ""]
    README.write_text(before + "\n".join(marked) + after)
    print("\n".join(table) + "\n")


def speed_table(rows: dict[str, dict[str, float]], speed: dict[str, Any]) -> list[str]:
    """Microseconds a step, as Markdown."""
    lines = ["| net | " + " | ".join(LABELS.get(name, name) for name in LIBRARIES) + " | ratio |"]
    lines.append("|---|" + "--:|" * (len(LIBRARIES) + 1))
    for net, row in rows.items():
        cells = [f"{row[name]:,.{1 if row[name] < 100 else 0}f}" for name in LIBRARIES]
        ratio = f"{speed['nets'][net]['ratio']:.2f}"
        lines.append(f"| `{net}` | {' | '.join(cells)} | {ratio} |")
    return lines


def draw_speed(rows: dict[str, dict[str, float]], about: dict[str, Any]) -> None:
    """A row a net, a mark a library: how many times as long as fnn_core it takes."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 3.6), layout="constrained")
    heights = range(len(rows))[::-1]
    axes.axvline(1, color="#c1121f", lw=1)
    for name, (mark, colour) in LIBRARIES.items():
        if name != OURS:
            times = [row[name] / row[OURS] for row in rows.values()]
            axes.plot(times, heights, mark, color=colour, ms=6,
                      label=LABELS[name].replace("`", ""))  # fmt: skip
    axes.set_xscale("log")
    ticks = [1, 2, 5, 10, 20, 50, 100, 200]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    labels = [f"{name}  {_time(row[OURS])}" for name, row in rows.items()]
    axes.set_yticks(heights, labels)
    axes.set_xlabel(
        f"time of a training step, as a multiple of fnn_core's (beside the net's name); "
        f"{about['dtype']}, {about['threads']} thread"
    )
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(DOCS / "speed.png", dpi=130)


def _time(microseconds: float) -> str:
    """Three digits and a unit."""
    return f"{microseconds / 1e3:.3g} ms" if microseconds >= 1e3 else f"{microseconds:.3g} µs"


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


def memory_table(points: Sequence[Point]) -> list[str]:
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


def draw_memory(points: Sequence[Point]) -> None:
    """Bytes against time, a panel an activation."""
    from matplotlib import pyplot

    from bench import test_memory_trade as trade

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
    figure.savefig(DOCS / "memory.png", dpi=130)


if __name__ == "__main__":
    sys.exit(main())
