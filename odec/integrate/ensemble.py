"""Running a batch: many members of one system, each with its own step size, its own end, its own status."""

from __future__ import annotations

import numpy as np

from odec.errors import Status
from odec.integrate.batch import NONE_KEPT, Fired, Results
from odec.integrate.reductions import Partial


def run_batch(solver, batch, threads=None, reduce=(), reached=None):
    """The Results of a Batch.

    solver : Solver of the system and the method
    threads : how many run at the same time, None for as many as there are cores; no result depends on it
    reduce : names of what to keep of the rows instead of the rows themselves, as reductions.py has them
    reached : called with how many members have ended, now and then
    """
    found, events = _results(batch, solver), []
    block, rows = batch.block, found.ys
    for i in range(batch.size):
        member = batch.member(i)
        out = solver.run(member)
        found.t1[i], found.y1[i], found.status[i] = out.t, out.y, out.status
        found.steps[i], found.rejected[i] = out.steps, out.rejected
        found.nfev += int(out.nfev)
        found.slots += int(out.steps + out.rejected)
        if batch.rows and not member.keeps_end_only:
            rows[i, : len(out.ys)] = out.ys
        if batch.problem.events is not None:
            events.append((np.full(len(out.fired_t), i), out.fired_e, out.fired_t, out.fired_y))
        if reduce and ((i + 1) % block == 0 or i + 1 == batch.size):
            part = slice(i // block * block, i + 1)
            good = np.isin(found.status[part], (Status.SUCCESS, Status.TERMINATED))
            found.partials.append(Partial.of(rows[part] if batch.rows else found.y1[part, None], good, reduce))
        if reached is not None:
            reached(i + 1)
    if reduce:
        found.ys = NONE_KEPT
    if events:
        found.fired = Fired(*(np.concatenate(parts) for parts in zip(*events, strict=True)))
    return found


def _results(batch, solver):
    size, n, dtype = batch.size, solver.n, solver.dtype
    none = np.empty(0, np.int64)
    return Results(
        np.empty(size), np.empty((size, n), dtype), np.ones(size, np.int8), np.zeros(size, np.int32),
        np.zeros(size, np.int32), np.full((size, batch.rows, n), np.nan, dtype),
        Fired(none, none, np.empty(0), np.empty((0, n), dtype)),
    )  # fmt: skip
