"""Continuous adjoints: the gradient of a solve by another differential equation, solved backwards.

A loss of the rows y(t_i) with cotangents w_i has the gradient that solves, from the last row back to t0,

    dy/dt = f,    da/dt = -J^T a,    dg/dt = -f_p^T a,    a += w_i at each t_i;

then dL/dy0 = a(t0) and dL/dp = g(t0); for fixed t_i, dL/dt0 = -a(t0) . f(t0, y0) and dL/dt_i = w_i . f(t_i, y(t_i)).

References: Chen et al., Neural Ordinary Differential Equations, NeurIPS 31 (2018), appendix B; Kidger, Chen and Lyons,
"Hey, that's not an ODE": Faster ODE adjoints via seminorms, ICML 139 (2021)
"""

from __future__ import annotations

import math
import warnings
import weakref
from dataclasses import dataclass, field

import numpy as np

from odec.errors import ArgumentError, SolveError, Status
from odec.graph.function import Function
from odec.graph.node import input_node
from odec.graph.structure import Leaf, Structure
from odec.integrate.problem import NO_TIMES, Problem
from odec.ops.rearranging import along
from odec.ops.structure import concatenate
from odec.steppers.methods import method_named
from odec.transforms.vjp import vjp

FREE = {"float64": 1e300, "float32": 1e37}  # an atol that leaves a component out of the error norm
CURE = 'Use adjoint="discrete" or adjoint="interpolating", or keep more rows, from each of which it starts anew'
FAR_DRIFT = 1e3  # tolerances; a forward solve that loses no accuracy to growth ends within some tens of them


def adjoint_dynamics(f):
    """The right-hand side of y, a and g together, (f, -J^T a, -f_p^T a), sharing the primal.

    Parameters
    ----------
    f : Function (t: (), y: (n,), p: (m,)) -> (n,)

    Returns
    -------
    Function (t: (), y: (2 n + m,), p: (m,)) -> (2 n + m,), where y is y, a, g one after another
    """
    n, m = f.inputs["y"].size, f.inputs["p"].size
    z = input_node("y", (2 * n + m,), f.inputs["y"].dtype)
    t, p = (input_node(name, f.inputs[name].shape, f.inputs[name].dtype) for name in ("t", "p"))
    point = t, along(z, 0, 0, n), p
    (rate,) = f(*point).values()
    backwards = vjp(f, ["y", "p"])(*point, -along(z, 0, n, 2 * n))
    parts = rate, backwards["y_bar"], *([backwards["p_bar"]] if m else [])
    return Function(f"{f.name}_adjoint", {"t": t, "y": z, "p": p}, {"dydt": concatenate(*parts, axis=0)})


@dataclass(frozen=True)
class Backward:
    """How the adjoint is solved; None is as the forward solve was.

    rtol, atol : numbers, or vectors (n,) for y and a alike
    method : name or record of a method
    seminorm : leave the quadrature g out of the error norm
    """

    rtol: float | np.ndarray | None = None
    atol: float | np.ndarray | None = None
    method: object = None
    seminorm: bool = True


@dataclass
class BackwardStats:
    """Steps taken, rejected, and evaluations of the adjoint's right-hand side, in all pieces.

    drift : the largest |y reconstructed - y stored| / (atol + rtol |y|) at the rows and at t0, with the larger
        tolerances of the two solves
    """

    steps: int = 0
    rejected: int = 0
    nfev: int = 0
    drift: float = 0.0


@dataclass(frozen=True, eq=False)
class FlatGradient:
    """The gradient of a solve, flat: y0 (n,), p (m,), t0, rows (rows,) by the time of each row, stats."""

    y0: np.ndarray
    p: np.ndarray
    t0: float
    rows: np.ndarray
    stats: BackwardStats = field(default_factory=BackwardStats)


def backsolve(posed, y0, ts, ys, ys_bar, how=Backward()):
    """The gradient of sum_i ys_bar_i . y(ts_i) by the adjoint with y reconstructed: memory of O(n + m) and the rows.

    Between rows y is solved backwards with a and g; at a row it is taken from `ys` anew, and the difference is the
    drift. Rows before which no cotangent is left cost nothing.

    Parameters
    ----------
    posed : a posed solve (.system, .record, .problem), of which y0 of the problem is not read
    y0 : (n,), the state at the start
    ts, ys : (rows,), (rows, n): the rows of its Outcome, times sorted from t0 to t1
    ys_bar : (rows, n), finite
    how : Backward

    Returns
    -------
    FlatGradient; where the last row is the end of the time span, its entry of `rows` is the derivative by t1

    Raises
    ------
    ArgumentError : the solve had events or tstops, or cotangents are not finite
    SolveError : the backward solve did not arrive

    Warns
    -----
    RuntimeWarning : the drift is beyond 1,000 tolerances

    References: Chen et al., NeurIPS 31 (2018), appendix B and C
    """
    system, problem = posed.system, posed.problem
    _refuse(system.name, problem, ys_bar)
    n, m = system.y_structure.size, system.p_structure.size
    adjoint = _Adjoint(posed, how)
    t0, p, stats = problem.span[0], problem.p, BackwardStats()
    z, found = np.zeros(2 * n + m, system.dtype), np.zeros(len(ts))
    y, a = z[:n], z[n : 2 * n]
    for i in reversed(range(len(ts))):
        if ys_bar[i].any():
            found[i] = ys_bar[i] @ adjoint.slope(ts[i], ys[i], p)
            a += ys_bar[i]
        y[:] = ys[i]
        before, y_before = (ts[i - 1], ys[i - 1]) if i else (t0, y0)
        if before != ts[i] and a.any():
            z[:] = adjoint.piece(z, ts[i], before, stats)
            stats.drift = max(stats.drift, adjoint.distance(y, y_before))
    if not stats.drift <= FAR_DRIFT:
        warnings.warn(_drifted(system.name, stats.drift), RuntimeWarning, stacklevel=2)
    return FlatGradient(a.copy(), z[2 * n :].copy(), float(-(a @ adjoint.slope(t0, y0, p))), found, stats)


def _refuse(name, problem, ys_bar):
    """ArgumentError for what the continuous adjoint does not support."""
    for what, given in (("events", problem.events), ("tstops", problem.tstops)):
        if given:
            raise ArgumentError(
                f'{name}: the solve has {what}; adjoint="backsolve" takes smooth solutions; use adjoint="discrete".'
            )
    if not np.isfinite(ys_bar).all():
        row = int(np.flatnonzero(~np.isfinite(ys_bar).all(axis=1))[0])
        raise ArgumentError(f"{name}: the cotangent of row {row} is not finite; finite numbers are needed.")


def _drifted(name, drift):
    return (
        f"{name}: the state that backsolve reconstructed is {drift:,.0f} tolerances from the one that was solved, so "
        f"its gradient may be wrong: solved backwards, this model magnifies errors. {CURE}."
    )


class _Adjoint:
    """The backward solver of a posed solve, and its options."""

    def __init__(self, posed, how):
        self._name, self._forward, system = posed.system.name, posed.problem, posed.system
        self._method = posed.record if how.method is None else method_named(how.method)
        self._rhs = system.solver(posed.record).rhs
        try:
            self._solver = adjoint_system(system).solver(self._method)
        except ArgumentError as error:
            raise ArgumentError(f"{error} This is the adjoint of {self._name}: name another adjoint_method.") from None
        n, m = system.y_structure.size, system.p_structure.size
        rtol = self._forward.rtol if how.rtol is None else how.rtol
        atol = self._forward.atol if how.atol is None else how.atol
        self._accuracy = np.maximum(rtol, self._forward.rtol), np.maximum(atol, self._forward.atol)
        self._tolerances = _tolerances(rtol, atol, n, m, how.seminorm, system.dtype)
        self._first = self._forward.first_step
        if not self._method.adaptive and not self._first:
            raise ArgumentError(
                f"{self._name}: adjoint_method {self._method.name} takes fixed steps, and the solve has no first_step; "
                "give it one, or name a method with error control."
            )

    def slope(self, t, y, p):
        """f(t, y, p), (n,)."""
        rate = np.empty_like(y)
        self._rhs.run(np.array([float(t)]), np.ascontiguousarray(y), p, rate)
        return rate

    def distance(self, y, stored):
        """max_i |y_i - stored_i| / (atol_i + rtol_i |stored_i|), with the larger ones of the two solves' tolerances."""
        rtol, atol = self._accuracy
        return float(np.max(np.abs(y - stored) / (atol + rtol * np.abs(stored)), initial=0.0))

    def piece(self, z, t, before, stats):
        """(y, a, g) at the time `before`, from those at t; the first step goes on from the piece solved last."""
        rtol, atol = self._tolerances
        given = self._forward
        problem = Problem(
            (float(t), float(before)), z.copy(), given.p, rtol, atol, NO_TIMES, first_step=self._first,
            min_step=given.min_step, max_step=given.max_step, max_steps=given.max_steps, controller=given.controller,
        )  # fmt: skip
        out = self._solver.run(problem)
        stats.steps += out.steps
        stats.rejected += out.rejected
        stats.nfev += out.nfev
        if out.status is not Status.SUCCESS:
            raise SolveError(
                f"{self._name}: its adjoint, solved backwards from t = {t:.6g}, stopped at t = {out.t:.6g} after "
                f"{out.steps:,} steps: {out.status.sentence}. What decays forwards grows backwards. {CURE}."
            )
        if self._method.adaptive:  # the last step of a piece is cut short by its end
            self._first = abs(out.h) if out.rejected else max(self._first, abs(out.h))
        return out.y


def _tolerances(rtol, atol, n, m, seminorm, dtype):
    """rtol, atol (2 n + m,) of y, a and g.

    The norm is a mean over all components. With the seminorm, tolerances sqrt(2 n / (2 n + m)) as large make it the
    mean over y and a alone.
    """
    scale = math.sqrt(2 * n / (2 * n + m)) if seminorm else 1.0
    whole = np.empty((2, 2 * n + m), dtype)
    for row, value in zip(whole, (rtol, atol), strict=True):
        row[: 2 * n].reshape(2, n)[:] = scale * np.asarray(value)
        row[2 * n :] = np.min(value)
    if seminorm:
        whole[1, 2 * n :] = FREE[str(np.dtype(dtype))]
    return whole


_adjoints: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def adjoint_system(system):
    """The System of `adjoint_dynamics`, made once for a System."""
    found = _adjoints.get(system)
    if found is None:
        graph = adjoint_dynamics(system.graph)
        size = graph.inputs["y"].size
        structure = Structure(Leaf((size,), 0), size)
        found = type(system)(f"{system.name}_adjoint", graph, structure, system.p_structure, system.dtype)
        _adjoints[system] = found
    return found
