/* What the plan, the loops of Algorithm 2 (in Cython) and the kernels (in C) share.
 *
 * Every sample-wise array is row-major with samples as rows. Letters in comments: N rows, I = d_{k-1}
 * inputs and O = d_k outputs of a layer. A weight is stored as (I, O), the transpose of the paper's W_k,
 * with its bias after it: so the forward product and C†† read and write it along contiguous outputs, and
 * the part of theta that belongs to a panel of input features is one contiguous run.
 *
 * `void *` arrays hold the variant's `real`; each variant (ISA x precision) fills one `Kernels`.
 */
#ifndef FNN_ENGINE_H
#define FNN_ENGINE_H

#include <stddef.h>
#include <stdint.h>

typedef struct Kernels Kernels;
typedef struct Layer Layer;

/* Remark 8 (i): what the forward pass keeps of a layer. */
enum Memory { KEEP_PREACTIVATION, KEEP_OUTPUT_AND_SLOPE, KEEP_OUTPUT };

/* The three products of a dense layer. */
enum Form { A_B, A_TRANSPOSED_B, TRANSPOSED_A_B };

/* Whose epilogue a map runs: none, that of sigma forward, or that of sigma' backward as well. */
enum Finishes { FINISHES_NOTHING, FINISHES_VALUE, FINISHES_BOTH };

/* What a tile does to its part of C while that is in registers: nothing; F <- sigma(a); or, from
 * RELU_PULL_BACK on, T <- u . sigma'(a), from the F that lies in T's place. */
enum Finish { AS_IT_IS, RELU_VALUE, RELU_PULL_BACK, TANH_PULL_BACK, SIGMOID_PULL_BACK };

/* What becomes of a part of a product as soon as it is finished, while it is in the cache: c (rows, columns)
 * from (row, column) on. NULL: nothing. Where tiles can do that themselves, `finish` says so; they then write
 * T in its place, `signal`, which is that of F, and leave u undefined. */
typedef struct Epilogue Epilogue;
typedef struct Activation Activation;
struct Epilogue {
    enum Finish finish;
    void (*run)(const Epilogue *epilogue, long row, long column, long rows, long columns, void *c,
                long c_row);
    const Activation *activation;
    size_t real_bytes;
    /* Of a product's rows: F_k or a_k, and D_k or delta_k, `row` entries apart. */
    const void *kept;
    void *signal;
    long row;
};

/* Of a product c (m, n) <- addend + op(a) op(b), reduced over k; then the epilogue. `addend` is NULL, c
 * itself, or one row (addend_row = 0) such as a bias. All are handed on by their address: of the products of
 * a small net, the instructions that copied them were a good part. Initializers name all of them: GCC clears
 * what they leave out by an instruction that takes as long as a small product (Zen 3). */
typedef struct {
    enum Form form;
    long m, n, k;
    const void *a;
    long a_row;
    const void *b;
    long b_row;
    const void *addend;
    long addend_row;
    void *c;
    long c_row;
    const Epilogue *epilogue;
    void *scratch;
} Operands;
typedef void Product(const Operands *of);

/* Where dropout masks come from: one seed, one number a step. */
typedef struct {
    uint64_t seed, step;
    int training;
    long first_row; /* the place in the step's batch of the samples that count as the first here */
} Draw;

/* The samples and the input features that one call of a map works on. */
typedef struct {
    long rows;      /* samples */
    long first_row; /* the first one's place in the batch */
    long first;     /* the first input feature of the panel; for `apply`, the first output */
    long count;     /* input features of the panel; for `apply`, outputs */
    const Draw *draw;
    int without_bias;         /* `apply` leaves iota(b) out */
    const Epilogue *epilogue; /* of `apply` or an adjoint, for a map that `finishes`; NULL: none */
    void *scratch;            /* belongs to the calling thread */
} Block;

/* A layer's map C (Section 4) and its two adjoints, on blocks of samples. */
typedef struct {
    const char *name;
    /* a (rows, O) <- C(x, W) + iota(b);  x (rows, I), rows x_row apart. A dense layer computes `count`
     * outputs from `first`, the others all. */
    void (*apply)(const Layer *layer, const Block *block, const void *theta, const void *x, long x_row,
                  void *a);
    /* u (rows, count) <- the panel's features of C†(delta, W);  x as in adjoint_weight: the selection or
     * mask of a map without weight is the one that x fixed */
    void (*adjoint_input)(const Layer *layer, const Block *block, const void *theta, const void *x,
                          long x_row, const void *delta, void *u);
    /* G (count, O) <- [G +] the panel's rows of C††(x, delta);  x (rows, count), rows x_row apart */
    void (*adjoint_weight)(const Layer *layer, const Block *block, const void *x, long x_row,
                           const void *delta, int accumulate, void *gradient);
    /* Both at once, of a layer of 2 to `few_outputs` outputs under the engine's own product: G, then T in x's
     * place by the block's epilogue, whose `finish` is a pull-back. u: room for (rows, count). NULL, with
     * few_outputs 0: the map has none. */
    void (*adjoints)(const Layer *layer, const Block *block, const void *theta, const void *x, long x_row,
                     const void *delta, int accumulate, void *gradient, void *u);
    long few_outputs;
    /* g <- [g +] iota*(delta) */
    void (*gather)(const Layer *layer, const Block *block, const void *delta, int accumulate, void *gradient);
    /* squares[i] <- squares[i] + |G|^2 + |g|^2 of sample i alone, without forming them; x as in
     * adjoint_weight, of all features. Returns 0, having done nothing, where to form them costs less; NULL:
     * so it is always. */
    int (*add_squares)(const Layer *layer, const Block *block, const void *x, long x_row, const void *delta,
                       double *squares);
    /* a (rows, O) <- the derivative of `apply` in x, along `direction` (rows, I), without bias; NULL where
     * that is `apply` itself */
    void (*tangent)(const Layer *layer, const Block *block, const void *x, long x_row, const void *direction,
                    void *a);
    int finishes; /* whether `apply` (FINISHES_VALUE), or `adjoint_input` too, runs the block's epilogue */
} Map;

/* sigma_k on (rows, columns) blocks. `reusable`: sigma' follows from sigma (Remark 8 (i)), and is then
 * computed from it in every memory mode. All arguments may alias. */
struct Activation {
    const char *name;
    int reusable;
    /* What tiles do themselves of `value` and `pull_back`: it should cost less than to load a, or u, again.
     */
    enum Finish value_finish, pull_back_finish;
    /* F <- sigma(a) */
    void (*value)(long rows, long columns, const void *a, long a_row, void *output, long output_row);
    /* F <- sigma(a), D <- sigma'(a) */
    void (*value_and_slope)(long rows, long columns, const void *a, long a_row, void *output, long output_row,
                            void *slope, long slope_row);
    /* T <- u . sigma', from kept = F where reusable, else from kept = a */
    void (*pull_back)(long rows, long columns, const void *kept, long kept_row, const void *u, long u_row,
                      void *delta, long delta_row);
    /* u <- T, and u_tangent <- its tangent u_tangent . sigma' + u . sigma'' . a_tangent; kept as above */
    void (*pull_back_tangent)(long count, const void *kept, const void *a_tangent, void *u, void *u_tangent);
};

/* l(y, t) and L = dl/dt. Adds the sums of c_i l_i over each `run` of rows to `sums`, and writes c_i L (rows,
 * O) to slope, which may be t; c_i = scale * weights[i], or scale where weights is NULL. y: labels (int64) or
 * targets (rows, O). */
typedef struct {
    const char *name;
    void (*evaluate)(long rows, long outputs, int labels, const void *y, const void *weights, double scale,
                     const void *t, void *slope, long run, double *sums);
    /* v <- c_i l''(y, t) v: what a tangent v of t does to L */
    void (*curvature)(long rows, long outputs, int labels, const void *y, const void *weights, double scale,
                      const void *t, void *v);
    /* p <- probabilities of the logits t, in place; NULL where the loss has none */
    void (*probabilities)(long rows, long outputs, void *t);
} Loss;

/* The settings and the state of an optimizer; each reads the fields it has. */
typedef struct {
    double rate, weight_decay, momentum, beta1, beta2, epsilon, rate_decay;
    int nesterov, centered;
    int64_t step;                 /* steps begun, this one included */
    double step_size, correction; /* of this step, set by `begin` */
    void *state[3];               /* each laid out as theta */
} Optimizer;

typedef struct {
    const char *name;
    void (*begin)(Optimizer *optimizer);
    /* theta and state at [offset, offset + count) <- one step along gradient (count) */
    void (*update)(const Optimizer *optimizer, long offset, long count, void *theta, const void *gradient);
} OptimizerKernel;

/* Of a convolution or a pool. Axes are outer, middle and inner; an image has no middle one, a line neither
 * middle nor outer: their sizes are 1. Images are channels last. */
#define AXES 3
/* How a convolution is done: as is cheapest, as it is defined, or after Winograd. */
enum Algorithm { AUTO, DIRECT, WINOGRAD };
typedef struct {
    long in[AXES], out[AXES], kernel[AXES], stride[AXES], dilation[AXES], before[AXES];
    long channels, filters, groups;
    int algorithm; /* enum Algorithm */
} Geometry;

struct Layer {
    const Map *map;
    const Activation *activation;
    Product *product;
    long inputs, outputs;
    long weight, weight_count; /* the first entry in theta, and their number */
    long bias, bias_count;
    int trainable;
    int memory; /* enum Memory */
    int index;
    int restart;        /* the layer to go forward again from before this one goes backward, or -1 */
    long panel, panels; /* input features of a backward task, and the number of tasks */
    long part, parts;   /* outputs of a forward task, and the number of tasks of as many samples */
    long part_rows;     /* samples of a forward task, where a layer is done for the whole batch */
    long row;           /* entries between samples of what is kept of it, O or more */
    size_t kept;        /* byte offset in the workspace of a_k or F_k, (N, O) */
    size_t signal;      /* of delta_k, which replaces D_k, F_k or a_k, by memory mode */
    /* Of a pass with tangents, which keeps apart what the others share: F_k, da_k and dF_k. */
    size_t output, kept_tangent, output_tangent;
    double rate; /* of dropout */
    Geometry geometry;
    long chunks;        /* runs of samples whose parts of G_k are summed apart, then in order */
    long backward_rows; /* samples that go backward together */
    int at_once;        /* whether G and T come from `adjoints` */
    void *user;         /* of a user's map: the Python object behind it */
};

struct Kernels {
    const char *isa;
    size_t real_bytes;
    Product *native, *blas;
    /* scratch of `native` in reals, where B's rows lie n entries apart and A's k, or a line more; no less
     * than for fewer rows */
    long (*product_scratch)(enum Form form, long m, long n, long k);
    const Map *const *maps; /* ends with NULL */
    const Activation *activations;
    const Loss *losses;
    const OptimizerKernel *optimizers;
    /* scratch of a convolution, in reals */
    long (*convolution_scratch)(const Geometry *geometry);
    /* to[i] <- from[order[i]], rows of `columns` reals; returns whether all are finite */
    int (*gather_rows)(long rows, long columns, const int64_t *order, const void *from, void *to);
    int (*all_finite)(long count, const void *x);
    void (*multiply)(long rows, long columns, const void *u, long u_row, void *delta, long delta_row);
    double (*sum_of_squares)(long count, const void *x);
    void (*add)(long count, const void *x, void *y); /* y <- y + x */
    void (*scale)(long count, double factor, void *x);
    /* for a loss of the user's: the sum of c_i x_i, and x (rows, columns) <- c_i x_i; c_i as in Loss */
    double (*weighted_sum)(long rows, const void *weights, double factor, const void *x);
    /* x (count) <- x + deviation z, z standard normal: a function of (seed, step, first + i) */
    void (*add_noise)(long first, long count, double deviation, uint64_t seed, uint64_t step, void *x);
    void (*scale_rows)(long rows, long columns, const void *weights, double factor, void *x);
    /* y <- f(x) for the vector functions of vecmath.inc, by name; 0 where there is none of that name */
    int (*vector_function)(const char *name, long count, const void *x, void *y);
};

/* F_k <- sigma(c), in the place of c */
void finish_value(const Epilogue *epilogue, long row, long column, long rows, long columns, void *c,
                  long c_row);
/* F_k <- sigma(c), in the place of c; D_k <- sigma'(c) */
void finish_value_and_slope(const Epilogue *epilogue, long row, long column, long rows, long columns, void *c,
                            long c_row);
/* delta_k <- c . sigma' */
void finish_pull_back(const Epilogue *epilogue, long row, long column, long rows, long columns, void *c,
                      long c_row);

/* The kernels of the instruction set in use (kernels.c); real_bytes is 4 or 8. */
const Kernels *kernels_in_use(size_t real_bytes);
/* Picks the instruction set: `name` or, where NULL, the best; returns 0 where it cannot be had here. */
int choose_isa(const char *name);
/* A comma-separated list of the compiled instruction sets. */
const char *compiled_isas(void);

#endif
