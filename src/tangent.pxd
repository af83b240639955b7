"""Tangents: the derivative of F_n along a direction (Propositions 5 and 9), and second-order products.

The first loop is Algorithm 2's forward loop with the derivative of each line beside it; the second one is the
backward loop likewise, which gives the product of the Hessian with the direction. Each thread takes blocks of
samples through both in a small workspace of its own.
"""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from batches cimport Data
from kernels cimport Block, Draw, Layer
from plan cimport Plan


cdef struct Tangents:
    const Plan *plan
    Data data
    const char *theta
    const char *theta_tangent # NULL: zero
    const char *input_tangent # (samples, d_0); NULL: zero
    char *workspace           # `plan.bytes` for each thread
    char *outputs             # F_n (samples, d_n); NULL: not wanted
    char *output_tangents     # dF_n
    # Second-order products.
    double scale              # 1 / Σ s_i
    bint gauss_newton         # leave out what L and σ'' bring: Jᵀ ℓ'' J
    const char *slopes        # c_i L and
    const char *curvatures    # c_i ℓ'' dF_n of a user's loss (samples, d_n); NULL: the plan's loss
    char *parts               # the product, in a part for each chunk of blocks
    long chunks


cdef inline Block block_of(const Tangents *tangents, const Draw *draw, long first_row, long rows,
                           int thread) noexcept nogil:
    cdef Block block
    block.rows = rows
    block.first_row = first_row
    block.first = 0
    block.draw = draw
    block.without_bias = 0
    block.epilogue = NULL
    block.scratch = tangents.workspace + thread * tangents.plan.bytes + tangents.plan.scratch
    return block


cdef inline void push_forward(const Tangents *tangents, Block *block, int thread) noexcept nogil:
    """For k = 1..n: a_k ← C_k(F_{k−1}, W_k) + ι_k(b_k), F_k ← σ_k(a_k), and along the direction

    da_k ← C_k(dF_{k−1}, W_k) + C_k(F_{k−1}, dW_k) + ι_k(db_k), dF_k ← σ_k'(a_k) ⊙ da_k: T, S and R of Prop. 9.
    """
    cdef const Plan *plan = tangents.plan
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef char *workspace = tangents.workspace + thread * plan.bytes
    cdef char *term = workspace + plan.prediction
    cdef size_t offset = block.first_row * plan.inputs * real_bytes
    cdef const char *x = tangents.data.inputs + offset
    cdef const char *dx = tangents.input_tangent + offset if tangents.input_tangent != NULL else NULL
    cdef const Layer *layer
    cdef char *a
    cdef char *da
    cdef bint moves
    for k in range(plan.depth):
        layer = &plan.layers[k]
        block.count = layer.outputs
        a = workspace + layer.kept
        da = workspace + layer.kept_tangent
        layer.map.apply(layer, block, tangents.theta, x, layer.inputs, a)
        moves = layer.trainable and tangents.theta_tangent != NULL
        if moves:
            layer.map.apply(layer, block, tangents.theta_tangent, x, layer.inputs, da)
        else:
            memset(da, 0, block.rows * layer.outputs * real_bytes)
        if dx != NULL:
            block.without_bias = 1
            if layer.map.tangent != NULL:
                layer.map.tangent(layer, block, x, layer.inputs, dx, term)
            else:
                layer.map.apply(layer, block, tangents.theta, dx, layer.inputs, term)
            block.without_bias = 0
            plan.kernels.add(block.rows * layer.outputs, term, da)
        x = workspace + layer.output
        dx = workspace + layer.output_tangent
        if x != a:
            layer.activation.value(block.rows, layer.outputs, a, layer.outputs, <char *> x, layer.outputs)
            layer.activation.pull_back(
                block.rows, layer.outputs, x if layer.activation.reusable else a, layer.outputs, da,
                layer.outputs, <char *> dx, layer.outputs)


cdef inline void tangents_of_loss(const Tangents *tangents, const Block *block, int thread) noexcept nogil:
    """T ← c_i L and dT ← c_i ℓ'' dF_n, at the outputs."""
    cdef const Plan *plan = tangents.plan
    cdef const Data *data = &tangents.data
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef size_t target_bytes = sizeof(int64_t) if plan.labels else plan.outputs * real_bytes
    cdef size_t bytes = block.rows * plan.outputs * real_bytes
    cdef size_t offset = block.first_row * plan.outputs * real_bytes
    cdef char *workspace = tangents.workspace + thread * plan.bytes
    cdef const Layer *last = &plan.layers[plan.depth - 1]
    cdef const char *targets
    cdef const char *weights = NULL
    cdef double loss = 0
    cdef char *delta = workspace + plan.deltas[0]
    cdef char *delta_tangent = workspace + plan.delta_tangents[0]
    if tangents.curvatures != NULL:
        memcpy(delta, tangents.slopes + offset, bytes)
        memcpy(delta_tangent, tangents.curvatures + offset, bytes)
    else:
        targets = data.targets + block.first_row * target_bytes
        if data.weights != NULL:
            weights = data.weights + block.first_row * real_bytes
        memcpy(delta_tangent, workspace + last.output_tangent, bytes)
        plan.loss.curvature(block.rows, plan.outputs, plan.labels, targets, weights, tangents.scale,
                            workspace + last.output, delta_tangent)
        plan.loss.evaluate(block.rows, plan.outputs, plan.labels, targets, weights, tangents.scale,
                           workspace + last.output, delta, block.rows, &loss)
    if tangents.gauss_newton:
        memset(delta, 0, bytes)


cdef inline void pull_back_tangents(const Tangents *tangents, Block *block, bint accumulate, char *product,
                                    int thread) noexcept nogil:
    """For k = n..1, of the lines of Algorithm 2's backward loop along the direction:

    dG_k ← C_k††(F_{k−1}, dT) + C_k††(dF_{k−1}, T), dg_k ← ι_k*(dT), and with u = C_k†(T, W_k),
    du = C_k†(dT, W_k) + C_k†(T, dW_k): T ← u ⊙ σ', dT ← du ⊙ σ' + u ⊙ σ'' ⊙ da_{k−1}.
    """
    cdef const Plan *plan = tangents.plan
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef char *workspace = tangents.workspace + thread * plan.bytes
    cdef char *term = workspace + plan.prediction
    cdef const Layer *layer
    cdef const Layer *below
    cdef const char *x
    cdef const char *dx
    cdef char *u
    cdef char *du
    cdef char *delta
    cdef char *delta_tangent
    cdef int turn = 0
    for k in range(plan.depth - 1, plan.lowest - 1, -1):
        layer = &plan.layers[k]
        below = layer - 1
        block.count = layer.inputs
        delta = workspace + plan.deltas[turn]
        delta_tangent = workspace + plan.delta_tangents[turn]
        turn = 1 - turn
        u = workspace + plan.deltas[turn]
        du = workspace + plan.delta_tangents[turn]
        if layer.activation != plan.kernels.activations:
            layer.activation.pull_back_tangent(
                block.rows * layer.outputs,
                workspace + (layer.output if layer.activation.reusable else layer.kept),
                workspace + layer.kept_tangent, delta, delta_tangent)
        if k > 0:
            x = workspace + below.output
            dx = workspace + below.output_tangent
        else:
            x = tangents.data.inputs + block.first_row * plan.inputs * real_bytes
            dx = NULL
        if layer.trainable:
            layer.map.adjoint_weight(layer, block, x, layer.inputs, delta_tangent, accumulate,
                                     product + layer.weight * real_bytes)
            if dx != NULL and not tangents.gauss_newton:
                layer.map.adjoint_weight(layer, block, dx, layer.inputs, delta, 1,
                                         product + layer.weight * real_bytes)
            if layer.bias_count:
                layer.map.gather(layer, block, delta_tangent, accumulate, product + layer.bias * real_bytes)
        if k > plan.lowest:
            layer.map.adjoint_input(layer, block, tangents.theta, x, layer.inputs, delta_tangent, du)
            if tangents.gauss_newton:
                memset(u, 0, block.rows * layer.inputs * real_bytes)
                continue
            layer.map.adjoint_input(layer, block, tangents.theta, x, layer.inputs, delta, u)
            if layer.trainable:
                layer.map.adjoint_input(layer, block, tangents.theta_tangent, x, layer.inputs, delta, term)
                plan.kernels.add(block.rows * layer.inputs, term, du)


cdef inline void push_all(const Tangents *tangents, int thread, int threads) noexcept nogil:
    """F_n and dF_n of all samples, block by block."""
    cdef const Plan *plan = tangents.plan
    cdef size_t row_bytes = plan.outputs * plan.kernels.real_bytes
    cdef const Layer *last = &plan.layers[plan.depth - 1]
    cdef char *workspace = tangents.workspace + thread * plan.bytes
    cdef long first = thread * plan.block_rows, rows
    cdef Draw draw
    cdef Block block
    draw.training = 0
    while first < tangents.data.samples:
        rows = min(plan.block_rows, tangents.data.samples - first)
        block = block_of(tangents, &draw, first, rows, thread)
        push_forward(tangents, &block, thread)
        memcpy(tangents.outputs + first * row_bytes, workspace + last.output, rows * row_bytes)
        memcpy(tangents.output_tangents + first * row_bytes, workspace + last.output_tangent, rows * row_bytes)
        first += threads * plan.block_rows


cdef inline void second_order(const Tangents *tangents, long parameters, int thread, int threads) noexcept nogil:
    """The product of the Hessian, or of Jᵀ ℓ'' J, with the direction: a part for each chunk of blocks."""
    cdef const Plan *plan = tangents.plan
    cdef long blocks = (tangents.data.samples + plan.block_rows - 1) // plan.block_rows
    cdef long chunk = thread, block_index, first
    cdef char *part
    cdef Draw draw
    cdef Block block
    draw.training = 0
    while chunk < tangents.chunks:
        part = tangents.parts + chunk * parameters * plan.kernels.real_bytes
        for block_index in range(chunk * blocks // tangents.chunks, (chunk + 1) * blocks // tangents.chunks):
            first = block_index * plan.block_rows
            block = block_of(tangents, &draw, first, min(plan.block_rows, tangents.data.samples - first), thread)
            push_forward(tangents, &block, thread)
            tangents_of_loss(tangents, &block, thread)
            pull_back_tangents(tangents, &block, block_index > chunk * blocks // tangents.chunks, part, thread)
        chunk += threads
