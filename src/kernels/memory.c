#include "memory.h"

#include <stdlib.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

/* Rows of large arrays lie pages apart: with pages this large the processor need not look most of them up. */
#define LARGE_PAGE ((size_t)2 << 20)

static int64_t calls, bytes_in_all;

void *allocate(size_t bytes)
{
    void *memory = NULL;
    __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&bytes_in_all, (int64_t)bytes, __ATOMIC_RELAXED);
    if (bytes < 2 * LARGE_PAGE) {
        return posix_memalign(&memory, ALIGNMENT, bytes ? bytes : ALIGNMENT) == 0 ? memory : NULL;
    }
    if (posix_memalign(&memory, LARGE_PAGE, bytes) != 0) return NULL;
#ifdef MADV_HUGEPAGE
    madvise(memory, bytes / LARGE_PAGE * LARGE_PAGE, MADV_HUGEPAGE); /* a wish: it may be refused */
#endif
    return memory;
}

void release(void *memory) { free(memory); }

int64_t allocation_calls(void) { return __atomic_load_n(&calls, __ATOMIC_RELAXED); }
int64_t allocation_bytes(void) { return __atomic_load_n(&bytes_in_all, __ATOMIC_RELAXED); }
