"""The loop that goes back over recorded steps: the cotangent of each step's end becomes that of its start.

Plain Python that is compiled once an installation, as integrate/loop.py is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from odec.codegen.machine import call_kernel, offset
from odec.integrate.interpolate import copy

# real: what the steps say of times, and where they are
DIRECTION, END, T_SUM, H_BAR = range(4)
REALS = 4
# count: sizes, the steps to take, the next row, and what is to be done
N, M, DEGREE, FIRST, LAST, ROW, CUT, INSIDE, STEP_ENDS, KEPT, KEPT_SIZE = range(11)
COUNTS = 11


class Pulls(NamedTuple):
    """Kernels: a step's adjoint, that of a step that ends a stretch or has rows within, the right-hand side."""

    plain: Any
    timed: Any
    rhs: Any


class KeptPulls(NamedTuple):
    """Kernels for steps whose residuals were kept: a step's adjoint, that of a step that ends a stretch."""

    plain: Any
    timed: Any


class Tape(NamedTuple):
    """What was recorded, and cotangents.

    marks (steps, 2), states (steps, n), end (n,) : as the loop left them; end is the state behind the last step
    times (rows,), rows_bar (rows, n), times_bar (rows,)
    y1_bar, y_bar (n,), p_bar (m,), p_sum (m,), q, q_bar (degree, n), t_bar, h_bar (1,), slope (n,), work
    kept : the residuals of the first count[KEPT] steps, count[KEPT_SIZE] from one to the next
    """

    marks: Any
    states: Any
    end: Any
    p: Any
    times: Any
    rows_bar: Any
    times_bar: Any
    y1_bar: Any
    y_bar: Any
    p_bar: Any
    p_sum: Any
    q: Any
    q_bar: Any
    t_bar: Any
    h_bar: Any
    slope: Any
    work: Any
    kept: Any


def pull_back(kernels, kept, tape, real, count):
    """Go back over the steps LAST ... FIRST: y1_bar, the cotangent behind the last, becomes that before the first.
    How many steps they were.

    kept : the kernels for steps whose residuals were kept, where there are any
    """
    n, m, steps = count[N], count[M], count[LAST] - count[FIRST] + 1
    behind, before = tape.y1_bar, tape.y_bar
    for back in range(steps):
        k = count[LAST] - back
        t, h, state = tape.marks[2 * k], tape.marks[2 * k + 1], offset(tape.states, k * n)
        end_t, end = real[END], tape.end
        if back > 0:
            end_t, end = tape.marks[2 * k + 2], offset(state, n)
        last = count[ROW]
        slide, within = take_rows(kernels, tape, real, count, t, h, end_t, end, behind)
        timed = within > 0 or (back == 0 and count[CUT] == 1)
        mark = offset(tape.marks, 2 * k)
        if within == 0 and k < count[KEPT]:
            residuals = offset(tape.kept, k * count[KEPT_SIZE])
            if timed:
                call_kernel(kept.timed, mark, offset(mark, 1), state, tape.p, residuals, behind, tape.t_bar, tape.h_bar,
                            before, tape.p_bar, tape.work)  # fmt: skip
            else:
                call_kernel(kept.plain, mark, offset(mark, 1), state, tape.p, residuals, behind, tape.t_bar, before,
                            tape.p_bar, tape.work)  # fmt: skip
        elif not timed:
            call_kernel(kernels.plain, mark, offset(mark, 1), state, tape.p, behind, tape.t_bar, before, tape.p_bar,
                        tape.work)  # fmt: skip
        elif count[INSIDE] == 1:
            call_kernel(kernels.timed, mark, offset(mark, 1), state, tape.p, behind, tape.q_bar, tape.t_bar,
                        tape.h_bar, before, tape.p_bar, tape.q, tape.work)  # fmt: skip
        else:
            call_kernel(kernels.timed, mark, offset(mark, 1), state, tape.p, behind, tape.t_bar, tape.h_bar, before,
                        tape.p_bar, tape.work)  # fmt: skip
        for i in range(m):
            tape.p_sum[i] += tape.p_bar[i]
        h_slide = slide
        if within > 0:
            for row in range(count[ROW] + 1, last + 1):
                if tape.times[row] != end_t:
                    theta = (tape.times[row] - t) / h
                    speed = slope_along(tape, row, n, count[DEGREE], theta) / h
                    tape.times_bar[row] = speed
                    slide, h_slide = slide + speed, h_slide + speed * theta
                    w = offset(tape.rows_bar, row * n)
                    for i in range(n):
                        before[i] += w[i]
        real[T_SUM] += tape.t_bar[0] - slide
        if back == 0 and count[CUT] == 1:
            real[H_BAR] = tape.h_bar[0] - h_slide
        behind, before = before, behind
    copy(n, behind, tape.slope)
    copy(n, tape.slope, tape.y1_bar)
    return steps


def take_rows(kernels, tape, real, count, t, h, end_t, end, behind):
    """Take the cotangents of the rows of a step from t on: of those at its end into `behind`, of the others into
    q_bar. How fast the former move with the time of the step, and how many the latter are."""
    n, degree, slide, within = count[N], count[DEGREE], 0.0, 0
    while count[ROW] >= 0 and (tape.times[count[ROW]] - t) * real[DIRECTION] > 0.0:
        row = count[ROW]
        w = offset(tape.rows_bar, row * n)
        if tape.times[row] == end_t:
            for i in range(n):
                behind[i] += w[i]
            if count[STEP_ENDS] == 0:
                real[END] = end_t
                call_kernel(kernels.rhs, offset(real, END), end, tape.p, tape.slope, tape.work)
                speed = 0.0
                for i in range(n):
                    speed += w[i] * tape.slope[i]
                tape.times_bar[row] = speed
                slide += speed
        else:
            if within == 0:
                for i in range(degree * n):
                    tape.q_bar[i] = 0.0
            within += 1
            theta = (tape.times[row] - t) / h
            weight = theta
            for d in range(degree):
                for i in range(n):
                    tape.q_bar[d * n + i] += weight * w[i]
                weight = theta * (1.0 - theta) if d == 0 else weight * (2.0 * theta - 1.0)
        count[ROW] -= 1
    if within == 0 and count[INSIDE] == 1:
        for i in range(degree * n):
            tape.q_bar[i] = 0.0
    return slide, within


def slope_along(tape, row, n, degree, theta):
    """rows_bar . d/dtheta of the step's polynomial, interpolate.state_at."""
    w, q = offset(tape.rows_bar, row * n), tape.q
    centred, hump = 2.0 * theta - 1.0, theta * (1.0 - theta)
    total = 0.0
    for i in range(n):
        value, slope = 0.0, 0.0  # of sum_m q_m centred^(m - 1), and its derivative by theta, by Horner's rule
        for m in range(degree - 1, 0, -1):
            slope = slope * centred + 2.0 * value
            value = value * centred + q[m * n + i]
        total += w[i] * (q[i] - centred * value + hump * slope)
    return total
