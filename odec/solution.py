"""What a solve returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from odec.errors import ArgumentError, Status
from odec.graph.structure import Structure, component_names
from odec.integrate.dense import DenseOutput


@dataclass(frozen=True)
class Solution:
    """A solution at the kept times.

    ts : (m,) times
    ys : (m, *y.shape), time first; for a structured state the same structure of such arrays
    y1 : the state where the solve ended, in the structure of y
    status, message : how it ended; stats : counts and seconds
    t_events, y_events : for each event its times (k,) and states (k, *y.shape) just before any reset; None
        without events
    flat_rows : (m, n), the rows of ys as vectors, in the order of `names`
    dense : DenseOutput behind `sol(t)`, or None without dense_output=True
    """

    ts: np.ndarray
    ys: Any
    y1: Any
    status: Status
    message: str
    stats: dict = field(default_factory=dict)
    name: str = "model"
    state: tuple[str, ...] | None = None
    flat_rows: np.ndarray = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    structure: Structure | None = field(default=None, repr=False)
    t_events: list | None = None
    y_events: list | None = None
    dense: DenseOutput | None = field(default=None, repr=False)

    def __call__(self, t):
        """The state at time t, or states at times t (m,), by dense output; for a structured state that structure.

        Raises
        ------
        ArgumentError : solved without dense_output=True, or a time outside what was solved
        """
        if self.dense is None:
            raise ArgumentError(f"{self.name}: sol(t) needs the dense output; solve with dense_output=True.")
        times = np.asarray(t, float)
        assert self.structure is not None
        return self.structure.unflatten(self.dense(times, self.name), times.shape)

    @property
    def success(self):
        """Whether the solve reached the end of its time span, or a terminal event."""
        return self.status in (Status.SUCCESS, Status.TERMINATED)

    @property
    def names(self):
        """The name of each component, in the order of the flat state."""
        if self.structure is None:
            return tuple(f"y[{i}]" for i in range(self.flat_rows.shape[1]))
        return tuple(component_names(self.structure, self.state))

    def __repr__(self):
        counts = ", ".join(f"{k} {self.stats[k]:,}" for k in ("steps", "rejected", "nfev") if k in self.stats)
        return f"<Solution of {self.name}: {self.message}; {len(self.ts):,} rows, {counts}>"

    def plot(self, ax=None, **options):
        """Every component over time on a Matplotlib axes, which is returned."""
        try:
            import matplotlib.pyplot as plt
        except ImportError:
            raise ImportError("Solution.plot needs Matplotlib; install odec[plot].") from None
        ax, names = plt.gca() if ax is None else ax, self.names
        for column, name in zip(self.flat_rows.T, names, strict=True):
            ax.plot(self.ts, column, label=name, **options)
        ax.set_xlabel("t")
        if len(names) <= 10:
            ax.legend()
        return ax
