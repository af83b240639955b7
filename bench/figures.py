"""The README's two figures and its tables of speed and memory.

    python bench/compare.py --json docs/speed.json   # wants every library installed
    python bench/figures.py

The second draws docs/speed.png and docs/memory.png. It measures the memory modes itself, in turns,
and writes the tables into the README, between the comments that name them. Of several measurements
(docs/speed.json, docs/speed-2.json and so on) it shows medians, and how far apart the ratios were.
What was measured on other machines has tables of its own: on one of Intel's (docs/xeon*.json), with
more cores (docs/cores*.json), and without AVX-512 (docs/avx2*.json). It wants matplotlib.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    # As a script, the folder of this file is on the path instead of the one above it.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench import drawing, machine
from bench.compare import OURS

ROOT = Path(__file__).resolve().parents[1]

#: Other machines' tables of all nets; the key names the option and the files, too.
MACHINES = {"xeon": "of Intel's", "avx2": "without AVX-512", "cores": "of more cores"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw both figures, and write the tables."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        paths = options.speed or sorted((ROOT / "docs").glob("speed*.json"))
        speeds = [json.loads(path.read_text()) for path in paths]
        options.readme.read_text()
    except (OSError, ValueError) as error:
        parser.error(f"cannot be read: {error}")
    if not paths:
        parser.error("--speed: there is no docs/speed*.json, which compare.py writes")
    for path, speed in zip(paths, speeds, strict=True):
        if "runs" not in speed:
            parser.error(f"{path}: measure again, it is not what compare.py writes")
        if not all(
            set(OURS) & set(net["microseconds"])
            for run in speed["runs"]
            for net in run["nets"].values()
        ):
            parser.error(f"{path}: measure again, with fnn_fit or fnn_step")
    machine.limit_threads(1)
    pyplot = drawing.prepared_pyplot()
    # Only now: it imports NumPy, which reads its number of threads then.
    from bench import memory_figure, speed_figure
    from bench.nets import SETS

    of_machine = {}
    for name in MACHINES:
        given = getattr(options, name)
        paths = sorted((ROOT / "docs").glob(f"{name}*.json")) if given is None else given
        try:
            of_machine[name] = [
                run for path in paths for run in json.loads(path.read_text())["runs"]
            ]
        except (OSError, ValueError, KeyError) as error:
            parser.error(f"cannot be read: {error}")
    options.docs.mkdir(parents=True, exist_ok=True)
    runs = speed_figure.medians([run for speed in speeds for run in speed["runs"]])
    for name, nets in (("speed", SETS["table"]), ("untuned", SETS["untuned"])):
        table = speed_figure.table(runs, [net.name for net in nets])
        if table:
            write(options.readme, name, table)
    names = [net.name for net in SETS["all"]]
    for name, measured in of_machine.items():
        if measured:
            write(options.readme, name, speed_figure.table(speed_figure.medians(measured), names))
    speed_figure.draw(pyplot, runs, speeds[0]["about"]["dtype"], options.docs / "speed.png")
    points = memory_figure.measure()
    write(options.readme, "memory", memory_figure.table(points))
    memory_figure.draw(pyplot, points, options.docs / "memory.png")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--speed", type=Path, nargs="+", metavar="FILE",
        help="from compare.py, one a measurement (docs/speed*.json)")  # fmt: skip
    for name, machine_is in MACHINES.items():
        add(f"--{name}", type=Path, nargs="*", metavar="FILE",
            help=f"likewise, on a machine {machine_is} (docs/{name}*.json)")  # fmt: skip
    add("--docs", type=Path, default=ROOT / "docs", metavar="FOLDER",
        help="where the figures go (docs)")  # fmt: skip
    add("--readme", type=Path, default=ROOT / "README.md", metavar="FILE",
        help="where the tables go (README.md)")  # fmt: skip
    return parser


def write(readme: Path, name: str, table: list[str]) -> None:
    """Put a table into the README, between the comments with its name."""
    print("\n".join(table) + "\n")
    mark, end = f"<!-- {name}, by bench/figures.py -->\n", "<!-- end -->\n"
    before, found, rest = readme.read_text().partition(mark)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        print(f"{readme} has no place for the table {name!r}\n", file=sys.stderr)
        return
    readme.write_text(before + mark + "\n".join([*table, ""]) + end + after)


if __name__ == "__main__":
    sys.exit(main())
