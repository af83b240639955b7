/* Which variant of the kernels runs: chosen once, at import, from what the processor says. */
#include <string.h>

#include "engine.h"

extern const Kernels kernels_generic_f32, kernels_generic_f64;
#if defined(__x86_64__)
extern const Kernels kernels_avx2_f32, kernels_avx2_f64, kernels_avx512_f32, kernels_avx512_f64;
#endif

typedef struct {
    const Kernels *single_precision, *double_precision;
    int (*is_supported)(void);
} Isa;

static int always(void) { return 1; }
#if defined(__x86_64__)
static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static int has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
}
#endif

/* Best first. AVX-512 was measured on Zen 4, whose vector units are 32 bytes wide, on Emerald Rapids and on
 * Zen 5, whose are 64. */
static const Isa isas[] = {
#if defined(__x86_64__)
    {&kernels_avx512_f32, &kernels_avx512_f64, has_avx512},
    {&kernels_avx2_f32, &kernels_avx2_f64, has_avx2},
#endif
    {&kernels_generic_f32, &kernels_generic_f64, always},
};
#define ISAS (sizeof isas / sizeof isas[0])

static const Isa *in_use = &isas[ISAS - 1];

int choose_isa(const char *name)
{
    for (size_t i = 0; i < ISAS; i++) {
        if (name && strcmp(name, isas[i].single_precision->isa) != 0) continue;
        if (!isas[i].is_supported()) continue;
        in_use = &isas[i];
        return 1;
    }
    return 0;
}

const Kernels *kernels_in_use(size_t real_bytes)
{
    return real_bytes == 8 ? in_use->double_precision : in_use->single_precision;
}

const char *compiled_isas(void)
{
#if defined(__x86_64__)
    return "generic,avx2,avx512";
#else
    return "generic";
#endif
}
