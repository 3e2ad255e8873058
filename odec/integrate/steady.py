"""The search for where f(y) = 0: damped Newton, then pseudo-transient continuation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from odec.integrate.factors import Factors, largest_row_sum, shifted

NEWTON_ITERATIONS = 50  # beyond which Newton's method is given up for pseudo-transient continuation
LEAST_DAMPING = 1 / 64
NEAR_SINGULAR = 1e4  # times the rounding of dtype: Newton's step would wander along what is conserved
ROUNDING = 8.0  # spacings of |J| |y| below which a slope cannot be told from zero
FIRST_STEP = 0.1  # of the pseudo time, in units of 1 / |J|: well below where I/dt - J of an unstable mode is singular
FASTEST_GROWTH = 10.0  # of the pseudo time step, from one step to the next
REJECTIONS = 60  # in a row, each with a quarter of the pseudo time step before


@dataclass(frozen=True)
class Found:
    """Where a search ended: y and f (n,), whether that is steady, by which method or why not, and the counts."""

    y: np.ndarray
    f: np.ndarray
    steady: bool
    how: str
    iterations: int
    pseudo_steps: int = 0


def searched(slope, y, rtol, atol, most):
    """The Found of a search from y: Newton's method, then pseudo-transient continuation.

    slope : f, callable y (n,) -> (n,), with `jacobian(y)` (n, n), `moved(y, dy)`, y + dy as the dtype of f rounds it,
        and `eps`, the rounding of that dtype
    y : (n,); rtol, atol : numbers or (n,), of the last Newton step; most : iterations of both kinds together

    References: Deuflhard, Newton Methods for Nonlinear Problems (2004), section 3.3 (natural monotonicity); Kelley and
    Keyes, SIAM J. Numer. Anal. 35 (1998) 508 (switched evolution relaxation)
    """
    f = slope(y)
    if not np.isfinite(f).all():
        return Found(y, f, False, "is not finite at y0", 0)
    weight = lambda y: atol + rtol * np.abs(y)
    with np.errstate(all="ignore"):
        found, spent = _newton(slope, y, f, weight, min(most, NEWTON_ITERATIONS))
        return found or _continued(slope, y, f, weight, most, spent)


def _newton(slope, y, f, weight, most):
    """(Found or None, iterations): damped so that each step brings the next Newton correction down."""
    for spent in range(1, most + 1):
        jacobian = slope.jacobian(y)
        if _at_rounding(slope, jacobian, y, f):
            return Found(y, f, True, "Newton's method", spent - 1), spent - 1
        factors = Factors(jacobian)
        if not factors.reciprocal_condition > NEAR_SINGULAR * slope.eps:
            return None, spent
        dy, scale = -factors.solve(f), weight(y)
        size = _rms(dy / scale)
        if size <= 1.0:
            y, f = _better(slope, y, f, dy)
            return Found(y, f, True, "Newton's method", spent), spent
        step = _damped(slope, factors, y, dy, scale, size)
        if step is None:
            return None, spent
        y, f = step
    return None, most


def _damped(slope, factors, y, dy, scale, size):
    """(y, f) after as much of dy as makes the next correction smaller, or None."""
    damping = 1.0
    while damping >= LEAST_DAMPING:
        trial = slope.moved(y, damping * dy)
        f = slope(trial)
        if np.isfinite(f).all() and _rms(factors.solve(f) / scale) <= (1.0 - damping / 4) * size:
            return trial, f
        damping /= 2
    return None


def _continued(slope, y, f, weight, most, spent):
    """The Found of pseudo-transient continuation: implicit Euler steps that turn into Newton's as f falls."""
    jacobian = slope.jacobian(y)
    dt, refused, settled = FIRST_STEP / (largest_row_sum(jacobian) or 1.0), 0, False
    for pseudo in range(1, most - spent + 1):
        if _at_rounding(slope, jacobian, y, f):
            return Found(y, f, True, "pseudo-transient continuation", spent + pseudo - 1, pseudo - 1)
        dy = Factors(shifted(jacobian, 1.0 / dt)).solve(f)
        arrived = _rms(dy / weight(y)) <= 1.0 and _rms(dy) <= 0.1 * dt * _rms(f)  # as small as Newton's step would be
        if arrived and settled:  # twice: a slow mode may have hidden behind a fast one
            y, f = _better(slope, y, f, dy)
            return Found(y, f, True, "pseudo-transient continuation", spent + pseudo, pseudo)
        trial = slope.moved(y, dy)
        after = slope(trial)
        if not (np.isfinite(after).all() and _rms(after) <= 10.0 * _rms(f)):
            dt, refused = dt / 4, refused + 1
            if refused == REJECTIONS:
                return Found(y, f, False, "stays large or not finite however small the step", spent + pseudo, pseudo)
            continue
        dt *= _growth(f, after, dy, y)
        y, f, refused, settled, jacobian = trial, after, 0, arrived, slope.jacobian(trial)
    return Found(y, f, False, "is not zero", most, max(0, most - spent))


def _growth(f, after, dy, y):
    """The factor of dt: |f| / |f after|, and at least 2 where the step changed little."""
    ratio = _rms(f) / max(_rms(after), 1e-300)
    least = 2.0 if _rms(dy) <= 0.1 * _rms(y) else 0.1
    return min(max(ratio, least), FASTEST_GROWTH)


def _better(slope, y, f, dy):
    """(y, f) after a last step, or before it where rounding made that the worse."""
    trial = slope.moved(y, dy)
    after = slope(trial)
    return (trial, after) if _rms(after) <= _rms(f) else (y, f)


def _at_rounding(slope, jacobian, y, f):
    """Whether each f_i is within rounding of zero: |f| <= 8 eps |J| |y|."""
    return bool(np.all(np.abs(f) <= ROUNDING * slope.eps * (abs(jacobian) @ np.abs(y))))


def _rms(x):
    return math.sqrt(float(np.mean(np.square(x))))
