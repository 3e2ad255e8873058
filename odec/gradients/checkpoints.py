"""Recorded steps in bounded memory: a leaf of them, and snapshots from which the loop makes the others again.

The tries of a solve, accepted or not, are cut into stretches that begin at snapshots. Going forward, when there are
more snapshots than allowed, every other one goes and stretches double. Going back, a stretch longer than the leaf is
split where the binomial schedule says, in blocks of the leaf's size. The loop goes on from a snapshot bit by bit as it
did, so that the gradient does not depend on the memory it was given. What is kept of a step is its start, or the
polynomial of its dense output. Or each step is kept, on the disk.
References: [griewank2000]
"""

from __future__ import annotations

import math
import os
import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np

from odec.gradients.disk import Disk
from odec.integrate import slots as at
from odec.integrate.dense import DenseOutput
from odec.integrate.problem import NO_TIMES, Record

BUDGET = 256 * 2**20  # bytes of recorded steps where the user says nothing
SNAPSHOTS = 64  # beyond which steps are recorded again, where the user says nothing
STRETCH = 2**16  # tries between which the keyboard is heard


def recorded_run(solver, problem, checkpoints=None):
    """The Outcome of a problem that records its steps, or keeps their polynomials, in bounded memory.

    Its `record`, or `dense`, is as the loop leaves it; of a solve too long for that, and of one on the disk, `record`
    is what hands out stretches instead, Checkpoints or Stored, and `dense` is None.

    checkpoints : steps to hold at most, half of them in the leaf, at least 2; None: BUDGET bytes of recorded steps and
        SNAPSHOTS. A snapshot also holds the slope and a kilobyte. Or "file", or the path of a folder: each step is
        recorded there

    Raises
    ------
    ArgumentError : a folder that cannot be written to
    RoomError : what is to be held has no room
    """
    width = solver.n * (1 + solver.method.degree if problem.dense else 1)
    leaf, slots = max(2, BUDGET // (width * solver.dtype.itemsize + 16)), SNAPSHOTS
    if checkpoints == "file" or isinstance(checkpoints, os.PathLike):
        with Disk(None if checkpoints == "file" else checkpoints) as problem.storage:
            outcome = solver.run(problem)
        outcome.record, outcome.dense = Stored(outcome.dense or outcome.record, (outcome.t, outcome.y)), None
        return outcome
    if checkpoints is not None:
        leaf, slots = checkpoints // 2, checkpoints - checkpoints // 2
    if problem.events or problem.max_steps <= leaf:
        return solver.run(problem)
    problem.most_records = leaf
    trail = Checkpoints(leaf, slots, problem.dense)
    outcome, buffers = solver.run_watched(problem, trail)
    finished = trail.finished(outcome, buffers)
    if finished.record is not trail:
        solver.release(problem, buffers)
    return finished


class Stored:
    """The steps of a solve, all of them kept, handed out in stretches of which little is in memory at a time.

    kept : Record or DenseOutput; end : (time, state (n,)) behind the last step
    """

    again = 0

    def __init__(self, kept, end):
        self._kept, self._end, self.lock = kept, end, threading.Lock()

    def walk(self, take):
        """take(record, end_t, end), as Checkpoints.walk."""
        for stretch in self.stretches():
            take(*stretch)

    def stretches(self):
        """As Checkpoints.stretches."""
        kept, end = self._kept, self._end
        dense = isinstance(kept, DenseOutput)
        for begin in reversed(range(0, len(kept.rows if dense else kept.y), STRETCH)):
            chosen = slice(begin, begin + STRETCH)
            if dense:
                part = replace(kept, starts=kept.starts[chosen], sizes=kept.sizes[chosen], rows=kept.rows[chosen])
                yield part, *end
                end = part.starts[0], part.rows[0, 0]
            else:
                part = Record(kept.marks[chosen], kept.y[chosen])
                yield part, *end
                end = part.t[0], part.y[0]


class Checkpoints:
    """The steps of a solve, of which at most `leaf` are recorded at a time, and at most `slots` snapshots.

    Called with Buffers before each stretch of the loop, it says how many tries may be made before it is asked again.
    dense : keep the polynomials of the steps
    again : tries made again by the last `walk`
    """

    def __init__(self, leaf, slots, dense=False):
        self.leaf, self.slots, self.dense, self.again = leaf, slots, dense, 0
        self._keeps = at.DENSE if dense else at.RECORDS
        self._stretch, self._due, self._held = leaf, 0, []
        self.lock = threading.Lock()

    def __call__(self, buffers):
        whole = buffers.whole
        if whole[at.IDLE]:
            return 0  # the start comes first
        tries = whole[at.ROUNDS]
        if tries >= self._due:
            self._held.append((tries, buffers.snapshot()))
            if len(self._held) > self.slots:
                self._held, self._stretch = self._held[::2], 2 * self._stretch
            self._due = self._held[-1][0] + self._stretch
            whole[at.SEGMENTS], whole[self._keeps] = 0, int(self._stretch <= self.leaf)
        return self._due - tries

    def finished(self, outcome, buffers):
        """The Outcome: with its Record where that is whole, else with this."""
        self.tries = buffers.whole[at.ROUNDS]
        if self.tries <= self.leaf:
            return outcome
        whole, kept = self._stretch <= self.leaf, outcome.dense if self.dense else outcome.record
        self._tail, self._tail_begins = (kept if whole else None), self._held[-1][0]
        self._buffers, self._end, outcome.record, outcome.dense = buffers, (outcome.t, outcome.y), self, None
        self._keep_cheapest()
        return outcome

    def _keep_cheapest(self):
        """Let go of every other snapshot as often as that makes less to do again."""
        held = self._held
        choices = [held[:: 2**k] for k in range(len(held).bit_length())]
        self._held = min(choices, key=self._cost)

    def _cost(self, held):
        bounds = [*(start for start, _ in held), self.tries]
        blocks = (-(-(end - start) // self.leaf) for start, end in pairwise(bounds))
        return sum(least_advances(b, self.slots - k) for k, b in enumerate(blocks))

    def walk(self, take):
        """take(record, end_t, end) for the stretches from the last to the first; what it is given it may not keep.

        record : Record, or DenseOutput; end_t, end (n,) : where the stretch ends
        """
        with self.lock:
            for stretch in self.stretches():
                take(*stretch)

    def stretches(self):
        """What `walk` gives, one after another: each good until the next. The caller holds the lock."""
        self.again, end = 0, self.tries
        while end > 0:
            end, found = self._step_back(end)
            if found is not None:
                yield found

    def _step_back(self, end):
        """Split the last stretch, or find what of it fits into the leaf: where what is left ends, and the found."""
        start, snapshot = self._held[-1]
        blocks, free = -(-(end - start) // self.leaf), self.slots - len(self._held)
        if blocks > 1 and free:
            middle = start + self.leaf * split(blocks, free + 1)
            self._advance(snapshot, start, middle)
            self._held.append((middle, self._buffers.snapshot()))
            return end, None
        begin = start + (blocks - 1) * self.leaf
        last = end == self.tries
        if last and self._tail is not None and begin == self._tail_begins:
            record, self._tail = self._tail, None
        else:
            record = self._recorded(snapshot, start, begin, end)
        if 0 < begin == start:
            self._held.pop()
        return begin, (record, *(self._end if last else (self._buffers.now[at.T], self._buffers.state)))

    def _recorded(self, snapshot, start, begin, end):
        buffers, n = self._buffers, self._buffers.state.size
        self._tail = None
        width = n * (1 + buffers.count[at.DEGREE] if self.dense else 1)
        marks, rows = np.empty(2 * self.leaf), np.empty(self.leaf * width, buffers.state.dtype)
        self._advance(snapshot, start, begin)
        buffers.place("kept.marks", marks)
        buffers.place("kept.segments", rows)
        whole = buffers.whole
        whole[at.SEGMENT_ROOM], whole[at.SEGMENTS] = self.leaf, 0
        buffers.record(True)
        whole[at.RECORDS], whole[self._keeps] = 0, 1
        self._run_to(end)
        taken = whole[at.SEGMENTS]
        marks, rows = marks[: 2 * taken].reshape(-1, 2), rows[: taken * width].reshape(taken, width // n, n)
        if self.dense:
            return DenseOutput(marks[:, 0], marks[:, 1], rows, (buffers.now[at.T], buffers.state), NO_TIMES)
        return Record(marks, rows[:, 0])

    def _advance(self, snapshot, start, end):
        self._buffers.restore(snapshot)
        self._buffers.whole[self._keeps] = 0
        assert self._buffers.whole[at.ROUNDS] == start
        self._run_to(end)

    def _run_to(self, end):
        whole = self._buffers.whole
        while (done := whole[at.ROUNDS]) < end:
            whole[at.PAUSE] = min(STRETCH, end - done)
            self._buffers.advance()
            self.again += whole[at.ROUNDS] - done
            assert whole[at.ROUNDS] > done


def most_blocks(slots, times):
    """How many blocks can be reversed from so many snapshots, each at most so often again: C(slots + times, slots).

    References: [griewank2000]
    """
    return math.comb(slots + times, slots)


def _rounds(blocks, slots):
    times = 0
    while most_blocks(slots, times) < blocks:
        times += 1
    return times


def least_advances(blocks, slots):
    """The least number of blocks to make again without record: r blocks - C(slots + r, slots + 1), where r is the
    least number with C(slots + r, slots) >= blocks.

    slots : snapshots, that of the first block among them
    References: [griewank2000]
    """
    times = _rounds(blocks, slots)
    return times * blocks - math.comb(slots + times, slots + 1)


def split(blocks, slots):
    """Before which of its blocks a stretch is split so that `least_advances` is reached."""
    times = _rounds(blocks, slots)
    most_behind = most_blocks(slots - 1, times)
    least_ahead = most_blocks(slots, times - 2) if times > 1 else 1
    return max(blocks - most_behind, least_ahead)
