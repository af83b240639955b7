"""Algorithm 2 of the paper: its forward and its backward loop, over a batch of samples.

A network is n layers F_k = σ_k(C_k(F_{k−1}, W_k) + ι_k(b_k)). `layers[k - 1]` describes layer k. What the
forward pass keeps of a layer (Remark 8 i) is up to `layer.memory`; the backward pass writes delta_k = ∂ℓ/∂a_k
in the place of what was kept, panel by panel of features, so that activations are the only memory that grows
with the batch. What becomes of G_k is up to the sink (Remark 8 iii).
"""
from libc.stddef cimport size_t
from libc.string cimport memcpy

from kernels cimport (
    KEEP_OUTPUT, KEEP_OUTPUT_AND_SLOPE, KEEP_PREACTIVATION,
    Block, Draw, Epilogue, Layer, Optimizer, OptimizerKernel, finish_pull_back, finish_value,
    finish_value_and_slope, meet,
)
from plan cimport Plan


cdef struct Batch:
    long rows
    const char *input         # (rows, d_0)
    const char *targets       # labels (rows,) or (rows, d_n)
    const char *weights       # s_i (rows,); NULL: all one
    double scale              # 1 / Σ s_i
    Draw draw
    const char *theta
    char *workspace
    char *output              # where F_n goes; NULL: into the workspace
    char *input_slope         # where ∂ℓ/∂x goes (rows, d_0); NULL: not wanted


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


cdef inline bint is_identity(const Plan *plan, const Layer *layer) noexcept nogil:
    return layer.activation == plan.kernels.activations


cdef inline long parts_of(const Plan *plan, long rows) noexcept nogil:
    """Parts of a batch whose gradients are summed apart."""
    cdef long sums = (rows + plan.loss_rows - 1) // plan.loss_rows
    cdef long of_part = (plan.sum_rows + plan.loss_rows - 1) // plan.loss_rows
    return (sums + of_part - 1) // of_part


cdef inline long end_of_part(const Plan *plan, long rows, long part, long parts) noexcept nogil:
    """The samples before the end of a part, which is that of a sum of losses. Of a part that is to have as many
    as two sums, no product is of so few samples that it would sum in another order."""
    return min(rows, ((rows + plan.loss_rows - 1) // plan.loss_rows) * (part + 1) // parts * plan.loss_rows)


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


cdef inline void forward_by_layers(const Plan *plan, const Batch *batch, int thread, int threads) noexcept nogil:
    """a_k ← C_k(σ_{k−1}(a_{k−1}), W_k) + ι_k(b_k) for k = 1..n, each for the whole batch before the next.

    The threads share out blocks of samples and parts of a dense layer's outputs.
    """
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef const Layer *layer
    cdef const char *x
    cdef char *a
    cdef long k, task
    cdef Epilogue epilogue
    cdef Block block
    block.draw = &batch.draw
    block.without_bias = 0
    block.epilogue = NULL
    block.scratch = batch.workspace + plan.scratch + thread * plan.scratch_of_thread
    for k in range(plan.depth):
        layer = &plan.layers[k]
        task = thread
        while task // layer.parts * layer.part_rows < batch.rows:
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
            task += threads
        meet(threads)


cdef inline long row_below(const Layer *layer) noexcept nogil:
    """The entries between samples of the layer's inputs."""
    return (layer - 1).row if layer.index > 0 else layer.inputs


cdef inline const char *output_below(const Plan *plan, const Batch *batch, long start, long first_row, long rows,
                                     int thread) noexcept nogil:
    """σ_{k−1}(a_{k−1}) for a block of samples, where layers[start] goes on from it."""
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef const Layer *below = &plan.layers[start] - 1
    cdef const char *kept
    cdef char *output
    if start == 0:
        return batch.input + first_row * plan.inputs * real_bytes
    kept = batch.workspace + below.kept + first_row * below.row * real_bytes
    if below.memory != KEEP_PREACTIVATION:
        return kept
    output = batch.workspace + plan.output_blocks + thread * plan.output_block
    below.activation.value(rows, below.outputs, kept, below.row, output, below.row)
    return output


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


cdef inline const Epilogue *epilogue_of_layer(const Plan *plan, const Batch *batch, const Layer *layer,
                                              const Block *block, Epilogue *epilogue) noexcept nogil:
    """What `keep` does, where the map can do it to each part of a_k as soon as that is known; else NULL."""
    cdef size_t first = block.first_row * layer.row + block.first
    if not layer.map.finishes or layer.memory == KEEP_PREACTIVATION:
        return NULL
    if is_identity(plan, layer) and not plan.keeps_factors:
        return NULL
    epilogue.run = finish_value if layer.memory == KEEP_OUTPUT else finish_value_and_slope
    epilogue.activation = layer.activation
    epilogue.real_bytes = plan.kernels.real_bytes
    epilogue.kept = NULL
    epilogue.signal = batch.workspace + layer.signal + first * plan.kernels.real_bytes
    epilogue.row = layer.row
    return epilogue


cdef inline char *keep(const Plan *plan, const Batch *batch, const Layer *layer, const Block *block, int thread,
                       char *a) noexcept nogil:
    """σ_k(a_k), of which the workspace keeps what Remark 8 (i) chooses: a_k; σ_k and σ_k'; or σ_k.

    `block` says which samples and which outputs; `a` is the first of the samples.
    """
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef size_t first = block.first * real_bytes
    cdef size_t offset = block.first_row * layer.row * real_bytes
    cdef long d = layer.row
    cdef char *output = a
    if is_identity(plan, layer) and not plan.keeps_factors:
        return a
    if layer.memory == KEEP_OUTPUT:
        layer.activation.value(block.rows, block.count, a + first, d, a + first, d)
    elif layer.memory == KEEP_OUTPUT_AND_SLOPE:
        layer.activation.value_and_slope(block.rows, block.count, a + first, d, a + first, d,
                                         batch.workspace + layer.signal + offset + first, d)
    else:
        if layer.index == plan.depth - 1:
            output = batch.workspace + plan.prediction + offset
        elif plan.by_layers:
            return a  # the layer above computes it again, on whatever thread
        else:
            output = batch.workspace + plan.output_blocks + thread * plan.output_block
        layer.activation.value(block.rows, block.count, a + first, d, output + first, d)
    return output


cdef inline char *output_of_batch(const Plan *plan, const Batch *batch, long first_row) noexcept nogil:
    """F_n of a block, after it went forward by layers."""
    cdef const Layer *last = &plan.layers[plan.depth - 1]
    cdef size_t place = plan.prediction if last.memory == KEEP_PREACTIVATION else last.kept
    return batch.workspace + place + first_row * plan.outputs * plan.kernels.real_bytes


cdef inline char *loss_slope_place(const Plan *plan, const Batch *batch, long first_row) noexcept nogil:
    """Where L goes: in the place of F_n, unless σ_n' is yet to be had from it."""
    cdef const Layer *last = &plan.layers[plan.depth - 1]
    cdef size_t place = last.signal if is_identity(plan, last) else plan.prediction
    return batch.workspace + place + first_row * plan.outputs * plan.kernels.real_bytes


cdef inline void begin_backward(const Plan *plan, const Batch *batch, long first_row, long rows,
                                int thread) noexcept nogil:
    """T ← σ_n'(a_n) ⊙ L, over one block of samples."""
    cdef const Layer *last = &plan.layers[plan.depth - 1]
    if not is_identity(plan, last):
        pull_back(plan, batch, last, first_row, rows, 0, last.outputs,
                  loss_slope_place(plan, batch, first_row), NULL)


cdef inline void pull_back(const Plan *plan, const Batch *batch, const Layer *layer, long first_row, long rows,
                           long first, long count, const char *u, char *output) noexcept nogil:
    """T ← u ⊙ σ_k'(a_k) on a panel of the layer's units, in the place of what was kept of it.

    `output` is σ_k(a_k) on that panel where it has been computed again from a_k, and NULL where it has not.
    """
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef long d = layer.row
    cdef size_t offset = (first_row * d + first) * real_bytes
    cdef char *kept = batch.workspace + layer.kept + offset
    cdef char *delta = batch.workspace + layer.signal + offset
    if layer.memory == KEEP_OUTPUT_AND_SLOPE:
        plan.kernels.multiply(rows, count, u, count, delta, d)
    elif layer.memory == KEEP_PREACTIVATION and layer.activation.reusable:
        if output == NULL:
            output = delta
            layer.activation.value(rows, count, kept, d, output, d)
            layer.activation.pull_back(rows, count, output, d, u, count, delta, d)
        else:
            layer.activation.pull_back(rows, count, output, count, u, count, delta, d)
    else:
        layer.activation.pull_back(rows, count, kept, d, u, count, delta, d)


cdef inline void backward(const Plan *plan, const Batch *batch, const Sink *sink, int thread,
                          int threads) noexcept nogil:
    """For k = n..1: G_k ← C_k††(σ_{k−1}(a_{k−1}), T), g_k ← ι_k*(T), T ← C_k†(T, W_k) ⊙ σ_{k−1}'(a_{k−1}).

    The threads share out the tasks of each layer: panels of a dense layer's input features, chunks of samples of
    the others. A task writes what no other one reads, and sums over its samples in one order.
    """
    cdef long lowest = plan.lowest if batch.input_slope == NULL else 0
    cdef const Layer *layer
    cdef long k, task
    for k in range(plan.depth - 1, lowest - 1, -1):
        layer = &plan.layers[k]
        if layer.restart >= 0:
            # Other layers have since used the buffers of those between the checkpoints.
            forward_all(plan, batch, layer.restart, k, thread, threads)
            meet(threads)
        task = thread
        while task < layer.panels * layer.chunks:
            backward_task(plan, batch, layer, task, lowest, sink, thread)
            task += threads
        meet(threads)
        if layer.chunks > 1 and layer.trainable and not plan.keeps_factors:
            join_chunks(plan, batch, layer, sink, 0, thread, threads)
            meet(threads)


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


cdef inline void forward_all(const Plan *plan, const Batch *batch, long start, long end, int thread,
                             int threads) noexcept nogil:
    """layers[start:end] for the whole batch."""
    cdef long first_row = thread * plan.block_rows
    while first_row < batch.rows:
        forward_between(plan, batch, start, end, first_row, min(plan.block_rows, batch.rows - first_row), thread)
        first_row += threads * plan.block_rows


cdef inline long backward_from_factors(const Plan *plan, const Batch *batch, const Sink *sink, int thread,
                                       int threads) noexcept nogil:
    """For k = n..1: G_k ← C_k††(σ_{k−1}(a_{k−1}), T), g_k ← ι_k*(T), once every T is known (Remark 8 ii).

    Returns how many squares the sink was given.
    """
    cdef const Layer *layer
    cdef long k, task, squares = 0
    for k in range(plan.depth - 1, plan.lowest - 1, -1):
        layer = &plan.layers[k]
        task = thread
        while layer.trainable and task < layer.panels * layer.chunks:
            task_gradient(plan, batch, layer, task, sink, squares, thread)
            task += threads
        if layer.chunks > 1 and layer.trainable:
            meet(threads)
            join_chunks(plan, batch, layer, sink, squares, thread, threads)
            meet(threads)
        if layer.trainable:
            squares += squares_of_layer(layer)
    meet(threads)
    return squares


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


cdef inline void backward_task(const Plan *plan, const Batch *batch, const Layer *layer, long number, long lowest,
                               const Sink *sink, int thread) noexcept nogil:
    """One cycle of the backward loop, on one panel of the layer's input features and one chunk of samples."""
    cdef Task task = describe_task(plan, batch, layer, number, thread)
    cdef bint needs_gradient = layer.trainable and not plan.keeps_factors
    cdef bint goes_on = layer.index > lowest or batch.input_slope != NULL
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
            add_gradient(plan, batch, layer, &task, &x, sink, gradient)
        if goes_on:
            # T ← C_k†(T, W_k) ⊙ σ_{k−1}'(a_{k−1}), with the W_k that the forward pass used
            send_back(plan, batch, layer, &task.block, &x, thread)
        first_row += task.block.rows
    if needs_gradient:
        finish_gradient(plan, layer, &task, sink, gradient, 0)


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
        add_gradient(plan, batch, layer, &task, &x, sink, gradient)
        first_row += task.block.rows
    finish_gradient(plan, layer, &task, sink, gradient, squares)


cdef inline size_t panel_of_thread(const Plan *plan, const Layer *layer, int thread) noexcept nogil:
    """The first byte of a thread's panel. Where threads work on different layers, all have as much."""
    cdef long entries = plan.panel_entries if plan.panel_entries > 0 else layer.backward_rows * layer.panel
    return thread * entries * plan.kernels.real_bytes


cdef struct Input:            # σ_{k−1}(a_{k−1}) on a block of samples and a panel of features
    const char *data
    long row                  # entries between samples
    char *recomputed          # the data, where it has been computed again from a_{k−1}; else NULL


cdef inline Input input_of_block(const Plan *plan, const Batch *batch, const Layer *layer, const Block *block,
                                 int thread) noexcept nogil:
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef long row = row_below(layer)
    cdef size_t offset = (block.first_row * row + block.first) * real_bytes
    cdef const Layer *below = layer - 1
    cdef Input x
    x.recomputed = NULL
    x.row = row
    if layer.index == 0:
        x.data = batch.input + offset
        return x
    x.data = batch.workspace + below.kept + offset
    if below.memory == KEEP_PREACTIVATION:
        x.recomputed = batch.workspace + plan.input_panels + panel_of_thread(plan, layer, thread)
        below.activation.value(block.rows, block.count, x.data, x.row, x.recomputed, block.count)
        x.data = x.recomputed
        x.row = block.count
    return x


cdef inline void add_gradient(const Plan *plan, const Batch *batch, const Layer *layer, const Task *task,
                              const Input *x, const Sink *sink, char *gradient) noexcept nogil:
    """G_k ← C_k††(σ_{k−1}(a_{k−1}), T) and g_k ← ι_k*(T), summed over the blocks of samples; where streaming sums
    over fewer of them, over these, so that it gives the same bits."""
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef const char *delta = batch.workspace + layer.signal + (
        task.block.first_row * layer.row * real_bytes)
    cdef const char *data = x.data
    cdef bint is_summed = layer.chunks == 1 and sink.accumulate
    cdef long number, parts
    cdef Block part
    if plan.sum_rows == 0 or task.block.rows <= plan.sum_rows:
        add_part_of_gradient(plan, layer, task, &task.block, data, x.row, delta,
                             is_summed or task.block.first_row > task.first_row, gradient)
        return
    # Such a batch goes back as one block.
    parts = parts_of(plan, batch.rows)
    part = task.block
    for number in range(parts):
        part.rows = end_of_part(plan, batch.rows, number, parts) - part.first_row
        add_part_of_gradient(plan, layer, task, &part, data, x.row, delta, is_summed or number > 0, gradient)
        data += part.rows * x.row * real_bytes
        delta += part.rows * layer.row * real_bytes
        part.first_row += part.rows


cdef inline void add_part_of_gradient(const Plan *plan, const Layer *layer, const Task *task, const Block *block,
                                      const char *x, long x_row, const char *delta, bint accumulate,
                                      char *gradient) noexcept nogil:
    layer.map.adjoint_weight(layer, block, x, x_row, delta, accumulate, gradient)
    if layer.bias_count and task.panel == layer.panels - 1:
        layer.map.gather(layer, block, delta, accumulate,
                         gradient + weights_of_panel(layer, task) * plan.kernels.real_bytes)


cdef inline const Epilogue *epilogue_of_panel(const Plan *plan, const Batch *batch, const Layer *layer,
                                              const Block *block, Epilogue *epilogue) noexcept nogil:
    """What `pull_back` does, where the map can do it to each part of C_k†(T, W_k) as soon as that is known, and one
    kernel does it; else NULL."""
    cdef const Layer *below = layer - 1
    cdef size_t offset
    if layer.index == 0 or not layer.map.finishes or below.memory == KEEP_OUTPUT_AND_SLOPE or (
            below.memory == KEEP_PREACTIVATION and below.activation.reusable):
        return NULL
    offset = (block.first_row * below.row + block.first) * plan.kernels.real_bytes
    epilogue.run = finish_pull_back
    epilogue.activation = below.activation
    epilogue.real_bytes = plan.kernels.real_bytes
    epilogue.kept = batch.workspace + below.kept + offset
    epilogue.signal = batch.workspace + below.signal + offset
    epilogue.row = below.row
    return epilogue


cdef inline void send_back(const Plan *plan, const Batch *batch, const Layer *layer, Block *block,
                           const Input *x, int thread) noexcept nogil:
    """T ← C_k†(T, W_k) ⊙ σ_{k−1}'(a_{k−1}), on a block of samples and a panel of features."""
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef const char *delta = batch.workspace + layer.signal + block.first_row * layer.row * real_bytes
    cdef char *u = batch.workspace + plan.delta_panels + panel_of_thread(plan, layer, thread)
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
    if layer.chunks > 1 and plan.threads == 1 and task.first_row < task.end_row:
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
    cdef long used = (batch.rows + rows_of_chunk(batch, layer) - 1) // rows_of_chunk(batch, layer)
    cdef long length = RUN_LENGTH if sink.squares != NULL else SHARED_LENGTH
    cdef long first = thread * length, count, chunk
    cdef char *part
    cdef char *total
    while first < parameters:
        count = min(length, parameters - first)
        part = batch.workspace + plan.gradient_parts + first * real_bytes
        for chunk in range(1, used if plan.threads > 1 else 1):
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
