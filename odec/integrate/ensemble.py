"""Running a batch: many members of one system, each with its own step size, its own end, its own status."""

from __future__ import annotations

import numpy as np

from odec.integrate.batch import Fired, Results


def run_batch(solver, batch, threads=None, reduce=(), reached=None):
    """The Results of a Batch.

    solver : Solver of the system and the method
    threads : how many run at the same time, None for as many as there are cores; no result depends on it
    reduce : names of what to keep of the rows instead of the rows themselves, as reductions.py has them
    reached : called with how many members have ended, now and then
    """
    found = _results(batch, solver)
    for i in range(batch.size):
        out = solver.run(batch.member(i))
        found.t1[i], found.y1[i], found.status[i] = out.t, out.y, out.status
        found.steps[i], found.rejected[i] = out.steps, out.rejected
        found.nfev += int(out.nfev)
        if batch.rows:
            found.ys[i, : len(out.ys)] = out.ys
        if reached is not None:
            reached(i + 1)
    return found


def _results(batch, solver):
    size, n, dtype = batch.size, solver.n, solver.dtype
    none = np.empty(0, np.int64)
    return Results(
        np.empty(size), np.empty((size, n), dtype), np.ones(size, np.int8), np.zeros(size, np.int32),
        np.zeros(size, np.int32), np.full((size, batch.rows, n), np.nan, dtype),
        Fired(none, none, np.empty(0), np.empty((0, n), dtype)),
    )  # fmt: skip
