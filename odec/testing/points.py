"""Where a model is compared: points drawn by Hypothesis around a centre."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

DRAWN = 48  # numbers that Hypothesis draws one by one; more come from a drawn seed
GRID = 32  # points lie on a grid of this many steps each way, so that a failing one shrinks to the centre


def hypothesis() -> Any:
    """The Hypothesis library; ImportError that names the extra without it."""
    try:
        import hypothesis
    except ImportError:
        raise ImportError("odec: Hypothesis is not installed, which this needs; pip install odec[testing].") from None
    return hypothesis


def grid(st, count):
    """`count` numbers in [-1, 1], shrinking to 0."""
    if count <= DRAWN:
        steps = st.lists(st.integers(-GRID, GRID), min_size=count, max_size=count)
        return steps.map(lambda values: np.array(values, float) / GRID)
    return st.integers(0, 2**31).map(lambda seed: np.random.default_rng(seed).integers(-GRID, GRID + 1, count) / GRID)


class Point(NamedTuple):
    """A point (t, y, p), with a tangent in (t, y, p) and a cotangent in dy/dt."""

    t: float
    y: np.ndarray
    p: np.ndarray
    tangent: np.ndarray
    cotangent: np.ndarray

    @property
    def all(self):
        """(t, y, p) as one vector."""
        return np.concatenate([[self.t], self.y, self.p])

    def parts(self, vector, n):
        """A vector of (t, y, p) in its three parts."""
        return vector[0], vector[1 : 1 + n], vector[1 + n :]


def moved(centre, place):
    """Each number within a quarter of itself, a zero within a quarter of 1; signs are kept."""
    return np.where(centre == 0, 0.25, 0.25 * np.abs(centre)) * place + centre


def plain(value):
    """A structured value with lists in place of arrays, for messages."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value.tolist() if isinstance(value, np.ndarray) else value
