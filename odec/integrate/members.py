"""The members that the lanes take: how one begins in a lane, what it is to do next, how it ends."""

from __future__ import annotations

from odec.codegen.machine import offset, take
from odec.integrate import slots as at
from odec.integrate.events import first_sides
from odec.integrate.interpolate import copy, keep_row
from odec.integrate.lanes import LANES, g_of, lane_of, lane_row, put_parameters, put_row, row_of, times_of, watch_of
from odec.integrate.slots import FREE, NON_FINITE, NON_FINITE_START, RESOLUTION, RUNNING, SUCCESS, TERMINATED
from odec.integrate.start import clear_unless_slope, first_size, is_finite, slope_at

FAR_OFF = 1e300  # a time that is never reached


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
    lanes.task[at.LIVE * LANES + l] = float(member + 1)
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
        clear_unless_slope(slope, count)
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
    each = whole[at.DENSE] == 1 or whole[at.RECORDS] == at.EACH_STEP or count[at.EVALS] == at.EVERY_STEP
    if events is not None or each:
        return -direction * FAR_OFF
    if count[at.NEXT_EVAL] < count[at.EVALS]:
        return times_of(members, whole, count)[count[at.NEXT_EVAL]]
    return direction * FAR_OFF
