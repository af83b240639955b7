"""A plan as the loops read it: the layers, and where everything lies in the workspace.

fnn_core/plan.py decides all of it; here it is only copied into C.
"""
from libc.stddef cimport size_t
from libc.string cimport strcmp

from kernels cimport (
    AXES, FINISHES_BOTH, KEEP_OUTPUT, KEEP_OUTPUT_AND_SLOPE, KEEP_PREACTIVATION, RELU_PULL_BACK, Geometry, Kernels,
    Layer, Loss, Map,
)


cdef struct Plan:
    const Kernels *kernels
    const Loss *loss          # NULL: a loss of the user's
    Layer *layers
    long depth                # n
    long lowest               # the index of the lowest layer that is trained
    long resume               # the index of the layer after the last checkpoint; 0: there is none
    long inputs, outputs      # d_0, d_n
    long parameters           # of all layers
    long block_rows           # samples that go forward together
    long loss_rows            # samples whose losses are summed together
    long sum_rows             # samples whose part of G_k is summed before it is added, at most; 0: all of a task's
    int labels                # targets are class labels
    int threads
    bint keeps_factors        # delta does not take the place of the inputs; G_k is formed after all of it
    bint by_layers            # forward, each layer for the whole batch before the next
    bint two_phase            # blocks of samples go forward and back; then all G_k
    long streams              # chunks of blocks that each sum up a part of the gradient; 0: no streaming
    # Byte offsets in the workspace, and the bytes that each thread or task has of a buffer.
    size_t batch_input, batch_targets, batch_weights
    size_t prediction         # F_n, then L, where σ_n is not the identity
    size_t block_losses, norms
    size_t gradient           # G of all layers, for an update after the backward pass
    size_t scratch, scratch_of_thread
    size_t output_blocks, output_block
    size_t input_panels, delta_panels
    # What a thread has of those and of gradient_panels; 0: as many entries as the layer in hand needs.
    long panel_entries, gradient_entries
    size_t gradient_panels    # G_k of panels, for an immediate update
    size_t gradient_parts     # G_k of chunks of samples
    size_t sample_norms, sample_gradients, sample_gradient
    size_t deltas[2]          # of a pass with tangents: T and dT, and their next ones
    size_t delta_tangents[2]
    size_t bytes


cdef inline const Map *map_named(const Kernels *kernels, bytes name):
    """The kernels' map of that name."""
    cdef const Map *const *entry = kernels.maps
    while entry[0] != NULL:
        if strcmp(entry[0].name, name) == 0:
            return entry[0]
        entry += 1
    raise ValueError(f"no map is named {name.decode()!r}")


cdef inline int fill_layer(Layer *layer, const Kernels *kernels, const Map *user_map, int index,
                           description) except -1:
    """`layer.user` is set where the map is a user's."""
    if layer.user != NULL:
        layer.map = user_map
    else:
        layer.map = map_named(kernels, description.kind.encode())
    layer.activation = &kernels.activations[description.activation_index]
    layer.product = kernels.blas if description.gemm == "blas" else kernels.native
    layer.index = index
    layer.restart = description.restart
    layer.inputs = description.inputs
    layer.outputs = description.outputs
    layer.weight = description.offset
    layer.weight_count = description.weight_count
    layer.bias = description.offset + description.weight_count
    layer.bias_count = description.bias_count
    layer.trainable = description.trainable
    layer.memory = {"recompute": KEEP_PREACTIVATION, "store": KEEP_OUTPUT_AND_SLOPE,
                    "reuse": KEEP_OUTPUT}[description.memory]
    layer.panel = description.panel
    layer.panels = description.panels
    layer.part = description.part or description.outputs
    layer.parts = description.parts
    layer.part_rows = description.part_rows
    layer.row = description.row
    layer.kept = description.kept
    layer.signal = description.signal
    layer.output = description.output
    layer.kept_tangent = description.kept_tangent
    layer.output_tangent = description.output_tangent
    layer.rate = description.rate
    layer.chunks = description.chunks
    layer.backward_rows = description.backward_rows
    if description.geometry is not None:
        fill_geometry(&layer.geometry, description.geometry)
    layer.at_once = has_adjoints_at_once(kernels, layer)
    return 0


cdef inline bint has_adjoints_at_once(const Kernels *kernels, const Layer *layer) noexcept nogil:
    """Whether the map sums G_k and sends T back in one pass over F_{k−1}, in whose place T goes. With one output,
    both are outer products."""
    cdef const Layer *below = layer - 1
    return (layer.outputs > 1 and layer.outputs <= layer.map.few_outputs and layer.index > 0
            and layer.product == kernels.native and layer.map.finishes == FINISHES_BOTH
            and below.memory == KEEP_OUTPUT and below.signal == below.kept
            and below.activation.pull_back_finish >= RELU_PULL_BACK)


cdef inline int fill_geometry(Geometry *geometry, description) except -1:
    """`description` has one number an axis, its leading axes of size one."""
    for axis in range(AXES):
        geometry._in[axis] = description.inputs[axis]
        geometry.out[axis] = description.outputs[axis]
        geometry.kernel[axis] = description.kernel[axis]
        geometry.stride[axis] = description.stride[axis]
        geometry.dilation[axis] = description.dilation[axis]
        geometry.before[axis] = description.before[axis]
    geometry.channels = description.channels
    geometry.filters = description.filters
    geometry.groups = description.groups
    geometry.algorithm = description.algorithm
    return 0


cdef inline int fill_plan(Plan *plan, const Kernels *kernels, const Map *user_map, description) except -1:
    """`plan.layers` has room for the description's layers."""
    offsets = description.offsets
    plan.kernels = kernels
    plan.loss = NULL if description.loss_index is None else &kernels.losses[<int> description.loss_index]
    plan.depth = len(description.layers)
    plan.lowest = description.lowest
    plan.resume = description.resume
    plan.inputs = description.inputs
    plan.outputs = description.outputs
    plan.parameters = description.n_parameters
    plan.block_rows = description.block_rows
    plan.loss_rows = description.loss_rows
    plan.sum_rows = description.sum_rows
    plan.labels = description.labels
    plan.threads = description.threads
    plan.batch_input = offsets.get("batch_input", 0)
    plan.batch_targets = offsets.get("batch_targets", 0)
    plan.batch_weights = offsets.get("batch_weights", 0)
    plan.prediction = offsets.get("prediction", 0)
    plan.block_losses = offsets.get("block_losses", 0)
    plan.norms = offsets.get("norms", 0)
    plan.gradient = offsets.get("gradient", 0)
    plan.scratch = offsets.get("scratch", 0)
    plan.scratch_of_thread = description.scratch_bytes
    plan.output_blocks = offsets.get("output_blocks", 0)
    plan.output_block = description.output_block_bytes
    plan.input_panels = offsets.get("input_panels", 0)
    plan.delta_panels = offsets.get("delta_panels", 0)
    plan.gradient_panels = offsets.get("gradient_panels", 0)
    plan.gradient_parts = offsets.get("gradient_parts", 0)
    plan.sample_norms = offsets.get("sample_norms", 0)
    plan.sample_gradients = offsets.get("sample_gradients", 0)
    plan.sample_gradient = description.sample_gradient_bytes
    plan.keeps_factors = description.keeps_factors
    plan.by_layers = description.schedule == "layers" and description.resume == 0
    plan.two_phase = description.schedule == "two_phase"
    plan.streams = description.streams
    plan.panel_entries = description.panel_entries
    plan.gradient_entries = description.gradient_entries
    for turn in range(2):
        plan.deltas[<int> turn] = offsets.get(f"delta {turn}", 0)
        plan.delta_tangents[<int> turn] = offsets.get(f"delta tangent {turn}", 0)
    plan.bytes = description.bytes_of_one_workspace
    for index, layer in enumerate(description.layers):
        fill_layer(&plan.layers[<int> index], kernels, user_map, index, layer)
    return 0
