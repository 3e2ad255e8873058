"""Room for what the evaluations of a solve leave for the way back, so that they need not be made again.

A network's evaluation costs far more than keeping what reverse mode needs of it: the first steps of a solve, as many
as fit, leave that behind, and only the others are evaluated once more on the way back.
"""

from __future__ import annotations

import functools
import weakref

import numpy as np

from odec.gradients.replay import residual_sizes
from odec.integrate.problem import Residuals

BUDGET = 128 * 2**20  # bytes of residuals of a solve
KEPT_ROOMS = 2  # of a system and a method, for solves to come: that of the solve before is often still held

_sizes: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_rooms: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def room_for(system, method, problem):
    """The Residuals of a Problem, or None where there is nothing worth keeping, or steps that start anew."""
    known = _sizes.setdefault(system, {})
    if method not in known:
        known[method] = residual_sizes(system.graph, method)
    if known[method] is None or problem.events or problem.tstops or problem.dense:
        return None
    head, size = known[method]
    numbers = BUDGET // np.dtype(system.dtype).itemsize
    steps = (numbers - head) // size - 1
    if steps < 1:
        return None
    try:
        room = _rooms.setdefault(system, []).pop()
    except IndexError:  # none is free, or another thread was quicker
        room = np.empty(numbers, system.dtype)  # pages that are never written take no memory
    return Residuals(room, head, size, steps)


def give_back_with(holder, system, residuals):
    """Let later solves have the room once `holder` is gone."""
    weakref.finalize(holder, functools.partial(_give_back, weakref.ref(system), residuals.room)).atexit = False


def _give_back(system, room):
    known = system()
    if known is not None and len(free := _rooms.setdefault(known, [])) < KEPT_ROOMS:
        free.append(room)
