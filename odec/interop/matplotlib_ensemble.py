"""Drawings of ensembles: fans of quantiles, members, reductions, histograms of the ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from odec.errors import ArgumentError
from odec.interop.matplotlib import axes_of, columns_of, pyplot
from odec.interop.on_host import on_host

FEW = 20  # members below which the quantiles of the outer band are not known, and lines can be told apart
MOST_LINES = 200  # members that are drawn one by one
MOST_PANELS = 6  # components drawn where none are named
MOST_BINS = 100
ALL = slice(None)
STYLES = {"std": ":", "min": "--", "max": "--", "sum": "-."}  # lines of reductions beside the mean
ACROSS = {"end": 3}  # panels side by side; over time they stand on each other
BANDS = (((0.25, 0.75), 0.35, "50 %"), ((0.05, 0.95), 0.2, "90 % of members"))  # quantiles, opacity, label


def plot_ensemble(solution, ax=None, kind="auto", components=None, options=None):
    """Draw an EnsembleSolution; see `EnsembleSolution.plot`."""
    plt, solution = pyplot(), on_host(solution)
    kind = _kind(solution, kind)
    columns, options = columns_of(solution, components), dict(options or {})
    there = len(columns)
    if components is None and there > MOST_PANELS:
        columns = [columns[k] for k in np.linspace(0, there - 1, MOST_PANELS).round().astype(int)]
    panels, new = _panels(plt, ax, len(columns), ACROSS.get(kind, 1), solution.name)
    together = len(panels) == 1 < len(columns)
    scale = _scale(plt, solution) if kind == "members" and not together and not {"color", "c"} & set(options) else None
    for k, column in enumerate(columns):
        drawing = Drawing(panels[0 if together else k], solution, column, f"C{k % 10}", together, options, scale)
        DRAWINGS[kind](drawing)
        _label(drawing, kind)
    if kind != "end":
        panels[-1].set_xlabel("t")
    if scale is not None:
        panels[0].figure.colorbar(plt.cm.ScalarMappable(scale.norm, scale.colours), ax=panels, label=scale.name)
    headline = _headline(solution, kind) + (f"; {len(columns)} of {there} components" if len(columns) < there else "")
    _legend(panels, headline, new)
    return panels[0] if len(panels) == 1 else np.array(panels)


@dataclass(frozen=True)
class Drawing:
    """One component on its axes; `together` where others are on the same ones."""

    ax: Any
    solution: Any
    column: int
    colour: str
    together: bool
    options: dict
    scale: Scale | None

    @property
    def name(self):
        """Of the component."""
        return self.solution.names[self.column]


@dataclass(frozen=True)
class Scale:
    """Colours of the members by the values (N,) of the one input in which they differ."""

    name: str
    values: np.ndarray
    norm: Any
    colours: Any

    def colour(self, i):
        """Of member i."""
        return self.colours(self.norm(self.values[i]))


def _scale(plt, solution):
    """The Scale of an ensemble whose members differ in one number, else None."""
    if len(solution.batched) != 1:
        return None
    ((name, given),) = solution.batched.items()
    values = given if isinstance(given, np.ndarray) else np.empty(0)
    if values.shape != (len(solution),) or not np.isfinite(values).any():
        return None
    norm = plt.Normalize(np.nanmin(values), np.nanmax(values))
    return Scale(name, values, norm, plt.colormaps["viridis"])


# ---- what can be drawn ---------------------------------------------------------------------------------------


def _kind(solution, kind):
    """The kind of drawing; ArgumentError for one that there is not, or that lacks what it needs."""
    if kind == "auto":
        return _fitting(solution)
    if not isinstance(kind, str) or kind not in DRAWINGS:
        known = ", ".join(map(repr, DRAWINGS))
        raise ArgumentError(f"{solution.name}: kind is {kind!r}; it is one of {known}, or 'auto'.")
    missing = _missing(solution, kind)
    if missing:
        raise ArgumentError(f"{solution.name}: kind='{kind}' cannot be drawn: {missing}")
    return kind


def _fitting(solution):
    """The kind that shows most of what was kept."""
    if solution.ts.shape[-1] == 1:
        return "end"
    if solution.flat_rows is None:
        return "reduced" if not _missing(solution, "reduced") else "end"
    return "members" if shared_times(solution) is None or len(solution) < FEW else "fan"


def _missing(solution, kind):
    """What a drawing needs and the ensemble lacks, with what to do; None where it lacks nothing."""
    if kind == "end":
        return None
    if solution.ts.shape[-1] == 1:
        return "one time of each member was kept; solve with t_eval=times, or draw kind='end'."
    if kind == "reduced":
        if not solution.reduced:
            return "nothing was reduced; solve with reduce=('mean', 'std'), or draw kind='fan'."
        return None if shared_times(solution) is not None else OWN_TIMES.format("'end'")
    if solution.flat_rows is None:
        return f"the rows were only reduced, to {', '.join(solution.reduced)}; solve without reduce, or draw 'reduced'."
    if kind == "fan" and shared_times(solution) is None:
        return OWN_TIMES.format("'members'")
    return None


OWN_TIMES = "the members have times of their own; solve with the same t_eval for all, or draw kind={}."


def shared_times(solution):
    """The times (m,) that all members share, else None."""
    ts = solution.ts
    if ts.ndim == 1:
        return ts
    return ts[0] if np.array_equal(ts, np.broadcast_to(ts[0], ts.shape), equal_nan=True) else None


# ---- axes ----------------------------------------------------------------------------------------------------


def _panels(plt, ax, count, across, name):
    """(axes to draw on, whether they are new): those given, one or one for each component, else new ones.

    For one component the current axes serve, as for a Solution.
    """
    if ax is None and count > 1:
        return _new_panels(plt, count, across), True
    given = [ax] if ax is None or not np.iterable(ax) else list(np.ravel(np.array(ax, object)))
    if len(given) not in (1, count):
        raise ArgumentError(
            f"{name}: ax has {len(given)} axes, the drawing {count} components; give one, or one for each component."
        )
    new = ax is None and not plt.gcf().axes
    if new:
        plt.gcf().set_layout_engine("constrained")
    return [axes_of(plt, axis, 2, name) for axis in given], new


def _new_panels(plt, count, across):
    """As many axes, on each other or in rows, in the current figure if that is empty, else in a new one."""
    wide = min(count, across)
    high = math.ceil(count / wide)
    figure = plt.gcf()
    if figure.axes:
        figure = plt.figure()
    if figure.get_layout_engine() is None:
        width, height = plt.rcParams["figure.figsize"]
        if tuple(figure.get_size_inches()) == (width, height):
            figure.set_size_inches(width * (1 + 0.35 * (wide - 1)), height * (0.55 + 0.35 * (high - 1)))
        figure.set_layout_engine("constrained")
    axes = figure.subplots(high, wide, sharex=across == 1, squeeze=False).ravel()
    for axis in axes[count:]:
        axis.remove()
    return list(axes[:count])


def _label(drawing, kind):
    """The axes' names: of the component, or of its values where several are drawn together."""
    ax, name = drawing.ax, drawing.name
    if kind == "end":
        ax.set_xlabel(f"{'value' if drawing.together else name} {_when(drawing.solution)}")
        place = ax.get_subplotspec()
        if place is None or place.is_first_col():
            ax.set_ylabel("members")
        return
    ax.margins(x=0)
    if not drawing.together:
        ax.set_ylabel(name)


def _legend(panels, headline, new):
    """What the lines are, and of how many members: above new axes, inside others, whose titles are not ours."""
    ax = panels[0]
    handles, labels = ax.get_legend_handles_labels()
    if not new:
        ax.legend(handles, labels, title=headline, fontsize="small", title_fontsize="small")
        return
    if len(panels) > 1 and ax.get_title(loc="right"):
        ax.figure.suptitle(headline, fontsize="medium")
        return
    ax.set_title(headline, loc="left", fontsize="medium")
    if handles:
        ax.legend(
            handles, labels, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(handles), fontsize="small",
            frameon=False, borderaxespad=0.2, handlelength=1.4, columnspacing=1.2,
        )  # fmt: skip


def _headline(solution, kind):
    """'200 of 1,000 members, 12 failed'."""
    size = len(solution)
    failed = int(np.count_nonzero(~solution.success))
    text = f"{size:,} {'member' if size == 1 else 'members'}"
    if kind == "members" and size > MOST_LINES:
        text = f"{MOST_LINES} of {text}"
    return text + (f", {failed:,} failed" if failed else "")


def _when(solution):
    ends = solution.t1[solution.success]
    return f"at t = {ends[0]:g}" if len(ends) and (ends == ends[0]).all() else "at the end"


# ---- drawings ------------------------------------------------------------------------------------------------


def _line(drawing, times, values, **how):
    """A line; its colour."""
    (line,) = drawing.ax.plot(times, values, **{"color": drawing.colour, **how, **drawing.options})
    return line.get_color()


def _band(drawing, times, low, high, colour, opacity, label):
    label = None if drawing.together else label
    drawing.ax.fill_between(times, low, high, color=colour, alpha=opacity, linewidth=0, label=label)


def _draw_fan(drawing):
    """The median and the bands that hold 50 and 90 of 100 members, at each time of those that got so far."""
    solution = drawing.solution
    times, rows = shared_times(solution), rows_of(drawing)
    colour = _line(drawing, times, quantiles(rows, [0.5])[0], label=drawing.name if drawing.together else "median")
    for shares, opacity, label in BANDS:
        low, high = quantiles(rows, shares)
        _band(drawing, times, low, high, colour, opacity, label)


def quantiles(rows, shares):
    """Quantiles (len(shares), m) of the numbers of each column of rows (N, m), linear between them; nan of none."""
    ordered = np.sort(rows, axis=0)  # nan last
    last = np.maximum(np.count_nonzero(~np.isnan(rows), axis=0) - 1, 0)
    place = np.multiply.outer(np.asarray(shares, float), last)
    low = np.floor(place).astype(int)
    below, above = (np.take_along_axis(ordered, k, axis=0) for k in (low, np.minimum(low + 1, last)))
    return below + (place - low) * (above - below)


def rows_of(drawing, members: Any = ALL):
    """The rows (k, m) of the component, of members by place; computed where they are a dask array."""
    return np.asarray(drawing.solution.flat_rows[members, :, drawing.column])


def _draw_members(drawing):
    """A line for each member, evenly chosen of many; a cross where one failed."""
    solution, size = drawing.solution, len(drawing.solution)
    chosen = np.linspace(0, size - 1, min(size, MOST_LINES)).round().astype(int)
    times = solution.ts if solution.ts.ndim == 2 else np.broadcast_to(solution.ts, (size, len(solution.ts)))
    times = times[chosen]
    rows, opacity = rows_of(drawing, chosen), 0.2 + 0.6 * min(1.0, FEW / len(chosen))
    for k, i in enumerate(chosen):
        how = {"alpha": opacity, "linewidth": 1, "label": drawing.name if drawing.together and k == 0 else None}
        if drawing.scale is not None:
            how["color"] = drawing.scale.colour(i)
        _line(drawing, times[k], rows[k], **how)
    failed = ~solution.success[chosen]
    _crosses(drawing.ax, times[failed], rows[failed])


def _crosses(ax, times, rows):
    """Marks at the last numbers of rows (k, m) at times (k, m)."""
    counts = np.count_nonzero(~np.isnan(rows), axis=1)
    seen = np.flatnonzero(counts)
    if seen.size:
        last = counts[seen] - 1
        label = "failed" if "failed" not in ax.get_legend_handles_labels()[1] else None
        how = {"color": "tab:red", "marker": "x", "markersize": 5, "linestyle": "none", "label": label}
        ax.plot(times[seen, last], rows[seen, last], **how)


def _draw_reduced(drawing):
    """Mean, and a band of a standard deviation on both sides; a band from least to largest; lines of the rest."""
    times, solution = shared_times(drawing.solution), drawing.solution
    found = {name: solution.flat_reduction(name)[:, drawing.column] for name in solution.reduced}
    colour = drawing.colour
    if {"min", "max"} <= set(found):
        _band(drawing, times, found.pop("min"), found.pop("max"), colour, 0.15, "least to largest")
    if {"mean", "std"} <= set(found):
        mean, std = found["mean"], found.pop("std")
        _band(drawing, times, mean - std, mean + std, colour, 0.35, "one standard deviation")
    for name, values in found.items():
        style = {} if name == "mean" or len(found) == 1 else {"linestyle": STYLES[name]}
        label = f"{drawing.name}, {name}" if drawing.together else name
        _line(drawing, times, values, label=label, **style)


def _draw_end(drawing):
    """How many members end where."""
    solution, name = drawing.solution, drawing.name
    values = solution.flat_y1[solution.success, drawing.column].astype(float)
    values = values[np.isfinite(values)]
    if not len(values):
        raise ArgumentError(
            f"{solution.name}: no member reached its end with a finite {name}; see the ensemble's `failures`."
        )
    how = {"bins": bins(values), "color": drawing.colour, "alpha": 0.5 if drawing.together else 0.8}
    drawing.ax.hist(values, **{**how, "label": name if drawing.together else None, **drawing.options})
    if not drawing.together:
        median = np.median(values)
        drawing.ax.axvline(median, color="0.15", linewidth=1.2)
        drawing.ax.set_title(f"median {median:.4g}", loc="right", fontsize="small")


def bins(values):
    """Edges of bins for numbers (k,): as many as they call for, but no more than can be seen."""
    low, high = float(values.min()), float(values.max())
    scale = max(abs(low), abs(high))
    if high - low <= MOST_BINS * np.spacing(scale):  # all the same but for rounding
        middle, half = (low + high) / 2, 0.05 * scale or 0.5
        return np.linspace(middle - half, middle + half, 22)
    spread = np.subtract(*np.quantile(values, [0.75, 0.25]))
    width = 2 * spread / len(values) ** (1 / 3)  # the rule of Freedman and Diaconis
    count = math.ceil((high - low) / width) if width * MOST_BINS > high - low else MOST_BINS
    return np.linspace(low, high, min(max(count, math.ceil(math.log2(len(values)) + 1)), MOST_BINS) + 1)


DRAWINGS = {"fan": _draw_fan, "members": _draw_members, "reduced": _draw_reduced, "end": _draw_end}
