"""What an ensemble sends to its workers, and what a worker makes of it."""

from __future__ import annotations

import hashlib
import pickle
import threading
import time
import zlib
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from odec import __version__
from odec.errors import ArgumentError
from odec.event import event_functions, event_table, with_series
from odec.integrate.ensemble import run_batch
from odec.integrate.problem import Problem
from odec.system import System

REMEMBERED = 8  # jobs that a worker keeps compiled


class Packed(NamedTuple):
    """A Job as bytes, and their hash."""

    digest: str
    data: bytes


class Watched(NamedTuple):
    """What the loop must know of an Event beside its functions."""

    terminal: bool | int
    direction: float


@dataclass(frozen=True)
class Job:
    """What the parts of an ensemble share. A System travels as its graph, and so do the functions of events.

    record : of the method; problem : without events; reduce, target, threads : as `run_batch` takes them
    functions : {name: JSON document of a Function}, as `event_functions` names them
    """

    system: System
    record: Any
    problem: Problem
    reduce: tuple[str, ...] = ()
    target: str = "cpu"
    threads: int = 1
    functions: dict | None = None
    watched: tuple[Watched, ...] = ()
    version: str = __version__

    def packed(self, events):
        """This Job and a list of Events, as bytes.

        Raises
        ------
        ArgumentError : the method cannot be pickled
        """
        from odec.graph.saved import to_json

        functions = event_functions(self.system, events) if events else {}
        if events and self.target == "cpu":
            functions = with_series(functions, self.record)
        documents = {name: to_json(f) for name, f in functions.items()}
        watched = tuple(Watched(e.terminal, e.direction) for e in events)
        try:
            pickle.dumps(self.record)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ArgumentError(
                f"{self.system.name}: the method {self.record.name} cannot be sent to another process ({error}); make "
                "it of what can be pickled, or use a ThreadPoolExecutor."
            ) from None
        data = zlib.compress(pickle.dumps(replace(self, functions=documents, watched=watched), 5), 1)
        return Packed(hashlib.sha256(data).hexdigest(), data)

    def ready(self):
        """The Ready of this Job, its events compiled."""
        from odec.graph.saved import from_json

        if not self.watched:
            return Ready(self, self.problem)
        functions = {name: from_json(document) for name, document in (self.functions or {}).items()}
        kernels = self.system.compiled_functions(functions)
        return Ready(self, replace(self.problem, events=event_table(kernels, self.watched)))


class Ready:
    """A Job, and its Problem with events: what solves parts."""

    def __init__(self, job, problem):
        self.job, self.problem = job, problem
        self._warm, self._warming = False, threading.Lock()

    def solve(self, part):
        """(Results, seconds) of a part of the batch, which comes without its problem."""
        part = replace(part, problem=self.problem)
        with self._warming:
            if not self._warm:  # one step of one member compiles what is needed, outside of the seconds
                self._run(replace(part.part(0, 1), problem=replace(self.problem, max_steps=1)))
                self._warm = True
        began = time.perf_counter()
        results = self._run(part)
        return results, time.perf_counter() - began

    def _run(self, batch):
        job = self.job
        if job.target == "cuda":
            from odec.integrate.ensemble_cuda import run_batch_cuda

            return run_batch_cuda(job.system, job.record, batch, job.reduce, None, False)
        return run_batch(job.system.solver(job.record), batch, job.threads, job.reduce)


_known: dict[str, Ready] = {}
_opening = threading.Lock()


def opened(packed):
    """The Ready of a Packed, from the memory of this process or made anew.

    Raises
    ------
    ArgumentError : packed by another version of odec
    """
    with _opening:
        found = _known.get(packed.digest)
        if found is None:
            if len(_known) >= REMEMBERED:
                _known.pop(next(iter(_known)))
            found = _known[packed.digest] = _unpacked(packed.data).ready()
        return found


def _unpacked(data):
    job = pickle.loads(zlib.decompress(data))
    if job.version != __version__:
        raise ArgumentError(
            f"{job.system.name}: a worker has odec {__version__}, but the ensemble was sent by odec {job.version}; "
            "install the same version on all of them."
        )
    return job


def solve_part(job, part):
    """(Results, seconds) of a part of a batch, without its problem; job is Packed or Ready."""
    return (opened(job) if isinstance(job, Packed) else job).solve(part)
