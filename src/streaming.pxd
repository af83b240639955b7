"""A step by streams: each chunk of a batch goes forward and back in a thread's own workspace, block by block, and
only the sums of its G_k are kept. Activations do not grow with the batch then.
"""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t
from libc.string cimport memset

from algorithm cimport backward, forward
from batches cimport Data, Training, gather, point_to_gathered, record_outputs, sum_losses
from gradient cimport SHARED_LENGTH, Sink, add_part, end_of_part, parts_of, place_of_part
from kept cimport Batch, begin_backward, loss_slope_place
from kernels cimport meet
from plan cimport Plan


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
        point_to_gathered(plan, data, &part)
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
