"""How many threads a net takes by default."""

import os

import nets
import pytest

from fnn_core.parallelism import _cores, _quota

COUNT = "import fnn_core; print(fnn_core.build_info()['threads'])"


def topology(folder, siblings):
    """A system's folder of processors, each with the list of those on its core."""
    for number, text in enumerate(siblings):
        of_processor = folder / f"cpu{number}" / "topology"
        of_processor.mkdir(parents=True)
        (of_processor / "thread_siblings_list").write_text(f"{text}\n")
    return folder


def test_two_threads_of_a_core_count_once(tmp_path):
    folder = topology(tmp_path, ["0,4", "1,5", "2-3", "2-3", "0,4", "1,5"])
    assert _cores(range(6), folder) == 3
    assert _cores([0, 4], folder) == 1
    assert _cores([1, 4], folder) == 2, "one thread of each of two cores"


def test_every_processor_counts_where_nobody_tells(tmp_path):
    assert _cores(range(6), tmp_path) == 6
    assert _cores(range(3), topology(tmp_path, ["0,2", "1"])) == 3, "of one nothing is known"


@pytest.mark.parametrize(
    ("text", "want"),
    [("max 100000", float("inf")), ("150000 100000", 1.5), ("nonsense", float("inf"))],
)
def test_a_containers_quota(tmp_path, text, want):
    path = tmp_path / "cpu.max"
    path.write_text(text)
    assert _quota(path) == want
    assert _quota(tmp_path / "none") == float("inf")


def test_the_variable_is_a_limit_and_no_demand():
    assert nets.run_python("-c", COUNT, OMP_NUM_THREADS="1").strip() == "1"
    free = int(nets.run_python("-c", COUNT, OMP_NUM_THREADS=""))
    assert 1 <= free <= os.cpu_count()
    assert free <= int(nets.run_python("-c", COUNT, OMP_NUM_THREADS="4096")) <= os.cpu_count()
    assert int(nets.run_python("-c", COUNT, OMP_NUM_THREADS="none")) == free
