#include "philox.h"

/* A number below `bound`, of 64 random bits: its bias, bound / 2^64, cannot be observed. */
static uint64_t draw_below(uint64_t seed, uint64_t epoch, uint64_t index, uint64_t bound)
{
    uint32_t words[PHILOX_WORDS] = {
        (uint32_t)index, (uint32_t)(index >> 32), (uint32_t)epoch, (uint32_t)(epoch >> 32)};
    philox(seed, words);
    const uint64_t bits = (uint64_t)words[0] << 32 | words[1];
    return (uint64_t)(((unsigned __int128)bits * bound) >> 64);
}

void shuffle(uint64_t seed, uint64_t epoch, long count, int64_t *order)
{
    for (long i = 0; i < count; i++) order[i] = i;
    for (long i = count - 1; i > 0; i--) {
        const long j = (long)draw_below(seed, epoch, (uint64_t)i, (uint64_t)i + 1);
        const int64_t held = order[i];
        order[i] = order[j];
        order[j] = held;
    }
}

long poisson_sample(uint64_t seed, uint64_t step, long count, double probability, int64_t *chosen)
{
    const double unit = 1.0 / 18446744073709551616.0;
    long picked = 0;
    for (long i = 0; i < count; i++) {
        uint32_t words[PHILOX_WORDS] = {
            (uint32_t)i, (uint32_t)(i >> 32), (uint32_t)step, (uint32_t)(step >> 32)};
        philox(seed, words);
        const double draw = (double)((uint64_t)words[0] << 32 | words[1]) * unit;
        if (draw < probability) chosen[picked++] = i;
    }
    return picked;
}
