"""`odec.solve_vjp`: a solve, and the gradient of a function of its rows by everything that it was given."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from odec.errors import ArgumentError, nearest
from odec.gradients.discrete import Discrete
from odec.graph.structure import component_paths
from odec.solving import posed

ADJOINTS = ("discrete",)


@dataclass(frozen=True)
class Gradient:
    """Cotangents of what a solve was given, each in its structure.

    y0 : as y0; params : a tuple in signature order, or a dict by name where params was one
    t_eval : (m,), of the output times; None where the rows were those of the steps, or the end alone
    t0, t1 : of the ends of the time span
    stats : `steps` gone back over, `seconds`
    """

    y0: Any
    params: Any
    t_eval: np.ndarray | None
    t0: float
    t1: float
    stats: dict = field(default_factory=dict)


def solve_vjp(model, t_span, y0, params=(), *, adjoint="discrete", throw=True, **options):
    """(sol, pullback): the Solution of `odec.solve`, and the transposed derivative of its rows.

    `pullback(ys_bar)`, with ys_bar in the structure and shapes of `sol.ys`, returns the Gradient of
    sum(ys_bar * sol.ys).

    Parameters
    ----------
    model, t_span, y0, params : as odec.solve takes them
    adjoint : "discrete", the exact gradient of the computed numbers: back over the recorded steps, whose sizes are data
    options : as odec.solve takes them

    Raises
    ------
    ArgumentError, ShapeError, TraceError, SolveError : as odec.solve; an adjoint that is not known
    """
    if adjoint not in ADJOINTS:
        raise ArgumentError(
            f"solve_vjp: adjoint {adjoint!r} is not known{nearest(adjoint, ADJOINTS)} It is one of "
            f"{', '.join(ADJOINTS)}."
        )
    given = posed(model, t_span, y0, params, records=True, **options)
    if given.watched:
        raise ArgumentError(
            f"{given.system.name}: events are not differentiated in this version; leave events out, and end t_span "
            "where the event would."
        )
    out = given.run()
    return given.solution(out, throw), Pullback(given, out, isinstance(params, dict))


class Pullback:
    """The transposed derivative of the rows of a solve: call it with cotangents in the structure of `sol.ys`."""

    def __init__(self, given, outcome, by_name):
        self._given, self._outcome, self._by_name = given, outcome, by_name
        self._adjoint = Discrete(given.system, given.record, given.problem, outcome)

    def __repr__(self):
        return f"<pullback of {self._given.system.name} over {len(self._outcome.record.t):,} steps>"

    def __call__(self, ys_bar):
        """The Gradient; ArgumentError or ShapeError for cotangents that are not finite or do not fit."""
        began = time.perf_counter()
        system, rows = self._given.system, len(self._outcome.ts)
        flat = system.y_structure.flatten_members(ys_bar, f"{system.name}: ys_bar", system.dtype, rows)
        if not np.isfinite(flat).all():
            row, column = (int(k) for k in np.argwhere(~np.isfinite(flat))[0])
            path = list(component_paths(system.y_structure))[column]
            raise ArgumentError(
                f"{system.name}: ys_bar{path} of row {row} is {flat[row, column]}; finite numbers are needed."
            )
        found = self._adjoint.pull(flat)
        values = system.p_structure.unflatten(found.p)
        return Gradient(
            system.y_structure.unflatten(found.y), values if self._by_name else tuple(values.values()),
            found.times if self._adjoint.inside else None, found.t0, found.t1,
            {"steps": found.steps, "seconds": time.perf_counter() - began},
        )  # fmt: skip
