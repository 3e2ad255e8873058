"""The discrete adjoint: the exact gradient of the computed numbers, back over the steps that were recorded.

Step sizes are data: a step starts where the one before it ended, t_n = t_0 + h_1 + ... + h_n, and one that was cut
short by a stop or by the end of the span is as long as it is to there.
References: [griewank2008] 3.2; [hager2000]
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, field

import numpy as np

from odec.codegen.compile import address
from odec.codegen.kernel import work_for
from odec.codegen.numba_bridge import loop_function
from odec.codegen.workspace import aligned
from odec.gradients import backward as at
from odec.gradients.backward import KeptPulls, Pulls, Tape, pull_back, slope_along, take_rows
from odec.gradients.crossings import Crossings
from odec.integrate.interpolate import copy
from odec.integrate.problem import NO_TIMES, Record

KERNELS = len(Pulls._fields) + len(KeptPulls._fields)
PLACES = {name: place for place, name in enumerate(Tape._fields, KERNELS)}  # where the loop looks for them
STRETCH = 2**16  # steps between which the keyboard is heard


@dataclass
class Pulled:
    """Cotangents of what a solve was given: y (n,), p (m,), t0, t1, times (rows,).

    steps : gone back over; again : tries that were made again for it
    """

    y: np.ndarray
    p: np.ndarray
    t0: float
    t1: float
    times: np.ndarray
    steps: int
    again: int = field(default=0, kw_only=True)


class Discrete:
    """The discrete adjoint of one solve.

    system : System; record : of the method; problem : Problem; outcome : Outcome with a Record or Checkpoints;
    start (n,) : the state at t0, for that of the problem can have become the end
    event_pulls : EventPulls of a problem with events; terms : Terms, or None
    """

    def __init__(self, system, record, problem, outcome, start, event_pulls=None, terms=None):
        self.system, self.problem, self.outcome, self.start = system, problem, outcome, start
        self.sums = system.p_structure.size
        crossed = problem.events is not None and len(outcome.fired_t) > 0
        self.ends_only = problem.keeps_end_only and len(outcome.ts) > 0
        self.inside = problem.t_eval is not None and not self.ends_only
        self.polynomials = bool(crossed or (self.inside and len(outcome.ts)))
        self.residuals = problem.residuals if isinstance(outcome.record, Record) else None
        covered = self.residuals is not None and outcome.steps <= self.residuals.steps
        how = {"method": record, **(terms.options if terms else {})}
        plain, timed = self._again(covered, how)
        self.kernels, self.kept_kernels = Pulls(plain, timed, system.compiled("rhs")), KeptPulls(None, None)
        if self.residuals:
            forms = [("kept_vjp", {"timed": timed, **how}) for timed in (False, True)]
            self.kept_kernels = KeptPulls._make(system.compiled_together(*forms))
        if self.residuals and self.residuals.head:
            t0, head = np.array([problem.span[0]]), self.residuals.room[: self.residuals.head]
            _, first = system.compiled_taped(record)
            first.run(t0, start, problem.p, head)
        self.degree = record.degree if self.polynomials else 0
        self.crossings = Crossings(system.name, event_pulls, problem, outcome, self.kernels) if crossed else None
        compiled_pull_back(system.dtype)

    def _again(self, covered, how):
        """(the adjoint of a step that is made again, that of one with rows within), None for what no step needs."""
        plain = "step_vjp", {"rows": False, "timed": False, **how}
        timed = "step_vjp", {"rows": self.polynomials, "timed": True, **how}
        if not covered:
            first, second = self.system.compiled_together(plain, timed)
            return first, second
        return None, self.system.compiled_together(timed)[0] if self.polynomials else None

    def pull(self, rows_bar, events_bar=None, terms_bar=()):
        """The Pulled of cotangents rows_bar (rows, n) of the rows of the outcome, in float64 or float32 as those.

        events_bar : (t_bar (fired,), y_bar (fired, n)) of the times and states of events, or None
        terms_bar : (terms,) of the sums of terms
        """
        problem, outcome, record = self.problem, self.outcome, self.outcome.record
        t0, _ = problem.span
        run = _Run(self, np.ascontiguousarray(rows_bar, self.system.dtype), terms_bar)
        if self.crossings is not None:
            self.crossings.pull(run, rows_bar, events_bar)
        elif isinstance(record, Record):
            run.back(record, outcome.t, outcome.y)
        else:
            record.walk(run.back)
        times_bar = run.times_bar
        y_bar, t0_bar = run.y1_bar, run.real[at.T_SUM] - run.real[at.H_BAR]
        for row in range(run.count[at.ROW] + 1):
            y_bar += run.rows_bar[row]
            if self.inside:
                slope = np.empty_like(y_bar)
                self.kernels.rhs.run(np.array([t0]), self.start, problem.p, slope)
                times_bar[row] = rows_bar[row] @ slope
                t0_bar -= times_bar[row]
        again = 0 if isinstance(record, Record) else record.again
        return Pulled(
            y_bar.copy(), run.p_sum, float(t0_bar), float(run.t1_bar or 0.0), times_bar, outcome.steps, again=again
        )


def sums_of_terms(system, record, problem, outcome, terms):
    """The sums of Terms over the steps of an Outcome, (number of terms,), in the dtype of the state."""
    nothing, taken = np.zeros((1, problem.y.size), system.dtype), outcome.record
    run = _Run(_Summing(system, record, problem, outcome, terms), nothing)
    if isinstance(taken, Record):
        run.across(taken, outcome.t, outcome.y)
    else:
        taken.walk(run.across)
    return run.p_sum


class _Summing:
    """What a _Run is told that goes back over steps to sum their Terms: there are no rows."""

    ends_only, inside, polynomials, degree = True, False, False, 0

    def __init__(self, system, record, problem, outcome, terms):
        self.system, self.problem, self.outcome, self.sums = system, problem, outcome, len(terms.names)
        self.residuals = problem.residuals if isinstance(outcome.record, Record) else None
        make = lambda kernel: system.compiled(kernel, method=record, **terms.options)
        covered = self.residuals is not None and outcome.steps <= self.residuals.steps
        self.kernels = Pulls(None if covered else make("step_terms"), None, None)
        self.kept_kernels = KeptPulls(make("kept_terms") if self.residuals else None, None)


def _cuts(problem, times, end_t, ends):
    """(first, last, cut) of each stretch of steps between stops, in order; whether its last step ends at one.

    times (steps,) : where the steps start; end_t : where the next one does; ends : whether there is none
    """
    steps, (t0, t1) = len(times), problem.span
    ahead = 1.0 if t1 > t0 else -1.0
    reached = [ahead * stop for stop in problem.tstops if ahead * stop <= ahead * end_t]
    stops = {int(k) for k in np.searchsorted(ahead * times, reached)} | ({steps} if ends else set())
    bounds = sorted({0, steps} | stops)
    return [(a, b - 1, b in stops) for a, b in itertools.pairwise(bounds)]


def _stop_within(problem, t, end_t):
    """Where the step from t on ends: at a stop, where there is one, and the next step starts a little behind it."""
    ahead = 1.0 if problem.span[1] > problem.span[0] else -1.0
    return next((s for s in problem.tstops if ahead * t < ahead * s <= ahead * end_t), end_t)


class _Run:
    """One way back: buffers, and the compiled loop on them."""

    def __init__(self, adjoint, rows_bar, terms_bar=()):
        system, problem, outcome = adjoint.system, adjoint.problem, adjoint.outcome
        n, m, dtype, degree = system.y_structure.size, adjoint.sums, system.dtype, adjoint.degree
        ends_only = adjoint.ends_only
        self.rows_bar, rows = rows_bar, len(rows_bar)
        self.times_bar, self.p_sum = np.zeros(rows if adjoint.inside else 0), np.zeros(m, dtype)
        self.y1_bar = rows_bar[0].copy() if ends_only else np.zeros(n, dtype)
        self.end, self.t1_bar, self._problem = np.empty(n, dtype), None, problem
        new = lambda size: aligned(size, dtype)
        kept, kernels = adjoint.residuals, (*adjoint.kernels, *adjoint.kept_kernels)
        work = work_for([k for k in kernels if k], dtype)
        self.tape = Tape(
            np.empty(0), self.end, self.end, behind(problem.p, terms_bar), NO_TIMES if ends_only else outcome.ts,
            rows_bar, self.times_bar, self.y1_bar, new(n), new(m), self.p_sum, new(degree * n), new(degree * n),
            np.empty(1), np.empty(1), new(n), new(work), kept.room if kept else NO_TIMES,
        )  # fmt: skip
        self.real, self.count = np.zeros(at.REALS), np.zeros(at.COUNTS, np.int64)
        self.real[at.DIRECTION] = 1.0 if problem.span[1] > problem.span[0] else -1.0
        self.count[at.N], self.count[at.M], self.count[at.DEGREE] = n, m, degree
        self.count[at.ROW] = -1 if ends_only else rows - 1
        self.count[at.INSIDE], self.count[at.STEP_ENDS] = int(adjoint.polynomials), int(problem.t_eval is None)
        if kept:
            self.count[at.KEPT], self.count[at.KEPT_SIZE] = kept.steps, kept.size
        addresses = [k.address if k else 0 for k in kernels]
        arrays = [*self.tape, self.real, self.count]
        self._packed = np.array([*addresses, *map(address, arrays)], np.int64)
        self._where, self._loop = address(self._packed), compiled_pull_back(dtype)

    def place(self, p, times, rows_bar):
        """Take parameters (m,), and rows to come across: times (rows,), cotangents (rows, n), both contiguous."""
        self.rows_bar, self._p = rows_bar, p
        self._times, self.piece_times_bar = times, np.zeros(len(times))
        arrays = {"p": p, "times": times, "rows_bar": rows_bar, "times_bar": self.piece_times_bar}
        for name, array in arrays.items():
            self._packed[PLACES[name]] = array.ctypes.data
        self.count[at.ROW] = len(times) - 1

    def back(self, record, end_t, end):
        """Go back over the steps of a Record, which end at end_t in the state end."""
        self.over(record, end_t, end, self.t1_bar is None)

    def over(self, record, end_t, end, ends):
        """As back; `ends` says whether the last step is as long as it is to a stop, or to the end of the span."""
        self._lay(record)
        for first, last, cut in reversed(_cuts(self._problem, record.t, end_t, ends)):
            if cut:
                self.real[at.T_SUM] = 0.0
            self._back(record, first, last, cut, end_t, end)
            if self.t1_bar is None:
                self.t1_bar = self.real[at.H_BAR]

    def across(self, record, end_t, end):
        """Sum p_bar over the steps of a Record, wherever they end."""
        self._lay(record)
        self._back(record, 0, len(record.t) - 1, False, end_t, end)

    def _lay(self, record):
        self._packed[PLACES["marks"]] = record.marks.ctypes.data
        self._packed[PLACES["states"]] = record.y.ctypes.data

    def _back(self, record, first, last, cut, end_t, end):
        real, count, final = self.real, self.count, len(record.t) - 1
        for stop in range(last, first - 1, -STRETCH):
            inner = stop < final
            real[at.END] = record.t[stop + 1] if inner else end_t
            if cut and stop == last and count[at.STEP_ENDS]:  # else a row there moves along the step's polynomial
                real[at.END] = _stop_within(self._problem, record.t[stop], real[at.END])
            self.end[:] = record.y[stop + 1] if inner else end
            count[at.FIRST], count[at.LAST] = max(first, stop - STRETCH + 1), stop
            count[at.CUT] = int(cut and stop == last)
            self._loop(self._where)


def behind(p, terms_bar):
    """Parameters (m,), and behind them the cotangents of terms where there are some."""
    return np.concatenate([p, terms_bar], dtype=p.dtype) if len(terms_bar) else p


@functools.cache
def compiled_pull_back(dtype):
    """`backward.pull_back` compiled for states of `dtype`."""
    state, real = f"{dtype}*", "float64*"
    numbers = ("marks", "times", "times_bar", "t_bar", "h_bar")
    tape = (Tape, *(real if name in numbers else state for name in Tape._fields))
    signature = (Pulls, "int", "int", "int"), (KeptPulls, "int", "int"), tape, real, "int64*"
    return loop_function("pull_back", pull_back, signature, (copy, take_rows, slope_along))
