"""Forward passes alone: predictions, and the loss of data that is not trained on.

Each thread takes blocks of samples through all layers in a small workspace of its own, in which the outputs of
the layers take turns in two buffers.
"""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t

from algorithm cimport forward
from batches cimport Data, add_losses
from kept cimport Batch
from plan cimport Plan


cdef struct Inference:
    const Plan *plan
    Data data
    const char *theta
    char *workspace           # `plan.bytes` for each thread
    long block_rows           # samples that go through the layers together: the plan's, or fewer
    char *outputs             # (samples, d_n); NULL: not wanted
    double *losses            # Σ s_i ℓ_i of each block; NULL: not wanted
    bint probabilities        # what the loss makes of F_n


cdef inline void infer(const Inference *inference, int thread, int threads) noexcept nogil:
    """F_n of all samples, block by block."""
    cdef const Plan *plan = inference.plan
    cdef const Data *data = &inference.data
    cdef size_t real_bytes = plan.kernels.real_bytes
    cdef size_t target_bytes = sizeof(int64_t) if plan.labels else plan.outputs * real_bytes
    cdef long block_rows = inference.block_rows
    cdef long blocks = (data.samples + block_rows - 1) // block_rows
    cdef long block, first
    cdef char *output
    cdef Batch batch
    batch.theta = inference.theta
    batch.workspace = inference.workspace + thread * plan.bytes
    batch.output = NULL
    batch.input_slope = NULL
    batch.weights = NULL
    batch.scale = 1
    batch.draw.training = 0
    block = thread
    while block < blocks:
        first = block * block_rows
        batch.rows = min(block_rows, data.samples - first)
        batch.input = data.inputs + first * plan.inputs * real_bytes
        if inference.outputs != NULL:
            batch.output = inference.outputs + first * plan.outputs * real_bytes
        output = forward(plan, &batch, 0, batch.rows, 0)
        if inference.losses != NULL:
            batch.targets = data.targets + first * target_bytes
            if data.weights != NULL:
                batch.weights = data.weights + first * real_bytes
            inference.losses[block] = 0
            add_losses(plan, &batch, 0, batch.rows, output, batch.workspace + plan.prediction, batch.rows,
                       inference.losses + block)
        if inference.probabilities:
            plan.loss.probabilities(batch.rows, plan.outputs, output)
        block += threads
