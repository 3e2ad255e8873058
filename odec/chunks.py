"""Which members of an ensemble travel together."""

from __future__ import annotations

import statistics
from collections import deque

SECONDS, LEAST_SECONDS = 1.0, 0.05  # of work in a chunk, and in one of the last
LEAST = {"cpu": 8, "cuda": 4096}  # members of a chunk: as many as a vector has lanes, as keep a GPU busy
GROWTH = 8  # how many times the longest chunk that has ended another may be
AHEAD = 2  # chunks that each worker has been given: the one that runs and the one that waits
INPUT_BYTES, OUTPUT_BYTES = 8 << 20, 16 << 20  # of the arrays of a chunk


def most_members(batch, reduced=False, output_bytes=OUTPUT_BYTES):
    """How many members of a Batch have arrays that are small enough to be sent at once."""
    arrays = (batch.begins, batch.ends, batch.states, batch.parameters, batch.times)
    given = sum(a.nbytes // batch.size for a in arrays if a is not None)
    found = 32 + batch.problem.y.nbytes * (1 if reduced else 1 + batch.rows)
    return max(1, min(INPUT_BYTES // max(1, given), output_bytes // found))


class Chunks:
    """Which members to send next: few at first, then a second's work, and less towards the end.

    size : of the batch; most : members of a chunk; least : members below which a chunk is not worth it
    block : chunks start at multiples of it
    """

    def __init__(self, size, most, block=1, least=LEAST["cpu"]):
        self.size, self.most, self.block, self.least = size, most, block, least
        self._sent, self._longest = 0, 0
        self._paces = deque(maxlen=9)

    def after(self, workers):
        """(start, stop) of the members that follow those already sent, None when there are none."""
        left = self.size - self._sent
        if not left:
            return None
        length = least = min(self.least, -(-self.size // workers))
        if self._paces:
            share = max(left / (AHEAD * workers), LEAST_SECONDS / self.pace)
            length = max(least, min(SECONDS / self.pace, GROWTH * self._longest, share))
        length = max(1, int(min(length, self.most)) // self.block) * self.block
        start, self._sent = self._sent, min(self._sent + length, self.size)
        return start, self._sent

    @property
    def pace(self):
        """Seconds of a member: the median of the last chunks."""
        return max(statistics.median(self._paces), 1e-12)

    def ended(self, members, seconds):
        """Learn what a chunk cost."""
        self._longest = max(self._longest, members)
        self._paces.append(seconds / members)


class EvenChunks:
    """Chunks of one length, as Zarr stores them; used as Chunks are."""

    def __init__(self, size, length):
        self.size, self.length, self._sent = size, length, 0

    @property
    def lengths(self):
        """The members of each chunk, in order; only the last may have fewer."""
        return [min(self.length, self.size - start) for start in range(0, self.size, self.length)]

    def after(self, workers):
        """(start, stop) of the members that follow those already sent, None when there are none."""
        start, self._sent = self._sent, min(self._sent + self.length, self.size)
        return (start, self._sent) if start < self.size else None

    def ended(self, members, seconds):
        """Nothing: their length is fixed."""


def even_length(size, workers, pace, most, least=LEAST["cpu"]):
    """Members of each chunk of an ensemble of `size`: a second's work, at most a worker's share."""
    share = -(-size // (AHEAD * workers))
    return max(1, int(min(most, share, max(least, SECONDS / pace))))
