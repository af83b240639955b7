/* Workspaces: one aligned allocation each, counted, so that a test can hold them against the plan. */
#ifndef FNN_MEMORY_H
#define FNN_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#define ALIGNMENT 64

/* NULL where there is no memory; `bytes` may be zero. */
void *allocate(size_t bytes);
void release(void *memory);

/* Allocations since the process started, and the bytes they asked for. */
int64_t allocation_calls(void);
int64_t allocation_bytes(void);

#endif
