"""The discrete adjoint of an ensemble: chunks of its members are solved again with their rounds on record, and
gone back over at once, in lanes and threads.

So memory does not grow with the ensemble. Cotangents of what members share are summed member by member: neither threads
nor chunks change a bit of them.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from odec.codegen.compile import address
from odec.codegen.kernel import work_for
from odec.codegen.numba_bridge import loop_function
from odec.codegen.workspace import aligned
from odec.errors import Status
from odec.gradients import rounds as at
from odec.gradients.backward import slope_along
from odec.gradients.rounds import NUMBERS, Pulls, Tape
from odec.integrate import interpolate, lanes
from odec.integrate import slots as loop
from odec.integrate.compiled import functions_of, specialised
from odec.integrate.ensemble import Worker, cores, member_arrays
from odec.integrate.problem import NO_TIMES

TAPE_BYTES = 8 * 2**20  # of a chunk: little beside the caches of a CPU, long beside the last members of a chunk
LEAST, MOST_CHUNKS = 64, 64  # members of a chunk, where memory allows; chunks, so that many threads have work
ADDED = 1024  # members whose cotangents are added at a time


@dataclass
class Cotangents:
    """Cotangents of what members were given: y (., n), p (., m), t0, t1 (.,), times (., rows); of each member, or of
    one that stands for all."""

    y: np.ndarray
    p: np.ndarray
    t0: np.ndarray
    t1: np.ndarray
    times: np.ndarray


@dataclass
class PulledMembers:
    """Cotangents of what an ensemble was given: sums over its members in float64, and those of each of them of what
    they differ in, else with no members.

    parameters (size, k) : of the batch's columns
    """

    summed: Cotangents
    own: Cotangents
    parameters: np.ndarray

    def take(self, pulled, where, columns):
        """Take in the Cotangents of the members at `where`, the next ones."""
        for name, value in vars(pulled).items():
            own = getattr(self.own, name)
            if len(own):
                own[where] = value
            else:
                setattr(self.summed, name, added(getattr(self.summed, name), value))
        if self.parameters.size:
            self.parameters[where] = pulled.p[:, columns]


def nothing_yet(batch, n, m, dtype):
    """PulledMembers of a Batch to be filled in."""
    differ = {"y": batch.states, "p": None, "t0": batch.begins, "t1": batch.ends, "times": batch.times}
    shapes = {"y": (n,), "p": (m,), "t0": (), "t1": (), "times": (batch.rows,)}
    own = {k: np.empty((0 if differ[k] is None else batch.size, *shape),
                       dtype if k == "y" else float) for k, shape in shapes.items()}  # fmt: skip
    k = 0 if batch.parameters is None else len(batch.columns)
    summed = {k: np.zeros(shape) for k, shape in shapes.items()}
    return PulledMembers(Cotangents(**summed), Cotangents(**own), np.empty((batch.size, k), dtype))


def added(total, values):
    """total + values[0] + values[1] + ..., one after the other, so that it does not matter where chunks end."""
    for start in range(0, len(values), ADDED):
        total = np.cumsum(np.concatenate([total[None], values[start : start + ADDED]]), axis=0)[-1]
    return total


class MembersBack:
    """The discrete adjoint of a Batch, all of whose members succeed.

    system : System; record : of the method; tries (size,) : steps that each member tries; steps : taken by all
    threads : None for as many as there are cores; lanes : as in run_batch
    """

    def __init__(self, system, record, batch, tries, threads=None, lanes=None):
        self.system, self.record, self.batch, self.tries = system, record, batch, tries
        self.solver = system.solver(record)
        self.lanes = lanes or self.solver.lanes
        self.threads = threads or cores()
        shared = ("p",) if batch.parameters is None else ()
        make = functools.partial(
            system.compiled, "lane_vjp", lanes=self.lanes, shared=shared if self.lanes > 1 else (), method=record
        )
        rows = batch.rows > 0
        asked = make(rows=rows, timed=True)
        self.kernels = Pulls(
            make(rows=False, timed=False), None if rows else asked, asked if rows else None, system.compiled("rhs")
        )
        self.degree = record.degree if rows else 0
        compiled_pull_rounds(system.dtype, self.lanes)

    def chunks(self):
        """(start, stop) of members that are gone back over together, one after the other."""
        n, m, size = self.solver.n, self.solver.m, self.batch.size
        each = self.solver.dtype.itemsize * (n * (1 + self.batch.rows) + m)
        filled = np.cumsum(self.tries * (8.0 * loop.ROUND_MARKS + n * self.solver.dtype.itemsize) + each)
        most, start, found = max(LEAST, -(-size // MOST_CHUNKS)), 0, []
        while start < size:
            before = filled[start - 1] if start else 0.0
            fits = int(np.searchsorted(filled, before + TAPE_BYTES, "right")) - start
            stop = min(size, start + max(self.lanes, min(most, fits)))
            found.append((start, stop))
            start = stop
        return found

    def pull(self, rows_bar):
        """The PulledMembers of cotangents rows_bar (size, rows, n) of the rows, without times (size, 1, n)."""
        batch, chunks = self.batch, self.chunks()
        found = nothing_yet(batch, self.solver.n, self.solver.m, self.solver.dtype)
        free, stop = queue.SimpleQueue(), threading.Event()
        for _ in range(threads := min(self.threads, len(chunks))):
            free.put(_Thread(self, stop))

        def one(chunk):
            thread = free.get()
            try:
                return thread.pull(*chunk, rows_bar[slice(*chunk)])
            finally:
                free.put(thread)

        with _in_order(one, chunks, threads, stop) as results:
            for (start, end), pulled in zip(chunks, results, strict=True):
                found.take(pulled, slice(start, end), batch.columns)
        return found


@contextlib.contextmanager
def _in_order(function, items, threads, stop):
    """The results of a function of items, in their order, of which some more than `threads` are held at a time."""
    if threads == 1:
        yield map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        try:
            yield _ahead(pool, function, items, 2 * threads)
        except BaseException:
            stop.set()
            raise


def _ahead(pool, function, items, most):
    left, jobs = iter(items), deque()
    for item in left:
        jobs.append(pool.submit(function, item))
        if len(jobs) == most:
            yield jobs.popleft().result()
    while jobs:
        yield jobs.popleft().result()


class _Thread:
    """One thread's lanes, forwards and backwards."""

    def __init__(self, back, stop):
        self.back, self.batch, self.stop = back, back.batch, stop
        self.lanes, solver, batch = back.lanes, back.solver, back.batch
        self.queue = np.zeros(1, np.int64)
        self.forward = Worker(solver, batch, self.lanes, self.queue)
        n, m, dtype, width, degree = solver.n, solver.m, solver.dtype, self.lanes, back.degree
        self.own_p = batch.parameters is not None
        state = lambda size: aligned(size, dtype)
        real = lambda size: np.empty(size)
        q_wide = state(degree * n * width)
        self.marks, self.states = real((0, loop.ROUND_MARKS, width)), np.empty((0, n, width), dtype)
        own_p = state(width * m) if self.own_p else batch.problem.p
        self.wide = {
            "p": state(m * width) if self.own_p and width > 1 else own_p, "own_p": own_p, "shared_p": batch.problem.p,
            "columns": batch.columns, "stops": np.array(batch.problem.tstops), "held": real(width), "look": real(width),
            "t_sums": real(width), "t_next": real(width), "p_sums": state(m * width), "p_next": state(m * width),
            "y1_bar": state(n * width), "y_bar": state(n * width), "q_wide": q_wide, "q_bar": state(degree * n * width),
            "h_bar": real(width), "real": real(at.REALS * width), "count": np.zeros(at.COUNTS * width, np.int64),
            "q": q_wide if width == 1 else state(degree * n), "end": state(n), "slope": state(n), "when": real(1),
            "work": state(work_for([k for k in back.kernels if k], dtype)),
        }  # fmt: skip
        self.loop = compiled_pull_rounds(back.system.dtype, width)

    def pull(self, start, stop, rows_bar):
        """The Cotangents of the members from start to stop."""
        part = self.batch.part(start, stop)
        recorded = self._forwards(part, self.back.tries[start:stop])
        return None if self.stop.is_set() else self._backwards(part, *recorded, rows_bar)

    def _forwards(self, part, tries):
        """(arrays of the members, t_end, y_end, rounds) of a chunk that is solved again, on record."""
        bare = replace(part, times=None, problem=replace(part.problem, t_eval=NO_TIMES))
        n, size, dtype = self.back.solver.n, part.size, self.back.solver.dtype
        room = int(tries.sum()) // self.lanes + int(tries.max()) + 1  # no lane waits while members are left
        if room > len(self.marks):
            self.marks, self.states = (
                np.empty((room, loop.ROUND_MARKS, self.lanes)),
                np.empty((room, n, self.lanes), dtype),
            )
        t_end, y_end, tally = np.empty(size), np.empty((size, n), dtype), np.empty((size, loop.TALLIES), np.int64)
        arrays = member_arrays(bare, dtype)
        self.queue[0] = 0
        self.forward.start(bare, arrays, t_end, y_end, np.empty((size, 0, n), dtype), tally)
        self.forward.record(self.marks, self.states)
        self.forward.run(0, self.stop)
        assert self.stop.is_set() or (tally[:, loop.ENDED_AS] == Status.SUCCESS).all()
        return arrays, t_end, y_end, self.forward.buffers.whole[loop.SEGMENTS]

    def _backwards(self, part, arrays, t_end, y_end, rounds, rows_bar):
        solver, size, rows = self.back.solver, part.size, part.rows
        n, m, dtype = solver.n, solver.m, solver.dtype
        times = np.ascontiguousarray(part.problem.t_eval if part.times is None else part.times)
        found = Cotangents(
            np.empty((size, n), dtype), np.empty((size, m), dtype), np.empty(size), np.empty(size),
            np.zeros((size, rows)),
        )  # fmt: skip
        given = self.wide | {
            "marks": self.marks, "states": self.states, "t_end": t_end, "y_end": y_end, "times": times,
            "parameters": arrays["parameters"], "rows_bar": np.ascontiguousarray(rows_bar, dtype),
            "times_bar": found.times, "t0_bar": found.t0, "t1_bar": found.t1, "y0_bar": found.y, "p_sum": found.p,
        }  # fmt: skip
        t0, t1 = (float(np.ravel(arrays[name])[0]) for name in ("begins", "ends"))
        whole = np.zeros(at.WHOLES, np.int64)
        whole[at.N], whole[at.M], whole[at.DEGREE], whole[at.ROUNDS] = n, m, self.back.degree, rounds
        whole[at.ROWS], whole[at.OWN_TIMES] = rows, int(part.times is not None)
        whole[at.STOPS], whole[at.AHEAD] = len(part.problem.tstops), 1 if t1 > t0 else -1
        whole[at.OWN_P], whole[at.OWN_PARAMETERS] = int(self.own_p), len(part.columns) if self.own_p else 0
        arrays_in_order = [*(given[name] for name in Tape._fields), whole]
        addresses = [k.address if k else 0 for k in self.back.kernels]
        packed = np.array([*addresses, *map(address, arrays_in_order)], np.int64)
        self.loop(address(packed))
        return found


def compiled_pull_rounds(dtype, number):
    """`rounds.pull_rounds` compiled for states of `dtype` and so many lanes; threads wait for the first of them."""
    with _one_at_a_time:
        return _compiled_pull_rounds(str(dtype), number)


_one_at_a_time = threading.Lock()


@functools.cache
def _compiled_pull_rounds(dtype, number):
    function, helpers = loop_back_text(number)
    return loop_function(f"pull_rounds{number}", function, loop_back_signature(dtype), helpers)


@functools.cache
def loop_back_text(number):
    """`rounds.pull_rounds` for so many lanes, and the functions that it calls."""
    found = specialised((lanes, at), number)
    parts = [f for name, f in found.items() if name != "pull_rounds"]
    return found["pull_rounds"], (*parts, slope_along, *functions_of(interpolate).values())


def loop_back_signature(dtype):
    """The kinds of its arguments, as `loop_function` takes them."""
    kinds = dict.fromkeys(Tape._fields, f"{dtype}*") | dict.fromkeys(NUMBERS, "float64*")
    kinds |= dict.fromkeys(("columns", "count"), "int64*")
    return (Pulls, *["int"] * len(Pulls._fields)), (Tape, *kinds.values()), "int64*"
