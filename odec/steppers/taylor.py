"""The Taylor series method: a step sums the series of the solution, to an order that the tolerance sets."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from odec.errors import ArgumentError, nearest
from odec.graph.function import Function
from odec.graph.node import constant
from odec.graph.op import OPS
from odec.ops.call import call
from odec.ops.comparison import larger, smaller
from odec.ops.families import broadcast_to
from odec.ops.linalg import matmul
from odec.ops.rearranging import along
from odec.ops.rough import rough_exp2, rough_log2
from odec.ops.statistics import np_max, np_min
from odec.ops.structure import concatenate, reshape, row
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
TIME_NOISE = 4.0 * float(np.finfo(float).eps)  # in units of time: roundings of t, and of its multiples in a model
LOG2_E = 1.4426950408889634

ADAPTIVE = "adaptive"
LEAST_ADAPTED = 4  # order, so that there are two pairs of coefficients
ROOM = 10  # orders that an adapted one may have beyond the one that rtol sets
CANCELS = 2.0  # how much larger than y a term may be, in units of tolerance / rounding
# Operations beside those of the model, as measured: of a step, in it for each number of y, and for each order.
EACH_STEP, EACH_NUMBER, EACH_ORDER = 2000.0, 300.0, 200.0
AS_GOOD = 0.015  # octaves of cost that an order must save
SPARE = 0.3  # octaves by which a step could be longer than it may be, for sizes change from step to step
NARROW = 4  # numbers of a row that are no more halved
NEVER = 1e4  # a logarithm beyond those of numbers


@dataclass(frozen=True, init=False, repr=False)
class TaylorMethod:
    """The Taylor series method: y(t + h) = sum_k y_k h^k up to an order, of normalised coefficients y_k.

    order : a number from 2 to 100; None takes it from the relative tolerance, ceil(1 - ln(rtol) / 2); "adaptive" begins
        with that one, and takes for each step the one that promises the least work per unit of time, from 4 to ten
        more than that, by loops over the orders
    The step size follows from the last two coefficients, so that the terms left out stay within the tolerance:
    h = exp(-0.7 / (p - 1)) min(|y_{p-1}|^(-1/(p-1)), |y_p|^(-1/p) exp(-2/p)), with |v| the largest of
    |v_i| / (atol_i + rtol_i |y_i|). It grows by at most ten times from step to step, so that coefficients which happen
    to vanish stretch none. The dense output is the series itself. What rounding leaves out of the state and of time is
    carried on (compensated sums), so that errors of long solves grow as the square root of the number of steps.
    A model that is not analytic (where, abs, maximum, interp, ...) has steps whose slope at the end is compared with f
    there, and which are rejected where a kink is within them; with order="adaptive" every model has.
    As an attribute, `order` is the number; where the tolerance sets it, that of the default one.

    Raises
    ------
    ArgumentError : an order that is no integer from 2 to 100, None or "adaptive"

    References: [jorba2005]
    """

    order: int
    set_by: str  # what the order comes from: "user"; "rtol"; "steps", as the solve goes on

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

    def __init__(self, order: int | str | None = None):
        if order is None:
            order, set_by = order_for(USUAL_RTOL), "rtol"
        elif isinstance(order, str):
            order, set_by = _start(order), "steps"
        else:
            order, set_by = _checked(order), "user"
        object.__setattr__(self, "order", order)
        object.__setattr__(self, "set_by", set_by)

    def __repr__(self):
        order = {"user": self.order, "rtol": "from rtol", "steps": ADAPTIVE}[self.set_by]
        return f"<TaylorMethod: order {order}>"

    def at(self, rtol):
        """The method of the order for a relative tolerance, a number or a vector."""
        return self if self.set_by == "user" else _of_order(order_for(float(np.min(rtol))), self.set_by)

    @property
    def adapts_order(self):
        """Whether the order changes from step to step: `order` is then that of the first one."""
        return self.set_by == "steps"

    @property
    def known_order(self):
        """The order of the last coefficient that a step has room for."""
        return most_of(self.order) if self.adapts_order else self.order

    @property
    def highest(self):
        """The method of the one order `known_order`, whose series begin with those of this one."""
        return _of_order(self.known_order, "user") if self.adapts_order else self

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
        return self.order

    @property
    def error_exponent(self):
        """The error of a step falls as h to this power."""
        return self.order + 1

    @property
    def digest(self):
        """What tells methods of other orders apart, equal in every process."""
        return f"taylor {self.order}" + (" adaptive" if self.adapts_order else "")


@functools.cache
def _of_order(order, set_by):
    method = TaylorMethod(order if set_by == "user" else ADAPTIVE if set_by == "steps" else None)
    object.__setattr__(method, "order", order)
    return method


def _start(text):
    if text != ADAPTIVE:
        raise ArgumentError(
            f"taylor: order is {text!r}{nearest(text, (ADAPTIVE,))} It is a number from {LEAST_ORDER} to {MOST_ORDER}, "
            f'None for one that rtol sets, or "{ADAPTIVE}" for one that changes from step to step.'
        )
    return order_for(USUAL_RTOL)


def _checked(order):
    if isinstance(order, bool) or not isinstance(order, (int, np.integer)):
        raise ArgumentError(
            f'taylor: order is {order!r}; an integer, None for one that rtol sets, or "{ADAPTIVE}" is needed.'
        )
    if not LEAST_ORDER <= order <= MOST_ORDER:
        raise ArgumentError(f"taylor: order is {order}; a number from {LEAST_ORDER} to {MOST_ORDER} is needed.")
    return int(order)


def order_for(rtol):
    """ceil(1 - ln(rtol) / 2), at least 2 [jorba2005, 3.2]."""
    return min(max(LEAST_ORDER, math.ceil(1.0 - 0.5 * math.log(rtol))), MOST_ORDER)


def most_of(order):
    """The highest order of an adapted one that begins with `order`."""
    return min(order + ROOM, MOST_ORDER)


def taylor_step(f, method, t, h, y, p, f0, rtol, atol, last=None):
    """y1 = y + sum_{k=1..order} y_k h^k; as `k` the coefficients, as `f0` and `f1` what rounding left out of y and y1.

    f : Function (t: (), y: (n,), p: (m,)) -> (n,)
    t, h, y, p, f0, rtol, atol : input nodes, as in step.py; last : that of the order, where it is adapted
    """
    inputs = dict(t=t, h=h, y=y, p=p, f0=f0, rtol=rtol, atol=atol) | ({} if last is None else {"last": last})
    series = coefficients(f, method, t, y, p, last)
    increment = named(_increment(series, in_dtype(h, y), y) + f0, "increment")
    y1 = named(y + increment, "y1")
    moved = y1 - y  # so the sum's rounding is known exactly [knuth1998, 4.2.2]
    lost = named((y - (y1 - moved)) + (increment - moved), "lost")
    error = zero_if_finite(y1)
    if last is not None or kink(f) is not None:
        order = float(method.order) if last is None else in_dtype(last, y)
        error = _residual(f, series, order, t, h, y, y1, p, rtol, atol)
    return Function("step", inputs, {"y1": y1, "f1": lost, "k": series, "error": error})


def _residual(f, series, order, t, h, y, y1, p, rtol, atol):
    """The error² of step.py from how far the series' slope at the end is from f there: h (s'(h) - f) / (order + 1).

    A kink or a jump of f within the step shows in it, which no coefficient at the start does. Both are taken at the
    double next to t + h, where the state is y1 and what it moves by to there: far from t = 0 the slope does, too. What
    roundings of the slopes, and of time within f, make of the difference is taken off.
    """
    size, absolute = broadcast_to(in_dtype(h, y), y.shape), OPS["abs"]
    end = t + h
    reached = end - t
    slope = _slope_at_end(series, broadcast_to(in_dtype(reached, y), y.shape))
    rate = evaluation(f, 1)(end, y1 + broadcast_to(in_dtype(reached - h, y), y.shape) * slope, p)
    noise = float(np.finfo(y.dtype).eps) * (NOISE * (absolute(slope) + absolute(rate)))
    turn = 2.0 * absolute(row(series, 2)) + absolute((slope - row(series, 1)) / size)
    noise = noise + broadcast_to(in_dtype(TIME_NOISE * absolute(end), y), y.shape) * turn
    excess = absolute(slope - rate) - noise
    excess = OPS["where"](OPS["lt"](excess, 0.0), 0.0, excess)
    ratio = (1.0 / (order + 1.0)) * (size * excess) / scale_of(y, y1, rtol, atol)
    return sum_of_squares(ratio) * (1.0 / y.size)


def _slope_at_end(series, size):
    """sum_{k>=1} k y_k h^(k-1), by Horner's rule."""
    order = series.shape[0] - 1
    total = float(order) * row(series, order)
    for k in reversed(range(1, order)):
        total = total * size + (float(k) * row(series, k) if k > 1 else row(series, k))
    return total


def taylor_size(f, method, t, y, p, rtol, atol):
    """The size of a step of one order, a positive float64 number: the formula of TaylorMethod."""
    series, order = coefficients(f, method, t, y, p), method.known_order
    before, after = (_norm(row(series, k), y, rtol, atol) for k in (order - 1, order))
    logs = [-(1.0 / k) * rough_log2(in_double(x)) for k, x in ((order - 1, before), (order, after))]
    logs[1] = logs[1] - 2.0 * LOG2_E / order
    return named(rough_exp2(smaller(*logs) - 0.7 * LOG2_E / (order - 1)), "size")


def _norm(v, y, rtol, atol):
    """The largest |v_i| / (atol_i + rtol_i |y_i|)."""
    return np_max(OPS["abs"](v) * (1.0 / (atol + rtol * OPS["abs"](y))), axis=0)


def _norms(series, y, rtol, atol):
    """That of each row of (rows, n), halves of rows at a time."""
    weight = 1.0 / (atol + rtol * OPS["abs"](y))
    wide, odd = OPS["abs"](series) * broadcast_to(reshape(weight, shape=(1, y.size)), series.shape), []
    while (n := wide.shape[1]) > NARROW:
        odd += [along(wide, 1, n - 1, n)] * (n % 2)
        wide = larger(along(wide, 1, 0, n // 2), along(wide, 1, n // 2, 2 * (n // 2)))
    return np_max(concatenate(wide, *odd, axis=1), axis=1)


class Sizes:
    """What steps of other orders come to, by the coefficients y_0, ..., y_last that were found, and by a geometric
    series beyond. Vectors are over the orders k from 0 to the highest one, of base-2 logarithms.

    own : the size of the step of the order `last`, a number
    Coefficients that are large against y cancel, so sizes are also bounded by |y_k| h^k <= CANCELS / eps, for each k.
    """

    def __init__(self, f, method, t, y, p, rtol, atol, last):
        most, series = method.known_order, coefficients(f, method, t, y, p, last)
        self.costs = constant(np.log2(_costs(taylor(f, most), y.size)), "float64")
        self.orders, self.last = constant(np.arange(most + 1.0), "float64"), last
        self.logs = self._beyond(rough_log2(in_double(_norms(series, y, rtol, atol))))
        parts = constant(1.0 / np.maximum(np.arange(most + 1.0), 1.0), "float64")
        widest = (math.log2(CANCELS / float(np.finfo(y.dtype).eps)) - self.logs) * parts
        self.bound = named(np_min(OPS["where"](self._between(1.0, last), widest, NEVER)), "bound")
        self.sizes = self._sizes(-self.logs * parts, np.arange(2.0, most + 1.0))
        at_last = np_max(OPS["where"](self._between(last, last), self.sizes, -NEVER))
        self.own = named(rough_exp2(smaller(at_last, self.bound)), "size")

    def _between(self, low, high):
        """Whether orders are from one number to another."""
        return OPS["and"](OPS["le"](low, self.orders), OPS["le"](self.orders, high))

    def _beyond(self, logs):
        """The logarithms of the norms, those beyond `last` by how the last two are below the two before them."""
        ahead = self.orders - self.last
        pairs = (self._between(self.last - 1.0, self.last), self._between(self.last - 3.0, self.last - 2.0))
        newest, before = (np_max(OPS["where"](pair, logs, -NEVER)) for pair in pairs)
        slope = named(0.5 * (newest - before), "slope")
        level = np_max(OPS["where"](pairs[0], logs - ahead * slope, -NEVER))
        return OPS["where"](OPS["le"](ahead, 0.0), logs, level + ahead * slope)

    def _sizes(self, radii, k):
        """The formula of TaylorMethod, from logarithms of |y_k|^(-1/k), for orders k from 2 on."""
        after = along(radii, 0, 2, None) - constant(2.0 * LOG2_E / k, "float64")
        sizes = smaller(along(radii, 0, 1, -1), after) - constant(0.7 * LOG2_E / (k - 1.0), "float64")
        return concatenate(constant(np.full(2, -NEVER), "float64"), sizes, axis=0)

    def next_order(self, longest):
        """The least order whose costs for each unit of time are within some percent of the least, a float64 number,
        where no step may be longer than `longest`: of those from LEAST_ADAPTED to half as much again as the last."""
        score = self.costs - smaller(self.sizes, smaller(self.bound, SPARE + rough_log2(longest)))
        score = OPS["where"](self._between(float(LEAST_ADAPTED), 1.5 * self.last), score, NEVER)
        good = OPS["le"](score, np_min(score) + AS_GOOD)
        return named(np_min(OPS["where"](good, self.orders, float(MOST_ORDER))), "next_order")


def _costs(jet, n):
    """Of a step of each order, in operations."""
    each, pairs = jet.costs
    k = np.arange(jet.order + 1.0)
    return pairs * k * (k + 1.0) / 2.0 + (each + EACH_ORDER) * (k + 1.0) + EACH_NUMBER * n + EACH_STEP


def told_order(method, order):
    """A number that was kept as the order of the next step: that of the first one where it is none."""
    inside = OPS["and"](OPS["le"](float(LEAST_ADAPTED), order), OPS["le"](order, float(method.known_order)))
    return OPS["where"](inside, order, float(min(max(method.order, LEAST_ADAPTED), method.known_order)))


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


def coefficients(f, method, t, y, p, last=None):
    """(order + 1, n): unrolled where that is straight-line code of some length, else the call of a kernel."""
    if last is not None:
        return call(taylor(f, method.known_order, told=True), t, y, p, last)
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
