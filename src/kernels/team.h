/* The threads of one call: an OpenMP team, and where it meets. */
#ifndef FNN_TEAM_H
#define FNN_TEAM_H

#include <limits.h>
#include <pthread.h>
#include <time.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <sched.h>
#endif

#ifdef _OPENMP
#include <omp.h>
#define HAS_OPENMP 1
#else
#define HAS_OPENMP 0
#endif

/* Where a team meets. OpenMP's own barrier spins for milliseconds: where another process holds a core, the
 * thread that spins keeps its partner from the core that it wastes.
 * This one spins for as long as the parts of a step differ, and then sleeps. */
typedef struct {
    int arrived;
    /* Those who arrive write, those who wait read: on one line, each of 16 threads would wait for all. */
    char apart[128];
    int generation, sleeping;
    char after[128];
} MeetingPoint;

static __thread MeetingPoint *meeting_point;

/* Each thread of a team, before its first meeting. */
static inline void join_team(MeetingPoint *point) { meeting_point = point; }

/* A few times what sleeping and waking take. */
#define SPINS 1500

static inline void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __asm__ volatile("" ::: "memory");
#endif
}

static inline void sleep_until_woken(MeetingPoint *point, int generation)
{
    __atomic_add_fetch(&point->sleeping, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&point->generation, __ATOMIC_SEQ_CST) == generation) {
#ifdef __linux__
        syscall(SYS_futex, &point->generation, FUTEX_WAIT_PRIVATE, generation, NULL, NULL, 0);
#else
        sched_yield();
#endif
    }
    __atomic_sub_fetch(&point->sleeping, 1, __ATOMIC_SEQ_CST);
}

/* Everything written before is seen by every thread after. A team of one has nobody to wait for. */
static inline void meet(int threads)
{
    if (threads <= 1) return;
    MeetingPoint *point = meeting_point;
    const int generation = __atomic_load_n(&point->generation, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&point->arrived, 1, __ATOMIC_ACQ_REL) == threads) {
        __atomic_store_n(&point->arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&point->generation, generation + 1, __ATOMIC_SEQ_CST);
#ifdef __linux__
        if (__atomic_load_n(&point->sleeping, __ATOMIC_SEQ_CST) > 0) {
            syscall(SYS_futex, &point->generation, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
        }
#endif
        return;
    }
    for (int spin = 0; spin < SPINS; spin++) {
        if (__atomic_load_n(&point->generation, __ATOMIC_ACQUIRE) != generation) return;
        pause_briefly();
    }
    sleep_until_woken(point, generation);
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

/* The first of `count` tasks that a thread does; the next thread's first is behind its last. They are
 * neighbours: a thread goes backward through the samples that it went forward through, which lie in its own
 * core's cache. The last one, which may be shorter, falls to a thread with more of them. Of fewer tasks than
 * threads, the first threads have one each, and only these need buffers. */
static inline long first_of_share(long count, int thread, int threads)
{
    const long sharers = count < threads ? count : threads;
    if (thread == 0) return 0; /* a division is dear to a small net */
    return thread >= sharers ? count : count * thread / sharers;
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
