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

    rhs : CompiledKernel, or a Python function of the same arguments with `python`
    make : (name, lanes, shared, keeps, tapes) -> the kernel "advance" or "dense" for so many members side by side,
        called when first needed; shared : names of the arguments in which they do not differ; keeps, tapes : as
        advance.py says
    lanes : members of an ensemble that suit the CPU side by side
    """

    def __init__(self, rhs, make, method, sizes, dtype, lanes=1, python=False):
        self.rhs, self.method, self.lanes, self.python = rhs, method, lanes, python
        self.n, self.m = sizes
        self.dtype, self._dtype_name = np.dtype(dtype), str(dtype)
        self._make, self._kernels = make, {}
        self._free: dict[tuple, list[Buffers]] = {}  # runs at the same time take different ones

    def kernel(self, name, lanes=1, shared=(), keeps=True, tapes=False):
        """A kernel of the method; one member by itself always keeps its stages, so that there is one kernel for it."""
        key = (name, lanes, shared if lanes > 1 else (), keeps or lanes == 1, tapes)
        found = self._kernels.get(key)
        if found is None:
            found = self._kernels[key] = self._make(*key)
        return found

    def prepare(self, problem):
        """Compile what a problem needs, so that the time of its solve does not hold it."""
        self.kernel("advance", tapes=problem.residuals is not None)
        if problem.interpolates:
            self.kernel("dense")
        compiled_loop(self._dtype_name, problem.events is not None)

    def run(self, problem):
        """The Outcome of a problem."""
        buffers = self._taken(problem)
        outcome = self._run(buffers, problem)
        self.release(problem, buffers)
        if problem.keeps_end_only:
            del buffers  # a large one goes before the end is held twice
            outcome.ys = outcome.ys.copy()
        return outcome

    def run_watched(self, problem, trail):
        """The Outcome of a problem without events, and the buffers that it leaves, which can be released.

        trail : asked (Buffers) before each stretch of the loop; for how many tries it may run
        """
        buffers = self._taken(problem)
        outcome = self._run(buffers, problem, trail)
        if problem.keeps_end_only:
            outcome.ys = outcome.ys.copy()
        return outcome, buffers

    def _taken(self, problem):
        """Buffers for a problem, those of an earlier run where there are any."""
        free = self._free.get(_kind(problem)) if problem.events is None else None
        try:
            return free.pop() if free else self._new(problem)
        except IndexError:  # another thread was quicker
            return self._new(problem)

    def _new(self, problem):
        state = problem.y if self.n > POOLED else None  # a large y is held once
        return Buffers(self, problem.interpolates, problem.events, state, tapes=problem.residuals is not None)

    def release(self, problem, buffers):
        """Let a later run have the buffers of a problem."""
        if buffers.size <= POOLED and problem.events is None:
            self._free.setdefault(_kind(problem), []).append(buffers)

    def _run(self, buffers, problem, trail=None):
        buffers.start_one(problem)
        whole, now = buffers.whole, buffers.now
        kept, reach = Kept(self, problem), Reach()
        kept.place(buffers)
        pause, status = FIRST_PAUSE, at.RUNNING
        while status == at.RUNNING:
            whole[at.PAUSE] = pause if trail is None else min(pause, trail(buffers))
            before, began = whole[at.ROUNDS], time.perf_counter()
            status = buffers.advance()
            if status == at.NEEDS_ROOM:
                kept.grow(buffers.count, whole)
                kept.place(buffers)
                status = at.RUNNING
            elif whole[at.ROUNDS] == before:  # the start alone
                pass
            elif status == at.RUNNING:
                pause = next_pause(whole[at.ROUNDS] - before, time.perf_counter() - began)
                if self.method.adaptive:  # fixed steps are as long as the user says
                    reach.look_if_due(self._slopes(buffers), *self._place(buffers))
                if problem.pause is not None:
                    problem.pause(now[at.T])
        status = buffers.count[at.STATUS]
        if status in (at.STEP_LIMIT, at.STEP_UNDERFLOW) and self.method.adaptive:
            reach.look(self._slopes(buffers), *self._place(buffers))
        return self._outcome(buffers, kept, status, reach.median)

    def _place(self, buffers):
        """(t, y, p, h) where the loop is."""
        now = buffers.now
        h = now[at.TRIED if self.method.sizes_itself else at.H]
        return now[at.T], buffers.state, buffers.p, min(abs(h), buffers.rules[at.MAX_STEP])

    def _outcome(self, buffers, kept, status, reach):
        tally, t = buffers.tally, buffers.now[at.T]
        end = buffers.state if buffers.state is kept.problem.y else buffers.state.copy()
        steps, rejected = tally[at.TOOK], tally[at.REFUSED]
        nfev = evaluations(self.method, tally)
        ts, ys = kept.rows(buffers.count, t, end)
        if status == at.NON_FINITE and not all_finite(end):
            # finite slopes can lead past the largest number
            finite = np.isfinite(ys).all(axis=1)
            ts, ys = ts[finite], ys[finite]
            t = float(ts[-1]) if len(ts) else t
        last_tried = buffers.real[at.LAST_TRIED]
        outcome = Outcome(ts, ys, t, end, STATUSES[status], steps, rejected, nfev, last_tried, reach)
        if status not in (at.SUCCESS, at.TERMINATED):
            outcome.slope = buffers.slope.copy() if self.method.carries_slope else self._slope(buffers, end)
            outcome.p = buffers.p.copy()
        kept.finish(outcome, buffers.whole)
        return outcome

    def _slope(self, buffers, y):
        slope = np.empty_like(y)
        self._slopes(buffers)(np.array([buffers.now[at.T]]), y, buffers.p, slope)
        return slope

    def _slopes(self, buffers):
        """The right-hand side as a callable (t (1,), y, p, out)."""
        return (lambda *arrays: self.rhs(*arrays, buffers.work)) if self.python else self.rhs.run


def _kind(problem):
    """What buffers depend on, beside events."""
    return problem.interpolates, problem.residuals is not None


def evaluations(method, tally):
    """How often f was evaluated, of a member's tally (TALLIES,), or (k,) of those of many, (TALLIES, k)."""
    steps = tally[at.TOOK] + tally[at.REFUSED]
    return tally[at.EVALUATED] + tally[at.DENSE_MADE] * method.dense_evaluations + steps * method.evaluations


def all_finite(vector):
    """Whether every number of a vector is finite; the sum tells, unless it overflows itself."""
    total = sum(vector.tolist()) if vector.size <= SHORT else np.add.reduce(vector)
    return math.isfinite(total) or bool(np.isfinite(vector).all())


def next_pause(steps, seconds):
    """How many steps the next stretch may take, after so many took so long."""
    return max(1, int(max(steps, 1) * min(16.0, PAUSE_SECONDS / max(seconds, 1e-6))))
