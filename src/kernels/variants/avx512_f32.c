#if defined(__x86_64__)
#define VARIANT avx512_f32
#define ISA avx512
#define REAL_DOUBLE 0
#define VECTOR_BYTES 64
#define TARGET "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,prfchw"
#include "../variant.inc"
#endif
