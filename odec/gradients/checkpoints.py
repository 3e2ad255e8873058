"""Recorded steps in bounded memory: a leaf of them, and snapshots from which the loop makes the others again.

The tries of a solve, accepted or not, are cut into stretches that begin at snapshots. Going forward, when there are
more snapshots than allowed, every other one goes and stretches double. Going back, a stretch longer than the leaf is
split where the binomial schedule says, in blocks of the leaf's size. The loop goes on from a snapshot bit by bit as it
did, so that the gradient does not depend on the memory it was given.
References: [griewank2000]
"""

from __future__ import annotations

import math
import threading
from itertools import pairwise

import numpy as np

from odec.integrate import slots as at
from odec.integrate.problem import Record

BUDGET = 256 * 2**20  # bytes of recorded steps where the user says nothing
SNAPSHOTS = 64  # beyond which steps are recorded again, where the user says nothing
STRETCH = 2**16  # tries between which the keyboard is heard


def recorded_run(solver, problem, checkpoints=None):
    """The Outcome of a problem, of which `record` is a Record or, of a solve too long for one, Checkpoints.

    checkpoints : states to hold at most, half of them in the leaf, at least 2; None: BUDGET bytes of recorded steps
        and SNAPSHOTS. A snapshot also holds the slope and a kilobyte. A problem that keeps its polynomials holds every
        step by that, and is recorded as it is.
    """
    leaf, slots = max(2, BUDGET // (solver.n * solver.dtype.itemsize + 16)), SNAPSHOTS
    if checkpoints is not None:
        leaf, slots = checkpoints // 2, checkpoints - checkpoints // 2
    if problem.dense or problem.max_steps <= leaf:
        return solver.run(problem)
    problem.most_records = leaf
    trail = Checkpoints(leaf, slots)
    outcome, buffers = solver.run_watched(problem, trail)
    return trail.finished(outcome, buffers)


class Checkpoints:
    """The steps of a solve, of which at most `leaf` are recorded at a time, and at most `slots` snapshots.

    Called with Buffers before each stretch of the loop, it says how many tries may be made before it is asked again.
    again : tries made again by the last `walk`
    """

    def __init__(self, leaf, slots):
        self.leaf, self.slots, self.again = leaf, slots, 0
        self._stretch, self._due, self._held = leaf, 0, []
        self._lock = threading.Lock()

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
            whole[at.SEGMENTS], whole[at.RECORDS] = 0, int(self._stretch <= self.leaf)
        return self._due - tries

    def finished(self, outcome, buffers):
        """The Outcome: with its Record where that is whole, else with this."""
        self.tries = buffers.whole[at.ROUNDS]
        if self.tries <= self.leaf:
            return outcome
        whole = self._stretch <= self.leaf
        self._tail, self._tail_begins = (outcome.record if whole else None), self._held[-1][0]
        self._buffers, self._end, outcome.record = buffers, (outcome.t, outcome.y), self
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

        record : Record; end_t, end (n,) : where the stretch ends
        """
        with self._lock:
            self.again, end = 0, self.tries
            while end > 0:
                end = self._step_back(end, take)

    def _step_back(self, end, take):
        """Split the last stretch, or take what of it fits into the leaf; what is left ends there."""
        start, snapshot = self._held[-1]
        blocks, free = -(-(end - start) // self.leaf), self.slots - len(self._held)
        if blocks > 1 and free:
            middle = start + self.leaf * split(blocks, free + 1)
            self._advance(snapshot, start, middle)
            self._held.append((middle, self._buffers.snapshot()))
            return end
        begin = start + (blocks - 1) * self.leaf
        last = end == self.tries
        if last and self._tail is not None and begin == self._tail_begins:
            record, self._tail = self._tail, None
        else:
            record = self._recorded(snapshot, start, begin, end)
        take(record, *(self._end if last else (self._buffers.now[at.T], self._buffers.state)))
        if 0 < begin == start:
            self._held.pop()
        return begin

    def _recorded(self, snapshot, start, begin, end):
        buffers, n = self._buffers, self._buffers.state.size
        self._tail = None
        marks, states = np.empty(2 * self.leaf), np.empty(self.leaf * n, buffers.state.dtype)
        self._advance(snapshot, start, begin)
        buffers.place("kept.marks", marks)
        buffers.place("kept.segments", states)
        buffers.whole[at.SEGMENT_ROOM], buffers.whole[at.SEGMENTS] = self.leaf, 0
        buffers.record(True)
        self._run_to(end)
        taken = buffers.whole[at.SEGMENTS]
        return Record(marks[: 2 * taken].reshape(-1, 2), states[: taken * n].reshape(-1, n))

    def _advance(self, snapshot, start, end):
        self._buffers.restore(snapshot)
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
