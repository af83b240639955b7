"""The training loop: gather a batch, run Algorithm 2 over it, update. No allocation, no lock and no Python in a
step; every thread of the team runs the same loop and takes its share of each part.
"""
from libc.math cimport isfinite, sqrt
from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from algorithm cimport (
    backward, backward_block, backward_from_factors, blocks_of_batch, forward, forward_by_layers,
    forward_to_checkpoints,
)
from batches cimport (
    INTERRUPTED, LOSS_NOT_FINITE, USER_RAISED, Outcome, Training, describe_batch, gather, gather_share,
    record_outputs, sum_losses,
)
from gradient cimport RUN_LENGTH, SHARED_LENGTH, Sink
from kept cimport Batch, begin_backward, loss_slope_place, output_of_batch
from kernels cimport Layer, Optimizer, first_of_share, meet, seconds_now
from plan cimport Plan
from streaming cimport join_streams, stream


# Between two looks at signals and at the progress bar.
cdef enum:
    WAKE_MILLISECONDS = 50


# As in torch.nn.utils.clip_grad_norm_.
cdef extern from *:
    """
    #define CLIP_EPSILON 1e-6
    """
    const double CLIP_EPSILON


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
    cdef long blocks, block, first_row, end_row, rows
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
        first_row = first_of_share(sums, thread, threads) * plan.loss_rows
        end_row = min(batch.rows, first_of_share(sums, thread + 1, threads) * plan.loss_rows)
        if first_row < end_row:
            take_losses(training, batch, first, first_row, end_row - first_row,
                        output_of_batch(plan, batch, first_row), losses, thread)
    else:
        blocks = blocks_of_batch(plan, batch)
        for block in range(first_of_share(blocks, thread, threads), first_of_share(blocks, thread + 1, threads)):
            first_row = block * plan.block_rows
            rows = min(plan.block_rows, batch.rows - first_row)
            if training.data.order != NULL and plan.resume == 0:
                gather(training, batch, first, first_row, rows)
            take_losses(training, batch, first, first_row, rows, forward(plan, batch, first_row, rows, thread),
                        losses, thread)
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
            optimizer.rate = training.rates[step - training.skipped]
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
                    training.outcome = LOSS_NOT_FINITE
            return
        if plan.lowest == plan.depth or batch.scale == 0:
            # Nothing goes backward, where threads meet: none may begin the next step's losses yet.
            meet(threads)
        if batch.scale == 0:  # weights that are all zero ask for no step
            if thread == 0:
                optimizer.step -= 1
                training.skipped += 1
                training.steps_done += 1
            if outcome == INTERRUPTED:
                return
            continue
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
        if training.plan.lowest == training.plan.depth:
            meet(threads)  # as in `train`
        if thread == 0:
            training.loss_sum += loss
