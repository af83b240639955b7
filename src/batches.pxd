"""The data of a run, batch by batch: which samples make one, gathered side by side, and their losses."""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from kernels cimport Optimizer, OptimizerKernel, first_of_share
from kept cimport Batch
from plan cimport Plan


cdef enum Outcome:
    FINISHED
    LOSS_NOT_FINITE
    USER_RAISED               # a user's own loss or map
    INTERRUPTED


cdef struct Data:
    const char *inputs        # (samples, d_0)
    const char *targets       # labels (samples,) or (samples, d_n)
    const char *weights       # s_i (samples,); NULL: all one
    const int64_t *order      # which sample comes when; NULL: as they lie
    long samples


cdef struct Training:
    const Plan *plan
    Data data
    long batch_rows
    long steps
    long begin, end           # the steps that `train` makes in one go
    double last_wake
    const double *rates       # the learning rate of each step that is made
    long skipped              # batches of this call, so far, that ask for no step
    bint immediate            # update each panel when its G_k is known (Remark 8 iii)
    double clip_norm          # 0: none
    # Of a private step (factors.pxd): each sample's norm is clipped to max_grad_norm, and noise of
    # noise_multiplier * max_grad_norm is added to their sum; 0: an ordinary step.
    double max_grad_norm, noise_multiplier
    uint64_t noise_seed
    long expected_rows
    double scale              # `differentiate`: 1 / Σ s_i over all the data
    Optimizer *optimizer
    const OptimizerKernel *update
    uint64_t mask_seed, first_step
    uint64_t shuffle_seed
    char *theta
    char *workspace
    char *outputs             # (samples, d_n): F_n as each sample's step saw it; NULL: not wanted
    const char *cotangent     # (samples, d_n), in the place of L (Theorems 7 and 10); NULL: the loss
    char *input_slope         # (samples, d_0): C_1†(T, W_1); NULL: not wanted
    # A user's own loss: sets *loss and puts c_i L in the place of F_n; returns whether it went well.
    int (*user_loss)(Training *, Batch *, double *) noexcept nogil
    # Looks at signals and reports progress; returns whether to go on.
    int (*wake)(Training *, long) noexcept nogil
    # Whether a user's map has raised; NULL: there is none. Nets with one run on one thread.
    bint (*user_map_raised)(Training *) noexcept nogil
    long wake_every           # steps between two looks at the clock
    void *owner
    # What the loop reports.
    double loss_sum, weight_sum
    double failed_loss
    long steps_done
    Outcome outcome


cdef inline double weight_of_batch(const Plan *plan, const Data *data, long first, long rows) noexcept nogil:
    """Σ s_i over a batch, in the order of its samples."""
    cdef double total = 0
    cdef long i, sample
    if data.weights == NULL:
        return rows
    for i in range(first, first + rows):
        sample = data.order[i] if data.order != NULL else i
        if plan.kernels.real_bytes == 8:
            total += (<const double *> data.weights)[sample]
        else:
            total += (<const float *> data.weights)[sample]
    return total


cdef inline void point_to_gathered(const Plan *plan, const Data *data, Batch *batch) noexcept nogil:
    """Where its samples lie once they have been gathered: in its workspace."""
    batch.input = batch.workspace + plan.batch_input
    batch.targets = batch.workspace + plan.batch_targets
    if data.weights != NULL:
        batch.weights = batch.workspace + plan.batch_weights


cdef inline Batch describe_batch(const Training *training, long step) noexcept nogil:
    """The batch of a step: where its samples lie, or where they will have been gathered."""
    cdef const Plan *plan = training.plan
    cdef const Data *data = &training.data
    cdef long first = step * training.batch_rows
    cdef size_t target_bytes = sizeof(int64_t) if plan.labels else plan.outputs * plan.kernels.real_bytes
    cdef double weight
    cdef Batch batch
    batch.rows = min(training.batch_rows, data.samples - first)
    batch.theta = training.theta
    batch.workspace = training.workspace
    batch.output = NULL
    batch.input_slope = NULL
    if training.input_slope != NULL:
        batch.input_slope = training.input_slope + first * plan.inputs * plan.kernels.real_bytes
    batch.targets = NULL
    weight = weight_of_batch(plan, data, first, batch.rows)
    batch.scale = 1 / weight if weight > 0 else 0
    batch.draw.seed = training.mask_seed
    batch.draw.step = training.first_step + step
    batch.draw.training = 1
    batch.draw.first_row = 0
    batch.weights = NULL
    if data.order != NULL:
        point_to_gathered(plan, data, &batch)
    else:
        batch.input = data.inputs + first * plan.inputs * plan.kernels.real_bytes
        if data.targets != NULL:
            batch.targets = data.targets + first * target_bytes
        if data.weights != NULL:
            batch.weights = data.weights + first * plan.kernels.real_bytes
    return batch


cdef inline void gather(const Training *training, const Batch *batch, long first, long first_row,
                        long rows) noexcept nogil:
    """The samples order[first + first_row ..], side by side in the workspace."""
    cdef const Plan *plan = training.plan
    cdef const Data *data = &training.data
    cdef const int64_t *order = data.order + first + first_row
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef int64_t *labels
    cdef long i
    plan.kernels.gather_rows(rows, plan.inputs, order, data.inputs,
                             <char *> batch.input + first_row * plan.inputs * real_bytes)
    if plan.labels:
        labels = <int64_t *> batch.targets + first_row
        for i in range(rows):
            labels[i] = (<const int64_t *> data.targets)[order[i]]
    else:
        plan.kernels.gather_rows(rows, plan.outputs, order, data.targets,
                                 <char *> batch.targets + first_row * plan.outputs * real_bytes)
    if data.weights != NULL:
        plan.kernels.gather_rows(rows, 1, order, data.weights, <char *> batch.weights + first_row * real_bytes)


cdef inline void gather_share(const Training *training, const Batch *batch, long first, int thread,
                               int threads) noexcept nogil:
    """The thread's share of the batch."""
    cdef long first_row = first_of_share(batch.rows, thread, threads)
    if training.data.order != NULL:
        gather(training, batch, first, first_row, first_of_share(batch.rows, thread + 1, threads) - first_row)


cdef inline void record_outputs(const Training *training, long first, long rows,
                                const char *output) noexcept nogil:
    """F_n of a block, to the places that its samples have in the data."""
    cdef size_t row_bytes = training.plan.outputs * training.plan.kernels.real_bytes
    cdef long i, sample
    for i in range(rows):
        sample = training.data.order[first + i] if training.data.order != NULL else first + i
        memcpy(training.outputs + sample * row_bytes, output + i * row_bytes, row_bytes)


cdef inline void add_losses(const Plan *plan, const Batch *batch, long first_row, long rows, const char *output,
                            char *slope, long run, double *losses) noexcept nogil:
    """Σ c_i ℓ(y_i, F_n) over each run of so many samples, added to its sum in `losses`, and c_i L."""
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef size_t target_bytes = sizeof(int64_t) if plan.labels else plan.outputs * real_bytes
    plan.loss.evaluate(
        rows, plan.outputs, plan.labels, batch.targets + first_row * target_bytes,
        batch.weights + first_row * real_bytes if batch.weights != NULL else NULL, batch.scale, output, slope, run,
        losses)


cdef inline void sum_losses(const Training *training, const Batch *batch, long first_row, long rows,
                            const char *output, char *slope, bint accumulate, double *losses) noexcept nogil:
    """The sums of losses of some samples, added to those before with `accumulate`, and c_i L."""
    cdef const Plan *plan = training.plan
    cdef long sums = (rows + plan.loss_rows - 1) // plan.loss_rows if rows > plan.loss_rows else 1
    cdef long number
    if not accumulate:
        for number in range(sums):
            losses[number] = 0
    if training.cotangent == NULL:
        add_losses(plan, batch, first_row, rows, output, slope, plan.loss_rows, losses)
