"""Running the loop: its buffers, its pauses, and rows kept as they come."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from odec.codegen.compile import address
from odec.errors import Status
from odec.integrate import slots as at
from odec.integrate.compiled import compiled_loop
from odec.integrate.control import CONTROLLERS, Controller
from odec.integrate.dense import DenseOutput
from odec.integrate.events import SAMPLES
from odec.integrate.loop import integrate
from odec.integrate.stiffness import Reach

PAUSE_SECONDS = 0.05  # how long machine code runs before the keyboard is heard again
FIRST_PAUSE = 256  # steps of the first stretch, before their speed is known
FIRST_ROOM = 64  # rows at first, where their number is not known
DOUBLED = 2**17  # numbers up to which room doubles; from there it grows by an eighth, so that little is unused
POOLED = 2**17  # numbers in the buffers of a solver up to which they are kept for its next run
SHORT = 64  # numbers up to which Python's own sum is quicker than a call of NumPy
STATUSES = {int(s): s for s in Status}
NO_TIMES = np.empty(0)


@dataclass
class Problem:
    """One solve, as flat vectors.

    span : (t0, t1); y (n,), p (m,); rtol, atol : numbers or vectors (n,)
    t_eval : times to keep, None for every step
    tstops : times strictly within the span, in its direction
    first_step : 0 to choose one; max_steps : of all steps tried
    """

    span: tuple[float, float]
    y: np.ndarray
    p: np.ndarray
    rtol: float | np.ndarray = 1e-6
    atol: float | np.ndarray = 1e-9
    t_eval: np.ndarray | None = None
    tstops: tuple[float, ...] = ()
    first_step: float = 0.0
    min_step: float = 0.0
    max_step: float = math.inf
    max_steps: int = 1_000_000
    controller: Controller = CONTROLLERS["PI"]
    dense: bool = False
    events: EventKernels | None = None
    pause: Callable | None = None  # called with the time reached at the loop's pauses

    @property
    def interpolates(self):
        """Whether the dense output is needed."""
        return bool(self.dense or self.events or (self.t_eval is not None and len(self.t_eval)))


@dataclass(frozen=True, eq=False)
class EventKernels:
    """The kernels of a list of events, and how each is meant.

    values : (t, y, p) -> (n_events,); rates : its derivative along the solution, likewise
    resets : for each event (t, y, p) -> (y, p), or None
    directions, terminal_after : for each event, -1, 0 or 1, and the number of firings that ends the solve (0: none)
    """

    values: object
    rates: object
    resets: tuple
    directions: tuple[int, ...]
    terminal_after: tuple[int, ...]

    @property
    def watched(self):
        """The loop's table of events at the start of a solve."""
        table = np.zeros((len(self.resets), at.WATCHED), np.int64)
        table[:, at.DIRECTION], table[:, at.TERMINAL_AFTER] = self.directions, self.terminal_after
        table[:, at.HAS_RESET] = [r is not None for r in self.resets]
        return table.ravel()


@dataclass
class Outcome:
    """What the loop leaves behind; arrays are new.

    ts (rows,), ys (rows, n); t, y, slope, p : where it ended; h : the size of the last step tried
    reach : |h| times the fastest rate of the model, the median over a long solve and where steps ran out; else None
    fired_t, fired_e, fired_y : times, indices and states of events, in the order in which they happened
    """

    ts: np.ndarray
    ys: np.ndarray
    t: float
    y: np.ndarray
    slope: np.ndarray
    p: np.ndarray
    h: float
    status: Status
    steps: int
    rejected: int
    nfev: int
    reach: float | None = None
    dense: DenseOutput | None = None
    fired_t: np.ndarray = field(default_factory=lambda: NO_TIMES)
    fired_e: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    fired_y: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))


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
        self._free: dict[bool, list[_Buffers]] = {False: [], True: []}  # runs at the same time take different ones

    @property
    def dense(self):
        """The kernel of the dense output."""
        if self._dense is None:
            self._dense = self._make_dense()
        return self._dense

    def run(self, problem):
        """The Outcome of a problem."""
        interpolates = problem.interpolates
        free = self._free[interpolates]
        try:
            buffers = free.pop() if problem.events is None else _Buffers(self, interpolates, problem.events)
        except IndexError:
            buffers = _Buffers(self, interpolates, None)
        outcome = self._run(buffers, problem)
        if buffers.size <= POOLED and problem.events is None:
            free.append(buffers)
        return outcome

    def _run(self, buffers, problem):
        real, count = buffers.start(problem)
        kept, reach = _Kept(self, problem, real[at.T]), Reach(self._slopes(buffers))
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
                tried = int(count[at.STEPS] + count[at.REJECTED])
                pause = _next_pause(tried - taken, time.perf_counter() - began)
                reach.look_if_due(*buffers.place())
                if problem.pause is not None:
                    problem.pause(float(real[at.T]))
            taken = int(count[at.STEPS] + count[at.REJECTED])
        if status in (at.STEP_LIMIT, at.STEP_UNDERFLOW):
            reach.look(*buffers.place())
        return self._outcome(buffers, kept, status, taken, reach.median)

    def _outcome(self, buffers, kept, status, taken, reach):
        real, count = buffers.real, buffers.count
        end, reached = buffers.state.copy(), float(real[at.T])
        slope = buffers.slope.copy() if self.method.carries_slope else self._slope(buffers, end)
        steps, rejected, nfev, calls = (int(count[i]) for i in (at.STEPS, at.REJECTED, at.NFEV, at.DENSE_CALLS))
        nfev += taken * self.method.evaluations + calls * self.method.dense_evaluations
        ts, ys = kept.rows(count, reached, end)
        if status in (at.SUCCESS, at.TERMINATED) and not all_finite(end):
            # finite slopes can lead past the largest number
            status, finite = at.NON_FINITE, np.isfinite(ys).all(axis=1)
            ts, ys = ts[finite], ys[finite]
            reached = float(ts[-1]) if len(ts) else reached
        outcome = Outcome(ts, ys, reached, end, slope, buffers.p.copy(), float(real[at.H_TRY]), STATUSES[status], steps,
                          rejected, nfev, reach)  # fmt: skip
        kept.finish(outcome, count, buffers.watch)
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


class _Buffers:
    """What one run of the loop works on, laid out in two allocations, and the call that advances it."""

    def __init__(self, solver, interpolates, events):
        method, n, m = solver.method, solver.n, solver.m
        self.method, self.events, python = method, events, solver.python
        slope, tolerance = n if method.carries_slope else 0, n if method.adaptive else 0
        n_events = len(events.resets) if events else 0
        dense = solver.dense if interpolates else None
        kernels = [solver.step, solver.rhs, dense, events and events.values, events and events.rates]
        resets = list(events.resets) if events else []
        work = 0 if python else max(k.work_size for k in (*kernels, *resets) if k is not None)
        sizes = {
            "y": n, "y_next": n, "f0": slope, "f1": slope, "k": len(method.kept) * n,
            "q": method.degree * n if interpolates else 0, "p": m, "rtol": tolerance, "atol": tolerance, "work": work,
            "g": 4 * n_events, "trial": n + m if events else tolerance,
        }  # fmt: skip
        vectors, numbers = _Block(solver.dtype, *sizes.values()), _Block(np.float64, n_events, at.REALS)
        named = dict(zip(sizes, vectors.parts, strict=True))
        self.state, self.slope, self.p, self.rtol, self.atol, self.work = (
            named[name] for name in ("y", "f0", "p", "rtol", "atol", "work")
        )
        self.real, self.count = numbers.parts[1], np.zeros(at.COUNTS, np.int64)
        self.watch = events.watched if events else np.zeros(0, np.int64)
        self.size = sum(map(len, vectors.parts)) + sum(map(len, numbers.parts))
        self._whole = n, m, slope, method.degree, method.error_exponent, int(method.adaptive), n_events
        loop: Callable
        if python:
            loop, place = integrate, lambda array: array
        else:
            loop, place = compiled_loop(solver.dtype.name), address
            kernels = [0 if k is None else k.address for k in kernels]
            resets = np.array([0 if r is None else r.address for r in resets], np.int64)
        buffers = vectors.parts if python else vectors.addresses
        roots, real = numbers.parts if python else numbers.addresses
        head = (*kernels, place(resets), *buffers, place(self.watch), roots)
        tail = (real, place(self.count))
        self._loop, self._head, self._tail, self._place = loop, head, tail, place
        self._blocks = vectors, numbers, resets  # what the addresses point into

    def advance(self, places):
        """Run the loop until it pauses or ends; the status."""
        return self._loop(*self._head, *map(self._place, (self._times, self._stops, *places)), *self._tail)

    def place(self):
        """(t, y, p, h) where the loop is."""
        return self.real[at.T], self.state, self.p, min(abs(self.real[at.H]), self.real[at.MAX_STEP])

    def start(self, problem):
        """Fill in a problem; the cleared slots of the loop's own state."""
        real, count = self.real, self.count
        self.state[:], self.p[:], self.rtol[:], self.atol[:] = problem.y, problem.p, problem.rtol, problem.atol
        real.fill(0.0)
        count.fill(0)
        t0, t1 = problem.span
        self._times = NO_TIMES if problem.t_eval is None else problem.t_eval
        self._stops = np.array((*problem.tstops, t1))
        gains = problem.controller.gains(self.method.error_exponent)
        real[at.GAINS : at.GAINS + len(gains)] = gains
        real[at.T], real[at.T_END], real[at.LAST_RESET] = t0, t1, -math.inf
        real[at.MIN_STEP], real[at.MAX_STEP] = problem.min_step, problem.max_step
        real[at.H] = problem.first_step if t1 > t0 else -problem.first_step
        count[at.N : at.N + len(self._whole)] = self._whole
        count[at.MAX_STEPS], count[at.STOPS] = problem.max_steps, len(self._stops)
        count[at.EVALS] = at.EVERY_STEP if problem.t_eval is None else len(self._times)
        count[at.DENSE] = problem.dense
        return real, count


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


class _Kept:
    """What a run keeps: rows, polynomials, events, each in arrays that grow in place as they fill."""

    def __init__(self, solver, problem, t0):
        n, dtype, degree = solver.n, solver.dtype, solver.method.degree
        self.problem, self.n, self.t0, self.degree = problem, n, t0, degree
        self.every = problem.t_eval is None
        self.n_events = len(problem.events.resets) if problem.events else 0
        rows = FIRST_ROOM if self.every else len(problem.t_eval)
        segments = FIRST_ROOM if problem.dense else 0
        fired = FIRST_ROOM + 2 * SAMPLES * self.n_events if self.n_events else 0
        self.rooms = rows, segments, fired
        self.places = [
            np.empty(rows), np.empty(rows * n, dtype),
            np.empty(2 * segments), np.empty(segments * (degree + 1) * n, dtype),
            np.empty(fired), np.empty(fired, np.int64), np.empty(fired * n, dtype),
        ]  # fmt: skip
        self._groups = (0, 1), (2, 3), (4, 5, 6)

    def grow(self, count):
        """More room for what is nearly full."""
        filled = count[at.SAVED], count[at.SEGMENTS], count[at.FIRED]
        margin = 3, 1, SAMPLES * self.n_events + 1
        rooms = list(self.rooms)
        for g, group in enumerate(self._groups):
            room = rooms[g]
            if room and filled[g] + margin[g] > room and (g or self.every):
                numbers = max(self.places[i].size for i in group)
                rooms[g] = room + (room if numbers <= DOUBLED else room // 8 + 1)
                for i in group:
                    self._resize(i, rooms[g] * (self.places[i].size // room))
        self.rooms = tuple(rooms)

    def _resize(self, i, size):
        self.places[i].resize(size, refcheck=False)  # in place where memory allows, so that nothing is held twice

    def _cut(self, group, room, filled):
        """The arrays of a group with as many rows as were filled."""
        for i in self._groups[group]:
            self._resize(i, filled * (self.places[i].size // room) if room else 0)
        return [self.places[i] for i in self._groups[group]]

    def rows(self, count, t, y):
        """(ts (rows,), ys (rows, n))."""
        if not self.every and self.rooms[0] == 0:
            return np.array([t]), y[None].copy()
        ts, ys = self._cut(0, self.rooms[0], int(count[at.SAVED]))
        return ts, ys.reshape(-1, self.n)

    def finish(self, outcome, count, watch):
        """Put polynomials and events into the outcome."""
        if self.n_events:
            times, which, states = self._cut(2, self.rooms[2], int(count[at.FIRED]))
            outcome.fired_t, outcome.fired_e, outcome.fired_y = times, which, states.reshape(-1, self.n)
        if self.problem.dense:
            marks, rows = self._cut(1, self.rooms[1], int(count[at.SEGMENTS]))
            resets = self.problem.events.resets if self.problem.events else ()
            moved = np.array([r is not None for r in resets], bool)
            jumps = outcome.fired_t[moved[outcome.fired_e]] if moved.any() else NO_TIMES
            rows = rows.reshape(-1, self.degree + 1, self.n)
            outcome.dense = DenseOutput(marks[::2], marks[1::2], rows, (outcome.t, outcome.y), jumps)
