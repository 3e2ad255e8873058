"""What the loop works on, and the call that advances it."""

from __future__ import annotations

from typing import Any

import numpy as np

from odec.codegen.compile import address
from odec.codegen.kernel import work_for
from odec.codegen.workspace import ALIGNMENT, aligned
from odec.integrate import roots
from odec.integrate import slots as at
from odec.integrate.advance import rules_of
from odec.integrate.compiled import compiled_loop, loop_text
from odec.integrate.lanes import Kept, Kernels, Lanes, Members
from odec.integrate.members import FAR_OFF

GROUPS = {"kernels": Kernels, "events": None, "rates": None, "lanes": Lanes, "members": Members, "kept": Kept,
          "whole": None}  # fmt: skip
NAMES = [f"{g}.{f}" if group else g for g, group in GROUPS.items() for f in (group._fields if group else ("",))]
PLACES = {name: place for place, name in enumerate(NAMES)}


class Buffers:
    """What one run of the loop works on, laid out in three allocations, and the call that advances it.

    solver : Solver; lanes : how many members run side by side; own_p : whether they can differ in parameters, or an
    event can change them; interpolates : whether the dense output is needed; tapes : whether problems have Residuals
    events : EventKernels or None; state : a vector (n,) to work on in place of one of its own
    """

    def __init__(self, solver, interpolates, events, state=None, lanes=1, own_p=False, tapes=False):
        self.python, self._method = solver.python, solver.method
        method, n, m, n_events = solver.method, solver.n, solver.m, len(events.resets) if events else 0
        slope, adaptive = n if method.carries else 0, method.adaptive
        shared = ("rtol", "atol", "rules", *(() if own_p else ("p",)))
        advance = solver.kernel("advance", lanes, shared, interpolates, tapes)
        dense = solver.kernel("dense", lanes, shared) if interpolates else None
        series = events and events.series
        kernels = advance, solver.rhs, dense, events and events.values, events and events.rates, series
        resets = list(events.resets) if events else []
        work = 0 if self.python else work_for([k for k in (*kernels, *resets) if k is not None], solver.dtype)
        row, p_wide = (n if lanes > 1 else 0), m * lanes if own_p and lanes > 1 else 0
        degree = method.degree if interpolates else 0
        rows = len(method.kept) if series else 0
        self._states = _Block(
            solver.dtype, ALIGNMENT, y=0 if state is not None else n * lanes, y_next=n * lanes, f0=slope * lanes,
            f1=slope * lanes, k=0 if tapes else len(method.kept) * n * lanes, q=degree * n * lanes, p=p_wide,
            own_p=m * lanes if own_p else m, rtol=n if adaptive else 0, atol=n if adaptive else 0, work=work,
            g=5 * n_events * lanes, before=row, after=row, slope=row, poly=degree * row, terms=rows * row,
            jet=n_events * rows, trial=n + m if events else n if adaptive else 0,
        )  # fmt: skip
        self._numbers = _Block(
            np.float64, 8, now=at.NOWS * lanes, then=at.NOWS * lanes, task=at.TASKS * lanes, rules=at.RULES,
            real=at.REALS * lanes, roots=n_events, halves=(roots.DEPTH + 1) * rows,
            places=roots.PLACES if series else roots.SAMPLES if events else 0, begin=1, end=1, t_end=1,
        )  # fmt: skip
        self._counts = _Block(
            np.int64, 8, count=at.COUNTS * lanes, whole=at.WHOLES, watch=n_events * at.WATCHED * lanes,
            first_watch=n_events * at.WATCHED, queue=1, tally=at.TALLIES, resets=len(resets),
        )  # fmt: skip
        self.size = sum(block.size for block in (self._states, self._numbers, self._counts))
        self.state = self._states["y"] if state is None else state
        self.slope, self.p, self.work = self._states["f0"], self._states["own_p"], self._states["work"]
        self.rtol, self.atol = self._states["rtol"], self._states["atol"]
        self.now, self.rules, self.real, self.whole, self.count, self.tally = (
            _view(block[name])
            for block, name in (
                (self._numbers, "now"), (self._numbers, "rules"), (self._numbers, "real"), (self._counts, "whole"),
                (self._counts, "count"), (self._counts, "tally"),
            )
        )  # fmt: skip
        if events:
            self._counts["first_watch"][:] = events.watched
        self._cleared_counts = self._first_counts(solver, lanes, slope, n_events, own_p)
        self.arguments: list = [None] * len(PLACES)
        self._place_kernels(kernels, resets)
        self._place_buffers(state, lanes, own_p)
        self._run = self._python_loop(lanes) if self.python else self._compiled(solver, events, lanes)

    def _first_counts(self, solver, lanes, slope, n_events, own_p):
        method, counts = solver.method, np.zeros(self._counts.size, np.int64)
        first = {
            at.N: solver.n, at.M: solver.m, at.P_STRIDE: solver.m if own_p else 0, at.CARRIED: slope,
            at.SLOPES: int(method.carries_slope),
            at.DEGREE: method.degree, at.EVENTS: n_events, at.EXPONENT: method.error_exponent,
        }  # fmt: skip
        for lane in range(lanes):
            for slot, value in first.items():
                counts[lane * at.COUNTS + slot] = value
        whole = counts[at.COUNTS * lanes :]
        whole[at.SIZE], whole[at.ADAPTIVE], whole[at.IDLE], whole[at.MORE] = 1, int(method.adaptive), lanes, 1
        whole[at.OWN_P] = int(own_p)
        return counts[: at.COUNTS * lanes + at.WHOLES]

    # ---- arguments

    def _place_kernels(self, kernels, resets):
        named = zip(("kernels.advance", "kernels.rhs", "kernels.dense", "events", "rates", "kernels.series"), kernels)
        if self.python:
            for name, kernel in named:
                self.arguments[PLACES[name]] = kernel
            self.arguments[PLACES["kernels.resets"]] = resets
            return
        for name, kernel in named:
            self.arguments[PLACES[name]] = 0 if kernel is None else kernel.address
        self._counts["resets"][:] = [0 if r is None else r.address for r in resets]
        self.place("kernels.resets", self._counts["resets"])
        self._held = kernels, resets

    def _place_buffers(self, state, lanes, own_p):
        for block in (self._states, self._numbers, self._counts):
            for name in block.parts:
                if f"lanes.{name}" in PLACES:
                    self.place(f"lanes.{name}", block[name])
        if not (own_p and lanes > 1):
            self.place("lanes.p", self.p)
        if state is not None:
            self.place("lanes.y", state)
        for name, part in (("watch", "first_watch"), ("queue", "queue")):
            self.place(f"members.{name}", self._counts[part])
        for name, part in (("begins", "begin"), ("ends", "end")):
            self.place(f"members.{name}", self._numbers[part])
        nothing = np.empty(0)
        for name in ("states", "parameters", "columns", "times", "stops"):
            self.place(f"members.{name}", self.state if name == "states" else nothing)
        self.place("members.p", self.p)
        for name in Kept._fields:
            self.place(f"kept.{name}", nothing)
        self.place("kept.t_end", self._numbers["t_end"])
        self.place("kept.y_end", self.state)
        self.place("kept.tally", self._counts["tally"])
        self.place("whole", self._counts["whole"])

    def place(self, name, array):
        """Let an argument of the loop be an array, which the caller keeps alive."""
        if self.python:
            self.arguments[PLACES[name]] = array.reshape(-1)
        else:
            self.arguments[PLACES[name]] = address(array)

    def _python_loop(self, lanes):
        loop, _ = loop_text(lanes)

        def run():
            values, groups = iter(self.arguments), []
            for group in GROUPS.values():
                groups.append(group(*(next(values) for _ in group._fields)) if group else next(values))
            return loop(*groups)

        return run

    def _compiled(self, solver, events, lanes):
        loop = compiled_loop(solver.dtype.name, events is not None, lanes)
        packed = np.array(self.arguments, np.int64)
        self.arguments, where = _view(packed), address(packed)
        return lambda: loop(where)

    # ---- a run

    def advance(self):
        """Run the loop until it pauses or ends; the status."""
        return self._run()

    def start(self, problem, stops):
        """Fill in what the members of a batch, or one problem, share; `stops` within their spans."""
        if self._method.adaptive:
            self.rtol[:], self.atol[:] = problem.rtol, problem.atol
        self._counts.array[: len(self._cleared_counts)] = self._cleared_counts
        self._numbers["task"][:] = 0.0
        self._numbers["rules"][:] = rules_of(self._method, problem)
        whole = self.whole
        whole[at.STOPS], whole[at.DENSE] = len(stops), int(problem.dense)
        whole[at.RECORDS] = int(problem.records and not problem.dense)
        self.place("members.stops", stops)
        self._stops = stops
        if problem.residuals is not None:
            given = problem.residuals
            whole[at.RESIDUALS], whole[at.RESIDUAL_ROOM] = given.size, given.steps
            self.place("lanes.k", given.room[given.head :])

    def start_one(self, problem):
        """Fill in one problem."""
        if self.state is not problem.y:
            self.state[:] = problem.y
        self.p[:] = problem.p
        self.start(problem, np.array(problem.tstops))
        self._numbers["begin"][0], self._numbers["end"][0] = problem.span
        self._counts["queue"][0] = 0
        whole, times = self.whole, problem.t_eval
        whole[at.TIMES] = at.EVERY_STEP if times is None else len(times)
        self.place("members.times", self._stops if times is None else times)

    # ---- going on from an earlier place

    def snapshot(self):
        """Copies of all that one lane without events needs to go on from here."""
        return [part.copy() for part in self._going()]

    def restore(self, snapshot):
        """Go on from a snapshot; neither rows nor steps are kept."""
        for part, copied in zip(self._going(), snapshot, strict=True):
            part[:] = copied
        self.count[at.EVALS] = 0
        self.record(False)

    def record(self, records):
        """Record the steps from here on, or no longer."""
        self.whole[at.RECORDS] = int(records)
        self._numbers["task"][at.NEXT] = self.rules[at.DIRECTION] * (-FAR_OFF if records else FAR_OFF)

    def _going(self):
        numbers = (self._numbers[name] for name in ("now", "task", "real"))
        return self.state, self.slope, *numbers, self._counts["count"], self._counts["whole"]


def _view(array) -> Any:
    """The numbers of an array, read and written one by one three times as quickly."""
    return memoryview(array)


class _Block:
    """Buffers of the sizes side by side in one allocation, by name, each at a multiple of `boundary` bytes."""

    def __init__(self, dtype, boundary, **sizes):
        step = boundary // np.dtype(dtype).itemsize
        rooms = [-(-size // step) * step for size in sizes.values()]
        self.array = aligned(sum(rooms) + 1, dtype)
        self.parts, start = {}, 0
        for (name, size), room in zip(sizes.items(), rooms, strict=True):
            self.parts[name] = self.array[start : start + size]
            start += room
        self.size = self.array.size

    def __getitem__(self, name):
        return self.parts[name]
