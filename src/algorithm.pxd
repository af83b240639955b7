"""Algorithm 2 of the paper: its forward and its backward loop, over a batch of samples.

A network is n layers F_k = σ_k(C_k(F_{k−1}, W_k) + ι_k(b_k)). `layers[k - 1]` describes layer k. What the
forward pass keeps of a layer (Remark 8 i) is up to `layer.memory`; the backward pass writes delta_k = ∂ℓ/∂a_k
in the place of what was kept, panel by panel of features, so that activations are the only memory that grows
with the batch. What becomes of G_k is up to the sink (Remark 8 iii).
"""
from libc.stddef cimport size_t

from kernels cimport (
    KEEP_OUTPUT, KEEP_OUTPUT_AND_SLOPE, KEEP_PREACTIVATION,
    Block, Draw, Layer, Optimizer, OptimizerKernel, meet,
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


cdef struct Sink:
    char *gradient            # G_k is stored here, laid out as theta; NULL: applied and forgotten
    int accumulate
    char *theta
    Optimizer *optimizer
    const OptimizerKernel *update


cdef inline bint is_identity(const Plan *plan, const Layer *layer) noexcept nogil:
    return layer.activation == plan.kernels.activations


cdef inline char *forward(const Plan *plan, const Batch *batch, long first_row, long rows,
                          int thread) noexcept nogil:
    """a_k ← C_k(σ_{k−1}(a_{k−1}), W_k) + ι_k(b_k) for k = 1..n, over one block of samples. Returns F_n."""
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef const char *x = batch.input + first_row * plan.inputs * real_bytes
    cdef const Layer *layer
    cdef char *a
    cdef Block block
    block.rows = rows
    block.first_row = first_row
    block.draw = &batch.draw
    block.scratch = batch.workspace + plan.product_panels + thread * plan.product_panel
    for k in range(plan.depth):
        layer = &plan.layers[k]
        block.first = 0
        block.count = layer.inputs
        a = batch.workspace + layer.kept + first_row * layer.outputs * real_bytes
        if k == plan.depth - 1 and batch.output != NULL:
            a = batch.output + first_row * layer.outputs * real_bytes
        layer.map.apply(layer, &block, batch.theta, x, layer.inputs, a)
        x = keep(plan, batch, layer, first_row, rows, thread, a)
    return <char *> x


cdef inline char *keep(const Plan *plan, const Batch *batch, const Layer *layer, long first_row, long rows,
                       int thread, char *a) noexcept nogil:
    """σ_k(a_k), of which the workspace keeps what Remark 8 (i) chooses: a_k; σ_k and σ_k'; or σ_k."""
    cdef size_t offset = first_row * layer.outputs * plan.kernels.real_bytes
    cdef long d = layer.outputs
    cdef char *output = a
    if is_identity(plan, layer):
        return a
    if layer.memory == KEEP_OUTPUT:
        layer.activation.value(rows, d, a, d, a, d)
    elif layer.memory == KEEP_OUTPUT_AND_SLOPE:
        layer.activation.value_and_slope(rows, d, a, d, a, d, batch.workspace + layer.signal + offset, d)
    else:
        if layer.index == plan.depth - 1:
            output = batch.workspace + plan.prediction + offset
        else:
            output = batch.workspace + plan.output_blocks + thread * plan.output_block
        layer.activation.value(rows, d, a, d, output, d)
    return output


cdef inline char *loss_slope_place(const Plan *plan, const Batch *batch, long first_row) noexcept nogil:
    """Where L goes: in the place of F_n, unless σ_n' is yet to be had from it."""
    cdef const Layer *last = &plan.layers[plan.depth - 1]
    cdef size_t place = last.kept if is_identity(plan, last) else plan.prediction
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
    cdef long d = layer.outputs
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

    The threads share out the panels of each layer's input features. A panel's part of G_k, and of the next T,
    depends on nothing that another panel writes, and is summed over the samples by one thread in one order.
    """
    cdef const Layer *layer
    cdef long k, panel
    for k in range(plan.depth - 1, plan.lowest - 1, -1):
        layer = &plan.layers[k]
        panel = thread
        while panel < layer.panels:
            backward_panel(plan, batch, layer, panel, sink, thread)
            panel += threads
        meet(threads)


cdef inline void backward_panel(const Plan *plan, const Batch *batch, const Layer *layer, long panel,
                                const Sink *sink, int thread) noexcept nogil:
    """One cycle of the backward loop, on one panel of the layer's input features."""
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef const Layer *below = layer - 1 if layer.index > 0 else NULL
    cdef bint goes_on = layer.index > plan.lowest
    cdef long first_row = 0, x_row
    cdef const char *x
    cdef const char *delta
    cdef char *output
    cdef char *u
    cdef char *gradient = NULL
    cdef Block block
    block.draw = &batch.draw
    block.scratch = batch.workspace + plan.product_panels + thread * plan.product_panel
    block.first = panel * layer.panel
    block.count = min(layer.panel, layer.inputs - block.first)
    if layer.trainable:
        gradient = panel_gradient(plan, batch, layer, &block, sink, thread)
    u = batch.workspace + plan.delta_panels + thread * plan.backward_rows * layer.panel * real_bytes
    while first_row < batch.rows:
        block.first_row = first_row
        block.rows = min(plan.backward_rows, batch.rows - first_row)
        delta = batch.workspace + layer.signal + first_row * layer.outputs * real_bytes
        output = NULL
        x_row = layer.inputs
        if below == NULL:
            x = batch.input + (first_row * layer.inputs + block.first) * real_bytes
        else:
            x = batch.workspace + below.kept + (first_row * layer.inputs + block.first) * real_bytes
            if below.memory == KEEP_PREACTIVATION:
                output = (batch.workspace + plan.input_panels
                          + thread * plan.backward_rows * layer.panel * real_bytes)
                below.activation.value(block.rows, block.count, x, x_row, output, block.count)
                x = output
                x_row = block.count
        if gradient != NULL:
            # G_k ← C_k††(σ_{k−1}(a_{k−1}), T)
            layer.map.adjoint_weight(layer, &block, x, x_row, delta, sink.accumulate or first_row > 0, gradient)
            if layer.bias_count and panel == layer.panels - 1:
                # g_k ← ι_k*(T)
                layer.map.gather(layer, &block, delta, sink.accumulate or first_row > 0,
                                 gradient + block.count * layer.outputs * real_bytes)
        if goes_on:
            # T ← C_k†(T, W_k) ⊙ σ_{k−1}'(a_{k−1}), with the W_k that the forward pass used
            layer.map.adjoint_input(layer, &block, batch.theta, x, x_row, delta, u)
            pull_back(plan, batch, below, first_row, block.rows, block.first, block.count, u, output)
        first_row += block.rows
    if gradient != NULL and sink.gradient == NULL:
        # W_k ← W_k − η G_k, b_k ← b_k − η g_k (Remark 8 iii)
        sink.update.update(sink.optimizer, layer.weight + block.first * layer.outputs,
                           panel_length(layer, &block, panel), sink.theta, gradient)


cdef inline long panel_length(const Layer *layer, const Block *block, long panel) noexcept nogil:
    """The parameters of a panel: its rows of the weight, and the bias behind the last of them."""
    return block.count * layer.outputs + (layer.bias_count if panel == layer.panels - 1 else 0)


cdef inline char *panel_gradient(const Plan *plan, const Batch *batch, const Layer *layer, const Block *block,
                                 const Sink *sink, int thread) noexcept nogil:
    """Where the panel's G_k and g_k are summed: in the stored gradient, or in scratch to be applied from."""
    if sink.gradient != NULL:
        return sink.gradient + (layer.weight + block.first * layer.outputs) * plan.kernels.real_bytes
    return batch.workspace + plan.gradient_panels + thread * (
        layer.panel * layer.outputs + layer.bias_count) * plan.kernels.real_bytes
