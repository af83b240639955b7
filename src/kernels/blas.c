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
        char first = form == A_TRANSPOSED_B ? 'T' : 'N', second = form == TRANSPOSED_A_B ? 'T' : 'N';        \
        integer columns = (integer)n, rows = (integer)m, depth = (integer)k;                                 \
        integer lda = (integer)a_row, ldb = (integer)b_row, ldc = (integer)c_row;                            \
        real one = 1, beta = addend ? 1 : 0;                                                                 \
        ((Gemm *)routine)(&first, &second, &columns, &rows, &depth, &one, (real *)b, &ldb, (real *)a, &lda,  \
                          &beta, c, &ldc);                                                                   \
    } while (0)

#define DEFINE_PRODUCT(name, real, routine)                                                                  \
    void name(enum Form form, long m, long n, long k, const void *a, long a_row, const void *b, long b_row,  \
              const void *addend, long addend_row, void *c, long c_row, const Epilogue *epilogue,            \
              void *scratch)                                                                                 \
    {                                                                                                        \
        (void)scratch;                                                                                       \
        for (long row = 0; addend && addend != c && row < m; row++) {                                        \
            memcpy((real *)c + row * c_row, (const real *)addend + row * addend_row,                         \
                   (size_t)n * sizeof(real));                                                                \
        }                                                                                                    \
        if (wide_integers) CALL_GEMM(real, int64_t, routine);                                                \
        else CALL_GEMM(real, int, routine);                                                                  \
        if (epilogue) epilogue->run(epilogue, 0, 0, m, n, c, c_row);                                         \
    }

DEFINE_PRODUCT(blas_product_f32, float, sgemm_routine)
DEFINE_PRODUCT(blas_product_f64, double, dgemm_routine)
