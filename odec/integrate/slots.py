"""Where the loop keeps its numbers: names for the places in `real`, `count` and `watch`."""

from __future__ import annotations

# real: float64
(
    T, H, T_END, MIN_STEP, MAX_STEP, H_TRY, ERROR, SCRATCH, SETPOINT, BETA1, BETA2, BETA3, ALPHA2, ALPHA3, LEAST, MOST,
    INVERSE, SAFETY, LOG1, LOG2, RATIO1, RATIO2, CUT, LAST_RESET,
) = range(24)  # fmt: skip
REALS = 24
GAINS = SETPOINT  # the first of the controller's numbers, in the order of Controller.gains

# count: int64
(
    STATUS, STEPS, REJECTED, NFEV, MAX_STEPS, PAUSE, SAVED, ROOM, NEXT_EVAL, EVALS, STARTED, TIGHT, BROKEN,
    N, M, CARRIED, DEGREE, EXPONENT, ADAPTIVE, EVENTS,
    NEXT_STOP, STOPS, DENSE, SEGMENTS, SEGMENT_ROOM, FIRED, FIRED_ROOM, CHATTER, DENSE_CALLS,
) = range(29)  # fmt: skip
COUNTS = 29
EVERY_STEP = -1  # in count[EVALS]: save each accepted step

# watch: int64, a row for each event
DIRECTION, TERMINAL_AFTER, FIRINGS, SIDE, HAS_RESET, JUST = range(6)
WATCHED = 6

# Statuses as in errors.Status, and two that only mean: call again
SUCCESS, RUNNING, STEP_LIMIT, STEP_UNDERFLOW, NON_FINITE, INTERRUPTED, NON_FINITE_START, TERMINATED, CHATTERING = range(
    9
)
NEEDS_ROOM = 100

RESOLUTION = 4.440892098500626e-16  # twice the spacing of doubles at 1
LARGEST = 1.7976931348623157e308
