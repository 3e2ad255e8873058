"""The loop that takes steps, LANES members at a time: what a step cannot decide by itself.

A step, its acceptance and the size of the next are one kernel (advance.py). The loop looks at a lane only where that
kernel asks for attention: a time to keep, an event, a stop, an end, a failure. A lane that ends takes the next member.

Plain Python that runs as it stands (the `python` target) and is compiled once an installation for each number of
lanes. It can stop and be called again: all that it needs to go on lies in the buffers of `lanes` and in `whole`.
"""

from __future__ import annotations

from odec.codegen.machine import call_kernel, offset
from odec.integrate import slots as at
from odec.integrate.events import (
    MOST_CHATTER,
    NO_CUT,
    RESET,
    SHORT,
    TERMINAL,
    find_events,
    next_size,
    reset_state,
    set_sides,
)
from odec.integrate.interpolate import copy, keep_row, keep_segment, state_after, time_after
from odec.integrate.lanes import (
    COPIES,
    LANES,
    g_of,
    lane_of,
    lane_row,
    put_parameters,
    put_row,
    row_of,
    times_of,
    watch_of,
)
from odec.integrate.members import fill, finish, next_look, set_task
from odec.integrate.roots import PLACES, SAMPLES
from odec.integrate.slots import (
    CHATTERING,
    NEEDS_ROOM,
    NON_FINITE,
    RESOLUTION,
    RUNNING,
    STEP_LIMIT,
    STEP_UNDERFLOW,
    SUCCESS,
    TERMINATED,
)
from odec.integrate.start import clear_unless_slope, slope_at


def integrate(kernels, events, rates, lanes, members, kept, whole):
    """Advance members until all have ended (SUCCESS), to a pause (RUNNING), or until rows need room; which of these.

    events, rates : kernels, as events.py says; None where there are no events: what finds them is then not compiled
    """
    now, then, y, y_next, f0, f1 = lanes.now, lanes.then, lanes.y, lanes.y_next, lanes.f0, lanes.f1
    status, pause = RUNNING, whole[at.PAUSE]
    while status == RUNNING:
        if whole[at.IDLE] > 0 and whole[at.MORE] == 1:
            fill(kernels, events, rates, lanes, members, kept, whole, now, y, y_next, f0)
        if whole[at.IDLE] == LANES:
            status = SUCCESS
            break
        if needs_room(events, kernels.series, lanes, whole):
            status = NEEDS_ROOM
            break
        if pause <= 0:
            break
        pause -= 1
        k = lanes.k
        if LANES == 1 and not COPIES:
            k = offset(k, min(whole[at.SEGMENTS], whole[at.RESIDUAL_ROOM]) * whole[at.RESIDUALS])
        call_kernel(kernels.advance, now, lanes.task, y, lanes.p, f0, lanes.rtol, lanes.atol, lanes.rules, then, y_next,
                    f1, k, lanes.work)  # fmt: skip
        if whole[at.RECORDS] == at.EACH_ROUND:
            keep_round(lanes, kept, whole, now, then, y)
        attention = 0.0
        for l in range(LANES):
            attention += then[at.ATTENTION * LANES + l]
        if attention > 0.0:
            attend(kernels, events, rates, lanes, members, kept, whole, now, then, y, y_next, f0, f1, k)
        if COPIES:
            copy(at.NOWS, then, now)
            if then[at.ACCEPTED] > 0.0:
                copy(lanes.count[at.N], y_next, y)
                copy(lanes.count[at.CARRIED], f1, f0)
        else:
            if LANES > 1 or then[at.ACCEPTED] > 0.0:  # several lanes have selected between the two states themselves
                y, y_next = y_next, y
                f0, f1 = f1, f0
            now, then = then, now
    whole[at.ROUNDS] += whole[at.PAUSE] - pause
    copy(at.NOWS * LANES, now, lanes.now)
    copy(lanes.count[at.N] * LANES, y, lanes.y)
    copy(lanes.count[at.CARRIED] * LANES, f0, lanes.f0)
    return status


def needs_room(events, series, lanes, whole):
    """Whether another step could keep more than there is room for."""
    if lanes.count[at.EVALS] == at.EVERY_STEP and lanes.count[at.SAVED] > whole[at.ROOM] - 2:  # a reset keeps two rows
        return True
    if (whole[at.DENSE] == 1 or whole[at.RECORDS] > 0) and whole[at.SEGMENTS] >= whole[at.SEGMENT_ROOM]:
        return True
    if events is not None:
        parts = SAMPLES
        if series is not None and series != 0:
            parts = PLACES
        return whole[at.ALL_FIRED] + LANES * parts * lanes.count[at.EVENTS] > whole[at.FIRED_ROOM]
    return False


def keep_round(lanes, kept, whole, now, then, y):
    """Record what all lanes try: marks (4, LANES), where it starts, how long it is, 1 where it is accepted, whose it is
    as in task[LIVE]; and the states (n, LANES). Of one lane only what is accepted."""
    if LANES == 1 and then[at.ACCEPTED] == 0.0:
        return
    size, number = lanes.count[at.N] * LANES, whole[at.SEGMENTS]
    marks = offset(kept.marks, at.ROUND_MARKS * LANES * number)
    copy(LANES, offset(now, at.T * LANES), marks)
    copy(LANES, offset(then, at.TRIED * LANES), offset(marks, LANES))
    copy(LANES, offset(then, at.ACCEPTED * LANES), offset(marks, 2 * LANES))
    copy(LANES, offset(lanes.task, at.LIVE * LANES), offset(marks, 3 * LANES))
    copy(size, y, offset(kept.segments, size * number))
    whole[at.SEGMENTS] = number + 1


# ---- a step that needs more than itself ------------------------------------------------------------------


def attend(kernels, events, rates, lanes, members, kept, whole, now, then, y, y_next, f0, f1, k):
    """Look at the lanes that ask for it after a step from `now` to `then`."""
    has_polynomial = False
    for l in range(LANES):
        if then[at.ATTENTION * LANES + l] > 0.0:
            count = offset(lanes.count, l * at.COUNTS)
            n, tried = count[at.N], then[at.TRIED * LANES + l]
            status, state = RUNNING, lane_row(y, n, l, lanes.before)
            if then[at.ACCEPTED * LANES + l] > 0.0:
                if not has_polynomial and needs_polynomial(events, lanes, members, whole, count, l, then):
                    call_kernel(kernels.dense, offset(now, at.T * LANES), offset(then, at.TRIED * LANES), y, lanes.p,
                                f0, y_next, f1, k, lanes.q, lanes.work)  # fmt: skip
                    has_polynomial = True
                after = lane_row(y_next, n, l, lanes.after)
                status = accept(kernels, events, rates, lanes, members, kept, whole, count, l, state, after, now, then,
                                y_next, f1, k)  # fmt: skip
                state = after
            elif then[at.STUCK * LANES + l] > 0.0:
                status, tried = STEP_UNDERFLOW, now[at.TRIED * LANES + l]
                if now[at.BROKEN * LANES + l] > 0.0:
                    status = NON_FINITE
            elif whole[at.ADAPTIVE] == 0:
                status = NON_FINITE
            if status == RUNNING and then[at.TRIES * LANES + l] >= lanes.rules[at.MAX_STEPS]:
                status = STEP_LIMIT
            if status != RUNNING:
                finish(lanes, kept, whole, count, l, status, then[at.T * LANES + l], tried, state, then)


def needs_polynomial(events, lanes, members, whole, count, l, then):
    """Whether something is kept or looked for within the step of a lane."""
    if events is not None or whole[at.DENSE] == 1:
        return True
    next_kept, evals = count[at.NEXT_EVAL], count[at.EVALS]
    if next_kept >= evals:
        return False
    due = (times_of(members, whole, count)[next_kept] - then[at.T * LANES + l]) * lanes.rules[at.DIRECTION]
    return due <= 0.0


def accept(kernels, events, rates, lanes, members, kept, whole, count, l, before, after, now, then, y_next, f1,
           k):  # fmt: skip
    """What an accepted step of a lane brings: rows, events and their resets, stops; the status of its member.

    before, after (n,) : the lane's states at the two ends of the step; an event may move the second
    """
    n, direction, stop = count[at.N], lanes.rules[at.DIRECTION], lanes.task[at.STOP * LANES + l]
    end_t, cut, status = then[at.T * LANES + l], NO_CUT, RUNNING
    if whole[at.RECORDS] == at.EACH_STEP:
        keep_segment(now[at.T * LANES + l], then[at.TRIED * LANES + l], n, 0, before, before, whole[at.SEGMENTS],
                     kept.marks, kept.segments)  # fmt: skip
        whole[at.SEGMENTS] += 1
    if needs_polynomial(events, lanes, members, whole, count, l, then):
        cut, end_t = look_within(kernels, events, lanes, members, kept, whole, count, l, before, after, now, then, k)
    keep_step(end_t, after, kept, count)
    if cut == TERMINAL:
        status = TERMINATED
    elif events is not None and cut == RESET:
        status = reset(kernels, events, rates, lanes, kept, whole, count, l, end_t, after, then)
    moved = cut != NO_CUT  # then the slope is another one
    if end_t == stop and lanes.task[at.SPARED * LANES + l] == 0.0:
        status = SUCCESS if status == RUNNING else status
    elif end_t == stop:
        end_t, moved = pass_stop(events, lanes, members, whole, count, l, stop, then), True
    then[at.T * LANES + l] = end_t
    lanes.task[at.NEXT * LANES + l] = next_look(events, members, whole, count, direction)
    if cut != NO_CUT:
        put_row(n, after, l, y_next)
    if moved:
        then[at.LOST * LANES + l] = 0.0
    if moved and count[at.CARRIED] > 0:
        carried, (_, real, p) = lane_row(f1, n, l, lanes.slope), lane_of(lanes, l)
        if count[at.SLOPES] == 1:
            slope_at(kernels.rhs, end_t, after, p, carried, lanes.work, real, count)
        clear_unless_slope(carried, count)
        put_row(n, carried, l, f1)
    return status


def look_within(kernels, events, lanes, members, kept, whole, count, l, before, after, now, then, k):
    """Find events within a lane's step, keep what is to be kept; whether the step is cut, for what, and its end."""
    _, real, p = lane_of(lanes, l)
    n, degree, direction = count[at.N], count[at.DEGREE], lanes.rules[at.DIRECTION]
    t, tried, t_new = now[at.T * LANES + l], then[at.TRIED * LANES + l], then[at.T * LANES + l]
    end_t, cut, poly = t_new, NO_CUT, lane_row(lanes.q, degree * n, l, lanes.poly)
    count[at.DENSE_CALLS] += 1
    if events is not None:
        cut = look_for_events(events, kernels.series, lanes, kept, whole, count, l, t, tried, t_new, before, after,
                              poly, k, real, p)  # fmt: skip
        if cut != NO_CUT:
            end_t = time_after(real[at.CUT], t, t_new)
        if cut == SHORT and whole[at.RECORDS] == at.EACH_STEP:  # the shorter step is a step like any other
            kept.marks[2 * whole[at.SEGMENTS] - 1] = real[at.CUT]
    keep_between(t, tried, t_new, end_t, before, after, poly, members, kept, whole, count, direction)
    if whole[at.DENSE] == 1:
        keep_segment(t, tried, n, degree, before, poly, whole[at.SEGMENTS], kept.marks, kept.segments)
        whole[at.SEGMENTS] += 1
    if cut != NO_CUT:
        state_after(real[at.CUT], t, tried, t_new, n, degree, before, after, poly, lanes.trial)
        copy(n, lanes.trial, after)
    return cut, end_t


def keep_step(t, state, kept, count):
    """Keep the state at the end of a step, where each step is kept."""
    if count[at.EVALS] == at.EVERY_STEP:
        count[at.SAVED] = keep_row(t, count[at.N], state, count[at.SAVED], kept.ts, kept.ys)


def reset(kernels, events, rates, lanes, kept, whole, count, l, t, state, then):
    """Let the events that cut a lane's step change its state and parameters; the status of its member."""
    _, real, p = lane_of(lanes, l)
    watch = watch_of(lanes, count, l)
    reset_state(kernels.resets, t, state, p, lanes.work, lanes.trial, watch, real, count)
    set_sides(events, rates, lanes.rules[at.DIRECTION], t, state, p, lanes.work, g_of(lanes, count, l), watch, real,
              count)  # fmt: skip
    put_parameters(lanes, whole, count, l)
    keep_step(t, state, kept, count)
    size = next_size(t, then[at.H * LANES + l], lanes.rules[at.MIN_STEP], real, count)
    if whole[at.ADAPTIVE] == 1:
        then[at.H * LANES + l] = size
    return CHATTERING if count[at.CHATTER] >= MOST_CHATTER else RUNNING


def pass_stop(events, lanes, members, whole, count, l, stop, then):
    """Start a lane anew behind a stop: the time from which it goes on, so that no stage sees what lies before."""
    count[at.NEXT_STOP] += 1
    set_task(lanes, members, whole, events, count, l)
    room = 0.5 * abs(lanes.task[at.STOP * LANES + l] - stop)
    for slot in range(at.LOG1, at.RATIO2 + 1):
        then[slot * LANES + l] = 0.0
    gap = RESOLUTION * max(abs(stop), abs(then[at.TRIED * LANES + l]))
    return stop + lanes.rules[at.DIRECTION] * min(gap, room)


def look_for_events(events, series, lanes, kept, whole, count, l, t, tried, t_new, before, after, poly, k, real, p):
    """Find the events of a lane's step and note whose they are; whether the step must be cut, and for what."""
    count[at.FIRED] = whole[at.ALL_FIRED]
    if series is not None and series != 0:
        k = lane_row(k, (count[at.DEGREE] + 1) * count[at.N], l, lanes.terms)
    cut = find_events(events, series, t, tried, t_new, before, after, poly, k, p, lanes.work, g_of(lanes, count, l),
                      lanes.trial, lanes.roots, lanes.jet, lanes.halves, lanes.places, watch_of(lanes, count, l),
                      kept.fired_t, kept.fired_e, kept.fired_y, real, count)  # fmt: skip
    for i in range(whole[at.ALL_FIRED], count[at.FIRED]):
        kept.fired_m[i] = count[at.MEMBER]
    whole[at.ALL_FIRED] = count[at.FIRED]
    return cut


def keep_between(t, tried, t_new, end_t, before, after, poly, members, kept, whole, count, direction):
    """Keep the states at the times to keep within a step."""
    n, times = count[at.N], times_of(members, whole, count)
    while count[at.NEXT_EVAL] < count[at.EVALS] and (times[count[at.NEXT_EVAL]] - end_t) * direction <= 0.0:
        when = times[count[at.NEXT_EVAL]]
        state_after(when - t, t, tried, t_new, n, count[at.DEGREE], before, after, poly, row_of(kept, whole, count))
        count[at.NEXT_EVAL] += 1
        count[at.SAVED] += 1
