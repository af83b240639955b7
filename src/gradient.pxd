"""The sums G_k and g_k over the samples of a batch, by tasks, and what becomes of them (Remark 8 iii).

A task is a panel of a dense layer's input features, or a chunk of samples of another layer's. It sums over its
samples in one order, however many threads there are. The sum of all tasks goes to the sink.
"""
from libc.stddef cimport size_t
from libc.string cimport memcpy

from kept cimport Batch, Input, epilogue_of_panel
from kernels cimport Block, Epilogue, Layer, Optimizer, OptimizerKernel
from plan cimport Plan


# Parameters that are updated, summed or squared together. Part of the numerical contract: norms are sums over
# these runs.
cdef enum:
    RUN_LENGTH = 8192
    # Where no norm is wanted, threads share out shorter runs; whole lines of the cache.
    SHARED_LENGTH = 1024


cdef struct Sink:
    char *gradient            # G_k is stored here, laid out as theta; NULL: applied and forgotten
    int accumulate
    char *theta
    Optimizer *optimizer
    const OptimizerKernel *update
    double factor             # by which G_k is scaled before it is applied
    double *squares           # only ‖G_k‖² is wanted: that of each run or task goes here, one after another


cdef inline long parts_of(const Plan *plan, long rows) noexcept nogil:
    """Parts of a batch whose gradients are summed apart."""
    cdef long sums = (rows + plan.loss_rows - 1) // plan.loss_rows
    cdef long of_part = (plan.sum_rows + plan.loss_rows - 1) // plan.loss_rows
    return (sums + of_part - 1) // of_part


cdef inline long end_of_part(const Plan *plan, long rows, long part, long parts) noexcept nogil:
    """The samples before the end of a part, which is that of a sum of losses. Of a part that is to have as many
    as two sums, no product is of so few samples that it would sum in another order."""
    return min(rows, ((rows + plan.loss_rows - 1) // plan.loss_rows) * (part + 1) // parts * plan.loss_rows)


cdef inline long squares_of_layer(const Layer *layer) noexcept nogil:
    """How many squares a sink gets of a layer: one a panel, or one a run of parameters."""
    if layer.chunks == 1:
        return layer.panels
    return (layer.weight_count + layer.bias_count + RUN_LENGTH - 1) // RUN_LENGTH


cdef struct Task:
    Block block               # the panel of features, and the samples in hand
    long panel, chunk
    long first_row, end_row   # the chunk's samples


cdef inline Task describe_task(const Plan *plan, const Batch *batch, const Layer *layer, long number,
                               int thread) noexcept nogil:
    cdef long rows = rows_of_chunk(batch, layer)
    cdef Task task
    task.chunk = number // layer.panels if layer.chunks > 1 else 0  # a division is dear to a small net
    task.panel = number - task.chunk * layer.panels
    task.first_row = task.chunk * rows
    task.end_row = min(batch.rows, task.first_row + rows)
    task.block.draw = &batch.draw
    task.block.without_bias = 0
    task.block.epilogue = NULL
    task.block.scratch = batch.workspace + plan.scratch + thread * plan.scratch_of_thread
    task.block.first = task.panel * layer.panel
    task.block.count = min(layer.panel, layer.inputs - task.block.first)
    return task


cdef inline long rows_of_chunk(const Batch *batch, const Layer *layer) noexcept nogil:
    return (batch.rows + layer.chunks - 1) // layer.chunks if layer.chunks > 1 else batch.rows


cdef inline long chunks_of_batch(const Batch *batch, const Layer *layer) noexcept nogil:
    """How many chunks have samples: a short batch may have fewer than are planned."""
    if layer.chunks == 1:
        return 1
    return (batch.rows + rows_of_chunk(batch, layer) - 1) // rows_of_chunk(batch, layer)


cdef inline long weights_of_panel(const Layer *layer, const Task *task) noexcept nogil:
    """The weights of a panel: its rows of a dense layer's; all of the others'."""
    return layer.weight_count if layer.panels == 1 else task.block.count * layer.outputs


cdef inline char *gradient_of_task(const Plan *plan, const Batch *batch, const Layer *layer, const Task *task,
                                   const Sink *sink, int thread) noexcept nogil:
    """Where the task's G_k and g_k are summed: in a chunk's part, the stored gradient, or scratch."""
    cdef long entries
    cdef size_t real_bytes = plan.kernels.real_bytes
    if layer.chunks > 1:
        return batch.workspace + plan.gradient_parts + place_of_part(plan, task.chunk) * (
            layer.weight_count + layer.bias_count) * real_bytes
    if sink.gradient != NULL:
        return sink.gradient + (layer.weight + task.block.first * layer.outputs
                                if layer.panels > 1 else layer.weight) * real_bytes
    entries = plan.gradient_entries
    if entries == 0:
        entries = layer.bias_count + (layer.panel * layer.outputs if layer.panels > 1 else layer.weight_count)
    return batch.workspace + plan.gradient_panels + thread * entries * real_bytes


cdef inline void add_gradient(const Plan *plan, const Batch *batch, const Layer *layer, const Task *task,
                              const Input *x, const Sink *sink, char *gradient, char *u) noexcept nogil:
    """G_k ← C_k††(σ_{k−1}(a_{k−1}), T) and g_k ← ι_k*(T), summed over the blocks of samples; where streaming sums
    over fewer of them, over these, so that it gives the same bits.

    u: room for C_k†(T, W_k), and T is sent back in the same pass; NULL: T stays.
    """
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef const char *delta = batch.workspace + layer.signal + (
        task.block.first_row * layer.row * real_bytes)
    cdef const char *data = x.data
    cdef bint is_summed = layer.chunks == 1 and sink.accumulate
    cdef long number, parts
    cdef Block part
    if plan.sum_rows == 0 or task.block.rows <= plan.sum_rows:
        add_part_of_gradient(plan, batch, layer, task, &task.block, data, x.row, delta,
                             is_summed or task.block.first_row > task.first_row, gradient, u)
        return
    # Such a batch goes back as one block.
    parts = parts_of(plan, batch.rows)
    part = task.block
    for number in range(parts):
        part.rows = end_of_part(plan, batch.rows, number, parts) - part.first_row
        add_part_of_gradient(plan, batch, layer, task, &part, data, x.row, delta, is_summed or number > 0,
                             gradient, u)
        data += part.rows * x.row * real_bytes
        delta += part.rows * layer.row * real_bytes
        part.first_row += part.rows


cdef inline void add_part_of_gradient(const Plan *plan, const Batch *batch, const Layer *layer, const Task *task,
                                      const Block *block, const char *x, long x_row, const char *delta,
                                      bint accumulate, char *gradient, char *u) noexcept nogil:
    """The same of samples that are summed together."""
    cdef Block finishing
    cdef Epilogue epilogue
    if u == NULL:
        layer.map.adjoint_weight(layer, block, x, x_row, delta, accumulate, gradient)
    else:
        finishing = block[0]
        finishing.epilogue = epilogue_of_panel(plan, batch, layer, block, &epilogue)
        layer.map.adjoints(layer, &finishing, batch.theta, x, x_row, delta, accumulate, gradient, u)
    if layer.bias_count and task.panel == layer.panels - 1:
        layer.map.gather(layer, block, delta, accumulate,
                         gradient + weights_of_panel(layer, task) * plan.kernels.real_bytes)


cdef inline long place_of_part(const Plan *plan, long chunk) noexcept nogil:
    """Which of the parts of G a chunk of samples has. One thread adds each to the first as soon as it is known."""
    return chunk if plan.threads > 1 else min(chunk, <long> 1)


cdef inline void add_part(const Plan *plan, long chunk, char *part, long count) noexcept nogil:
    """The sum of the parts so far, in the order of the chunks, where one thread does them all."""
    if chunk > 0:
        plan.kernels.add(count, part, part - count * plan.kernels.real_bytes)


cdef inline void finish_gradient(const Plan *plan, const Layer *layer, const Task *task, const Sink *sink,
                                 char *gradient, long squares) noexcept nogil:
    """What becomes of a panel's G_k and g_k, unless they are stored, or parts of a sum."""
    cdef long count = weights_of_panel(layer, task)
    if task.panel == layer.panels - 1:
        count += layer.bias_count
    if layer.chunks > 1 and plan.threads == 1:
        add_part(plan, task.chunk, gradient, count)
    if sink.gradient == NULL and layer.chunks == 1:
        consume(plan, sink, layer.weight + (task.block.first * layer.outputs if layer.panels > 1 else 0), count,
                gradient, squares + task.panel)


cdef inline void consume(const Plan *plan, const Sink *sink, long offset, long count, char *gradient,
                         long square) noexcept nogil:
    """W_k ← W_k − η G_k, b_k ← b_k − η g_k (Remark 8 iii), or only ‖G_k‖²; then the gradient is forgotten."""
    if sink.squares != NULL:
        sink.squares[square] = plan.kernels.sum_of_squares(count, gradient)
        return
    if sink.factor < 1:
        plan.kernels.scale(count, sink.factor, gradient)
    sink.update.update(sink.optimizer, offset, count, sink.theta, gradient)


cdef inline void join_chunks(const Plan *plan, const Batch *batch, const Layer *layer, const Sink *sink,
                             long squares, int thread, int threads) noexcept nogil:
    """G_k ← the sum of its chunks' parts, in their order; then as finish_gradient. One thread has added them."""
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef long parameters = layer.weight_count + layer.bias_count
    cdef long chunks = chunks_of_batch(batch, layer)
    cdef long length = RUN_LENGTH if sink.squares != NULL else SHARED_LENGTH
    cdef long first = thread * length, count, chunk
    cdef char *part
    cdef char *total
    while first < parameters:
        count = min(length, parameters - first)
        part = batch.workspace + plan.gradient_parts + first * real_bytes
        for chunk in range(1, chunks if plan.threads > 1 else 1):
            plan.kernels.add(count, part + chunk * parameters * real_bytes, part)
        if sink.gradient == NULL:
            consume(plan, sink, layer.weight + first, count, part, squares + first // RUN_LENGTH)
        else:
            total = sink.gradient + (layer.weight + first) * real_bytes
            if sink.accumulate:
                plan.kernels.add(count, part, total)
            else:
                memcpy(total, part, count * real_bytes)
        first += threads * length
