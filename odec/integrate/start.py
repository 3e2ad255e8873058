"""The start of a solve: the slope there, and a first step size where none is given."""

from __future__ import annotations

from odec.codegen.machine import call_kernel, offset
from odec.integrate import slots as at
from odec.integrate.slots import LARGEST, RESOLUTION


def slope_at(rhs, t, y, p, slope, work, real, count):
    """slope = f(t, y, p)."""
    real[at.SCRATCH] = t
    call_kernel(rhs, offset(real, at.SCRATCH), y, p, slope, work)
    count[at.NFEV] += 1


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
    d0, d1 = _scaled_norm(n, y, y, rtol, atol), _scaled_norm(n, slope, y, rtol, atol)
    usable = 1e-5 <= d0 < 1e300 and 1e-5 <= d1 < 1e300  # else too near zero, or the norm overflows
    least = 16.0 * RESOLUTION * abs(t)  # a step that moves t
    guess = min(max(0.01 * d0 / d1 if usable else 1e-6, least), span, most)
    for i in range(n):
        y_next[i] = y[i] + direction * guess * slope[i]
    slope_at(rhs, t + direction * guess, y_next, p, trial, work, real, count)
    for i in range(n):
        trial[i] -= slope[i]
    d2 = _scaled_norm(n, trial, y, rtol, atol) / guess
    if not (d1 < 1e308 and d2 < 1e308):  # too far to say: start small and let the error decide
        return direction * max(guess * 1e-3, min(least, guess))
    steepest = max(d1, d2)
    refined = max(1e-6, guess * 1e-3) if steepest <= 1e-15 else (0.01 / steepest) ** (1.0 / count[at.EXPONENT])
    size = max(min(100.0 * guess, max(refined, least)), rules[at.MIN_STEP])
    return direction * min(size, span, most)


def _scaled_norm(n, v, y, rtol, atol):
    """Root of the mean of (v_i / (atol_i + rtol_i |y_i|))²."""
    total = 0.0
    for i in range(n):
        ratio = v[i] / (atol[i] + rtol[i] * abs(y[i]))
        total += ratio * ratio
    return (total / n) ** 0.5
