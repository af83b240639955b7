"""The training loop: gather a batch, run Algorithm 2 over it, update. No allocation, no lock and no Python in a
step; every thread of the team runs the same loop and takes its share of each part.
"""
from libc.math cimport isfinite, sqrt
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, memset

from algorithm cimport (
    RUN_LENGTH, SHARED_LENGTH, Batch, Sink, add_part, backward, backward_block, backward_from_factors,
    begin_backward, end_of_part, forward, forward_by_layers, forward_to_checkpoints, loss_slope_place,
    output_of_batch, parts_of, place_of_part,
)
from kernels cimport Layer, Optimizer, OptimizerKernel, meet, seconds_now
from plan cimport Plan

cdef enum Outcome:
    FINISHED
    LOSS_NOT_FINITE
    NO_WEIGHT                 # the weights of a batch sum to zero
    USER_RAISED               # a user's own loss or map
    INTERRUPTED

# Between two looks at signals and at the progress bar.
cdef enum:
    WAKE_MILLISECONDS = 50


# As in torch.nn.utils.clip_grad_norm_.
cdef extern from *:
    """
    #define CLIP_EPSILON 1e-6
    """
    const double CLIP_EPSILON


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
    const double *rates       # the learning rate of each step
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


cdef inline Batch describe_batch(const Training *training, long step) noexcept nogil:
    """The batch of a step: where its samples lie, or where they will have been gathered."""
    cdef const Plan *plan = training.plan
    cdef const Data *data = &training.data
    cdef long first = step * training.batch_rows
    cdef size_t target_bytes = sizeof(int64_t) if plan.labels else plan.outputs * plan.kernels.real_bytes
    cdef Batch batch
    batch.rows = min(training.batch_rows, data.samples - first)
    batch.theta = training.theta
    batch.workspace = training.workspace
    batch.output = NULL
    batch.input_slope = NULL
    if training.input_slope != NULL:
        batch.input_slope = training.input_slope + first * plan.inputs * plan.kernels.real_bytes
    batch.targets = NULL
    batch.scale = 1 / weight_of_batch(plan, data, first, batch.rows)
    batch.draw.seed = training.mask_seed
    batch.draw.step = training.first_step + step
    batch.draw.training = 1
    batch.draw.first_row = 0
    batch.weights = NULL
    if data.order != NULL:
        batch.input = training.workspace + plan.batch_input
        batch.targets = training.workspace + plan.batch_targets
        if data.weights != NULL:
            batch.weights = training.workspace + plan.batch_weights
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
    cdef long first_row = batch.rows * thread // threads
    if training.data.order != NULL:
        gather(training, batch, first, first_row, batch.rows * (thread + 1) // threads - first_row)


cdef inline void record_outputs(const Training *training, long first, long rows,
                                const char *output) noexcept nogil:
    """F_n of a block, to the places that its samples have in the data."""
    cdef size_t row_bytes = training.plan.outputs * training.plan.kernels.real_bytes
    cdef long i, sample
    for i in range(rows):
        sample = training.data.order[first + i] if training.data.order != NULL else first + i
        memcpy(training.outputs + sample * row_bytes, output + i * row_bytes, row_bytes)


cdef inline double block_loss(const Plan *plan, const Batch *batch, long first_row, long rows,
                              const char *output, char *slope) noexcept nogil:
    """Σ c_i ℓ(y_i, F_n) over a block, and c_i L."""
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef size_t target_bytes = sizeof(int64_t) if plan.labels else plan.outputs * real_bytes
    return plan.loss.evaluate(
        rows, plan.outputs, plan.labels, batch.targets + first_row * target_bytes,
        batch.weights + first_row * real_bytes if batch.weights != NULL else NULL, batch.scale, output, slope)


cdef inline void sum_losses(const Training *training, const Batch *batch, long first_row, long rows,
                            const char *output, char *slope, bint accumulate, double *losses) noexcept nogil:
    """The sums of losses of some samples, added to those before with `accumulate`, and c_i L."""
    cdef const Plan *plan = training.plan
    cdef size_t row_bytes = plan.outputs * plan.kernels.real_bytes
    cdef long done = 0, count
    cdef double loss
    while done < rows:
        count = min(plan.loss_rows, rows - done)
        loss = 0 if training.cotangent != NULL else block_loss(
            plan, batch, first_row + done, count, output + done * row_bytes, slope + done * row_bytes)
        losses[0] = losses[0] + loss if accumulate else loss
        losses += 1
        done += count


cdef inline void take_losses(const Training *training, const Batch *batch, long first, long first_row, long rows,
                             char *output, double *losses, int thread) noexcept nogil:
    """Sums of losses over samples that have gone forward, whose F_n is `output`, and T of the last layer."""
    cdef const Plan *plan = training.plan
    cdef size_t row_bytes = plan.outputs * plan.kernels.real_bytes
    cdef char *slope = loss_slope_place(plan, batch, first_row)
    if training.outputs != NULL:
        record_outputs(training, first + first_row, rows, output)
    if training.cotangent == NULL and plan.loss == NULL:
        if output != slope:
            memcpy(slope, output, rows * row_bytes)
        return
    if training.cotangent != NULL:
        memcpy(slope, training.cotangent + (first + first_row) * row_bytes, rows * row_bytes)
    losses += first_row // plan.loss_rows if first_row > 0 else 0  # a division is dear to a small net
    sum_losses(training, batch, first_row, rows, output, slope, 0, losses)
    begin_backward(plan, batch, first_row, rows, thread)
    if plan.two_phase:
        backward_block(plan, batch, first_row, rows, thread)


cdef inline double forward_and_loss(Training *training, Batch *batch, long first, int thread,
                                    int threads) noexcept nogil:
    """The forward half of a step, and T of the last layer. Returns the loss of the batch, on every thread."""
    cdef const Plan *plan = training.plan
    cdef double *losses = <double *> (training.workspace + plan.block_losses)
    cdef long sums = (batch.rows + plan.loss_rows - 1) // plan.loss_rows if batch.rows > plan.loss_rows else 1
    cdef long first_row, end_row, rows
    cdef double loss = 0
    if plan.resume > 0 or plan.by_layers:
        gather_share(training, batch, first, thread, threads)
        meet(threads)
    if plan.resume > 0:
        forward_to_checkpoints(plan, batch, thread, threads)
    if plan.by_layers:
        forward_by_layers(plan, batch, thread, threads)
    if plan.by_layers:
        # Each thread has a share of the samples, those of one or more sums.
        first_row = sums * thread // threads * plan.loss_rows
        end_row = min(batch.rows, sums * (thread + 1) // threads * plan.loss_rows)
        if first_row < end_row:
            take_losses(training, batch, first, first_row, end_row - first_row,
                        output_of_batch(plan, batch, first_row), losses, thread)
    else:
        first_row = thread * plan.block_rows
        while first_row < batch.rows:
            rows = min(plan.block_rows, batch.rows - first_row)
            if training.data.order != NULL and plan.resume == 0:
                gather(training, batch, first, first_row, rows)
            take_losses(training, batch, first, first_row, rows, forward(plan, batch, first_row, rows, thread),
                        losses, thread)
            first_row += threads * plan.block_rows
    if plan.loss == NULL and training.cotangent == NULL:
        meet(threads)
        if thread == 0:
            if training.user_loss(training, batch, losses):
                begin_backward(plan, batch, 0, batch.rows, thread)
            else:
                training.outcome = USER_RAISED
        sums = 1
    meet(threads)
    for number in range(sums):
        loss += losses[number]
    return loss


cdef inline double stream(Training *training, const Batch *batch, long first, int thread,
                          int threads) noexcept nogil:
    """Both halves of a step, for chunks of blocks of samples: each block goes forward and back in the thread's own
    workspace, and its G_k are added to the chunk's part. Returns the loss of the batch, on every thread."""
    cdef const Plan *plan = training.plan
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef double *losses = <double *> (training.workspace + plan.block_losses)
    cdef long blocks = parts_of(plan, batch.rows)
    cdef long sums = (plan.block_rows + plan.loss_rows - 1) // plan.loss_rows  # of a chunk
    cdef long chunk = thread, block, first_row, number
    cdef const Data *data = &training.data
    cdef Batch part
    cdef Sink sink
    cdef double loss = 0
    cdef char *output
    sink.factor = 1
    sink.squares = NULL
    while chunk < plan.streams:
        memset(losses + chunk * sums, 0, sums * sizeof(double))
        sink.gradient = training.workspace + plan.gradient + (
            place_of_part(plan, chunk) * plan.parameters * real_bytes)
        sink.accumulate = 0
        for block in range(chunk * blocks // plan.streams, (chunk + 1) * blocks // plan.streams):
            first_row = end_of_part(plan, batch.rows, block - 1, blocks)
            part = part_of_batch(plan, batch, first_row, end_of_part(plan, batch.rows, block, blocks) - first_row,
                                 data, thread)
            if data.order != NULL:
                gather(training, &part, first + first_row, 0, part.rows)
            output = forward(plan, &part, 0, part.rows, 0)
            if training.outputs != NULL:
                record_outputs(training, first + first_row, part.rows, output)
            sum_losses(training, &part, 0, part.rows, output, loss_slope_place(plan, &part, 0), 1,
                       losses + chunk * sums)
            begin_backward(plan, &part, 0, part.rows, 0)
            backward(plan, &part, &sink, 0, 1)
            sink.accumulate = 1
        if not sink.accumulate:
            memset(sink.gradient, 0, plan.parameters * real_bytes)  # a short batch has fewer blocks
        if plan.threads == 1:
            add_part(plan, chunk, sink.gradient, plan.parameters)
        chunk += threads
    meet(threads)
    for number in range(plan.streams * sums):
        loss += losses[number]
    return loss


cdef inline Batch part_of_batch(const Plan *plan, const Batch *batch, long first_row, long rows,
                                const Data *data, int thread) noexcept nogil:
    """A block of a batch, as a batch in the thread's own workspace."""
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef size_t target_bytes = sizeof(int64_t) if plan.labels else plan.outputs * real_bytes
    cdef Batch part = batch[0]
    part.rows = rows
    part.workspace = batch.workspace + thread * plan.bytes
    part.draw.first_row = first_row
    if data.order != NULL:
        part.input = part.workspace + plan.batch_input
        part.targets = part.workspace + plan.batch_targets
        if data.weights != NULL:
            part.weights = part.workspace + plan.batch_weights
    else:
        part.input += first_row * plan.inputs * real_bytes
        part.targets += first_row * target_bytes
        if data.weights != NULL:
            part.weights += first_row * real_bytes
    return part


cdef inline void join_streams(const Training *training, char *gradient, int thread, int threads) noexcept nogil:
    """G ← the sum of the chunks' parts, in their order; the first lies where the sum goes. One thread has added
    them."""
    cdef const Plan *plan = training.plan
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef long first = thread * SHARED_LENGTH, count, chunk
    while first < plan.parameters:
        count = min(<long> SHARED_LENGTH, plan.parameters - first)
        for chunk in range(1, plan.streams if plan.threads > 1 else 1):
            plan.kernels.add(count, gradient + (chunk * plan.parameters + first) * real_bytes,
                             gradient + first * real_bytes)
        first += threads * SHARED_LENGTH
    meet(threads)


cdef inline double norm_of_gradient(const Training *training, const char *gradient, int thread,
                                    int threads) noexcept nogil:
    """‖G‖ over all trained layers, in one order of summation."""
    cdef const Plan *plan = training.plan
    cdef double *squares = <double *> (training.workspace + plan.norms)
    cdef const Layer *layer
    cdef long k, first, length, run = 0
    cdef double total = 0
    for k in range(plan.depth):
        layer = &plan.layers[k]
        length = layer.weight_count + layer.bias_count if layer.trainable else 0
        first = 0
        while first < length:
            if run % threads == thread:
                squares[run] = plan.kernels.sum_of_squares(
                    min(<long> RUN_LENGTH, length - first),
                    gradient + (layer.weight + first) * plan.kernels.real_bytes)
            run += 1
            first += RUN_LENGTH
    meet(threads)
    for first in range(run):
        total += squares[first]
    return sqrt(total)


cdef inline void update_all(const Training *training, char *gradient, double deviation, uint64_t number,
                            int thread, int threads) noexcept nogil:
    """θ ← θ − η G, once the whole of G is known; with `clip_norm`, of G scaled down to that norm; with a
    `deviation`, of G and normal noise that the step's number draws."""
    cdef const Plan *plan = training.plan
    cdef const Layer *layer
    cdef long k, first, length, count, offset, run = 0
    cdef double factor = 1
    if training.clip_norm > 0:
        factor = min(1.0, training.clip_norm / (
            norm_of_gradient(training, gradient, thread, threads) + CLIP_EPSILON))
    for k in range(plan.depth):
        layer = &plan.layers[k]
        length = layer.weight_count + layer.bias_count if layer.trainable else 0
        first = 0
        while first < length:
            if run % threads == thread:
                count = min(<long> SHARED_LENGTH, length - first)
                offset = layer.weight + first
                if factor < 1:
                    plan.kernels.scale(count, factor, gradient + offset * plan.kernels.real_bytes)
                if deviation > 0:
                    plan.kernels.add_noise(offset, count, deviation, training.noise_seed, number,
                                           gradient + offset * plan.kernels.real_bytes)
                training.update.update(training.optimizer, offset, count, training.theta,
                                       gradient + offset * plan.kernels.real_bytes)
            run += 1
            first += SHARED_LENGTH
    meet(threads)


cdef inline void update_clipped(const Training *training, const Batch *batch, Sink *sink, int thread,
                                int threads) noexcept nogil:
    """The immediate update of G scaled down to a norm: from the factors, whose products are formed once to be
    squared and once to be applied, and never stored."""
    cdef double total = 0
    cdef long square, squares
    sink.squares = <double *> (training.workspace + training.plan.norms)
    squares = backward_from_factors(training.plan, batch, sink, thread, threads)
    for square in range(squares):
        total += sink.squares[square]
    meet(threads)
    sink.squares = NULL
    sink.factor = min(1.0, training.clip_norm / (sqrt(total) + CLIP_EPSILON))
    backward_from_factors(training.plan, batch, sink, thread, threads)


cdef inline void train(Training *training, int thread, int threads) noexcept nogil:
    """Steps over the data, batch by batch, from `begin` to `end`. Every thread of the team calls this."""
    cdef const Plan *plan = training.plan
    cdef Optimizer *optimizer = training.optimizer
    cdef Batch batch
    cdef Sink sink
    cdef Outcome outcome
    cdef double loss
    cdef long step
    sink.gradient = NULL if training.immediate else training.workspace + plan.gradient
    sink.accumulate = 0
    sink.factor = 1
    sink.squares = NULL
    sink.theta = training.theta
    sink.optimizer = optimizer
    sink.update = training.update
    for step in range(training.begin, training.end):
        batch = describe_batch(training, step)
        if thread == 0:
            # Before the team meets, so that all see it after; taken back where the step is not made.
            optimizer.rate = training.rates[step]
            optimizer.step += 1
            training.update.begin(optimizer)
            if step % training.wake_every == 0 and (
                    1e3 * (seconds_now() - training.last_wake) > WAKE_MILLISECONDS):
                training.last_wake = seconds_now()
                if not training.wake(training, step):
                    training.outcome = INTERRUPTED
        if plan.streams > 0:
            loss = stream(training, &batch, step * training.batch_rows, thread, threads)
        else:
            loss = forward_and_loss(training, &batch, step * training.batch_rows, thread, threads)
        # Thread 0 writes the outcome before the team meets in the forward half, and next after it met in the
        # backward half: between the two, all threads read the same.
        outcome = training.outcome
        if outcome == USER_RAISED or not isfinite(loss):
            if thread == 0:
                optimizer.step -= 1
                training.failed_loss = loss
                if outcome != USER_RAISED:
                    training.outcome = LOSS_NOT_FINITE if isfinite(batch.scale) else NO_WEIGHT
            return
        if plan.streams > 0:
            join_streams(training, sink.gradient, thread, threads)
        elif not plan.two_phase:
            backward(plan, &batch, &sink, thread, threads)
        if plan.keeps_factors and training.immediate and training.clip_norm > 0:
            update_clipped(training, &batch, &sink, thread, threads)
        elif plan.keeps_factors:
            backward_from_factors(plan, &batch, &sink, thread, threads)
        if not training.immediate:
            if training.user_map_raised != NULL and training.user_map_raised(training):
                optimizer.step -= 1
                training.outcome = USER_RAISED
                return
            update_all(training, sink.gradient, 0, 0, thread, threads)
        if thread == 0:
            training.loss_sum += loss / batch.scale
            training.weight_sum += 1 / batch.scale
            training.steps_done += 1
        if outcome == INTERRUPTED:
            return


cdef inline void differentiate(Training *training, char *gradient, int thread, int threads) noexcept nogil:
    """The gradient of the mean loss over all the data: block by block, so that memory does not grow with it."""
    cdef Batch batch
    cdef Sink sink
    cdef double loss
    cdef long step
    sink.gradient = gradient
    sink.factor = 1
    sink.squares = NULL
    sink.theta = NULL
    sink.optimizer = NULL
    sink.update = NULL
    for step in range(training.steps):
        batch = describe_batch(training, step)
        batch.scale = training.scale
        batch.draw.training = 0
        sink.accumulate = step > 0
        loss = forward_and_loss(training, &batch, step * training.batch_rows, thread, threads)
        if training.outcome == USER_RAISED:
            return
        backward(training.plan, &batch, &sink, thread, threads)
        if thread == 0:
            training.loss_sum += loss
