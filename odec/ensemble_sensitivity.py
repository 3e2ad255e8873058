"""`odec.sensitivities`, `odec.solve_jvp` of an ensemble: derivatives of the rows of each member, by its own steps."""

from __future__ import annotations

import inspect
import time
from dataclasses import fields, replace

import numpy as np

from odec.direction import Moved, directions_of_members, input_structure, names_of, start_by_time
from odec.ensemble import REFUSED, posed_ensemble, solution_of_members
from odec.ensemble_solution import succeeded
from odec.errors import ArgumentError, nearest
from odec.gradients.forward import FROM_INPUT
from odec.sensitivity_solution import EnsembleSensitivities
from odec.solving import parameters_by_name
from odec.variation import augmented_system, changes_parameters, parts_of, tolerances_of_y

KEYWORDS = tuple(inspect.signature(posed_ensemble).parameters)
ELSEWHERE = ("executor", "reduce", "on_device", "gather")  # keywords of solve_ensemble that are refused


def ensemble_sensitivities(model, t_span, y0, params, *, wrt, rtol, atol, error_control, chunk, dtype, progress,
                           **options):  # fmt: skip
    """The EnsembleSensitivities of the arguments of `sensitivities` with `batched`.

    Raises
    ------
    ArgumentError, ShapeError, TraceError : the arguments or the model cannot be used
    """
    began = time.perf_counter()
    _check_options("sensitivities", options)
    work, inputs, batch = posed_ensemble(model, t_span, y0, params, rtol=rtol, atol=atol, dtype=dtype, **options)
    system, problem = work.system, batch.problem
    if error_control:
        raise ArgumentError(
            f"{system.name}: error_control weighs derivatives by the size of an input, which members can differ in; "
            "leave it out, and ask for a smaller rtol, or solve the members apart."
        )
    names = names_of(system, parameters_by_name(model, params), wrt)
    moved = Moved.by(system, names, problem.span[0], problem.y, problem.p)
    parts, constants = parts_of(system, moved, chunk, False, work.events)
    starts = _starts(system, batch, names, moved)
    solved, seconds = [], {"compile_seconds": time.perf_counter() - began, "solve_seconds": 0.0}
    for k, part in enumerate(parts):
        own = part.starts if starts is None else starts[:, :, k * len(part.places) : (k + 1) * len(part.places)]
        posed = part.posed(problem.y, problem.p, constants)
        solved.append(_solved(work, batch, posed, part.sizes, own, (rtol, atol), bool(progress), seconds))
    found = _one_of(solved)
    columns = [c for _, c in solved]
    joined = (columns[0] if len(columns) == 1 else np.concatenate(columns, axis=3))[..., : len(moved.places)]
    solution = solution_of_members(work, inputs, batch, found, t_span, seconds)
    by_name, begin = {}, 0
    for name in names:
        inner = input_structure(system, name)
        by_name[name] = inner, joined[..., begin : begin + inner.size]
        begin += inner.size
    return EnsembleSensitivities(
        **{f.name: getattr(solution, f.name) for f in fields(solution)}, flat_sensitivities=by_name
    )


def ensemble_jvp(model, t_span, y0, params, *, tangents, rtol, atol, dtype, progress, **options):
    """(EnsembleSolution, ys_dot (N, m, *y.shape)) of the arguments of `solve_jvp` with `batched`.

    Raises
    ------
    ArgumentError, ShapeError, TraceError : the arguments or the model cannot be used
    """
    began = time.perf_counter()
    _check_options("solve_jvp", options)
    work, inputs, batch = posed_ensemble(model, t_span, y0, params, rtol=rtol, atol=atol, dtype=dtype, **options)
    system, (y, p) = work.system, (batch.problem.y, batch.problem.p)
    dy, dp, own, columns = directions_of_members(system, tangents, inputs.given, batch.size)
    if dp is None and changes_parameters(system, work.events):
        dp = np.zeros_like(p)
    posed = (np.stack([y, 0 * y], axis=1), p, (None,))
    if dp is not None:
        posed = (posed[0], np.stack([p, dp], axis=1), (FROM_INPUT,))
    seconds = {"compile_seconds": time.perf_counter() - began, "solve_seconds": 0.0}
    starts = np.broadcast_to(dy, (batch.size, y.size))[:, :, None]
    found, dots = _solved(
        work, batch, posed, np.zeros(1), starts, (rtol, atol), bool(progress), seconds, (own, 2 * columns + 1)
    )
    solution = solution_of_members(work, inputs, batch, found, t_span, seconds)
    return solution, system.y_structure.unflatten(np.ascontiguousarray(dots[..., 0]), dots.shape[:2])


def _check_options(where, options):
    """TypeError for a keyword that there is not; ArgumentError for one that only ensembles without derivatives have."""
    for name in options:
        if name in ELSEWHERE:
            raise ArgumentError(
                f"{where}: {name}: derivatives of an ensemble are solved in this process, and all rows are kept here; "
                "leave it out."
            )
        if name in REFUSED:
            raise ArgumentError(f"{where}: {name}: {REFUSED[name]}")
        if name not in KEYWORDS:
            raise TypeError(f"{where}() has no keyword {name!r}{nearest(name, KEYWORDS)}")


# ---- the larger members -----------------------------------------------------------------------------------


def _starts(system, batch, names, moved):
    """(N, n, c) dy(t0) by each number, where the members differ in it: where t0 is among the names."""
    if "t0" not in names:
        return None
    starts = np.repeat(moved.starts[None], batch.size, axis=0)
    column = sum(input_structure(system, name).size for name in names[: names.index("t0")])
    for i in range(batch.size):
        member = batch.member(i)
        starts[i, :, column] = start_by_time(system, member.span[0], member.y, member.p)
    return starts


def _solved(work, batch, posed, sizes, starts, given, progress, seconds, moving=None):
    """(Results of y alone, derivatives (N, max(rows, 1), n, c)); the seconds that it took are added.

    posed : (augmented y, p, directions), as `Moved.posed` gives them; sizes (c,) : magnitudes of what is moved
    starts : (n, c), or (N, n, c) where the members differ in them; given : (rtol, atol)
    moving : (N, k) tangents of parameters and their places in the augmented p
    """
    began, system, (states, values, directions) = time.perf_counter(), work.system, posed
    larger, width = replace(work, system=augmented_system(system, directions, work.events)), 1 + len(directions)
    limits = tolerances_of_y(system, given[0], given[1], sizes, False)
    relative, absolute = (np.ravel(a).astype(system.dtype) for a in limits)
    problem = replace(batch.problem, y=np.ravel(states), p=np.ravel(values), rtol=relative, atol=absolute)
    many = replace(batch, problem=problem, columns=batch.columns * (width if FROM_INPUT in directions else 1))
    own = _states(batch, starts, width)
    if own is not None:
        many = replace(many, states=own)
    if moving is not None and moving[0].size:
        many = replace(
            many, parameters=np.hstack([batch.parameters, moving[0]]), columns=np.hstack([many.columns, moving[1]])
        )
    larger.prepare(many)
    compiled = time.perf_counter()
    found = larger.run_finite(many, progress)
    seconds["compile_seconds"] += compiled - began
    seconds["solve_seconds"] += time.perf_counter() - compiled
    return _of_state(found, batch, width)


def _states(batch, starts, width):
    """(N, n (1 + c)) states at the start, where the members differ in them or in their derivatives (N, n, c)."""
    if batch.states is None and starts.ndim == 2:
        return None
    n = len(batch.problem.y)
    states = np.zeros((batch.size, n, width), batch.problem.y.dtype)
    states[:, :, 0] = batch.problem.y if batch.states is None else batch.states
    states[:, :, 1 : 1 + starts.shape[-1]] = starts
    return states.reshape(batch.size, -1)


def _of_state(found, batch, width):
    """(Results of y alone, derivatives (N, max(rows, 1), n, c)) of the Results of larger members."""
    size, n = batch.size, len(batch.problem.y)
    y1, rows = found.y1.reshape(size, n, width), found.ys.reshape(size, batch.rows, n, width)
    if not batch.rows:
        rows = y1[:, None].copy()
        rows[~succeeded(found.status)] = np.nan
    fired = found.fired and replace(found.fired, y=found.fired.y.reshape(-1, n, width)[..., 0].copy())
    kept = np.ascontiguousarray(rows[..., 0]) if batch.rows else found.ys.reshape(size, 0, n)
    alone = replace(found, y1=np.ascontiguousarray(y1[..., 0]), ys=kept, fired=fired)
    return alone, rows[..., 1:]


def _one_of(solved):
    """The Results of all parts, with the evaluations of all; else of a member those of the first part that failed: only
    derivatives differ in them."""
    first, *others = (found for found, _ in solved)
    for other in others:
        first.nfev += other.nfev
        worse = succeeded(first.status) & ~succeeded(other.status)
        for name in ("t1", "y1", "status", "steps", "rejected", "ys"):
            getattr(first, name)[worse] = getattr(other, name)[worse]
    return first
