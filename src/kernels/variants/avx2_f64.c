#if defined(__x86_64__)
#define VARIANT avx2_f64
#define ISA avx2
#define REAL_DOUBLE 1
#define VECTOR_BYTES 32
#define TARGET "avx2,fma,prfchw"
#include "../variant.inc"
#endif
