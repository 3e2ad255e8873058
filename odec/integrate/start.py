"""The start of a solve: the slope there, and a first step size where none is given."""

from __future__ import annotations

from odec.codegen.machine import call_kernel, offset
from odec.integrate import slots as at
from odec.integrate.slots import LARGEST, NON_FINITE_START, RESOLUTION, RUNNING


def slope_at(rhs, t, y, p, slope, work, real, count):
    """slope = f(t, y, p)."""
    real[at.SCRATCH] = t
    call_kernel(rhs, offset(real, at.SCRATCH), y, p, slope, work)
    count[at.NFEV] += 1


def start(rhs, y, y_next, trial, slope, p, rtol, atol, work, real, count):
    """The slope at the start, and a first step size where none is given [hairer1993, II.4, algorithm].

    slope, y_next, trial (n,) : the slope is left in the first
    """
    t, h, n = real[at.T], real[at.H], count[at.N]
    slope_at(rhs, t, y, p, slope, work, real, count)
    for i in range(n):
        if not abs(slope[i]) <= LARGEST:
            return NON_FINITE_START
    if h != 0.0:
        return RUNNING
    span = abs(real[at.T_END] - t)
    direction = 1.0 if real[at.T_END] >= t else -1.0
    d0, d1 = _scaled_norm(n, y, y, rtol, atol), _scaled_norm(n, slope, y, rtol, atol)
    usable = 1e-5 <= d0 < 1e300 and 1e-5 <= d1 < 1e300  # else too near zero, or the norm overflows
    least = 16.0 * RESOLUTION * abs(t)  # a step that moves t
    guess = min(max(0.01 * d0 / d1 if usable else 1e-6, least), span, real[at.MAX_STEP])
    for i in range(n):
        y_next[i] = y[i] + direction * guess * slope[i]
    slope_at(rhs, t + direction * guess, y_next, p, trial, work, real, count)
    for i in range(n):
        trial[i] -= slope[i]
    d2 = _scaled_norm(n, trial, y, rtol, atol) / guess
    if not (d1 < 1e308 and d2 < 1e308):  # too far to say: start small and let the error decide
        real[at.H] = direction * max(guess * 1e-3, min(least, guess))
        return RUNNING
    steepest = max(d1, d2)
    refined = max(1e-6, guess * 1e-3) if steepest <= 1e-15 else (0.01 / steepest) ** (1.0 / count[at.EXPONENT])
    size = max(min(100.0 * guess, max(refined, least)), real[at.MIN_STEP])
    real[at.H] = direction * min(size, span, real[at.MAX_STEP])
    return RUNNING


def _scaled_norm(n, v, y, rtol, atol):
    """Root of the mean of (v_i / (atol_i + rtol_i |y_i|))²."""
    total = 0.0
    for i in range(n):
        ratio = v[i] / (atol[i] + rtol[i] * abs(y[i]))
        total += ratio * ratio
    return (total / n) ** 0.5
