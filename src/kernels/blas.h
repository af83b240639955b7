/* The product of engine.h by BLAS. The two routines are set once, from scipy.linalg.cython_blas. */
#ifndef FNN_BLAS_H
#define FNN_BLAS_H

#include "engine.h"

/* gemm: Fortran's sgemm and dgemm, whose integers are `integer_bytes` wide. */
void set_blas(void *sgemm, void *dgemm, int integer_bytes);

Product blas_product_f32, blas_product_f64;

#endif
