"""The lanes that members run in side by side: what they work on, and where the numbers of one lane lie.

A wide buffer holds LANES numbers for each number of a member, so that they fill vectors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from odec.codegen.machine import offset
from odec.integrate import slots as at

LANES = 1  # compiled.py makes the other numbers
COPIES = False  # whether buffers keep their places, so that a compiler can keep them in registers: so on CUDA


class Kernels(NamedTuple):
    """advance, rhs, dense, resets (one for each event), series (of the events, or none): kernels, as advance.py, the
    model, step.py and roots.py say."""

    advance: Any
    rhs: Any
    dense: Any
    resets: Any
    series: Any


class Lanes(NamedTuple):
    """What the lanes work on. Wide, a number for each lane: now ... work; p too where members differ in it.

    now, then, task, y (n,), y_next, f0, f1 (n,) or (0,), k (kept, n), q (degree, n), p (m,), rules, rtol, atol, work
    For each lane by itself: own_p (m,), real, count, watch, g (5 events,), and where there are several lanes the rows
    before (n,), after (n,), slope (n,), poly (degree, n), terms (kept, n) of the lane that is looked at; trial
    (n + m,), roots, and jet, halves, places as roots.py has them
    """

    now: Any
    then: Any
    task: Any
    y: Any
    y_next: Any
    f0: Any
    f1: Any
    k: Any
    q: Any
    p: Any
    rules: Any
    rtol: Any
    atol: Any
    work: Any
    own_p: Any
    real: Any
    count: Any
    watch: Any
    g: Any
    before: Any
    after: Any
    slope: Any
    poly: Any
    terms: Any
    trial: Any
    roots: Any
    jet: Any
    halves: Any
    places: Any


class Members(NamedTuple):
    """What is to be solved: the table of events at the start of a solve, the next member, begins, ends, states (., n),
    parameters (., k) in the places columns (k,) of p, times to keep (., rows), and stops that all share."""

    watch: Any
    queue: Any
    begins: Any
    ends: Any
    states: Any
    parameters: Any
    columns: Any
    p: Any
    times: Any
    stops: Any


class Kept(NamedTuple):
    """What is kept: rows, polynomials, events with their members, and how each member ended."""

    ts: Any
    ys: Any
    marks: Any
    segments: Any
    fired_t: Any
    fired_e: Any
    fired_m: Any
    fired_y: Any
    t_end: Any
    y_end: Any
    tally: Any


def lane_of(lanes, l):
    """The counts, the numbers and the parameters of one lane."""
    count = offset(lanes.count, l * at.COUNTS)
    return count, offset(lanes.real, l * at.REALS), offset(lanes.own_p, l * count[at.P_STRIDE])


def watch_of(lanes, count, l):
    return offset(lanes.watch, l * count[at.EVENTS] * at.WATCHED)


def g_of(lanes, count, l):
    return offset(lanes.g, l * 5 * count[at.EVENTS])


def times_of(members, whole, count):
    """The times to keep of a lane's member."""
    return offset(members.times, count[at.MEMBER] * whole[at.TIMES] * whole[at.OWN_TIMES])


def row_of(kept, whole, count):
    """Where the next row of a lane's member goes."""
    return offset(kept.ys, (count[at.MEMBER] * whole[at.TIMES] + count[at.SAVED]) * count[at.N])


def lane_row(wide, size, l, row):
    """The numbers of one lane side by side: copied into `row` where there are several lanes."""
    if LANES == 1:
        return wide
    for i in range(size):
        row[i] = wide[i * LANES + l]
    return row


def put_row(size, row, l, wide):
    """Put the numbers of one lane back among the others."""
    if LANES > 1:
        for i in range(size):
            wide[i * LANES + l] = row[i]


def put_parameters(lanes, whole, count, l):
    """Show a lane's parameters to the steps, where members differ in them."""
    if LANES > 1 and whole[at.OWN_P] == 1:
        put_row(count[at.M], offset(lanes.own_p, l * count[at.P_STRIDE]), l, lanes.p)
