"""Passes that change nothing: forward, with tangents, and one product. Included by engine.pyx."""

# Samples of a block, at least: the rows of a tile.
cdef enum:
    LEAST_ROWS = 8


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
        cdef long rows = plan.block_rows, blocks
        _require(theta, compiled.description.dtype, compiled.description.n_parameters, "theta")
        self.compiled = compiled
        self.theta = theta
        self.samples = samples
        self.weight = weight
        # Too little work for a team: one thread.
        serial = samples.count * compiled.description.flops < compiled.description.serial_flops
        self.threads = 1 if serial else max(1, team_threads(plan.threads))
        if not losses and not compiled.uses_blas:
            # What is neither summed nor left to BLAS may be cut so that every thread has some.
            rows = min(rows, max(LEAST_ROWS, (samples.count + self.threads - 1) // self.threads))
        blocks = (samples.count + rows - 1) // rows
        self.threads = max(1, min(self.threads, blocks))
        self.inference.block_rows = rows
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
        inference.block_rows = plan.block_rows
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
                    second_order_on_thread(tangents, parameters, threadid(), team_size())
            else:
                second_order_on_thread(tangents, parameters, 0, 1)
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
    cdef char *h
    dtype = compiled.description.dtype
    cdef long rows = inputs.shape[0], row = 0
    cdef size_t real_bytes = kernels.real_bytes
    cdef char *product = <char *> cnp.PyArray_DATA(gradient)
    block.first = block.first_row = 0
    block.count = layer.inputs
    block.draw = NULL
    block.without_bias = 0
    block.epilogue = NULL
    _require(inputs, dtype, rows * layer.inputs, "inputs")
    _require(delta, dtype, rows * layer.outputs, "delta")
    _require(gradient, dtype, layer.weight_count + layer.bias_count, "gradient", writeable=True)
    workspace = compiled.take_workspace()
    block.scratch = workspace.data + compiled.plan.scratch
    while row < rows:
        block.rows = min(<long> compiled.rows, rows - row)
        h = <char *> cnp.PyArray_DATA(delta) + row * layer.outputs * real_bytes
        layer.map.adjoint_weight(
            layer, &block, <char *> cnp.PyArray_DATA(inputs) + row * layer.inputs * real_bytes, layer.inputs, h,
            row > 0, product)
        if layer.bias_count:
            layer.map.gather(layer, &block, h, row > 0, product + layer.weight_count * real_bytes)
        row += block.rows
    compiled.give_workspace(workspace)
    compiled.report()
