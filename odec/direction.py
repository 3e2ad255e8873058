"""What a solve is differentiated by: inputs by name, or one direction of them, as columns of tangents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from odec.errors import ArgumentError, nearest
from odec.gradients.forward import FROM_INPUT
from odec.graph.structure import Leaf, Structure, children_of
from odec.integrate.run import all_finite


@dataclass(frozen=True)
class Moved:
    """Numbers to differentiate by, a column for each.

    starts (n, c) : dy(t0) by each; places : where in p it lies, None where it is not there; sizes (c,) : its magnitude
    """

    starts: np.ndarray
    places: tuple
    sizes: np.ndarray

    @classmethod
    def by(cls, system, names, t0, y, p):
        """The columns of inputs by name, one after another."""
        parts = [_columns_of(system, name, t0, y, p) for name in names]
        return cls(
            np.concatenate([starts for starts, _, _ in parts], axis=1), sum((places for _, places, _ in parts), ()),
            np.concatenate([np.abs(sizes) for _, _, sizes in parts]),
        )  # fmt: skip

    def part(self, first, size):
        """Some columns; zeros where there are fewer than asked for, so that all parts fit one kernel."""
        chosen = slice(first, first + size)
        lacking = size - len(self.places[chosen])
        return Moved(
            np.pad(self.starts[:, chosen], ((0, 0), (0, lacking))), self.places[chosen] + (None,) * lacking,
            np.pad(self.sizes[chosen], (0, lacking)),
        )  # fmt: skip

    def posed(self, y, p, constants):
        """(augmented y, p, directions): with `constants` the kernel knows which parameters move, else p tells it."""
        states = np.concatenate([y[:, None], self.starts], axis=1)
        if constants:
            return states, p, self.places
        values = np.zeros((p.size, 1 + len(self.places)), p.dtype)
        values[:, 0] = p
        for k, place in enumerate(self.places, 1):
            if place is not None:
                values[place, k] = 1.0
        return states, values, (FROM_INPUT,) * len(self.places)


def _columns_of(system, name, t0, y, p):
    """(starts (n, c), places, values (c,)) of one input."""
    n = y.size
    if name == "y0":
        return np.eye(n, dtype=y.dtype), (None,) * n, y
    if name == "t0":
        return start_by_time(system, t0, y, p)[:, None], (None,), np.array([t0])
    _, place = system.p_structure.part(name)
    return np.zeros((n, place.stop - place.start), y.dtype), tuple(range(place.start, place.stop)), p[place]


def start_by_time(system, t0, y, p):
    """dy(t0) / dt0 (n,) of the solution through a point: less the slope there, 0 where that is not finite."""
    state, values = system.y_structure.unflatten(y), system.p_structure.unflatten(p).values()
    slope = system.y_structure.flatten(system.rhs(t0, state, *values), "t0", y.dtype)
    return np.where(np.isfinite(slope), -slope, 0)


def names_of(system, values, wrt):
    """The names in `wrt`, each once; ArgumentError for none, for an unknown one, and for a parameter of integers."""
    names = (wrt,) if isinstance(wrt, str) else tuple(dict.fromkeys(wrt)) if np.iterable(wrt) else ()
    known = ("y0", *map(str, system.parameters.keys), "t0")
    if not names:
        raise ArgumentError(f"{system.name}: wrt is {wrt!r}; names are needed, some of {', '.join(known)}.")
    for name in names:
        if name not in known:
            raise ArgumentError(
                f"{system.name}: wrt {name!r} is not an input{nearest(name, known)} It is one of {', '.join(known)}."
            )
        if name in values:
            _check_smooth(system.name, name, values[name])
    return names


def _check_smooth(model, name, value):
    """ArgumentError for truth values and arrays of integers, which no derivative is taken by; Python's own integers
    are numbers like others."""
    inside = children_of(value)
    if inside is not None:
        for child in inside[2]:
            _check_smooth(model, name, child)
    elif isinstance(value, bool) or (hasattr(value, "dtype") and value.dtype.kind in "biu"):
        kind = getattr(value, "dtype", "bool")
        raise ArgumentError(
            f"{model}: wrt {name!r} has values of {kind}, and nothing can be differentiated by them; pass floats, or "
            f"leave {name!r} out of wrt."
        )


def direction_of(system, given):
    """(dy (n,), dp (m,) or None) of (dy0, dparams)."""
    (dy0, dparams), name = _pair(system, given), system.name
    structure = system.y_structure
    dy, dp = np.zeros(structure.size, system.dtype), None
    if dy0 is not None:
        dy = structure.flatten(dy0, f"{name}: tangent of y0", system.dtype)
    if dparams is not None and system.p_structure.size:
        dp = np.zeros(system.p_structure.size, system.dtype)
        for key, value in system.by_name(dparams, "dparams").items():
            if value is not None:
                part, place = system.p_structure.part(key)
                dp[place] = part.flatten(value, f"{name}: tangent of {key}", system.dtype)
    for what, flat in (("y0", dy), ("params", dp)):
        _check_finite(name, what, flat)
    return dy, dp


def directions_of_members(system, given, batched, size):
    """(dy (n,) or (N, n), dp (m,) or None, own (N, k), columns (k,)) of (dy0, dparams) of an ensemble.

    batched : names of the inputs that the members differ in: their tangents differ, too, and have a first axis N; own
    are those of parameters, at `columns` of p
    """
    (dy0, dparams), name = _pair(system, given), system.name
    by_key = {} if dparams is None else system.by_name(dparams, "dparams")
    mine = {key: value for key, value in by_key.items() if key in batched and value is not None}
    shared = {key: value for key, value in by_key.items() if key not in batched}
    dy, dp = direction_of(system, (None if "y0" in batched else dy0, None if dparams is None else shared))
    if "y0" in batched and dy0 is not None:
        dy = system.y_structure.flatten_members(dy0, f"{name}: tangent of y0", system.dtype, size)
        _check_finite(name, "y0", dy.reshape(-1))
    own, columns = [np.empty((size, 0), system.dtype)], [np.empty(0, np.int64)]
    for key, value in mine.items():
        part, place = system.p_structure.part(key)
        own.append(part.flatten_members(value, f"{name}: tangent of {key}", system.dtype, size))
        _check_finite(name, key, own[-1].reshape(-1))
        columns.append(np.arange(place.start, place.stop))
    return dy, dp, np.hstack(own), np.hstack(columns)


def _pair(system, given):
    """(dy0, dparams); ArgumentError for anything but two."""
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise ArgumentError(f"{system.name}: tangents is {given!r}; a tuple (dy0, dparams) is needed, None for zero.")
    return given


def _check_finite(name, what, flat):
    if flat is not None and not all_finite(flat):
        worst = flat[~np.isfinite(flat)][0]
        raise ArgumentError(f"{name}: the tangent of {what} has {worst}; finite numbers are needed.")


def input_structure(system, name):
    """The Structure of an input, in a vector of its own."""
    if name == "y0":
        return system.y_structure
    return Structure(Leaf((), 0), 1) if name == "t0" else system.p_structure.part(name)[0]


def by_input(outer, inner, values):
    """Derivatives (..., m, n, c) as the structure of y with that of the input in its leaves."""
    lead = values.shape[:-2]

    def block(row, column):
        part = values[..., row.offset : row.offset + row.size, column.offset : column.offset + column.size]
        return part.reshape(*lead, *row.shape, *column.shape)

    return outer.map(lambda row: inner.map(lambda column: block(row, column)))
