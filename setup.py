"""The extension: its sources, compiled side by side, and whether this compiler has OpenMP."""

import os
import platform
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KERNELS = Path("src/kernels")
# No errno and no floating-point traps: nobody reads them here, and they keep loops from being
# vectorised. Neither changes a result. And no debugging symbols, which Python's own flags ask for:
# they are six times as large as the code. Functions begin with a line of the instruction cache: a
# step of a small net would be slower or quicker by what happens to stand before them (Zen 3).
CFLAGS = ["-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
CFLAGS += ["-falign-functions=64", "-g0"]
if platform.machine() in ("x86_64", "AMD64"):
    # GCC would read two fields of a struct, just written, as one vector, for which the processor
    # waits, several times a step (Zen 3). The kernels' vectors are written as such.
    CFLAGS += ["-fno-tree-slp-vectorize"]
LDFLAGS = []

# FNN_SANITIZE=address,undefined builds with those sanitizers; CONTRIBUTING.md says how to run the
# tests then. At -O1 alone a product and a sum are rounded apart, unless the kernels say otherwise.
if os.environ.get("FNN_SANITIZE"):
    CFLAGS += [f"-fsanitize={os.environ['FNN_SANITIZE']}", "-fno-omit-frame-pointer", "-g", "-O1"]
    CFLAGS += ["-fexpensive-optimizations"]
    LDFLAGS += [f"-fsanitize={os.environ['FNN_SANITIZE']}"]

OPENMP_TRIALS = [(["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])]
OPENMP_PROGRAM = """
#include <omp.h>
int main(void) { int n = 0;
#pragma omp parallel reduction(+:n)
n += omp_get_thread_num() >= 0; return n == 0; }
"""


class BuildEngine(build_ext):
    """Adds the flags for OpenMP that the real compiler takes, if any, and compiles side by side."""

    def build_extensions(self):
        flags = self.find_openmp()
        if flags is None:
            print(
                "fnn_core: this compiler has no OpenMP; the engine will be serial", file=sys.stderr
            )
        compile_flags, link_flags = flags or ([], [])
        for extension in self.extensions:
            extension.extra_compile_args += compile_flags
            extension.extra_link_args += link_flags
        self.compile_side_by_side()
        super().build_extensions()

    def compile_side_by_side(self):
        """Sources are compiled on all processors: setuptools does so only with whole extensions."""
        compile_in_turn = self.compiler.compile

        def compile_all(sources, *args, **options):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = pool.map(lambda one: compile_in_turn([one], *args, **options), sources)
                return [name for names in objects for name in names]

        self.compiler.compile = compile_all

    def find_openmp(self):
        """The first (compile, link) flags that build a program with OpenMP."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "openmp.c")
            source.write_text(OPENMP_PROGRAM)
            for compile_flags, link_flags in OPENMP_TRIALS:
                try:
                    objects = self.compiler.compile(
                        [str(source)], output_dir=folder, extra_postargs=compile_flags
                    )
                    self.compiler.link_executable(
                        objects, "openmp", output_dir=folder, extra_postargs=link_flags
                    )
                except Exception:
                    continue
                return compile_flags, link_flags
        return None


engine = Extension(
    "fnn_core._engine",
    sources=["src/engine.pyx", *map(str, sorted(KERNELS.rglob("*.c")))],
    depends=[
        *map(str, KERNELS.rglob("*.h")),
        *map(str, KERNELS.rglob("*.inc")),
        *map(str, Path("src").glob("*.px[di]")),
    ],
    include_dirs=["src", numpy.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
    extra_compile_args=CFLAGS,
    extra_link_args=LDFLAGS,
)

setup(
    ext_modules=cythonize(
        [engine],
        include_path=["src"],
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
        },
    ),
    cmdclass={"build_ext": BuildEngine},
)
