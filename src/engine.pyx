"""The boundary between Python and the engine: arrays in, one call without the GIL, results and errors out.

Descriptions come checked from Python; arrays are checked here once more, so that no misuse of these private
classes can corrupt memory.
"""
import os
from threading import get_ident

import numpy as np

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer
from cython.parallel cimport parallel, threadid
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free

from batches cimport FINISHED, LOSS_NOT_FINITE, Training
from factors cimport collect_factors, train_privately
from gradient cimport RUN_LENGTH
from inference cimport Inference, infer
from kept cimport Batch, loss_slope_place
from kernels cimport (
    A_B, A_TRANSPOSED_B, HAS_OPENMP, TRANSPOSED_A_B, Activation, Block, Geometry, Kernels, Layer, Loss, Map, MeetingPoint, Optimizer, OptimizerKernel,
    allocate, allocation_bytes, allocation_calls, choose_isa, compiled_isas, drop_subnormals, join_team,
    keep_subnormals, kernels_in_use, may_use_threads, release, seconds_now, set_arithmetic_mode, set_blas, shuffle,
    team_size, watch_forks,
)
from pace cimport Pace, note_segment, steps_of_segment, team_of_segment
from plan cimport Plan, fill_geometry, fill_plan
from tangent cimport Tangents, push_all, second_order
from user_map cimport UserMap, fill_user_map
from training cimport differentiate, train

cnp.import_array()
watch_forks()

cdef object INT64 = np.dtype(np.int64), FLOAT64 = np.dtype(np.float64)


cdef int _choose_isa() except -1:
    """The instruction set that FNN_ISA names, or the best."""
    cdef bytes name = os.environ.get("FNN_ISA", "").encode()
    cdef const char *forced = name
    if not choose_isa(forced if name else NULL):
        raise ImportError(
            f"FNN_ISA={name.decode()}: expected an instruction set that this build has compiled "
            f"({compiled_isas().decode()}) and this processor supports")
    return 0


_choose_isa()

# ---- What the kernels offer -----------------------------------------------------------------------------


def activation_table():
    """(name, reusable) of each activation."""
    cdef const Activation *entry = kernels_in_use(8).activations
    table = []
    while entry.name != NULL:
        table.append((entry.name.decode(), bool(entry.reusable)))
        entry += 1
    return table


def loss_table():
    """(name, has probabilities) of each loss."""
    cdef const Loss *entry = kernels_in_use(8).losses
    table = []
    while entry.name != NULL:
        table.append((entry.name.decode(), entry.probabilities != NULL))
        entry += 1
    return table


cdef list optimizer_names():
    """The name of each optimizer."""
    cdef const OptimizerKernel *entry = kernels_in_use(8).optimizers
    names = []
    while entry.name != NULL:
        names.append(entry.name.decode())
        entry += 1
    return names


def run_length():
    """Parameters that are updated, summed or squared together."""
    return int(RUN_LENGTH)


def product_scratch(long rows, long inputs, long outputs, size_t real_bytes):
    """Entries of scratch that the three products of a dense layer ask for, with up to so many rows and inputs."""
    cdef const Kernels *kernels = kernels_in_use(real_bytes)
    return max(kernels.product_scratch(A_B, rows, outputs, inputs),
               kernels.product_scratch(A_TRANSPOSED_B, rows, inputs, outputs),
               kernels.product_scratch(TRANSPOSED_A_B, inputs, outputs, rows))


def convolution_scratch(geometry, size_t real_bytes):
    """Entries of scratch that a convolution asks for."""
    cdef Geometry sizes
    fill_geometry(&sizes, geometry)
    return kernels_in_use(real_bytes).convolution_scratch(&sizes)


def use_blas(sgemm, dgemm, int integer_bytes):
    """Take BLAS's products from two capsules, as scipy.linalg.cython_blas exports them."""
    set_blas(PyCapsule_GetPointer(sgemm, PyCapsule_GetName(sgemm)),
             PyCapsule_GetPointer(dgemm, PyCapsule_GetName(dgemm)), integer_bytes)


def build_facts():
    """The instruction sets and libraries of this build and process."""
    return {"isa": kernels_in_use(4).isa.decode(), "compiled_isas": compiled_isas().decode().split(","),
            "openmp": bool(HAS_OPENMP)}


def allocations():
    """(calls, bytes) of all workspaces allocated since the process started."""
    return allocation_calls(), allocation_bytes()


def vector_function(str name, cnp.ndarray x):
    """A function of the kernels' vector math on a contiguous float32 or float64 array, for tests."""
    y = np.empty_like(x)
    _require(x, x.dtype, x.size, "x")
    if not kernels_in_use(x.itemsize).vector_function(name.encode(), x.size, cnp.PyArray_DATA(x),
                                                      cnp.PyArray_DATA(y)):
        raise ValueError(f"name = {name!r} is not a vector function")
    return y


def all_finite(cnp.ndarray x):
    """Whether every entry of a contiguous float32 or float64 array is finite; one pass."""
    _require(x, x.dtype, x.size, "x")
    cdef const Kernels *kernels = kernels_in_use(x.itemsize)
    cdef long size = x.size
    cdef void *data = cnp.PyArray_DATA(x)
    cdef bint finite
    with nogil:
        finite = kernels.all_finite(size, data)
    return finite


cdef long place_outside(const int64_t *labels, long count, long classes) noexcept nogil:
    cdef long place = 0
    while place < count and <uint64_t> labels[place] < <uint64_t> classes:
        place += 1
    return place if place < count else -1


def label_outside(cnp.ndarray labels, long classes):
    """The place of the first of contiguous int64 labels that is none of 0, ..., classes - 1; -1 if all are."""
    _require(labels, INT64, labels.size, "labels")
    cdef const int64_t *data = <const int64_t *> cnp.PyArray_DATA(labels)
    cdef long count = labels.size, place
    with nogil:
        place = place_outside(data, count, classes)
    return place


cdef _require(cnp.ndarray array, dtype, Py_ssize_t size, str name, bint writeable=False):
    """The engine's own last check: an array is just what its pointer will be taken for."""
    if array is None:
        raise TypeError(f"{name}: expected an array, got None")
    # By NumPy's C functions: its attributes, a dozen a call, would cost `fit` several microseconds.
    if (not cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_CARRAY if writeable else cnp.NPY_ARRAY_CARRAY_RO)
            or cnp.PyArray_SIZE(array) != size or <object> cnp.PyArray_DESCR(array) != dtype):
        raise ValueError(
            f"{name}: expected a contiguous{' writeable' if writeable else ''} array of {size} {dtype}, got "
            f"shape {(<object> array).shape}, {array.dtype}")


# ---- Memory ---------------------------------------------------------------------------------------------


cdef class Memory:
    """One aligned allocation."""
    cdef char *data
    cdef readonly size_t size

    def __cinit__(self, size_t size):
        self.size = size
        self.data = <char *> allocate(size)
        if self.data == NULL:
            raise MemoryError(f"no memory for a workspace of {size:,} bytes")

    def __dealloc__(self):
        release(self.data)

    def array(self, dtype):
        """All of it as a 1-D array, which keeps the allocation alive."""
        cdef cnp.npy_intp length = self.size // np.dtype(dtype).itemsize
        cdef cnp.ndarray view = cnp.PyArray_SimpleNewFromData(1, &length, np.dtype(dtype).num, self.data)
        cnp.set_array_base(view, self)
        return view


cdef Map user_map
fill_user_map(&user_map)


cdef class CompiledPlan:
    """A plan (fnn_core/plan.py) as the loops read it, and the workspaces made for it."""
    cdef Plan plan
    cdef readonly object description
    cdef readonly bint uses_blas
    cdef bint has_user_map
    cdef UserMap *users
    cdef list workspaces
    # What the calls that must be brief compare with.
    cdef tuple input_shape, output_shape
    cdef int type_number
    cdef bint any_target
    cdef long rows
    cdef double flops

    def __cinit__(self, description):
        self.description = description
        self.workspaces = []
        self.plan.layers = <Layer *> calloc(max(1, len(description.layers)), sizeof(Layer))
        self.users = <UserMap *> calloc(max(1, len(description.layers)), sizeof(UserMap))
        if self.plan.layers == NULL or self.users == NULL:
            raise MemoryError("no memory for a plan")
        for index, layer in enumerate(description.layers):
            if layer.user is not None:
                self._take_user_map(<int> index, layer.user, description.dtype)
        fill_plan(&self.plan, kernels_in_use(description.dtype.itemsize), &user_map, description)
        self.uses_blas = any(layer.gemm == "blas" for layer in description.layers)
        self.input_shape = description.input_shape
        self.output_shape = description.output_shape
        self.type_number = description.dtype.num
        self.any_target = description.any_target
        self.rows = description.rows
        self.flops = description.flops

    cdef _take_user_map(self, int index, caller, dtype):
        # The description keeps the caller alive.
        self.users[index].caller = <void *> caller
        self.users[index].real_bytes = dtype.itemsize
        self.users[index].type_number = dtype.num
        self.plan.layers[index].user = &self.users[index]
        self.has_user_map = True

    cdef bint user_map_raised(self) noexcept nogil:
        cdef long k
        for k in range(self.plan.depth):
            if self.users[k].raised:
                with gil:
                    return self._has_raised_here()
        return False

    cdef bint _has_raised_here(self):
        cdef long k
        for k in range(self.plan.depth):
            if self.users[k].raised and get_ident() in (<object> self.users[k].caller).errors:
                return True
        return False

    cdef int report(self) except -1:
        """Raise what a user's map has raised in this call: on this thread, as it has one."""
        cdef long k
        if not self.has_user_map:
            return 0
        first = None
        for k in range(self.plan.depth):
            if self.users[k].raised:
                caller = <object> self.users[k].caller
                error = caller.errors.pop(get_ident(), None)
                self.users[k].raised = len(caller.errors) > 0
                first = first or error
        if first is not None:
            raise first
        return 0

    def __dealloc__(self):
        free(self.plan.layers)
        free(self.users)

    cdef Memory take_workspace(self):
        """A workspace nobody else uses; the GIL makes taking and giving atomic."""
        if self.workspaces:
            return <Memory> self.workspaces.pop()
        return Memory(self.description.workspace_bytes)

    cdef void give_workspace(self, Memory workspace) noexcept:
        self.workspaces.append(workspace)


cdef class OptimizerState:
    """An optimizer's settings, the number of its step, and its state, laid out as theta."""
    cdef Optimizer optimizer
    cdef const OptimizerKernel *kernel
    cdef readonly list arrays

    def __init__(self, str name, dtype, Py_ssize_t parameters, list arrays):
        """`arrays`: one for each slot of state, None where the optimizer has no use for it."""
        self.kernel = &kernels_in_use(dtype.itemsize).optimizers[<int> optimizer_names().index(name)]
        self.arrays = arrays
        for slot, array in enumerate(arrays):
            if array is not None:
                _require(array, dtype, parameters, "state", writeable=True)
                self.optimizer.state[<int> slot] = cnp.PyArray_DATA(array)

    def configure(self, *, double weight_decay=0, double momentum=0, double beta1=0, double beta2=0,
                  double epsilon=0, double rate_decay=0, bint nesterov=False, bint centered=False):
        """Settings that stay the same from step to step."""
        self.optimizer.weight_decay = weight_decay
        self.optimizer.momentum = momentum
        self.optimizer.beta1 = beta1
        self.optimizer.beta2 = beta2
        self.optimizer.epsilon = epsilon
        self.optimizer.rate_decay = rate_decay
        self.optimizer.nesterov = nesterov
        self.optimizer.centered = centered

    @property
    def step(self):
        """Steps made so far."""
        return self.optimizer.step

    @step.setter
    def step(self, int64_t step):
        self.optimizer.step = step


# One extension, so that the kernels are linked once; cut into files of one idea.
include "session.pxi"
include "passes.pxi"
