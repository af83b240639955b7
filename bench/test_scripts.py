"""The commands of this folder, run as commands in their short form, and what they refuse."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import speed_figure
from bench.compare import summary
from bench.nets import NETS
from bench.scaling import exponent, thread_counts
from bench.two_threads import distance_of

ROOT = Path(__file__).resolve().parents[1]
CAN_PIN = hasattr(os, "sched_setaffinity")


@contextmanager
def all_processors() -> Iterator[None]:
    """For processes to be started: the suite's own is held to as many cores as it has threads."""
    held = os.sched_getaffinity(0) if CAN_PIN else set()
    if CAN_PIN:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        yield
    finally:
        if CAN_PIN:
            os.sched_setaffinity(0, held)


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A script's short form, from the repository's root."""
    with all_processors():
        return subprocess.run(
            [sys.executable, f"bench/{script}", *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | {"FNN_BENCH_SMOKE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )


def succeed(script: str, *arguments: object) -> str:
    """What a script prints, if it ends well."""
    done = run(script, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_compare_then_figures(tmp_path: Path) -> None:
    """A table on one thread and on two, kept, drawn, and put into the README."""
    pytest.importorskip("matplotlib")
    speed, readme = tmp_path / "speed.json", tmp_path / "README.md"
    rivals = ("--rivals", "fnn_fit,fnn_step,numpy")
    table = succeed("compare.py", "--threads", "1,2", "--set", "all", *rivals, "--json", speed)
    runs = json.loads(speed.read_text())["runs"]
    assert [run["threads"] for run in runs] == [1, 2]
    for measured in runs:
        for name, net in measured["nets"].items():
            assert table.count(f"\n{name} ") == 2
            assert set(net["microseconds"]) <= {"fnn_fit", "fnn_step", "numpy"}
            assert (net["ratio"] is None) == ("numpy" not in net["microseconds"])

    shutil.copy(ROOT / "README.md", readme)
    drawn = ("--docs", tmp_path, "--readme", readme)
    others = ("--cores", speed, "--avx2", speed)
    succeed("figures.py", "--speed", speed, speed, *others, *drawn)
    for name in ("speed", "cores", "avx2"):
        _, _, after = readme.read_text().partition(f"<!-- {name}, by bench/figures.py -->\n")
        assert after.startswith("| net | 1 thread: fnn_core ")
        assert "2 threads: fnn_core" in after.splitlines()[0]
    assert readme.read_text().splitlines()[-1] == (ROOT / "README.md").read_text().splitlines()[-1]
    assert {"speed.png", "memory.png"} <= {path.name for path in tmp_path.iterdir()}


def test_roofline(tmp_path: Path) -> None:
    """A line a case, and a figure."""
    pytest.importorskip("matplotlib")
    figure = tmp_path / "roofline.png"
    printed = succeed("roofline.py", "--figure", figure)
    assert "convolution" in printed
    assert figure.exists()


def test_scaling(tmp_path: Path) -> None:
    """Exponents over the work and over the threads, two processes at once, and a figure."""
    pytest.importorskip("matplotlib")
    figure = tmp_path / "scaling.png"
    printed = succeed("scaling.py", "--threads", 2, "--figure", figure)
    assert printed.count("work, by") == 6
    assert "\nthreads " in printed
    assert "processes" in printed
    assert figure.exists()


def test_long_run() -> None:
    """A row for every so many steps, and a column a library."""
    printed = succeed("long_run.py", "--rivals", "fnn_fit,numpy").splitlines()
    assert printed[1].split() == ["steps", "fnn_fit", "numpy"]
    assert [len(row.split()) for row in printed[2:]] == [3] * 12


@pytest.mark.skipif(not CAN_PIN, reason="threads cannot be pinned")
def test_two_threads() -> None:
    """Turns are counted for the distance at which they were made, or not at all."""
    done = run("two_threads.py", "--rounds", "5")
    if "no two processors" in done.stderr:
        pytest.skip("one processor")
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["net", "distance", "ns", "turns", "1", "thread", "2", "gain"]
    for row in rows:
        assert row.split()[0] in ("tiny_b1", "digits_b200")


def test_distances() -> None:
    """Every round trip has one."""
    assert [distance_of(time) for time in (60.0, 67.0, 68.0, 1e4)] == (
        ["one core", "one core", "near", "far"]
    )


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("compare.py", ["--threads", "0"], "expected a whole number >= 1 or 'all', got '0'"),
        (
            "compare.py",
            ["--threads", "1,2", "--nets", "mnist"],
            "no net 'mnist'; there are tiny_b1",
        ),
        ("compare.py", ["--threads", "1", "--rivals", "caffe"], "no rival 'caffe'; there are fnn"),
        ("compare.py", ["--seconds", "nan"], "expected seconds >= 0, got 'nan'"),
        ("long_run.py", ["--net", "mnist"], "no net 'mnist'; there are tiny_b1"),
        ("two_threads.py", ["--nets", "mnist"], "no net 'mnist'; there are tiny_b1"),
        ("scaling.py", ["--rounds", "0"], "expected a whole number >= 1, got '0'"),
        ("figures.py", ["--speed", "docs/nothing.json"], "cannot be read"),
        ("figures.py", ["--speed", "bench/README.md"], "cannot be read"),
    ],
)
def test_what_is_refused(script: str, arguments: list[str], message: str) -> None:
    """Wrong arguments end with 2 and say what would be right."""
    done = run(script, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_ratio_is_paired_within_rounds() -> None:
    """The median of the rounds' ratios, and not the ratio of the medians."""
    times = {
        "fnn_fit": [1.0, 4.0, 2.0],
        "fnn_step": [2.0, 2.0, 3.0],
        "numpy": [9.0, 9.0, 9.0],
        "torch_compile": [3.0, 4.0, 10.0],
    }
    net = NETS["tiny_b1"]
    row = summary(net, times, peak=1.0)
    assert row["ratio"] == 3.0
    assert row["microseconds"]["fnn_fit"] == 2.0
    assert row["peak"] == pytest.approx(net.flops / 2e3)


def test_medians_are_of_each_number_of_threads() -> None:
    """And keep all ratios."""
    runs = [
        {
            "threads": threads,
            "peak": peak,
            "nets": {
                "net": {
                    "flops": 2000,
                    "microseconds": {"torch": time, "fnn_fit": time / 10},
                    "ratio": time / 10,
                    "peak": None,
                }
            },
        }
        for threads, time, peak in ((1, 30.0, 2.0), (2, 7.0, None), (1, 10.0, 5.0), (1, 20.0, 4.0))
    ]
    one, two = speed_figure.medians(runs)
    assert one["nets"]["net"]["peak"] == pytest.approx(2 / 2.0 / 5)
    assert two["nets"]["net"]["peak"] is None
    assert (one["threads"], two["threads"]) == (1, 2)
    assert one["nets"]["net"]["microseconds"]["torch"] == 20
    assert one["nets"]["net"]["ratios"] == [3, 1, 2]
    assert one["nets"]["net"]["ratio"] == 2
    assert two["nets"]["net"]["ratio"] == 0.7


def test_flops_of_a_convolutional_net() -> None:
    """Two operations a product forward, four back, and two less in the first layer."""
    first, second, dense = 24 * 24 * 25 * 6, 8 * 8 * 25 * 6 * 16, 256 * 120 + 120 * 84 + 84 * 10
    assert NETS["lenet_b64"].flops == 64 * (4 * first + 6 * (second + dense))


def test_exponent_is_that_of_a_power() -> None:
    """Least squares in logarithms finds the power of a power law."""
    assert exponent([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)


def test_thread_counts() -> None:
    """Powers of two up to the most, and the most."""
    assert [thread_counts(most) for most in (1, 2, 6)] == [[1], [1, 2], [1, 2, 4, 6]]
