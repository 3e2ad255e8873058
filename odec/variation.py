"""A model together with its tangents, as one larger System: its solve, and what of that is of y alone."""

from __future__ import annotations

import dataclasses
import inspect
import math
import weakref

import numpy as np

from odec.errors import ArgumentError, nearest
from odec.event import event_functions, event_list, remembered
from odec.gradients.forward import OPERATIONS, is_by_elements, variational, variational_events
from odec.graph.structure import Branch, Leaf, Structure
from odec.integrate.run import all_finite
from odec.solving import bound, first_not_finite, posed, positive_integer, tolerance
from odec.system import System
from odec.transforms.scalar import operation_count

REMEMBERED = 16  # augmented systems of a system
NEVER = {"float64": 1e300, "float32": 1e30}  # an absolute tolerance that takes a number out of the error norm
NODES = 150  # of a right-hand side, times columns, that keeps its arrays: what is compiled in about two seconds
FEW = 4  # columns that straight-line code must hold at once to be worth it
_augmented: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # System -> {key: larger System}
KEYWORDS = tuple(name for name in inspect.signature(posed).parameters if name != "records")


# ---- arguments --------------------------------------------------------------------------------------------


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


# ---- the larger System ------------------------------------------------------------------------------------


def augmented_system(system, directions, events=()):
    """The System of the variational equations, made once: each number of y followed by its derivatives.

    It knows the functions of the events, which carry the derivatives across.
    """
    larger = larger_system(system, directions, 1 + len(directions), lambda: variational(system.graph, directions))
    if events:
        _watch(system, larger, directions, events)
    return larger


def larger_system(system, key, width, make):
    """The System of the right-hand side that make() gives, made once for a key: `width` numbers for each of y."""
    known = _augmented.setdefault(system, {})
    if key not in known:
        if len(known) >= REMEMBERED:
            known.pop(next(iter(known)))
        graph = make()
        values = Structure(Branch("dict", ("p",), (Leaf(graph.inputs["p"].shape, 0),)), graph.inputs["p"].size)
        known[key] = System(system.name, graph, with_axis(system.y_structure, width), values, system.dtype)
    return known[key]


def with_axis(structure, length, first=False):
    """The Structure with one more axis of a length in each leaf, the last or the first."""

    def wide(item):
        if isinstance(item, Leaf):
            return Leaf((length, *item.shape) if first else (*item.shape, length), item.offset * length)
        return dataclasses.replace(item, children=tuple(wide(child) for child in item.children))

    return Structure(wide(structure.root), structure.size * length)


def _watch(system, larger, directions, events):
    """Let the augmented system know its functions of events."""
    make = lambda: variational_events(larger.graph, directions, event_functions(system, events))
    return remembered(larger, "functions", events, make)


def parts_of(system, moved, chunk, error_control, events):
    """(parts of what is differentiated by that are solved at once, whether the kernel may know which parameters they
    move)."""
    total = len(moved.places)
    size = _chunk_size(system, total, chunk, error_control)
    parts = [moved.part(first, size) for first in range(0, max(total, 1), max(size, 1))]
    return parts, len(parts) == 1 and not changes_parameters(system, events)


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


def changes_parameters(system, events):
    """Whether a reset of an event returns other parameters."""
    if not any(event.reset for event in events):
        return False
    found = event_functions(system, events)
    return any(f.outputs["p_new"] is not f.inputs["p"] for name, f in found.items() if name.startswith("reset"))


def tolerances_of_y(system, rtol, atol, sizes, error_control):
    """(rtol, atol) (n, 1 + c) of the augmented state.

    Without error control the derivatives leave the error norm, a mean over all numbers: the tolerances of y are
    narrower by the square root of how many there are for each of y, so that the norm is that of y alone.
    """
    structure, dtype, c = system.y_structure, system.dtype, len(sizes)
    relative, absolute = (
        np.broadcast_to(np.asarray(tolerance(system, what, given), float), (structure.size,))
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


# ---- its solve --------------------------------------------------------------------------------------------


def posed_with_tangents(system, t_span, states, inputs, directions, limits, options, records=False):
    """The Posed of the augmented system.

    states (n, 1 + c); inputs : p as `directions` needs it; limits : (rtol, atol) (n, 1 + c); options : of `solve`
    """
    larger = augmented_system(system, directions, options["events"])
    return posed_larger(larger, t_span, states, inputs, limits, options, records)


def posed_larger(larger, t_span, states, inputs, limits, options, records=False):
    """The Posed of a `larger_system` with states (n, width) and tolerances of that shape."""
    state, relative, absolute = (
        larger.y_structure.unflatten(np.ravel(a).astype(larger.dtype)) for a in (states, *limits)
    )
    return posed(
        larger, t_span, state, {"p": np.ravel(inputs)}, rtol=relative, atol=absolute, records=records, **options
    )


def solution_of_state(task, out, system, inputs, given, throw):
    """The Solution of y alone of the Outcome of an augmented system.

    given : (rtol, atol) as the user gave them
    """
    structure = system.y_structure
    rtol, atol = (tolerance(system, what, value) for what, value in zip(("rtol", "atol"), given, strict=True))
    own = dataclasses.replace(task, system=system, problem=dataclasses.replace(task.problem, rtol=rtol, atol=atol))
    width = task.system.y_structure.size // structure.size
    return own.solution(_of_state(out, structure.size, width, inputs), throw)


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
