"""The discrete adjoint with the step sizes: the exact gradient of the computed numbers, which move the steps as well.

A try, with its acceptance and the size of the next, is one graph (integrate/advance.py), and its derivative is what
goes back over all tries, rejected ones too: what they made of the step size is in it. Which tries are accepted, where
steps are cut short, and which bounds of the sizes hold is locally constant.
References: [griewank2008] 3.2; [alexe2009]
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from odec.codegen.compile import address
from odec.codegen.kernel import work_for
from odec.codegen.numba_bridge import loop_function
from odec.codegen.workspace import aligned
from odec.errors import ArgumentError
from odec.gradients import backward, tries
from odec.gradients.backward import slope_along, take_rows
from odec.gradients.discrete import Pulled, behind
from odec.gradients.replay import carried_at_start, terms_node, weighed
from odec.gradients.tries import Bars, Going, Log, Tape, Tried
from odec.graph.function import Function
from odec.graph.node import input_node, line_is
from odec.graph.op import OPS
from odec.integrate import slots as at
from odec.integrate.advance import FAR, advance_function, control_function
from odec.integrate.buffers import PLACES, Buffers
from odec.integrate.interpolate import copy
from odec.integrate.problem import NO_TIMES
from odec.integrate.slots import LARGEST, RESOLUTION
from odec.ops.comparison import larger, smaller
from odec.ops.families import broadcast_to
from odec.ops.structure import element
from odec.steppers.runge_kutta import evaluation, in_dtype
from odec.steppers.step import dense_function, estimates_function
from odec.transforms.tape import taped
from odec.transforms.vjp import vjp

STRETCH = 2**16  # tries between which the keyboard is heard
WRT = "now", "task", "y", "p"

where, absolute, le, lt, logical_and = (OPS[name] for name in ("where", "abs", "le", "lt", "and"))


# ---- graphs ------------------------------------------------------------------------------------------------


def try_function(f, method, rows=False, terms=(), over=None):
    """One try of a step of the method for f (t: (), y: (n,), p: (m,)) -> (n,), from its start alone.

    (now, task, y, p, rtol, atol, rules) -> then, y1, and with `rows` q (degree, n), the polynomial of step.py; as
    integrate/advance.py, but that the slope at the start is evaluated here. With `terms` also those of the step
    (replay.terms_node), zeros where it is rejected.
    """
    advance = advance_function(f, method)
    inputs = {name: node for name, node in advance.inputs.items() if name != "f0"}
    now, y, p = (inputs[name] for name in ("now", "y", "p"))
    with line_is(None):
        t = element(now, at.T)
        f0 = carried_at_start(f, method, t, y, p)
        given = {**inputs, "f0": f0}
        found = advance(*(given[name] for name in advance.inputs))
        outputs = {name: found[name] for name in ("then", "y1")}
        tried = element(outputs["then"], at.TRIED)
        if rows:
            dense = dense_function(f, method)
            outputs["q"] = dense(t, tried, y, p, f0, found["y1"], found["f1"], found["k"])["q"]
        if terms:
            added = terms_node(estimates_function(f, method, over), terms, t, tried, y, p, f0)
            outputs["terms"] = where(lt(0.0, element(outputs["then"], at.ACCEPTED)), added, 0.0)
    return Function("try", inputs, outputs)


def advance_vjp(f, method, rows=False, terms=(), over=None):
    """The adjoint of a try: (now, task, y, p, rtol, atol, rules, then_bar, y1_bar[, q_bar]) -> now_bar, task_bar,
    y_bar, p_bar[, q].

    rows : with the cotangent q_bar of the polynomial, and with q (degree, n) as an output
    terms, over : as in replay.step_vjp
    """
    with line_is(None):
        once = taped(try_function(f, method, rows, terms, over), WRT)
        pulled = vjp(once, WRT)
        outputs = pulled.outputs | ({"q": once.outputs["q"]} if rows else {})
        return weighed(Function("advance_vjp", pulled.inputs, outputs))


def size_vjp():
    """The adjoint of the size alone, whatever the step: (now, task, rules, error, then_bar) -> now_bar, task_bar."""
    with line_is(None):
        return vjp(control_function(), ("now", "task"))


def first_size_vjp(f, method):
    """The adjoint of the first step size, of `first_size_function`: (..., h_bar) -> t_bar, t_end_bar, y_bar, p_bar."""
    wrt = "t", "t_end", "y", "p"
    with line_is(None):
        return vjp(taped(first_size_function(f, method), wrt), wrt)


def first_size_function(f, method):
    """The first step size where none is given: (t, t_end, y, p, rtol, atol, rules) -> h.

    f : (t: (), y: (n,), p: (m,)) -> (n,); method : adaptive
    As integrate/start.py finds it, in numbers that are finite; which of its bounds hold is locally constant.
    References: [hairer1993] II.4
    """
    y, p = f.inputs["y"], f.inputs["p"]
    shapes = {"t": (), "t_end": (), "y": y.shape, "p": p.shape, "rtol": y.shape, "atol": y.shape, "rules": (at.RULES,)}
    like_y = "y", "p", "rtol", "atol"
    inputs = {name: input_node(name, shape, y.dtype if name in like_y else "float64") for name, shape in shapes.items()}
    t, t_end, y, p, rtol, atol, rules = inputs.values()
    with line_is(None):
        direction, most, least = (element(rules, slot) for slot in (at.DIRECTION, at.MAX_STEP, at.MIN_STEP))
        rhs = evaluation(f, 2)
        slope, scale = rhs(t, y, p), 1.0 / (atol + rtol * absolute(y))
        size, speed = _mean_square(y * scale), _mean_square(slope * scale)
        usable = logical_and(_between(1e-10, size), _between(1e-10, speed))
        moving, span = 16.0 * RESOLUTION * absolute(t), absolute(t_end - t)
        ratio = where(usable, size, 1.0) / where(usable, speed, 1.0)
        guess = smaller(smaller(larger(where(usable, 0.01 * OPS["sqrt"](ratio), 1e-6), moving), span), most)
        reach = direction * guess
        trial = rhs(t + reach, y + broadcast_to(in_dtype(reach, y), y.shape) * slope, p)
        bend = _mean_square((trial - slope) * scale) / (guess * guess)
        steepest = larger(speed, bend)
        flat = le(steepest, 1e-30)
        by_bend = OPS["pow"](1e-4 / where(flat, 1.0, steepest), 0.5 / method.error_exponent)
        refined = where(flat, larger(1e-6, guess * 1e-3), by_bend)
        h = larger(smaller(100.0 * guess, larger(refined, moving)), least)
        h = direction * smaller(smaller(h, span), most)
    return Function("first_size", inputs, {"h": h})


def _between(least, x):
    return logical_and(le(least, x), lt(x, LARGEST))


def _mean_square(v):
    v = v if v.dtype == "float64" else OPS["cast"](v, dtype="float64")
    return OPS["sum"](v * v, axes=(0,)) * (1.0 / v.size)


# ---- the way back ------------------------------------------------------------------------------------------


def check_steps_can_move(name, asked, adjoint, checkpoints, watched):
    """ArgumentError for what step sizes are not differentiated with, and where it is unclear whether they are."""
    if not isinstance(asked, (bool, np.bool_)):
        raise ArgumentError(f"{name}: differentiate_steps is {asked!r}; True or False is needed.")
    found = {
        f"adjoint is {adjoint!r}": adjoint != "discrete",
        f"checkpoints is {checkpoints}": checkpoints is not None,
        "events are watched": bool(watched),
    }
    for what in (text for text, is_so in found.items() if is_so and asked):
        raise ArgumentError(
            f"{name}: differentiate_steps=True, but {what}; the discrete adjoint without checkpoints and events is "
            "needed. Leave differentiate_steps out, and the step sizes are data."
        )


class Stepwise:
    """The discrete adjoint of one solve by a method that chooses its step sizes, which are differentiated too.

    system : System; record : of the method; problem : Problem; outcome : Outcome; start (n,) : the state at t0
    solver : Solver, which makes the tries again, bit by bit, to log where each of them started
    terms : Terms, or None
    """

    def __init__(self, system, record, problem, outcome, start, solver, terms=None):
        self.system, self.problem, self.outcome, self.start = system, problem, outcome, start
        self.inside = bool(problem.t_eval is not None and len(problem.t_eval))
        self.degree, self.tries = record.degree if self.inside else 0, outcome.steps + outcome.rejected
        how = terms.options if terms else {}
        plain, rows = (system.compiled("advance_vjp", method=record, rows=r, **how) for r in (False, self.inside))
        self.kernels = Tried(plain, rows, system.compiled("size_vjp"), system.compiled("rhs"))
        self.first = None if problem.first_step else system.compiled("first_size_vjp", method=record)
        self.log, self.rules, self.rtol, self.atol = logged(solver, problem, start, self.tries)
        assert np.array_equal(self.log.y[self.tries * solver.n :], outcome.y, equal_nan=True)
        compiled_back(system.dtype)

    def pull(self, rows_bar, terms_bar=()):
        """The Pulled of cotangents rows_bar (rows, n) of the rows of the outcome, in float64 or float32 as those, and
        terms_bar (terms,) of the sums of terms."""
        run, (t0, _) = _Run(self, np.ascontiguousarray(rows_bar, self.system.dtype), terms_bar), self.problem.span
        run.back(self.tries)
        tape, times_bar = run.tape, run.tape.times_bar
        t0_more, t1_more, y_more, p_more = self._pull_first_size(run.bars.then[at.H])
        y_bar, p_bar = tape.y1_bar + y_more, tape.p_sum + p_more
        t0_bar, t1_bar = run.bars.then[at.T] + t0_more[0], run.real[tries.T1_BAR] + t1_more[0]
        for row in range(run.count[backward.ROW] + 1):
            y_bar += tape.rows_bar[row]
            if self.inside:
                slope = np.empty_like(y_bar)
                self.kernels.rhs.run(np.array([t0]), self.start, self.problem.p, slope)
                times_bar[row] = rows_bar[row] @ slope
                t0_bar -= times_bar[row]
        return Pulled(y_bar, p_bar, float(t0_bar), float(t1_bar), times_bar, self.outcome.steps, again=self.tries)

    def _pull_first_size(self, h_bar):
        """Cotangents of t0 (1,), t1 (1,), y and p, of which the first step size is made: zeros where it is given, and
        where it is found by numbers that are not finite."""
        problem = self.problem
        bars = [np.zeros(1), np.zeros(1), np.zeros_like(self.start), np.zeros_like(problem.p)]
        if self.first is not None and h_bar != 0.0:
            times, bar = np.array(problem.span, float), np.array([h_bar])
            found = [np.empty_like(zeros) for zeros in bars]
            self.first.run(times[:1], times[1:], self.start, problem.p, self.rtol, self.atol, self.rules, bar, *found)
            if all(np.isfinite(part).all() for part in found):
                return found
        return bars


def logged(solver, problem, start, number):
    """(Log, rules (RULES,), rtol (n,), atol (n,)) of so many tries of a problem from the state `start` on.

    The loop itself makes those that end at a stop; the others, all that `tries.log_tries` can.
    """
    buffers, n, dtype = Buffers(solver, False, None), solver.n, solver.dtype
    again = dataclasses.replace(problem, y=start.copy(), t_eval=NO_TIMES, dense=False, records=False, pause=None)
    buffers.start_one(again)
    buffers.whole[at.PAUSE] = 0
    buffers.advance()
    log = Log(
        *(np.empty((number + 1) * size, kind) for size, kind in ((at.NOWS, float), (at.TASKS, float), (n, dtype)))
    )
    going = [buffers.arguments[PLACES[f"lanes.{name}"]] for name in Going._fields]
    arguments = [solver.kernel("advance").address, *going, *(a.ctypes.data for a in log), n, buffers.count[at.CARRIED]]
    packed, loop = np.array([*arguments, 0, 0], np.int64), compiled_log(dtype)

    def log_from(made):
        packed[-2:] = made, min(made + STRETCH, number)
        return loop(address(packed))

    made = log_from(0)
    while made < number:
        if made < packed[-1]:
            buffers.whole[at.PAUSE] = 1
            buffers.advance()
            made += 1
        made = log_from(made)
    return log, np.array(buffers.rules), buffers.rtol.copy(), buffers.atol.copy()


class _Run:
    """One way back: buffers, and the compiled loop on them."""

    def __init__(self, adjoint, rows_bar, terms_bar=()):
        problem, dtype, degree = adjoint.problem, adjoint.system.dtype, adjoint.degree
        n, m, ends_only = problem.y.size, problem.p.size, problem.keeps_end_only
        rows, new, ts = len(rows_bar), lambda size: aligned(size, dtype), adjoint.outcome.ts
        slots, task = (lambda: np.zeros(at.NOWS)), lambda: np.zeros(at.TASKS)
        self.bars = Bars(slots(), slots(), task(), slots(), slots(), task(), np.array([FAR]))
        self.tape = Tape(
            behind(problem.p, terms_bar), adjoint.rtol, adjoint.atol, adjoint.rules, NO_TIMES if ends_only else ts,
            rows_bar, np.zeros(rows if adjoint.inside else 0), rows_bar[0].copy() if ends_only else np.zeros(n, dtype),
            new(n), new(m), np.zeros(m, dtype), new(degree * n), new(degree * n), new(n),
            new(work_for(adjoint.kernels, dtype)),
        )  # fmt: skip
        self.real, self.count = np.zeros(tries.REALS), np.zeros(backward.COUNTS, np.int64)
        self.real[backward.DIRECTION], self.real[tries.T1] = adjoint.rules[at.DIRECTION], problem.span[1]
        for slot, value in (
            (backward.N, n), (backward.M, m), (backward.DEGREE, degree), (backward.ROW, -1 if ends_only else rows - 1),
            (backward.INSIDE, adjoint.inside), (backward.STEP_ENDS, problem.t_eval is None),
        ):  # fmt: skip
            self.count[slot] = value
        arrays = [*adjoint.log, *self.bars, *self.tape, self.real, self.count]
        addresses = [kernel.address for kernel in adjoint.kernels]
        self._packed = np.array([*addresses, *map(address, arrays)], np.int64)
        self._loop = compiled_back(dtype)

    def back(self, number):
        """Go back over so many tries."""
        for last in range(number - 1, -1, -STRETCH):
            self.count[backward.FIRST], self.count[backward.LAST] = max(0, last - STRETCH + 1), last
            self._loop(address(self._packed))


@functools.cache
def compiled_log(dtype):
    """`tries.log_tries` compiled for states of `dtype`."""
    going = (Going, *_kinds(Going, dtype, ("now", "task", "rules", "then")))
    signature = "int", going, (Log, *_kinds(Log, dtype, ("now", "task"))), *("int",) * 4
    return loop_function("log_tries", tries.log_tries, signature, (copy,))


@functools.cache
def compiled_back(dtype):
    """`tries.go_back` compiled for states of `dtype`."""
    signature = (
        (Tried, *("int",) * len(Tried._fields)), (Log, *_kinds(Log, dtype, ("now", "task"))),
        (Bars, *_kinds(Bars, dtype, Bars._fields)), (Tape, *_kinds(Tape, dtype, ("rules", "times", "times_bar"))),
        "float64*", "int64*",
    )  # fmt: skip
    helpers = copy, take_rows, slope_along, tries.forget, tries.pull_rows
    return loop_function("go_back", tries.go_back, signature, helpers)


def _kinds(group, dtype, numbers):
    return ["float64*" if name in numbers else f"{dtype}*" for name in group._fields]
