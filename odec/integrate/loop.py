"""The loop that takes steps, LANES members at a time: what a step cannot decide by itself.

A step, its acceptance and the size of the next are one kernel (advance.py). The loop looks at a lane only where that
kernel asks for attention: a time to keep, an event, a stop, an end, a failure. A lane that ends takes the next member.

Plain Python that runs as it stands (the `python` target) and is compiled once an installation for each number of
lanes. It can stop and be called again: all that it needs to go on lies in the buffers of `lanes` and in `whole`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from odec.codegen.machine import call_kernel, offset, take
from odec.integrate import slots as at
from odec.integrate.advance import FREE
from odec.integrate.events import (
    MOST_CHATTER,
    NO_CUT,
    SAMPLES,
    TERMINAL,
    find_events,
    first_sides,
    next_size,
    reset_state,
    set_sides,
)
from odec.integrate.interpolate import copy, keep_row, keep_segment, state_after, time_after
from odec.integrate.slots import (
    CHATTERING,
    NEEDS_ROOM,
    NON_FINITE,
    NON_FINITE_START,
    RESOLUTION,
    RUNNING,
    STEP_LIMIT,
    STEP_UNDERFLOW,
    SUCCESS,
    TERMINATED,
)
from odec.integrate.start import first_size, is_finite, slope_at

LANES = 1  # compiled.py makes the other numbers
COPIES = False  # whether buffers keep their places, so that a compiler can keep them in registers: so on CUDA
FAR_OFF = 1e300  # a time that is never reached


class Kernels(NamedTuple):
    """advance, rhs, dense, resets (one for each event): kernels, as advance.py, the model and step.py say."""

    advance: Any
    rhs: Any
    dense: Any
    resets: Any


class Lanes(NamedTuple):
    """What the lanes work on. Wide, a number for each lane: now ... work; p too where members differ in it.

    now, then, task, y (n,), y_next, f0, f1 (n,) or (0,), k (kept, n), q (degree, n), p (m,), rules, rtol, atol, work
    For each lane by itself: own_p (m,), real, count, watch, g (5 events,), and where there are several lanes the rows
    before (n,), after (n,), slope (n,), poly (degree, n) of the lane that is looked at; trial (n + m,), roots
    """

    now: Any
    then: Any
    task: Any
    y: Any
    y_next: Any
    f0: Any
    f1: Any
    k: Any
    q: Any
    p: Any
    rules: Any
    rtol: Any
    atol: Any
    work: Any
    own_p: Any
    real: Any
    count: Any
    watch: Any
    g: Any
    before: Any
    after: Any
    slope: Any
    poly: Any
    trial: Any
    roots: Any


class Members(NamedTuple):
    """What is to be solved: the table of events at the start of a solve, the next member, begins, ends, states (., n),
    parameters (., k) in the places columns (k,) of p, times to keep (., rows), and stops that all share."""

    watch: Any
    queue: Any
    begins: Any
    ends: Any
    states: Any
    parameters: Any
    columns: Any
    p: Any
    times: Any
    stops: Any


class Kept(NamedTuple):
    """What is kept: rows, polynomials, events with their members, and how each member ended."""

    ts: Any
    ys: Any
    marks: Any
    segments: Any
    fired_t: Any
    fired_e: Any
    fired_m: Any
    fired_y: Any
    t_end: Any
    y_end: Any
    tally: Any


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
        if needs_room(events, lanes, whole):
            status = NEEDS_ROOM
            break
        if pause <= 0:
            break
        pause -= 1
        call_kernel(kernels.advance, now, lanes.task, y, lanes.p, f0, lanes.rtol, lanes.atol, lanes.rules, then, y_next,
                    f1, lanes.k, lanes.work)  # fmt: skip
        attention = 0.0
        for l in range(LANES):
            attention += then[at.ATTENTION * LANES + l]
        if attention > 0.0:
            attend(kernels, events, rates, lanes, members, kept, whole, now, then, y, y_next, f0, f1)
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


def needs_room(events, lanes, whole):
    """Whether another step could keep more than there is room for."""
    if lanes.count[at.EVALS] == at.EVERY_STEP and lanes.count[at.SAVED] > whole[at.ROOM] - 2:  # a reset keeps two rows
        return True
    if whole[at.DENSE] == 1 and whole[at.SEGMENTS] >= whole[at.SEGMENT_ROOM]:
        return True
    if events is not None:
        return whole[at.ALL_FIRED] + LANES * SAMPLES * lanes.count[at.EVENTS] > whole[at.FIRED_ROOM]
    return False


# ---- a member begins and ends ------------------------------------------------------------------------------


def fill(kernels, events, rates, lanes, members, kept, whole, now, y, y_next, f0):
    """Give the idle lanes the next members."""
    for l in range(LANES):
        while lanes.task[at.LIVE * LANES + l] == 0.0 and whole[at.MORE] == 1:
            member = take(members.queue)
            if member >= whole[at.SIZE]:
                whole[at.MORE] = 0
            else:
                begin(kernels, events, rates, lanes, members, kept, whole, l, member, now, y, y_next, f0)


def begin(kernels, events, rates, lanes, members, kept, whole, l, member, now, y, y_next, f0):
    """Put a member into a lane: its state, its parameters, its slope, its first step size."""
    count, real, p = lane_of(lanes, l)
    n, carried, direction = count[at.N], count[at.CARRIED], lanes.rules[at.DIRECTION]
    t, t_end = members.begins[member * whole[at.OWN_BEGIN]], members.ends[member * whole[at.OWN_END]]
    state = lane_row(y, n, l, lanes.before)
    copy(n, offset(members.states, member * n * whole[at.OWN_STATE]), state)
    own = whole[at.OWN_PARAMETERS]
    if whole[at.OWN_P] == 1:
        copy(count[at.M], members.p, p)
    for j in range(own):
        p[members.columns[j]] = members.parameters[member * own + j]
    for slot in range(at.NOWS):
        now[slot * LANES + l] = 0.0
    count[at.STATUS], count[at.MEMBER], count[at.NFEV], count[at.SAVED] = RUNNING, member, 0, 0
    count[at.NEXT_EVAL], count[at.NEXT_STOP], count[at.CHATTER], count[at.DENSE_CALLS] = 0, 0, 0, 0
    real[at.LAST_RESET] = t
    whole[at.IDLE] -= 1
    lanes.task[at.LIVE * LANES + l] = 1.0
    count_times(members, whole, count)
    slope = lane_row(f0 if carried > 0 else y_next, n, l, lanes.slope)
    slope_at(kernels.rhs, t, state, p, slope, lanes.work, real, count)
    if not (is_finite(n, state) and is_finite(n, slope)):
        finish(lanes, kept, whole, count, l, NON_FINITE_START, t, 0.0, state, now)
        return
    if count[at.EVALS] == at.EVERY_STEP:
        count[at.SAVED] = keep_row(t, n, state, 0, kept.ts, kept.ys)
    keep_until(t, n, state, members, kept, whole, count, direction)
    if (t_end - t) * direction <= 0.0:
        finish(lanes, kept, whole, count, l, SUCCESS, t, 0.0, state, now)
        return
    h = first_size(kernels.rhs, t, t_end, state, lane_row(y_next, n, l, lanes.after), lanes.trial, slope, p, lanes.rtol,
                   lanes.atol, lanes.rules, lanes.work, real, count)  # fmt: skip
    if events is not None:
        copy(count[at.EVENTS] * at.WATCHED, members.watch, watch_of(lanes, count, l))
        first_sides(events, rates, direction, t, state, p, lanes.work, g_of(lanes, count, l),
                    watch_of(lanes, count, l), real, count)  # fmt: skip
    now[at.T * LANES + l], now[at.H * LANES + l], now[at.MOST_GROWTH * LANES + l] = t, h, FREE
    while count[at.NEXT_STOP] < whole[at.STOPS] and (members.stops[count[at.NEXT_STOP]] - t) * direction <= 0.0:
        count[at.NEXT_STOP] += 1
    set_task(lanes, members, whole, events, count, l)
    put_row(n, state, l, y)
    put_parameters(lanes, whole, count, l)
    if carried > 0:
        put_row(n, slope, l, f0)


def count_times(members, whole, count):
    """How many times of a member are kept: those of its row up to the first nan."""
    count[at.EVALS] = whole[at.TIMES]
    if whole[at.OWN_TIMES] == 1:
        times, kept = times_of(members, whole, count), 0
        while kept < whole[at.TIMES] and times[kept] == times[kept]:
            kept += 1
        count[at.EVALS] = kept


def keep_until(t, n, state, members, kept, whole, count, direction):
    """Keep the state at the start for the times that are the start."""
    times = times_of(members, whole, count)
    while count[at.NEXT_EVAL] < count[at.EVALS] and (times[count[at.NEXT_EVAL]] - t) * direction <= 0.0:
        copy(n, state, row_of(kept, whole, count))
        count[at.NEXT_EVAL] += 1
        count[at.SAVED] += 1


def finish(lanes, kept, whole, count, l, status, t, tried, state, now):
    """Write down how a member ended, and let its lane wait for the next one."""
    n, member = count[at.N], count[at.MEMBER]
    if status in (SUCCESS, TERMINATED) and not is_finite(n, state):
        status = NON_FINITE  # finite slopes can lead past the largest number
    kept.t_end[member] = t
    copy(n, state, offset(kept.y_end, member * n))
    tally = offset(kept.tally, member * at.TALLIES)
    tally[at.ENDED_AS], tally[at.EVALUATED], tally[at.DENSE_MADE] = status, count[at.NFEV], count[at.DENSE_CALLS]
    steps = int(now[at.STEPS * LANES + l])
    tally[at.TOOK], tally[at.REFUSED] = steps, int(now[at.TRIES * LANES + l]) - steps
    offset(lanes.real, l * at.REALS)[at.LAST_TRIED] = tried
    count[at.STATUS] = status
    lanes.task[at.LIVE * LANES + l] = 0.0
    whole[at.IDLE] += 1


# ---- a step that needs more than itself ----------------------------------------------------------------------


def attend(kernels, events, rates, lanes, members, kept, whole, now, then, y, y_next, f0, f1):
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
                                f0, y_next, f1, lanes.k, lanes.q, lanes.work)  # fmt: skip
                    has_polynomial = True
                after = lane_row(y_next, n, l, lanes.after)
                status = accept(kernels, events, rates, lanes, members, kept, whole, count, l, state, after, now, then,
                                y_next, f1)  # fmt: skip
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


def accept(kernels, events, rates, lanes, members, kept, whole, count, l, before, after, now, then, y_next, f1):
    """What an accepted step of a lane brings: rows, events and their resets, stops; the status of its member.

    before, after (n,) : the lane's states at the two ends of the step; an event may move the second
    """
    _, real, p = lane_of(lanes, l)
    n, degree, direction = count[at.N], count[at.DEGREE], lanes.rules[at.DIRECTION]
    t, tried, t_new = now[at.T * LANES + l], then[at.TRIED * LANES + l], then[at.T * LANES + l]
    end_t, cut, status = t_new, NO_CUT, RUNNING
    if needs_polynomial(events, lanes, members, whole, count, l, then):
        poly = lane_row(lanes.q, degree * n, l, lanes.poly)
        count[at.DENSE_CALLS] += 1
        if events is not None:
            cut = look_for_events(events, lanes, kept, whole, count, l, t, tried, t_new, before, after, poly, real, p)
            if cut != NO_CUT:
                end_t = time_after(real[at.CUT], t, t_new)
        keep_between(t, tried, t_new, end_t, before, after, poly, members, kept, whole, count, direction)
        if whole[at.DENSE] == 1:
            keep_segment(t, tried, n, degree, before, poly, whole[at.SEGMENTS], kept.marks, kept.segments)
            whole[at.SEGMENTS] += 1
        if cut != NO_CUT:
            state_after(real[at.CUT], t, tried, t_new, n, degree, before, after, poly, lanes.trial)
            copy(n, lanes.trial, after)
    every = count[at.EVALS] == at.EVERY_STEP
    if every:
        count[at.SAVED] = keep_row(end_t, n, after, count[at.SAVED], kept.ts, kept.ys)
    if cut == TERMINAL:
        status = TERMINATED
    elif events is not None and cut != NO_CUT:
        reset_state(kernels.resets, end_t, after, p, lanes.work, lanes.trial, watch_of(lanes, count, l), real, count)
        set_sides(events, rates, direction, end_t, after, p, lanes.work, g_of(lanes, count, l),
                  watch_of(lanes, count, l), real, count)  # fmt: skip
        put_parameters(lanes, whole, count, l)
        if every:
            count[at.SAVED] = keep_row(end_t, n, after, count[at.SAVED], kept.ts, kept.ys)
        size = next_size(end_t, then[at.H * LANES + l], lanes.rules[at.MIN_STEP], real, count)
        if whole[at.ADAPTIVE] == 1:
            then[at.H * LANES + l] = size
        if count[at.CHATTER] >= MOST_CHATTER:
            status = CHATTERING
    moved, stop = cut != NO_CUT, lanes.task[at.STOP * LANES + l]  # then the slope is another one
    if end_t == stop and lanes.task[at.SPARED * LANES + l] == 0.0:
        status = SUCCESS if status == RUNNING else status
    elif end_t == stop:
        count[at.NEXT_STOP] += 1
        set_task(lanes, members, whole, events, count, l)
        room = 0.5 * abs(lanes.task[at.STOP * LANES + l] - stop)
        end_t = stop + direction * min(RESOLUTION * max(abs(stop), abs(tried)), room)
        moved = True  # and none on what lies before it
        for slot in range(at.LOG1, at.RATIO2 + 1):
            then[slot * LANES + l] = 0.0
    then[at.T * LANES + l] = end_t
    lanes.task[at.NEXT * LANES + l] = next_look(events, members, whole, count, direction)
    if cut != NO_CUT:
        put_row(n, after, l, y_next)
    if moved and count[at.CARRIED] > 0:
        slope = lane_row(f1, n, l, lanes.slope)
        slope_at(kernels.rhs, end_t, after, p, slope, lanes.work, real, count)
        put_row(n, slope, l, f1)
    return status


def look_for_events(events, lanes, kept, whole, count, l, t, tried, t_new, before, after, poly, real, p):
    """Find the events of a lane's step and note whose they are; whether the step must be cut, and for what."""
    count[at.FIRED] = whole[at.ALL_FIRED]
    cut = find_events(events, t, tried, t_new, before, after, poly, p, lanes.work, g_of(lanes, count, l), lanes.trial,
                      lanes.roots, watch_of(lanes, count, l), kept.fired_t, kept.fired_e, kept.fired_y, real,
                      count)  # fmt: skip
    for k in range(whole[at.ALL_FIRED], count[at.FIRED]):
        kept.fired_m[k] = count[at.MEMBER]
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


def set_task(lanes, members, whole, events, count, l):
    """What a lane is to do next: the stop ahead, the next time to look at a step."""
    direction = lanes.rules[at.DIRECTION]
    stop, spared = members.ends[count[at.MEMBER] * whole[at.OWN_END]], 0.0
    if count[at.NEXT_STOP] < whole[at.STOPS] and (stop - members.stops[count[at.NEXT_STOP]]) * direction > 0.0:
        stop, spared = members.stops[count[at.NEXT_STOP]], RESOLUTION
    lanes.task[at.STOP * LANES + l], lanes.task[at.SPARED * LANES + l] = stop, spared
    lanes.task[at.NEXT * LANES + l] = next_look(events, members, whole, count, direction)


def next_look(events, members, whole, count, direction):
    """The next time to keep of a lane's member; the far past where each accepted step is looked at."""
    if events is not None or whole[at.DENSE] == 1 or count[at.EVALS] == at.EVERY_STEP:
        return -direction * FAR_OFF
    if count[at.NEXT_EVAL] < count[at.EVALS]:
        return times_of(members, whole, count)[count[at.NEXT_EVAL]]
    return direction * FAR_OFF


# ---- where things lie --------------------------------------------------------------------------------------


def lane_of(lanes, l):
    """The counts, the numbers and the parameters of one lane."""
    count = offset(lanes.count, l * at.COUNTS)
    return count, offset(lanes.real, l * at.REALS), offset(lanes.own_p, l * count[at.P_STRIDE])


def watch_of(lanes, count, l):
    return offset(lanes.watch, l * count[at.EVENTS] * at.WATCHED)


def g_of(lanes, count, l):
    return offset(lanes.g, l * 5 * count[at.EVENTS])


def times_of(members, whole, count):
    """The times to keep of a lane's member."""
    return offset(members.times, count[at.MEMBER] * whole[at.TIMES] * whole[at.OWN_TIMES])


def row_of(kept, whole, count):
    """Where the next row of a lane's member goes."""
    return offset(kept.ys, (count[at.MEMBER] * whole[at.TIMES] + count[at.SAVED]) * count[at.N])


def lane_row(wide, size, l, row):
    """The numbers of one lane side by side: copied into `row` where there are several lanes."""
    if LANES == 1:
        return wide
    for i in range(size):
        row[i] = wide[i * LANES + l]
    return row


def put_row(size, row, l, wide):
    """Put the numbers of one lane back among the others."""
    if LANES > 1:
        for i in range(size):
            wide[i * LANES + l] = row[i]


def put_parameters(lanes, whole, count, l):
    """Show a lane's parameters to the steps, where members differ in them."""
    if LANES > 1 and whole[at.OWN_P] == 1:
        put_row(count[at.M], offset(lanes.own_p, l * count[at.P_STRIDE]), l, lanes.p)
