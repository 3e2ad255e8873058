"""Means and other reductions over the members of an ensemble, block by block.

A block of members gives a Partial; partials are put together in the order of the blocks. Where the blocks end follows
from the ensemble's size alone, so no thread, chunk or worker changes a bit of the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

REDUCTIONS = ("mean", "std", "min", "max", "sum")
MOST_BLOCKS = 256  # so that partials stay small beside what they are made of
LEAST_BLOCK = 64  # members, so that vector lanes have work for long
NOT_ASKED: Any = None  # an array that no reduction needs


def block_size(size):
    """Members of a block of an ensemble of `size`: a power of two, at least 64, that makes at most 256 blocks."""
    block = LEAST_BLOCK
    while block * MOST_BLOCKS < size:
        block *= 2
    return block


@dataclass(frozen=True, eq=False)
class Partial:
    """What the rows of some members give to the reductions `names`.

    count (m,) : members with a row at each time; all else (m, n) in float64
    total : their sum; mean, squares : their mean and the sum of the squares of what deviates from it
    low, high : the smallest and the largest
    """

    names: tuple[str, ...]
    count: np.ndarray
    total: np.ndarray = NOT_ASKED
    mean: np.ndarray = NOT_ASKED
    squares: np.ndarray = NOT_ASKED
    low: np.ndarray = NOT_ASKED
    high: np.ndarray = NOT_ASKED

    @classmethod
    def of(cls, rows, good, names):
        """The Partial of rows (c, m, n), those of members that are not good (c,), and rows with nan, left out."""
        there = good[:, None] & ~np.isnan(rows).any(axis=2)
        count, seen, found = there.sum(axis=0), there[:, :, None], {}
        with np.errstate(over="ignore", invalid="ignore"):
            if {"mean", "std", "sum"} & set(names):
                found["total"] = _summed(rows, seen)
            if {"mean", "std"} & set(names):
                found["mean"] = found["total"] / np.maximum(count, 1)[:, None]
            if "std" in names:
                found["squares"] = _summed((rows - found["mean"]) ** 2, seen)
        if "min" in names:
            found["low"] = np.min(rows, axis=0, initial=np.inf, where=seen).astype(np.float64)
        if "max" in names:
            found["high"] = np.max(rows, axis=0, initial=-np.inf, where=seen).astype(np.float64)
        return cls(tuple(names), count, **found)

    def with_next(self, other):
        """The Partial of the members of both: means and squares as in [chan1979]; sums are of what comes in order.

        References: T. F. Chan, G. H. Golub, R. J. LeVeque, Updating formulae and a pairwise algorithm for computing
        sample variances, Stanford STAN-CS-79-773 (1979), eqs. (2.1)
        """
        count, found = self.count + other.count, {}
        share = (other.count / np.maximum(count, 1))[:, None]
        with np.errstate(over="ignore", invalid="ignore"):
            if self.total is not None:
                found["total"] = self.total + other.total
            if self.mean is not None:
                apart = np.where(share == 1.0, 0.0, other.mean - self.mean)
                found["mean"] = np.where(share == 1.0, other.mean, self.mean + share * apart)
                if self.squares is not None:
                    found["squares"] = self.squares + other.squares + apart**2 * (self.count[:, None] * share)
        if self.low is not None:
            found["low"] = np.minimum(self.low, other.low)
        if self.high is not None:
            found["high"] = np.maximum(self.high, other.high)
        return Partial(self.names, count, **found)


def combined(partials):
    """{name: (m, n)} of the reductions of all partials, in order, pair by pair; nan where no member has a row.

    The standard deviation is that of the members themselves (divided by their number, as numpy.std does).
    """
    while len(partials) > 1:
        pairs = [a.with_next(b) for a, b in zip(partials[::2], partials[1::2], strict=False)]
        partials = pairs + partials[len(pairs) * 2 :]
    whole = partials[0]
    absent = (whole.count == 0)[:, None]
    return {name: np.where(absent, np.nan, _value(whole, name)) for name in whole.names}


def _value(whole, name):
    if name == "std":
        return np.sqrt(whole.squares / np.maximum(whole.count, 1)[:, None])
    return {"mean": whole.mean, "min": whole.low, "max": whole.high, "sum": whole.total}[name]


def _summed(rows, seen):
    """The sum over members of what is seen, in float64."""
    return np.where(seen, rows, 0.0).sum(axis=0, dtype=np.float64)
