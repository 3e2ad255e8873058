"""Symplectic methods for separable models with a state (q, v): kicks of v and drifts of q by turns."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction as F

import numpy as np

from odec.errors import ArgumentError
from odec.graph.function import Function
from odec.graph.node import input_node, structural_zero
from odec.graph.structure import Branch, component_names
from odec.ops.families import broadcast_to
from odec.ops.structure import concatenate, slice_
from odec.steppers.fixed_steps import FixedSteps
from odec.steppers.hermite import hermite, stacked
from odec.steppers.rooted_trees import density, nodes_of, trees
from odec.steppers.runge_kutta import evaluation, in_dtype, named, zero_if_finite
from odec.steppers.tableaus import DEFECT, ROUNDING, check_order, digest_of, exact_entries, refuse
from odec.transforms.sparsity import propagated


@dataclass(frozen=True, eq=False, repr=False)
class SymplecticTableau(FixedSteps):
    """A splitting method of fixed steps for dq/dt = g(t, v), dv/dt = a(t, q), s drifts between s + 1 kicks:

    v = v + kicks_i h a(t + (drifts_0 + ... + drifts_{i-1}) h, q), then
    q = q + drifts_i h g(t + (kicks_0 + ... + kicks_i) h, v), for each i; the last kick has no drift after it.

    Time goes on with q for a and with v for g, so that the order holds for forces that depend on time. The first
    kick takes its force from the step before: a step evaluates a and g as often as it has drifts, and g once more
    at its end.

    order : of q and v
    Coefficients may be given as fractions, text ('1/3'), or floats. The dense output is the cubic through both
    states and slopes.

    Raises
    ------
    ArgumentError : numbers of kicks and drifts that do not fit, order conditions that do not hold

    References: [hairer2006] II.5, III.2
    """

    name: str
    order: int
    kicks: tuple[F, ...]
    drifts: tuple[F, ...]
    source: str = ""
    family: str = "symplectic, for separable models of (q, v)"

    carries_slope = True  # from step to step: the first force of a step is the last of the one before
    dense_evaluations = 0

    def __post_init__(self):
        for field in ("kicks", "drifts"):
            object.__setattr__(self, field, exact_entries(self.name, field, getattr(self, field)))
        found = f"{len(self.kicks)} kicks and {len(self.drifts)} drifts"
        if not self.drifts or len(self.kicks) != len(self.drifts) + 1:
            refuse(self.name, f"{found} do not fit; one kick more than drifts is needed, 0 for one that is not made")
        check_order(self.name, "order", self.order)
        for what, row in (("kicks", self.kicks), ("drifts", self.drifts)):
            if abs(sum(row) - 1) > ROUNDING * max(1.0, *(abs(float(x)) for x in row)):
                refuse(self.name, f"the {what} sum to {float(sum(row))!r}; they must sum to 1")
        for what, tree, found in conditions(self, self.order, float):
            if abs(found - 1 / density(tree)) > DEFECT:
                refuse(
                    self.name,
                    f"order is {self.order}, but a condition of order {nodes_of(tree)} on the {what} gives "
                    f"{found:.6g} instead of {1 / density(tree):.6g}",
                )

    @functools.cached_property
    def digest(self):
        """A hash of the coefficients, equal in every process."""
        return digest_of("symplectic", self.kicks, self.drifts)

    @property
    def stages(self):
        """How many drifts a step has."""
        return len(self.drifts)

    @property
    def symmetric(self):
        """Whether a step back undoes a step."""
        return self.kicks == self.kicks[::-1] and self.drifts == self.drifts[::-1]


def conditions(tableau, order, number: Callable = F):
    """(what, tree, left side) of the order conditions up to an order: each must be 1 / density of the tree.

    The method is a partitioned Runge-Kutta pair; of a separable model only those trees matter whose nodes
    alternate between q and v [hairer2006, III.2].
    """
    kicks, drifts = np.array([number(x) for x in tableau.kicks]), np.array([number(x) for x in tableau.drifts])
    zero, s = number(0), len(drifts)
    q_of_kick = np.array([[drifts[j] if j < i else zero for j in range(s)] for i in range(s + 1)])
    v_of_drift = np.array([[kicks[i] if i <= j else zero for i in range(s + 1)] for j in range(s)])
    below_kick, below_drift = {}, {}
    for tree in itertools.chain.from_iterable(trees(n) for n in range(1, order + 1)):
        force, speed = np.full(s + 1, number(1)), np.full(s, number(1))
        for child in tree:
            force, speed = force * below_kick[child], speed * below_drift[child]
        below_kick[tree], below_drift[tree] = q_of_kick @ speed, v_of_drift @ force
        yield "kicks", tree, kicks @ force
        yield "drifts", tree, drifts @ speed


# ---- a step, its dense output -----------------------------------------------------------------------------


def symplectic_step(f, tableau, t, h, y, p, f0, rtol, atol):
    """One step of kicks and drifts by turns, as SymplecticTableau says.

    Parameters
    ----------
    f : Function (t: (), y: (n,), p: (m,)) -> (n,), separable: the first half of y is q, the second v
    tableau : SymplecticTableau
    t, h, y, p, f0, rtol, atol : input nodes, as in step.py

    References: [hairer2006] II.5
    """
    inputs = dict(t=t, h=h, y=y, p=p, f0=f0, rtol=rtol, atol=atol)
    size, s = in_dtype(h, y), tableau.stages
    drift, kick = (evaluation(part, s) for part in parts(f))
    (q, v), (_, force) = _halves(y), _halves(f0)
    moved = lambda x, coefficient, slope: x + broadcast_to(float(coefficient) * size, x.shape) * slope
    q_time = v_time = F(0)
    for i in range(s):
        v = named(moved(v, tableau.kicks[i], force), f"v{i + 1}") if tableau.kicks[i] else v
        v_time += tableau.kicks[i]
        q = named(moved(q, tableau.drifts[i], drift(_after(t, v_time, h), v, p)), f"q{i + 1}")
        q_time += tableau.drifts[i]
        force = kick(_after(t, q_time, h), q, p)
    v = moved(v, tableau.kicks[s], force) if tableau.kicks[s] else v
    y1 = named(concatenate(q, v, axis=0), "y1")
    f1 = named(concatenate(drift(t + h, v, p), force, axis=0), "f1")
    return Function("step", inputs, {"y1": y1, "f1": f1, "k": stacked((), y), "error": zero_if_finite(f1)})


def symplectic_dense(f, tableau, t, h, y, p, f0, y1, f1, k):
    """The cubic through both states and slopes."""
    inputs = dict(t=t, h=h, y=y, p=p, f0=f0, y1=y1, f1=f1, k=k)
    return Function("dense", inputs, {"q": hermite(in_dtype(h, y), y, f0, y1, f1)})


def parts(f):
    """(g (t, v, p) -> dq/dt, a (t, q, p) -> dv/dt) of a separable f (t, y, p) with y = (q, v), as Functions of
    what each needs."""
    (source, n), dtype = (f.inputs["y"], f.inputs["y"].size), f.inputs["y"].dtype
    absent, functions = structural_zero(dtype, (n // 2,)), []
    for k, name in enumerate(("v", "q")):
        own = input_node(name, (n // 2,), dtype)
        whole = concatenate(*((absent, own) if name == "v" else (own, absent)), axis=0)
        (slope,) = f.substitute({source: whole}).values()
        inputs = {name if i == "y" else i: own if i == "y" else node for i, node in f.inputs.items()}
        functions.append(Function(f"{f.name}_d{'qv'[k]}", inputs, {"slope": _halves(slope)[k]}))
    return functions


def _halves(x):
    half = x.size // 2
    return [slice_(x, starts=(start,), steps=(1,), shape=(half,)) for start in (0, half)]


def _after(t, fraction, h):
    return t + float(fraction) * h if fraction else t


# ---- which models these methods are for -------------------------------------------------------------------


def check_separable(method, system):
    """ArgumentError unless the state is (q, v), dq/dt depends on v and t only, and dv/dt on q and t only.

    method : SymplecticTableau; system : System
    """
    structure = system.y_structure
    if not _is_pair(structure):
        raise ArgumentError(
            f"{system.name}: y is {structure.describe()}; {method.name} needs a state of two parts of the same shape, "
            "position and velocity. Return and start from a structure such as (q, v), or take another method."
        )
    wrong = _coupling(system.graph, structure.size)
    if wrong is not None:
        names = component_names(structure, system.state)
        of, by = (names[i] for i in wrong)
        raise ArgumentError(
            f"{system.name}: d{of}/dt depends on {by}; {method.name} needs a separable model, where dq/dt depends on v "
            "and t only, and dv/dt on q and t only. Take another method, such as vern7."
        )


def _is_pair(structure):
    """Whether the state is two parts with arrays of the same shapes."""
    root = structure.root
    if not isinstance(root, Branch) or len(root.children) != 2 or structure.size == 0:
        return False
    first, second = ([leaf.shape for _, leaf in type(structure)(part, 0).leaves] for part in root.children)
    return first == second


def _coupling(f, n):
    """(i, j): dy_i/dt depends on y_j where the two are both of q or both of v; None for a separable model."""
    marks = np.repeat(np.array([1, 2], object), n // 2)
    inside = (_reached(f, marks) & marks) != 0
    if not inside.any():
        return None
    i = int(np.flatnonzero(inside)[0])
    low, high = (0, n // 2) if i < n // 2 else (n // 2, n)
    while high - low > 1:  # halve the range in which the first culprit lies
        middle = (low + high) // 2
        marked = np.zeros(n, object)
        marked[low:middle] = 1
        low, high = (low, middle) if _reached(f, marked)[i] else (middle, high)
    return i, low


def _reached(f, marks):
    """For each element of dy/dt the marks of the elements of y that it depends on."""
    y = f.inputs["y"]
    (found,) = propagated(f, {id(y): marks.reshape(y.shape)}).values()
    return found.reshape(-1)
