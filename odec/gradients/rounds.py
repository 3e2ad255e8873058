"""The loop that goes back over recorded rounds of an ensemble, LANES members at a time.

What a step's adjoint makes of its cotangents is one kernel, `lane_vjp`. The loop looks at a lane only where a member
begins or ends in it, where the step has rows, and where it ends at a stop; times are treated as in backward.py.

Plain Python that is compiled once an installation for each number of lanes, as integrate/loop.py is; on a GPU each
thread runs it for one member in one lane.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from odec.codegen.machine import call_kernel, offset
from odec.gradients.backward import slope_along
from odec.integrate.lanes import LANES, lane_row
from odec.integrate.members import FAR_OFF
from odec.integrate.slots import ROUND_MARKS

# whole: sizes; the first round, and how many; rows of a member, and whether their times are its own; how many
# parameters are its own
N, M, DEGREE, FIRST, ROUNDS, ROWS, OWN_TIMES, STOPS, OWN_PARAMETERS, OWN_P, AHEAD = range(11)
WHOLES = 11
# count, of a lane: its next row, the one it had before the step, its next stop, whether the step is looked at, ends at
# a stop, is the member's last
ROW, FROM, STOP, ASKED, CUT, LAST = range(6)
COUNTS = 6
# real, of a lane: how fast the rows at the end of the step move with its time, the cotangent of the size of a cut step
SLIDE, H_BAR = range(2)
REALS = 2


class Pulls(NamedTuple):
    """Kernels: a step's adjoint, that of a step that is looked at, that of one whose member has rows, the right-hand
    side. Of the second and the third one is needed."""

    plain: Any
    timed: Any
    within: Any
    rhs: Any


class Tape(NamedTuple):
    """What was recorded, and cotangents.

    marks (rounds, 4, LANES), states (rounds, n, LANES); t_end (size,), y_end (size, n) : as the loop left them
    p : (m,), or (m, LANES) where members differ; shared_p (m,), own_p (LANES, m), parameters (size, k), columns (k,)
    times (rows,) or (size, rows); stops; rows_bar (size, rows, n), without times (size, 1, n), of the end
    Of members, filled in: times_bar (size, rows), t0_bar, t1_bar (size,), y0_bar (size, n), p_sum (size, m)
    Of lanes: held, the members as in task[LIVE]; look, the times of steps before which they are looked at; t_sums,
    p_sums and their next values, y1_bar, y_bar (n, LANES), q_wide, q_bar (degree, n, LANES), h_bar; real, count
    Of the lane that is looked at: q (degree, n), end, slope (n,), when (1,)
    """

    marks: Any
    states: Any
    t_end: Any
    y_end: Any
    p: Any
    shared_p: Any
    own_p: Any
    parameters: Any
    columns: Any
    times: Any
    stops: Any
    rows_bar: Any
    times_bar: Any
    t0_bar: Any
    t1_bar: Any
    y0_bar: Any
    p_sum: Any
    held: Any
    look: Any
    t_sums: Any
    t_next: Any
    p_sums: Any
    p_next: Any
    y1_bar: Any
    y_bar: Any
    q_wide: Any
    q_bar: Any
    h_bar: Any
    real: Any
    count: Any
    q: Any
    end: Any
    slope: Any
    when: Any
    work: Any


NUMBERS = ("marks", "t_end", "times", "stops", "times_bar", "t0_bar", "t1_bar", "held", "look", "t_sums", "t_next",
           "h_bar", "real", "when")  # fmt: skip


def pull_rounds(kernels, tape, whole):
    """Go back over all rounds: the cotangents of the rows of members become those of what they were given."""
    behind, before, t_sums, t_next = tape.y1_bar, tape.y_bar, tape.t_sums, tape.t_next
    p_sums, p_next = tape.p_sums, tape.p_next
    empty_lanes(tape, whole)
    for back in range(whole[ROUNDS]):
        k = whole[FIRST] + whole[ROUNDS] - 1 - back
        t = marks_of(tape, k)
        h, taken, y = offset(t, LANES), offset(t, 2 * LANES), states_of(tape, whole, k)
        if not asks(tape, whole, t):
            call_kernel(kernels.plain, t, h, y, tape.p, behind, taken, t_sums, p_sums, t_next, before,
                        p_next, tape.work)  # fmt: skip
        else:
            attend(kernels, tape, whole, k, behind, t_sums, p_sums)
            if whole[ROWS] > 0:
                call_kernel(kernels.within, t, h, y, tape.p, behind, tape.q_bar, taken, t_sums, p_sums, t_next,
                            tape.h_bar, before, p_next, tape.q_wide, tape.work)  # fmt: skip
            else:
                call_kernel(kernels.timed, t, h, y, tape.p, behind, taken, t_sums, p_sums, t_next, tape.h_bar, before,
                            p_next, tape.work)  # fmt: skip
            settle(tape, whole, k, before, t_next)
        behind, before = before, behind
        t_sums, t_next = t_next, t_sums
        p_sums, p_next = p_next, p_sums
    for l in range(LANES):
        if tape.held[l] > 0.0:
            leave(kernels, tape, whole, whole[FIRST], l, behind, t_sums, p_sums)
    return whole[ROUNDS]


def empty_lanes(tape, whole):
    """Begin with no member in any lane."""
    for l in range(LANES):
        tape.held[l], tape.look[l], tape.t_sums[l] = 0.0, -FAR_OFF * float(whole[AHEAD]), 0.0
    for i in range(whole[N] * LANES):
        tape.y1_bar[i] = 0.0
    for j in range(whole[M] * LANES):
        tape.p_sums[j] = 0.0


def marks_of(tape, k):
    """(4, LANES) of round k, as loop.keep_round says."""
    return offset(tape.marks, ROUND_MARKS * LANES * k)


def states_of(tape, whole, k):
    """(n, LANES) of round k."""
    return offset(tape.states, whole[N] * LANES * k)


def asks(tape, whole, marks):
    """Whether a lane is to be looked at: it has another member, or a step with rows or a stop."""
    found, ahead = 0, float(whole[AHEAD])
    for l in range(LANES):
        if marks[3 * LANES + l] != tape.held[l] or (tape.look[l] - marks[l]) * ahead > 0.0:
            found += 1
    return found > 0


def attend(kernels, tape, whole, k, behind, t_sums, p_sums):
    """Let members change, and take the cotangents of rows, before round k is gone back over."""
    marks, ahead = marks_of(tape, k), float(whole[AHEAD])
    if whole[ROWS] > 0:
        for i in range(whole[DEGREE] * whole[N] * LANES):
            tape.q_bar[i] = 0.0
    for l in range(LANES):
        if marks[3 * LANES + l] != tape.held[l]:
            if tape.held[l] > 0.0:
                leave(kernels, tape, whole, k + 1, l, behind, t_sums, p_sums)
            tape.held[l], tape.look[l] = marks[3 * LANES + l], -FAR_OFF * ahead
            if tape.held[l] > 0.0:
                enter(tape, whole, l, behind, t_sums, p_sums)
        count = offset(tape.count, l * COUNTS)
        count[ASKED] = 0
        if (tape.look[l] - marks[l]) * ahead > 0.0:
            count[ASKED], count[CUT] = 1, count[LAST]
            if count[STOP] > 0 and (tape.stops[count[STOP] - 1] - marks[l]) * ahead > 0.0:
                count[STOP], count[CUT] = count[STOP] - 1, 1
            if count[CUT] == 1:
                t_sums[l] = 0.0
            take_rows(kernels, tape, whole, k, l, behind)


def enter(tape, whole, l, behind, t_sums, p_sums):
    """Begin with the end of the member of a lane."""
    n, m, member, count = whole[N], whole[M], int(tape.held[l]) - 1, offset(tape.count, l * COUNTS)
    for i in range(n):
        behind[i * LANES + l] = 0.0
        if whole[ROWS] == 0:
            behind[i * LANES + l] = tape.rows_bar[member * n + i]
    for j in range(m):
        p_sums[j * LANES + l] = 0.0
    t_sums[l], tape.look[l] = 0.0, tape.t_end[member]
    count[LAST], count[STOP], count[ROW] = 1, whole[STOPS], whole[ROWS] - 1
    times = times_of(tape, whole, member)
    while count[ROW] >= 0 and times[count[ROW]] != times[count[ROW]]:  # nan after its last
        count[ROW] -= 1
    if whole[OWN_P] == 1:
        put_own_parameters(tape, whole, l, member)


def put_own_parameters(tape, whole, l, member):
    """Show a member's parameters to the steps."""
    m, own = whole[M], whole[OWN_PARAMETERS]
    p = offset(tape.own_p, l * m)
    for j in range(m):
        p[j] = tape.shared_p[j]
    for j in range(own):
        p[tape.columns[j]] = tape.parameters[member * own + j]
    for j in range(m):
        tape.p[j * LANES + l] = p[j]


def times_of(tape, whole, member):
    """The times of a member's rows."""
    return offset(tape.times, member * whole[ROWS] * whole[OWN_TIMES])


def row_bar(tape, whole, member, row):
    """The cotangent of a row of a member."""
    return offset(tape.rows_bar, (member * whole[ROWS] + row) * whole[N])


def end_time(tape, k, l, member, last):
    """Where the step of a lane in round k ends: where its next one starts."""
    return tape.t_end[member] if last == 1 else tape.marks[ROUND_MARKS * LANES * (k + 1) + l]


def take_rows(kernels, tape, whole, k, l, behind):
    """Take the cotangents of the rows of a lane's step: of those at its end into `behind`, of the others into q_bar."""
    n, member = whole[N], int(tape.held[l]) - 1
    count, real = offset(tape.count, l * COUNTS), offset(tape.real, l * REALS)
    marks, times, ahead = marks_of(tape, k), times_of(tape, whole, member), float(whole[AHEAD])
    t, h, end_t = marks[l], marks[LANES + l], end_time(tape, k, l, member, count[LAST])
    real[SLIDE], count[FROM] = 0.0, count[ROW]
    while count[ROW] >= 0 and (times[count[ROW]] - t) * ahead > 0.0:
        w = row_bar(tape, whole, member, count[ROW])
        if times[count[ROW]] == end_t:
            end = offset(tape.y_end, member * n)
            if count[LAST] == 0:
                end = lane_row(states_of(tape, whole, k + 1), n, l, tape.end)
            speed = slope_at_row(kernels, tape, whole, l, end_t, end, w)
            tape.times_bar[member * whole[ROWS] + count[ROW]] = speed
            real[SLIDE] += speed
            for i in range(n):
                behind[i * LANES + l] += w[i]
        else:
            theta = (times[count[ROW]] - t) / h
            weight = theta
            for d in range(whole[DEGREE]):
                for i in range(n):
                    tape.q_bar[(d * n + i) * LANES + l] += weight * w[i]
                weight = theta * (1.0 - theta) if d == 0 else weight * (2.0 * theta - 1.0)
        count[ROW] -= 1


def slope_at_row(kernels, tape, whole, l, t, y, w):
    """w . f(t, y) of the member of a lane."""
    tape.when[0] = t
    p = offset(tape.own_p, l * whole[M] * whole[OWN_P])
    call_kernel(kernels.rhs, tape.when, y, p, tape.slope, tape.work)
    speed = 0.0
    for i in range(whole[N]):
        speed += w[i] * tape.slope[i]
    return speed


def settle(tape, whole, k, before, t_sums):
    """What the rows of round k, and the stops at its end, have to do with times and with the state before it."""
    for l in range(LANES):
        count = offset(tape.count, l * COUNTS)
        if count[ASKED] == 1:
            member, real = int(tape.held[l]) - 1, offset(tape.real, l * REALS)
            h_slide = rows_within(tape, whole, k, l, before, real)
            t_sums[l] -= real[SLIDE]
            if count[CUT] == 1:
                real[H_BAR] = tape.h_bar[l] - h_slide
            if count[LAST] == 1:
                tape.t1_bar[member] = real[H_BAR]
            count[LAST] = 0
            tape.look[l] = next_look(tape, whole, member, count)


def rows_within(tape, whole, k, l, before, real):
    """Take the cotangents of the rows within a lane's step to its start; how fast they move with its size."""
    n, member, count = whole[N], int(tape.held[l]) - 1, offset(tape.count, l * COUNTS)
    marks, times = marks_of(tape, k), times_of(tape, whole, member)
    t, h, end_t = marks[l], marks[LANES + l], end_time(tape, k, l, member, count[LAST])
    h_slide = real[SLIDE]
    if count[ROW] < count[FROM]:
        lane_row(tape.q_wide, whole[DEGREE] * n, l, tape.q)
    for row in range(count[ROW] + 1, count[FROM] + 1):
        if times[row] != end_t:
            theta = (times[row] - t) / h
            speed = slope_along(tape, member * whole[ROWS] + row, n, whole[DEGREE], theta) / h
            tape.times_bar[member * whole[ROWS] + row] = speed
            real[SLIDE] += speed
            h_slide += speed * theta
            w = row_bar(tape, whole, member, row)
            for i in range(n):
                before[i * LANES + l] += w[i]
    return h_slide


def next_look(tape, whole, member, count):
    """The last time before which a member's steps have rows or a stop."""
    ahead = float(whole[AHEAD])
    when = -FAR_OFF * ahead
    if count[ROW] >= 0:
        when = times_of(tape, whole, member)[count[ROW]]
    if count[STOP] > 0 and (tape.stops[count[STOP] - 1] - when) * ahead > 0.0:
        when = tape.stops[count[STOP] - 1]
    return when


def leave(kernels, tape, whole, k, l, behind, t_sums, p_sums):
    """Write down the cotangents of what the member of a lane was given, which starts in round k."""
    n, m, member, count = whole[N], whole[M], int(tape.held[l]) - 1, offset(tape.count, l * COUNTS)
    t0_bar, y0_bar, p_sum = t_sums[l] - tape.real[l * REALS + H_BAR], offset(tape.y0_bar, member * n), tape.p_sum
    for i in range(n):
        y0_bar[i] = behind[i * LANES + l]
    for j in range(m):
        p_sum[member * m + j] = p_sums[j * LANES + l]
    for row in range(count[ROW] + 1):
        w = row_bar(tape, whole, member, row)
        start = lane_row(states_of(tape, whole, k), n, l, tape.end)
        speed = slope_at_row(kernels, tape, whole, l, marks_of(tape, k)[l], start, w)
        tape.times_bar[member * whole[ROWS] + row] = speed
        t0_bar -= speed
        for i in range(n):
            y0_bar[i] += w[i]
    tape.t0_bar[member] = t0_bar
