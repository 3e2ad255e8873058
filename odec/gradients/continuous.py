"""Continuous adjoints: the gradient of a solve by another differential equation, solved backwards.

A loss of the rows y(t_i) with cotangents w_i has the gradient that solves, from the last row back to t0,

    dy/dt = f,    da/dt = -J^T a,    dg/dt = -f_p^T a,    a += w_i at each t_i;

then dL/dy0 = a(t0) and dL/dp = g(t0); for fixed t_i, dL/dt0 = -a(t0) . f(t0, y0) and dL/dt_i = w_i . f(t_i, y(t_i)).
Across a stop, a fixed time at which f jumps, y, a and g are continuous: the way back ends there and starts anew.

References: Chen et al., Neural Ordinary Differential Equations, NeurIPS 31 (2018), appendix B; Kidger, Chen and Lyons,
"Hey, that's not an ODE": Faster ODE adjoints via seminorms, ICML 139 (2021)
"""

from __future__ import annotations

import math
import warnings
import weakref
from dataclasses import dataclass, replace

import numpy as np

from odec.errors import ArgumentError, SolveError, Status
from odec.gradients.discrete import Pulled
from odec.graph.function import Function
from odec.graph.node import input_node
from odec.graph.structure import Leaf, Structure
from odec.integrate.problem import NO_TIMES, Problem
from odec.integrate.slots import RESOLUTION
from odec.ops.rearranging import along
from odec.ops.structure import concatenate
from odec.steppers.methods import method_at
from odec.transforms.quadrature import at_rest
from odec.transforms.vjp import vjp

FREE = {"float64": 1e300, "float32": 1e37}  # an atol that leaves a component out of the error norm
CURE = 'Use adjoint="discrete" or adjoint="interpolating", or keep more rows, from each of which it starts anew'
FAR_DRIFT = 1e3  # tolerances; a forward solve that loses no accuracy to growth ends within some tens of them


def adjoint_dynamics(f, quadratures=0):
    """The right-hand side of y, a and g together, (f, -J^T a, -f_p^T a), sharing the primal.

    Parameters
    ----------
    f : Function (t: (), y: (n,), p: (m,)) -> (n,)
    quadratures : how many of the last numbers of y f does not read; they stay as they are, for nothing needs them

    Returns
    -------
    Function (t: (), y: (2 n + m,), p: (m,)) -> (2 n + m,), where y is y, a, g one after another
    """
    n, m = f.inputs["y"].size, f.inputs["p"].size
    z = input_node("y", (2 * n + m,), f.inputs["y"].dtype)
    t, p = (input_node(name, f.inputs[name].shape, f.inputs[name].dtype) for name in ("t", "p"))
    point = t, along(z, 0, 0, n), p
    (rate,) = at_rest(f, quadratures)(*point).values()
    backwards = vjp(f, ["y", "p"])(*point, -along(z, 0, n, 2 * n))
    parts = rate, backwards["y_bar"], *([backwards["p_bar"]] if m else [])
    return Function(f"{f.name}_adjoint", {"t": t, "y": z, "p": p}, {"dydt": concatenate(*parts, axis=0)})


@dataclass(frozen=True)
class Backward:
    """How the adjoint is solved; None is as the forward solve was.

    rtol, atol : numbers, or vectors (n,) for y and a alike
    method : name or record of a method
    seminorm : leave the quadrature g out of the error norm; else |(y, a)|² + |g|², each a mean of squares
    """

    rtol: float | np.ndarray | None = None
    atol: float | np.ndarray | None = None
    method: object = None
    seminorm: bool = True


AS_FORWARD = Backward()


@dataclass
class Reconstructed(Pulled):
    """Cotangents, as Pulled; what the backward solve took, and how well it came back.

    steps, rejected, nfev : of the adjoint's solve, in all pieces
    drift : the largest |y reconstructed - y stored| / (atol + rtol |y|) at the rows and at t0, with the larger
        tolerances of the two solves
    """

    rejected: int
    nfev: int
    drift: float


class Backsolve:
    """The adjoint of one solve with its state reconstructed: memory of O(n + m), whatever the number of steps.

    Between rows y is solved backwards with a and g; at a row it is taken from the outcome anew, and the difference is
    the drift. Pieces behind the last cotangent cost nothing.

    Parameters
    ----------
    system : System; method : its record; problem : Problem; outcome : its Outcome
    y0 : (n,), the state at the start, for that of the problem can have become the end
    how : Backward

    Raises
    ------
    ArgumentError : the solve has events, or the adjoint cannot be solved as `how` says

    References: Chen et al., NeurIPS 31 (2018), appendix B and C
    """

    adjoint = "backsolve"

    def __init__(self, system, method, problem, outcome, y0, how=AS_FORWARD):
        self.name, self.problem, self.outcome, self.y0 = system.name, problem, outcome, y0
        self._refuse()
        self.method = (
            method if how.method is None else method_at(how.method, problem.rtol if how.rtol is None else how.rtol)
        )
        self.n, self.m, self.dtype = system.y_structure.size, system.p_structure.size, system.dtype
        self.quadratures = system.quadratures
        self._rhs, self.solver = system.compiled("rhs"), self._solver(system)
        self.inside = bool(problem.t_eval is not None and len(problem.t_eval))
        rtol = problem.rtol if how.rtol is None else how.rtol
        atol = problem.atol if how.atol is None else how.atol
        self.stops = Stops(problem.span, problem.tstops)
        self._accuracy = np.maximum(rtol, problem.rtol), np.maximum(atol, problem.atol)
        self.tolerances = self._tolerances(rtol, atol, how.seminorm)

    def _refuse(self):
        """ArgumentError for what the adjoint does not support."""
        if self.problem.events:
            raise ArgumentError(
                f'{self.name}: the solve has events; adjoint="{self.adjoint}" takes smooth solutions; '
                'use adjoint="discrete".'
            )

    def _system(self, system):
        return adjoint_system(system)

    def _tolerances(self, rtol, atol, seminorm):
        return weighted_tolerances(rtol, atol, 2, (self.n, self.m), seminorm, self.dtype)

    def _solver(self, system):
        if not self.method.adaptive and not self.problem.first_step:
            raise ArgumentError(
                f"{self.name}: adjoint_method {self.method.name} takes fixed steps, and the solve has no first_step; "
                "give it one, or name a method with error control."
            )
        try:
            solver = self._system(system).solver(self.method)
        except ArgumentError as error:
            raise ArgumentError(f"{error} This is the adjoint of {self.name}: name another adjoint_method.") from None
        solver.prepare(replace(self.problem, t_eval=NO_TIMES, dense=False))
        return solver

    def pull(self, rows_bar):
        """The Reconstructed of cotangents rows_bar (rows, n) of the rows of the outcome.

        Raises
        ------
        ArgumentError : a cotangent is not finite
        SolveError : the backward solve did not arrive

        Warns
        -----
        RuntimeWarning : the drift is beyond 1,000 tolerances
        """
        if not np.isfinite(rows_bar).all():
            row = int(np.flatnonzero(~np.isfinite(rows_bar).all(axis=1))[0])
            raise ArgumentError(f"{self.name}: the cotangent of row {row} is not finite; finite numbers are needed.")
        return self._pulled(rows_bar, _Way(self))

    def _pulled(self, rows_bar, way):
        ts, ys, t0 = self.outcome.ts, self.outcome.ys, self.problem.span[0]
        times, turns = np.zeros(len(ts)), self._turns(rows_bar)
        for k, i in reversed(list(enumerate(turns))):
            if rows_bar[i].any():
                times[i] = rows_bar[i] @ self.slope(self.stops.beside(ts[i], False), ys[i])
                way.a += rows_bar[i]
            before, y_before = (ts[turns[k - 1]], ys[turns[k - 1]]) if k else (t0, self.y0)
            if before != ts[i] and way.a.any():
                way.back(ts[i], ys[i], before)
                way.drift = max(way.drift, self.distance(way.y, y_before))
        if not way.drift <= FAR_DRIFT:
            warnings.warn(_drifted(self.name, way.drift), RuntimeWarning, stacklevel=4)
        t0_bar = -(way.a @ self.slope(t0, self.y0)) if way.a.any() else 0.0
        ends = not self.inside and len(times) > 0
        if ends:  # the last row moves with the end, those of steps before it with the start, up to a stop
            t0_bar += times[:-1][self.stops.ahead_of(ts[:-1])].sum()
        return Reconstructed(
            way.a.copy(), way.g.copy(), float(t0_bar), float(times[-1]) if ends else 0.0,
            times if self.inside else NO_TIMES, way.steps, way.rejected, way.nfev, way.drift,
        )  # fmt: skip

    def _turns(self, rows_bar):
        """Indices of the rows at which a way back stops: all, to take the state from them."""
        return range(len(rows_bar))

    def slope(self, t, y):
        """f(t, y, p), (n,)."""
        rate = np.empty_like(y)
        self._rhs.run(np.array([float(t)]), np.ascontiguousarray(y), self.problem.p, rate)
        return rate

    def distance(self, y, stored):
        """max_i |y_i - stored_i| / (atol_i + rtol_i |stored_i|) over what is reconstructed, with the larger ones of the
        two solves' tolerances."""
        rtol, atol = self._accuracy
        far = np.abs(y - stored) / (atol + rtol * np.abs(stored))
        return float(np.max(far[: self.n - self.quadratures], initial=0.0))


class _Way:
    """One way back: y, a and g where it is, and what it took."""

    def __init__(self, adjoint):
        self._adjoint, self._first = adjoint, adjoint.problem.first_step
        n = adjoint.n
        z = self._z = np.zeros(2 * n + adjoint.m, adjoint.dtype)
        self.y, self.a, self.g = z[:n], z[n : 2 * n], z[2 * n :]
        self.steps = self.rejected = self.nfev = 0
        self.drift = 0.0

    def back(self, t, y, before):
        """From the time t, at which the state is y, to `before`; the first step goes on from the piece before."""
        self.y[:] = y
        given, (rtol, atol), stops = self._adjoint.problem, self._adjoint.tolerances, self._adjoint.stops
        problem = Problem(
            stops.piece(t, before), self._z.copy(), given.p, rtol, atol, NO_TIMES, stops.between(t, before),
            first_step=self._first, min_step=given.min_step, max_step=given.max_step, max_steps=given.max_steps,
            controller=given.controller,
        )  # fmt: skip
        out = self._adjoint.solver.run(problem)
        self.steps += out.steps
        self.rejected += out.rejected
        self.nfev += out.nfev
        if out.status is not Status.SUCCESS:
            raise SolveError(
                f"{self._adjoint.name}: its adjoint, solved backwards from t = {t:.6g}, stopped at t = {out.t:.6g} "
                f"after {out.steps:,} steps: {out.status.sentence}. What decays forwards grows backwards. {CURE}."
            )
        if self._adjoint.method.adaptive:  # the last step of a piece is cut short by its end
            self._first = abs(out.h) if out.rejected else max(self._first, abs(out.h))
        self._z[:] = out.y


class Stops:
    """The stops of a solve, seen from its end: a piece of the way back that begins or ends at one keeps off it by a
    gap, for f there can be that of its other side.

    span, stops : of the Problem
    """

    def __init__(self, span, stops):
        self.ahead = math.copysign(1.0, span[1] - span[0])
        self._times = np.sort(self.ahead * np.array(stops, float))
        bounds = np.array([self.ahead * span[0], *self._times, self.ahead * span[1]])
        wide = 2 * RESOLUTION * np.maximum(np.abs(self._times), bounds[-1] - bounds[0])  # twice that of loop.pass_stop
        self._gaps = np.minimum(wide, np.diff(bounds)[1:] / 4) if len(stops) else wide

    def beside(self, times, later):
        """A time, or times; at a stop, or within its gap, a gap from it: behind it if `later`, else before."""
        if not len(self._times):
            return times
        found = self.ahead * times
        k = np.searchsorted((self._times[1:] + self._times[:-1]) / 2, found)
        at_stop = np.abs(found - self._times[k]) <= self._gaps[k]
        return np.where(at_stop, self.ahead * (self._times[k] + (1 if later else -1) * self._gaps[k]), times)

    def piece(self, t, before):
        """(t, before), each beside a stop, towards the other."""
        return float(self.beside(t, False)), float(self.beside(before, True))

    def between(self, t, before):
        """The stops on the way from t back to `before`, in that order."""
        inside = (self._times > self.ahead * before) & (self._times < self.ahead * t)
        return tuple((self.ahead * self._times[inside][::-1]).tolist())

    def ahead_of(self, times):
        """Whether each of the times lies before the first stop."""
        return self.ahead * times < (self._times[0] if len(self._times) else math.inf)


def _drifted(name, drift):
    return (
        f"{name}: the state that backsolve reconstructed is {drift:,.0f} tolerances from the one that was solved, so "
        f"its gradient may be wrong: solved backwards, this model magnifies errors. {CURE}."
    )


def weighted_tolerances(rtol, atol, parts, sizes, seminorm, dtype):
    """rtol, atol (parts n + m,) of a state, which is `parts` vectors like y, and of g; sizes is (n, m).

    The solver's norm is a mean over all components. With tolerances sqrt(parts n / (parts n + m)) and
    sqrt(m / (parts n + m)) as large, its square is the sum of the squares of the norms of the state and of g, so that
    easy parameters do not thin out the error of a small state; with the seminorm that of the state alone.
    """
    n, m = sizes
    most, total = parts * n, parts * n + m
    whole = np.empty((2, total), dtype)
    for row, value in zip(whole, (rtol, atol), strict=True):
        row[:most].reshape(parts, n)[:] = math.sqrt(most / total) * np.asarray(value)
        row[most:] = math.sqrt(m / total) * np.min(value)
    if seminorm:
        whole[1, most:] = FREE[str(np.dtype(dtype))]
    return whole


_adjoints: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def adjoint_system(system):
    """The System of `adjoint_dynamics`, made once for a System."""
    found = _adjoints.get(system)
    if found is None:
        graph = adjoint_dynamics(system.graph, system.quadratures)
        size = graph.inputs["y"].size
        structure = Structure(Leaf((size,), 0), size)
        found = type(system)(f"{system.name}_adjoint", graph, structure, system.p_structure, system.dtype)
        _adjoints[system] = found
    return found
