"""Where to look at event functions within a step, so that none changes sign twice between two places.

A Taylor step leaves the coefficients of the state, and those of an event function along the step follow: G(theta) on
[0, 1]. Between two neighbouring extrema it is monotonic and has one root at most, so the extrema are the places, and
there its sign is most certain. In Bernstein form the coefficients of G on an interval bound it there, and where their
differences change sign v times it has v extrema, or fewer by an even number (Descartes' rule of signs); de Casteljau's
scheme halves an interval until at most one is left. Other methods are looked at in SAMPLES places.

References: [lane1981]; [mourrain2005]
"""

from __future__ import annotations

import math

from odec.codegen.machine import call_kernel, offset
from odec.integrate import slots as at
from odec.integrate.slots import LARGEST

SAMPLES = 8  # parts of a step of which no series is known
PLACES = 64  # parts of a step at most; where more are needed the step is cut short
DEPTH = 30  # of halvings: what an extremum is wide; two that are closer are one to rounding
LEAST_TAIL = 1e-6  # of the largest term: what the last terms may be, whatever the order
SHORTENINGS = 10  # halvings of the step to where the last terms are that small, before it is sampled
ROUNDING = 1e-15  # of the sum of all terms


def find_places(series, t, k, h, p, work, jet, halves, watch, places, real, count):
    """Fill `places`, parts of the step in rising order, and say how many; the last is 1, or that beyond which nothing
    is known.

    series : kernel (t, k (order + 1, n), p) -> coefficients of the event functions along the step, in powers of time,
        nan for those that have none
    jet (n_events, order + 1), halves (DEPTH + 1, order + 1) : scratch; places (PLACES,), or (SAMPLES,) without series
    """
    n_events, order = count[at.EVENTS], count[at.DEGREE]
    places[0] = 1.0
    if series is not None and series != 0:
        found = 1
        real[at.SCRATCH] = t
        call_kernel(series, offset(real, at.SCRATCH), k, p, jet, work)
        for e in range(n_events):
            row = offset(jet, e * (order + 1))
            part = part_told(row, order, h)
            found = shortened(part, places, found)
            if row[0] == row[0]:
                found = separated(row, order, part, watch[e * at.WATCHED + at.SIDE], halves, places, found)
            else:
                found = sampled(places, found, PLACES)
        return found
    return sampled(places, 1, SAMPLES)


def sampled(places, found, room):
    """`places` with those of samples."""
    for part in range(1, SAMPLES):
        found = with_place(part / SAMPLES, places, found, room)
    return found


def with_place(place, places, found, room):
    """`places` with one more place; how many there are. Where there is no room the last one goes."""
    if place >= places[found - 1]:
        return found
    found = min(found + 1, room)
    i = found - 1
    while i > 0 and places[i - 1] > place:
        places[i] = places[i - 1]
        i -= 1
    places[i] = place
    return found


def shortened(part, places, found):
    """`places` no longer than a part of the step."""
    while found > 1 and places[found - 2] >= part:
        found -= 1
    places[found - 1] = min(places[found - 1], part)
    return found


def part_told(row, order, h):
    """The part of a step of size h over which a series (order + 1,) has converged: its last two terms are as small as
    half the digits ask that the order is for [jorba2005, 3.2]. The terms become those at the end of that part; row[0]
    becomes nan where there is no such part, which is then the whole.
    """
    power = 1.0
    for j in range(order + 1):
        row[j] *= power
        power *= h
        if not abs(row[j]) <= LARGEST:
            row[0] = math.nan
            return 1.0
    share, part = max(math.exp(1.0 - order), LEAST_TAIL), 1.0
    for _ in range(SHORTENINGS + 1):
        most, power = 0.0, 1.0
        for j in range(order - 1):
            most = max(most, abs(row[j]) * power)
            power *= part
        if max(abs(row[order - 1]), abs(row[order]) * part) * power <= share * most:
            power = 1.0
            for j in range(order + 1):
                row[j] *= power
                power *= part
            return part
        part *= 0.5
    row[0] = math.nan
    return 1.0


def separated(row, order, part, side, halves, places, found):
    """`places` with some that separate the roots of sum_j row_j x^j, where x runs from 0 to 1 over a part of the step.

    side : its sign at the start, 0 where that is not known
    """
    total, steepest = 0.0, 0.0
    for j in range(order + 1):
        total += abs(row[j])
        steepest += j * abs(row[j])
    tail = abs(row[order - 1]) + abs(row[order])
    unsure = tail + total * max(ROUNDING, math.exp(2.0 - 2.0 * order))
    if 2.0 * abs(row[0]) > total + unsure or 2.0 * abs(row[1]) > steepest:  # no root, or no extremum
        return found
    bernstein(row, order, halves)
    unit = 2.0**-DEPTH
    low, top, width, slope = 0, 0, 2**DEPTH, 0
    while low < 2**DEPTH:
        b = offset(halves, top * (order + 1))
        kind, first, last = shape_of(b, order, unsure, ROUNDING * total)
        if kind > 1 and width > 1:
            halve(b, order, offset(b, order + 1))
            width //= 2
            top += 1
            continue
        place = -1.0
        if kind == 1:
            place = extremum(row, order, low * unit, (low + width) * unit, first)
        elif kind != 0 or first == 0:
            place = (low + 0.5 * width) * unit
        if slope * first < 0:  # an extremum between two intervals
            found, side = considered(low * unit, row, order, unsure, side, part, places, found)
        if place >= 0.0:
            found, side = considered(place, row, order, unsure, side, part, places, found)
        slope = last
        low += width
        width = low & -low
        top -= 1
    return found


def considered(x, row, order, unsure, side, part, places, found):
    """(how many `places` there are, the sign at x): x is one where the sign is not `side`, or unsure, which is 0."""
    value = 0.0
    for j in range(order, -1, -1):
        value = value * x + row[j]
    new = 0 if abs(value) <= unsure else (1 if value > 0.0 else -1)
    if new == 0 or new != side:
        found = with_place(part * x, places, found, PLACES)
    return found, new


def bernstein(row, order, b):
    """b_i = sum_{j<=i} C(i, j) / C(order, j) row_j, the coefficients of sum_j row_j x^j in Bernstein's basis."""
    choices = 1.0
    for j in range(order + 1):
        b[j] = row[j] / choices
        choices *= (order - j) / (j + 1.0)
    for first in range(1, order + 1):
        for i in range(order, first - 1, -1):
            b[i] += b[i - 1]


def halve(b, order, left):
    """The coefficients on the left half; b becomes those on the right half (de Casteljau)."""
    for i in range(order + 1):
        left[i] = b[0]
        for j in range(order - i):
            b[j] = 0.5 * (b[j] + b[j + 1])


def shape_of(b, order, unsure, least):
    """(extrema at most, sign of the slope at the start, at the end) of a polynomial on its interval.

    (0, 0, 0) where it has no root there, its error included, which is `unsure`; what is below `least` is zero
    """
    lowest, highest = b[0], b[0]
    changes, first, last = 0, 0, 0
    for i in range(order):
        lowest, highest = min(lowest, b[i + 1]), max(highest, b[i + 1])
        difference = b[i + 1] - b[i]
        if abs(difference) > least:
            new = 1 if difference > 0.0 else -1
            if first == 0:
                first = new
            elif new != last:
                changes += 1
            last = new
    if lowest > unsure or highest < -unsure or (lowest >= -least and highest <= least):
        return 0, 0, 0
    return changes, first, last


def extremum(row, order, low, high, first):
    """Where the slope of sum_j row_j x^j, of the sign `first` at low, changes its sign between low and high."""
    while high - low > 2.0**-DEPTH:
        middle = 0.5 * (low + high)
        slope = 0.0
        for j in range(order, 0, -1):
            slope = slope * middle + j * row[j]
        if slope * first > 0.0:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)
