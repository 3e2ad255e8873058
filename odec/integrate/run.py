"""Running the loop: its buffers, its pauses, and rows kept as they come."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from odec.errors import Status
from odec.integrate import loop
from odec.integrate.compiled import compiled_loop

PAUSE_SECONDS = 0.05  # how long machine code runs before the keyboard is heard again
FIRST_PAUSE = 256  # steps of the first stretch, before their speed is known
FIRST_ROOM = 64  # rows of the first chunk when every step is kept


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


def run(system, tableau, rhs, step, span, y, p, rtol, atol, t_eval, first_step, limits, max_steps, python=False):
    """Integrate from span[0] to span[1]; t_eval None keeps every step.

    rhs, step : CompiledKernel, or Python functions of the same arguments with `python`
    """
    n, s, dtype = y.size, tableau.stages + (not tableau.fsal), y.dtype
    state = y.copy()
    y_next, f0 = np.empty(n, dtype), np.empty(n, dtype)
    k, k_next = np.empty(((s - 1) * n), dtype), np.empty(((s - 1) * n), dtype)
    work = np.empty(1 if python else max(rhs.work_size, step.work_size, 1), dtype)
    dense = _dense(tableau, s)
    weights, real, count = np.empty(s), np.zeros(loop.REALS), np.zeros(loop.COUNTS, np.int64)
    real[[loop.T, loop.T_END, loop.MIN_STEP, loop.MAX_STEP]] = span[0], span[1], *limits
    real[loop.H] = np.copysign(first_step, span[1] - span[0]) if first_step else 0.0
    every = t_eval is None
    times = np.empty(0) if t_eval is None else t_eval
    count[loop.MAX_STEPS], count[loop.EVALS] = max_steps, loop.EVERY_STEP if every else len(times)
    rows = _Rows(n, dtype, FIRST_ROOM if every else len(times))
    advance = _python_advance(rhs, step) if python else _compiled_advance(rhs, step, dtype)
    fixed = (n, s, tableau.error_order + 1, state, y_next, k, k_next, f0, p, rtol, atol, work, times, dense, dense.shape[1], weights)
    pause = FIRST_PAUSE
    while True:
        count[loop.ROOM], count[loop.PAUSE] = rows.room, pause
        began = time.perf_counter()
        before = count[loop.STEPS] + count[loop.REJECTED]
        status = advance(*fixed, rows.ts, rows.ys, real, count)
        if status == loop.NEEDS_ROOM:
            rows.keep(count)
        elif status != loop.RUNNING:
            break
        else:
            pause = _next_pause(count[loop.STEPS] + count[loop.REJECTED] - before, time.perf_counter() - began)
    steps, rejected = int(count[loop.STEPS]), int(count[loop.REJECTED])
    ts, ys = rows.all(int(count[loop.SAVED]))
    if not every and len(times) == 0:
        ts, ys = np.array([real[loop.T]]), state[None].copy()
    nfev = int(count[loop.NFEV]) + (steps + rejected) * (s - 1)
    return Outcome(ts, ys, float(real[loop.T]), state, f0, Status(int(status)), steps, rejected, nfev)


def _next_pause(steps, seconds):
    return max(1, int(max(steps, 1) * min(16.0, PAUSE_SECONDS / max(seconds, 1e-6))))


def _dense(tableau, s):
    """Coefficients of the dense output (s, degree); a slope at the end that no b uses gets a row of zeros."""
    rows = np.zeros((s, len(tableau.dense[0])))
    rows[: tableau.stages] = [[float(x) for x in row] for row in tableau.dense]
    return rows


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
        self._open(min(2 * self.room, max(1024, 2**22 // self.n)))

    def all(self, saved):
        """(ts (m,), ys (m, n)) of everything kept, the open chunk's first `saved` rows last."""
        ts = [*(c[0] for c in self.chunks), self.ts[:saved]]
        ys = [*(c[1] for c in self.chunks), self.ys[: saved * self.n]]
        if len(ts) == 1:
            return ts[0].copy(), ys[0].reshape(-1, self.n).copy()
        return np.concatenate(ts), np.concatenate(ys).reshape(-1, self.n)


def _compiled_advance(rhs, step, dtype):
    compiled = compiled_loop(dtype.name)

    def advance(*arguments):
        addresses = [a if isinstance(a, int) else a.ctypes.data for a in arguments]
        return compiled(step.address, rhs.address, *addresses)

    return advance


def _python_advance(rhs, step):
    return lambda *arguments: loop.integrate(step, rhs, *arguments)
