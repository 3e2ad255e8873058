"""`odec.sensitivities`, `odec.solve_jvp`: derivatives of a solve by y0, parameters and t0, forward in time."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from odec.direction import Moved, by_input, direction_of, input_structure, names_of
from odec.ensemble_sensitivity import ensemble_jvp, ensemble_sensitivities
from odec.errors import ArgumentError, SolveError
from odec.event_sensitivity import event_tangents
from odec.gradients.forward import FROM_INPUT
from odec.graph.structure import Leaf, Structure
from odec.sensitivity_solution import SensitivitySolution
from odec.solving import parameters_by_name, span_of
from odec.variation import (
    changes_parameters,
    check_options,
    parts_of,
    point_of,
    posed_with_tangents,
    solution_of_state,
    tolerances_of_y,
)


def sensitivities(model, t_span, y0, params=(), *, wrt, rtol=1e-6, atol=1e-9, error_control=False, chunk=None,
                  batched=(), dtype=None, progress=False, throw=True, **options):  # fmt: skip
    """Solve dy/dt = f(t, y, *params) together with the derivatives of y by y0, parameters or t0.

    The variational equations ds/dt = (df/dy) s + df/dp are solved with the model, by the same steps. Unless
    `error_control` is set, the error of y alone chooses their sizes, as in `odec.solve`, and the derivatives are those
    of the computed numbers, the step sizes held fixed. They are derivatives at fixed times, of the last row too where a
    terminal event ends the solve; resets of events carry them across, the moving of the event's time included. How the
    times of events move, and the states there with them, is given beside.

    Parameters
    ----------
    model, t_span, y0, params, rtol, atol, dtype, progress, throw : as for `odec.solve`
    wrt : names of parameters, "y0", or "t0", one or several; a parameter that does not enter has zeros
    error_control : let the derivatives by x take part in the error norm, with the tolerances rtol and
        atol / |x| (atol where x is 0)
    chunk : how many derivatives (numbers to differentiate by) to solve at once; None chooses
    batched : names of the inputs that the members of an ensemble differ in, as for `odec.solve_ensemble`; members lie
        in lanes and threads, each with its own step sizes, and none raises
    options : as for `odec.solve`; with `batched` as for `odec.solve_ensemble` in this process, `target` among them

    Returns
    -------
    SensitivitySolution, whose `sensitivities[name]` is (m, *y.shape, *input.shape), in the unit of y over that of the
    input; for a structured y the structure of y, and in its leaves that of a structured input. With `batched` an
    EnsembleSensitivities: an EnsembleSolution whose `sensitivities[name]` is (N, m, *y.shape, *input.shape)

    Raises
    ------
    ArgumentError, ShapeError, TraceError : the arguments or the model cannot be used
    SolveError : the solve stopped early; `.solution` holds what was reached

    References: [hairer1993] I.14
    """
    if batched:
        return ensemble_sensitivities(
            model, t_span, y0, params, wrt=wrt, rtol=rtol, atol=atol, error_control=error_control, chunk=chunk,
            batched=batched, dtype=dtype, progress=progress, **options,
        )  # fmt: skip
    check_options("sensitivities", options)
    values = parameters_by_name(model, params, "sensitivities")
    system, y, p = point_of(model, y0, values, dtype)
    names = names_of(system, values, wrt)
    moved = Moved.by(system, names, span_of(system.name, t_span)[0], y, p)
    total = len(moved.places)
    parts, constants = parts_of(system, moved, chunk, error_control, options["events"])
    if error_control and len(parts) > 1 and options.get("t_eval") is None:
        raise ArgumentError(
            f"{system.name}: with error_control, chunks of {len(parts[0].places)} of {total} derivatives take "
            "different steps; give t_eval, or a larger chunk."
        )
    solved = []
    for part in parts:
        states, inputs, directions = part.posed(y, p, constants)
        limits = tolerances_of_y(system, rtol, atol, part.sizes, error_control)
        solved.append(_solved(system, t_span, states, inputs, directions, (rtol, atol), limits, options, progress))
    found = _joined(system, solved, total, names, p)
    if throw and not found.success:
        raise SolveError(found.message, found)
    return found


def solve_jvp(model, t_span, y0, params=(), *, tangents, rtol=1e-6, atol=1e-9, batched=(), dtype=None, progress=False,
              throw=True, **options):  # fmt: skip
    """(sol, ys_dot): the Solution, and the derivative of sol.ys along a direction of y0 and params.

    It is the derivative of the computed numbers at fixed times, with the steps and their sizes held fixed, but for
    events: their times move, and resets carry the derivative across.

    Parameters
    ----------
    model, t_span, y0, params, rtol, atol, dtype, progress, throw : as for `odec.solve`
    tangents : (dy0, dparams), in the structure of y0, and a tuple in signature order or a dict by name; None, and a
        missing name, is zero; the tangent of a batched input has a first axis N, as that has
    batched : names of the inputs that the members of an ensemble differ in, as for `odec.solve_ensemble`
    options : as for `odec.solve`; with `batched` as for `odec.solve_ensemble` in this process, `target` among them

    Returns
    -------
    Solution, and ys_dot in the structure of sol.ys; with `batched` an EnsembleSolution, and ys_dot (N, m, *y.shape)

    Raises
    ------
    ArgumentError, ShapeError, TraceError : the arguments or the model cannot be used
    SolveError : the solve stopped early; `.solution` holds what was reached
    """
    if batched:
        return ensemble_jvp(
            model, t_span, y0, params, tangents=tangents, rtol=rtol, atol=atol, batched=batched, dtype=dtype,
            progress=progress, **options,
        )  # fmt: skip
    check_options("solve_jvp", options)
    values = parameters_by_name(model, params, "solve_jvp")
    system, y, p = point_of(model, y0, values, dtype)
    dy, dp = direction_of(system, tangents)
    if dp is None and changes_parameters(system, options["events"]):
        dp = np.zeros_like(p)
    directions = (None,) if dp is None else (FROM_INPUT,)
    states, inputs = np.stack([y, dy], axis=1), p if dp is None else np.stack([p, dp], axis=1)
    limits = tolerances_of_y(system, rtol, atol, np.zeros(1), False)
    solution, rows, seen = _solved(system, t_span, states, inputs, directions, (rtol, atol), limits, options, progress)
    if any(event.reset for event in options["events"]):
        seen()  # which warns of those whose times have no derivative: ys_dot cannot be carried across them
    if throw and not solution.success:
        raise SolveError(solution.message, solution)
    return solution, system.y_structure.unflatten(np.ascontiguousarray(rows[:, :, 1]), (len(rows),))


def _solved(system, t_span, states, inputs, directions, given, limits, options, progress):
    """(Solution of y alone, rows (m, n, 1 + c), call for `event_tangents`) of one solve of the augmented system.

    given : (rtol, atol) as the user gave them; limits : those of the augmented state
    """
    task = posed_with_tangents(system, t_span, states, inputs, directions, limits, options)
    out = task.run(progress)
    rows = out.ys.reshape(len(out.ts), system.y_structure.size, 1 + len(directions))
    tangents = functools.partial(event_tangents, system, task.watched, directions, task, out)
    return solution_of_state(task, out, system, inputs, given, throw=False), rows, tangents


def _joined(system, solved, total, names, p):
    """The SensitivitySolution of one or several chunks, as far as all of them came."""
    solution = min((s for s, *_ in solved), key=lambda s: (len(s.ts), s.success))
    kept = len(solution.ts)
    columns = np.concatenate([rows[:kept, :, 1:] for _, rows, _ in solved], axis=2)[:, :, :total]
    sums = {k: sum(s.stats[k] for s, *_ in solved) for k in ("nfev", "compile_seconds", "solve_seconds")}
    fields = {f.name: getattr(solution, f.name) for f in dataclasses.fields(solution)}
    by_time, by_state = None, None
    if solution.t_events is not None:
        by_time, by_state = _of_events(system, [tangents() for *_, tangents in solved], total, names)
    return SensitivitySolution(
        **(fields | {"stats": solution.stats | sums}), sensitivities=by_name(system, names, columns),
        t_event_sensitivities=by_time, y_event_sensitivities=by_state,
    )  # fmt: skip


def _of_events(system, chunks, total, names):
    """Derivatives of the times and of the states of each event, by name of the input."""
    found = []
    for place, outer in ((0, Structure(Leaf((), 0), 1)), (1, system.y_structure)):
        of_events = []
        for parts in zip(*(chunk[place] for chunk in chunks)):
            kept = min(map(len, parts))
            columns = np.concatenate([part[:kept] for part in parts], axis=-1)[..., :total]
            of_events.append(by_name(system, names, columns.reshape(kept, outer.size, total), outer))
        found.append(of_events)
    return found


def by_name(system, names, columns, outer=None):
    """Derivatives (m, n, c) of values with the Structure outer, None for that of y, by name of the input."""
    found, begin = {}, 0
    for name in names:
        structure = input_structure(system, name)
        found[name] = by_input(outer or system.y_structure, structure, columns[:, :, begin : begin + structure.size])
        begin += structure.size
    return found
