"""Events: times at which a function of the state changes sign, and what happens there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from odec.errors import ArgumentError, ShapeError
from odec.gradients.crossings import EventPulls
from odec.graph.function import Function
from odec.graph.node import coerce, constant, input_node, line_is, topological
from odec.graph.structure import Leaf, children_of
from odec.graph.trace import unwrap
from odec.integrate.problem import EventKernels
from odec.ops.shaping import array
from odec.ops.structure import concatenate, reshape
from odec.steppers.runge_kutta import evaluation
from odec.steppers.taylor import TaylorMethod
from odec.tracing import flat_result, traced
from odec.transforms.along import along
from odec.transforms.jvp import jvp
from odec.transforms.vjp import vjp

REMEMBERED = 16  # lists of events of a system


@dataclass(frozen=True)
class Event:
    """A function fn(t, y, *params) whose sign changes are found and kept, in the solution's `t_events`, `y_events`.

    fn : traced like dynamics; takes t and y, and parameters by their names, or all of them in order; returns a number
    terminal : end the solve at the first event, or after a number of them
    direction : 1 only where fn rises along the solve, -1 only where it falls, 0 both
    reset : reset(t, y, *params) -> the new y, or (y, params) with params a tuple in order or a dict of those that
        change; `y_events` holds the state before it

    An event happens where fn reaches zero or the other sign; not at the start, where fn may be zero, nor where a reset
    carries fn past zero, nor where fn comes back from nan. Resets at the same time happen in the order of the list;
    a terminal event ends the solve before them. Resets without end (a ball that comes to rest) end it too. Sign changes
    are looked for at eight places in each step: two closer together than that may be missed, lower max_step then. With
    method="taylor" none is missed of a smooth fn: its own Taylor series says where to look.

    Raises
    ------
    ArgumentError : a field that cannot be used
    """

    fn: Callable
    terminal: bool | int = False
    direction: float = 0
    reset: Callable | None = None

    def __post_init__(self):
        if not callable(self.fn):
            raise ArgumentError(f"Event: fn is {self.fn!r}; a function fn(t, y, *params) is needed.")
        if self.reset is not None and not callable(self.reset):
            raise ArgumentError(f"Event: reset is {self.reset!r}; a function reset(t, y, *params) is needed, or None.")
        if not isinstance(self.terminal, (bool, int, np.bool_, np.integer)) or self.terminal < 0:
            raise ArgumentError(f"Event: terminal is {self.terminal!r}; True, False or a number of events is needed.")
        if isinstance(self.direction, (str, bool)) or not np.isfinite(self.direction):
            raise ArgumentError(f"Event: direction is {self.direction!r}; -1, 0 or 1 is needed.")

    @property
    def name(self):
        """The name of its function."""
        return getattr(self.fn, "__name__", type(self.fn).__name__)


def event_list(events):
    """Events from what users pass: one or several Events or functions; SciPy's attributes of functions are read.

    Raises
    ------
    ArgumentError : something that is neither
    """
    given = [events] if isinstance(events, Event) or callable(events) else events
    try:
        return tuple(_event(e) for e in (given or ()))
    except TypeError:
        raise ArgumentError(f"events is {events!r}; odec.Events or functions fn(t, y, *params) are needed.") from None


def _event(given):
    if isinstance(given, Event):
        return given
    if not callable(given):
        raise TypeError
    return Event(given, getattr(given, "terminal", False), getattr(given, "direction", 0))


def event_kernels(system, events, method=None):
    """The compiled EventKernels of a list of Events for a system; an Event is traced once, as a model is.

    method : the record of the method whose steps are searched, for what only some can have: series
    """
    functions = remembered(system, "functions", events, lambda: event_functions(system, events))
    what = f"solve {method.digest}" if isinstance(method, TaylorMethod) else "solve"
    make = lambda: event_table(system.compiled_functions(with_series(functions, method)), events)
    return remembered(system, what, events, make)


def event_pulls(system, events):
    """The compiled EventPulls of a list of Events for a system, made once."""

    def make():
        functions = {name: f for name, f in event_functions(system, events).items() if name != "rates"}
        kernels = system.compiled_functions({name: vjp(f, ("t", "y", "p")) for name, f in functions.items()})
        resets = tuple(kernels.get(f"reset{i}") for i in range(len(events)))
        still = tuple(_is_of_time_alone(system, event) for event in events)
        return EventPulls(tuple(e.name for e in events), still, kernels["events"], resets)

    return remembered(system, "pulls", events, make)


def _is_of_time_alone(system, event):
    """Whether neither the state nor a parameter enters the function of an Event, in whatever way."""
    inputs, outputs = _values(system, [event])
    return not {id(inputs["y"]), id(inputs["p"])} & set(map(id, topological(outputs.values())))


def remembered(system, what, events, make):
    """What `make` () makes for a list of Events of a system, made once."""
    known, key = system.event_kernels, (what, *map(id, events))
    if key not in known:
        if len(known) >= REMEMBERED:
            known.pop(next(iter(known)))
        known[key] = events, make()
    return known[key][1]


def event_table(kernels, events):
    """The EventKernels of kernels by name, as `event_functions` names them."""
    return EventKernels(
        kernels["events"], kernels["rates"], tuple(kernels.get(f"reset{i}") for i in range(len(events))),
        tuple(int(np.sign(e.direction)) for e in events), tuple(int(e.terminal) for e in events), kernels.get("series"),
    )  # fmt: skip


def event_functions(system, events):
    """By name: events (t, y, p) -> values (n_events,), rates -> their time derivatives along the solution, and
    reset0, ... (t, y, p) -> y (n,), p (m,)."""
    values = Function("events", *_values(system, events))
    resets = {
        f"reset{i}": _reset(system, e, f"reset of event {e.name} of {system.name}")
        for i, e in enumerate(events)
        if e.reset is not None
    }
    return {"events": values, "rates": _rates(system.graph, values), **resets}


def with_series(functions, method):
    """The functions of events, and `series`, their coefficients along a step, where the steps of a method have any."""
    if not isinstance(method, TaylorMethod):
        return functions
    return functions | {"series": along(functions["events"], method.known_order)}


def _values(system, events):
    parts, inputs = [], {}
    for event in events:
        name = f"event {event.name} of {system.name}"
        own, result, _ = _traced(system, event.fn, name)
        inputs = inputs or own
        value = reshape(_number(name, result, system.dtype), shape=(1,))
        parts.append(Function("event", own, {"value": value})(*inputs.values())["value"])
    return inputs, {"values": concatenate(*parts, axis=0)}


def _number(name, result, dtype):
    """The one number that an event function returned, as a node."""
    if result is None:
        raise ShapeError(f"{name} returned None; a number that changes sign at the event is needed.")
    try:
        node = coerce([array(unwrap(result))], dtype)[0]
    except (TypeError, ValueError) as error:
        raise ShapeError(f"{name} returned no number: {error}; one that changes sign is needed.") from None
    if node.dtype == "bool":
        raise ShapeError(f"{name} returned a truth value; return a number that changes sign, y[0] - 1 for y[0] > 1.")
    if node.size != 1:
        raise ShapeError(f"{name} returned shape {node.shape}; one number that changes sign at the event is needed.")
    return node


def _rates(f, values):
    """d/dt of the event functions along the solution: their derivative along (1, f)."""
    inputs = {name: input_node(name, node.shape, node.dtype) for name, node in values.inputs.items()}
    t, y, p = inputs.values()
    with line_is(None):
        along = jvp(values, ("t", "y"))
        (rate,) = along(t, y, p, constant(1.0, "float64"), evaluation(f, 1)(t, y, p)).values()
    return Function("rates", inputs, {"rates": rate})


def _reset(system, event, name):
    inputs, result, values = _traced(system, event.reset, name)
    duty = "a reset must return the new y, or (y, params),"
    y, changed = _split(system.y_structure, unwrap(result))
    if y is None:
        raise ShapeError(f"{name} returned None; {duty} with the shape of y (is the return missing?).")
    new = flat_result(name, system.y_structure, y, system.dtype, "y", duty)
    p = inputs["p"]
    if changed is not None:
        try:
            named = values | system.by_name(changed, "params")
        except ArgumentError as error:
            raise ShapeError(f"{name} returned params that do not fit: {error}") from None
        p = p if p.size == 0 else flat_result(name, system.p_structure, named, system.dtype, "params", duty)
    return Function("reset", inputs, {"y_new": new, "p_new": p})


def _split(structure, result):
    """(y, params or None) of what a reset returned: a pair whose first looks like y is (y, params), and so is one
    whose second is a dict where y is an array."""
    if type(result) is not tuple or len(result) != 2:
        return result, None
    y, params = (unwrap(part) for part in result)
    alike = (
        y is None or _looks_like(structure.root, y) or (isinstance(params, dict) and isinstance(structure.root, Leaf))
    )
    return (y, params) if alike and isinstance(params, (tuple, dict)) else (result, None)


def _looks_like(item, value):
    found = children_of(value)
    if isinstance(item, Leaf):
        return (found is None or found[0] in ("list", "tuple")) and len(item.shape) == _depth(value)
    return (
        found is not None
        and set(found[1]) == set(item.keys)
        and all(_looks_like(c, unwrap(dict(zip(found[1], found[2]))[k])) for k, c in zip(item.keys, item.children))
    )


def _depth(value):
    """How many axes an array, or a list of lists, has."""
    value = unwrap(value)
    if isinstance(value, (list, tuple)):
        return 1 + (_depth(value[0]) if value else 0)
    return len(np.shape(value))


def _traced(system, function, name):
    """A function of (t, y, *params), traced with those parameters that it takes."""
    call = _with_parameters(system, function, name)
    return traced(call, name, system.y_structure, system.p_structure, system.dtype)


def _with_parameters(system, function, name):
    """(t, y, {name: value}) -> what the function returns, given all parameters in order or those that it names."""
    try:
        given = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        given = None  # written in C: it is given everything
    if given is None or any(p.kind is p.VAR_POSITIONAL for p in given):
        return lambda t, y, values: function(t, y, *values.values())
    known = [str(k) for k in system.parameters.keys]
    placed = [p for p in given if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(placed) < 2:
        taken = ", ".join(p.name for p in placed) or "nothing"
        raise ArgumentError(f"{name} takes {taken}; it must take the time and the state first, as (t, y).")
    placed = placed[2:]
    names = [p.name for p in placed]
    needed = [p.name for p in given if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    unknown = [n for n in (*names, *needed) if n not in known]
    if not unknown:
        return lambda t, y, values: function(t, y, *(values[n] for n in names), **{n: values[n] for n in needed})
    if len(names) == len(known) and not needed and all(p.default is p.empty or p.name in known for p in placed):
        return lambda t, y, values: function(t, y, *values.values())
    raise ArgumentError(
        f"{name} takes {unknown[0]!r}, which {system.name} has not; it can take "
        f"t, y{''.join(f', {k}' for k in known)}. Bind other values by keyword only: lambda t, y, *, {unknown[0]}=..."
    )
