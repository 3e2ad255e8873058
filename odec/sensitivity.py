"""`odec.sensitivities`, `odec.solve_jvp`: derivatives of a solve by y0, parameters and t0, forward in time."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from odec.errors import ArgumentError, SolveError, nearest
from odec.event import event_functions, event_list, event_table, remembered
from odec.event_sensitivity import event_tangents
from odec.gradients.forward import FROM_INPUT, OPERATIONS, is_by_elements, variational, variational_events
from odec.graph.structure import Branch, Leaf, Structure, children_of
from odec.integrate.run import all_finite
from odec.solution import Solution
from odec.solving import bound, first_not_finite, parameters_by_name, posed, positive_integer, span_of, tolerance
from odec.system import System
from odec.transforms.scalar import operation_count

REMEMBERED = 16  # augmented systems of a system
NEVER = {"float64": 1e300, "float32": 1e30}  # an absolute tolerance that takes a number out of the error norm
NODES = 150  # of a right-hand side, times columns, that keeps its arrays: what is compiled in about two seconds
FEW = 4  # columns that straight-line code must hold at once to be worth it
_augmented: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # System -> {directions: augmented System}


@dataclass(frozen=True)
class SensitivitySolution(Solution):
    """A Solution with derivatives of its rows, and of its events.

    sensitivities : by name of the input, d ys / d input, (m, *y.shape, *input.shape); where y or the input is a
        structure, the structure of y, in each leaf the structure of the input
    t_event_sensitivities, y_event_sensitivities : for each event such dicts, of its times, (k, *input.shape), and of
        its states, (k, *y.shape, *input.shape), the moving of its times included; None without events
    """

    sensitivities: dict[str, Any] = field(default_factory=dict)
    t_event_sensitivities: list | None = None
    y_event_sensitivities: list | None = None


def sensitivities(model, t_span, y0, params=(), *, wrt, rtol=1e-6, atol=1e-9, error_control=False, chunk=None,
                  batched=(), dtype=None, progress=False, throw=True, **options):  # fmt: skip
    """Solve dy/dt = f(t, y, *params) together with the derivatives of y by y0, parameters or t0.

    The variational equations ds/dt = (df/dy) s + df/dp are solved with the model, by the same steps. Unless
    `error_control` is set, the error of y alone chooses their sizes, as in `odec.solve`, and the derivatives are those
    of the computed numbers, the step sizes held fixed. They are derivatives at fixed times, of the last row too where a
    terminal event ends the solve; resets of events carry them across, the moving of the event's time included. How the
    times of events move, and the states there with them, is given beside.

    Parameters
    ----------
    model, t_span, y0, params, rtol, atol, dtype, progress, throw : as for `odec.solve`
    wrt : names of parameters, "y0", or "t0", one or several; a parameter that does not enter has zeros
    error_control : let the derivatives by x take part in the error norm, with the tolerances rtol and
        atol / |x| (atol where x is 0)
    chunk : how many derivatives (numbers to differentiate by) to solve at once; None chooses
    batched : names of the inputs that the members of an ensemble differ in, as for `odec.solve_ensemble`; members lie
        in lanes and threads, each with its own step sizes, and none raises
    options : as for `odec.solve`; with `batched` as for `odec.solve_ensemble` on the CPU of this process

    Returns
    -------
    SensitivitySolution, whose `sensitivities[name]` is (m, *y.shape, *input.shape), in the unit of y over that of the
    input; for a structured y the structure of y, and in its leaves that of a structured input. With `batched` an
    EnsembleSensitivities: an EnsembleSolution whose `sensitivities[name]` is (N, m, *y.shape, *input.shape)

    Raises
    ------
    ArgumentError, ShapeError, TraceError : the arguments or the model cannot be used
    SolveError : the solve stopped early; `.solution` holds what was reached

    References: [hairer1993] I.14
    """
    if batched:
        from odec.ensemble_sensitivity import ensemble_sensitivities

        return ensemble_sensitivities(
            model, t_span, y0, params, wrt=wrt, rtol=rtol, atol=atol, error_control=error_control, chunk=chunk,
            batched=batched, dtype=dtype, progress=progress, **options,
        )  # fmt: skip
    check_options("sensitivities", options)
    values = parameters_by_name(model, params, "sensitivities")
    system, y, p = point_of(model, y0, values, dtype)
    names = names_of(system, values, wrt)
    moved = Moved.by(system, names, span_of(system.name, t_span)[0], y, p)
    total = len(moved.places)
    parts, constants = parts_of(system, moved, chunk, error_control, options["events"])
    if error_control and len(parts) > 1 and options.get("t_eval") is None:
        raise ArgumentError(
            f"{system.name}: with error_control, chunks of {len(parts[0].places)} of {total} derivatives take "
            "different steps; give t_eval, or a larger chunk."
        )
    solved = []
    for part in parts:
        states, inputs, directions = part.posed(y, p, constants)
        limits = tolerances_of_y(system, rtol, atol, part.sizes, error_control)
        solved.append(_solved(system, t_span, states, inputs, directions, (rtol, atol), limits, options, progress))
    found = _joined(system, solved, total, names, p)
    if throw and not found.success:
        raise SolveError(found.message, found)
    return found


def solve_jvp(model, t_span, y0, params=(), *, tangents, rtol=1e-6, atol=1e-9, dtype=None, progress=False, throw=True,
              **options):  # fmt: skip
    """(sol, ys_dot): the Solution, and the derivative of sol.ys along a direction of y0 and params.

    It is the derivative of the computed numbers at fixed times, with the steps and their sizes held fixed, but for
    events: their times move, and resets carry the derivative across.

    Parameters
    ----------
    model, t_span, y0, params, rtol, atol, dtype, progress, throw : as for `odec.solve`
    tangents : (dy0, dparams), in the structure of y0, and a tuple in signature order or a dict by name; None, and a
        missing name, is zero
    options : as for `odec.solve`

    Returns
    -------
    Solution, and ys_dot in the structure of sol.ys

    Raises
    ------
    ArgumentError, ShapeError, TraceError : the arguments or the model cannot be used
    SolveError : the solve stopped early; `.solution` holds what was reached
    """
    check_options("solve_jvp", options)
    values = parameters_by_name(model, params, "solve_jvp")
    system, y, p = point_of(model, y0, values, dtype)
    dy, dp = direction_of(system, tangents)
    if dp is None and _changes_parameters(system, options["events"]):
        dp = np.zeros_like(p)
    directions = (None,) if dp is None else (FROM_INPUT,)
    states, inputs = np.stack([y, dy], axis=1), p if dp is None else np.stack([p, dp], axis=1)
    limits = tolerances_of_y(system, rtol, atol, np.zeros(1), False)
    solution, rows, _ = _solved(system, t_span, states, inputs, directions, (rtol, atol), limits, options, progress)
    if throw and not solution.success:
        raise SolveError(solution.message, solution)
    return solution, system.y_structure.unflatten(np.ascontiguousarray(rows[:, :, 1]), (len(rows),))


# ---- what is differentiated by ----------------------------------------------------------------------------


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
    name = system.name
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise ArgumentError(f"{name}: tangents is {given!r}; a tuple (dy0, dparams) is needed, None for zero.")
    dy0, dparams = given
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
        if flat is not None and not all_finite(flat):
            worst = flat[~np.isfinite(flat)][0]
            raise ArgumentError(f"{name}: the tangent of {what} has {worst}; finite numbers are needed.")
    return dy, dp


# ---- the larger model -------------------------------------------------------------------------------------


def augmented_system(system, directions, events=()):
    """The System of the variational equations, made once: each number of y followed by its derivatives.

    It knows the kernels of the events, which carry the derivatives across.
    """
    larger = _augmented_system(system, directions)
    if events:
        _watch(system, larger, directions, events)
    return larger


def _augmented_system(system, directions):
    known = _augmented.setdefault(system, {})
    if directions not in known:
        if len(known) >= REMEMBERED:
            known.pop(next(iter(known)))
        width = 1 + len(directions)
        graph = variational(system.graph, directions)
        values = Structure(Branch("dict", ("p",), (Leaf(graph.inputs["p"].shape, 0),)), graph.inputs["p"].size)
        known[directions] = System(system.name, graph, with_axis(system.y_structure, width), values, system.dtype)
    return known[directions]


def with_axis(structure, length, first=False):
    """The Structure with one more axis of a length in each leaf, the last or the first."""

    def wide(item):
        if isinstance(item, Leaf):
            return Leaf((length, *item.shape) if first else (*item.shape, length), item.offset * length)
        return dataclasses.replace(item, children=tuple(wide(child) for child in item.children))

    return Structure(wide(structure.root), structure.size * length)


def parts_of(system, moved, chunk, error_control, events):
    """(parts of what is differentiated by that are solved at once, whether the kernel may know which parameters they
    move)."""
    total = len(moved.places)
    size = _chunk_size(system, total, chunk, error_control)
    parts = [moved.part(first, size) for first in range(0, max(total, 1), max(size, 1))]
    return parts, len(parts) == 1 and not _changes_parameters(system, events)


def _chunk_size(system, total, chunk, error_control):
    """How many columns to solve at once: chunks of nearly equal size."""
    if chunk is not None:
        return min(positive_integer(system.name, "chunk", chunk), total)
    if error_control or not total:
        return total
    graph = system.graph
    elements = max(1, OPERATIONS // (2 * operation_count(graph) + system.y_structure.size))
    most = elements if is_by_elements(graph, min(total, FEW)) else max(1, NODES // len(graph.nodes))
    return math.ceil(total / math.ceil(total / most))


def tolerances_of_y(system, rtol, atol, sizes, error_control):
    """(rtol, atol) (n, 1 + c) of the augmented state.

    Without error control the derivatives leave the error norm, a mean over all numbers: the tolerances of y are
    narrower by the square root of how many there are for each of y, so that the norm is that of y alone.
    """
    structure, dtype, c = system.y_structure, system.dtype, len(sizes)
    relative, absolute = (
        np.broadcast_to(np.asarray(tolerance(system.name, what, given, structure, dtype), float), (structure.size,))
        for what, given in (("rtol", rtol), ("atol", atol))
    )
    if error_control:
        scales = np.concatenate([[1.0], np.where(sizes > 0, sizes, 1.0)])
        least, most = np.finfo(dtype).tiny, NEVER[dtype]
        return np.repeat(relative[:, None], 1 + c, axis=1), np.clip(absolute[:, None] / scales, least, most)
    narrower = 1.0 / math.sqrt(1 + c)
    absolutes = np.full((structure.size, 1 + c), NEVER[dtype])
    absolutes[:, 0] = absolute * narrower
    return np.repeat(relative[:, None] * narrower, 1 + c, axis=1), absolutes


def _solved(system, t_span, states, inputs, directions, given, limits, options, progress):
    """(Solution of y alone, rows (m, n, 1 + c), call for `event_tangents`) of one solve of the augmented system.

    given : (rtol, atol) as the user gave them; limits : those of the augmented state
    """
    task = posed_with_tangents(system, t_span, states, inputs, directions, limits, options)
    out = task.run(progress)
    rows = out.ys.reshape(len(out.ts), system.y_structure.size, 1 + len(directions))
    tangents = functools.partial(event_tangents, system, task.watched, directions, task, out)
    return solution_of_state(task, out, system, inputs, given, throw=False), rows, tangents


def posed_with_tangents(system, t_span, states, inputs, directions, limits, options, records=False):
    """The Posed of the augmented system.

    states (n, 1 + c); inputs : p as `directions` needs it; limits : (rtol, atol) (n, 1 + c); options : of `solve`
    """
    larger = augmented_system(system, directions, options["events"])
    state, relative, absolute = (
        larger.y_structure.unflatten(np.ravel(a).astype(system.dtype)) for a in (states, *limits)
    )
    return posed(
        larger, t_span, state, {"p": np.ravel(inputs)}, rtol=relative, atol=absolute, records=records, **options
    )


def solution_of_state(task, out, system, inputs, given, throw):
    """The Solution of y alone of the Outcome of an augmented system.

    given : (rtol, atol) as the user gave them
    """
    structure, dtype = system.y_structure, system.dtype
    rtol, atol = (tolerance(system.name, n, v, structure, dtype) for n, v in zip(("rtol", "atol"), given))
    own = dataclasses.replace(task, system=system, problem=dataclasses.replace(task.problem, rtol=rtol, atol=atol))
    width = task.system.y_structure.size // structure.size
    return own.solution(_of_state(out, structure.size, width, inputs), throw)


def _watch(system, larger, directions, events):
    """Let the augmented system know its kernels of events."""

    def make():
        functions = variational_events(larger.graph, directions, event_functions(system, events))
        return event_table(larger.compiled_functions(functions), events)

    return remembered(larger, "solve", events, make)


def _changes_parameters(system, events):
    """Whether a reset of an event returns other parameters."""
    if not any(event.reset for event in events):
        return False
    found = event_functions(system, events)
    return any(f.outputs["p_new"] is not f.inputs["p"] for name, f in found.items() if name.startswith("reset"))


def _of_state(out, n, width, inputs):
    """An Outcome of the augmented system as that of y alone."""

    def first(flat):
        return None if flat is None else np.ascontiguousarray(flat.reshape(*flat.shape[:-1], n, width)[..., 0])

    dense = out.dense
    if dense is not None:
        dense = dataclasses.replace(dense, rows=first(dense.rows), end=(dense.end[0], first(dense.end[1])))
    p = inputs if inputs.ndim == 1 else np.ascontiguousarray(inputs[:, 0])
    return dataclasses.replace(
        out, ys=first(out.ys), y=first(out.y), slope=first(out.slope), p=p, dense=dense, fired_y=first(out.fired_y)
    )


def _joined(system, solved, total, names, p):
    """The SensitivitySolution of one or several chunks, as far as all of them came."""
    solution = min((s for s, *_ in solved), key=lambda s: (len(s.ts), s.success))
    kept = len(solution.ts)
    columns = np.concatenate([rows[:kept, :, 1:] for _, rows, _ in solved], axis=2)[:, :, :total]
    sums = {k: sum(s.stats[k] for s, *_ in solved) for k in ("nfev", "compile_seconds", "solve_seconds")}
    fields = {f.name: getattr(solution, f.name) for f in dataclasses.fields(solution)}
    by_time, by_state = None, None
    if solution.t_events is not None:
        by_time, by_state = _of_events(system, [tangents() for *_, tangents in solved], total, names)
    return SensitivitySolution(
        **(fields | {"stats": solution.stats | sums}), sensitivities=by_name(system, names, columns),
        t_event_sensitivities=by_time, y_event_sensitivities=by_state,
    )  # fmt: skip


def _of_events(system, chunks, total, names):
    """Derivatives of the times and of the states of each event, by name of the input."""
    found = []
    for place, outer in ((0, Structure(Leaf((), 0), 1)), (1, system.y_structure)):
        of_events = []
        for parts in zip(*(chunk[place] for chunk in chunks)):
            kept = min(map(len, parts))
            columns = np.concatenate([part[:kept] for part in parts], axis=-1)[..., :total]
            of_events.append(by_name(system, names, columns.reshape(kept, outer.size, total), outer))
        found.append(of_events)
    return found


def by_name(system, names, columns, outer=None):
    """Derivatives (m, n, c) of values with the Structure outer, None for that of y, by name of the input."""
    found, begin = {}, 0
    for name in names:
        structure = input_structure(system, name)
        found[name] = by_input(outer or system.y_structure, structure, columns[:, :, begin : begin + structure.size])
        begin += structure.size
    return found


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


# ---- arguments --------------------------------------------------------------------------------------------

KEYWORDS = tuple(name for name in inspect.signature(posed).parameters if name != "records")


def check_options(where, options):
    """TypeError for a keyword that there is not; ArgumentError for a mass matrix. Events become records."""
    for name, value in options.items():
        if name == "mass_matrix":
            if value is not None:
                raise ArgumentError(f"{where}: mass_matrix is not available in this version; leave it out.")
        elif name not in KEYWORDS:
            raise TypeError(f"{where}() has no keyword {name!r}{nearest(name, KEYWORDS)}")
    options.pop("mass_matrix", None)
    options["events"] = event_list(options.get("events", ()))


def point_of(model, y0, values, dtype):
    """(system, flat y, flat p), finite numbers."""
    system, y, p = bound(model, y0, values, dtype)
    for what, flat in (("y0", y), ("params", p)):
        if not all_finite(flat):
            raise ArgumentError(f"{system.name}: {first_not_finite(system, what, flat)}; finite numbers are needed.")
    return system, y, p
