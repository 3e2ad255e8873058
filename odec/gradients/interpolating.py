"""The continuous adjoint over the stored solution: a and g of continuous.py, with y from the forward dense output.

The forward polynomials are smooth within a step alone, so a backward step ends where a forward one began. The steps'
polynomials are parameters of the adjoint; the loop takes the forward steps one after another, as it takes the members
of an ensemble, each of which starts where the one before it ended: no Python is between them.

References: Sapienza et al., Differentiable programming for differential equations: a review, arXiv:2406.09699 (2024)
"""

from __future__ import annotations

import weakref

import numpy as np

from odec.errors import SolveError, Status
from odec.gradients.continuous import AS_FORWARD, Backsolve, weighted_tolerances
from odec.graph.function import Function
from odec.graph.node import input_node
from odec.graph.op import OPS
from odec.graph.structure import Branch, Leaf, Structure
from odec.integrate import slots as at
from odec.integrate.buffers import Buffers
from odec.integrate.dense import DenseOutput
from odec.integrate.problem import NO_TIMES, Problem
from odec.integrate.run import evaluations
from odec.ops.families import broadcast_to
from odec.ops.rearranging import along
from odec.ops.structure import concatenate, reshape
from odec.transforms.vjp import vjp

STEP_NUMBERS = 3  # of a forward step beside its polynomial: its start, what rounding took off that, its size
AT_ONCE = 2**17  # numbers in the states that the loop leaves behind before they are dropped


def interpolated_adjoint(f, degree):
    """The right-hand side of a and g, (-J^T a, -f_p^T a) at y(t) of a step's polynomial (steppers/step.py).

    Parameters
    ----------
    f : Function (t: (), y: (n,), p: (m,)) -> (n,)

    Returns
    -------
    Function (t: (), y: (n + m,), p: (m + 3 + (1 + degree) n,)) -> (n + m,), where y is a and g, and p is p, the start
    of the step in two parts whose sum it is, its size, its state and its coefficients
    """
    n, m, dtype = f.inputs["y"].size, f.inputs["p"].size, f.inputs["y"].dtype
    t, z = input_node("t", (), "float64"), input_node("y", (n + m,), dtype)
    p = input_node("p", (m + STEP_NUMBERS + (1 + degree) * n,), dtype)
    start, lost, size = (_double(reshape(along(p, 0, m + i, m + i + 1), shape=())) for i in range(STEP_NUMBERS))
    polynomial = along(p, 0, m + STEP_NUMBERS, None)
    state = _on_polynomial(
        (t - start - lost) / size, [along(polynomial, 0, k * n, (k + 1) * n) for k in range(1 + degree)]
    )
    backwards = vjp(f, ["y", "p"])(t, state, along(p, 0, 0, m), -along(z, 0, 0, n))
    parts = backwards["y_bar"], *([backwards["p_bar"]] if m else [])
    return Function(f"{f.name}_adjoint", {"t": t, "y": z, "p": p}, {"dydt": concatenate(*parts, axis=0)})


def _double(node):
    return node if node.dtype == "float64" else OPS["cast"](node, dtype="float64")


def _on_polynomial(theta, rows):
    """y + theta (q_0 + (1 - theta) sum_m q_m (2 theta - 1)^(m - 1)) of the rows y, q_0, q_1, ..."""
    y, q0, *inner = rows
    theta = theta if y.dtype == "float64" else OPS["cast"](theta, dtype=y.dtype)
    weight, centred, rest = (broadcast_to(v, y.shape) for v in (theta, 2.0 * theta - 1.0, 1.0 - theta))
    bent = None
    for row in reversed(inner):
        bent = row if bent is None else bent * centred + row
    return y + weight * (q0 if bent is None else q0 + rest * bent)


class Interpolating(Backsolve):
    """The adjoint of one solve over its dense output, which the outcome holds, or its `record` hands out in stretches
    (checkpoints.py): no drift, and no steps beyond one that the forward solve took. Arguments, `pull` and what it
    refuses are as Backsolve's; the drift is 0."""

    adjoint = "interpolating"

    def __init__(self, system, method, problem, outcome, y0, how=AS_FORWARD):
        self.degree = method.degree
        super().__init__(system, method, problem, outcome, y0, how)

    def _system(self, system):
        return interpolated_system(system, self.degree)

    def _tolerances(self, rtol, atol, seminorm):
        return weighted_tolerances(rtol, atol, 1, (self.n, self.m), seminorm, self.dtype)

    def pull(self, rows_bar):
        """As Backsolve.pull; `again` counts the tries that were made again."""
        held, dense = self.outcome.record, self.outcome.dense
        if dense is not None:
            return self._pulled(rows_bar, _Way(self, iter([(dense, *dense.end)])))
        with held.lock:
            found = self._pulled(rows_bar, _Way(self, held.stretches()))
        found.again = held.again
        return found

    def _turns(self, rows_bar):
        """Those with cotangents."""
        return np.flatnonzero(rows_bar.any(axis=1))

    def distance(self, y, stored):
        """0: the state is not reconstructed."""
        return 0.0


class _Way:
    """One way back: a and g where it is, and what it took.

    stretches : (DenseOutput, end_t, end) from the last steps of the solve to the first
    """

    _dense: DenseOutput

    def __init__(self, adjoint, stretches):
        self._adjoint, self._buffers = adjoint, Buffers(adjoint.solver, False, None, own_p=True)
        self._stretches, self._starts = stretches, np.empty(0)
        z = self._z = np.zeros(adjoint.n + adjoint.m, adjoint.dtype)
        self.y, self.a, self.g = NO_TIMES, z[: adjoint.n], z[adjoint.n :]
        self.steps = self.rejected = self.nfev = 0
        self.drift = 0.0

    def back(self, t, y, before):
        """From the time t to `before`, forward step by forward step."""
        stops = self._adjoint.stops
        ahead, (t, before) = stops.ahead, stops.piece(t, before)
        while ahead * t > ahead * before:
            while not (len(self._starts) and self._starts[0] < ahead * t):
                self._dense, *_ = next(self._stretches)
                self._starts = ahead * self._dense.starts
            first = max(0, int(np.searchsorted(self._starts, ahead * before, side="right")) - 1)
            last = int(np.searchsorted(self._starts, ahead * t, side="left")) - 1
            bounds = ahead * self._starts[first : last + 1][::-1]
            bounds[-1] = max(before, bounds[-1]) if ahead > 0 else min(before, bounds[-1])
            self._over(np.array([t, *bounds]), last)
            t = bounds[-1]

    def _over(self, times, last):
        """Over the pieces between times, each within one forward step, of which `last` is the first."""
        most = max(1, AT_ONCE // max(self._z.size, 1))
        for k in range(0, len(times) - 1, most):
            part = times[k : k + most + 1]
            self._stretch(self._adjoint.stops.beside(part[:-1], False), part[1:].copy(), last - k)

    def _stretch(self, begins, ends, last):
        """Over the pieces from `begins` to `ends`, each within one forward step, of which `last` is the first."""
        adjoint, buffers, pieces = self._adjoint, self._buffers, len(ends)
        given, (rtol, atol), adaptive = adjoint.problem, adjoint.tolerances, adjoint.method.adaptive
        first = abs(given.span[1] - given.span[0]) if adaptive else given.first_step  # each piece at once, if it can be
        problem = Problem(
            (float(begins[0]), float(ends[-1])), self._z, given.p, rtol, atol, NO_TIMES, first_step=first,
            min_step=given.min_step, max_step=given.max_step, max_steps=given.max_steps, controller=given.controller,
        )  # fmt: skip
        buffers.start(problem, NO_TIMES)
        buffers.p[: adjoint.m] = given.p
        states, steps = np.empty((pieces + 1, self._z.size), adjoint.dtype), self._steps(last, pieces)
        states[0] = self._z
        tally, t_end, queue = np.zeros((pieces, at.TALLIES), np.int64), np.empty(pieces), np.zeros(1, np.int64)
        columns = np.arange(adjoint.m, adjoint.m + steps.shape[1])
        arrays = {
            "members.begins": begins, "members.ends": ends, "members.states": states, "members.parameters": steps,
            "members.columns": columns, "members.queue": queue, "members.times": NO_TIMES, "kept.t_end": t_end,
            "kept.y_end": states[1:], "kept.tally": tally,
        }  # fmt: skip
        for name, array in arrays.items():
            buffers.place(name, array)
        whole = buffers.whole
        whole[at.SIZE], whole[at.TIMES], whole[at.OWN_PARAMETERS] = pieces, 0, steps.shape[1]
        whole[at.OWN_BEGIN] = whole[at.OWN_END] = whole[at.OWN_STATE] = 1
        status = at.RUNNING
        while status == at.RUNNING:  # the keyboard is heard in between
            whole[at.PAUSE] = PAUSE
            status = buffers.advance()
        self._end(tally, t_end, begins[0])
        self._z[:] = states[-1]

    def _steps(self, last, pieces):
        """(pieces, 3 + (1 + degree) n) of the forward steps last, last - 1, ...: what interpolated_adjoint reads."""
        dense = self._dense
        chosen = slice(last - pieces + 1, last + 1)
        starts, rows = dense.starts[chosen][::-1], dense.rows[chosen][::-1]
        table = np.empty((pieces, STEP_NUMBERS + rows[0].size), self._adjoint.dtype)
        table[:, 0] = starts
        table[:, 1], table[:, 2] = starts - table[:, 0], dense.sizes[chosen][::-1]
        table[:, STEP_NUMBERS:] = rows.reshape(pieces, -1)
        return table

    def _end(self, tally, t_end, begin):
        """Count what the pieces took; SolveError for the first that did not arrive."""
        total = tally.sum(axis=0)
        self.steps += int(total[at.TOOK])
        self.rejected += int(total[at.REFUSED])
        self.nfev += int(evaluations(self._adjoint.method, total))
        failed = np.flatnonzero(tally[:, at.ENDED_AS] != Status.SUCCESS)
        if len(failed):
            k = int(failed[0])
            raise SolveError(
                f"{self._adjoint.name}: its adjoint, solved backwards from t = {begin:.6g}, stopped at "
                f"t = {t_end[k]:.6g}: {Status(int(tally[k, at.ENDED_AS])).sentence}. Loosen adjoint_rtol and "
                'adjoint_atol, or use adjoint="discrete".'
            )


PAUSE = 2**14  # steps between which the keyboard is heard

_adjoints: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def interpolated_system(system, degree):
    """The System of `interpolated_adjoint`, made once for a System and a degree."""
    known = _adjoints.setdefault(system, {})
    if degree not in known:
        graph = interpolated_adjoint(system.graph, degree)
        size, parameters = graph.inputs["y"].size, graph.inputs["p"].size
        y = Structure(Leaf((size,), 0), size)
        p = Structure(Branch("dict", ("p",), (Leaf((parameters,), 0),)), parameters)
        known[degree] = type(system)(f"{system.name}_adjoint", graph, y, p, system.dtype)
    return known[degree]
