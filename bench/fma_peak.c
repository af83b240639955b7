/* The most that one core can multiply and add: chains of fused operations that never leave the
   registers. A core starts two a cycle and waits four or five cycles for each, so it takes ten
   independent chains to keep it busy; twelve and the two constants still fit in 16 registers. */

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define CHAINS 12

typedef REAL vector __attribute__((vector_size(BYTES)));

/* Stored to, so that the compiler cannot leave out the sums. */
volatile REAL sink;

/* Runs so many rounds of one fused operation a chain, and returns how many operations that was. */
double multiply_and_add(long rounds)
{
    vector sums[CHAINS], factor, term, total = {0};
    const int lanes = BYTES / sizeof(REAL);

    for (int lane = 0; lane < lanes; lane++) {
        factor[lane] = (REAL)0.999;
        term[lane] = (REAL)0.001;
    }
    for (int chain = 0; chain < CHAINS; chain++) sums[chain] = term * (REAL)chain;
    for (long round = 0; round < rounds; round++) {
#pragma GCC unroll 12
        for (int chain = 0; chain < CHAINS; chain++) sums[chain] = sums[chain] * factor + term;
    }
    for (int chain = 0; chain < CHAINS; chain++) total += sums[chain];
    sink = total[0];
    return 2.0 * lanes * CHAINS * (double)rounds;
}
