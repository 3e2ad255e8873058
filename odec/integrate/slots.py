"""Where the loop keeps its numbers: names for the places in its buffers."""

from __future__ import annotations

# now, then: float64, what a step changes of a lane; a row for each slot, in it a number for each lane.
# LOST is what rounding left out of T, for methods that carry it; the last four are what a step says of itself.
(
    T, H, LOG1, LOG2, RATIO1, RATIO2, MOST_GROWTH, BROKEN, STEPS, TRIES, LOST, TRIED, ACCEPTED, STUCK, ATTENTION,
) = range(15)  # fmt: skip
NOWS = 15
ORDER = MOST_GROWTH  # of the next step, for methods that adapt it; FREE at a start
FREE, HELD = 1e3, -7.4e-4  # in MOST_GROWTH, of log2 of h_{n+1} / h_n: no bound; 0, less the error of rough_exp2

# task: float64, what a lane is to do, likewise: its next stop, how much of it is spared where more stops follow, else
# 0, its next time to look at a step, 1 more than the member in it, 0 without one
STOP, SPARED, NEXT, LIVE = range(4)
TASKS = 4

# rules: float64, what all lanes share
(
    DIRECTION, STRETCH, MIN_STEP, MAX_STEP, MAX_STEPS, SETPOINT, BETA1, BETA2, BETA3, ALPHA2, ALPHA3, LEAST, MOST,
    INVERSE, SAFETY, FIRST_STEP, FLOOR,
) = range(17)  # fmt: skip
RULES = 17
GAINS = SETPOINT  # the first of the controller's numbers, in the order of Controller.gains

# real: float64, of one lane
SCRATCH, CUT, LAST_RESET, LAST_TRIED = range(4)
REALS = 4

# count: int64, of one lane; SLOPES: 1 where what is carried from step to step is a slope
(
    N, M, P_STRIDE, CARRIED, SLOPES, DEGREE, EVENTS, EXPONENT, STATUS, MEMBER, NFEV, SAVED, NEXT_EVAL, EVALS, NEXT_STOP,
    FIRED, CHATTER, DENSE_CALLS,
) = range(18)  # fmt: skip
COUNTS = 18
EVERY_STEP = -1  # in count[EVALS]: save each accepted step

# whole: int64, of all lanes: how many members there are and how they lie, what is kept (of each step
# its polynomial, or its start alone), and how far the loop is
(
    SIZE, OWN_BEGIN, OWN_END, OWN_STATE, OWN_PARAMETERS, OWN_P, OWN_TIMES, TIMES, STOPS, ADAPTIVE, DENSE,
    RECORDS, PAUSE, IDLE, MORE, ROUNDS, ROOM, SEGMENTS, SEGMENT_ROOM, ALL_FIRED, FIRED_ROOM, RESIDUALS, RESIDUAL_ROOM,
) = range(23)  # fmt: skip
WHOLES = 23
EACH_STEP, EACH_ROUND = 1, 2  # in whole[RECORDS]: the accepted steps, or what all lanes try
ROUND_MARKS = 4  # of a lane, of what it tries: T, TRIED, ACCEPTED, LIVE

# tally: int64, how a member ended: its status, steps taken and rejected, evaluations beside those of steps and of
# dense outputs, dense outputs
ENDED_AS, TOOK, REFUSED, EVALUATED, DENSE_MADE = range(5)
TALLIES = 5

# watch: int64, a row for each event
DIRECTION_OF, TERMINAL_AFTER, FIRINGS, SIDE, HAS_RESET, JUST = range(6)
WATCHED = 6

# Statuses as in errors.Status, and two that only mean: call again
SUCCESS, RUNNING, STEP_LIMIT, STEP_UNDERFLOW, NON_FINITE, INTERRUPTED, NON_FINITE_START, TERMINATED, CHATTERING = range(
    9
)
NEEDS_ROOM = 100

RESOLUTION = 4.440892098500626e-16  # twice the spacing of doubles at 1
LARGEST = 1.7976931348623157e308
