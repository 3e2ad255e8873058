"""The loop that takes steps: accept or reject, control the step size, find events, save, stop.

Plain Python that runs as it stands (the `python` target) and is compiled once an installation. The
kernels reach it from outside. It can stop and be called again: all that it needs to go on lies in
`real`, `count` and `watch` and in the first buffers.
"""

from __future__ import annotations

from odec.codegen.machine import call_kernel, offset
from odec.integrate import slots as at
from odec.integrate.control import LEAST_LOG, accepted_log, exp2_rough, log2_rough, rejected_factor
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
    RESOLUTION,
    RUNNING,
    STEP_LIMIT,
    STEP_UNDERFLOW,
    SUCCESS,
    TERMINATED,
)
from odec.integrate.start import slope_at, start

STRETCH, STRETCH_FIXED = 1.01, 1.000001  # how much longer the last step may be than the size asked for


def integrate(step, rhs, dense, events, rates, resets, y, y_next, f0, f1, k, q, p, rtol, atol, work, g, trial, watch,
              roots, t_eval, stops, ts, ys, marks, segments, fired_t, fired_e, fired_y, real, count):  # fmt: skip
    """Advance from real[at.T] through the stops to the last of them; the status, also in count[at.STATUS].

    step, dense, rhs, events, rates, resets : kernels, as step.py, events.py and the model say; events and rates are
        None where there are no events: what finds them is then not compiled
    y, y_next (n,), f0, f1 (n,) or (0,), k (kept, n), q (degree, n), trial (n + m,) : the step's
    stops (count[at.STOPS],) : times that steps end at, discontinuities of f and last the end
    ts, ys, marks, segments, fired_* : rows, polynomials and events kept so far
    """
    n, t, h, degree, n_events = count[at.N], real[at.T], real[at.H], count[at.DEGREE], count[at.EVENTS]
    t_end = stops[count[at.STOPS] - 1]
    direction = 1.0 if t_end >= t else -1.0
    if count[at.STARTED] == 0:
        slope = f0 if count[at.CARRIED] > 0 else y_next
        status = start(rhs, y, y_next, trial, slope, p, rtol, atol, work, real, count)
        if status != RUNNING:
            count[at.STATUS] = status
            return status
        h = real[at.H]
        count[at.STARTED] = 1
        if count[at.EVALS] == at.EVERY_STEP:
            count[at.SAVED] = keep_row(t, n, y, 0, ts, ys)
        real[at.LAST_RESET] = t
        if events is not None:
            first_sides(events, rates, direction, t, y, p, work, g, watch, real, count)
    home, home_slope = y, f0
    status, pause, adaptive = RUNNING, count[at.PAUSE], count[at.ADAPTIVE] == 1
    log1, log2, ratio1, ratio2 = real[at.LOG1], real[at.LOG2], real[at.RATIO1], real[at.RATIO2]
    tight, broken = count[at.TIGHT], count[at.BROKEN]
    steps, rejected, max_steps = count[at.STEPS], count[at.REJECTED], count[at.MAX_STEPS]
    every, saved = count[at.EVALS] == at.EVERY_STEP, count[at.SAVED]
    room = count[at.ROOM] - 2  # a reset keeps two rows
    min_step, max_step = real[at.MIN_STEP], real[at.MAX_STEP]
    next_eval, evals = count[at.NEXT_EVAL], count[at.EVALS]
    next_stop, last_stop = count[at.NEXT_STOP], count[at.STOPS] - 1
    stop = stops[next_stop]
    keeps_dense, stretch = count[at.DENSE] == 1, STRETCH if adaptive else STRETCH_FIXED
    while next_eval < evals and t_eval[next_eval] == t and steps == 0:
        saved = keep_row(t, n, y, saved, ts, ys)
        next_eval += 1
    while status == RUNNING:
        if steps + rejected >= max_steps:
            status = STEP_LIMIT
            break
        if pause <= 0:
            break
        if (
            (every and saved > room)
            or (keeps_dense and count[at.SEGMENTS] >= count[at.SEGMENT_ROOM])
            or (n_events > 0 and count[at.FIRED] + SAMPLES * n_events > count[at.FIRED_ROOM])
        ):
            status = NEEDS_ROOM
            break
        pause -= 1
        size = min(abs(h), max_step)
        ends = (t + stretch * direction * size - stop) * direction >= 0.0 and abs(stop - t) <= max_step
        tried = direction * size
        if ends:
            tried = stop - t
            gap = direction * RESOLUTION * max(abs(stop), abs(tried))
            if next_stop < last_stop and abs(tried) > abs(gap):  # so that no stage sees beyond a discontinuity
                tried -= gap
        elif size <= RESOLUTION * abs(t) or (size < min_step and adaptive) or size == 0.0:
            status = NON_FINITE if broken else STEP_UNDERFLOW
            break
        real[at.T] = t
        real[at.H_TRY] = tried
        call_kernel(step, offset(real, at.T), offset(real, at.H_TRY), y, p, f0, rtol, atol, y_next, f1, k,
                    offset(real, at.ERROR), work)  # fmt: skip
        squared = real[at.ERROR]
        if squared <= 1.0:
            steps += 1
            new_t = stop if ends else t + tried
            end_t, cut = new_t, NO_CUT
            wanted = next_eval < evals and (t_eval[next_eval] - new_t) * direction <= 0.0
            if wanted or keeps_dense or n_events > 0:
                call_kernel(dense, offset(real, at.T), offset(real, at.H_TRY), y, p, f0, y_next, f1, k, q, work)
                count[at.DENSE_CALLS] += 1
                if events is not None:
                    cut = find_events(events, t, tried, new_t, y, y_next, q, p, work, g, trial, roots, watch, fired_t,
                                      fired_e, fired_y, real, count)  # fmt: skip
                    if cut != NO_CUT:
                        end_t = time_after(real[at.CUT], t, new_t)
                while next_eval < evals and (t_eval[next_eval] - end_t) * direction <= 0.0:
                    when = t_eval[next_eval]
                    state_after(when - t, t, tried, new_t, n, degree, y, y_next, q, offset(ys, saved * n))
                    ts[saved] = when
                    saved += 1
                    next_eval += 1
                if keeps_dense:
                    keep_segment(t, tried, n, degree, y, q, count[at.SEGMENTS], marks, segments)
                    count[at.SEGMENTS] += 1
            if adaptive:
                log_error = 0.5 * log2_rough(squared)
                log_factor = accepted_log(log_error, log1, log2, ratio1, ratio2, real)
                factor = exp2_rough(log_factor)
                if tight:
                    factor, log_factor = min(factor, 1.0), min(log_factor, 0.0)
                if not ends:  # a step cut short by a stop says nothing about the next one
                    if size == abs(h):  # nor does the error of one cut short by max_step
                        log2, log1 = log1, max(log_error, LEAST_LOG)
                        ratio2, ratio1 = ratio1, log_factor
                    h = tried * factor
            tight, broken = 0, 0
            if cut != NO_CUT:
                state_after(real[at.CUT], t, tried, new_t, n, degree, y, y_next, q, trial)
                copy(n, trial, y_next)
            y, y_next = y_next, y
            f0, f1 = f1, f0
            t = end_t
            if every:
                saved = keep_row(t, n, y, saved, ts, ys)
            if cut == TERMINAL:
                status = TERMINATED
            elif events is not None and cut != NO_CUT:
                reset_state(resets, t, y, p, work, trial, watch, real, count)
                set_sides(events, rates, direction, t, y, p, work, g, watch, real, count)
                if every:
                    saved = keep_row(t, n, y, saved, ts, ys)
                size = next_size(t, h, real, count)
                h = size if adaptive else h
                if count[at.CHATTER] >= MOST_CHATTER:
                    status = CHATTERING
            moved = cut != NO_CUT  # then the slope is another one
            if t == stop and next_stop == last_stop:
                status = SUCCESS if status == RUNNING else status
            elif t == stop:
                next_stop += 1
                gap = min(RESOLUTION * max(abs(stop), abs(tried)), 0.5 * abs(stops[next_stop] - stop))
                t, stop, moved = stop + direction * gap, stops[next_stop], True  # and none on what lies before it
                log1, log2, ratio1, ratio2 = 0.0, 0.0, 0.0, 0.0
            if moved and count[at.CARRIED] > 0:
                slope_at(rhs, t, y, p, f0, work, real, count)
        elif not adaptive:
            status = NON_FINITE
        else:
            rejected += 1
            tight = 1
            if squared < 1e300:
                h = tried * rejected_factor(squared, real)
                broken = 0
            else:  # not finite: far beyond what the error tells
                h = 0.25 * tried
                broken = 1
    _come_home(n, count[at.CARRIED], y, f0, home, home_slope)
    real[at.T], real[at.H] = t, h
    real[at.LOG1], real[at.LOG2], real[at.RATIO1], real[at.RATIO2] = log1, log2, ratio1, ratio2
    count[at.STEPS], count[at.REJECTED], count[at.SAVED], count[at.NEXT_EVAL] = steps, rejected, saved, next_eval
    count[at.NEXT_STOP], count[at.TIGHT], count[at.BROKEN], count[at.STATUS] = next_stop, tight, broken, status
    return status


def _come_home(n, carried, y, slope, home, home_slope):
    """Put state and slope back into the buffers from which the next call starts."""
    copy(n, y, home)
    copy(carried, slope, home_slope)
