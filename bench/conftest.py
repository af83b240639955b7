"""What the benchmarks run over, how long, and the memory table that they print at the end."""

from __future__ import annotations

import os
import sys

import pytest

from bench import flags, machine

THREADS = int(os.environ.get("FNN_BENCH_THREADS", "1"))
# Libraries read their number of threads when they are imported, so this comes before all imports
# that follow. In a session that also runs other tests it may be too late, which the header says.
LIMITED = "numpy" not in sys.modules
if LIMITED:
    machine.limit_threads(THREADS)

from bench.nets import Net, nets_of_set  # noqa: E402
from bench.rivals import RIVALS  # noqa: E402

MemoryRow = tuple[str, str, int, int]
MEMORY_ROWS = pytest.StashKey[list[MemoryRow]]()


def smoke(config: pytest.Config) -> bool:
    """Whether this run only shows that everything works."""
    return flags.smoke() or config.getoption("benchmark_disable")


def pytest_configure(config: pytest.Config) -> None:
    """Make room for the rows of the memory table."""
    config.stash[MEMORY_ROWS] = []


def pytest_report_header() -> str:
    """Say how many threads the libraries use."""
    if LIMITED:
        return f"bench: {THREADS} thread(s); FNN_BENCH_THREADS sets it"
    return "bench: threads of other libraries NOT limited, they were imported before"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for `net` and `rival` over their tables."""
    if "net" in metafunc.fixturenames:
        nets = nets_of_set("table", small=smoke(metafunc.config))
        metafunc.parametrize("net", nets, ids=[net.name for net in nets])
    if "rival" in metafunc.fixturenames:
        missing = pytest.mark.skip(reason="not installed")
        metafunc.parametrize(
            "rival",
            [
                pytest.param(kind, id=name, marks=() if kind.installed() else missing)
                for name, kind in RIVALS.items()
                # Compiling takes half a minute a net; compare.py does it for those who ask.
                if name != "torch_compile"
            ],
        )


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the bytes beside which the times of test_memory_trade.py are to be read."""
    rows = config.stash[MEMORY_ROWS]
    if rows:
        terminalreporter.section("memory of a step, bytes")
        terminalreporter.line(f"{'activation':12s}{'mode':24s}{'workspace':>16s}{'in all':>16s}")
        for activation, mode, workspace, total in rows:
            terminalreporter.line(f"{activation:12s}{mode:24s}{workspace:16,d}{total:16,d}")


@pytest.fixture
def memory_rows(request: pytest.FixtureRequest) -> list[MemoryRow]:
    """Where to put the rows of the memory table."""
    return request.config.stash[MEMORY_ROWS]


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How many times to repeat a timing."""
    return 1 if smoke(request.config) else 7


@pytest.fixture
def steps(request: pytest.FixtureRequest, net: Net) -> int:
    """How many steps of a net to time in one call."""
    return 10 if smoke(request.config) else net.steps_a_call


@pytest.fixture
def threads() -> int:
    """How many threads every library uses."""
    return THREADS
