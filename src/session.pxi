"""Sessions: a net, a plan and samples, ready to train or to differentiate. Included by engine.pyx."""

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
            raise RuntimeError(
                "the net is being trained, by another thread or by the call that this one is made from")
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
                _require(targets, INT64, self.count, "y")
                if label_outside(targets, plan.outputs) >= 0:
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
    cdef Pace pace
    cdef readonly CompiledPlan compiled
    cdef readonly OptimizerState optimizer
    cdef Writer writer
    cdef Memory workspace
    cdef public object progress
    cdef object user_loss, error
    cdef cnp.ndarray theta, order, outputs
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
        self.training.rates = NULL

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
        self.training.last_wake = seconds_now()
        self.error = None

    cdef int report(self) except -1:
        """Raise what a user's function or a signal handler raised."""
        self.compiled.report()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return 0

    def run(self, cnp.ndarray rates not None, Forward validation=None):
        """A pass over the samples for each row of `rates`, a step a batch; without the GIL.

        After the last one comes the loss of `validation`. Returns ([(mean loss, seconds) of each pass],
        validation loss or None, steps done in the last pass, the loss that was not finite or None).
        """
        cdef Training *training = &self.training
        cdef long epochs = len(rates), epoch
        cdef double start
        _require(rates, FLOAT64, epochs * training.steps, "rates")
        training.skipped = 0
        passes = []
        for epoch in range(epochs):
            training.rates = <const double *> cnp.PyArray_DATA(rates) + epoch * training.steps
            start = seconds_now()
            self.make_pass(validation if epoch == epochs - 1 else None)
            self.report()
            if validation is not None:
                validation.compiled.report()
            passes.append((training.loss_sum / training.weight_sum if training.weight_sum > 0 else float("nan"),
                           seconds_now() - start))
            if training.outcome != FINISHED:
                break
            PyErr_CheckSignals()
        failed = training.failed_loss if training.outcome == LOSS_NOT_FINITE else None
        return passes, validation.mean_loss() if validation is not None else None, training.steps_done, failed

    cdef void make_pass(self, Forward validation):
        """One epoch: its order is drawn, its steps are made and counted."""
        cdef Training *training = &self.training
        cdef int64_t *order = <int64_t *> training.data.order
        cdef uint64_t epoch = self.writer.epochs
        cdef int threads = team_threads(training.plan.threads)
        self.reset(self.writer.steps)
        self.writer.epochs += 1
        with nogil:
            if training.max_grad_norm > 0:
                training.expected_rows = training.batch_rows
                run_private_team(training, order, threads)
            else:
                if order != NULL:
                    shuffle(training.shuffle_seed, epoch, training.data.samples, order)
                run_team(training, &self.pace, threads)
            if validation is not None and training.outcome == FINISHED:
                validation.run_without_gil()
        self.writer.steps += training.steps_done

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
        training.skipped = 0
        self.reset(self.writer.steps)
        if training.max_grad_norm > 0:
            training.expected_rows = training.data.samples
            with nogil:
                run_private_team(training, NULL, threads)
        elif threads == 1 and training.plan.loss != NULL and self.compiled.flops < BRIEF:
            training.begin, training.end = 0, 1
            train_on_thread(training, 0, 1)
        else:
            with nogil:
                run_team(training, &self.pace, threads)
        self.writer.steps += training.steps_done

    def try_step(self, X, y, double rate):
        """The loss of one step, or None where an argument is not just what the engine reads, or the loss is not
        finite: the caller then goes the long way round, which converts, checks and reports."""
        cdef Training *training = &self.training
        cdef const Plan *plan = training.plan
        cdef const Kernels *kernels = plan.kernels
        cdef long rows
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
            if place_outside(<const int64_t *> cnp.PyArray_DATA(<cnp.ndarray> y), rows, plan.outputs) >= 0:
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
        cdef MeetingPoint point
        point.arrived = point.generation = point.sleeping = 0
        _require(gradient, self.compiled.description.dtype, self.compiled.description.n_parameters, "out",
                 writeable=True)
        training.scale = scale
        self.reset(0)
        with nogil:
            if threads > 1:
                with parallel(num_threads=threads):
                    join_team(&point)
                    differentiate_on_thread(training, into, threadid(), team_size())
            else:
                differentiate_on_thread(training, into, 0, 1)
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
        cdef MeetingPoint point
        point.arrived = point.generation = point.sleeping = 0
        if norms is not None:
            _require(norms, FLOAT64, training.data.samples, "norms", writeable=True)
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
                        join_team(&point)
                        collect_factors_on_thread(
                            training, norms_into, deltas_into, inputs_into, threadid(), team_size())
                else:
                    collect_factors_on_thread(training, norms_into, deltas_into, inputs_into, 0, 1)
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

# The engine's loops, on one thread of a call, with subnormal numbers as zero (subnormals.h).


cdef inline void train_on_thread(Training *training, int thread, int threads) noexcept nogil:
    cdef uint64_t before = drop_subnormals()
    train(training, thread, threads)
    set_arithmetic_mode(before)


cdef inline void train_privately_on_thread(Training *training, int64_t *chosen, int thread,
                                           int threads) noexcept nogil:
    cdef uint64_t before = drop_subnormals()
    train_privately(training, chosen, thread, threads)
    set_arithmetic_mode(before)


cdef inline void differentiate_on_thread(Training *training, char *gradient, int thread,
                                         int threads) noexcept nogil:
    cdef uint64_t before = drop_subnormals()
    differentiate(training, gradient, thread, threads)
    set_arithmetic_mode(before)


cdef inline void collect_factors_on_thread(Training *training, double *norms, char **deltas, char **inputs,
                                           int thread, int threads) noexcept nogil:
    cdef uint64_t before = drop_subnormals()
    collect_factors(training, norms, deltas, inputs, thread, threads)
    set_arithmetic_mode(before)


cdef inline void second_order_on_thread(Tangents *tangents, long parameters, int thread,
                                        int threads) noexcept nogil:
    cdef uint64_t before = drop_subnormals()
    second_order(tangents, parameters, thread, threads)
    set_arithmetic_mode(before)


cdef void run_team(Training *training, Pace *pace, int threads) noexcept nogil:
    """The training loop on a team of threads, or on one where that is quicker (pace.pxd)."""
    cdef MeetingPoint point
    cdef double start
    cdef int team
    training.end = 0
    while training.end < training.steps and training.outcome == FINISHED:
        start = seconds_now()
        team = team_of_segment(pace, threads)
        training.begin = training.end
        training.end += steps_of_segment(pace, team, threads, training.steps - training.begin)
        if team > 1:
            point.arrived = point.generation = point.sleeping = 0
            with parallel(num_threads=team):
                join_team(&point)
                train_on_thread(training, threadid(), team_size())
        else:
            train_on_thread(training, 0, 1)
        note_segment(pace, team, seconds_now() - start, training.end - training.begin)


cdef void run_private_team(Training *training, int64_t *chosen, int threads) noexcept nogil:
    """The private training loop on a team of threads."""
    cdef long samples = training.data.samples
    cdef MeetingPoint point
    point.arrived = point.generation = point.sleeping = 0
    if threads > 1:
        with parallel(num_threads=threads):
            join_team(&point)
            train_privately_on_thread(training, chosen, threadid(), team_size())
    else:
        train_privately_on_thread(training, chosen, 0, 1)
    training.data.samples = samples


cdef int team_threads(int planned) noexcept:
    return planned if may_use_threads() else 1


cdef int wake(Training *training, long step) noexcept with gil:
    cdef Session session = <Session> training.owner
    cdef uint64_t before = keep_subnormals()
    try:
        PyErr_CheckSignals()
        if session.progress is not None:
            session.progress(step)
    except BaseException as error:
        session.error = error
        return 0
    finally:
        set_arithmetic_mode(before)
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
    cdef uint64_t before = keep_subnormals()
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
    finally:
        set_arithmetic_mode(before)
    return 1


cdef copy_of(const char *data, shape, dtype):
    cdef cnp.npy_intp length = np.prod(shape)
    return cnp.PyArray_SimpleNewFromData(1, &length, dtype.num, <void *> data).copy().reshape(shape)
