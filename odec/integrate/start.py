"""The start of a solve: the slope there, and a first step size where none is given."""

from __future__ import annotations

import math

from odec.codegen.machine import call_kernel, offset
from odec.integrate import slots as at
from odec.integrate.slots import LARGEST, RESOLUTION


def slope_at(rhs, t, y, p, slope, work, real, count):
    """slope = f(t, y, p)."""
    real[at.SCRATCH] = t
    call_kernel(rhs, offset(real, at.SCRATCH), y, p, slope, work)
    count[at.NFEV] += 1


def clear_unless_slope(carried, count):
    """What is carried at a start: the slope that is there, or zeros where rounding is carried."""
    if count[at.SLOPES] == 0:
        for i in range(count[at.N]):
            carried[i] = 0.0


def is_finite(n, v):
    """Whether every number of v is finite."""
    finite = True
    for i in range(n):
        finite = finite and abs(v[i]) <= LARGEST
    return finite


def first_size(rhs, t, t_end, y, y_next, trial, slope, p, rtol, atol, rules, work, real, count):
    """The first step size that was asked for, else one of which the error is small [hairer1993, II.4, algorithm].

    slope (n,) : f at the start; y_next, trial (n,) : scratch
    """
    n, direction, most = count[at.N], rules[at.DIRECTION], rules[at.MAX_STEP]
    if rules[at.FIRST_STEP] != 0.0:
        return direction * rules[at.FIRST_STEP]
    span = abs(t_end - t)
    size, speed = 0.0, 0.0  # squares of the norms of state and slope in tolerances, |v|² = mean (v_i / scale_i)²
    for i in range(n):
        scale = 1.0 / (atol[i] + rtol[i] * abs(y[i]))
        size += (y[i] * scale) ** 2
        speed += (slope[i] * scale) ** 2
    size, speed = size / n, speed / n
    usable = 1e-10 <= size < LARGEST and 1e-10 <= speed < LARGEST  # else too near zero, or a norm overflows
    least = 16.0 * RESOLUTION * abs(t)  # a step that moves t
    guess = min(max(0.01 * math.sqrt(size / speed) if usable else 1e-6, least), span, most)
    for i in range(n):
        y_next[i] = y[i] + direction * guess * slope[i]
    slope_at(rhs, t + direction * guess, y_next, p, trial, work, real, count)
    bend = 0.0
    for i in range(n):
        bend += ((trial[i] - slope[i]) / (atol[i] + rtol[i] * abs(y[i]))) ** 2
    bend /= n * guess * guess
    if not (speed <= LARGEST and bend <= LARGEST):  # too far to say: start small and let the error decide
        return direction * max(guess * 1e-3, min(least, guess))
    steepest = max(speed, bend)
    refined = max(1e-6, guess * 1e-3) if steepest <= 1e-30 else (1e-4 / steepest) ** (0.5 / count[at.EXPONENT])
    h = max(min(100.0 * guess, max(refined, least)), rules[at.MIN_STEP])
    return direction * min(h, span, most)
