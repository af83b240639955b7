"""The factors of the gradients (Remark 8 ii): delta_k and F_{k−1} of each sample, whose product is its gradient.

Norms of the gradients of single samples follow from them, and a differentially private step: each sample's
gradient is clipped by scaling its deltas, before any product is formed.
"""
from libc.math cimport isfinite, sqrt
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, memset

from algorithm cimport backward, backward_from_factors
from batches cimport INTERRUPTED, LOSS_NOT_FINITE, USER_RAISED, Outcome, Training, describe_batch
from gradient cimport Sink
from kept cimport Batch
from kernels cimport Block, Layer, first_of_share, meet, poisson_sample, seconds_now
from plan cimport Plan
from training cimport WAKE_MILLISECONDS, forward_and_loss, update_all


cdef inline const char *input_of_layer(const Plan *plan, const Batch *batch, const Layer *layer) noexcept nogil:
    """F_{k−1} of the whole batch; a pass that keeps factors has it in the workspace."""
    return batch.input if layer.index == 0 else batch.workspace + (layer - 1).kept


cdef inline void square_norms(const Plan *plan, const Batch *batch, int thread, int threads) noexcept nogil:
    """‖∂ℓ_i/∂θ‖² of each sample over all trained layers, to the workspace."""
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef double *squares = <double *> (batch.workspace + plan.sample_norms)
    cdef char *gradient = batch.workspace + plan.sample_gradients + thread * plan.sample_gradient
    cdef const Layer *layer
    cdef const char *x
    cdef const char *delta
    cdef long i, k
    cdef Block block
    block.rows = 1
    block.first = 0
    block.draw = &batch.draw
    block.without_bias = 0
    block.epilogue = NULL
    block.scratch = batch.workspace + plan.scratch + thread * plan.scratch_of_thread
    for i in range(first_of_share(batch.rows, thread, threads), first_of_share(batch.rows, thread + 1, threads)):
        squares[i] = 0
        block.first_row = i
        for k in range(plan.lowest, plan.depth):
            layer = &plan.layers[k]
            if not layer.trainable:
                continue
            block.count = layer.inputs
            x = input_of_layer(plan, batch, layer) + i * layer.inputs * real_bytes
            delta = batch.workspace + layer.signal + i * layer.outputs * real_bytes
            if (layer.map.add_squares != NULL
                    and layer.map.add_squares(layer, &block, x, layer.inputs, delta, &squares[i])):
                continue
            layer.map.adjoint_weight(layer, &block, x, layer.inputs, delta, 0, gradient)
            squares[i] += plan.kernels.sum_of_squares(layer.weight_count, gradient)
            if layer.bias_count:
                layer.map.gather(layer, &block, delta, 0, gradient)
                squares[i] += plan.kernels.sum_of_squares(layer.bias_count, gradient)
    meet(threads)


cdef inline void collect_factors(Training *training, double *norms, char **deltas, char **inputs, int thread,
                                 int threads) noexcept nogil:
    """Of all the data, block by block: ‖∂ℓ_i/∂θ‖ to `norms`, and delta_k and F_{k−1} to one array a layer.

    Each may be NULL: `norms`, or `deltas` and `inputs` with their entries for layers without weight.
    """
    cdef const Plan *plan = training.plan
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef double *squares = <double *> (training.workspace + plan.sample_norms)
    cdef const Layer *layer
    cdef Batch batch
    cdef Sink sink
    cdef long step, first, k, i
    sink.gradient = NULL
    for step in range(training.steps):
        first = step * training.batch_rows
        batch = describe_batch(training, step)
        batch.scale = 1
        batch.draw.training = 0
        forward_and_loss(training, &batch, first, thread, threads)
        if training.outcome == USER_RAISED:
            return
        backward(plan, &batch, &sink, thread, threads)
        if norms != NULL:
            square_norms(plan, &batch, thread, threads)
        if thread == 0:
            for i in range(batch.rows if norms != NULL else 0):
                norms[first + i] = sqrt(squares[i])
            for k in range(plan.depth if deltas != NULL else 0):
                layer = &plan.layers[k]
                if deltas[k] != NULL:
                    memcpy(deltas[k] + first * layer.outputs * real_bytes, training.workspace + layer.signal,
                           batch.rows * layer.outputs * real_bytes)
                    memcpy(inputs[k] + first * layer.inputs * real_bytes, input_of_layer(plan, &batch, layer),
                           batch.rows * layer.inputs * real_bytes)
        meet(threads)


cdef inline void clip_samples(const Plan *plan, const Batch *batch, double most, double share, int thread,
                              int threads) noexcept nogil:
    """delta_i ← share min(1, most / ‖∂ℓ_i/∂θ‖) delta_i in every layer: so is each sample's gradient scaled."""
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef const double *squares = <const double *> (batch.workspace + plan.sample_norms)
    cdef const Layer *layer
    cdef double norm, factor
    cdef long i, k
    cdef char *delta
    for i in range(first_of_share(batch.rows, thread, threads), first_of_share(batch.rows, thread + 1, threads)):
        norm = sqrt(squares[i])
        # No sample gets by unclipped: one whose norm is no number adds nothing.
        factor = 1.0 if norm <= most else most / norm if isfinite(norm) else 0.0
        for k in range(plan.lowest, plan.depth):
            layer = &plan.layers[k]
            delta = batch.workspace + layer.signal + i * layer.outputs * real_bytes
            if factor == 0:
                memset(delta, 0, layer.outputs * real_bytes)  # 0 times infinity would be none
            else:
                plan.kernels.scale(layer.outputs, share * factor, delta)
    meet(threads)


cdef inline void train_privately(Training *training, int64_t *chosen, int thread, int threads) noexcept nogil:
    """DP-SGD. `chosen` has room for all samples: each step draws its batch, every sample with the same
    probability; NULL: the step's batch is the data as it lies. The sum is divided by the expected batch."""
    cdef const Plan *plan = training.plan
    cdef char *gradient = training.workspace + plan.gradient
    cdef double deviation = training.noise_multiplier * training.max_grad_norm / training.expected_rows
    cdef long total = training.data.samples, first, step
    cdef uint64_t number
    cdef double loss, last_wake = seconds_now()
    cdef Outcome outcome
    cdef Batch batch
    cdef Sink sink
    sink.gradient = gradient
    sink.factor = 1
    sink.squares = NULL
    for step in range(training.steps):
        number = training.first_step + step
        if thread == 0:
            training.optimizer.rate = training.rates[step]
            training.optimizer.step += 1
            training.update.begin(training.optimizer)
            if chosen != NULL:
                training.data.order = chosen
                training.data.samples = poisson_sample(training.shuffle_seed, number, total,
                                                       <double> training.expected_rows / total, chosen)
            memset(gradient, 0, plan.parameters * plan.kernels.real_bytes)
            if 1e3 * (seconds_now() - last_wake) > WAKE_MILLISECONDS:
                last_wake = seconds_now()
                if not training.wake(training, step):
                    training.outcome = INTERRUPTED
        meet(threads)
        outcome = training.outcome
        first = 0
        while first < training.data.samples:
            batch = describe_batch(training, first // training.batch_rows)
            batch.draw.step = number
            batch.scale = 1
            loss = forward_and_loss(training, &batch, first, thread, threads)
            if training.outcome == USER_RAISED or not isfinite(loss):
                if thread == 0:
                    training.optimizer.step -= 1
                    training.failed_loss = loss
                    if training.outcome != USER_RAISED:
                        training.outcome = LOSS_NOT_FINITE
                return
            backward(plan, &batch, &sink, thread, threads)
            square_norms(plan, &batch, thread, threads)
            clip_samples(plan, &batch, training.max_grad_norm, 1.0 / training.expected_rows, thread, threads)
            sink.accumulate = 1
            backward_from_factors(plan, &batch, &sink, thread, threads)
            if thread == 0:
                training.loss_sum += loss
            first += batch.rows
        if training.user_map_raised != NULL and training.user_map_raised(training):
            training.optimizer.step -= 1
            training.outcome = USER_RAISED
            return
        update_all(training, gradient, deviation, number, thread, threads)
        if thread == 0:
            training.weight_sum += training.data.samples
            training.steps_done += 1
        meet(threads)
        if outcome == INTERRUPTED:
            return
