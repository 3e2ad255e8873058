"""`odec.solve_vjp`: a solve, and the gradient of a function of its rows by everything that it was given."""

from __future__ import annotations

import functools
import os
import time
import weakref
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from odec.errors import ArgumentError, nearest
from odec.event import event_pulls
from odec.gradients.checkpoints import recorded_run
from odec.gradients.continuous import Backsolve, Backward
from odec.gradients.crossings import check_differentiable, event_cotangents
from odec.gradients.discrete import Discrete, sums_of_terms
from odec.gradients.estimates import Terms, check_estimated, check_summed, names_of, terms_bar_of
from odec.gradients.interpolating import Interpolating
from odec.gradients.residuals import give_back_with, room_for
from odec.gradients.stepwise import Stepwise, check_steps_can_move
from odec.graph.structure import component_paths
from odec.solving import method_for, posed, tolerance
from odec.system import System
from odec.transforms.quadrature import at_rest
from odec.variation import check_options

ADJOINTS = {"discrete": Discrete, "backsolve": Backsolve, "interpolating": Interpolating}
COUNTED = ("steps", "again", "rejected", "nfev", "drift")  # of the way back, each where it has it


@dataclass(frozen=True)
class Gradient:
    """Cotangents of what a solve was given, each in its structure.

    y0 : as y0; params : a tuple in signature order, or a dict by name where params was one; an integer and a truth
        value count as the real numbers that they stand for
    t_eval : (m,), of the output times, or (N, m); None where the rows were those of the steps, or the end alone
    t0, t1 : of the ends of the time span; arrays (N,) where the members of an ensemble have their own
    stats : `steps` gone back over, `again` the tries of steps made again for it, `seconds`; of the continuous adjoints
        also `rejected`, `nfev`, and `drift`, how far their states came back from those of the solve, in tolerances
    """

    y0: Any
    params: Any
    t_eval: np.ndarray | None
    t0: Any
    t1: Any
    stats: dict = field(default_factory=dict)


def solve_vjp(model, t_span, y0, params=(), *, adjoint="discrete", checkpoints=None, differentiate_steps=False,
              adjoint_rtol=None, adjoint_atol=None, adjoint_method=None, seminorm=True, gradient_only=False,
              regularizers=(), batched=None, progress=False, throw=True, **options):  # fmt: skip
    """(sol, pullback): the Solution of `odec.solve`, and the transposed derivative of its rows.

    `pullback(ys_bar)`, with ys_bar in the structure and shapes of `sol.ys`, returns the Gradient of
    sum(ys_bar * sol.ys).

    The discrete adjoint goes back through events and resets: `pullback(ys_bar, t_events_bar, y_events_bar)` also takes
    the cotangents of `sol.t_events` and `sol.y_events`. Rows at given times are at those times; what has none moves
    with the times of events: each step behind a reset where t_eval is None, and the end that a terminal event makes.

    Parameters
    ----------
    model, t_span, y0, params : as odec.solve takes them
    adjoint : "discrete", the exact gradient of the computed numbers: back over the recorded steps, whose sizes are
        data; "backsolve", the adjoint equation solved backwards together with the state: memory does not grow with the
        steps, accuracy is that of its own tolerances, and it warns where the state does not come back; "interpolating",
        the adjoint equation over the polynomials of the solve, which are kept
    checkpoints : of the first and the last, the number of states, or polynomials, to hold, at least 2, half of them
        those of steps and half snapshots, from which the others are made again: a few dozen cost a few further solves,
        two a quadratic number of them; None holds each step, and beyond 256 MiB goes over to snapshots; "file" keeps
        each on the disk, in the system's folder for temporary files, a pathlib.Path in that folder. The gradient is
        the same, bit by bit. With dense_output=True the polynomials are all held in memory, with events the steps are:
        these take no checkpoints
    differentiate_steps : of the discrete adjoint: what is given also moves the step sizes, by the errors and the
        controller, and the gradient takes that along: it is then that of the solver itself, as differences of solves
        are, while the default is that of the solution to the tolerances. Where each try started is kept, and the tries
        are made again for it; without checkpoints and events, and not for method="taylor"
    adjoint_rtol, adjoint_atol, adjoint_method : of the last two; None is as in the solve
    seminorm : they leave the gradient by the parameters out of their error norm
    gradient_only : of a model of odec.regularize: only the gradient of r is wanted. The solve leaves r as it starts,
        and outside its error norm, and takes the steps of the model itself; ys_bar still holds the cotangents of r
    regularizers : a list of odec.regularizers.ErrorEstimate() and Stiffness(), sums of the solver's own estimates over
        the accepted steps. `sol.regularizers` holds their values (terms,), in the order given, in the dtype of y;
        `pullback(ys_bar, regularizers=weights)` adds weights @ sol.regularizers to what is differentiated, step sizes
        as for the rows. They need adjoint="discrete", one solve, no events, and a Runge-Kutta method that makes these
        estimates. Of a model of odec.regularize the norms are over what its error norm is over
    batched : the inputs that the members of an ensemble differ in, as odec.solve_ensemble takes them, with its options:
        sol is its EnsembleSolution, and ys_bar is in the structure of its `ys`, or of `y1` where the end only is kept.
        The pullback solves the members again, some at a time, in lanes and threads, or with target="cuda" in a thread
        of the GPU each, as many as its memory holds the steps of. Inputs in which members differ have their first axis
        N; cotangents of the others are summed over members, bit by bit the same for any number of threads and for any
        memory. A member that fails adds nothing
    progress, throw, options : as odec.solve takes them

    Raises
    ------
    ArgumentError, ShapeError, TraceError, SolveError : as odec.solve; an adjoint that is not known, or that cannot
        differentiate what was asked for

    References: Griewank and Walther, Evaluating Derivatives, 2nd ed., SIAM 2008, 3.2; Griewank and Walther, ACM Trans.
    Math. Softw. 26 (2000) 19; Chen et al., NeurIPS 31 (2018); Kidger, Chen and Lyons, ICML 139 (2021)
    """
    if not isinstance(adjoint, str) or adjoint not in ADJOINTS:
        raise ArgumentError(
            f"solve_vjp: adjoint {adjoint!r} is not known{nearest(adjoint, ADJOINTS)} It is one of "
            f"{', '.join(ADJOINTS)}."
        )
    names = names_of(regularizers)
    if names:
        check_summed(adjoint, bool(options.get("events")), batched is not None)
    if batched is not None:
        from odec.ensemble_gradient import ensemble_vjp

        _check_gradient_only(gradient_only, "batched is given", True)
        given = checkpoints, differentiate_steps or None, adjoint_rtol, adjoint_atol, adjoint_method
        return ensemble_vjp(model, t_span, y0, params, batched, adjoint, given, {"progress": progress, **options})
    check_options("solve_vjp", options)
    _check_gradient_only(gradient_only, "events are watched", bool(options["events"]))
    discrete = adjoint == "discrete"
    _check_checkpoints(checkpoints, adjoint)
    how = functools.partial(recorded_run, checkpoints=checkpoints)
    if adjoint == "backsolve" or options.get("dense_output"):
        how = None  # nothing is recorded, or each step is held by its polynomial
    if adjoint == "interpolating":
        options["dense_output"] = True
    keeps = room_for if discrete and checkpoints is None and not (differentiate_steps or gradient_only) else None
    forward = resting if gradient_only else None
    given = posed(model, t_span, y0, params, records=discrete, residuals=keeps, forward=forward, **options)
    name, start = given.system.name, given.problem.y.copy()
    terms = Terms(names, (resting(given.system) if gradient_only else given.system).measured) if names else None
    check_estimated(name, names, given.record)
    check_steps_can_move(name, differentiate_steps, adjoint, checkpoints, given.watched)
    if given.watched:
        check_differentiable(name, adjoint, checkpoints)
    if discrete:
        if (adjoint_rtol, adjoint_atol, adjoint_method) != (None,) * 3:
            raise ArgumentError(
                f"{name}: the discrete adjoint solves nothing; leave adjoint_rtol, adjoint_atol and adjoint_method "
                'out, or take adjoint="backsolve" or "interpolating".'
            )
        if differentiate_steps and given.record.sizes_itself:
            raise ArgumentError(
                f"{name}: differentiate_steps=True, but the steps of {given.record.name} follow from its coefficients; "
                "a method with a controller is needed, such as dop853. Leave differentiate_steps out, and the step "
                "sizes are data."
            )
        if differentiate_steps and given.record.adaptive:
            return _with_steps(given, start, progress, throw, isinstance(params, dict), terms)
        out = given.run(progress, None if given.watched else how)
        pulls = event_pulls(given.system, given.watched) if given.watched else None
        way = Discrete(given.system, given.record, given.problem, out, start, pulls, terms)
        if given.problem.residuals is not None:
            give_back_with(way, given.system, given.problem.residuals)
    else:
        backward = _backward(given.system, given.record, adjoint_rtol, adjoint_atol, adjoint_method, seminorm)
        out = given.run(progress, how)
        began = time.perf_counter()
        way = ADJOINTS[adjoint](given.system, given.record, given.problem, out, start, backward)
        given.compile_seconds += time.perf_counter() - began
    return _solution(given, out, throw, terms), Pullback(given.system, way, out, isinstance(params, dict), terms)


def _solution(given, out, throw, terms):
    """The Solution of an Outcome, with the sums of Terms."""
    solution = given.solution(out, throw)
    if terms is None:
        return solution
    return replace(solution, regularizers=sums_of_terms(given.system, given.record, given.problem, out, terms))


def _check_gradient_only(asked, found, is_so):
    """ArgumentError for what is no truth value, and for what r cannot be left out with."""
    if not isinstance(asked, (bool, np.bool_)):
        raise ArgumentError(f"solve_vjp: gradient_only is {asked!r}; True or False is needed.")
    if asked and is_so:
        raise ArgumentError(
            f"solve_vjp: gradient_only=True, but {found}; one solve without events is needed. Leave gradient_only out."
        )


_resting: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def resting(system):
    """The System whose quadratures stay as they start, outside of the error norm; ArgumentError for one that has none.

    Made once for a System.
    """
    n, count = system.y_structure.size, system.quadratures
    if not count:
        raise ArgumentError(
            f"{system.name}: gradient_only=True, but nothing is integrated along its solution; a model of "
            "odec.regularize is needed. Leave gradient_only out."
        )
    found = _resting.get(system)
    if found is None:
        graph, measured = at_rest(system.graph, count), min(n - count, system.measured or n)
        found = System(
            system.name, graph, system.y_structure, system.p_structure, system.dtype, system.state, measured, count
        )
        _resting[system] = found
    return found


def _with_steps(given, start, progress, throw, by_name, terms):
    """(sol, pullback) of a solve whose step sizes are differentiated too."""
    given.problem.records = terms is not None
    out = given.run(progress)
    way = Stepwise(given.system, given.record, given.problem, out, start, given.solver, terms)
    return _solution(given, out, throw, terms), Pullback(given.system, way, out, by_name, terms)


def _check_checkpoints(checkpoints, adjoint):
    if checkpoints is None:
        return
    number = isinstance(checkpoints, (int, np.integer)) and not isinstance(checkpoints, bool) and checkpoints >= 2
    on_disk = isinstance(checkpoints, os.PathLike) or (isinstance(checkpoints, str) and checkpoints == "file")
    if not (number or on_disk):
        raise ArgumentError(
            f"solve_vjp: checkpoints is {checkpoints!r}; an integer of at least 2 is needed, such as 64, "
            'or "file", or a folder as a pathlib.Path, or None.'
        )
    if adjoint == "backsolve":
        raise ArgumentError(
            f"solve_vjp: checkpoints is {checkpoints!r}, but adjoint is {adjoint!r}, which has none; leave it out, or "
            'take adjoint="discrete" or "interpolating".'
        )


def _backward(system, record, rtol, atol, method, seminorm):
    """The Backward of what a user gave."""

    def checked(what, value):
        return None if value is None else tolerance(system, what, value)

    if not isinstance(seminorm, (bool, np.bool_)):
        raise ArgumentError(f"{system.name}: seminorm is {seminorm!r}; True or False is needed.")
    found = checked("adjoint_rtol", rtol)
    if found is not None:
        method_for(system.name, record if method is None else method, found, system.dtype, "adjoint_rtol")
    return Backward(found, checked("adjoint_atol", atol), method, bool(seminorm))


class Pullback:
    """The transposed derivative of the rows of a solve: call it with cotangents in the structure of `sol.ys`."""

    def __init__(self, system, adjoint, outcome, by_name, terms=None):
        self._system, self._adjoint, self._outcome, self._by_name = system, adjoint, outcome, by_name
        self._terms = terms

    def __repr__(self):
        return f"<pullback of {self._system.name} over {self._outcome.steps:,} steps>"

    def __call__(self, ys_bar, t_events_bar=None, y_events_bar=None, *, regularizers=None):
        """The Gradient of sum(ys_bar * sol.ys) and, of the times and states of events and of regularizers, likewise.

        t_events_bar, y_events_bar : lists in the structure of `sol.t_events` and `sol.y_events`; there, as for ys_bar,
            None is zero
        regularizers : (terms,), the cotangents of `sol.regularizers`, so the weights of the terms in a loss; None is
            zero

        Raises
        ------
        ArgumentError, ShapeError : cotangents that are not finite or do not fit; an event that only touches its zero,
            whose time has no derivative

        Warns
        -----
        RuntimeWarning : an event that all but touches it
        """
        began = time.perf_counter()
        flat = self._rows_bar(ys_bar)
        system, out, events = self._system, self._outcome, self._adjoint.problem.events
        count = len(events.resets) if events else 0
        events_bar = event_cotangents(system, out, count, t_events_bar, y_events_bar)
        terms_bar = terms_bar_of(system.name, self._terms, regularizers)
        more = {"events_bar": events_bar} if events else {"terms_bar": terms_bar} if self._terms else {}
        found = self._adjoint.pull(flat, **more)
        values = system.p_structure.unflatten(found.p)
        return Gradient(
            system.y_structure.unflatten(found.y), values if self._by_name else tuple(values.values()),
            found.times if self._adjoint.inside else None, found.t0, found.t1,
            {k: getattr(found, k) for k in COUNTED if hasattr(found, k)} | {"seconds": time.perf_counter() - began},
        )  # fmt: skip

    def _rows_bar(self, ys_bar):
        """Cotangents of the rows as (rows, n); ArgumentError or ShapeError for what is none."""
        system, rows = self._system, len(self._outcome.ts)
        if ys_bar is None:
            return np.zeros((rows, system.y_structure.size), system.dtype)
        flat = system.y_structure.flatten_members(ys_bar, f"{system.name}: ys_bar", system.dtype, rows)
        if not np.isfinite(flat).all():
            row, column = (int(k) for k in np.argwhere(~np.isfinite(flat))[0])
            path = list(component_paths(system.y_structure))[column]
            raise ArgumentError(
                f"{system.name}: ys_bar{path} of row {row} is {flat[row, column]}; finite numbers are needed."
            )
        return flat
