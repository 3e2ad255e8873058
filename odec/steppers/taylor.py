"""The Taylor series method: a step sums the series of the solution, to an order that the tolerance sets."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from odec.errors import ArgumentError
from odec.graph.function import Function
from odec.graph.node import constant
from odec.graph.op import OPS
from odec.ops.call import call
from odec.ops.families import broadcast_to
from odec.ops.linalg import matmul
from odec.ops.rough import rough_exp2, rough_log2
from odec.ops.statistics import np_max
from odec.ops.structure import concatenate, row
from odec.steppers.hermite import stacked
from odec.steppers.runge_kutta import (
    evaluation,
    in_double,
    in_dtype,
    named,
    scale_of,
    sum_of_squares,
    zero_if_finite,
)
from odec.transforms.taylor import kink, taylor

INLINE = 5_000  # scalar operations up to which the series is straight-line code; beyond, loops over the orders
LEAST_ORDER, MOST_ORDER = 2, 100
USUAL_RTOL = 1e-6  # of odec.solve
NOISE = 16.0  # roundings of a slope that the error of a step does not see
LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class TaylorMethod:
    """The Taylor series method: y(t + h) = sum_k y_k h^k up to an order, of normalised coefficients y_k.

    order : a number from 2 to 100; None takes it from the relative tolerance, ceil(1 - ln(rtol) / 2)
    The step size follows from the last two coefficients, so that the terms left out stay within the tolerance:
    h = exp(-0.7 / (p - 1)) min(|y_{p-1}|^(-1/(p-1)), |y_p|^(-1/p) exp(-2/p)), with |v| the largest of
    |v_i| / (atol_i + rtol_i |y_i|). It grows by at most ten times from step to step, so that coefficients which happen
    to vanish stretch none. The dense output is the series itself. What rounding leaves out of the state and of time is
    carried on (compensated sums), so that errors of long solves grow as the square root of the number of steps.
    A model that is not analytic (where, abs, maximum, interp, ...) has steps whose slope at the end is compared with f
    there, and which are rejected where a kink is within them.

    Raises
    ------
    ArgumentError : an order that is no integer from 2 to 100

    References: [jorba2005]
    """

    order: int | None = None

    name = "taylor"
    family = "Taylor series"
    source = "Jorba and Zou, Exp. Math. 14 (2005) 99"
    error_order = None
    stages = 1
    evaluations = 1
    dense_evaluations = 0
    carries = True  # what rounding has left out of y
    carries_slope = False
    adaptive = True
    sizes_itself = True  # the size of a step follows from its own coefficients, not from the error of the one before

    def __post_init__(self):
        if self.order is None:
            return
        if isinstance(self.order, bool) or not isinstance(self.order, (int, np.integer)):
            raise ArgumentError(
                f"taylor: order is {self.order!r}; an integer, or None for one that rtol sets, is needed."
            )
        if not LEAST_ORDER <= self.order <= MOST_ORDER:
            raise ArgumentError(
                f"taylor: order is {self.order}; a number from {LEAST_ORDER} to {MOST_ORDER} is needed."
            )

    def __repr__(self):
        return f"<TaylorMethod: order {'from rtol' if self.order is None else self.order}>"

    def at(self, rtol):
        """The method of the order for a relative tolerance, a number or a vector."""
        return self if self.order is not None else _of_order(order_for(float(np.min(rtol))))

    @property
    def known_order(self):
        """The order; where none is given and no tolerance has set it, that of the default tolerance."""
        return order_for(USUAL_RTOL) if self.order is None else int(self.order)

    @property
    def kept(self):
        """The rows that the dense output needs: all coefficients."""
        return tuple(range(self.known_order + 1))

    @property
    def degree(self):
        """The degree of the dense output, the order."""
        return self.known_order

    @property
    def dense_order(self):
        """The order of the dense output, which is the series itself."""
        return self.known_order

    @property
    def error_exponent(self):
        """The error of a step falls as h to this power."""
        return self.known_order + 1

    @property
    def digest(self):
        """What tells methods of other orders apart, equal in every process."""
        return f"taylor {self.known_order}"


@functools.cache
def _of_order(order):
    return TaylorMethod(order)


def order_for(rtol):
    """ceil(1 - ln(rtol) / 2), at least 2 [jorba2005, 3.2]."""
    return min(max(LEAST_ORDER, math.ceil(1.0 - 0.5 * math.log(rtol))), MOST_ORDER)


def taylor_step(f, method, t, h, y, p, f0, rtol, atol):
    """y1 = y + sum_{k=1..order} y_k h^k; as `k` the coefficients, as `f0` and `f1` what rounding left out of y and y1.

    f : Function (t: (), y: (n,), p: (m,)) -> (n,)
    t, h, y, p, f0, rtol, atol : input nodes, as in step.py
    """
    inputs = dict(t=t, h=h, y=y, p=p, f0=f0, rtol=rtol, atol=atol)
    series = coefficients(f, method, t, y, p)
    increment = named(_increment(series, in_dtype(h, y), y) + f0, "increment")
    y1 = named(y + increment, "y1")
    moved = y1 - y  # so the sum's rounding is known exactly [knuth1998, 4.2.2]
    lost = named((y - (y1 - moved)) + (increment - moved), "lost")
    error = zero_if_finite(y1)
    if kink(f) is not None:
        error = _residual(f, method, series, t, h, y, y1, p, rtol, atol)
    return Function("step", inputs, {"y1": y1, "f1": lost, "k": series, "error": error})


def _residual(f, method, series, t, h, y, y1, p, rtol, atol):
    """The error² of step.py from how far the series' slope at the end is from f there: h (s'(h) - f) / (order + 1).

    A kink or a jump of f within the step shows in it, which no coefficient at the start does. What rounding alone makes
    of the difference is taken off.
    """
    size, absolute = broadcast_to(in_dtype(h, y), y.shape), OPS["abs"]
    slope = _slope_at_end(series, size)
    rate = evaluation(f, 1)(t + h, y1, p)
    noise = NOISE * float(np.finfo(y.dtype).eps)
    excess = absolute(slope - rate) - noise * (absolute(slope) + absolute(rate))
    excess = OPS["where"](OPS["lt"](excess, 0.0), 0.0, excess)
    ratio = (1.0 / (method.known_order + 1)) * (size * excess) / scale_of(y, y1, rtol, atol)
    return sum_of_squares(ratio) * (1.0 / y.size)


def _slope_at_end(series, size):
    """sum_{k>=1} k y_k h^(k-1), by Horner's rule."""
    order = series.shape[0] - 1
    total = float(order) * row(series, order)
    for k in reversed(range(1, order)):
        total = total * size + (float(k) * row(series, k) if k > 1 else row(series, k))
    return total


def taylor_size(f, method, t, y, p, rtol, atol):
    """The size of a step, a positive float64 number: the formula of TaylorMethod."""
    series, order = coefficients(f, method, t, y, p), method.known_order
    size = OPS["abs"]
    weight = 1.0 / (atol + rtol * size(y))
    before, last = (np_max(size(row(series, k)) * weight, axis=0) for k in (order - 1, order))
    logs = [-(1.0 / k) * rough_log2(in_double(x)) for k, x in ((order - 1, before), (order, last))]
    logs[1] = logs[1] - 2.0 * LOG2_E / order
    least = OPS["where"](OPS["lt"](*logs), *logs)
    return named(rough_exp2(least - 0.7 * LOG2_E / (order - 1)), "size")


def taylor_dense(f, method, t, h, y, p, f0, y1, f1, k):
    """The series as the polynomial of step.py, a linear map of the terms y_k h^k."""
    inputs = dict(t=t, h=h, y=y, p=p, f0=f0, y1=y1, f1=f1, k=k)
    order, size = method.known_order, in_dtype(h, y)
    terms, power = [], size
    for m in range(1, order + 1):
        terms.append(broadcast_to(power, y.shape) * row(k, m))
        power = power * size
    q = matmul(constant(centred(order), y.dtype), stacked(terms, y))
    return Function("dense", inputs, {"q": concatenate(stacked([y1 - y], y), q, axis=0)})


@functools.cache
def centred(order):
    """(order - 1, order): for the sum of c_m theta^m, m from 1, the coefficients in powers of s = 2 theta - 1 of
    (sum c_m theta^(m-1) - sum c_m) / (1 - theta) = -sum_m c_m (1 + theta + ... + theta^(m-2)).
    """
    powers = np.zeros((order, order))  # powers[j]: theta^j = ((1 + s) / 2)^j in powers of s
    for j in range(order):
        powers[j, : j + 1] = [math.comb(j, i) / 2.0**j for i in range(j + 1)]
    result = np.zeros((order - 1, order))
    for m in range(2, order + 1):
        result[: m - 1, m - 1] = -powers[: m - 1, : m - 1].sum(axis=0)
    return result


def coefficients(f, method, t, y, p):
    """(order + 1, n): unrolled where that is straight-line code of some length, else the call of a kernel."""
    jet = taylor(f, method.known_order)
    if jet.operations <= INLINE:
        return jet(t, y, p)["coefficients"]
    return call(jet, t, y, p)


def _increment(series, h, y):
    """sum_{k>=1} y_k h^k, the even and the odd powers apart: half of the additions that wait for each other."""
    order = series.shape[0] - 1
    step = broadcast_to(h, y.shape)
    square = broadcast_to(h * h, y.shape)
    parts = []
    for first in (1, 2):
        rows = range(first, order + 1, 2)
        total = row(series, rows[-1])
        for k in reversed(rows[:-1]):
            total = total * square + row(series, k)
        parts.append(total)
    odd, even = parts
    return step * (odd + step * even)
