#define VARIANT generic_f64
#define ISA generic
#define REAL_DOUBLE 1
#define VECTOR_BYTES 16
#include "../variant.inc"
