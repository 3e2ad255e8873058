"""Running the loop: its pauses, and what it leaves behind."""

from __future__ import annotations

import math
import time

import numpy as np

from odec.errors import Status
from odec.integrate import slots as at
from odec.integrate.buffers import Buffers
from odec.integrate.compiled import compiled_loop
from odec.integrate.kept import Kept
from odec.integrate.problem import Outcome
from odec.integrate.stiffness import Reach

PAUSE_SECONDS = 0.05  # how long machine code runs before the keyboard is heard again
FIRST_PAUSE = 256  # steps of the first stretch, before their speed is known
POOLED = 2**17  # numbers in the buffers of a solver up to which they are kept for its next run
SHORT = 64  # numbers up to which Python's own sum is quicker than a call of NumPy
STATUSES = {int(s): s for s in Status}


class Solver:
    """The loop for one system and one method: compiled kernels and buffers to run them on.

    rhs, step : CompiledKernel, or Python functions of the same arguments with `python`
    make_dense : () -> the kernel of the dense output, called when a solve first needs it
    """

    def __init__(self, rhs, step, make_dense, method, sizes, dtype, python=False):
        self.rhs, self.step, self.method, self.python = rhs, step, method, python
        self.n, self.m = sizes
        self.dtype = np.dtype(dtype)
        self._make_dense, self._dense = make_dense, None
        self._free: dict[bool, list[Buffers]] = {False: [], True: []}  # runs at the same time take different ones

    @property
    def dense(self):
        """The kernel of the dense output."""
        if self._dense is None:
            self._dense = self._make_dense()
        return self._dense

    def prepare(self, problem):
        """Compile what a problem needs beside the step, so that the time of its solve does not hold it."""
        if problem.interpolates:
            _ = self.dense
        compiled_loop(self.dtype.name, problem.events is not None)

    def run(self, problem):
        """The Outcome of a problem."""
        interpolates, events = problem.interpolates, problem.events
        free, state = self._free[interpolates], problem.y if self.n > POOLED else None  # a large y is held once
        try:
            buffers = free.pop() if events is None else Buffers(self, interpolates, events, state)
        except IndexError:
            buffers = Buffers(self, interpolates, None, state)
        outcome = self._run(buffers, problem)
        if buffers.size <= POOLED and events is None:
            free.append(buffers)
        if problem.keeps_end_only:
            del buffers  # a large one goes before the end is held twice
            outcome.ys = outcome.ys.copy()
        return outcome

    def _run(self, buffers, problem):
        real, count = buffers.start(problem)
        kept, reach = Kept(self, problem), Reach()
        pause, status, taken = FIRST_PAUSE, at.RUNNING, 0
        while status == at.RUNNING:
            count[at.PAUSE] = pause
            count[at.ROOM], count[at.SEGMENT_ROOM], count[at.FIRED_ROOM] = kept.rooms
            began = time.perf_counter()
            status = buffers.advance(kept.places)
            if status == at.NEEDS_ROOM:
                kept.grow(count)
                status = at.RUNNING
            elif status == at.RUNNING:
                pause = _next_pause(count[at.STEPS] + count[at.REJECTED] - taken, time.perf_counter() - began)
                if self.method.adaptive:  # fixed steps are as long as the user says
                    reach.look_if_due(self._slopes(buffers), *buffers.place())
                if problem.pause is not None:
                    problem.pause(real[at.T])
            taken = count[at.STEPS] + count[at.REJECTED]
        if status in (at.STEP_LIMIT, at.STEP_UNDERFLOW) and self.method.adaptive:
            reach.look(self._slopes(buffers), *buffers.place())
        return self._outcome(buffers, kept, status, reach.median)

    def _outcome(self, buffers, kept, status, reach):
        count, t = buffers.count, buffers.real[at.T]
        end = buffers.state if buffers.state is kept.problem.y else buffers.state.copy()
        steps, rejected = count[at.STEPS], count[at.REJECTED]
        nfev = count[at.NFEV] + count[at.DENSE_CALLS] * self.method.dense_evaluations
        nfev += (steps + rejected) * self.method.evaluations
        ts, ys = kept.rows(count, t, end)
        if status in (at.SUCCESS, at.TERMINATED) and not all_finite(end):
            # finite slopes can lead past the largest number
            status, finite = at.NON_FINITE, np.isfinite(ys).all(axis=1)
            ts, ys = ts[finite], ys[finite]
            t = float(ts[-1]) if len(ts) else t
        outcome = Outcome(ts, ys, t, end, STATUSES[status], steps, rejected, nfev, buffers.real[at.H_TRY], reach)
        if status not in (at.SUCCESS, at.TERMINATED):
            outcome.slope = buffers.slope.copy() if self.method.carries_slope else self._slope(buffers, end)
            outcome.p = buffers.p.copy()
        kept.finish(outcome, count)
        return outcome

    def _slope(self, buffers, y):
        slope = np.empty_like(y)
        self._slopes(buffers)(np.array([buffers.real[at.T]]), y, buffers.p, slope)
        return slope

    def _slopes(self, buffers):
        """The right-hand side as a callable (t (1,), y, p, out)."""
        return (lambda *arrays: self.rhs(*arrays, buffers.work)) if self.python else self.rhs.run


def all_finite(vector):
    """Whether every number of a vector is finite; the sum tells, unless it overflows itself."""
    total = sum(vector.tolist()) if vector.size <= SHORT else np.add.reduce(vector)
    return math.isfinite(total) or bool(np.isfinite(vector).all())


def _next_pause(steps, seconds):
    return max(1, int(max(steps, 1) * min(16.0, PAUSE_SECONDS / max(seconds, 1e-6))))
