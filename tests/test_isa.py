"""Every instruction set that was compiled in, forced one after the other."""

from pathlib import Path

import nets
import pytest

import fnn_core as fnn

FILES = [
    "test_conv.py",
    "test_drawn_nets.py",
    "test_gradients.py",
    "test_losses_activations.py",
    "test_memory_modes.py",
    "test_products.py",
    "test_schedules.py",
    "test_vector_math.py",
    "test_winograd.py",
]
#: Of these files, what no instruction set of ours has a part in.
LEFT_OUT = "blas or coefficients_are_those_that_the_script_derives"
FLAGS = {
    "generic": set(),
    "avx2": {"avx2", "fma"},
    "avx512": {"avx512f", "avx512dq", "avx512bw", "avx512vl"},
}


def available(isa):
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return isa == "generic" or isa == fnn.build_info()["isa"]
    flags = [line for line in text.splitlines() if line.startswith("flags")]
    return FLAGS[isa] <= set(flags[0].split() if flags else ())


@pytest.mark.parametrize("isa", FLAGS)
def test_forced_isa_runs_and_is_right(isa):
    if not available(isa):
        pytest.skip(f"this machine has no {isa}")
    code = "import fnn_core; print(fnn_core.build_info()['isa'])"
    assert nets.run_python("-c", code, FNN_ISA=isa).strip() == isa
    if isa != fnn.build_info()["isa"]:  # the one in use is tested by the files themselves
        options = ["-q", "-x", "-p", "no:cacheprovider", "-k", f"not ({LEFT_OUT})"]
        nets.run_python("-m", "pytest", *options, *FILES, timeout=400, FNN_ISA=isa)


def test_unknown_isa_is_an_error():
    done = nets.run_python_unchecked("-c", "import fnn_core", FNN_ISA="sparc")
    assert done.returncode != 0
    assert "FNN_ISA" in done.stderr
    assert "sparc" in done.stderr
    assert "generic" in done.stderr
