"""Algorithm 2 of the paper: its forward and its backward loop, over a batch of samples.

A network is n layers F_k = σ_k(C_k(F_{k−1}, W_k) + ι_k(b_k)). `layers[k - 1]` describes layer k. kept.pxd has what
lies between the two loops, gradient.pxd the sums G_k and g_k.
"""
from libc.stddef cimport size_t

from gradient cimport (
    Sink, Task, add_gradient, chunks_of_batch, describe_task, finish_gradient, gradient_of_task, join_chunks,
    squares_of_layer,
)
from kept cimport (
    Batch, Input, epilogue_of_layer, epilogue_of_panel, input_of_block, keep, output_below,
    pull_back, row_below, sent_back_place,
)
from kernels cimport Block, Epilogue, Layer, first_of_share, meet
from plan cimport Plan


cdef inline char *forward(const Plan *plan, const Batch *batch, long first_row, long rows,
                          int thread) noexcept nogil:
    """a_k ← C_k(σ_{k−1}(a_{k−1}), W_k) + ι_k(b_k) for k = 1..n, over one block of samples. Returns F_n."""
    return forward_between(plan, batch, plan.resume, plan.depth, first_row, rows, thread)


cdef inline char *forward_between(const Plan *plan, const Batch *batch, long start, long end, long first_row,
                                  long rows, int thread) noexcept nogil:
    """The same for layers[start:end], from what is kept of the layer below them."""
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef const char *x = output_below(plan, batch, start, first_row, rows, thread)
    cdef const Layer *layer
    cdef char *a
    cdef Epilogue epilogue
    cdef Block block
    block.rows = rows
    block.first_row = first_row
    block.draw = &batch.draw
    block.without_bias = 0
    block.epilogue = NULL
    block.scratch = batch.workspace + plan.scratch + thread * plan.scratch_of_thread
    for k in range(start, end):
        layer = &plan.layers[k]
        block.first = 0
        block.count = layer.outputs
        a = batch.workspace + layer.kept + first_row * layer.row * real_bytes
        if k == plan.depth - 1 and batch.output != NULL:
            a = batch.output + first_row * layer.outputs * real_bytes
        block.epilogue = epilogue_of_layer(plan, batch, layer, &block, &epilogue)
        layer.map.apply(layer, &block, batch.theta, x, row_below(layer), a)
        x = a if block.epilogue != NULL else keep(plan, batch, layer, &block, thread, a)
    return <char *> x


cdef inline void forward_all(const Plan *plan, const Batch *batch, long start, long end, int thread,
                             int threads) noexcept nogil:
    """layers[start:end] for the whole batch."""
    cdef long blocks = blocks_of_batch(plan, batch), block, first_row
    for block in range(first_of_share(blocks, thread, threads), first_of_share(blocks, thread + 1, threads)):
        first_row = block * plan.block_rows
        forward_between(plan, batch, start, end, first_row, min(plan.block_rows, batch.rows - first_row), thread)


cdef inline long blocks_of_batch(const Plan *plan, const Batch *batch) noexcept nogil:
    """How many blocks of samples go forward."""
    return (batch.rows + plan.block_rows - 1) // plan.block_rows if batch.rows > plan.block_rows else 1


cdef inline void forward_by_layers(const Plan *plan, const Batch *batch, int thread, int threads) noexcept nogil:
    """a_k ← C_k(σ_{k−1}(a_{k−1}), W_k) + ι_k(b_k) for k = 1..n, each for the whole batch before the next.

    The threads share out blocks of samples and parts of a dense layer's outputs.
    """
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef const Layer *layer
    cdef const char *x
    cdef char *a
    cdef long k, task, tasks
    cdef Epilogue epilogue
    cdef Block block
    block.draw = &batch.draw
    block.without_bias = 0
    block.epilogue = NULL
    block.scratch = batch.workspace + plan.scratch + thread * plan.scratch_of_thread
    for k in range(plan.depth):
        layer = &plan.layers[k]
        tasks = (batch.rows + layer.part_rows - 1) // layer.part_rows * layer.parts
        for task in range(first_of_share(tasks, thread, threads), first_of_share(tasks, thread + 1, threads)):
            block.first_row = task // layer.parts * layer.part_rows
            block.rows = min(layer.part_rows, batch.rows - block.first_row)
            block.first = task % layer.parts * layer.part
            block.count = min(layer.part, layer.outputs - block.first)
            x = output_below(plan, batch, k, block.first_row, block.rows, thread)
            a = batch.workspace + layer.kept + block.first_row * layer.row * real_bytes
            block.epilogue = epilogue_of_layer(plan, batch, layer, &block, &epilogue)
            layer.map.apply(layer, &block, batch.theta, x, row_below(layer), a)
            if block.epilogue == NULL:
                keep(plan, batch, layer, &block, thread, a)
        meet(threads)


cdef inline void forward_to_checkpoints(const Plan *plan, const Batch *batch, int thread,
                                        int threads) noexcept nogil:
    """All layers up to the last checkpoint. The layers between two checkpoints lie where those between the next
    two will: the threads meet before these begin."""
    cdef const Layer *layer
    cdef long k
    for k in range(plan.resume):
        layer = &plan.layers[k]
        if layer.restart >= 0:
            forward_all(plan, batch, layer.restart, k + 1, thread, threads)
            meet(threads)


cdef inline void backward(const Plan *plan, const Batch *batch, const Sink *sink, int thread,
                          int threads) noexcept nogil:
    """For k = n..1: G_k ← C_k††(σ_{k−1}(a_{k−1}), T), g_k ← ι_k*(T), T ← C_k†(T, W_k) ⊙ σ_{k−1}'(a_{k−1}).

    The threads share out the tasks of each layer: panels of a dense layer's input features, chunks of samples of
    the others. A task writes what no other one reads, and sums over its samples in one order.
    """
    cdef long lowest = plan.lowest if batch.input_slope == NULL else 0
    cdef const Layer *layer
    cdef long k, task, tasks
    for k in range(plan.depth - 1, lowest - 1, -1):
        layer = &plan.layers[k]
        if layer.restart >= 0:
            # Other layers have since used the buffers of those between the checkpoints.
            forward_all(plan, batch, layer.restart, k, thread, threads)
            meet(threads)
        tasks = layer.panels * chunks_of_batch(batch, layer)
        for task in range(first_of_share(tasks, thread, threads), first_of_share(tasks, thread + 1, threads)):
            backward_task(plan, batch, layer, task, lowest, sink, thread)
        meet(threads)
        if layer.chunks > 1 and layer.trainable and not plan.keeps_factors:
            join_chunks(plan, batch, layer, sink, 0, thread, threads)
            meet(threads)


cdef inline void backward_task(const Plan *plan, const Batch *batch, const Layer *layer, long number, long lowest,
                               const Sink *sink, int thread) noexcept nogil:
    """One cycle of the backward loop, on one panel of the layer's input features and one chunk of samples."""
    cdef Task task = describe_task(plan, batch, layer, number, thread)
    cdef bint needs_gradient = layer.trainable and not plan.keeps_factors
    cdef bint goes_on = layer.index > lowest or batch.input_slope != NULL
    cdef bint at_once = needs_gradient and goes_on and layer.at_once
    cdef long first_row = task.first_row
    cdef Input x
    cdef char *gradient = NULL
    if needs_gradient:
        gradient = gradient_of_task(plan, batch, layer, &task, sink, thread)
    while first_row < task.end_row:
        task.block.first_row = first_row
        task.block.rows = min(layer.backward_rows, task.end_row - first_row)
        x = input_of_block(plan, batch, layer, &task.block, thread)
        if needs_gradient:
            add_gradient(plan, batch, layer, &task, &x, sink, gradient,
                         sent_back_place(plan, batch, layer, thread) if at_once else NULL)
        if goes_on and not at_once:
            # T ← C_k†(T, W_k) ⊙ σ_{k−1}'(a_{k−1}), with the W_k that the forward pass used
            send_back(plan, batch, layer, &task.block, &x, thread)
        first_row += task.block.rows
    if needs_gradient:
        finish_gradient(plan, layer, &task, sink, gradient, 0)


cdef inline void send_back(const Plan *plan, const Batch *batch, const Layer *layer, Block *block,
                           const Input *x, int thread) noexcept nogil:
    """T ← C_k†(T, W_k) ⊙ σ_{k−1}'(a_{k−1}), on a block of samples and a panel of features."""
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef const char *delta = batch.workspace + layer.signal + block.first_row * layer.row * real_bytes
    cdef char *u = sent_back_place(plan, batch, layer, thread)
    cdef Epilogue epilogue
    block.epilogue = epilogue_of_panel(plan, batch, layer, block, &epilogue)
    layer.map.adjoint_input(layer, block, batch.theta, x.data, x.row, delta, u)
    if block.epilogue != NULL:
        block.epilogue = NULL
    elif layer.index > 0:
        pull_back(plan, batch, layer - 1, block.first_row, block.rows, block.first, block.count, u,
                  x.recomputed)
    else:
        # The identity's value is a copy: the panel to its place among the inputs.
        plan.kernels.activations.value(
            block.rows, block.count, u, block.count,
            batch.input_slope + (block.first_row * layer.inputs + block.first) * real_bytes, layer.inputs)


cdef inline void backward_block(const Plan *plan, const Batch *batch, long first_row, long rows,
                                int thread) noexcept nogil:
    """For k = n..2: T ← C_k†(T, W_k) ⊙ σ_{k−1}'(a_{k−1}), over one block of samples, whose G_k are left for later
    (Remark 8 ii)."""
    cdef const Layer *layer
    cdef long k, panel, end_row = first_row + rows
    cdef Block block
    cdef Input x
    block.draw = &batch.draw
    block.without_bias = 0
    block.epilogue = NULL
    block.scratch = batch.workspace + plan.scratch + thread * plan.scratch_of_thread
    for k in range(plan.depth - 1, plan.lowest, -1):
        layer = &plan.layers[k]
        block.first_row = first_row
        while block.first_row < end_row:
            block.rows = min(layer.backward_rows, end_row - block.first_row)
            for panel in range(layer.panels):
                block.first = panel * layer.panel
                block.count = min(layer.panel, layer.inputs - block.first)
                x = input_of_block(plan, batch, layer, &block, thread)
                send_back(plan, batch, layer, &block, &x, thread)
            block.first_row += block.rows


cdef inline long backward_from_factors(const Plan *plan, const Batch *batch, const Sink *sink, int thread,
                                       int threads) noexcept nogil:
    """For k = n..1: G_k ← C_k††(σ_{k−1}(a_{k−1}), T), g_k ← ι_k*(T), once every T is known (Remark 8 ii).

    Returns how many squares the sink was given.
    """
    cdef const Layer *layer
    cdef long k, task, tasks, squares = 0
    for k in range(plan.depth - 1, plan.lowest - 1, -1):
        layer = &plan.layers[k]
        tasks = layer.panels * chunks_of_batch(batch, layer) if layer.trainable else 0
        for task in range(first_of_share(tasks, thread, threads), first_of_share(tasks, thread + 1, threads)):
            task_gradient(plan, batch, layer, task, sink, squares, thread)
        if layer.chunks > 1 and layer.trainable:
            meet(threads)
            join_chunks(plan, batch, layer, sink, squares, thread, threads)
            meet(threads)
        if layer.trainable:
            squares += squares_of_layer(layer)
    meet(threads)
    return squares


cdef inline void task_gradient(const Plan *plan, const Batch *batch, const Layer *layer, long number,
                               const Sink *sink, long squares, int thread) noexcept nogil:
    """G_k and g_k of one task, and nothing else."""
    cdef Task task = describe_task(plan, batch, layer, number, thread)
    cdef char *gradient = gradient_of_task(plan, batch, layer, &task, sink, thread)
    cdef long first_row = task.first_row
    cdef Input x
    while first_row < task.end_row:
        task.block.first_row = first_row
        task.block.rows = min(layer.backward_rows, task.end_row - first_row)
        x = input_of_block(plan, batch, layer, &task.block, thread)
        add_gradient(plan, batch, layer, &task, &x, sink, gradient, NULL)
        first_row += task.block.rows
    finish_gradient(plan, layer, &task, sink, gradient, squares)
