"""`odec.solve_ensemble`: check the arguments, bind once, run all members, say how each went."""

from __future__ import annotations

import inspect
import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from odec.distributed import check_executor, run_scattered
from odec.ensemble_inputs import batch_of, bound_inputs, finite_members, inputs_of, number_of_members
from odec.ensemble_solution import EnsembleSolution, Origin, succeeded
from odec.errors import ArgumentError, Status, nearest
from odec.event import event_kernels, event_list
from odec.integrate.batch import NONE_KEPT, Batch, Fired, Results
from odec.integrate.control import controller_named
from odec.integrate.ensemble import prepare_batch, run_batch
from odec.integrate.problem import Problem
from odec.integrate.reductions import REDUCTIONS, Partial, combined
from odec.progress import ensemble_bar
from odec.solving import method_for, positive_integer, step_limits, tolerance
from odec.steppers.step import check_fits
from odec.system import System

TARGETS = ("cpu", "cuda")
REFUSED = {
    "dense_output": "an ensemble keeps no polynomials; ask with t_eval for the times you need, (m,) or (N, m).",
    "throw": "an ensemble raises for none of its members; leave it out, and look at the result's `status`, `failures` "
    "and `message(i)`.",
    "mass_matrix": "it is not available in this version; leave it out.",
}


def solve_ensemble(model, t_span, y0, params=(), *, batched=(), method="auto", rtol=1e-6, atol=1e-9, t_eval=None,
                   events=(), first_step=None, min_step=0.0, max_step=math.inf, max_steps=1_000_000, controller=None,
                   tstops=(), dtype=None, target="cpu", threads=None, executor=None, reduce=(), progress=False,
                   on_device=False, gather=True, **refused):  # fmt: skip
    """Solve dy/dt = f(t, y, *params) for N members, each with its own step size, its own end and its own status.

    Parameters
    ----------
    model : Model or System
    t_span : (t0, t1), in the model's unit of time; each a number or an array (N,), all members in one direction
    y0 : the state at t0, an array or a structure; batched, each of its arrays has a first axis N
    params : tuple in signature order, or dict by name; of those batched each array has a first axis N
    batched : the inputs that the members differ in: "y0", the name of a parameter, or a tuple of such
    t_eval : sorted times to keep, (m,) for all members, or (N, m) for each its own with nan after its last; None and []
        keep the end only, unlike in odec.solve: the steps of all members may be more than memory holds
    method, rtol, atol, events, first_step, min_step, max_step, max_steps, controller, dtype : as odec.solve takes them,
        for all members
    tstops : as odec.solve takes them, within the spans of all members
    target : "cpu", vector lanes times threads; "cuda", one thread of the GPU a member
    threads : how many of the CPU's to use, None for as many as it has cores; no result depends on it
    executor : a concurrent.futures.Executor or a dask.distributed.Client that runs the members in other processes
    reduce : "mean", "std", "min", "max", "sum", or a tuple of them: what to keep of the rows of the members that
        succeed, in place of the rows
    progress : show a progress bar (needs tqdm)
    gather : False leaves the rows on the workers of a Dask client: `ys` is a dask.array
    on_device : with target="cuda", leave states and rows on the GPU; they are not made nan where a member failed

    Returns
    -------
    EnsembleSolution. A member that fails, or whose own y0 or parameters are not finite, has its status in it and does
    not touch the others

    Raises
    ------
    ArgumentError, ShapeError, TraceError : the arguments or the model cannot be used
    SolveError : the executor stopped before all members had ended
    """
    _refuse(refused)
    began = time.perf_counter()
    work, inputs, batch = posed_ensemble(
        model, t_span, y0, params, batched=batched, method=method, rtol=rtol, atol=atol, t_eval=t_eval, events=events,
        first_step=first_step, min_step=min_step, max_step=max_step, max_steps=max_steps, controller=controller,
        tstops=tstops, dtype=dtype, target=target, threads=threads, executor=executor, reduce=reduce,
        on_device=on_device, gather=gather,
    )  # fmt: skip
    work.prepare(batch)
    compiled = time.perf_counter()
    found = work.run_finite(batch, bool(progress))
    seconds = {"compile_seconds": compiled - began, "solve_seconds": time.perf_counter() - compiled}
    return solution_of_members(work, inputs, batch, found, t_span, seconds)


def posed_ensemble(model, t_span, y0, params=(), *, batched=(), method="auto", rtol=1e-6, atol=1e-9, t_eval=None,
                   events=(), first_step=None, min_step=0.0, max_step=math.inf, max_steps=1_000_000, controller=None,
                   tstops=(), dtype=None, target="cpu", threads=None, executor=None, reduce=(), on_device=False,
                   gather=True):  # fmt: skip
    """(Work, Inputs, Batch) of the arguments of `solve_ensemble`, which it checks; nothing is compiled yet.

    Raises
    ------
    ArgumentError, ShapeError, TraceError : the arguments or the model cannot be used
    """
    inputs = inputs_of(model, y0, params, batched)
    if not batched:
        number_of_members(inputs, t_span, t_eval)  # before the model meets inputs that should have been named
    system, y, p = bound_inputs(model, inputs, dtype)
    name, rtol = system.name, tolerance(system, "rtol", rtol)
    record = method_for(name, method, rtol, system.dtype)
    _check_place(name, target, threads, executor, on_device, gather)
    check_fits(record, system)
    first, least, most = step_limits(name, record, first_step, min_step, max_step)
    problem = Problem(
        (0.0, 1.0), y, p, rtol, tolerance(system, "atol", atol),
        first_step=first, min_step=least, max_step=most, max_steps=positive_integer(name, "max_steps", max_steps),
        controller=controller_named(controller),
    )  # fmt: skip
    batch = batch_of(system, inputs, problem, t_span, t_eval, tstops)
    work = Work(
        system, record, event_list(events), _reductions(name, reduce), target, threads, executor, bool(on_device),
        bool(gather),
    )  # fmt: skip
    return work, inputs, batch


_KEYWORDS = tuple(inspect.signature(solve_ensemble).parameters)


@dataclass(frozen=True)
class Work:
    """What runs the members, and where.

    system : System; record : of the method; events : Events; the rest as solve_ensemble takes it, checked
    """

    system: System
    record: Any
    events: tuple
    reduce: tuple[str, ...]
    target: str
    threads: int | None
    executor: Any
    on_device: bool
    gather: bool

    def prepare(self, batch):
        """Compile what the members need, so that the time of their solves does not hold it."""
        if self.events:
            method = self.record if self.target == "cpu" else None
            batch.problem.events = event_kernels(self.system, self.events, method)
        if self.executor is not None:
            return
        if self.target == "cpu":
            prepare_batch(self.system.solver(self.record), batch)
        else:
            from odec.integrate.ensemble_cuda import prepare_cuda

            prepare_cuda(self.system, self.record, batch)

    def run_finite(self, batch, progress):
        """The Results of a Batch; members whose state or parameters are not finite are not solved, and fail."""
        finite = finite_members(batch)
        if finite is None:
            return self._run_shown(batch, progress)
        if self.on_device or not self.gather:
            option = "on_device" if self.on_device else "gather"
            raise ArgumentError(
                f"{self.system.name}: y0 or params of member {np.flatnonzero(~finite)[0]} are not finite; leave such "
                f"members out, or leave {option} out."
            )
        where = np.flatnonzero(finite)
        if not where.size:
            return _spread(_no_results(self, batch), where, batch)
        return _spread(self._run_shown(chosen_members(batch, where), progress), where, batch)

    def _run_shown(self, batch, progress):
        if not progress:
            return self.run(batch, None)
        with ensemble_bar(self.system.name, batch.size) as reached:
            return self.run(batch, reached)

    def run(self, batch, reached):
        """The Results of a Batch, on the target or over the executor."""
        if self.executor is not None:
            return run_scattered(
                self.system, self.record, batch, self.events, self.reduce, self.executor, reached, self.target,
                self.threads, self.gather,
            )  # fmt: skip
        if self.target == "cuda":
            from odec.integrate.ensemble_cuda import run_batch_cuda

            return run_batch_cuda(self.system, self.record, batch, self.reduce, reached, self.on_device)
        return run_batch(self.system.solver(self.record), batch, self.threads, self.reduce, reached)


def _refuse(given):
    for name in given:
        if name not in REFUSED:
            raise TypeError(f"solve_ensemble() has no keyword {name!r}{nearest(name, _KEYWORDS)}")
        raise ArgumentError(f"solve_ensemble: {name}: {REFUSED[name]}")


def _check_place(name, target, threads, executor, on_device, gather):
    if target not in TARGETS:
        raise ArgumentError(
            f"{name}: target {target!r} is not known{nearest(target, TARGETS)} It is one of {', '.join(TARGETS)}."
        )
    if threads is not None:
        positive_integer(name, "threads", threads)
        if target == "cuda":
            raise ArgumentError(
                f"{name}: threads is {threads}, but target is 'cuda', which takes one a member; leave it out."
            )
    check_executor(name, executor, gather)
    if on_device and (target != "cuda" or executor is not None):
        where = "with an executor" if executor is not None else f"but target is {target!r}"
        raise ArgumentError(
            f"{name}: on_device is {on_device!r} {where}; results can stay on the GPU of this process only, with "
            "target='cuda'."
        )


def _reductions(name, reduce):
    """The names of the reductions, each once."""
    try:
        names = (reduce,) if isinstance(reduce, str) else tuple(reduce)
    except TypeError:
        names = () if reduce is None else (reduce,)
    for found in names:
        if not isinstance(found, str) or found not in REDUCTIONS:
            raise ArgumentError(
                f"{name}: reduce has {found!r}, which is not known{nearest(found, REDUCTIONS)} It takes "
                f"{', '.join(REDUCTIONS)}."
            )
    return tuple(dict.fromkeys(names))


# ---- members that are not solved ----------------------------------------------------------------------------


def chosen_members(batch, where):
    """The Batch of the members at `where`."""
    arrays = {name: getattr(batch, name) for name in ("begins", "ends", "states", "parameters", "times")}
    return replace(batch, size=len(where), **{n: a if a is None else a[where] for n, a in arrays.items()})


def _no_results(work, batch):
    """The Results of no members."""
    n, dtype, none = work.system.y_structure.size, work.system.dtype, np.empty(0, np.int64)
    rows = np.empty((0, max(batch.rows, 1), n))
    return replace(
        Results.waiting(np.empty(0), np.empty((0, n), dtype), np.empty((0, batch.rows, n), dtype)),
        fired=Fired(none, none, np.empty(0), np.empty((0, n), dtype)),
        partials=[Partial.of(rows, np.empty(0, bool), work.reduce)] if work.reduce else [],
    )


def _spread(found, where, batch):
    """The Results of a Batch from those of its members at `where`; the others have not started."""

    def at(array, otherwise):
        out = np.empty((batch.size, *array.shape[1:]), array.dtype)
        out[:] = otherwise
        out[where] = array
        return out

    begins = batch.problem.span[0] if batch.begins is None else batch.begins
    return replace(
        found, t1=at(found.t1, begins), y1=at(found.y1, np.nan), status=at(found.status, Status.NON_FINITE_START),
        steps=at(found.steps, 0), rejected=at(found.rejected, 0), nfev=at(found.nfev, 0),
        ys=NONE_KEPT if found.ys is None else at(found.ys, np.nan),
        fired=found.fired and replace(found.fired, member=where[found.fired.member]),
    )  # fmt: skip


# ---- what is returned ---------------------------------------------------------------------------------------


def solution_of_members(work, inputs, batch: Batch, found, t_span, seconds):
    """The EnsembleSolution of the Results of a Batch; `seconds` join its stats."""
    system, good = work.system, succeeded(found.status)
    if not work.on_device:
        found.y1[~good] = np.nan
    rows = found.ys if batch.rows else found.y1.reshape(batch.size, 1, -1)
    stats = _counts(found, good) | seconds
    origin = Origin(system, work.record, work.events, replace(batch, problem=replace(batch.problem, events=None)))
    return EnsembleSolution(
        _times(batch, found), found.t1, found.status, found.steps, found.rejected, found.nfev,
        NONE_KEPT if work.reduce else rows, found.y1, stats, system.y_structure, system.name, system.state,
        tuple(t if np.ndim(t) == 0 else np.asarray(t) for t in t_span), inputs.given, _reduced(work, batch, found),
        found.fired, len(work.events), origin,
    )  # fmt: skip


def _counts(found, good):
    steps, rejected = int(found.steps.sum(dtype=np.int64)), int(found.rejected.sum(dtype=np.int64))
    return {
        "steps": steps, "rejected": rejected, "nfev": int(found.nfev.sum()),
        "lane_use": (steps + rejected) / found.slots if found.slots else 1.0, "trajectories": len(good),
        "failed": int(np.count_nonzero(~good)),
    }  # fmt: skip


def _times(batch, found):
    """The times of the rows, (m,) or (N, m)."""
    if batch.rows:
        return batch.problem.t_eval if batch.times is None else batch.times
    ended = found.status == Status.TERMINATED
    ends = np.broadcast_to(batch.problem.span[1] if batch.ends is None else batch.ends, (batch.size,))
    if batch.ends is None and not ended.any():
        return ends[:1].copy()
    return np.where(ended, found.t1, ends)[:, None]


def _reduced(work, batch, found):
    """{name: (m, *y.shape)}, without m of the end only, in the structure of y."""
    if not work.reduce:
        return {}
    structure, dtype = work.system.y_structure, work.system.dtype
    with np.errstate(over="ignore"):
        flat = {name: value.astype(dtype) for name, value in combined(found.partials).items()}
    if not batch.rows:
        return {name: structure.unflatten(value[0]) for name, value in flat.items()}
    return {name: structure.unflatten(value, (len(value),)) for name, value in flat.items()}
