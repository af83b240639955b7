#include "blas.h"

#include <string.h>

static void *sgemm_routine, *dgemm_routine;
static int wide_integers;

void set_blas(void *sgemm, void *dgemm, int integer_bytes)
{
    sgemm_routine = sgemm;
    dgemm_routine = dgemm;
    wide_integers = integer_bytes == 8;
}

/* Row-major c = op(a) op(b) is column-major c' = op(b)' op(a)': the operands change places. */
#define CALL_GEMM(real, integer, routine)                                                                    \
    do {                                                                                                     \
        typedef void Gemm(char *, char *, integer *, integer *, integer *, real *, real *, integer *,        \
                          real *, integer *, real *, real *, integer *);                                     \
        char first = of->form == A_TRANSPOSED_B ? 'T' : 'N',                                                 \
             second = of->form == TRANSPOSED_A_B ? 'T' : 'N';                                                \
        integer columns = (integer)of->n, rows = (integer)of->m, depth = (integer)of->k;                     \
        integer lda = (integer)of->a_row, ldb = (integer)of->b_row, ldc = (integer)of->c_row;                \
        real one = 1, beta = of->addend ? 1 : 0;                                                             \
        ((Gemm *)routine)(&first, &second, &columns, &rows, &depth, &one, (real *)of->b, &ldb,               \
                          (real *)of->a, &lda, &beta, of->c, &ldc);                                          \
    } while (0)

#define DEFINE_PRODUCT(name, real, routine)                                                                  \
    void name(const Operands *of)                                                                            \
    {                                                                                                        \
        for (long row = 0; of->addend && of->addend != of->c && row < of->m; row++) {                        \
            memcpy((real *)of->c + row * of->c_row, (const real *)of->addend + row * of->addend_row,         \
                   (size_t)of->n * sizeof(real));                                                            \
        }                                                                                                    \
        if (wide_integers) CALL_GEMM(real, int64_t, routine);                                                \
        else CALL_GEMM(real, int, routine);                                                                  \
        if (of->epilogue) of->epilogue->run(of->epilogue, 0, 0, of->m, of->n, of->c, of->c_row);             \
    }

DEFINE_PRODUCT(blas_product_f32, float, sgemm_routine)
DEFINE_PRODUCT(blas_product_f64, double, dgemm_routine)
