"""`odec.solve_vjp` with `batched`: an ensemble, and the gradient of a function of its rows."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from odec.ensemble import chosen_members, solve_ensemble
from odec.ensemble_inputs import STATE
from odec.errors import ArgumentError
from odec.gradient import Gradient
from odec.gradients.members import MembersBack
from odec.graph.structure import component_paths, structure_of

STEERED = "checkpoints", "differentiate_steps", "adjoint_rtol", "adjoint_atol", "adjoint_method"
REFUSED = {  # keyword of solve_ensemble: (what it is without, why it is not)
    "events": ((), "they are not differentiated here; leave events out, and end t_span where the event would."),
    "reduce": ((), "the rows are what is differentiated; leave it out, and reduce `ens.ys`."),
    "executor": (None, "gradients are made in this process; leave it out, and ask for threads."),
    "on_device": (False, "rows and their cotangents lie in the host's memory; leave it out."),
    "gather": (True, "the rows are needed here; leave it out."),
}  # fmt: skip


def ensemble_vjp(model, t_span, y0, params, batched, adjoint, steered, options):
    """(ens, pullback): the EnsembleSolution of `odec.solve_ensemble`, and the transposed derivative of its rows.

    steered : (checkpoints, differentiate_steps, adjoint_rtol, adjoint_atol, adjoint_method), None each
    options : as solve_ensemble takes them

    Raises
    ------
    ArgumentError, ShapeError, TraceError : as solve_ensemble; what gradients of ensembles do not do
    """
    _check(adjoint, steered, options)
    ens = solve_ensemble(model, t_span, y0, params, batched=batched, **options)
    where = options.get("target", "cpu"), options.get("threads")
    return ens, EnsemblePullback(ens, *where, isinstance(params, dict))


def _check(adjoint, steered, options):
    if adjoint != "discrete":
        raise ArgumentError(
            f"solve_vjp: adjoint is {adjoint!r}, but batched asks for an ensemble, which has the discrete adjoint "
            "only; leave adjoint out, or solve the members one by one."
        )
    for name, value in zip(STEERED, steered, strict=True):
        if value is not None:
            raise ArgumentError(
                f"solve_vjp: {name} is {value!r}, but the gradient of an ensemble has no such choice: its members are "
                "solved again, some at a time, and gone back over; leave it out."
            )
    for name, (without, why) in REFUSED.items():
        given = options.get(name, without)
        if given is not None and not _is(given, without):
            raise ArgumentError(f"solve_vjp: {name} is {given!r}: {why}")


def _is(given, without):
    return isinstance(given, (tuple, list)) and not given if without == () else given == without


class EnsemblePullback:
    """The transposed derivative of the rows of an ensemble: call it with cotangents in the structure of `ens.ys`, or,
    where the end only was kept, of `ens.y1`.

    It solves the members that succeeded again, some at a time, and goes back over their steps, whose sizes are data. Of
    members that failed, all cotangents are zero, whatever those of their rows are.
    """

    def __init__(self, ens, target, threads, by_name):
        batch, self._ends = ens.origin.batch, ens.origin.batch.rows == 0
        self._ens, self._by_name, self._where = ens, by_name, np.flatnonzero(ens.success)
        chosen = chosen_members(batch, self._where)  # copies, which the user cannot change
        self._batch = replace(chosen, problem=replace(batch.problem, t_eval=batch.problem.t_eval.copy()))
        steps = ens.steps[self._where].astype(np.int64)
        tries, self._steps, self._back = steps + ens.rejected[self._where], int(steps.sum()), None
        origin = ens.origin.system, ens.origin.record
        if len(self._where) and target == "cuda":
            from odec.gradients.members_cuda import MembersBackOnCuda

            self._back = MembersBackOnCuda(*origin, self._batch, steps, tries)
        elif len(self._where):
            self._back = MembersBack(*origin, self._batch, tries, threads)

    def __repr__(self):
        return f"<pullback of {self._ens.name} over {self._steps:,} steps of {len(self._where):,} members>"

    def __call__(self, ys_bar):
        """The Gradient; ArgumentError or ShapeError for cotangents that are not finite or do not fit.

        Inputs that are batched have their first axis N, as have t0, t1 and t_eval where they are the members' own;
        cotangents of what members share are sums over them.
        """
        began = time.perf_counter()
        rows_bar = self._rows(ys_bar)
        pulled = None if self._back is None else self._back.pull(rows_bar[self._where])
        return self._gradient(pulled, began)

    def _rows(self, ys_bar):
        """(N, rows, n) of the cotangents."""
        ens, structure = self._ens, self._ens.structure
        what, size, rows = f"{ens.name}: ys_bar", len(ens), ens.flat_rows.shape[1]
        dtype, given = ens.flat_y1.dtype, [leaf.shape for _, leaf in structure_of(ys_bar, what).leaves]
        of_ends = self._ends and given == [(size, *leaf.shape) for _, leaf in structure.leaves]
        lead = (size,) if of_ends else (size, rows)
        flat = structure.flatten_members(ys_bar, what, dtype, *lead)
        return self._checked(flat.reshape(size, rows, structure.size))

    def _checked(self, flat):
        """The cotangents; ArgumentError where one that matters is not finite."""
        matters, own = self._ens.success[:, None], self._ens.origin.batch.times
        if own is not None:
            matters = matters & ~np.isnan(own)
        bad = ~np.isfinite(flat) & matters[..., None]
        if bad.any():
            member, row, column = (int(k) for k in np.argwhere(bad)[0])
            path = list(component_paths(self._ens.structure))[column]
            raise ArgumentError(
                f"{self._ens.name}: ys_bar{path} of row {row} of member {member} is {flat[member, row, column]}; "
                "finite numbers are needed."
            )
        return flat

    def _gradient(self, pulled, began):
        batch, system, size = self._ens.origin.batch, self._ens.origin.system, len(self._ens)
        dtype, where = system.dtype, self._where

        def of(name, own, shape):
            if pulled is None:
                return np.zeros((size, *shape) if own else shape)
            if not own:
                return getattr(pulled.summed, name)
            return _spread(getattr(pulled.own, name), where, size)

        y_own = batch.states is not None
        y = of("y", y_own, (system.y_structure.size,)).astype(dtype, copy=False)
        p = of("p", False, (system.p_structure.size,)).astype(dtype, copy=False)
        t0, t1 = (of(name, own is not None, ()) for name, own in (("t0", batch.begins), ("t1", batch.ends)))
        values = system.p_structure.unflatten(p) | self._own_parameters(pulled)
        return Gradient(
            system.y_structure.unflatten(y, (size,) if y_own else ()),
            values if self._by_name else tuple(values.values()),
            None if self._ends else of("times", batch.times is not None, (batch.rows,)),
            t0 if batch.begins is not None else float(t0), t1 if batch.ends is not None else float(t1),
            {"steps": self._steps, "again": int(self._again), "seconds": time.perf_counter() - began},
        )  # fmt: skip

    @property
    def _again(self):
        return 0 if self._back is None else self._back.tries.sum()

    def _own_parameters(self, pulled):
        """{name: (N, ...)} of the parameters that members differ in."""
        ens, system, found, start = self._ens, self._ens.origin.system, {}, 0
        for name in ens.batched:
            if name != STATE:
                structure, place = system.p_structure.part(name)
                k = place.stop - place.start
                flat = np.zeros((len(ens), k), system.dtype)
                if pulled is not None:
                    flat[self._where] = pulled.parameters[:, start : start + k]
                found[name], start = structure.unflatten(flat, (len(ens),)), start + k
        return found


def _spread(values, where, size):
    """Values of the members at `where`; zeros of the others."""
    out = np.zeros((size, *values.shape[1:]), values.dtype)
    out[where] = values
    return out
