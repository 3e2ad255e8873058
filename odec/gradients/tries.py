"""Loops over the tries of an adaptive solve: one logs them, the other goes back over them, their sizes included.

Plain Python that is compiled once an installation, as integrate/loop.py is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from odec.codegen.machine import call_kernel, offset
from odec.gradients import backward
from odec.gradients.backward import slope_along, take_rows
from odec.integrate import slots as at
from odec.integrate.interpolate import copy

# real, count: those of backward.py, and behind them where the span ends, and the cotangent of that
T1, T1_BAR = range(backward.REALS, backward.REALS + 2)
REALS = backward.REALS + 2


class Going(NamedTuple):
    """What one lane of the loop works on, as lanes.Lanes says."""

    now: Any
    task: Any
    y: Any
    p: Any
    f0: Any
    rtol: Any
    atol: Any
    rules: Any
    then: Any
    y_next: Any
    f1: Any
    k: Any
    work: Any


class Log(NamedTuple):
    """Where each try started, and last what was left: now (tries + 1, NOWS), task (., TASKS), y (., n)."""

    now: Any
    task: Any
    y: Any


class Tried(NamedTuple):
    """Kernels: the adjoint of a try, that of one with rows within, that of the size alone, the right-hand side."""

    plain: Any
    rows: Any
    size: Any
    rhs: Any


class Bars(NamedTuple):
    """Cotangents of the numbers that the controller works with.

    then (NOWS,) : behind a try; now (NOWS,), task (TASKS,) : before it
    tried (NOWS,) : zeros, but for TRIED; now_tried, task_tried : what these come to before the try
    error (1,) : a square of an error norm that is too large to be looked at
    """

    then: Any
    now: Any
    task: Any
    tried: Any
    now_tried: Any
    task_tried: Any
    error: Any


class Tape(NamedTuple):
    """What stays the same, rows, and cotangents, as backward.Tape says."""

    p: Any
    rtol: Any
    atol: Any
    rules: Any
    times: Any
    rows_bar: Any
    times_bar: Any
    y1_bar: Any
    y_bar: Any
    p_bar: Any
    p_sum: Any
    q: Any
    q_bar: Any
    slope: Any
    work: Any


def log_tries(advance, going, log, n, carried, first, last):
    """Log the tries first ... last - 1 as they begin, and what follows; up to one at which the loop itself must look.
    Which one that is: it is yet to be made."""
    for k in range(first, last + 1):
        copy(at.NOWS, going.now, offset(log.now, k * at.NOWS))
        copy(at.TASKS, going.task, offset(log.task, k * at.TASKS))
        copy(n, going.y, offset(log.y, k * n))
        if k == last:
            break
        call_kernel(advance, going.now, going.task, going.y, going.p, going.f0, going.rtol, going.atol, going.rules,
                    going.then, going.y_next, going.f1, going.k, going.work)  # fmt: skip
        if going.then[at.ATTENTION] > 0.0:
            return k
        copy(at.NOWS, going.then, going.now)
        if going.then[at.ACCEPTED] > 0.0:
            copy(n, going.y_next, going.y)
            copy(carried, going.f1, going.f0)
    return last


def go_back(kernels, log, bars, tape, real, count):
    """Go back over the tries LAST ... FIRST: bars.then and y1_bar, the cotangents behind the last, become those before
    the first. How many tries they were."""
    n, m = count[backward.N], count[backward.M]
    behind, before = tape.y1_bar, tape.y_bar
    for back in range(count[backward.LAST] - count[backward.FIRST] + 1):
        k = count[backward.LAST] - back
        now, task, state = offset(log.now, k * at.NOWS), offset(log.task, k * at.TASKS), offset(log.y, k * n)
        then, end_t, slide, within, row = offset(now, at.NOWS), now[at.NOWS + at.T], 0.0, 0, count[backward.ROW]
        if task[at.STOP] != task[at.TASKS + at.STOP]:
            end_t = task[at.STOP]
            forget(bars.then)
        if then[at.ACCEPTED] > 0.0:
            slide, within = take_rows(kernels, tape, real, count, now[at.T], then[at.TRIED], end_t, offset(state, n),
                                      behind)  # fmt: skip
            bars.then[at.T] -= slide
        if then[at.BROKEN] > 0.0:  # whatever the stages were, the next try is a fourth as long
            call_kernel(kernels.size, now, task, tape.rules, bars.error, bars.then, bars.now, bars.task, tape.work)
        else:
            if within > 0:
                call_kernel(kernels.rows, now, task, state, tape.p, tape.rtol, tape.atol, tape.rules, bars.then, behind,
                            tape.q_bar, bars.now, bars.task, before, tape.p_bar, tape.q, tape.work)  # fmt: skip
                pull_rows(kernels, bars, tape, count, now, task, then[at.TRIED], end_t, row, before)
            else:
                call_kernel(kernels.plain, now, task, state, tape.p, tape.rtol, tape.atol, tape.rules, bars.then,
                            behind, bars.now, bars.task, before, tape.p_bar, tape.work)  # fmt: skip
            for i in range(m):
                tape.p_sum[i] += tape.p_bar[i]
            behind, before = before, behind
        if task[at.STOP] == real[T1]:
            real[T1_BAR] += bars.task[at.STOP]
        copy(at.NOWS, bars.now, bars.then)
    copy(n, behind, tape.slope)
    copy(n, tape.slope, tape.y1_bar)
    return count[backward.LAST] - count[backward.FIRST] + 1


def forget(bar):
    """Behind a stop the loop starts anew: from a time that is given, without a history."""
    bar[at.T] = 0.0
    for slot in range(at.LOG1, at.RATIO2 + 1):
        bar[slot] = 0.0


def pull_rows(kernels, bars, tape, count, now, task, tried, end_t, last, before):
    """What the rows within a try, the last of them `last`, say of its start, of its size and of their times."""
    n, t, bars.tried[at.TRIED] = count[backward.N], now[at.T], 0.0
    for row in range(count[backward.ROW] + 1, last + 1):
        if tape.times[row] != end_t:
            theta = (tape.times[row] - t) / tried
            speed = slope_along(tape, row, n, count[backward.DEGREE], theta) / tried
            tape.times_bar[row] = speed
            bars.now[at.T] -= speed
            bars.tried[at.TRIED] -= speed * theta
            w = offset(tape.rows_bar, row * n)
            for i in range(n):
                before[i] += w[i]
    call_kernel(kernels.size, now, task, tape.rules, bars.error, bars.tried, bars.now_tried, bars.task_tried, tape.work)
    for slot in range(at.NOWS):
        bars.now[slot] += bars.now_tried[slot]
    bars.task[at.STOP] += bars.task_tried[at.STOP]
