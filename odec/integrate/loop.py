"""The loop that takes steps: accept or reject, control the step size, save, stop.

Plain Python that runs as it stands (the `python` target) and is compiled once an installation. The
step and the right-hand side reach it as kernels. It can stop and be called again: all that it needs
to go on lies in `real` and `count` and in the first buffers.
"""

from __future__ import annotations

from odec.codegen.machine import call_kernel, offset
from odec.integrate.control import LEAST_LOG, accepted_factor, log2_rough, rejected_factor

# real: float64 slots
T, H, T_END, MIN_STEP, MAX_STEP, LOG_BEFORE, H_TRY, ERROR, SCRATCH = range(9)
REALS = 9
# count: int64 slots
STATUS, STEPS, REJECTED, NFEV, MAX_STEPS, PAUSE, SAVED, ROOM, NEXT_EVAL, EVALS, STARTED, TIGHT, BROKEN = range(13)
COUNTS = 13

# Statuses as in errors.Status, and two that only mean: call again
SUCCESS, RUNNING, STEP_LIMIT, STEP_UNDERFLOW, NON_FINITE, INTERRUPTED, NON_FINITE_START = range(7)
NEEDS_ROOM = 100

EVERY_STEP = -1  # in count[EVALS]: save each accepted step
RESOLUTION = 4.440892098500626e-16  # twice the spacing of doubles at 1


def integrate(step, rhs, n, stages, order, y, y_next, k, k_next, f0, p, rtol, atol, work, t_eval, dense, degree,
              weights, ts, ys, real, count):  # fmt: skip
    """Advance from real[T] towards real[T_END]; the status, also in count[STATUS].

    y, y_next (n,), k, k_next (stages - 1, n), f0 (n,) : state, stages and slope at the state
    dense (stages, degree) : b_i(theta) = sum_m dense[i, m] theta^(m+1)
    ts (room,), ys (room, n) : rows kept so far, count[SAVED] of them
    """
    t, h, t_end = real[T], real[H], real[T_END]
    direction = 1.0 if t_end >= t else -1.0
    last_stage = (stages - 2) * n
    if count[STARTED] == 0:
        status = _start(rhs, n, order, y, y_next, k, f0, p, rtol, atol, work, real, count)
        if status != RUNNING:
            count[STATUS] = status
            return status
        h = real[H]
        count[STARTED] = 1
        _save_start(n, y, t_eval, ts, ys, real, count)
    slope, home, home_slope = f0, y, f0
    status, pause = RUNNING, count[PAUSE]
    log_before, tight, broken = real[LOG_BEFORE], count[TIGHT], count[BROKEN]
    steps, rejected, max_steps = count[STEPS], count[REJECTED], count[MAX_STEPS]
    every, saved, room = count[EVALS] == EVERY_STEP, count[SAVED], count[ROOM]
    min_step, max_step = real[MIN_STEP], real[MAX_STEP]
    next_eval, evals = count[NEXT_EVAL], count[EVALS]
    while status == RUNNING:
        if steps + rejected >= max_steps:
            status = STEP_LIMIT
            break
        if pause <= 0:
            break
        if every and saved >= room:
            status = NEEDS_ROOM
            break
        pause -= 1
        size = min(abs(h), max_step)
        ends = (t + 1.01 * direction * size - t_end) * direction >= 0.0 and abs(t_end - t) <= max_step
        tried = t_end - t if ends else direction * size
        if not ends and (size <= RESOLUTION * abs(t) or size < min_step or size == 0.0):
            status = NON_FINITE if broken else STEP_UNDERFLOW
            break
        real[T] = t
        real[H_TRY] = tried
        call_kernel(step, offset(real, T), offset(real, H_TRY), y, p, slope, rtol, atol, y_next, k,
                    offset(real, ERROR), work)  # fmt: skip
        squared = real[ERROR]
        if squared <= 1.0:
            steps += 1
            factor = accepted_factor(squared, log_before, order)
            if tight:
                factor = min(factor, 1.0)
            new_t = t_end if ends else t + tried
            while next_eval < evals and (t_eval[next_eval] - new_t) * direction <= 0.0:
                _interpolate((t_eval[next_eval] - t) / tried, tried, n, stages, degree, dense, weights, y, y_next,
                             slope, k, offset(ys, saved * n))  # fmt: skip
                ts[saved] = t_eval[next_eval]
                saved += 1
                next_eval += 1
            if not ends:  # a step cut short by the end says nothing about the next one
                if size == abs(h):  # nor does the error of one cut short by max_step
                    log_before = max(0.5 * log2_rough(squared), LEAST_LOG)
                h = tried * factor
            tight, broken = 0, 0
            y, y_next = y_next, y
            slope = offset(k, last_stage)
            k, k_next = k_next, k
            t = new_t
            if every:
                ts[saved] = t
                for i in range(n):
                    ys[saved * n + i] = y[i]
                saved += 1
            if ends:
                status = SUCCESS
        else:
            rejected += 1
            tight = 1
            if squared < 1e300:
                h = tried * rejected_factor(squared, order)
                broken = 0
            else:  # not finite: far beyond what the error tells
                h = 0.25 * tried
                broken = 1
    _come_home(n, y, slope, home, home_slope)
    real[T], real[H], real[LOG_BEFORE] = t, h, log_before
    count[STEPS], count[REJECTED], count[SAVED], count[NEXT_EVAL] = steps, rejected, saved, next_eval
    count[TIGHT], count[BROKEN], count[STATUS] = tight, broken, status
    return status


def _come_home(n, y, slope, home, home_slope):
    """Put state and slope back into the buffers from which the next call starts."""
    for i in range(n):
        home_slope[i] = slope[i]
    for i in range(n):
        home[i] = y[i]


def _save_start(n, y, t_eval, ts, ys, real, count):
    """Keep the first row where it is asked for."""
    if count[EVALS] == EVERY_STEP:
        ts[0] = real[T]
        for i in range(n):
            ys[i] = y[i]
        count[SAVED] = 1
    while count[NEXT_EVAL] < count[EVALS] and t_eval[count[NEXT_EVAL]] == real[T]:
        ts[count[SAVED]] = real[T]
        for i in range(n):
            ys[count[SAVED] * n + i] = y[i]
        count[SAVED] += 1
        count[NEXT_EVAL] += 1


def _interpolate(theta, h, n, stages, degree, dense, weights, y, y_next, slope, k, row):
    """row = y + h sum_i b_i(theta) k_i, and the new state itself at theta = 1."""
    if theta == 1.0:
        for i in range(n):
            row[i] = y_next[i]
        return
    for s in range(stages):
        b = 0.0
        for m in range(degree - 1, -1, -1):
            b = (b + dense[s * degree + m]) * theta
        weights[s] = b * h
    for i in range(n):
        change = weights[0] * slope[i]
        for s in range(1, stages):
            change += weights[s] * k[(s - 1) * n + i]
        row[i] = y[i] + change


def _scaled_norm(n, v, y, rtol, atol):
    """Root of the mean of (v_i / (atol_i + rtol_i |y_i|))²."""
    total = 0.0
    for i in range(n):
        ratio = v[i] / (atol[i] + rtol[i] * abs(y[i]))
        total += ratio * ratio
    return (total / n) ** 0.5


def _start(rhs, n, order, y, y_next, k, f0, p, rtol, atol, work, real, count):
    """The slope at the start, and a first step size where none is given [hairer1993, II.4, algorithm]."""
    t, h = real[T], real[H]
    real[SCRATCH] = t
    call_kernel(rhs, offset(real, SCRATCH), y, p, f0, work)
    count[NFEV] += 1
    for i in range(n):
        if not abs(f0[i]) <= 1.7976931348623157e308:
            return NON_FINITE_START
    if h != 0.0:
        return RUNNING
    span = abs(real[T_END] - t)
    direction = 1.0 if real[T_END] >= t else -1.0
    d0, d1 = _scaled_norm(n, y, y, rtol, atol), _scaled_norm(n, f0, y, rtol, atol)
    usable = 1e-5 <= d0 < 1e300 and 1e-5 <= d1 < 1e300  # else too near zero, or the norm overflows
    least = 16.0 * RESOLUTION * abs(t)  # a step that moves t
    guess = min(max(0.01 * d0 / d1 if usable else 1e-6, least), span, real[MAX_STEP])
    for i in range(n):
        y_next[i] = y[i] + direction * guess * f0[i]
    real[SCRATCH] = t + direction * guess
    call_kernel(rhs, offset(real, SCRATCH), y_next, p, k, work)
    count[NFEV] += 1
    for i in range(n):
        k[i] -= f0[i]
    d2 = _scaled_norm(n, k, y, rtol, atol) / guess
    if not (d1 < 1e308 and d2 < 1e308):  # too far to say: start small and let the error decide
        real[H] = direction * max(guess * 1e-3, min(least, guess))
        return RUNNING
    steepest = max(d1, d2)
    refined = max(1e-6, guess * 1e-3) if steepest <= 1e-15 else (0.01 / steepest) ** (1.0 / order)
    real[H] = direction * min(100.0 * guess, max(refined, least), span, real[MAX_STEP])
    return RUNNING
