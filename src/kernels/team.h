/* The threads of one call: an OpenMP team that meets at barriers. */
#ifndef FNN_TEAM_H
#define FNN_TEAM_H

#include <pthread.h>
#include <time.h>

#ifdef _OPENMP
#include <omp.h>
#define HAS_OPENMP 1
#else
#define HAS_OPENMP 0
#endif

/* Everything written before is seen by every thread after. A team of one has nobody to wait for. */
static inline void meet(int threads)
{
#ifdef _OPENMP
    if (threads > 1) {
#pragma omp barrier
    }
#else
    (void)threads;
#endif
}

/* The threads that the surrounding team really has: OpenMP may grant fewer than were asked for. */
static inline int team_size(void)
{
#ifdef _OPENMP
    return omp_get_num_threads();
#else
    return 1;
#endif
}

/* libgomp keeps its pool of threads after fork(), but the threads themselves are gone: the child's next
 * parallel region would wait for them for ever. A forked child therefore works on one thread. */
static int is_forked_child;
static void note_fork(void) { is_forked_child = 1; }
static inline void watch_forks(void) { pthread_atfork(NULL, NULL, note_fork); }
static inline int may_use_threads(void) { return HAS_OPENMP && !is_forked_child; }

static inline double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#endif
