"""`odec.solve`: check the arguments, compile, run the loop, say how it went."""

from __future__ import annotations

import functools
import inspect
import math
import reprlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from odec.errors import ArgumentError, ShapeError, SolveError, nearest
from odec.event import event_kernels, event_list
from odec.failure import message
from odec.gradients.continuous import FREE
from odec.graph.structure import children_of, component_paths
from odec.integrate.control import controller_named
from odec.integrate.problem import NO_TIMES, Problem
from odec.integrate.run import all_finite
from odec.model import Model, dtype_name
from odec.progress import with_progress
from odec.solution import Solution
from odec.steppers.methods import method_at
from odec.steppers.taylor import TaylorMethod
from odec.system import System

LATER = {"mass_matrix": None}


def solve(model, t_span, y0, params=(), *, method="auto", rtol=1e-6, atol=1e-9, t_eval=None, dense_output=False,
          events=(), first_step=None, min_step=0.0, max_step=math.inf, max_steps=1_000_000, controller=None, tstops=(),
          dtype=None, progress=False, throw=True, **later):  # fmt: skip
    """Solve dy/dt = f(t, y, *params) from t_span[0] to t_span[1], which may lie before it.

    Parameters
    ----------
    model : Model or System
    t_span : (t0, t1), in the model's unit of time
    y0 : the state at t0, an array or a structure
    params : tuple in signature order, or dict by name
    method : name of a method, or a record such as a ButcherTableau; "auto" is tsit5
    rtol, atol : positive numbers, or shaped like y: a step is accepted where the root mean square of
        error / (atol + rtol max(|y|, |y1|)) is at most 1
    t_eval : sorted times within t_span to keep; None keeps every accepted step, [] the end only
    dense_output : keep the steps' polynomials, so that the solution can be called as sol(t)
    events : one or several odec.Event, or functions fn(t, y, *params)
    first_step, min_step, max_step : positive, in the unit of time; a method of fixed steps needs first_step, its
        step size; max_steps bounds all tried steps
    controller : name of a step-size controller ("PI", "I", "PID", "H211b", ...) or a Controller; None is "PI"
    tstops : times within t_span at which f is discontinuous: steps end there, and start anew
    dtype : float64 or float32; None follows y0
    progress : show a progress bar (needs tqdm)
    throw : raise SolveError when the end is not reached, else return what was reached

    Returns
    -------
    Solution

    Raises
    ------
    ArgumentError, ShapeError, TraceError : the arguments or the model cannot be used
    SolveError : the solve stopped early; `.solution` holds what was reached
    """
    _refuse_later(later)
    given = posed(
        model, t_span, y0, params, method=method, rtol=rtol, atol=atol, t_eval=t_eval, dense_output=dense_output,
        events=events, first_step=first_step, min_step=min_step, max_step=max_step, max_steps=max_steps,
        controller=controller, tstops=tstops, dtype=dtype,
    )  # fmt: skip
    return given.solution(given.run(progress), throw)


@dataclass
class Posed:
    """A solve whose arguments are checked and whose kernels are compiled.

    system : System; record : of the method; problem : Problem; watched : Events; solver : Solver
    compile_seconds : what that took; solve_seconds : of the last run
    """

    system: System
    record: Any
    problem: Problem
    watched: tuple
    solver: Any
    compile_seconds: float
    solve_seconds: float = 0.0

    def run(self, progress=False, how=None):
        """The Outcome, by the Solver or as `how` (solver, problem) finds it."""
        began = time.perf_counter()
        problem, run = self.problem, self.solver.run if how is None else functools.partial(how, self.solver)
        out = with_progress(run, problem, self.system.name) if progress else run(problem)
        self.solve_seconds = time.perf_counter() - began
        return out

    def solution(self, out, throw=True):
        """The Solution of an Outcome; SolveError, with `throw`, where the end was not reached."""
        system, problem, structure = self.system, self.problem, self.system.y_structure
        stats = {
            "steps": out.steps, "rejected": out.rejected, "nfev": out.nfev, "njev": 0, "nlu": 0,
            "compile_seconds": self.compile_seconds, "solve_seconds": self.solve_seconds,
        }  # fmt: skip
        t_events, y_events = _happened(out, structure, len(self.watched))
        solution = Solution(
            out.ts, structure.unflatten(out.ys, (len(out.ts),)), structure.unflatten(out.y), out.status,
            message(system, self.record, out, problem.rtol, problem.atol, problem.min_step), stats, system.name,
            system.state, out.ys, structure, t_events, y_events, out.dense,
        )  # fmt: skip
        if throw and not solution.success:
            raise SolveError(solution.message, solution)
        return solution


def posed(model, t_span, y0, params=(), *, method="auto", rtol=1e-6, atol=1e-9, t_eval=None, dense_output=False,
          events=(), first_step=None, min_step=0.0, max_step=math.inf, max_steps=1_000_000, controller=None, tstops=(),
          dtype=None, records=False, residuals=None, forward=None):  # fmt: skip
    """The Posed of the arguments of `solve`, which it checks; what is needed is compiled.

    records : keep the start, the size and the state of each accepted step
    residuals : (System, method, Problem) -> Residuals, or None; asked where it is given
    forward : (System) -> the System that is solved in its place, of the same y and p; None for itself

    Raises
    ------
    ArgumentError, ShapeError, TraceError : the arguments or the model cannot be used
    """
    began = time.perf_counter()
    system, y, p = bound(model, y0, parameters_by_name(model, params), dtype)
    solved = system if forward is None else forward(system)
    name, rtol = system.name, tolerance(solved, "rtol", rtol)
    record = method_for(name, method, rtol, system.dtype)
    problem = Problem(
        span_of(name, t_span), y, p, rtol, tolerance(solved, "atol", atol),
        dense=bool(dense_output), controller=controller_named(controller),
        max_steps=positive_integer(name, "max_steps", max_steps), records=records,
    )  # fmt: skip
    for what, flat in (("y0", y), ("params", p)):
        if not all_finite(flat):
            raise ArgumentError(f"{name}: {first_not_finite(system, what, flat)}; finite numbers are needed.")
    problem.first_step, problem.min_step, problem.max_step = step_limits(name, record, first_step, min_step, max_step)
    t0, t1 = problem.span
    problem.t_eval, problem.tstops = times_within(name, t_eval, t0, t1), stops_within(name, tstops, t0, t1)
    watched = event_list(events)
    solver = solved.solver(record)
    if watched:
        problem.events = event_kernels(system, watched, record)
    if residuals is not None:
        problem.residuals = residuals(system, record, problem)
    solver.prepare(problem)
    return Posed(system, record, problem, watched, solver, time.perf_counter() - began)


def _happened(out, structure, n_events):
    """(times, states) of each event, or (None, None) without events."""
    if not n_events:
        return None, None
    which = [np.flatnonzero(out.fired_e == e) for e in range(n_events)]
    return [out.fired_t[w] for w in which], [structure.unflatten(out.fired_y[w], (len(w),)) for w in which]


_KEYWORDS = tuple(inspect.signature(solve).parameters)


def _refuse_later(later):
    for name, value in later.items():
        if name not in LATER:
            raise TypeError(f"solve() has no keyword {name!r}{nearest(name, _KEYWORDS)}")
        if value is not LATER[name] and value != LATER[name]:
            raise ArgumentError(f"solve: {name} is not available in this version; leave it out.")


def parameters_by_name(model, params, where="solve"):
    """{name: value} of the parameters of a Model or a System, a Model's defaults filled in.

    where : the function that was called, for the message about what is neither
    """
    if isinstance(model, System):
        return model.by_name(params, "params")
    if isinstance(model, Model):
        return model.parameter_values(params)
    raise ArgumentError(
        f"{where}: {getattr(model, '__name__', type(model).__name__)} is not an odec model; decorate it with "
        "@odec.dynamics."
    )


def bound(model, y0, values, dtype):
    """(system, flat y, flat p) of a Model or a System and parameters by name."""
    if isinstance(model, System):
        system = model
        if dtype is not None and dtype_name(system.name, dtype) != system.dtype:
            raise ArgumentError(
                f"{system.name}: dtype is {dtype_name(system.name, dtype)}, but the system is bound to {system.dtype}; "
                "bind the model again with that dtype."
            )
    else:
        system = model.bind_values(y0, values, dtype)
    y = system.y_structure.flatten(y0, f"{system.name}: y0", system.dtype)
    if model is system:
        return system, y, system.flat_parameters(values)
    return system, y, system.p_structure.flatten(values, f"{system.name}: params", system.dtype)


def real_number(value):
    """A real number as a float; TypeError for text, truth values and complex numbers."""
    if type(value) is float:
        return value
    if isinstance(value, (str, bytes, bool, np.bool_)):
        raise TypeError
    return float(value)


def span_of(name, t_span):
    """(t0, t1) as floats."""
    try:
        t0, t1 = (real_number(t) for t in t_span)
    except (TypeError, ValueError):
        raise ArgumentError(f"{name}: t_span is {t_span!r}; two numbers (t0, t1) are needed.") from None
    if not (math.isfinite(t0) and math.isfinite(t1)):
        raise ArgumentError(f"{name}: t_span is ({t0}, {t1}); both times must be finite.")
    if math.isinf(t1 - t0):
        raise ArgumentError(
            f"{name}: t_span is ({t0}, {t1}), whose length is no finite number; shorten it or scale time."
        )
    if t0 == t1:
        raise ArgumentError(f"{name}: t_span starts and ends at {t0}; give an end that differs from the start.")
    return t0, t1


def tolerance(system, what, value):
    """A tolerance of a System as a positive number, or as one for each element of y.

    The error norm is a mean over all elements. Where the System has some outside of it, their tolerances are out of
    reach, and those of the others narrower by the root of how many there are, so that the norm is that of the others.
    """
    given, measured, size = _tolerance(system, what, value), system.measured, system.y_structure.size
    if measured is None:
        return given
    whole = np.full(size, given, system.dtype) * math.sqrt(measured / size)
    if what.endswith("atol"):
        whole[measured:] = FREE[system.dtype]
    return whole


def _tolerance(system, what, value):
    name, structure, dtype = system.name, system.y_structure, system.dtype
    if type(value) is float or (children_of(value) is None and np.ndim(value) == 0):
        try:
            number = real_number(value)
        except (TypeError, ValueError):
            raise ArgumentError(
                f"{name}: {what} is {value!r}; a positive number, or numbers shaped like y, are needed."
            ) from None
        if not 0.0 < number < math.inf:
            raise ArgumentError(f"{name}: {what} is {value}; a positive finite number is needed.")
        if dtype == "float32" and not 1e-37 <= number <= 1e38:
            raise ArgumentError(
                f"{name}: {what} is {value}; for a float32 state a number from 1e-37 to 1e38 is needed."
            )
        return number
    try:
        flat = structure.flatten(value, f"{name}: {what}", dtype)
    except (ArgumentError, ShapeError) as error:
        raise ArgumentError(f"{error} {what} is a number or shaped like y.") from None
    if not np.all((flat > 0) & np.isfinite(flat)):
        raise ArgumentError(
            f"{name}: {what} has {flat[~((flat > 0) & np.isfinite(flat))][0]}; every entry must be positive and finite."
        )
    return flat


def method_for(name, method, rtol, dtype, what="rtol") -> Any:
    """The record of a method at a relative tolerance; ArgumentError for a Taylor series beyond what the dtype holds."""
    record, rounding = method_at(method, rtol), 0.5 * float(np.finfo(dtype).eps)
    if isinstance(record, TaylorMethod) and np.min(rtol) < rounding:
        raise ArgumentError(
            f"{name}: {what} is {np.min(rtol):g}, but {dtype} numbers are rounded to {rounding:.3g} of their size, and "
            f"no Taylor series is better; raise {what} to {2 * rounding:.2g} or more."
        )
    return record


def listed_times(name, what, given):
    """Times as a new float array of whatever shape."""
    try:
        times = np.array(given)
        times = times.astype(float, copy=False) if times.dtype.kind in "iuf" or times.size == 0 else None
    except (TypeError, ValueError):
        times = None
    if times is None:
        raise ArgumentError(f"{name}: {what} is {reprlib.repr(given)}; a list of times within t_span is needed.")
    return times


def _time_vector(name, what, given):
    times = listed_times(name, what, given)
    if times.ndim != 1:
        raise ArgumentError(f"{name}: {what} has shape {times.shape}; a one-dimensional list of times is needed.")
    return times


def check_inside(name, what, times, t0, t1):
    """ArgumentError for times outside (t0, t1)."""
    outside = ~((times >= min(t0, t1)) & (times <= max(t0, t1)))
    if outside.any():
        raise ArgumentError(
            f"{name}: {what} has {times[outside][0]}, outside the time span ({t0}, {t1}); leave it out or widen t_span."
        )


def times_within(name, t_eval, t0, t1):
    """Output times as a contiguous vector, or None for every step."""
    if t_eval is None:
        return None
    if type(t_eval) is list and not t_eval:
        return NO_TIMES
    times = _time_vector(name, "t_eval", t_eval)
    if times.size == 0:
        return times
    check_inside(name, "t_eval", times, t0, t1)
    steps = np.diff(times) * (1 if t1 > t0 else -1)
    if (steps < 0).any():
        order = "rising" if t1 > t0 else "falling"
        raise ArgumentError(f"{name}: t_eval is not sorted; times must be {order} from {t0} to {t1}.")
    return times


def _positive(name, what, value, zero=False, infinite=False):
    try:
        value = real_number(value)
    except (TypeError, ValueError):
        raise ArgumentError(f"{name}: {what} is {value!r}; a number is needed.") from None
    good = value >= 0 if zero else value > 0
    if not good or (math.isinf(value) and not infinite):
        raise ArgumentError(f"{name}: {what} is {value}; a {'non-negative' if zero else 'positive'} number is needed.")
    return value


def step_limits(name, record, first_step, min_step, max_step):
    """The step sizes of a Problem, checked."""
    if first_step is None and not record.adaptive:
        raise ArgumentError(
            f"{name}: {record.name} takes fixed steps and has no error estimate; give their size, as first_step=0.01."
        )
    first = 0.0 if first_step is None else _positive(name, "first_step", first_step)
    least = _positive(name, "min_step", min_step, zero=True)
    most = _positive(name, "max_step", max_step, infinite=True)
    if least > most:
        raise ArgumentError(f"{name}: min_step is {least}, above max_step, which is {most}; lower min_step.")
    return first, least, most


def stops_within(name, tstops, t0, t1):
    """The stops strictly within the span, in its direction, none within rounding of another."""
    if isinstance(tstops, tuple) and not tstops:
        return ()
    times = np.unique(_time_vector(name, "tstops", np.ravel(np.asarray(tstops))))
    check_inside(name, "tstops", times, t0, t1)
    stops, before = [], t0
    for t in times if t1 > t0 else times[::-1]:
        if min(abs(t - before), abs(t1 - t)) > CLOSE_STOPS * np.spacing(abs(t)):
            stops.append(float(t))
            before = t
    return tuple(stops)


CLOSE_STOPS = 16  # spacings of t within which two stops are one


def positive_integer(name, what, value):
    """An integer of at least 1, larger ones as 2^62; ArgumentError for what is none."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ArgumentError(f"{name}: {what} is {value!r}; a positive integer is needed.")
    return min(int(value), 2**62)


def first_not_finite(system, what, flat):
    """'y0[1] is nan' for the first entry that is not finite."""
    place = int(np.flatnonzero(~np.isfinite(flat))[0])
    structure = system.y_structure if what == "y0" else system.p_structure
    return f"{what}{list(component_paths(structure))[place]} is {flat[place]}"
