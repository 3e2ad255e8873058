"""How fast a decay a method's step follows without growing: its stability on the negative real axis."""

from __future__ import annotations

import functools

import numpy as np

from odec.graph.function import Function
from odec.graph.node import input_node
from odec.steppers.step import of_one_order, step_function

POINTS = 512  # values of z that one evaluation of the step looks at
FARTHEST = 1e6  # beyond, the method counts as stable for every decay
GRAZE = 1e-7  # by which rounding may lift |R| above 1 where it touches 1


@functools.lru_cache(maxsize=256)
def real_stability_interval(method):
    """The largest x with |R(z)| <= 1 for -x <= z <= 0, where a step takes y' = lambda y from y to R(h lambda) y.

    R is read off the step graph itself, whatever the method. inf for a method that is stable up to 1e6.

    References: [hairer1996] IV.2
    """
    low, high = 0.0, 4.0
    while (bracket := _first_unstable(method, low, high)) is None:
        low, high = high, 4.0 * high
        if low > FARTHEST:
            return np.inf
    for _ in range(4):
        bracket = _first_unstable(method, *bracket) or bracket
    return float(bracket[0])


def growth(method, z):
    """R(z), by which a step of the method multiplies the solution of y' = lambda y, z = h lambda; (m,) -> (m,)."""
    z = np.asarray(z, float)
    step = step_function(_decays(z.size), of_one_order(method))
    given = {"t": 0.0, "h": 1.0, "y": np.ones(z.size), "p": z, "f0": z if method.carries_slope else 0.0 * z}
    arrays = [given[name] if name in given and node.size else np.ones(node.shape) for name, node in step.inputs.items()]
    return step.evaluate(*arrays)["y1"]


def _first_unstable(method, low, high):
    """Two neighbours on a grid from low to high, the first -z with |R(z)| > 1 and the one before; or None."""
    x = np.linspace(low, high, POINTS)
    unstable = np.flatnonzero(~(np.abs(growth(method, -x)) <= 1.0 + GRAZE))
    return (x[max(unstable[0] - 1, 0)], x[unstable[0]]) if unstable.size else None


@functools.lru_cache(maxsize=2)
def _decays(n):
    """y' = p y, one p for each element."""
    inputs = {"t": input_node("t", (), "float64"), "y": input_node("y", (n,), "float64"),
              "p": input_node("p", (n,), "float64")}  # fmt: skip
    return Function("decays", inputs, {"dydt": inputs["p"] * inputs["y"]})
