"""Events within an accepted step: sign changes on its polynomial, located to neighbouring doubles, in time order.

An event has a side, the sign of its function since it last changed; it happens where the function reaches
zero or the other sign. Side 0 means: not known, the next sign is taken over without an event; so it is after nan.
"""

from __future__ import annotations

from odec.codegen.machine import call_kernel, offset
from odec.integrate import slots as at
from odec.integrate.interpolate import copy, state_after, time_after
from odec.integrate.roots import find_places
from odec.integrate.slots import LARGEST, RESOLUTION

MOST_TRIES = 200  # of the search for a root; bisection alone needs 60 within a step
NO_CUT, SHORT, RESET, TERMINAL = range(4)  # SHORT: only up to there all roots are known
# in watch[at.JUST], of an event in a part of a step: nothing, found, on the other side since, recorded
QUIET, PENDING, CHANGED, HAPPENED = range(4)
MOST_HALVINGS = 40  # of the first part, to see a function on the side that its rate promised
NOISE = 16.0  # times the function's values on both sides of a root: what is zero to rounding
JUMP = 1e-3  # of the largest value seen: a function with such values on both sides of a root jumps there
MOST_CHATTER = 100  # resets in a row, each within CLOSE of the one before
CLOSE = 1024.0  # spacings of t
STILL = 25  # times that a reset counts where time has not moved at all since the one before: digits run out there
LONGER = 1.25  # a step after a reset, than the time since the reset before it
SHORTEST = 16.0  # spacings of t, of such a step


def sign(x):
    """-1, 0 or 1; 0 for nan."""
    return 1 if x > 0.0 else (-1 if x < 0.0 else 0)


def find_events(events, series, t, h, t_new, y, y_next, q, k, p, work, g, trial, roots, jet, halves, places, watch,
                fired_t, fired_e, fired_y, real, count):  # fmt: skip
    """Record the events of the step from t to t_new; whether it must be cut, at real[at.CUT], and for what.

    g (5 n_events,) : values at the left of the part that is searched, at its right, on both sides of roots; scratch;
        the largest so far
    trial (n,), roots (n_events,), jet, halves, places : scratch; series, k and these as find_places takes them
    """
    n_events, cut = count[at.EVENTS], NO_CUT
    left, parts = 0.0, find_places(series, t, k, h, p, work, jet, halves, watch, places, real, count)
    for part in range(parts):
        right = h * places[part] if places[part] < 1.0 else t_new - t
        if right == left:
            continue
        _values(events, right, t, h, t_new, y, y_next, q, p, work, trial, offset(g, n_events), real, count)
        crossings = 0
        for e in range(n_events):
            roots[e] = 0.0
            watch[e * at.WATCHED + at.JUST] = QUIET
            value = g[n_events + e]
            side, new = watch[e * at.WATCHED + at.SIDE], sign(value)
            if g[4 * n_events + e] < abs(value) <= LARGEST:
                g[4 * n_events + e] = abs(value)
            if side == 0 or value != value:
                watch[e * at.WATCHED + at.SIDE] = new
            elif new * side <= 0:
                watch[e * at.WATCHED + at.JUST] = PENDING
                crossings += 1
        if crossings > 0:
            for e in range(n_events):
                if watch[e * at.WATCHED + at.JUST] == PENDING:
                    roots[e] = _root(events, e, left, right, t, h, t_new, y, y_next, q, p, work, g, trial, watch, real,
                                     count)  # fmt: skip
                    if roots[e] == 0.0:
                        crossings -= _never_left(e, sign(g[n_events + e]), watch, count)
            cut = _record(t, h, t_new, y, y_next, q, crossings, trial, roots, g, watch, fired_t, fired_e, fired_y, real,
                          count)  # fmt: skip
            if cut != NO_CUT:
                return cut
        copy(n_events, offset(g, n_events), g)
        left = right
    if places[parts - 1] < 1.0:
        real[at.CUT], cut = left, SHORT
    return cut


def _values(events, elapsed, t, h, t_new, y, y_next, q, p, work, trial, values, real, count):
    """The event functions, so long after the start of the step."""
    state_after(elapsed, t, h, t_new, count[at.N], count[at.DEGREE], y, y_next, q, trial)
    real[at.SCRATCH] = time_after(elapsed, t, t_new)
    call_kernel(events, offset(real, at.SCRATCH), trial, p, values, work)


def _root(events, e, left, right, t, h, t_new, y, y_next, q, p, work, g, trial, watch, real, count):
    """Where event e leaves its side between left and right: the later of two neighbouring doubles. 0 where it was
    not seen on its side at all.

    False position with the Illinois weights, and a bisection where that was slow; leaves in g[2 n_events + e]
    how large the function is on both sides of the root.
    """
    n_events, side = count[at.EVENTS], watch[e * at.WATCHED + at.SIDE]
    low, high = left, right
    at_low, at_high = g[e] * side, g[n_events + e] * side  # positive before the root
    values = offset(g, 3 * n_events)
    if not at_low > 0.0:
        for _ in range(MOST_HALVINGS):
            guess = 0.5 * high
            _values(events, guess, t, h, t_new, y, y_next, q, p, work, trial, values, real, count)
            at_low = values[e] * side
            if at_low > 0.0:
                low = guess
                break
            high, at_high = guess, at_low
        if not at_low > 0.0:
            g[2 * n_events + e] = abs(at_low)
            return 0.0
    weighted_low, weighted_high, last = at_low, at_high, 0
    seen, width = abs(at_high), abs(high - low)
    for tried in range(MOST_TRIES):
        middle = low + 0.5 * (high - low)
        if middle in (low, high):
            break
        guess = middle
        if tried % 3 == 2 and abs(high - low) > 0.5 * width:
            width = abs(high - low)
        elif weighted_low > 0.0 and weighted_high < 0.0:
            if tried % 3 == 2:
                width = abs(high - low)
            guess = high - weighted_high * ((high - low) / (weighted_high - weighted_low))
            least = 0.5 * RESOLUTION * abs(high)  # a neighbour of the end that is nearer
            room = abs(high - low) - 2.0 * least
            if room <= 0.0:
                guess = middle
            elif abs(guess - low) < least:
                guess = low + (least if high > low else -least)
            elif abs(high - guess) < least:
                guess = high - (least if high > low else -least)
        if guess in (low, high):
            guess = middle
        _values(events, guess, t, h, t_new, y, y_next, q, p, work, trial, values, real, count)
        value = values[e] * side
        if value > 0.0 or value != value:
            low, at_low, weighted_low = guess, value, value
            if last == -1:
                weighted_high *= 0.5
            last = -1
        else:
            high, at_high, weighted_high = guess, value, value
            if last == 1:
                weighted_low *= 0.5
            last = 1
        seen = max(abs(at_low), abs(at_high))
    g[2 * n_events + e] = 0.0 if seen > JUMP * g[4 * n_events + e] else seen
    return high


def _never_left(e, new, watch, count):
    """What to do with an event whose function was at its root when the step began, and did not leave it on the side
    that its rate promised: 1 where it is none; where its own reset brought it there, the solve ends in chatter."""
    if watch[e * at.WATCHED + at.FIRINGS] > 0 and watch[e * at.WATCHED + at.HAS_RESET] == 1:
        count[at.CHATTER] = MOST_CHATTER
        return 0
    watch[e * at.WATCHED + at.JUST] = QUIET
    watch[e * at.WATCHED + at.SIDE] = new
    return 1


def _record(t, h, t_new, y, y_next, q, crossings, trial, roots, g, watch, fired_t, fired_e, fired_y, real, count):
    """Record what was found in one part of a step, earliest first, up to where the step is cut, if it is."""
    n, n_events, cut, end = count[at.N], count[at.EVENTS], NO_CUT, 0.0
    ahead = 1.0 if h > 0.0 else -1.0
    for _ in range(crossings):
        e = -1
        for other in range(n_events):
            if watch[other * at.WATCHED + at.JUST] == PENDING and (e < 0 or (roots[other] - roots[e]) * ahead < 0.0):
                e = other
        when = time_after(roots[e], t, t_new)
        if cut != NO_CUT and (roots[e] - end) * ahead > 2.0 * RESOLUTION * abs(when):
            break
        watch[e * at.WATCHED + at.JUST] = CHANGED
        side = watch[e * at.WATCHED + at.SIDE]
        watch[e * at.WATCHED + at.SIDE] = sign(g[n_events + e])
        wanted = watch[e * at.WATCHED + at.DIRECTION_OF]
        if wanted * side > 0:
            continue
        state_after(roots[e], t, h, t_new, n, count[at.DEGREE], y, y_next, q, trial)
        fired = count[at.FIRED]
        fired_t[fired], fired_e[fired] = when, e
        copy(n, trial, offset(fired_y, fired * n))
        count[at.FIRED] = fired + 1
        watch[e * at.WATCHED + at.FIRINGS] += 1
        watch[e * at.WATCHED + at.JUST] = HAPPENED
        kind = NO_CUT
        if watch[e * at.WATCHED + at.FIRINGS] == watch[e * at.WATCHED + at.TERMINAL_AFTER]:
            kind = TERMINAL
        elif watch[e * at.WATCHED + at.HAS_RESET] == 1:
            kind = RESET
        if kind != NO_CUT:
            end = roots[e] if cut == NO_CUT else end
            cut = max(cut, kind)
    real[at.CUT] = end
    return cut


def next_size(t, h, min_step, real, count):
    """The size of the step after a reset at t, h before it; counts resets that follow each other closely.

    Little more than the time since the reset before: a ball's flight is one step, and the coefficients of a step
    of a thousand flights would leave few digits to the height.
    """
    since = abs(t - real[at.LAST_RESET])
    real[at.LAST_RESET] = t
    weight = STILL if since == 0.0 else 1
    count[at.CHATTER] = count[at.CHATTER] + weight if since <= CLOSE * RESOLUTION * abs(t) else 0
    most = max(LONGER * since, SHORTEST * RESOLUTION * abs(t), min_step)
    return min(max(h, -most), most) if most > 0.0 else h


def reset_state(resets, t, y, p, work, trial, watch, real, count):
    """Let the events that have just happened change state and parameters, in their order in the list."""
    n, m = count[at.N], count[at.M]
    for e in range(count[at.EVENTS]):
        if watch[e * at.WATCHED + at.JUST] == HAPPENED and watch[e * at.WATCHED + at.HAS_RESET] == 1:
            real[at.SCRATCH] = t
            call_kernel(resets[e], offset(real, at.SCRATCH), y, p, trial, offset(trial, n), work)
            copy(n, trial, y)
            copy(m, offset(trial, n), p)


def first_sides(events, rates, ahead, t, y, p, work, g, watch, real, count):
    """The side of each event at the start of a solve."""
    for e in range(count[at.EVENTS]):
        g[4 * count[at.EVENTS] + e] = 0.0
    set_sides(events, rates, ahead, t, y, p, work, g, watch, real, count)


def set_sides(events, rates, ahead, t, y, p, work, g, watch, real, count):
    """The side of each event from here on, where a solve starts or a reset has moved the state.

    Where a function is zero, or has just changed and is zero to rounding, its rate decides: a ball that leaves the
    floor is above it, whatever rounding says of its height.
    rates : kernel of d/dt of the event functions along the solution
    """
    n_events = count[at.EVENTS]
    real[at.SCRATCH] = t
    call_kernel(events, offset(real, at.SCRATCH), y, p, g, work)
    speeds = offset(g, 3 * n_events)
    call_kernel(rates, offset(real, at.SCRATCH), y, p, speeds, work)
    count[at.NFEV] += 1
    for e in range(n_events):
        value, speed = g[e], ahead * speeds[e]
        at_root = watch[e * at.WATCHED + at.JUST] >= CHANGED and abs(value) <= NOISE * g[2 * n_events + e]
        watch[e * at.WATCHED + at.SIDE] = sign(speed) if at_root or value == 0.0 else sign(value)
        watch[e * at.WATCHED + at.JUST] = QUIET
