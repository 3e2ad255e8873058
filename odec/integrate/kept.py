"""What a run keeps: rows, polynomials, events."""

from __future__ import annotations

from typing import Any

import numpy as np

from odec.errors import RoomError
from odec.integrate import slots as at
from odec.integrate.dense import DenseOutput
from odec.integrate.problem import NO_TIMES, Record

FIRST_ROOM = 64  # rows at first, where their number is not known
NAMES = ("kept.ts", "kept.ys", "kept.marks", "kept.segments", "kept.fired_t", "kept.fired_e", "kept.fired_m",
         "kept.fired_y")  # fmt: skip
KINDS = (  # of the groups of arrays, and what makes fewer of them
    ("rows", "keep fewer, by t_eval"),
    ("steps", 'leave dense_output out, or let solve_vjp hold fewer of them, by checkpoints=64 or checkpoints="file"'),
    ("events", "watch for fewer"),
)
DOUBLED = 2**17  # numbers up to which room doubles; from there it grows by an eighth, so that little is unused


class Kept:
    """What a run keeps: rows, polynomials, events, each in arrays that grow in place as they fill."""

    def __init__(self, solver, problem):
        n, dtype, degree = solver.n, solver.dtype, solver.method.degree if problem.dense else 0
        self.problem, self.n, self.degree = problem, n, degree
        self.every = problem.t_eval is None
        self.n_events = len(problem.events.resets) if problem.events else 0
        rows = FIRST_ROOM if self.every else len(problem.t_eval)
        self.most = 2**62, problem.most_records, 2**62
        segments = min(FIRST_ROOM, self.most[1]) if problem.dense or problem.records else 0
        self.fired = problem.events.most if problem.events else 0  # in one step
        fired = FIRST_ROOM + 2 * self.fired if self.fired else 0
        self.rooms = rows, segments, fired
        self._groups = (0, 1), (2, 3), (4, 5, 6, 7)
        real, whole = np.float64, np.int64
        self.places: list[Any] = [
            *self._new(0, rows, (real, 1 if self.every else 0), (dtype, n)),
            *self._new(1, segments, (real, 2), (dtype, (degree + 1) * n)),
            *self._new(2, fired, (real, 1), (whole, 1), (whole, 1), (dtype, n)),
        ]
        if not self.every:
            self.places[0] = problem.t_eval  # which are written where they stand

    def place(self, buffers):
        """Let the loop write here."""
        for room, group in zip(self.rooms, self._groups, strict=True):
            for i in group if room else ():
                buffers.place(NAMES[i], self.places[i])
        whole = buffers.whole
        whole[at.ROOM], whole[at.SEGMENT_ROOM], whole[at.FIRED_ROOM] = self.rooms

    def grow(self, count, whole):
        """More room for what is nearly full."""
        filled = count[at.SAVED], whole[at.SEGMENTS], whole[at.ALL_FIRED]
        margin = 3, 1, self.fired + 1
        rooms = list(self.rooms)
        for g, group in enumerate(self._groups):
            room = rooms[g]
            if room and filled[g] + margin[g] > room and (g or self.every):
                numbers = max(self.places[i].size for i in group)
                rooms[g] = min(room + (room if numbers <= DOUBLED else room // 8 + 1), self.most[g])
                for i in group:
                    self._resize(i, rooms[g] * (self.places[i].size // room))
        self.rooms = tuple(rooms)

    def _new(self, group, room, *kinds):
        """The arrays of a group, each of (dtype, width), with room for so many rows; none where there is none."""
        if not room:
            return (NO_TIMES,) * len(kinds)
        return [
            self._sized(i, room * width, dtype) for i, (dtype, width) in zip(self._groups[group], kinds, strict=True)
        ]

    def _resize(self, i, size):
        self.places[i] = self._sized(i, size, self.places[i].dtype, self.places[i])

    def _sized(self, i, size, dtype, old=None):
        """The array i of so many numbers, new or grown; RoomError where there is no room for them."""
        storage = self.problem.storage
        if storage is not None and i in self._groups[1]:
            return storage.vector(NAMES[i], size, dtype)
        try:
            if old is None:
                return np.empty(size, dtype)
            old.resize(size, refcheck=False)  # in place where memory allows, so that nothing is held twice
            return old
        except MemoryError:
            kind, cure = next(kind for kind, group in zip(KINDS, self._groups, strict=True) if i in group)
            raise RoomError(
                f"solve: {kind} take {size * np.dtype(dtype).itemsize:,} bytes, more than there is memory for; {cure}."
            ) from None

    def _cut(self, group, room, filled):
        """The arrays of a group with as many rows as were filled."""
        if filled < room:
            for i in self._groups[group]:
                self._resize(i, filled * (self.places[i].size // room))
        return [self.places[i] for i in self._groups[group]]

    def rows(self, count, t, y):
        """(ts (rows,), ys (rows, n)); of the end only, a view of y."""
        if self.problem.keeps_end_only:
            return np.array([t]), y[None]
        ts, ys = self._cut(0, self.rooms[0], count[at.SAVED])
        return ts, ys.reshape(-1, self.n)

    def finish(self, outcome, whole):
        """Put polynomials and events into the outcome."""
        if self.n_events:
            times, which, _, states = self._cut(2, self.rooms[2], whole[at.ALL_FIRED])
            outcome.fired_t, outcome.fired_e, outcome.fired_y = times, which, states.reshape(-1, self.n)
        if self.problem.records or self.problem.dense:
            marks, rows = self._cut(1, self.rooms[1], whole[at.SEGMENTS])
            rows = rows.reshape(-1, self.degree + 1, self.n)
        if self.problem.records:
            outcome.record = Record(marks.reshape(-1, 2), np.ascontiguousarray(rows[:, 0]))
        if self.problem.dense:
            resets = self.problem.events.resets if self.problem.events else ()
            moved = np.array([r is not None for r in resets], bool)
            jumps = outcome.fired_t[moved[outcome.fired_e]] if moved.any() else NO_TIMES
            outcome.dense = DenseOutput(marks[::2], marks[1::2], rows, (outcome.t, outcome.y), jumps)
