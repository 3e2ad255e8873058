"""NumPy's elementwise functions that are formulas in the ops, and what NumPy does with truth values."""

from __future__ import annotations

import math

import numpy as np

from odec.graph.node import coerce
from odec.graph.op import traceable
from odec.ops.arithmetic import absolute, add, div, floor, maximum, minimum, mod, mul, neg, sub
from odec.ops.comparison import eq, gt, logical_and, logical_not, logical_or, logical_xor, lt, ne, where
from odec.ops.elementary import sin
from odec.ops.families import float_node, float_nodes

# ---- powers, angles, quotients -------------------------------------------------------------------


@traceable(np.positive)
def positive(x):
    return float_node(x)


@traceable(np.square)
def square(x):
    x = float_node(x)
    return x * x


@traceable(np.reciprocal)
def reciprocal(x):
    return 1.0 / float_node(x)


@traceable(np.deg2rad, np.radians)
def deg2rad(x):
    return float_node(x) * (math.pi / 180)


@traceable(np.rad2deg, np.degrees)
def rad2deg(x):
    return float_node(x) * (180 / math.pi)


@traceable(np.floor_divide)
def floor_divide(x, y):
    """The quotient rounded down, from the remainder as NumPy takes it; its derivative is zero."""
    x, y = float_nodes(x, y)
    quotient = (x - mod(x, y)) / y
    whole = floor(quotient)
    return where(gt(quotient - whole, 0.5), whole + 1.0, whole)


@traceable(np.divmod)
def np_divmod(x, y):
    return floor_divide(x, y), mod(x, y)


SINC_TERMS = 14  # sin(z)/z = sum (-z²)^m / (2m+1)!; for |z| <= pi/2 the next term is below 1e-20


@traceable(np.sinc)
def sinc(x):
    """sin(pi x) / (pi x), with its series near 0 so that every derivative there is right."""
    x = float_node(x)
    z = math.pi * x
    near = lt(absolute(x), 0.5)
    square_, series = z * z, 0.0
    for m in reversed(range(SINC_TERMS)):
        series = (-1) ** m / math.factorial(2 * m + 1) + square_ * series
    safe = where(near, 1.0, z)
    return where(near, series, sin(safe) / safe)


# ---- choices -----------------------------------------------------------------------------------------


@traceable(np.heaviside)
def heaviside(x, h0):
    """0 below zero, 1 above, h0 at zero; nan stays nan."""
    x = float_node(x)
    return where(lt(x, 0.0), 0.0, where(eq(x, 0.0), h0, where(gt(x, 0.0), 1.0, x)))


@traceable(np.clip)
def clip(a, a_min=None, a_max=None, *, min=None, max=None):
    low, high = (a_min if min is None else min), (a_max if max is None else max)
    a = float_node(a)
    a = a if low is None else maximum(a, low)
    return a if high is None else minimum(a, high)


@traceable(np.isfinite)
def isfinite(x):
    x = float_node(x)
    return eq(x - x, 0.0)


@traceable(np.isnan)
def isnan(x):
    x = float_node(x)
    return ne(x, x)


@traceable(np.isinf)
def isinf(x):
    return eq(absolute(float_node(x)), math.inf)


# ---- truth values in arithmetic ----------------------------------------------------------------------


def _of_truth(op, both):
    """`op` on numbers; on two truth values what NumPy does with them (None: an error)."""

    def apply(x, y):
        x, y = coerce([x, y])
        if x.dtype == "bool" and y.dtype == "bool":
            if both is None:
                raise TypeError("NumPy does not subtract truth values; use ^ or np.logical_xor")
            return both(x, y)
        return op(x, y)

    return apply


traceable(np.add)(_of_truth(add, logical_or))
traceable(np.multiply)(_of_truth(mul, logical_and))
traceable(np.subtract)(_of_truth(sub, None))


@traceable(np.divide)
def divide(x, y):
    return div(x, y)


@traceable(np.negative)
def negative(x):
    (x,) = coerce([x])
    if x.dtype == "bool":
        raise TypeError("NumPy does not negate truth values; use ~ or np.logical_not")
    return neg(x)


def _of_conditions(op, symbol):
    def apply(*args):
        args = coerce(args)
        if any(a.dtype != "bool" for a in args):
            raise TypeError(f"{symbol} takes conditions, not numbers; compare first, as in (a > 0) {symbol} (b > 0)")
        return op(*args)

    return apply


traceable(np.bitwise_and)(_of_conditions(logical_and, "&"))
traceable(np.bitwise_or)(_of_conditions(logical_or, "|"))
traceable(np.bitwise_xor)(_of_conditions(logical_xor, "^"))
traceable(np.invert)(_of_conditions(logical_not, "~"))
