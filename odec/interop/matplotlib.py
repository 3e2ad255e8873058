"""Drawings of solutions: components over time, and phase portraits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from odec.errors import ArgumentError, nearest
from odec.graph.structure import children_of

LABELLED = 10  # components that a legend has room for
POINTS = 2_000, 100_000  # fewest of a smooth curve; most, unless there are more steps
STEP_POINTS = 8  # of one step, where POINTS leave room
MARKS = "osD^vPX*"


def pyplot() -> Any:
    """The module matplotlib.pyplot, imported.

    Raises
    ------
    ImportError : Matplotlib is not installed
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError("odec: plot needs Matplotlib, which is not installed; pip install odec[plot].") from None
    return plt


def plot(solution, ax=None, components=None, phase=None, options=None):
    """Draw a Solution; see `Solution.plot`."""
    plt = pyplot()
    if components is not None and phase is not None:
        raise ArgumentError(f"{solution.name}: plot takes components= over time or phase=; leave one out.")
    columns = columns_of(solution, components) if phase is None else _phase_columns(solution, phase)
    times, rows = curve(solution, columns)
    options = dict(options or {})
    if len(times) == 1 and not {"marker", "linestyle", "ls"} & set(options):
        options["marker"] = "o"  # a line of one point shows nothing
    ax = axes_of(plt, ax, 2 if phase is None else len(columns), solution.name)
    if phase is None:
        _draw_series(plt, ax, solution, times, rows, columns, options)
    else:
        _draw_phase(ax, solution, rows, columns, options)
    return ax


def curve(solution, columns):
    """Times (k,) and components (k, len(columns)) of a smooth curve by dense output, else of the rows that were kept.

    Steps are divided evenly, so that short steps, where the solution turns sharply, stay fine. At a reset the states
    just before and just after it follow each other.
    """
    dense = solution.dense
    if dense is None or not len(dense.starts):
        return solution.ts, solution.flat_rows[:, columns]
    parts = -(-max(POINTS[0], min(POINTS[1], STEP_POINTS * len(dense.starts))) // len(dense.starts))
    edges = np.append(dense.starts, dense.end[0])
    times = (edges[:-1, None] + np.diff(edges)[:, None] * (np.arange(parts) / parts)).ravel()
    after = np.nextafter(dense.jumps, edges[-1])
    forward = edges[-1] >= edges[0]
    times = np.unique(np.concatenate([times, dense.jumps, after, edges[-1:]]))[:: 1 if forward else -1]
    times = times[(times - edges[0]) * (edges[-1] - times) >= 0]
    t_end, y_end = dense.end
    drawn = replace(dense, rows=dense.rows[:, :, columns], end=(t_end, y_end[columns]))
    return times, drawn(times, solution.name)


# ---- which components -------------------------------------------------------------------------------------


def columns_of(solution, components):
    """The places in the flat state of components given by name or place; of all, where none are given."""
    if components is None:
        return list(range(len(solution.names)))
    if isinstance(components, (str, int)):
        components = (components,)
    columns = [_column(solution, component) for component in components]
    if not columns:
        raise ArgumentError(f"{solution.name}: components is empty; leave it out to draw all.")
    return columns


def _phase_columns(solution, phase):
    if isinstance(phase, str) or len(phase) not in (2, 3):
        raise ArgumentError(f"{solution.name}: phase is {phase!r}; two or three components are needed, as ('x', 'y').")
    return [_column(solution, component) for component in phase]


def _column(solution, component):
    names = solution.names
    if isinstance(component, str):
        if component in names:
            return names.index(component)
        known = ", ".join(names[:LABELLED]) + (", ..." if len(names) > LABELLED else "")
        raise ArgumentError(
            f"{solution.name}: no component is called {component!r}{nearest(component, names)} They are {known}."
        )
    if isinstance(component, (int, np.integer)) and -len(names) <= component < len(names):
        return int(component) % len(names)
    raise ArgumentError(
        f"{solution.name}: {component!r} is no component; a name, or a place from 0 to {len(names) - 1}, is needed."
    )


# ---- drawing -----------------------------------------------------------------------------------------------


def axes_of(plt, ax, dimensions, name):
    """The axes given, or the current ones if they have as many dimensions, else new ones."""
    projection = "3d" if dimensions == 3 else None
    if ax is None:
        figure = plt.gcf()
        ax = figure.gca() if figure.axes else figure.add_subplot(projection=projection)
        return ax if _is_3d(ax) == (dimensions == 3) else plt.figure().add_subplot(projection=projection)
    if _is_3d(ax) != (dimensions == 3):
        raise ArgumentError(
            f"{name}: the axes have {3 if _is_3d(ax) else 2} dimensions, the drawing {dimensions}; make them with "
            f"figure.add_subplot({'projection=' + repr('3d') if projection else ''}), or leave ax out."
        )
    return ax


def _is_3d(ax):
    return ax.name == "3d"


def _draw_series(plt, ax, solution, times, rows, columns, options):
    colours = _colours(plt, len(columns)) if not {"color", "c"} & set(options) else [{}] * len(columns)
    labelled = set(np.linspace(0, len(columns) - 1, min(LABELLED, len(columns))).round().astype(int).tolist())
    for k, (column, colour) in enumerate(zip(columns, colours, strict=True)):
        label = solution.names[column] if k in labelled else None
        ax.plot(times, rows[:, k], **{"label": label, **colour, **options})
    marks = _events(solution)
    for states, moments, mark in marks:
        ax.plot(np.repeat(moments, len(columns)), states[:, columns].ravel(), **mark)
    ax.set_xlabel("t")
    if len(columns) == 1:
        ax.set_ylabel(solution.names[columns[0]])
    title = f"{len(labelled)} of {len(columns)} components" if len(labelled) < len(columns) else None
    if len(columns) > 1 or marks:
        size = "small" if title else "medium"
        # finding the best place compares it with every point
        place = "best" if len(times) * len(columns) < POINTS[1] else "upper right"
        ax.legend(title=title, fontsize=size, title_fontsize=size, loc=place)


def _colours(plt, count):
    """Matplotlib's own cycle for as many lines as it can tell apart, else a scale from first to last."""
    if count <= LABELLED:
        return [{}] * count
    return [{"color": plt.colormaps["viridis"](k / (count - 1))} for k in range(count)]


def _draw_phase(ax, solution, rows, columns, options):
    ax.plot(*rows.T, **options)
    marks = _events(solution)
    for states, _, mark in marks:
        ax.plot(*(states[:, column] for column in columns), **mark)
    for axis, column in zip("xyz", columns):
        getattr(ax, f"set_{axis}label")(solution.names[column])
    if marks:
        ax.legend()


def _events(solution):
    """[(flat states (k, n), times (k,), how to mark them)] of the events that came."""
    times, marks = solution.t_events or (), []
    for k, moments in enumerate(times):
        if len(moments):
            leaves = [np.reshape(leaf, (len(moments), -1)) for leaf in _leaves(solution.y_events[k])]
            label = "event" if len(times) == 1 else f"event {k}"
            mark = {"marker": MARKS[k % len(MARKS)], "linestyle": "none", "markersize": 5, "label": label}
            mark |= {"markerfacecolor": "none", "markeredgecolor": "0.2"}
            marks.append((np.hstack(leaves), moments, mark))
    return marks


def _leaves(value):
    parts = children_of(value)
    return [value] if parts is None else [leaf for child in parts[2] for leaf in _leaves(child)]
