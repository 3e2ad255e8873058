"""Many solves of one system that share their options, as flat arrays, and what they leave behind."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from odec.integrate.problem import Problem
from odec.integrate.reductions import block_size
from odec.integrate.run import evaluations
from odec.integrate.slots import ENDED_AS, REFUSED, RUNNING, TOOK

SHARED: Any = None  # an array that the members of a batch do not differ in
NONE_KEPT: Any = None  # an array that a batch was not asked for


@dataclass(frozen=True)
class Batch:
    """`size` solves: one Problem, and the arrays in which its members differ, each None where they do not.

    problem : what the members share; its t_eval (rows,) is empty where the end only is kept
    begins, ends (size,) : their time spans, all in one direction
    states (size, n) : their states at the start
    parameters (size, k) : their values of the entries `columns` (k,) of the flat parameters
    times (size, rows) : their times to keep, each row sorted; nan after the last
    whole : the size of the batch that this one is a part of; 0 for one that is no part
    """

    problem: Problem
    size: int
    begins: np.ndarray = SHARED
    ends: np.ndarray = SHARED
    states: np.ndarray = SHARED
    parameters: np.ndarray = SHARED
    columns: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    times: np.ndarray = SHARED
    whole: int = 0

    @property
    def block(self):
        """Members that are reduced together: of the whole batch's blocks, for a part that starts with one of them."""
        return block_size(self.whole or self.size)

    @property
    def rows(self):
        """How many times are kept of each member."""
        found = self.problem.t_eval if self.times is None else self.times
        assert found is not None
        return found.shape[-1]

    def part(self, start, stop):
        """The Batch of the members from start to stop."""
        arrays = {name: getattr(self, name) for name in ("begins", "ends", "states", "parameters", "times")}
        cut = {name: a if a is None else a[start:stop] for name, a in arrays.items()}
        return replace(self, size=min(stop, self.size) - start, whole=self.whole or self.size, **cut)

    def member(self, i):
        """The Problem of one member."""
        t0, t1 = self.problem.span
        y, p, t_eval = self.problem.y.copy(), self.problem.p.copy(), self.problem.t_eval
        if self.states is not None:
            y[:] = self.states[i]
        if self.parameters is not None:
            p[self.columns] = self.parameters[i]
        if self.times is not None:
            t_eval = self.times[i][~np.isnan(self.times[i])]
        span = (t0 if self.begins is None else self.begins[i], t1 if self.ends is None else self.ends[i])
        return replace(self.problem, span=tuple(map(float, span)), y=y, p=p, t_eval=None if t_eval is None else +t_eval)


@dataclass
class Fired:
    """Events of many members, by member and then in the order in which they happened.

    member, event (k,) int64; t (k,); y (k, n), the states just before any reset
    """

    member: np.ndarray
    event: np.ndarray
    t: np.ndarray
    y: np.ndarray


@dataclass
class Results:
    """What a batch leaves behind.

    t1 (size,), y1 (size, n) : where each member ended, and its state there
    status (size,) int8, as errors.Status; steps, rejected (size,) int32; nfev (size,) int64, evaluations of f
    ys (size, rows, n) : nan where a member did not get so far; None where they were only reduced
    partials : a Partial of the rows for each block of members (reductions.py), in order
    slots : steps tried, times the lanes that each occupied
    """

    t1: np.ndarray
    y1: np.ndarray
    status: np.ndarray
    steps: np.ndarray
    rejected: np.ndarray
    nfev: np.ndarray
    ys: np.ndarray = NONE_KEPT
    fired: Fired = NONE_KEPT
    partials: list = field(default_factory=list)
    slots: int = 0

    @classmethod
    def waiting(cls, t1, y1, ys):
        """The Results of members that have not ended, with room for how they will."""
        steps, rejected = np.zeros((2, len(t1)), np.int32)
        return cls(t1, y1, np.full(len(t1), RUNNING, np.int8), steps, rejected, np.zeros(len(t1), np.int64), ys)

    def note(self, start, method, tally):
        """Write down how the members from `start` on ended; tally : (k, TALLIES)."""
        members = slice(start, start + len(tally))
        self.status[members], self.steps[members] = tally[:, ENDED_AS], tally[:, TOOK]
        self.rejected[members], self.nfev[members] = tally[:, REFUSED], evaluations(method, tally.T)
