"""A batch, and what is kept of its layers between forward and backward (Remark 8 i): where it lies, σ_k, and ⊙ σ_k'.

What the forward pass keeps of a layer is up to `layer.memory`: a_k; σ_k(a_k) and σ_k'(a_k); or σ_k(a_k). The
backward pass writes delta_k = ∂ℓ/∂a_k in its place, panel by panel of features, so that activations are the only
memory that grows with the batch.
"""
from libc.stddef cimport size_t

from kernels cimport (
    AS_IT_IS, FINISHES_BOTH, FINISHES_NOTHING, KEEP_OUTPUT, KEEP_OUTPUT_AND_SLOPE, KEEP_PREACTIVATION,
    RELU_PULL_BACK, Block, Draw, Epilogue, Layer, finish_pull_back, finish_value, finish_value_and_slope,
)
from plan cimport Plan


cdef struct Batch:
    long rows
    const char *input         # (rows, d_0)
    const char *targets       # labels (rows,) or (rows, d_n)
    const char *weights       # s_i (rows,); NULL: all one
    double scale              # 1 / Σ s_i; 0 where that is 0
    Draw draw
    const char *theta
    char *workspace
    char *output              # where F_n goes; NULL: into the workspace
    char *input_slope         # where ∂ℓ/∂x goes (rows, d_0); NULL: not wanted


cdef inline bint is_identity(const Plan *plan, const Layer *layer) noexcept nogil:
    return layer.activation == plan.kernels.activations


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


cdef inline const Epilogue *epilogue_of_layer(const Plan *plan, const Batch *batch, const Layer *layer,
                                              const Block *block, Epilogue *epilogue) noexcept nogil:
    """What `keep` does, where the map can do it to each part of a_k as soon as that is known; else NULL."""
    cdef size_t first = block.first_row * layer.row + block.first
    if layer.map.finishes == FINISHES_NOTHING or layer.memory == KEEP_PREACTIVATION:
        return NULL
    if is_identity(plan, layer) and not plan.keeps_factors:
        return NULL
    epilogue.finish = layer.activation.value_finish if layer.memory == KEEP_OUTPUT else AS_IT_IS
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
    if layer.memory == KEEP_OUTPUT_AND_SLOPE and layer.activation.pull_back_finish == RELU_PULL_BACK:
        # u or nothing, as from F: its slope is positive where F is.
        layer.activation.pull_back(rows, count, delta, d, u, count, delta, d)
    elif layer.memory == KEEP_OUTPUT_AND_SLOPE:
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


cdef inline size_t panel_of_thread(const Plan *plan, const Layer *layer, int thread) noexcept nogil:
    """The first byte of a thread's panel. Where threads work on different layers, all have as much."""
    cdef long entries = plan.panel_entries if plan.panel_entries > 0 else layer.backward_rows * layer.panel
    return thread * entries * plan.kernels.real_bytes


cdef inline char *sent_back_place(const Plan *plan, const Batch *batch, const Layer *layer,
                                  int thread) noexcept nogil:
    """Where a thread has room for u = C_k†(T, W_k) on a panel of features."""
    return batch.workspace + plan.delta_panels + panel_of_thread(plan, layer, thread)


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


cdef inline const Epilogue *epilogue_of_panel(const Plan *plan, const Batch *batch, const Layer *layer,
                                              const Block *block, Epilogue *epilogue) noexcept nogil:
    """What `pull_back` does, where the map can do it to each part of C_k†(T, W_k) as soon as that is known, and one
    kernel does it; else NULL."""
    cdef const Layer *below = layer - 1
    cdef size_t offset
    if layer.index == 0 or layer.map.finishes != FINISHES_BOTH or below.memory == KEEP_OUTPUT_AND_SLOPE or (
            below.memory == KEEP_PREACTIVATION and below.activation.reusable):
        return NULL
    offset = (block.first_row * below.row + block.first) * plan.kernels.real_bytes
    epilogue.finish = below.activation.pull_back_finish if below.memory == KEEP_OUTPUT else AS_IT_IS
    epilogue.run = finish_pull_back
    epilogue.activation = below.activation
    epilogue.real_bytes = plan.kernels.real_bytes
    epilogue.kept = batch.workspace + below.kept + offset
    epilogue.signal = batch.workspace + below.signal + offset
    epilogue.row = below.row
    return epilogue
