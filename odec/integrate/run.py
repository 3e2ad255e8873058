"""Running the loop: its buffers, its pauses, and rows kept as they come."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from odec.codegen.compile import address
from odec.errors import Status
from odec.integrate import loop
from odec.integrate.compiled import compiled_loop

PAUSE_SECONDS = 0.05  # how long machine code runs before the keyboard is heard again
FIRST_PAUSE = 256  # steps of the first stretch, before their speed is known
FIRST_ROOM = 64  # rows of the first chunk when every step is kept
MOST_ROOM = 2**22  # numbers in a chunk of rows
POOLED = 2**17  # numbers in the buffers of a solver up to which they are kept for its next run
SHORT = 64  # numbers up to which Python's own sum is quicker than a call of NumPy
STATUSES = {int(s): s for s in Status}


@dataclass
class Outcome:
    """What the loop leaves behind; arrays are new."""

    ts: np.ndarray
    ys: np.ndarray
    t: float
    y: np.ndarray
    slope: np.ndarray
    status: Status
    steps: int
    rejected: int
    nfev: int


class Solver:
    """The loop for one system and one method: compiled kernels and buffers to run them on.

    rhs, step : CompiledKernel, or Python functions of the same arguments with `python`
    """

    def __init__(self, rhs, step, tableau, sizes, dtype, work_size, python=False):
        self.rhs, self.step, self.tableau, self.python = rhs, step, tableau, python
        self.n, self.m = sizes
        self.dtype, self.work_size = np.dtype(dtype), work_size
        self._free: list[_Buffers] = []  # runs at the same time take different ones

    def run(self, span, y, p, rtol, atol, t_eval, first_step, limits, max_steps):
        """Integrate from span[0] to span[1]; t_eval None keeps every step. rtol, atol: numbers or vectors (n,)."""
        try:
            buffers = self._free.pop()
        except IndexError:
            buffers = _Buffers(self)
        outcome = self._run(buffers, span, y, p, rtol, atol, t_eval, first_step, limits, max_steps)
        if buffers.size <= POOLED:
            self._free.append(buffers)
        return outcome

    def _run(self, buffers, span, y, p, rtol, atol, t_eval, first_step, limits, max_steps):
        every = t_eval is None
        times = _NO_TIMES if every else t_eval
        real, count = buffers.start(y, p, rtol, atol)
        real[loop.T], real[loop.T_END] = span
        real[loop.MIN_STEP], real[loop.MAX_STEP] = limits
        real[loop.H] = first_step if span[1] > span[0] else -first_step
        count[loop.MAX_STEPS], count[loop.EVALS] = max_steps, loop.EVERY_STEP if every else len(times)
        rows = _Rows(self.n, self.dtype, FIRST_ROOM if every else len(times))
        place = (lambda array: array) if self.python else address
        pause, status, taken = FIRST_PAUSE, loop.RUNNING, 0
        while status == loop.RUNNING:
            count[loop.ROOM], count[loop.PAUSE] = rows.room, pause
            began = time.perf_counter()
            status = buffers.advance(place(times), place(rows.ts), place(rows.ys))
            if status == loop.NEEDS_ROOM:
                rows.keep(count)
                status = loop.RUNNING
            elif status == loop.RUNNING:
                tried = int(count[loop.STEPS] + count[loop.REJECTED])
                pause = _next_pause(tried - taken, time.perf_counter() - began)
            taken = int(count[loop.STEPS] + count[loop.REJECTED])
        steps, rejected, nfev = (int(count[i]) for i in (loop.STEPS, loop.REJECTED, loop.NFEV))
        end, slope, reached = buffers.state.copy(), buffers.slope.copy(), float(real[loop.T])
        if every or len(times):
            ts, ys = rows.all(int(count[loop.SAVED]))
        else:
            ts, ys = np.array([real[loop.T]]), buffers.state[None].copy()
        nfev += taken * (len(self.tableau.dense_matrix) - 1)
        if status == loop.SUCCESS and not all_finite(end):  # finite slopes can lead past the largest number
            status, finite = loop.NON_FINITE, np.isfinite(ys).all(axis=1)
            ts, ys = ts[finite], ys[finite]
            reached = float(ts[-1]) if len(ts) else reached
        return Outcome(ts, ys, reached, end, slope, STATUSES[status], steps, rejected, nfev)


def all_finite(vector):
    """Whether every number of a vector is finite; the sum tells, unless it overflows itself."""
    total = sum(vector.tolist()) if vector.size <= SHORT else np.add.reduce(vector)
    return math.isfinite(total) or bool(np.isfinite(vector).all())


def _next_pause(steps, seconds):
    return max(1, int(max(steps, 1) * min(16.0, PAUSE_SECONDS / max(seconds, 1e-6))))


_NO_TIMES = np.empty(0)


class _Buffers:
    """What one run of the loop works on, laid out in two allocations, and the call that advances it."""

    def __init__(self, solver):
        dense = solver.tableau.dense_matrix
        n, s = solver.n, len(dense)
        inner = (s - 1) * n
        vectors = _Block(solver.dtype, n, n, inner, inner, n, solver.m, n, n, solver.work_size)
        numbers = _Block(np.float64, dense.size, s, loop.REALS)
        self.state, self.slope, self.p, self.rtol, self.atol = (vectors.parts[i] for i in (0, 4, 5, 6, 7))
        self.real, self.count = numbers.parts[2], np.zeros(loop.COUNTS, np.int64)
        numbers.parts[0][:] = dense.ravel()
        self.size = sum(map(len, vectors.parts)) + sum(map(len, numbers.parts))
        integrate: Callable
        order, degree = solver.tableau.error_order + 1, dense.shape[1]
        if solver.python:
            buffers, (dense_, weights, real), count = vectors.parts, numbers.parts, self.count
            integrate, kernels = loop.integrate, (solver.step, solver.rhs)
        else:
            buffers, (dense_, weights, real), count = vectors.addresses, numbers.addresses, address(self.count)
            integrate, kernels = compiled_loop(solver.dtype.name), (solver.step.address, solver.rhs.address)
        head = (*kernels, n, s, order, *buffers)
        self.advance = lambda times, ts, ys: integrate(*head, times, dense_, degree, weights, ts, ys, real, count)
        self._blocks = vectors, numbers  # what the addresses point into

    def start(self, y, p, rtol, atol):
        """Fill in a problem; the cleared slots of the loop's own state."""
        self.state[:], self.p[:], self.rtol[:], self.atol[:] = y, p, rtol, atol
        self.real.fill(0.0)
        self.count.fill(0)
        return self.real, self.count


class _Block:
    """Buffers of the sizes side by side in one allocation, and their addresses."""

    def __init__(self, dtype, *sizes):
        block = np.empty(sum(sizes) + 1, dtype)
        base, start = address(block), 0
        self.parts, self.addresses = [], []
        for size in sizes:
            self.parts.append(block[start : start + size])
            self.addresses.append(base + start * block.itemsize)
            start += size


class _Rows:
    """Kept rows, in chunks that grow, so that memory follows what is kept."""

    def __init__(self, n, dtype, room):
        self.n, self.dtype, self.chunks = n, dtype, []
        self._open(room)

    def _open(self, room):
        self.room = room
        self.ts, self.ys = np.empty(room), np.empty(room * self.n, self.dtype)

    def keep(self, count):
        """Put the full chunk away and open one of twice its size."""
        self.chunks.append((self.ts, self.ys))
        count[loop.SAVED] = 0
        self._open(min(2 * self.room, max(1024, MOST_ROOM // self.n)))

    def all(self, saved):
        """(ts (m,), ys (m, n)) of everything kept, the open chunk's first `saved` rows last."""
        if saved == self.room and not self.chunks:
            return self.ts, self.ys.reshape(-1, self.n)
        ts = [*(c[0] for c in self.chunks), self.ts[:saved]]
        ys = [*(c[1] for c in self.chunks), self.ys[: saved * self.n]]
        return np.concatenate(ts), np.concatenate(ys).reshape(-1, self.n)
