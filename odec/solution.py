"""What a solve returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from odec.errors import Status


@dataclass(frozen=True)
class Solution:
    """A solution at the kept times.

    ts : (m,) times
    ys : (m, *y.shape), time first; for a structured state the same structure of such arrays
    y1 : the state where the solve ended, in the structure of y
    status, message : how it ended; stats : counts and seconds
    """

    ts: np.ndarray
    ys: Any
    y1: Any
    status: Status
    message: str
    stats: dict = field(default_factory=dict)
    name: str = "model"
    state: tuple[str, ...] | None = None

    @property
    def success(self):
        """Whether the solve reached the end of its time span."""
        return self.status is Status.SUCCESS

    def __repr__(self):
        counts = ", ".join(f"{k} {self.stats[k]:,}" for k in ("steps", "rejected", "nfev") if k in self.stats)
        return f"<Solution of {self.name}: {self.message}; {len(self.ts):,} rows, {counts}>"

    def plot(self, ax=None, **options):
        """Every component over time on a Matplotlib axes, which is returned."""
        try:
            import matplotlib.pyplot as plt
        except ImportError:
            raise ImportError("Solution.plot needs Matplotlib; install odec[plot].") from None
        ax = plt.gca() if ax is None else ax
        if not isinstance(self.ys, np.ndarray):
            raise TypeError("Solution.plot draws an array state; plot the parts of a structured state yourself.")
        rows = self.ys.reshape(len(self.ts), -1)
        names = self.state or tuple(f"y[{i}]" for i in range(rows.shape[1]))
        for column, name in zip(rows.T, names, strict=True):
            ax.plot(self.ts, column, label=name, **options)
        ax.set_xlabel("t")
        if len(names) <= 10:
            ax.legend()
        return ax
