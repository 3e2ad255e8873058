"""What a solve returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
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
    regularizers : (k,) the sums that solve_vjp was asked for with `regularizers`, else None
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
    regularizers: np.ndarray | None = None

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

    def _repr_html_(self):
        """A table for notebooks: the model, how it ended, what was kept, the end state, the counts."""
        groups = [("", [("ended", self.message), ("kept", self._kept()), *self._event_counts()])]
        groups.append(("at the end", self._end_state()))
        groups.append(("work", [(name.replace("_", " "), _count_text(value)) for name, value in self.stats.items()]))
        body = "".join(_html_group(heading, rows) for heading, rows in groups)
        return f"<table><caption>Solution of {escape(self.name)}</caption>{body}</table>"

    def _kept(self):
        if not len(self.ts):
            return "no rows"
        if len(self.ts) == 1:
            return f"1 row, at t = {self.ts[0]:g}"
        return f"{len(self.ts):,} rows, t = {self.ts[0]:g} to {self.ts[-1]:g}"

    def _event_counts(self):
        return [(f"event {k}", f"came {_times(len(times))}") for k, times in enumerate(self.t_events or ())]

    def _end_state(self):
        """(name, text) of the first components of y1."""
        flat = np.ravel(self.y1) if self.structure is None else self.structure.flatten(self.y1, "y1")
        rows = [(name, f"{value:.8g}") for name, value in zip(self.names[:SHOWN], flat[:SHOWN], strict=True)]
        more = flat.size - len(rows)
        return [*rows, ("...", f"{more:,} more")] if more else rows

    def to_xarray(self):
        """The rows as an xarray.Dataset, with `t` as coordinate and the names of the components as `state`.

        An array state is the variable `y`: with dims (t, state) if it has one dimension, else (t, y_0, y_1, ...). A
        structured state has one variable for each leaf, named by its path, as 'arm.angle'. How the solve ended and its
        counts are the attributes.

        Raises
        ------
        ImportError : xarray is not installed
        """
        from odec.interop.xarray import to_dataset

        return to_dataset(self)

    def plot(self, ax=None, *, components=None, phase=None, **options):
        """Draw components over time, or a phase portrait, on Matplotlib axes, which are returned.

        With dense output the curve is smooth, and shows jumps at resets; else it joins the rows. Events are marked.

        Parameters
        ----------
        ax : axes to draw on, of three dimensions for a phase portrait of three components; None takes the current ones
        components : names or places of the components to draw over time; None draws all
        phase : two or three components, as ("x", "y"), to draw against each other instead
        options : as Matplotlib's `Axes.plot` takes them

        Raises
        ------
        ArgumentError : a component that is not there, or axes of another dimension
        ImportError : Matplotlib is not installed
        """
        from odec.interop.matplotlib import plot

        return plot(self, ax, components, phase, options)


SHOWN = 12  # components that the table for notebooks shows


def _times(count):
    return "once" if count == 1 else f"{count:,} times"


def _count_text(value):
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _html_group(heading, rows):
    top = f'<tr><th colspan="2" style="text-align:left">{heading}</th></tr>' if heading else ""
    return "".join(
        ["<tbody>", top, *(f"<tr><td>{escape(a)}</td><td>{escape(b)}</td></tr>" for a, b in rows), "</tbody>"]
    )
