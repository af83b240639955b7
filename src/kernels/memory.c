#include "memory.h"

#include <stdlib.h>

static int64_t calls, bytes_in_all;

void *allocate(size_t bytes)
{
    void *memory = NULL;
    __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&bytes_in_all, (int64_t)bytes, __ATOMIC_RELAXED);
    return posix_memalign(&memory, ALIGNMENT, bytes ? bytes : ALIGNMENT) == 0 ? memory : NULL;
}

void release(void *memory) { free(memory); }

int64_t allocation_calls(void) { return __atomic_load_n(&calls, __ATOMIC_RELAXED); }
int64_t allocation_bytes(void) { return __atomic_load_n(&bytes_in_all, __ATOMIC_RELAXED); }
