"""The boundary between Python and the engine: arrays in, one call without the GIL, results and errors out.

Descriptions come checked from Python; arrays are checked here once more, so that no misuse of these private
classes can corrupt memory.
"""
import os

import numpy as np

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer
from cython.parallel cimport parallel, threadid
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free

from algorithm cimport RUN_LENGTH, Batch, loss_slope_place
from factors cimport collect_factors, train_privately
from inference cimport Inference, infer
from kernels cimport (
    HAS_OPENMP, Activation, Block, Geometry, Kernels, Layer, Loss, Map, Optimizer, OptimizerKernel,
    allocate, allocation_bytes, allocation_calls, choose_isa, compiled_isas, kernels_in_use, may_use_threads,
    release, set_blas, shuffle, team_size, watch_forks,
)
from plan cimport Plan, fill_geometry, fill_plan
from tangent cimport Tangents, push_all, second_order
from user_map cimport UserMap, fill_user_map
from training cimport (
    FINISHED, LOSS_NOT_FINITE, NO_WEIGHT, Training, differentiate, train,
)

cnp.import_array()
watch_forks()



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


def optimizer_names():
    """The name of each optimizer."""
    cdef const OptimizerKernel *entry = kernels_in_use(8).optimizers
    names = []
    while entry.name != NULL:
        names.append(entry.name.decode())
        entry += 1
    return names


def sizes(size_t real_bytes):
    """What a plan needs to know of the kernels in use."""
    cdef const Kernels *kernels = kernels_in_use(real_bytes)
    return {"feature_panel": kernels.feature_panel, "product_panel_bytes": kernels.panel_bytes,
            "run_length": int(RUN_LENGTH)}


def convolution_scratch(geometry, size_t real_bytes):
    """Entries of scratch that a convolution asks for beside the panel of a product."""
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


def threads_allowed():
    """Whether this process may use a team: OpenMP was built in, and it is no forked child."""
    return bool(may_use_threads())


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


cdef _require(cnp.ndarray array, dtype, Py_ssize_t size, str name, bint writeable=False):
    """The engine's own last check: an array is just what its pointer will be taken for."""
    if (array.dtype != dtype or array.size != size or not array.flags.c_contiguous or not array.flags.aligned
            or (writeable and not array.flags.writeable)):
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
                return True
        return False

    cdef int report(self) except -1:
        """Raise what a user's map has raised."""
        cdef long k
        for k in range(self.plan.depth if self.has_user_map else 0):
            if self.users[k].raised:
                self.users[k].raised = 0
                caller = <object> self.users[k].caller
                error, caller.error = caller.error, None
                raise error
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


# ---- Calls ----------------------------------------------------------------------------------------------

# Multiplies and adds of a call below which letting go of the GIL costs more than it gives others.
cdef enum:
    BRIEF = 200000


cdef class Writer:
    """Who may change a net's parameters: one call at a time. Counts the steps and epochs begun."""
    cdef bint busy
    cdef public uint64_t steps, epochs

    def __enter__(self):
        self.acquire()

    def __exit__(self, *exception):
        self.busy = False

    cdef int acquire(self) except -1:
        if self.busy:
            raise RuntimeError("the net is being trained by another thread; one may at a time")
        self.busy = True
        return 0


cdef bint is_batch(array, int type_number, long rows, long columns) noexcept:
    """Whether an object is an array that the engine can read as it lies: (rows, ...) of `columns` a row."""
    if type(array) is not cnp.ndarray:
        return False
    cdef cnp.ndarray checked = array
    return (cnp.PyArray_TYPE(checked) == type_number
            and cnp.PyArray_CHKFLAGS(checked, cnp.NPY_ARRAY_CARRAY_RO)
            and cnp.PyArray_ISNOTSWAPPED(checked)
            and cnp.PyArray_NDIM(checked) > 0 and cnp.PyArray_DIM(checked, 0) == rows
            and cnp.PyArray_SIZE(checked) == rows * columns)


cdef bint has_shape(cnp.ndarray array, tuple sample_shape) noexcept:
    """Whether the array's shape is (N, *sample_shape)."""
    cdef int axis
    if cnp.PyArray_NDIM(array) != 1 + len(sample_shape):
        return False
    for axis in range(len(sample_shape)):
        if cnp.PyArray_DIM(array, axis + 1) != <long> sample_shape[axis]:
            return False
    return True


cdef class Samples:
    """Inputs, targets and weights, checked against a plan and kept alive."""
    cdef cnp.ndarray inputs, targets, weights
    cdef readonly Py_ssize_t count

    def __init__(self, CompiledPlan compiled, cnp.ndarray inputs, targets=None, weights=None):
        cdef Plan *plan = &compiled.plan
        dtype = compiled.description.dtype
        self.count = inputs.shape[0]
        self.inputs = inputs
        _require(inputs, dtype, self.count * plan.inputs, "X")
        if targets is not None:
            if plan.labels:
                _require(targets, np.dtype(np.int64), self.count, "y")
                if self.count and not 0 <= targets.min() <= targets.max() < plan.outputs:
                    raise ValueError(f"y: expected labels in 0..{plan.outputs - 1}")
            else:
                _require(targets, dtype, self.count * plan.outputs, "y")
            self.targets = targets
        if weights is not None:
            _require(weights, dtype, self.count, "sample_weight")
            self.weights = weights


cdef class Session:
    """One net, one plan and the samples of one call, ready to run: training, a gradient, or a forward pass."""
    cdef Training training
    cdef readonly CompiledPlan compiled
    cdef readonly OptimizerState optimizer
    cdef Writer writer
    cdef Memory workspace
    cdef public object progress
    cdef object user_loss, error
    cdef cnp.ndarray theta, order, rates, outputs
    cdef Samples samples

    def __init__(self, CompiledPlan compiled, cnp.ndarray theta, OptimizerState optimizer=None,
                 Writer writer=None, *,
                 double max_grad_norm=0, double noise_multiplier=0, uint64_t noise_seed=0,
                 bint immediate=False, double clip_norm=0, uint64_t mask_seed=0, uint64_t shuffle_seed=0,
                 user_loss=None, progress=None):
        """`user_loss(y, t)` gives (values, slopes); `progress(steps)` is told of steps done, now and then."""
        _require(theta, compiled.description.dtype, compiled.description.n_parameters, "theta")
        self.compiled = compiled
        self.theta = theta
        self.optimizer = optimizer
        self.writer = writer
        self.workspace = compiled.take_workspace()
        self.user_loss = user_loss
        self.progress = progress
        self.training.plan = &compiled.plan
        self.training.theta = <char *> cnp.PyArray_DATA(theta)
        self.training.workspace = self.workspace.data
        self.training.immediate = immediate
        self.training.clip_norm = clip_norm
        self.training.max_grad_norm = max_grad_norm
        self.training.noise_multiplier = noise_multiplier
        self.training.noise_seed = noise_seed
        self.training.mask_seed = mask_seed
        self.training.shuffle_seed = shuffle_seed
        self.training.user_loss = call_user_loss
        self.training.wake = wake
        if compiled.has_user_map:
            self.training.user_map_raised = user_map_raised
        self.training.owner = <void *> self
        # A look at the clock at most every hundred microseconds of arithmetic.
        self.training.wake_every = max(1, int(1e7 / (compiled.description.flops + 1)))
        if optimizer is not None:
            self.training.optimizer = &optimizer.optimizer
            self.training.update = optimizer.kernel

    @property
    def rows(self):
        """The most samples of a step."""
        return self.compiled.description.rows

    def unload(self):
        """Let go of the samples."""
        self.samples = self.outputs = self.order = self.progress = None

    def close(self):
        """Give the workspace back."""
        if self.workspace is not None:
            self.compiled.give_workspace(self.workspace)
            self.workspace = None

    cdef void take_samples(self, Samples samples, long batch_rows):
        self.samples = samples
        self.training.data.targets = NULL
        self.training.data.inputs = <char *> cnp.PyArray_DATA(samples.inputs)
        if samples.targets is not None:
            self.training.data.targets = <char *> cnp.PyArray_DATA(samples.targets)
        self.training.data.weights = NULL
        if samples.weights is not None:
            self.training.data.weights = <char *> cnp.PyArray_DATA(samples.weights)
        self.training.data.order = NULL
        self.training.data.samples = samples.count
        self.training.batch_rows = batch_rows
        self.training.steps = (samples.count + batch_rows - 1) // batch_rows
        self.training.outputs = NULL

    def load(self, Samples samples, long batch_rows, *, bint shuffled=False, outputs=None):
        """The samples that `run` goes through, `batch_rows` a step; `outputs` receives F_n of each."""
        if not 0 < batch_rows <= self.compiled.description.rows:
            raise ValueError(f"batch_rows = {batch_rows} is not planned for")
        self.take_samples(samples, batch_rows)
        self.outputs = outputs
        if outputs is not None:
            _require(outputs, self.compiled.description.dtype, samples.count * self.compiled.plan.outputs,
                     "outputs", writeable=True)
            self.training.outputs = <char *> cnp.PyArray_DATA(outputs)
        self.order = np.empty(samples.count, np.int64) if shuffled else None
        if shuffled:
            self.training.data.order = <const int64_t *> cnp.PyArray_DATA(self.order)

    cdef void reset(self, uint64_t first_step) noexcept:
        self.training.first_step = first_step
        self.training.loss_sum = 0
        self.training.weight_sum = 0
        self.training.steps_done = 0
        self.training.outcome = FINISHED
        self.error = None

    cdef int report(self) except -1:
        """Raise what a user's function or a signal handler raised, or refuse a batch without weight."""
        self.compiled.report()
        if self.training.outcome == NO_WEIGHT:
            raise ValueError(
                f"sample_weight: the weights of batch {self.training.steps_done} sum to zero; the step was not made")
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return 0

    def run(self, cnp.ndarray rates, Forward validation=None):
        """One pass over the samples, a step a batch, and the loss of `validation` after it; without the GIL.

        Returns (mean loss, validation loss or None, steps done, the loss that was not finite or None).
        """
        cdef Training *training = &self.training
        cdef int64_t *order = <int64_t *> training.data.order
        cdef uint64_t epoch = self.writer.epochs
        cdef int threads = team_threads(training.plan.threads)
        _require(rates, np.dtype(np.float64), training.steps, "rates")
        training.rates = <const double *> cnp.PyArray_DATA(rates)
        self.reset(self.writer.steps)
        self.writer.epochs += 1
        with nogil:
            if training.max_grad_norm > 0:
                training.expected_rows = training.batch_rows
                run_private_team(training, order, threads)
            else:
                if order != NULL:
                    shuffle(training.shuffle_seed, epoch, training.data.samples, order)
                run_team(training, threads)
            if validation is not None and training.outcome == FINISHED:
                validation.run_without_gil()
        self.writer.steps += training.steps_done
        self.report()
        mean = training.loss_sum / training.weight_sum if training.weight_sum > 0 else float("nan")
        failed = training.failed_loss if training.outcome == LOSS_NOT_FINITE else None
        return mean, validation.mean_loss() if validation is not None else None, training.steps_done, failed

    def step(self, Samples samples, double rate):
        """One step on one batch. Returns (loss, whether it was finite and the step was made)."""
        self.take_samples(samples, samples.count)
        self.make_step(rate)
        self.report()
        return self.training.failed_loss if self.training.steps_done == 0 else self.training.loss_sum \
            / self.training.weight_sum, self.training.steps_done == 1

    cdef void make_step(self, double rate):
        cdef Training *training = &self.training
        cdef int threads = team_threads(training.plan.threads)
        training.rates = &rate
        self.reset(self.writer.steps)
        if training.max_grad_norm > 0:
            training.expected_rows = training.data.samples
            with nogil:
                run_private_team(training, NULL, threads)
        elif threads == 1 and training.plan.loss != NULL and self.compiled.flops < BRIEF:
            train(training, 0, 1)
        else:
            with nogil:
                run_team(training, threads)
        self.writer.steps += training.steps_done

    def try_step(self, X, y, double rate):
        """The loss of one step, or None where an argument is not just what the engine reads, or the loss is not
        finite: the caller then goes the long way round, which converts, checks and reports."""
        cdef Training *training = &self.training
        cdef const Plan *plan = training.plan
        cdef const Kernels *kernels = plan.kernels
        cdef long rows, i
        cdef const int64_t *labels
        if self.compiled.uses_blas or self.writer.busy or type(X) is not cnp.ndarray:
            return None
        if not has_shape(<cnp.ndarray> X, self.compiled.input_shape):
            return None
        rows = cnp.PyArray_DIM(<cnp.ndarray> X, 0)
        if (not 0 < rows <= self.compiled.rows
                or not is_batch(X, self.compiled.type_number, rows, plan.inputs)
                or not kernels.all_finite(rows * plan.inputs, cnp.PyArray_DATA(<cnp.ndarray> X))):
            return None
        if plan.labels:
            if not is_batch(y, cnp.NPY_INT64, rows, 1) or cnp.PyArray_NDIM(<cnp.ndarray> y) != 1:
                return None
            labels = <const int64_t *> cnp.PyArray_DATA(<cnp.ndarray> y)
            for i in range(rows):
                if labels[i] < 0 or labels[i] >= plan.outputs:
                    return None
        elif (not self.compiled.any_target or not is_batch(y, self.compiled.type_number, rows, plan.outputs)
                or not (has_shape(<cnp.ndarray> y, self.compiled.output_shape)
                        or (plan.outputs == 1 and cnp.PyArray_NDIM(<cnp.ndarray> y) == 1))
                or not kernels.all_finite(rows * plan.outputs, cnp.PyArray_DATA(<cnp.ndarray> y))):
            return None
        training.data.inputs = <char *> cnp.PyArray_DATA(<cnp.ndarray> X)
        training.data.targets = <char *> cnp.PyArray_DATA(<cnp.ndarray> y)
        training.data.weights = NULL
        training.data.order = NULL
        training.data.samples = training.batch_rows = rows
        training.steps = 1
        training.outputs = NULL
        self.writer.acquire()
        try:
            self.make_step(rate)
        finally:
            self.writer.busy = False
        self.report()
        return training.loss_sum / training.weight_sum if training.steps_done else None

    def differentiate(self, double scale, cnp.ndarray gradient):
        """The loss of the loaded samples, Σ c_i ℓ_i with c_i = scale s_i; `gradient` becomes its gradient."""
        cdef Training *training = &self.training
        cdef int threads = team_threads(training.plan.threads)
        cdef char *into = <char *> cnp.PyArray_DATA(gradient)
        _require(gradient, self.compiled.description.dtype, self.compiled.description.n_parameters, "out",
                 writeable=True)
        training.scale = scale
        self.reset(0)
        with nogil:
            if threads > 1:
                with parallel(num_threads=threads):
                    differentiate(training, into, threadid(), team_size())
            else:
                differentiate(training, into, 0, 1)
        self.report()
        return training.loss_sum


    def factors(self, norms, list deltas, list inputs):
        """Of the loaded samples: the norms of their gradients to `norms`, or the factors of each layer to arrays
        (None for a layer without weight)."""
        cdef Training *training = &self.training
        cdef int threads = team_threads(training.plan.threads)
        cdef double *norms_into = NULL
        cdef char **deltas_into = NULL
        cdef char **inputs_into = NULL
        cdef long k
        if norms is not None:
            _require(norms, np.dtype(np.float64), training.data.samples, "norms", writeable=True)
            norms_into = <double *> cnp.PyArray_DATA(<cnp.ndarray> norms)
        self.reset(0)
        try:
            if deltas:
                deltas_into = <char **> calloc(training.plan.depth, sizeof(char *))
                inputs_into = <char **> calloc(training.plan.depth, sizeof(char *))
                if deltas_into == NULL or inputs_into == NULL:
                    raise MemoryError("no memory for factors")
                for k in range(training.plan.depth):
                    if deltas[k] is not None:
                        self._require_factor(deltas[k], training.plan.layers[k].outputs)
                        self._require_factor(inputs[k], training.plan.layers[k].inputs)
                        deltas_into[k] = <char *> cnp.PyArray_DATA(<cnp.ndarray> deltas[k])
                        inputs_into[k] = <char *> cnp.PyArray_DATA(<cnp.ndarray> inputs[k])
            with nogil:
                if threads > 1:
                    with parallel(num_threads=threads):
                        collect_factors(training, norms_into, deltas_into, inputs_into, threadid(), team_size())
                else:
                    collect_factors(training, norms_into, deltas_into, inputs_into, 0, 1)
        finally:
            free(deltas_into)
            free(inputs_into)
        self.report()

    def _require_factor(self, array, columns):
        _require(array, self.theta.dtype, self.training.data.samples * columns, "factor", writeable=True)

    def pull_back(self, cnp.ndarray cotangent, cnp.ndarray gradient, cnp.ndarray input_slope):
        """The adjoint of the derivative of F_n at the loaded samples (Theorems 7 and 10), applied to `cotangent`:
        its part in θ goes to `gradient`, its part in x to `input_slope`."""
        cdef Training *training = &self.training
        dtype = self.compiled.description.dtype
        _require(cotangent, dtype, training.data.samples * training.plan.outputs, "cotangent")
        _require(input_slope, dtype, training.data.samples * training.plan.inputs, "dX", writeable=True)
        training.cotangent = <char *> cnp.PyArray_DATA(cotangent)
        training.input_slope = <char *> cnp.PyArray_DATA(input_slope)
        try:
            self.differentiate(1.0, gradient)
        finally:
            training.cotangent = NULL
            training.input_slope = NULL

cdef void run_team(Training *training, int threads) noexcept nogil:
    """The training loop on a team of threads."""
    if threads > 1:
        with parallel(num_threads=threads):
            train(training, threadid(), team_size())
    else:
        train(training, 0, 1)


cdef void run_private_team(Training *training, int64_t *chosen, int threads) noexcept nogil:
    """The private training loop on a team of threads."""
    cdef long samples = training.data.samples
    if threads > 1:
        with parallel(num_threads=threads):
            train_privately(training, chosen, threadid(), team_size())
    else:
        train_privately(training, chosen, 0, 1)
    training.data.samples = samples


cdef int team_threads(int planned) noexcept:
    return planned if may_use_threads() else 1


cdef int wake(Training *training, long step) noexcept with gil:
    cdef Session session = <Session> training.owner
    try:
        PyErr_CheckSignals()
        if session.progress is not None:
            session.progress(step)
    except BaseException as error:
        session.error = error
        return 0
    return 1


cdef bint user_map_raised(Training *training) noexcept nogil:
    return (<Session> training.owner).compiled.user_map_raised()


cdef int call_user_loss(Training *training, Batch *batch, double *loss) noexcept with gil:
    """ℓ and L from the user's functions of (y, t), on copies that they may keep."""
    cdef Session session = <Session> training.owner
    cdef const Plan *plan = training.plan
    cdef const Kernels *kernels = plan.kernels
    cdef char *place = loss_slope_place(plan, batch, 0)
    cdef cnp.ndarray values, slopes
    try:
        dtype = session.compiled.description.dtype
        shape = (batch.rows, *session.compiled.description.output_shape)
        y = copy_of(batch.targets, shape, dtype)
        t = copy_of(place, shape, dtype)
        values, slopes = session.user_loss(y, t)
        _require(values, dtype, batch.rows, "value(y, t)")
        _require(slopes, dtype, batch.rows * plan.outputs, "slope(y, t)")
        loss[0] = kernels.weighted_sum(batch.rows, batch.weights, batch.scale, cnp.PyArray_DATA(values))
        kernels.scale_rows(batch.rows, plan.outputs, batch.weights, batch.scale, cnp.PyArray_DATA(slopes))
        kernels.gather_rows(batch.rows, plan.outputs, NULL, cnp.PyArray_DATA(slopes), place)
    except BaseException as error:
        session.error = error
        return 0
    return 1


cdef copy_of(const char *data, shape, dtype):
    cdef cnp.npy_intp length = np.prod(shape)
    return cnp.PyArray_SimpleNewFromData(1, &length, dtype.num, <void *> data).copy().reshape(shape)


cdef class Forward:
    """A forward pass over samples: predictions, probabilities, or the loss."""
    cdef Inference inference
    cdef CompiledPlan compiled
    cdef Memory workspace
    cdef Samples samples
    cdef cnp.ndarray theta, outputs, losses
    cdef double weight
    cdef int threads

    def __init__(self, CompiledPlan compiled, cnp.ndarray theta, Samples samples, *, outputs=None,
                 bint losses=False, double weight=1, bint probabilities=False):
        """`weight`: Σ s_i, by which the sum of the losses is divided."""
        cdef Plan *plan = &compiled.plan
        cdef long blocks = (samples.count + plan.block_rows - 1) // plan.block_rows
        _require(theta, compiled.description.dtype, compiled.description.n_parameters, "theta")
        self.compiled = compiled
        self.theta = theta
        self.samples = samples
        self.weight = weight
        # Too little work for a team: one thread.
        serial = samples.count * compiled.description.flops < compiled.description.serial_flops
        self.threads = 1 if serial else max(1, min(team_threads(plan.threads), blocks))
        self.inference.plan = plan
        self.inference.theta = <char *> cnp.PyArray_DATA(theta)
        self.inference.data.inputs = <char *> cnp.PyArray_DATA(samples.inputs)
        self.inference.data.samples = samples.count
        self.inference.probabilities = probabilities
        if outputs is not None:
            _require(outputs, compiled.description.dtype, samples.count * plan.outputs, "out", writeable=True)
            self.outputs = outputs
            self.inference.outputs = <char *> cnp.PyArray_DATA(outputs)
        if losses:
            self.losses = np.zeros(blocks)
            self.inference.losses = <double *> cnp.PyArray_DATA(self.losses)
            self.inference.data.targets = <char *> cnp.PyArray_DATA(samples.targets)
            if samples.weights is not None:
                self.inference.data.weights = <char *> cnp.PyArray_DATA(samples.weights)
        self.workspace = compiled.take_workspace()
        self.inference.workspace = self.workspace.data

    cdef void run_without_gil(self) noexcept nogil:
        cdef Inference *inference = &self.inference
        cdef int threads = self.threads
        if threads > 1:
            with parallel(num_threads=threads):
                infer(inference, threadid(), team_size())
        else:
            infer(inference, 0, 1)

    def run(self):
        """The pass; its results lie in `outputs`, and in `mean_loss()`."""
        with nogil:
            self.run_without_gil()
        self.compiled.report()

    def mean_loss(self):
        """Σ s_i ℓ_i / Σ s_i, the blocks in order."""
        return sum(self.losses.tolist()) / self.weight if self.losses is not None else None

    def close(self):
        """Give the workspace back."""
        if self.workspace is not None:
            self.compiled.give_workspace(self.workspace)
            self.workspace = None

    @staticmethod
    def try_one(CompiledPlan compiled, cnp.ndarray theta, X):
        """F_n of few samples on this thread, or None where X is not just what the engine reads."""
        cdef const Plan *plan = &compiled.plan
        cdef Inference inference
        cdef cnp.npy_intp[32] shape
        cdef cnp.ndarray outputs
        cdef Memory workspace
        cdef long rows
        cdef int axis, axes = len(compiled.output_shape)
        if compiled.uses_blas or type(X) is not cnp.ndarray or axes > 31:
            return None
        if not has_shape(<cnp.ndarray> X, compiled.input_shape):
            return None
        rows = cnp.PyArray_DIM(<cnp.ndarray> X, 0)
        if (rows * compiled.flops > BRIEF or not is_batch(X, compiled.type_number, rows, plan.inputs)
                or not plan.kernels.all_finite(rows * plan.inputs, cnp.PyArray_DATA(<cnp.ndarray> X))):
            return None
        shape[0] = rows
        for axis in range(axes):
            shape[axis + 1] = <long> compiled.output_shape[axis]
        outputs = cnp.PyArray_EMPTY(axes + 1, shape, compiled.type_number, 0)
        workspace = compiled.take_workspace()
        inference.plan = plan
        inference.theta = <char *> cnp.PyArray_DATA(theta)
        inference.workspace = workspace.data
        inference.data.inputs = <char *> cnp.PyArray_DATA(<cnp.ndarray> X)
        inference.data.samples = rows
        inference.outputs = <char *> cnp.PyArray_DATA(outputs)
        inference.losses = NULL
        inference.probabilities = False
        infer(&inference, 0, 1)
        compiled.give_workspace(workspace)
        compiled.report()
        return outputs


cdef class TangentPass:
    """The derivative of F_n along a direction, and second-order products, over samples."""
    cdef Tangents tangents
    cdef CompiledPlan compiled
    cdef Samples samples
    cdef cnp.ndarray theta
    cdef int threads

    def __init__(self, CompiledPlan compiled, cnp.ndarray theta, Samples samples):
        cdef Plan *plan = &compiled.plan
        cdef long blocks = (samples.count + plan.block_rows - 1) // plan.block_rows
        _require(theta, compiled.description.dtype, compiled.description.n_parameters, "theta")
        self.compiled = compiled
        self.theta = theta
        self.samples = samples
        serial = samples.count * compiled.description.flops < compiled.description.serial_flops
        self.threads = 1 if serial else max(1, min(team_threads(plan.threads), blocks))
        self.tangents.plan = plan
        self.tangents.theta = <char *> cnp.PyArray_DATA(theta)
        self.tangents.data.samples = samples.count
        self.tangents.data.inputs = <char *> cnp.PyArray_DATA(samples.inputs)
        if samples.targets is not None:
            self.tangents.data.targets = <char *> cnp.PyArray_DATA(samples.targets)
        if samples.weights is not None:
            self.tangents.data.weights = <char *> cnp.PyArray_DATA(samples.weights)
        # A fixed number of parts, so that the sum does not depend on the threads.
        self.tangents.chunks = max(1, min(8, blocks))

    cdef set_direction(self, theta_tangent, input_tangent):
        cdef Tangents *tangents = &self.tangents
        tangents.theta_tangent = NULL
        tangents.input_tangent = NULL
        if theta_tangent is not None:
            _require(theta_tangent, self.theta.dtype, self.theta.size, "dtheta")
            tangents.theta_tangent = <char *> cnp.PyArray_DATA(<cnp.ndarray> theta_tangent)
        if input_tangent is not None:
            _require(input_tangent, self.theta.dtype, self.samples.count * tangents.plan.inputs, "dX")
            tangents.input_tangent = <char *> cnp.PyArray_DATA(<cnp.ndarray> input_tangent)

    def push(self, theta_tangent, input_tangent, cnp.ndarray outputs, cnp.ndarray output_tangents):
        """F_n and its derivative along (theta_tangent, input_tangent), either of which may be None."""
        cdef Tangents *tangents = &self.tangents
        cdef int threads = self.threads
        cdef Memory workspace
        for array in (outputs, output_tangents):
            _require(array, self.theta.dtype, self.samples.count * tangents.plan.outputs, "out", writeable=True)
        self.set_direction(theta_tangent, input_tangent)
        tangents.outputs = <char *> cnp.PyArray_DATA(outputs)
        tangents.output_tangents = <char *> cnp.PyArray_DATA(output_tangents)
        workspace = self.compiled.take_workspace()
        tangents.workspace = workspace.data
        with nogil:
            if threads > 1:
                with parallel(num_threads=threads):
                    push_all(tangents, threadid(), team_size())
            else:
                push_all(tangents, 0, 1)
        self.compiled.give_workspace(workspace)
        self.compiled.report()

    def product(self, cnp.ndarray direction, double scale, bint gauss_newton, slopes=None, curvatures=None):
        """The Hessian of Σ c_i ℓ_i, or Jᵀ ℓ'' J, times `direction`; c_i = scale s_i.

        `slopes` and `curvatures`: c_i L and c_i ℓ'' dF_n, where the loss is a user's.
        """
        cdef Tangents *tangents = &self.tangents
        cdef int threads = min(self.threads, tangents.chunks)
        cdef long parameters = self.theta.size, chunk
        cdef const Kernels *kernels = tangents.plan.kernels
        cdef Memory workspace
        parts = np.zeros((tangents.chunks, parameters), self.theta.dtype)
        self.set_direction(direction, None)
        tangents.scale = scale
        tangents.gauss_newton = gauss_newton
        tangents.slopes = tangents.curvatures = NULL
        if curvatures is not None:
            for array in (slopes, curvatures):
                _require(array, self.theta.dtype, self.samples.count * tangents.plan.outputs, "curvature")
            tangents.slopes = <char *> cnp.PyArray_DATA(<cnp.ndarray> slopes)
            tangents.curvatures = <char *> cnp.PyArray_DATA(<cnp.ndarray> curvatures)
        tangents.parts = <char *> cnp.PyArray_DATA(<cnp.ndarray> parts)
        workspace = self.compiled.take_workspace()
        tangents.workspace = workspace.data
        with nogil:
            if threads > 1:
                with parallel(num_threads=threads):
                    second_order(tangents, parameters, threadid(), team_size())
            else:
                second_order(tangents, parameters, 0, 1)
            for chunk in range(1, tangents.chunks):
                kernels.add(parameters, tangents.parts + chunk * parameters * kernels.real_bytes, tangents.parts)
        self.compiled.give_workspace(workspace)
        self.compiled.report()
        return parts[0]


def scale_rows(cnp.ndarray x, weights, double scale):
    """x_i ← scale s_i x_i, in place, for a loss of the user's."""
    cdef const Kernels *kernels = kernels_in_use(x.itemsize)
    cdef long rows = x.shape[0]
    _require(x, x.dtype, x.size, "x", writeable=True)
    if weights is not None:
        _require(weights, x.dtype, rows, "sample_weight")
    kernels.scale_rows(rows, x.size // max(1, rows),
                       NULL if weights is None else cnp.PyArray_DATA(<cnp.ndarray> weights), scale,
                       cnp.PyArray_DATA(x))


def weight_product(CompiledPlan compiled, cnp.ndarray inputs, cnp.ndarray delta, cnp.ndarray gradient):
    """C††(inputs, delta) and ι*(delta) of a plan of one layer, summed over samples."""
    cdef const Layer *layer = &compiled.plan.layers[0]
    cdef const Kernels *kernels = compiled.plan.kernels
    cdef Memory workspace
    cdef Block block
    dtype = compiled.description.dtype
    block.rows = inputs.shape[0]
    block.first = block.first_row = 0
    block.count = layer.inputs
    block.draw = NULL
    block.without_bias = 0
    _require(inputs, dtype, block.rows * layer.inputs, "inputs")
    _require(delta, dtype, block.rows * layer.outputs, "delta")
    _require(gradient, dtype, layer.weight_count + layer.bias_count, "gradient", writeable=True)
    workspace = compiled.take_workspace()
    block.scratch = workspace.data + compiled.plan.scratch
    layer.map.adjoint_weight(layer, &block, cnp.PyArray_DATA(inputs), layer.inputs, cnp.PyArray_DATA(delta), 0,
                             cnp.PyArray_DATA(gradient))
    if layer.bias_count:
        layer.map.gather(layer, &block, cnp.PyArray_DATA(delta), 0,
                         <char *> cnp.PyArray_DATA(gradient) + layer.weight_count * kernels.real_bytes)
    compiled.give_workspace(workspace)
    compiled.report()
