"""Rows to keep: states at accepted steps, and between them from a step's polynomial."""

from __future__ import annotations

from odec.codegen.machine import offset


def state_at(theta, n, degree, y, q, row):
    """row = y + theta (q_0 + (1 - theta) sum_m q_m (2 theta - 1)^(m - 1))."""
    centred, rest = 2.0 * theta - 1.0, 1.0 - theta
    for i in range(n):
        row[i] = 0.0
    for m in range(degree - 1, 0, -1):
        for i in range(n):
            row[i] = row[i] * centred + q[m * n + i]
    for i in range(n):
        row[i] = y[i] + theta * (q[i] + rest * row[i])


def time_after(elapsed, t, t_new):
    """The time so long after the start of the step from t to t_new."""
    return t_new if elapsed == t_new - t else t + elapsed


def state_after(elapsed, t, h, t_new, n, degree, y, y_next, q, row):
    """The state so long after the start of the step from t to t_new of size h, at the end the new state itself.

    Doubles are finer near 0 than near t: an event's state is exact to rounding, whatever t is rounded to.
    """
    if elapsed == t_new - t:
        copy(n, y_next, row)
    else:
        state_at(elapsed / h, n, degree, y, q, row)


def copy(n, source, row):
    """row = source."""
    for i in range(n):
        row[i] = source[i]


def keep_row(t, n, y, saved, ts, ys):
    """One more row; how many there are."""
    ts[saved] = t
    copy(n, y, offset(ys, saved * n))
    return saved + 1


def keep_segment(t, h, n, degree, y, q, segment, marks, segments):
    """The polynomial of a step, for later: its start and size, its state, its coefficients."""
    marks[2 * segment], marks[2 * segment + 1] = t, h
    start = segment * (degree + 1) * n
    copy(n, y, offset(segments, start))
    copy(degree * n, q, offset(segments, start + n))
