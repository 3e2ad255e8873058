"""The discrete adjoint: the exact gradient of the computed numbers, back over the steps that were recorded.

Step sizes are data: a step starts where the one before it ended, t_n = t_0 + h_1 + ... + h_n, and one that was cut
short by a stop or by the end of the span is as long as it is to there.
References: [griewank2008] 3.2; [hager2000]
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np

from odec.codegen.compile import address
from odec.codegen.numba_bridge import loop_function
from odec.gradients import backward as at
from odec.gradients.backward import Pulls, Tape, pull_back, slope_along, take_rows
from odec.integrate.interpolate import copy
from odec.integrate.problem import NO_TIMES

STRETCH = 2**16  # steps between which the keyboard is heard


@dataclass
class Pulled:
    """Cotangents of what a solve was given: y (n,), p (m,), t0, t1, times (rows,); steps that were gone back over."""

    y: np.ndarray
    p: np.ndarray
    t0: float
    t1: float
    times: np.ndarray
    steps: int


class Discrete:
    """The discrete adjoint of one solve.

    system : System; record : of the method; problem : Problem; outcome : Outcome with a Record
    """

    def __init__(self, system, record, problem, outcome):
        self.system, self.problem, self.outcome = system, problem, outcome
        inside = bool(problem.t_eval is not None and len(problem.t_eval))
        make = functools.partial(system.compiled, "step_vjp", method=record, rows=False)
        timed = system.compiled("step_vjp", method=record, rows=inside, timed=True)
        self.kernels = Pulls(make(timed=False), timed, system.compiled("rhs"))
        self.inside, self.degree = inside, record.degree if inside else 0
        compiled_pull_back(system.dtype)

    def pull(self, rows_bar):
        """The Pulled of cotangents rows_bar (rows, n) of the rows of the outcome, in float64 or float32 as those."""
        problem, outcome, taken = self.problem, self.outcome, self.outcome.record
        t0, _ = problem.span
        run = _Run(self, np.ascontiguousarray(rows_bar, self.system.dtype))
        t1_bar, ahead = 0.0, 0.0
        cuts = _cuts(problem, taken, outcome)
        for first, last in reversed(cuts):
            whole = last == len(taken.t) - 1
            end_t, end = (outcome.t, outcome.y) if whole else (taken.t[last + 1], taken.y[last + 1])
            h_bar = run.back(first, last, end_t, end)
            ahead = run.real[at.T_SUM] - h_bar
            t1_bar = h_bar if whole else t1_bar
            run.real[at.T_SUM] = 0.0
        times_bar = run.times_bar
        y_bar, t0_bar = run.y1_bar, ahead
        for row in range(run.count[at.ROW] + 1):
            y_bar += run.rows_bar[row]
            if self.inside:
                slope = np.empty_like(y_bar)
                self.kernels.rhs.run(np.array([t0]), problem.y, problem.p, slope)
                times_bar[row] = rows_bar[row] @ slope
                t0_bar -= times_bar[row]
        return Pulled(y_bar.copy(), run.p_sum, float(t0_bar), float(t1_bar), times_bar, len(taken.t))


def _cuts(problem, taken, outcome):
    """(first, last) step of each stretch between stops, in order."""
    t0, t1 = problem.span
    ahead = 1.0 if t1 > t0 else -1.0
    ends = [int(np.searchsorted(ahead * taken.t, ahead * stop)) for stop in problem.tstops]
    bounds = [0, *(e for e in ends if 0 < e < len(taken.t)), len(taken.t)]
    return [(a, b - 1) for a, b in itertools.pairwise(bounds) if b > a]


class _Run:
    """One way back: buffers, and the compiled loop on them."""

    def __init__(self, adjoint, rows_bar):
        system, problem, outcome = adjoint.system, adjoint.problem, adjoint.outcome
        n, m, dtype, degree = system.y_structure.size, system.p_structure.size, system.dtype, adjoint.degree
        ends_only = problem.keeps_end_only
        self.rows_bar, rows = rows_bar, len(rows_bar)
        self.times_bar, self.p_sum = np.zeros(rows if adjoint.inside else 0), np.zeros(m, dtype)
        self.y1_bar = rows_bar[0].copy() if ends_only else np.zeros(n, dtype)
        self.end, self.record = np.empty(n, dtype), outcome.record
        new = lambda size: np.empty(size, dtype)
        work = max(k.work_size for k in adjoint.kernels)
        self.tape = Tape(
            outcome.record.marks, outcome.record.y, self.end, problem.p, NO_TIMES if ends_only else outcome.ts,
            rows_bar, self.times_bar, self.y1_bar, new(n), new(m), self.p_sum, new(degree * n), new(degree * n),
            np.empty(1), np.empty(1), new(n), new(work),
        )  # fmt: skip
        self.real, self.count = np.zeros(at.REALS), np.zeros(at.COUNTS, np.int64)
        self.real[at.DIRECTION] = 1.0 if problem.span[1] > problem.span[0] else -1.0
        self.count[at.N], self.count[at.M], self.count[at.DEGREE] = n, m, degree
        self.count[at.ROW] = -1 if ends_only else rows - 1
        self.count[at.INSIDE], self.count[at.STEP_ENDS] = int(adjoint.inside), int(problem.t_eval is None)
        addresses = [k.address for k in adjoint.kernels]
        arrays = [*self.tape, self.real, self.count]
        self._packed = np.array([*addresses, *(a.ctypes.data for a in arrays)], np.int64)
        self._where, self._loop = address(self._packed), compiled_pull_back(dtype)

    def back(self, first, last, end_t, end):
        """Go back over the steps of one stretch, which ends at end_t in the state end; the cotangent of its length."""
        real, count = self.real, self.count
        stop = last
        while stop >= first:
            start = max(first, stop - STRETCH + 1)
            inner = stop < last
            real[at.END] = self.record.t[stop + 1] if inner else end_t
            self.end[:] = self.record.y[stop + 1] if inner else end
            count[at.FIRST], count[at.LAST], count[at.CUT] = start, stop, int(not inner)
            self._loop(self._where)
            stop = start - 1
        return real[at.H_BAR]


@functools.cache
def compiled_pull_back(dtype):
    """`backward.pull_back` compiled for states of `dtype`."""
    state, real = f"{dtype}*", "float64*"
    numbers = ("marks", "times", "times_bar", "t_bar", "h_bar")
    tape = (Tape, *(real if name in numbers else state for name in Tape._fields))
    signature = (Pulls, "int", "int", "int"), tape, real, "int64*"
    return loop_function("pull_back", pull_back, signature, (copy, take_rows, slope_along))
