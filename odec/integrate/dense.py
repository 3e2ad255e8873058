"""Dense output: the solution between the steps, as the polynomials that the steps leave behind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from odec.errors import ArgumentError


@dataclass(frozen=True)
class DenseOutput:
    """One polynomial for each step, as steppers/step.py defines it, in theta = (t - starts[i]) / sizes[i].

    starts, sizes (k,) : where each step starts and its size before any cut, both in the unit of time
    rows (k, 1 + degree, n) : the state at the start, then the coefficients q
    end : (time, state (n,)) where the last step ends
    jumps : (j,) times at which a reset changed the state; there the state before it is given
    """

    starts: np.ndarray
    sizes: np.ndarray
    rows: np.ndarray
    end: tuple[float, np.ndarray]
    jumps: np.ndarray

    def __call__(self, times, name="solution"):
        """The states (*times.shape, n) at times within the span."""
        t_end, y_end = self.end
        t_start = float(self.starts[0]) if len(self.starts) else t_end
        direction = 1.0 if t_end >= t_start else -1.0
        inside = (times - t_start) * direction >= 0
        inside &= (t_end - times) * direction >= 0
        if not np.all(inside):
            raise ArgumentError(
                f"{name}: t = {times[~inside].ravel()[0]} lies outside what was solved, {t_start} to {t_end}; "
                "a polynomial says nothing there."
            )
        flat = times.ravel()
        states = np.empty((flat.size, y_end.size), y_end.dtype)
        for piece in range(0, flat.size, CHUNK):
            states[piece : piece + CHUNK] = self._states(flat[piece : piece + CHUNK], direction)
        states[(flat == t_end) & ~np.isin(flat, self.jumps)] = y_end
        return states.reshape(*times.shape, y_end.size)

    def _states(self, times, direction):
        if not len(self.starts):
            return np.broadcast_to(self.end[1], (times.size, self.end[1].size))
        ordered = direction * self.starts
        step = np.searchsorted(ordered, direction * times, side="right") - 1
        before = np.searchsorted(ordered, direction * times, side="left") - 1
        at_jump = np.isin(times, self.jumps) & (before >= 0)
        step = np.where(at_jump, before, step)
        theta = ((times - self.starts[step]) / self.sizes[step]).astype(self.rows.dtype)[:, None]
        rows = self.rows[step]
        inner = np.zeros_like(rows[:, 0])
        for m in range(rows.shape[1] - 1, 1, -1):
            inner = inner * (2 * theta - 1) + rows[:, m]
        return rows[:, 0] + theta * (rows[:, 1] + (1 - theta) * inner)


CHUNK = 4_096  # times at once, which bounds what the gathered rows take
