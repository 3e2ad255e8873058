"""Ensembles over an executor: chunks of members sent out, their results put in place as they end."""

from __future__ import annotations

import os
import queue
import reprlib
import sys
from concurrent.futures import BrokenExecutor, CancelledError, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from odec.chunks import AHEAD, LEAST, Chunks, most_members
from odec.errors import ArgumentError, SolveError, counted
from odec.integrate.batch import NONE_KEPT, Fired, Results
from odec.job import Job, Ready, solve_part

LISTEN_SECONDS = 0.5  # between looks at whether an executor that says nothing is still there


def run_scattered(system, record, batch, events, reduce, executor, reached=None, target="cpu", threads=None,
                  gather=True):  # fmt: skip
    """The Results of a Batch whose chunks run on an executor: those of `run_batch`, to the bit.

    system : System; record : the record of a method
    events : the Events that batch.problem.events was made of
    reduce : names of what to keep of the rows instead of the rows themselves, as reductions.py has them
    executor : concurrent.futures.Executor, or anything whose submit(f, *args) returns such futures; a
        dask.distributed.Client
    reached : called with how many members have ended, after each chunk
    threads : of each worker, 1 unless given
    gather : False leaves the rows on a Dask cluster, and makes `ys` a dask.array of them

    Raises
    ------
    ArgumentError : no executor, one that is shut down, or a method that cannot be pickled for another process;
        gather=False without a Dask client
    SolveError : the executor stopped, or its workers died, before all members had ended
    """
    check_executor(system.name, executor, gather)
    bare = replace(batch.problem, events=None, pause=None)
    job = Job(system, record, bare, tuple(reduce), target, threads or 1)
    least = LEAST[target] * job.threads
    chunks = Chunks(batch.size, most_members(batch, bool(reduce)), batch.block if reduce else 1, least)
    if is_client(executor):
        from odec.interop.dask import ClientPool, left_on_cluster

        packed = job.packed(events)
        if gather or reduce or not batch.rows:
            return collected(ClientPool(executor, packed, system.name), batch, chunks, reached)
        return left_on_cluster(executor, packed, system.name, batch, least, reached)
    sent = Ready(job, batch.problem) if isinstance(executor, ThreadPoolExecutor) else job.packed(events)
    return collected(ExecutorPool(executor, sent, system.name), batch, chunks, reached)


def check_executor(name, executor, gather=True):
    """ArgumentError where an object, if not None, is no executor, or cannot keep rows as gather=False asks."""
    if executor is not None and (isinstance(executor, type) or not callable(getattr(executor, "submit", None))):
        raise ArgumentError(
            f"{name}: executor is {reprlib.repr(executor)}; an object of a class of concurrent.futures, as "
            "ProcessPoolExecutor(), or a dask.distributed.Client is needed."
        )
    if not gather and not is_client(executor):
        found = "there is no executor" if executor is None else f"the executor is a {type(executor).__name__}"
        raise ArgumentError(
            f"{name}: gather=False leaves rows on the workers of a Dask cluster, but {found}; give a "
            "dask.distributed.Client, or leave gather out."
        )


def is_client(executor):
    """Whether an object is a dask.distributed.Client; does not import Dask."""
    module = sys.modules.get("distributed")
    return module is not None and isinstance(executor, module.Client)


class ExecutorPool:
    """A concurrent.futures.Executor, as `collected` uses it.

    job : Packed, or Ready for an executor of this process
    """

    def __init__(self, executor, job, name):
        self._executor, self._job, self.name = executor, job, name

    @property
    def workers(self):
        """How many chunks run at the same time; an executor that does not say is taken to have one for each core."""
        told = getattr(self._executor, "_max_workers", None) or getattr(self._executor, "num_workers", None)
        return told if isinstance(told, int) and told > 0 else os.cpu_count() or 1

    def submit(self, part):
        """A future of `solve_part`."""
        return self._executor.submit(solve_part, self._job, part)

    def check(self):
        """Nothing: an executor that stops ends its futures."""

    def cancel(self, futures):
        """Cancel what has not begun."""
        for future in futures:
            future.cancel()

    def explained(self, error, ended, size):
        """The error to raise for one that the executor raised when `ended` of all members had ended."""
        kind, so_far = type(self._executor).__name__, f"after {ended:,} of {counted(size, 'member')}"
        if isinstance(error, BrokenExecutor):
            return SolveError(
                f"{self.name}: a worker of the {kind} died {so_far}, and took the executor with it; start a new one, "
                "with fewer workers if memory is short. A Dask client goes on with the workers that are left."
            )
        stopped = isinstance(error, RuntimeError) and "shutdown" in str(error)
        if stopped and not ended:
            return ArgumentError(f"{self.name}: the executor, a {kind}, is shut down; make a new one.")
        if stopped or isinstance(error, CancelledError):
            return SolveError(
                f"{self.name}: the {kind} was shut down {so_far}; keep it open until the ensemble returns."
            )
        return error


def collected(pool, batch, chunks, reached=None):
    """The Results of all chunks of a batch, each sent to the pool and put in its place when it ends.

    An error, or the keyboard, cancels what has not begun.
    """
    room, pending, ended = Room(batch.size), {}, queue.SimpleQueue()
    bare = replace(batch, problem=None)
    try:
        while room.ended < batch.size:
            workers = pool.workers
            while len(pending) < AHEAD * workers and (span := chunks.after(workers)):
                pending[span] = future = pool.submit(bare.part(*span))
                future.add_done_callback(lambda _, span=span: ended.put(span))
            span = _next(ended, pool)
            results, seconds = pending.pop(span).result()
            chunks.ended(span[1] - span[0], seconds)
            room.place(span[0], results)
            if reached is not None:
                reached(room.ended)
    except BaseException as error:
        pool.cancel(pending.values())
        told = pool.explained(error, room.ended, batch.size)
        if told is error:
            raise
        raise told from error
    return room.results()


def _next(ended, pool):
    """The chunk that ends next."""
    while True:
        try:
            return ended.get(timeout=LISTEN_SECONDS)
        except queue.Empty:
            pool.check()


BY_MEMBER = ("t1", "y1", "status", "steps", "rejected", "nfev", "ys")


class Room:
    """Room for the Results of all members, filled chunk by chunk in any order."""

    def __init__(self, size):
        self.ended, self._size = 0, size
        self._whole: Any = None
        self._pieces: dict[int, Results] = {}  # what has no place of its own before all are there

    def place(self, start, part):
        """Put the Results of the members from `start` on in their place."""
        if self._whole is None:
            self._whole = Results(**{name: self._empty_like(getattr(part, name)) for name in BY_MEMBER})
        stop = start + len(part.t1)
        for name in BY_MEMBER:
            if getattr(part, name) is not None:
                getattr(self._whole, name)[start:stop] = getattr(part, name)
        self._whole.slots += part.slots
        self._pieces[start] = replace(part, **dict.fromkeys(BY_MEMBER))
        self.ended += stop - start

    def _empty_like(self, array) -> Any:
        return None if array is None else np.empty((self._size, *array.shape[1:]), array.dtype)

    def results(self):
        """The Results of all members."""
        pieces = sorted(self._pieces.items())
        self._whole.partials = [partial for _, piece in pieces for partial in piece.partials]
        self._whole.fired = _all_fired([(start, piece.fired) for start, piece in pieces if piece.fired is not None])
        return self._whole


def _all_fired(pieces):
    """The Fired of all members from (first member, Fired) of chunks in order."""
    if not pieces:
        return NONE_KEPT
    joined = {name: np.concatenate([getattr(f, name) for _, f in pieces]) for name in ("event", "t", "y")}
    return Fired(np.concatenate([f.member + start for start, f in pieces]), **joined)
