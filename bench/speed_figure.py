"""How fast a step is beside other libraries', as a table and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from bench.compare import OURS

#: What the figure and the tables call each library, and its mark.
LIBRARIES = {
    "jax_scan": ("JAX scan", "D", "#2a6f97"),
    "jax_step": ("JAX step", "d", "#61a5c2"),
    "numpy": ("NumPy", "s", "#6c757d"),
    "torch": ("PyTorch", "^", "#e07a00"),
    "torch_compile": ("PyTorch compiled", "<", "#9c6644"),
    "sklearn": ("scikit-learn", "v", "#588157"),
}
OUR_COLOUR = "#c1121f"

#: A net's numbers on one number of threads, and those of all nets, as compare.py writes them.
Net = dict[str, Any]
Run = dict[str, Any]


def medians(runs: Sequence[Run]) -> list[Run]:
    """One run for each number of threads: medians, with all ratios as ``"ratios"``.

    Shares are of the highest peak that any of the measurements found.
    """
    ordered = sorted(runs, key=lambda run: run["threads"])
    merged = []
    for threads, group in groupby(ordered, key=lambda run: run["threads"]):
        same = list(group)
        peak = max(run.get("peak") or 0.0 for run in same)
        nets = _medians_of_nets([run["nets"] for run in same], peak)
        merged.append({"threads": threads, "nets": nets})
    return merged


def _medians_of_nets(measured: Sequence[dict[str, Net]], peak: float) -> dict[str, Net]:
    """Of the nets that every measurement has; the peak in operations a nanosecond, 0 if unknown."""
    nets = {}
    for name in measured[0]:
        if not all(name in each for each in measured):
            continue
        same = [each[name] for each in measured]
        ratios = [net["ratio"] for net in same if net["ratio"] is not None]
        net: Net = {
            "microseconds": {
                library: median(net["microseconds"][library] for net in same)
                for library in same[0]["microseconds"]
                if all(library in net["microseconds"] for net in same)
            },
            "ratios": ratios,
            "ratio": median(ratios) if ratios else None,
        }
        measures = peak and any(library in net["microseconds"] for library in OURS)
        net["peak"] = same[0]["flops"] / (1e3 * our_time(net)) / peak if measures else None
        nets[name] = net
    return nets


def our_time(net: Net) -> float:
    """Microseconds a step of the better of fnn_core's two ways."""
    return min(time for name, time in net["microseconds"].items() if name in OURS)


def best_other(net: Net) -> str:
    """The fastest of the other libraries, and its microseconds a step."""
    others = {name: time for name, time in net["microseconds"].items() if name not in OURS}
    if not others:
        return "-"
    best = min(others, key=others.__getitem__)
    return f"{LIBRARIES[best][0]}, {_number(others[best])}"


def _number(microseconds: float) -> str:
    """Two or more digits."""
    return f"{microseconds:,.{2 if microseconds < 10 else 1 if microseconds < 100 else 0}f}"


def _share(share: float) -> str:
    """Percent, with two or more digits."""
    return f"{share:.{1 if share < 0.1 else 0}%}"


def table(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """Microseconds a step on each number of threads, as Markdown: those nets that were measured."""
    names = [name for name in names if all(name in run["nets"] for run in runs)]
    if not names:
        return []
    heads = []
    for run in runs:
        threads = f"{run['threads']} thread" + ("s" if run["threads"] > 1 else "")
        heads.append(f"{threads}: fnn_core | best other | ratio | peak")
    lines = [f"| net | {' | '.join(heads)} |", "|---|" + "--:|" * (4 * len(runs))]
    for name in names:
        cells = [f"`{name}`"]
        for run in runs:
            net = run["nets"][name]
            ratio = "-" if net["ratio"] is None else f"{net['ratio']:.2f}"
            if len(net["ratios"]) > 1:
                ratio += f" ({min(net['ratios']):.2f}–{max(net['ratios']):.2f})"
            peak = "-" if net["peak"] is None else _share(net["peak"])
            cells += [_number(our_time(net)), best_other(net), ratio, peak]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def draw(pyplot: Any, runs: Sequence[Run], dtype: str, path: Path) -> None:
    """A panel a number of threads, a row a net, a mark a library: times fnn_core's time."""
    figure, panels = pyplot.subplots(
        1, len(runs), figsize=(4.6 * len(runs) + 1, 0.3 * len(runs[0]["nets"]) + 1.2),
        sharex=True, layout="constrained", squeeze=False,
    )  # fmt: skip
    for axes, run in zip(panels[0], runs, strict=True):
        nets = run["nets"]
        heights = range(len(nets))[::-1]
        axes.axvline(1, color=OUR_COLOUR, lw=1)
        for name, (label, mark, colour) in LIBRARIES.items():
            points = [
                (net["microseconds"][name] / our_time(net), height)
                for net, height in zip(nets.values(), heights, strict=True)
                if name in net["microseconds"]
            ]
            if points:
                axes.plot(*zip(*points, strict=True), mark, color=colour, ms=6, label=label)
        axes.set_xscale("log")
        ticks = [1, 2, 5, 10, 20, 50, 100, 200, 500]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_yticks(heights, [f"{name}  {_time(our_time(net))}" for name, net in nets.items()])
        axes.set_title(f"threads: {run['threads']}", fontsize=9)
    # The panel with the most libraries names them all.
    fullest = max(panels[0], key=lambda axes: len(axes.get_legend_handles_labels()[1]))
    fullest.legend(frameon=False, loc="lower right")
    figure.supxlabel(
        f"time of a training step, as a multiple of fnn_core's (beside the net's name); {dtype}",
        fontsize=9,
    )
    figure.savefig(path, dpi=130)


def _time(microseconds: float) -> str:
    """Three digits and a unit."""
    return f"{microseconds / 1e3:.3g} ms" if microseconds >= 1e3 else f"{microseconds:.3g} µs"
