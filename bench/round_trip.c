/* How long a line of the caches takes from one core to another and back: two threads count by turns. */
#include <time.h>

enum { TRIPS = 1000 };

static double nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

static void wait_for(const long *count, long value)
{
    while (__atomic_load_n(count, __ATOMIC_ACQUIRE) != value) {
    }
}

/* The odd numbers, each after the even one before it. Nanoseconds of a round trip, in the quickest of some
   parts of the count, which begins at zero. */
double ask(long *count, long parts)
{
    double best = 1e30;
    long value = 0;
    for (long part = 0; part < parts; part++) {
        const double start = nanoseconds();
        for (long trip = 0; trip < TRIPS; trip++, value += 2) {
            __atomic_store_n(count, value + 1, __ATOMIC_RELEASE);
            wait_for(count, value + 2);
        }
        const double taken = (nanoseconds() - start) / TRIPS;
        if (taken < best) best = taken;
    }
    return best;
}

/* The even numbers, on the other core. */
void answer(long *count, long parts)
{
    for (long value = 1; value < 2 * TRIPS * parts; value += 2) {
        wait_for(count, value);
        __atomic_store_n(count, value + 1, __ATOMIC_RELEASE);
    }
}
