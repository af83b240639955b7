/* Philox4x32-10: a counter-based generator (Salmon, Moraes, Dror, Shaw, SC 2011).
 *
 * A number is a function of (key, counter) alone, so a dropout mask need not be stored and does not depend
 * on which thread draws it.
 */
#ifndef FNN_PHILOX_H
#define FNN_PHILOX_H

#include <stdint.h>

#define PHILOX_WORDS 4

/* counter[0..3] <- four random words; `key` is the seed. */
static inline void philox(uint64_t key, uint32_t counter[PHILOX_WORDS])
{
    uint32_t low = (uint32_t)key, high = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t even = (uint64_t)0xD2511F53u * counter[0];
        const uint64_t odd = (uint64_t)0xCD9E8D57u * counter[2];
        const uint32_t next[PHILOX_WORDS] = {
            (uint32_t)(odd >> 32) ^ counter[1] ^ low,
            (uint32_t)odd,
            (uint32_t)(even >> 32) ^ counter[3] ^ high,
            (uint32_t)even,
        };
        for (int word = 0; word < PHILOX_WORDS; word++) counter[word] = next[word];
        low += 0x9E3779B9u;
        high += 0xBB67AE85u;
    }
}

/* order[0..count) <- a permutation of 0..count-1, by Fisher and Yates; a function of (seed, epoch). */
void shuffle(uint64_t seed, uint64_t epoch, long count, int64_t *order);

/* chosen[0..m) <- those of 0..count-1 that a coin of that probability picks, in order; returns m. A function
 * of (seed, step). */
long poisson_sample(uint64_t seed, uint64_t step, long count, double probability, int64_t *chosen);

#endif
