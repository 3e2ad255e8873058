"""How fast a model can decay near its solution, to tell steps that stability holds down from all others.

Runs between stretches of the loop, never in it.
"""

from __future__ import annotations

import math
import time

import numpy as np

PRODUCTS = 12  # of the Jacobian with a vector, for one estimate
SETTLING = 6  # of them that only turn the direction towards the fastest mode
LOOK_SECONDS = 0.05  # between two estimates
# Of the method's stability interval, from which on steps count as held down by stability: over the stiff problems
# of the tests the median is 0.92 to 1.0, over the nonstiff ones at most 0.77, at tolerances of 1e-2.
HELD = 0.8


class Reach:
    """How far steps reach in units of the fastest mode, |h| |lambda|, looked at now and then during a solve."""

    def __init__(self):
        self._looks, self._last = [], time.perf_counter()

    def look(self, rhs, t, y, p, h):
        """Add an estimate."""
        found = abs(h) * fastest_rate(rhs, t, y, p)
        if math.isfinite(found):
            self._looks.append(found)
        self._last = time.perf_counter()

    def look_if_due(self, rhs, t, y, p, h):
        """Add an estimate when the last one, or the start, is long ago: short solves pay nothing."""
        if time.perf_counter() - self._last >= LOOK_SECONDS:
            self.look(rhs, t, y, p, h)

    @property
    def median(self):
        """Over what was seen, or None."""
        return float(np.median(self._looks)) if self._looks else None


def fastest_rate(rhs, t, y, p):
    """The largest |lambda| of J = d rhs / d y at (t, y), roughly: (|J^k v| / |J^j v|)^(1/(k-j)); nan if unknown.

    J v is a difference of two slopes. The directions start from an irregular vector, are measured in the
    scale of each component of y, and the mean growth over an even number of products is taken, so that
    modes that rotate between components of different size are not taken for faster than they are.

    Parameters
    ----------
    rhs : callable (t: (1,), y: (n,), p: (m,), out: (n,)) -> None
    t, y, p : where

    Returns
    -------
    float, per unit of time

    References: [sommeijer1998], the nonlinear power method
    """
    scale = np.abs(y).astype(float)
    scale += 1e-3 * scale.max() or 1e-6
    nudge = math.sqrt(np.finfo(y.dtype).eps) * scale
    direction = np.cos(1.0 + 3.0 * np.arange(y.size))
    slope, moved, at, growth = np.empty_like(y), np.empty_like(y), np.array([t], float), []
    with np.errstate(all="ignore"):
        rhs(at, y, p, slope)
        for _ in range(PRODUCTS):
            direction /= _size(direction)
            rhs(at, (y + nudge * direction).astype(y.dtype), p, moved)
            direction = (moved - slope) / nudge
            growth.append(_size(direction))
            if not 0.0 < growth[-1] < math.inf:
                return 0.0 if growth[-1] == 0.0 else math.nan
    return math.exp(np.mean(np.log(growth[SETTLING:])))


def _size(v):
    return math.sqrt(np.mean(v * v))
