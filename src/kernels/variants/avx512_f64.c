#if defined(__x86_64__)
#define VARIANT avx512_f64
#define ISA avx512
#define REAL_DOUBLE 1
#define VECTOR_BYTES 64
#define TARGET "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,prfchw"
#include "../variant.inc"
#endif
