"""How many threads make the next steps: all of them, or one alone, whichever has lately been quicker.

Threads wait for each other several times a step. Where another process holds one of the cores, they wait for
that process too, and a short step takes several times as long as on one thread. The results do not depend on the
number of threads, so it may change from one step to the next.
"""


cdef enum:
    FIRST_STEPS = 4           # of a segment before anything is known
    PROBE_AFTER = 32          # segments before another look at the slower way
    PROBE_AT_MOST = 256       # likewise; each look that changes nothing doubles the time to the next
    PROBE_SEGMENTS = 4        # of a look, whose last one counts: a core that slept takes milliseconds to wake

cdef extern from *:
    """
    #define SEGMENT_SECONDS 2e-3
    /* A step that is longer than this gains more from its threads than it can lose by waiting. */
    #define LONG_STEP_SECONDS 1e-2
    /* A segment counts for no more than this times what is known: another process that held a core just then,
       once, changes nothing. */
    #define MOST_GROWTH 1.5
    """
    const double SEGMENT_SECONDS
    const double LONG_STEP_SECONDS
    const double MOST_GROWTH


cdef struct Pace:
    double together, alone    # seconds a step; 0: not known
    long segments             # made so far
    long probe, interval      # the first segment of the next look, and how long after the last it comes


cdef inline bint probes(const Pace *pace) noexcept nogil:
    """Whether the next segment is part of a look at the slower way."""
    return pace.alone > 0 and pace.probe <= pace.segments < pace.probe + PROBE_SEGMENTS


cdef inline int team_of_segment(const Pace *pace, int threads) noexcept nogil:
    """The number of threads of the next steps."""
    cdef bint alone = pace.alone < pace.together
    if threads == 1 or pace.together == 0 or pace.together > LONG_STEP_SECONDS:
        return threads
    if pace.alone == 0:
        return 1
    return 1 if alone != probes(pace) else threads


cdef inline long steps_of_segment(const Pace *pace, int team, int threads, long left) noexcept nogil:
    """How many steps that number of threads makes before it is thought over."""
    cdef double known = pace.together if team > 1 else pace.alone
    if threads == 1:
        return left
    if known == 0:
        return min(left, <long> FIRST_STEPS)
    return max(<long> 1, min(left, <long> (SEGMENT_SECONDS / known)))


cdef inline void note_segment(Pace *pace, int team, double seconds, long steps) noexcept nogil:
    """What a step took. The first segment wakes threads and fills caches: it only tells long steps."""
    cdef bint was_alone = pace.alone < pace.together
    cdef double known = pace.together if team > 1 else pace.alone
    cdef double taken = seconds / steps
    cdef bint probed = probes(pace)
    pace.segments += 1
    if (pace.segments == 1 or (probed and probes(pace))) and taken < LONG_STEP_SECONDS:
        return
    if known > 0 and not probed:
        taken = 0.5 * (known + min(taken, MOST_GROWTH * known))
    if team > 1:
        pace.together = taken
    else:
        pace.alone = taken
    if pace.alone == 0 or (pace.alone < pace.together) != was_alone:
        pace.interval = PROBE_AFTER
        pace.probe = pace.segments + PROBE_AFTER
    elif probed:
        pace.interval = min(2 * pace.interval, <long> PROBE_AT_MOST)
        pace.probe = pace.segments + pace.interval
