"""No malloc in a step: the allocator is interposed, and an epoch twice as long calls it no more."""

import shutil
import subprocess
import sys

import nets
import pytest

COUNTER = r"""
#include <stddef.h>
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
static long calls;
long counted(void) { return __atomic_load_n(&calls, __ATOMIC_RELAXED); }
static void count(void) { __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED); }
void *malloc(size_t n) { count(); return __libc_malloc(n); }
void *calloc(size_t m, size_t n) { count(); return __libc_calloc(m, n); }
void *realloc(void *p, size_t n) { count(); return __libc_realloc(p, n); }
void *aligned_alloc(size_t a, size_t n) { count(); return __libc_memalign(a, n); }
int posix_memalign(void **p, size_t a, size_t n) {
    count();
    *p = __libc_memalign(a, n);
    return !*p;
}
"""

STEPS = """
import ctypes, sys
import numpy as np
import fnn_core as fnn

counted = ctypes.CDLL(None).counted
counted.restype = ctypes.c_long
n_threads, update = int(sys.argv[1]), sys.argv[2]
layers = [fnn.Dense(70, "relu"), fnn.Dropout(0.1), fnn.Dense(33, "tanh"), fnn.Dense(5)]
net = fnn.Network(layers, input_shape=20, loss="softmax_cross_entropy", n_threads=n_threads)
X = np.random.default_rng(0).normal(size=(32 * 2000, 20)).astype("float32")
y = np.arange(len(X)) % 5
optimizer = fnn.Adam()

def calls(steps):
    before = counted()
    net.fit(X[:32 * steps], y[:32 * steps], batch_size=32, optimizer=optimizer, update=update)
    return counted() - before

calls(1000), calls(2000)
print(min(calls(2000) for _ in range(3)) - min(calls(1000) for _ in range(3)))
"""


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler and glibc")
    folder = tmp_path_factory.mktemp("counter")
    (folder / "counter.c").write_text(COUNTER)
    library = folder / "counter.so"
    command = [compiler, "-O1", "-fPIC", "-shared", "-o", library, folder / "counter.c"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("the allocator cannot be interposed here")
    return str(library)


@pytest.mark.parametrize("update", ["deferred", "immediate"])
@pytest.mark.parametrize("n_threads", ["1", "2"])
def test_a_thousand_more_steps_call_malloc_no_more(counter, n_threads, update):
    more = int(nets.run_python("-c", STEPS, n_threads, update, LD_PRELOAD=counter))
    assert abs(more) < 20, "some calls follow the length of an epoch, but none a step"
