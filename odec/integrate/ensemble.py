"""Running a batch on the CPU: vector lanes times threads, each member with its own step size, its own end, its own
status.

No result depends on how many threads there are, nor on which members are neighbours: a lane's numbers are its own.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np

from odec.errors import Status
from odec.integrate import slots as at
from odec.integrate.batch import NONE_KEPT, Fired, Results
from odec.integrate.buffers import Buffers
from odec.integrate.compiled import compiled_loop
from odec.integrate.reductions import Partial
from odec.integrate.run import FIRST_PAUSE, next_pause

ROUND = 2**16  # members that the threads share at a time
REDUCED_ROWS = 2**21  # numbers of rows that are held before they are reduced
FIRED_ROOM = 4_096  # events of a thread between two collections
LOOK_SECONDS = 0.05  # between two looks at how far the threads are


def run_batch(solver, batch, threads=None, reduce=(), reached=None, lanes=None):
    """The Results of a Batch.

    solver : Solver of the system and the method
    threads : how many run at the same time, None for as many as there are cores
    reduce : names of what to keep of the rows instead of the rows themselves, as reductions.py has them
    reached : called with how many members have ended, now and then
    lanes : members that a thread takes side by side, None for as many as suit the CPU; may change the last digits
    """
    crew = _Crew(solver, batch, lanes or solver.lanes, threads or cores())
    found, reduced = _results(batch, solver, crew.round_size(reduce) if reduce else 0), bool(reduce)
    for start in range(0, batch.size, crew.round_size(reduce)):
        stop = min(start + crew.round_size(reduce), batch.size)
        rows = found.ys[: stop - start] if reduced else found.ys[start:stop]
        crew.run(start, stop, found, rows, reached)
        if reduced:
            found.partials += partials_of(batch, found, rows, start, stop, reduce)
    if reduced:
        found.ys = NONE_KEPT
    found.slots, found.fired = crew.slots, crew.collected()
    return found


def prepare_batch(solver, batch):
    """Compile what a batch needs, so that the time of its run does not hold it."""
    Worker(solver, batch, solver.lanes)
    compiled_loop(solver.dtype.name, batch.problem.events is not None, solver.lanes)


def cores():
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _results(batch, solver, held):
    """Results to fill in; rows of `held` members only, where they are reduced."""
    size, n, dtype = batch.size, solver.n, solver.dtype
    rows = np.empty((min(held or size, size), batch.rows, n), dtype)
    return Results.waiting(np.empty(size), np.empty((size, n), dtype), rows)


def partials_of(batch, found, rows, start, stop, reduce):
    """The Partial of each block of members from start to stop."""
    good = np.isin(found.status[start:stop], (Status.SUCCESS, Status.TERMINATED))
    rows = rows if batch.rows else found.y1[start:stop, None]
    cuts = [slice(k, k + batch.block) for k in range(0, stop - start, batch.block)]
    return [Partial.of(rows[cut], good[cut], reduce) for cut in cuts]


class _Crew:
    """The threads that run a batch, round by round."""

    def __init__(self, solver, batch, lanes, threads):
        self.solver, self.batch, self.lanes = solver, batch, lanes
        self.queue = np.zeros(1, np.int64)
        most = max(1, min(threads, -(-batch.size // lanes)))
        self.workers = [Worker(solver, batch, lanes, self.queue) for _ in range(most)]
        self.stop = threading.Event()

    def round_size(self, reduce):
        """Members of a round: whole blocks where they are reduced."""
        if not reduce:
            return ROUND
        block, each = self.batch.block, max(1, self.batch.rows * self.solver.n)
        return max(block, min(ROUND, REDUCED_ROWS // each) // block * block)

    def run(self, start, stop, found, rows, reached):
        """Run the members from start to stop and write down what they leave behind."""
        self.queue[0] = 0
        part, tally = self.batch.part(start, stop), np.empty((stop - start, at.TALLIES), np.int64)
        arrays = member_arrays(part, self.solver.dtype)  # held until all have ended
        rows.fill(np.nan)
        for worker in self.workers:
            worker.start(part, arrays, found.t1[start:stop], found.y1[start:stop], rows, tally)
        begun = lambda: reached(start + max(0, min(stop - start, int(self.queue[0])) - self.lanes * len(self.workers)))
        if len(self.workers) == 1:
            self.workers[0].run(start, self.stop, begun if reached else None)
        else:
            self._run_threads(start, begun if reached else None)
        found.note(start, self.solver.method, tally)
        if reached is not None:
            reached(stop)

    def _run_threads(self, start, look):
        with ThreadPoolExecutor(len(self.workers)) as pool:
            jobs = [pool.submit(worker.run, start, self.stop) for worker in self.workers]
            try:
                while wait(jobs, LOOK_SECONDS).not_done:
                    if look is not None:
                        look()
            except BaseException:
                self.stop.set()
                raise
        for job in jobs:
            job.result()

    @property
    def slots(self):
        """Steps that the lanes had room for."""
        return sum(worker.rounds for worker in self.workers) * self.lanes

    def collected(self):
        """The events of all members, by member."""
        n, dtype = self.solver.n, self.solver.dtype
        none = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty((0, n), dtype)
        parts = [none, *(part for worker in self.workers for part in worker.fired)]
        members, *others = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(members, kind="stable")  # one thread has all events of a member, in their order
        return Fired(members[order], *(column[order] for column in others))


class Worker:
    """One thread's lanes.

    queue (1,) : the next member, shared with the other threads
    """

    def __init__(self, solver, batch, lanes, queue=None):
        problem = batch.problem
        resets = problem.events is not None and any(reset is not None for reset in problem.events.resets)
        own_p = batch.parameters is not None or resets
        self.buffers = Buffers(solver, batch.rows > 0 or problem.events is not None, problem.events, None, lanes, own_p)
        self.shares_p, self.rounds, self.fired = not own_p, 0, []
        room = max(FIRED_ROOM, 2 * lanes * problem.events.most) if problem.events is not None else 0
        kinds = np.int64, np.int64, np.float64
        self.room = (*(np.empty(room, kind) for kind in kinds), np.empty((room, solver.n), solver.dtype))
        if queue is not None:
            self.buffers.place("members.queue", queue)

    def start(self, part, arrays, t1, y1, rows, tally):
        """Fill in the members of a part, and where they leave what they leave."""
        problem, buffers = part.problem, self.buffers
        buffers.start(problem, np.array(problem.tstops))
        for name, array in arrays.items():
            buffers.place(f"members.{name}", array)
        if self.shares_p:
            buffers.place("lanes.p", problem.p)
            buffers.place("lanes.own_p", problem.p)
        for name, array in zip(("fired_m", "fired_e", "fired_t", "fired_y"), self.room, strict=True):
            buffers.place(f"kept.{name}", array)
        for name, array in (("t_end", t1), ("y_end", y1), ("ys", rows), ("tally", tally)):
            buffers.place(f"kept.{name}", array)
        whole = buffers.whole
        whole[at.SIZE], whole[at.TIMES], whole[at.FIRED_ROOM] = part.size, part.rows, len(self.room[0])
        whole[at.OWN_BEGIN], whole[at.OWN_END] = int(part.begins is not None), int(part.ends is not None)
        whole[at.OWN_STATE], whole[at.OWN_TIMES] = int(part.states is not None), int(part.times is not None)
        whole[at.OWN_PARAMETERS] = 0 if part.parameters is None else part.parameters.shape[1]

    def record(self, marks, states):
        """Record each round of the members that were filled in: marks (room, 3, lanes), states (room, n, lanes)."""
        self.buffers.place("kept.marks", marks)
        self.buffers.place("kept.segments", states)
        whole = self.buffers.whole
        whole[at.RECORDS], whole[at.SEGMENTS], whole[at.SEGMENT_ROOM] = at.EACH_ROUND, 0, len(marks)

    def run(self, start, stop, look=None):
        """Run until no member is left, or `stop` is set."""
        whole, pause, status = self.buffers.whole, FIRST_PAUSE, at.RUNNING
        while status != at.SUCCESS and not stop.is_set():
            whole[at.PAUSE] = pause
            before, began = whole[at.ROUNDS], time.perf_counter()
            status = self.buffers.advance()
            if status in (at.NEEDS_ROOM, at.SUCCESS):
                self._collect(start)
            if status == at.RUNNING:
                pause = next_pause(whole[at.ROUNDS] - before, time.perf_counter() - began)
                if look is not None:
                    look()
        self.rounds += whole[at.ROUNDS]

    def _collect(self, start):
        """Take the events that there are out of the room for them."""
        count = self.buffers.whole[at.ALL_FIRED]
        if count:
            members, which, times, states = (column[:count].copy() for column in self.room)
            self.fired.append((members + start, which, times, states))
            self.buffers.whole[at.ALL_FIRED] = 0


def member_arrays(part, dtype):
    """The arrays in which the members of a part differ, or what they share, contiguous, by name."""
    problem, span = part.problem, part.problem.span
    given = {
        "begins": (part.begins, [span[0]], float), "ends": (part.ends, [span[1]], float),
        "states": (part.states, problem.y, dtype), "parameters": (part.parameters, (), dtype),
        "columns": (part.columns, (), np.int64), "p": (None, problem.p, dtype),
        "times": (part.times, problem.t_eval, float),
    }  # fmt: skip
    return {
        name: np.ascontiguousarray(shared if own is None else own, kind) for name, (own, shared, kind) in given.items()
    }
