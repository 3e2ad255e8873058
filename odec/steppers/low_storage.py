"""Explicit Runge-Kutta methods that hold two vectors beside f, however many stages they have."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction as F

import numpy as np

from odec.graph.function import Function
from odec.graph.node import constant, input_node
from odec.ops.call import call
from odec.ops.families import broadcast_to
from odec.steppers.fixed_steps import FixedSteps
from odec.steppers.hermite import hermite, stacked
from odec.steppers.runge_kutta import evaluation, in_dtype, is_called, named, zero_if_finite
from odec.steppers.tableaus import ButcherTableau, check_order, digest_of, exact_entries, refuse, row_sums


@dataclass(frozen=True, eq=False, repr=False)
class LowStorageTableau(FixedSteps):
    """An explicit Runge-Kutta method of fixed steps in two registers [williamson1980], y and du:

    du = a_i du + f(t + c_i h, y),  y = y + h b_i du,  for each stage i, with a_0 = 0.

    order : of y1
    ssp : the strong-stability-preserving coefficient, in forward Euler steps; None where there is none
    Coefficients may be given as fractions, text ('1/3'), or floats. The dense output is the cubic through both
    states and slopes, which evaluates f at both ends.

    Raises
    ------
    ArgumentError : lengths that do not fit, a first a that is not zero, order conditions that do not hold
    """

    name: str
    order: int
    a: tuple[F, ...]
    b: tuple[F, ...]
    source: str = ""
    ssp: float | None = None
    family: str = "low-storage Runge-Kutta"

    carries_slope = False  # from step to step
    dense_evaluations = 2

    def __post_init__(self):
        for field in ("a", "b"):
            object.__setattr__(self, field, exact_entries(self.name, field, getattr(self, field)))
        check_order(self.name, "order", self.order)
        if len(self.a) != len(self.b):
            refuse(self.name, f"a has {len(self.a)} entries, b {len(self.b)}; each needs one for each stage")
        if self.a and self.a[0] != 0:
            refuse(self.name, f"a[0] is {float(self.a[0]):g}, but du holds nothing before the first stage; give 0")
        _ = self.butcher

    @functools.cached_property
    def butcher(self):
        """The same method as a ButcherTableau."""
        slope, state, rows = (), (), []
        for a, b in zip(self.a, self.b):
            rows.append(state)
            slope = (*(a * x for x in slope), F(1))
            state = tuple(x + b * d for x, d in zip((*state, F(0)), slope))
        return ButcherTableau(self.name, self.order, row_sums(rows), tuple(rows), state)

    @functools.cached_property
    def digest(self):
        """A hash of the coefficients, equal in every process."""
        return digest_of("low storage", self.a, self.b)

    @property
    def c(self):
        """Where in the step each stage is."""
        return self.butcher.c

    @property
    def stages(self):
        """How many stages a step has."""
        return len(self.b)


def low_storage_step(f, tableau, t, h, y, p, f0, rtol, atol):
    """One step in two registers: du = a_i du + f(t + c_i h, y), y = y + h b_i du.

    Parameters
    ----------
    f : Function (t: (), y: (n,), p: (m,)) -> (n,)
    tableau : LowStorageTableau
    t, h, y, p, f0, rtol, atol : input nodes, as in step.py

    References: [williamson1980], [carpenter1994]
    """
    inputs = dict(t=t, h=h, y=y, p=p, f0=f0, rtol=rtol, atol=atol)
    size, evaluated, accumulated = in_dtype(h, y), evaluation(f, tableau.stages), _accumulation(f, tableau.stages)
    du, state = None, y
    for i, (a, b, c) in enumerate(zip(tableau.a, tableau.b, tableau.c)):
        time = t + float(c) * h if c else t
        du = evaluated(time, state, p) if du is None else accumulated(time, state, p, float(a), du)
        state = state + broadcast_to(float(b) * size, y.shape) * named(du, f"du{i + 1}")
    y1 = named(state, "y1")
    outputs = {"y1": y1, "f1": constant(np.empty(0), y.dtype), "k": stacked((), y), "error": zero_if_finite(y1)}
    return Function("step", inputs, outputs)


def low_storage_dense(f, tableau, t, h, y, p, f0, y1, f1, k):
    """The cubic through both states and slopes, which are evaluated here."""
    inputs = dict(t=t, h=h, y=y, p=p, f0=f0, y1=y1, f1=f1, k=k)
    rhs = evaluation(f, 2)
    left, right = named(rhs(t, y, p), "left"), named(rhs(t + h, y1, p), "right")
    return Function("dense", inputs, {"q": hermite(in_dtype(h, y), y, left, y1, right)})


def _accumulation(f, times):
    """a du + f(t, y, p) as a function of nodes (t, y, p, a, du): for a large f a call of one kernel that computes
    both, so that f needs no vector of its own."""
    if not is_called(f, times):
        rhs = evaluation(f, times)
        return lambda t, y, p, a, du: a * du + rhs(t, y, p)
    y, (slope,) = f.inputs["y"], f.outputs.values()
    inputs = f.inputs | {"a": input_node("a", (), y.dtype), "du": input_node("du", y.shape, y.dtype)}
    sum_ = Function(f"{f.name}_accumulated", inputs, {"sum": broadcast_to(inputs["a"], y.shape) * inputs["du"] + slope})
    return lambda t, y, p, a, du: call(sum_, t, y, p, constant(a, y.dtype), du)
