"""The C side as Cython sees it; kernels/*.h explain each entry."""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t


cdef extern from "kernels/engine.h" nogil:
    enum Memory:
        KEEP_PREACTIVATION
        KEEP_OUTPUT_AND_SLOPE
        KEEP_OUTPUT

    enum Form:
        A_B
        A_TRANSPOSED_B
        TRANSPOSED_A_B

    ctypedef struct Draw:
        uint64_t seed, step
        int training
        long first_row

    enum:
        FINISHES_NOTHING
        FINISHES_VALUE
        FINISHES_BOTH

    enum Finish:
        AS_IT_IS
        RELU_VALUE
        RELU_PULL_BACK
        TANH_PULL_BACK
        SIGMOID_PULL_BACK

    ctypedef struct Epilogue:
        Finish finish
        void (*run)(const Epilogue *, long, long, long, long, void *, long) noexcept nogil
        const Activation *activation
        size_t real_bytes
        const void *kept
        void *signal
        long row

    void finish_value(const Epilogue *, long, long, long, long, void *, long) noexcept nogil
    void finish_value_and_slope(const Epilogue *, long, long, long, long, void *, long) noexcept nogil
    void finish_pull_back(const Epilogue *, long, long, long, long, void *, long) noexcept nogil

    ctypedef struct Block:
        long rows, first_row, first, count
        const Draw *draw
        int without_bias
        const Epilogue *epilogue
        void *scratch

    enum:
        AXES

    ctypedef struct Geometry:
        long *_in "in"
        long *out
        long *kernel
        long *stride
        long *dilation
        long *before
        long channels, filters, groups
        int algorithm

    ctypedef void Product()

    ctypedef struct Layer:
        const Map *map
        const Activation *activation
        Product *product
        long inputs, outputs
        long weight, weight_count, bias, bias_count
        int trainable, memory, index, restart
        long panel, panels, part, parts, part_rows, row
        size_t kept, signal, output, kept_tangent, output_tangent
        double rate
        Geometry geometry
        long chunks, backward_rows
        int at_once
        void *user

    ctypedef struct Map:
        const char *name
        void (*apply)(const Layer *, const Block *, const void *, const void *, long, void *) noexcept nogil
        void (*adjoint_input)(const Layer *, const Block *, const void *, const void *, long,
                              const void *, void *) noexcept nogil
        void (*adjoint_weight)(const Layer *, const Block *, const void *, long, const void *, int,
                               void *) noexcept nogil
        void (*adjoints)(const Layer *, const Block *, const void *, const void *, long, const void *, int,
                         void *, void *) noexcept nogil
        long few_outputs
        void (*gather)(const Layer *, const Block *, const void *, int, void *) noexcept nogil
        int (*add_squares)(const Layer *, const Block *, const void *, long, const void *,
                            double *) noexcept nogil
        void (*tangent)(const Layer *, const Block *, const void *, long, const void *, void *) noexcept nogil
        int finishes

    ctypedef struct Activation:
        const char *name
        int reusable
        Finish value_finish, pull_back_finish
        void (*value)(long, long, const void *, long, void *, long) noexcept nogil
        void (*value_and_slope)(long, long, const void *, long, void *, long, void *, long) noexcept nogil
        void (*pull_back)(long, long, const void *, long, const void *, long, void *, long) noexcept nogil
        void (*pull_back_tangent)(long, const void *, const void *, void *, void *) noexcept nogil

    ctypedef struct Loss:
        const char *name
        void (*evaluate)(long, long, int, const void *, const void *, double, const void *, void *, long,
                         double *) noexcept nogil
        void (*curvature)(long, long, int, const void *, const void *, double, const void *,
                          void *) noexcept nogil
        void (*probabilities)(long, long, void *) noexcept nogil

    ctypedef struct Optimizer:
        double rate, weight_decay, momentum, beta1, beta2, epsilon, rate_decay
        int nesterov, centered
        int64_t step
        void *state[3]

    ctypedef struct OptimizerKernel:
        const char *name
        void (*begin)(Optimizer *) noexcept nogil
        void (*update)(const Optimizer *, long, long, void *, const void *) noexcept nogil

    ctypedef struct Kernels:
        const char *isa
        size_t real_bytes
        Product *native
        Product *blas
        long (*product_scratch)(Form, long, long, long) noexcept nogil
        const Map *const *maps
        const Activation *activations
        const Loss *losses
        const OptimizerKernel *optimizers
        long (*convolution_scratch)(const Geometry *) noexcept nogil
        int (*gather_rows)(long, long, const int64_t *, const void *, void *) noexcept nogil
        int (*all_finite)(long, const void *) noexcept nogil
        void (*multiply)(long, long, const void *, long, void *, long) noexcept nogil
        double (*sum_of_squares)(long, const void *) noexcept nogil
        void (*add)(long, const void *, void *) noexcept nogil
        void (*scale)(long, double, void *) noexcept nogil
        double (*weighted_sum)(long, const void *, double, const void *) noexcept nogil
        void (*add_noise)(long, long, double, uint64_t, uint64_t, void *) noexcept nogil
        void (*scale_rows)(long, long, const void *, double, void *) noexcept nogil
        int (*vector_function)(const char *, long, const void *, void *) noexcept nogil

    const Kernels *kernels_in_use(size_t real_bytes)
    int choose_isa(const char *name)
    const char *compiled_isas()


cdef extern from "kernels/blas.h" nogil:
    void set_blas(void *sgemm, void *dgemm, int integer_bytes)


cdef extern from "kernels/philox.h" nogil:
    long poisson_sample(uint64_t seed, uint64_t step, long count, double probability, int64_t *chosen)
    void shuffle(uint64_t seed, uint64_t epoch, long count, int64_t *order)


cdef extern from "kernels/memory.h" nogil:
    void *allocate(size_t size)
    void release(void *memory)
    int64_t allocation_calls()
    int64_t allocation_bytes()


cdef extern from "kernels/subnormals.h" nogil:
    uint64_t drop_subnormals()
    uint64_t keep_subnormals()
    void set_arithmetic_mode(uint64_t mode)


cdef extern from "kernels/team.h" nogil:
    int HAS_OPENMP

    ctypedef struct MeetingPoint:
        int arrived, generation, sleeping

    void join_team(MeetingPoint *point)
    void meet(int threads)
    long first_of_share(long count, int thread, int threads)
    void watch_forks()
    int may_use_threads()
    int team_size()
    double seconds_now()
