"""The loop as machine code, for each dtype of the state and each number of lanes."""

from __future__ import annotations

import functools
import threading
import types

from odec.codegen.numba_bridge import loop_function
from odec.integrate import events, interpolate, lanes, loop, members, roots, start

PLAIN, WIDE = (interpolate, start, roots, events), (lanes, members, loop)  # the second know of LANES
_one_at_a_time = threading.Lock()


def compiled_loop(dtype, with_events, number=1):
    """`loop.integrate` compiled for states of `dtype` and so many lanes, called as `loop_function` says.

    Threads wait for the first of them.
    """
    with _one_at_a_time:
        return _compiled_loop(dtype, with_events, number)


@functools.cache
def _compiled_loop(dtype, with_events, number):
    function, parts = loop_text(number)
    return loop_function(f"integrate{number}", function, loop_signature(dtype, with_events), parts)


@functools.cache
def loop_text(number, copies=False):
    """`loop.integrate` for so many lanes, and the functions that it calls.

    copies : for one member, whose queue and buffers nobody else sees
    """
    own = {"take": take_alone} if copies else {}
    found = specialised(WIDE, number, own, COPIES=copies)
    parts = [function for name, function in found.items() if name != "integrate"]
    for module in PLAIN:
        parts.extend(functions_of(module).values())
    return found["integrate"], tuple(parts)


def specialised(modules, number, own=None, **constants):
    """{name: function} of the functions of modules for so many lanes; they see each other, `own` and the constants."""
    names = {name: value for module in modules for name, value in vars(module).items()}
    names |= {"LANES": number, **constants}
    own = {name: f for module in modules for name, f in functions_of(module).items()} | (own or {})
    for name, function in own.items():
        names[name] = types.FunctionType(function.__code__, names, f"{name}_{number}")
    return {name: names[name] for name in own}


def loop_signature(dtype, with_events, with_series=True):
    """The kinds of the loop's arguments, as `loop_function` takes them, where events may have series."""
    state, real, whole = f"{dtype}*", "float64*", "int64*"
    kinds = {
        lanes.Lanes: {"real": [*_NUMBERS, "roots", "halves", "places"], "whole": ["count", "watch"]},
        lanes.Members: {"real": ["begins", "ends", "times", "stops"], "whole": ["columns", "watch", "queue"]},
        lanes.Kept: {"real": ["ts", "marks", "fired_t", "t_end"], "whole": ["fired_e", "fired_m", "tally"]},
    }
    groups = [
        (group, *(real if f in k["real"] else whole if f in k["whole"] else state for f in group._fields))
        for group, k in kinds.items()
    ]
    event = "int" if with_events else "none"
    series = event if with_series else "none"
    return (lanes.Kernels, "int", "int", "int", whole, series), event, event, *groups, whole


def take_alone(counter):
    """As machine.take, of a counter that no other thread has."""
    number = counter[0]
    counter[0] = number + 1
    return number


_NUMBERS = ("now", "then", "task", "rules", "real")


def functions_of(module):
    """The functions that a module defines."""
    return {
        name: f
        for name, f in vars(module).items()
        if isinstance(f, types.FunctionType) and f.__module__ == module.__name__
    }
