"""Derivatives of the times and states of events, from a solve of the variational equations."""

from __future__ import annotations

import warnings

import numpy as np

from odec.event import event_pulls
from odec.gradients.crossings import cuts_of, event_slopes, grazing, resets_run
from odec.gradients.forward import FROM_INPUT


def event_tangents(system, watched, directions, task, out):
    """For each event its times' derivatives (k, c), and those of its states (k, n, c), along c directions.

    With the tangents s and dp where an event g = 0 happens, d tau = -(g_y s + g_p dp) / (g_t + g_y f), and
    dy = s + f d tau: that of the state just before any reset, the moving of its time included.

    watched : Events; directions : of the tangents, as for `variational`; task, out : the Posed of the augmented system
    and its Outcome

    Warns
    -----
    RuntimeWarning : the time of an event has no derivative, which is nan
    """
    n, width, events = system.y_structure.size, 1 + len(directions), task.problem.events
    cuts = cuts_of(events, out.fired_t, out.fired_e)
    _, parameters = resets_run(events, cuts, out, task.problem.p)
    piece = np.searchsorted([cut.behind for cut in cuts], np.arange(len(out.fired_t)), side="right")
    by_time, by_state = np.empty((len(piece), width - 1)), np.empty((len(piece), n, width - 1), system.dtype)
    for i, (t, e) in enumerate(zip(out.fired_t, out.fired_e)):
        state = out.fired_y[i].reshape(n, width)
        by_time[i], by_state[i] = _moved(system, watched, e, t, state, *_split(parameters[piece[i]], directions))
    places = [out.fired_e == e for e in range(len(watched))]
    return [by_time[place] for place in places], [by_state[place] for place in places]


def _split(p, directions):
    """p (m,) and its tangents (m, c)."""
    if FROM_INPUT in directions:
        both = p.reshape(-1, 1 + len(directions))
        return np.ascontiguousarray(both[:, 0]), both[:, 1:]
    tangents = np.zeros((p.size, len(directions)))
    for k, place in enumerate(directions):
        if place is not None:
            tangents[place, k] = 1.0
    return p, tangents


def _moved(system, watched, e, t, state, p, dp):
    """(d tau (c,), dy (n, c)) of one event; state (n, 1 + c)."""
    pulls, y, tangents = event_pulls(system, watched), np.ascontiguousarray(state[:, 0]), state[:, 1:]
    if pulls.still[e]:
        return 0.0, tangents
    g_t, g_y, g_p = event_slopes(pulls, e, t, y, p)
    slope = np.empty_like(y)
    system.compiled("rhs").run(np.array([t]), y, p, slope)
    along = g_t + g_y @ slope
    if not along:
        warnings.warn(grazing(system.name, pulls.names[e], t, "has no derivative"), RuntimeWarning, stacklevel=6)
        return np.nan, np.nan
    shift = -(g_y @ tangents + g_p @ dp) / along
    return shift, tangents + np.outer(slope, shift)
