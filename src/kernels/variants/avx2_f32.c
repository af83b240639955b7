#if defined(__x86_64__)
#define VARIANT avx2_f32
#define ISA avx2
#define REAL_DOUBLE 0
#define VECTOR_BYTES 32
#define TARGET "avx2,fma,prfchw"
#include "../variant.inc"
#endif
