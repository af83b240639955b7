#define VARIANT generic_f32
#define ISA generic
#define REAL_DOUBLE 0
#define VECTOR_BYTES 16
#include "../variant.inc"
