"""Events: times at which a function of the state changes sign, and what happens there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from odec.errors import ArgumentError, ShapeError
from odec.graph.function import Function
from odec.graph.node import coerce, constant, input_node, line_is
from odec.graph.structure import Leaf, children_of
from odec.graph.trace import unwrap
from odec.integrate.problem import EventKernels
from odec.ops.shaping import array
from odec.ops.structure import concatenate, reshape
from odec.steppers.runge_kutta import evaluation
from odec.tracing import flat_result, traced
from odec.transforms.jvp import jvp


@dataclass(frozen=True)
class Event:
    """A function fn(t, y, *params) whose sign changes are found and kept, in the solution's `t_events`, `y_events`.

    fn : traced like dynamics; takes t and y, and parameters by their names, or all of them in order; returns a number
    terminal : end the solve at the first event, or after a number of them
    direction : 1 only where fn rises along the solve, -1 only where it falls, 0 both
    reset : reset(t, y, *params) -> the new y, or (y, params) with params a tuple in order or a dict of those that
        change; `y_events` holds the state before it

    An event happens where fn reaches zero or the other sign; not at the start, where fn may be zero. Sign changes
    are looked for at eight places in each step: two closer together than that may be missed, lower max_step then.

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


def event_kernels(system, events):
    """The compiled EventKernels of a list of Events for a system."""
    return event_table(system.compiled_functions(event_functions(system, events)), events)


def event_table(kernels, events):
    """The EventKernels of kernels by name, as `event_functions` names them."""
    return EventKernels(
        kernels["events"], kernels["rates"], tuple(kernels.get(f"reset{i}") for i in range(len(events))),
        tuple(int(np.sign(e.direction)) for e in events), tuple(int(e.terminal) for e in events),
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
    node = coerce([array(unwrap(result))], dtype)[0]
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
    new = flat_result(name, system.y_structure, y, system.dtype, "y", duty)
    p = inputs["p"]
    if changed is not None:
        named = values | system.by_name(changed, "the params of a reset")
        p = flat_result(name, system.p_structure, named, system.dtype, "params", duty)
    return Function("reset", inputs, {"y_new": new, "p_new": p})


def _split(structure, result):
    """(y, params or None) of what a reset returned: a pair whose first looks like y is (y, params)."""
    pair = type(result) is tuple and len(result) == 2 and isinstance(unwrap(result[1]), (tuple, dict))
    if pair and _looks_like(structure.root, unwrap(result[0])):
        return result
    return result, None


def _looks_like(item, value):
    found = children_of(value)
    if isinstance(item, Leaf):
        return found is None or found[0] in ("list", "tuple")
    return (
        found is not None
        and set(found[1]) == set(item.keys)
        and all(_looks_like(c, unwrap(dict(zip(found[1], found[2]))[k])) for k, c in zip(item.keys, item.children))
    )


def _traced(system, function, name):
    """A function of (t, y, *params), traced with those parameters that it takes."""
    try:
        given = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        given = []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [p for p in given if p.kind in kinds][2:]
    names = [p.name for p in named]
    known = [str(k) for k in system.parameters.keys]
    starred = any(p.kind is p.VAR_POSITIONAL for p in given)
    if not given or starred:
        call = lambda t, y, values: function(t, y, *values.values())
    elif all(n in known for n in names):
        call = lambda t, y, values: function(t, y, *(values[n] for n in names))
    elif len(names) == len(known) and all(p.default is p.empty or p.name in known for p in named):
        call = lambda t, y, values: function(t, y, *values.values())
    else:
        unknown = next(n for n in names if n not in known)
        raise ArgumentError(
            f"{name} takes {unknown!r}, which {system.name} has not; it can take "
            f"t, y{''.join(f', {k}' for k in known)}. Bind other values by keyword only: lambda t, y, *, {unknown}=..."
        )
    return traced(call, name, system.y_structure, system.p_structure, system.dtype)
