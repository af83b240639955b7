/* Numbers too small to be normal count as zero while a gradient is formed and applied. What a net that is
 * sure of its samples sends back is full of them; they hardly change a weight, and the processor takes a
 * hundred cycles and more for each. It is a setting of the thread. Python's code, and the user's, runs
 * without it. */
#ifndef FNN_SUBNORMALS_H
#define FNN_SUBNORMALS_H

#include <stdint.h>

#if defined(__x86_64__)
/* Results, and operands. */
#define AS_ZERO 0x8040u
static inline uint64_t arithmetic_mode(void) { return __builtin_ia32_stmxcsr(); }
static inline void set_arithmetic_mode(uint64_t mode) { __builtin_ia32_ldmxcsr((unsigned)mode); }
#elif defined(__aarch64__)
#define AS_ZERO (1u << 24)
static inline uint64_t arithmetic_mode(void)
{
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
static inline void set_arithmetic_mode(uint64_t mode) { __asm__ volatile("msr fpcr, %0" ::"r"(mode)); }
#else
#define AS_ZERO 0u
static inline uint64_t arithmetic_mode(void) { return 0; }
static inline void set_arithmetic_mode(uint64_t mode) { (void)mode; }
#endif

/* Both return the mode of before, to be set again. */
static inline uint64_t drop_subnormals(void)
{
    const uint64_t before = arithmetic_mode();
    set_arithmetic_mode(before | AS_ZERO);
    return before;
}
static inline uint64_t keep_subnormals(void)
{
    const uint64_t before = arithmetic_mode();
    set_arithmetic_mode(before & ~(uint64_t)AS_ZERO);
    return before;
}

#endif
