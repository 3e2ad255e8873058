"""Gradients through events: their times move with the solution, and resets carry the gradient across.

An event happens at the time tau at which g(tau, Y(tau), p) = 0, where Y is the polynomial of its step. Let y_bar and
t_bar be the cotangents of Y(tau) and of tau itself. Then

    lambda = (t_bar + y_bar . Y') / (g_t + g_y . Y'),    w = y_bar - lambda g_y,    p_bar -= lambda g_p,

and w is the cotangent of Y at the fixed time tau: what is left is a row within a step, as t_eval asks for it. Events
that end the solve or reset it cut it into pieces. The steps behind a cut start at tau, so that what their times are
worth flows into t_bar; what their state and parameters are worth comes back through the transposed derivative of the
reset. Where several events reset at once they do so one after another, in the order of the list, each at its own time.

References: Galán, Feehery and Barton, Parametric sensitivity functions for hybrid discrete/continuous systems, Appl.
Numer. Math. 31 (1999) 17; Chen, Amos and Nickel, Learning neural event functions for ODEs, ICLR (2021)
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from odec.errors import ArgumentError, counted
from odec.gradients import backward as at
from odec.graph.structure import Leaf, Structure
from odec.integrate.problem import NO_TIMES, Record
from odec.integrate.slots import RESOLUTION

GRAZING = 1e-6  # of the fastest that an event's function moves in its step, below which its time is uncertain
NUMBER = Structure(Leaf((), 0), 1)
TOGETHER = 3.0 * RESOLUTION  # relative to time, within which events of one cut lie


class EventPulls(NamedTuple):
    """The transposed derivatives of a list of events, as kernels.

    names : of the events; still : whether the function of each depends on time alone, so that its times do not move
    values : (t, y, p, values_bar (n_events,)) -> t_bar, y_bar, p_bar
    resets : for each event (t, y, p, y_new_bar, p_new_bar) -> t_bar, y_bar, p_bar, or None
    """

    names: tuple[str, ...]
    still: tuple[bool, ...]
    values: Any
    resets: tuple


@dataclass
class Cut:
    """Where events end a piece of a solve.

    first, behind : of the events that happened, the one at whose time and state it is, and the next after the cut
    terminal : which of them ends the solve, or None; resets : {number of an event that resets there: which it is}, in
        the order of the list of events
    """

    first: int
    behind: int
    terminal: tuple[int, int] | None = None
    resets: dict = field(default_factory=dict)

    @property
    def own(self):
        """(number of the event, which of those that happened) that decides its time: the terminal, or first reset."""
        return self.terminal or next(iter(self.resets.items()))


def cuts_of(events, times, which):
    """The Cuts of a solve in which events (EventKernels) happened at `times`, `which` of them, in order."""
    counts, cuts, together = [0] * len(events.resets), [], set()
    for i, (t, e) in enumerate(zip(times.tolist(), which.tolist(), strict=True)):
        counts[e] += 1
        ends, resets = counts[e] == events.terminal_after[e], events.resets[e] is not None
        if not (together and e not in together and abs(t - times[cuts[-1].first]) <= TOGETHER * abs(t)):
            together = set()
            if ends or resets:
                cuts.append(Cut(i, i))
        if ends or resets or together:
            cut, together = cuts[-1], together | {e}
            cut.behind = i + 1
            if ends:
                cut.terminal = cut.terminal or (e, i)
            if resets:
                cut.resets = dict(sorted((cut.resets | {e: i}).items()))
    return cuts


def resets_run(events, cuts, outcome, p):
    """For each Cut what its resets started from, [(event, y, p)]; and the parameters of each piece between the cuts."""
    chains, parameters = [], [p]
    for cut in cuts:
        t, y, chain = outcome.fired_t[cut.first : cut.first + 1].copy(), outcome.fired_y[cut.first].copy(), []
        for e in () if cut.terminal else cut.resets:
            chain.append((e, y, p))
            y_new, p_new = np.empty_like(y), np.empty_like(p)
            events.resets[e].run(t, y, p, y_new, p_new)
            y, p = y_new, p_new if (p_new != p).any() else p
        chains.append(chain)
        parameters.append(p)
    return chains, parameters


class Crossings:
    """What the events of a solve do to its gradient.

    name : of the model; pulls : EventPulls; problem : Problem; outcome : Outcome with a Record; kernels : Pulls
    """

    def __init__(self, name, pulls, problem, outcome, kernels):
        self.name, self.pulls, self.problem, self.outcome, self.kernels = name, pulls, problem, outcome, kernels
        self.ahead = 1.0 if problem.span[1] > problem.span[0] else -1.0
        self.cuts = cuts_of(problem.events, outcome.fired_t, outcome.fired_e)
        self.chains, self.parameters = resets_run(problem.events, self.cuts, outcome, problem.p)
        self.steps = self._steps()
        self.pieces = self._pieces()

    def _steps(self):
        """(fired,) the step in which each event happened, (t_k, t_k+1] for step k."""
        starts, fired = self.outcome.record.t, self.outcome.fired_t
        ends = self.ahead * np.append(starts[1:], self.outcome.t)
        steps = np.minimum(np.searchsorted(ends, self.ahead * fired), len(starts) - 1)
        begin = first = 0
        for cut in self.cuts:  # steps may be shorter than times can tell
            steps[begin : cut.first + 1] = np.maximum(steps[begin : cut.first + 1], first)
            steps[cut.first : cut.behind] = steps[cut.first]
            begin, first = cut.behind, steps[cut.first] + 1
        steps[begin:] = np.maximum(steps[begin:], first)
        return steps

    def _pieces(self):
        """(first step, behind the last, first event, behind the last) of each piece."""
        bounds = [0, *(int(self.steps[cut.first]) + 1 for cut in self.cuts), len(self.outcome.record.t)]
        events = [0, *(cut.behind for cut in self.cuts), len(self.outcome.fired_t)]
        pieces = list(zip(bounds, bounds[1:], events, events[1:]))
        return pieces[:-1] if self.cuts and self.cuts[-1].terminal else pieces

    def pull(self, run, rows_bar, events_bar):
        """Go back over all pieces, the cotangents of the rows and of the events in hand."""
        _Across(self, run, rows_bar, events_bar).back()

    def follows(self, step):
        """The stop, or end of the span, up to which a step was tried; None where its size was its own."""
        t, h = self.outcome.record.marks[step]
        ahead = [stop for stop in (*self.problem.tstops, self.problem.span[1]) if (stop - t) * self.ahead > 0]
        stop = ahead[0] if ahead else t
        return stop if ahead and abs(t + h - stop) <= 4.0 * RESOLUTION * max(abs(stop), abs(h)) else None


class _Across:
    """One way back over the pieces of a solve: `run` goes back over the steps of each.

    run : as discrete._Run; its y1_bar, p_sum are the cotangents of the state and of the parameters where it is
    """

    def __init__(self, crossings, run, rows_bar, events_bar):
        self.of, self.run, self.rows_bar = crossings, run, rows_bar
        outcome, n = crossings.outcome, run.y1_bar.size
        fired = len(outcome.fired_t)
        self.t_bar, self.y_bar = events_bar or (np.zeros(fired), np.zeros((fired, n)))
        self.row = len(rows_bar)  # behind the last row that is not taken yet
        self._times = crossings.ahead * outcome.ts
        self.start_bar = 0.0  # of the time at which the steps behind start
        self._step = {a.name: np.zeros(a.size, a.dtype) for a in crossings.kernels.timed.arguments}

    def back(self):
        """Over all pieces, from the last to the first."""
        of, run = self.of, self.run
        terminal = bool(of.cuts and of.cuts[-1].terminal)
        end_bar = self.rows_bar[0].astype(float) if of.problem.keeps_end_only and self.row else 0.0 * run.y1_bar
        if of.problem.keeps_end_only:
            self.row = 0
        if not terminal:
            run.y1_bar[:], end_bar = end_bar, 0.0 * end_bar
        if terminal or of.pieces[-1][0] == of.pieces[-1][1]:
            run.t1_bar = 0.0  # no step ends at the end of the span
        for j in reversed(range(len(of.pieces))):
            self._piece(j, of.cuts[j] if j < len(of.cuts) else None, end_bar)
            end_bar = 0.0 * end_bar

    def _piece(self, j, cut, end_bar):
        """Back over one piece: its events, then its steps."""
        of, run, outcome = self.of, self.run, self.of.outcome
        first, behind, begin, end = of.pieces[j]
        p, own = of.parameters[j], None if cut is None else cut.own[1]
        within = [] if cut is None else [(cut.first, self._crossed(cut, of.chains[j], p, end_bar))]
        for i in range(begin, end):
            if (self.t_bar[i] or self.y_bar[i].any()) and i != own:
                within.append((i, self._seen(i, p)))
        rows = self._rows(j, cut, first, behind)
        times, bars, placed = self._merged(rows, within)
        if first == behind:
            return
        run.place(p, times, bars)
        run.real[at.T_SUM] = run.real[at.H_BAR] = 0.0
        steps = Record(outcome.record.marks[first:behind], outcome.record.y[first:behind])
        if cut is None:
            run.over(steps, outcome.t, outcome.y, True)
        else:
            stop = of.follows(behind - 1)
            t = outcome.fired_t[cut.first]
            run.over(steps, math.nextafter(t, of.ahead * math.inf), outcome.fired_y[cut.first], stop is not None)
            if stop == of.problem.span[1] and not cut.terminal:
                run.t1_bar += run.real[at.H_BAR]
        self.start_bar = run.real[at.T_SUM] - run.real[at.H_BAR]
        if of.problem.t_eval is not None:
            run.times_bar[placed[placed >= 0]] = run.piece_times_bar[placed >= 0]

    # ---- events

    def _speeds(self, step, t, p):
        """Y' (4, n) of the polynomial of a step: at the time t, and at its start, middle and end."""
        (start, h), y, arrays = self.of.outcome.record.marks[step], self.of.outcome.record.y[step], self._step
        arrays["t"][0], arrays["h"][0], arrays["y"], arrays["p"] = start, h, y, p
        self.of.kernels.timed.run(*arrays.values())
        q = arrays["q"].reshape(-1, y.size).astype(float)
        theta = np.array([[(t - start) / h], [0.0], [0.5], [1.0]])
        bent, slope, centred = np.zeros((4, y.size)), np.zeros((4, y.size)), 2.0 * theta - 1.0
        for row in q[:0:-1]:
            slope = slope * centred + 2.0 * bent
            bent = bent * centred + row
        return (q[0] - centred * bent + theta * (1.0 - theta) * slope) / h

    def _seen(self, i, p):
        """The cotangent at a fixed time that an event's own cotangents make; the parameters take their part."""
        of = self.of
        t, y = of.outcome.fired_t[i], of.outcome.fired_y[i]
        speeds = self._speeds(of.steps[i], t, p)
        return self._at_fixed_time(of.outcome.fired_e[i], t, y, p, speeds, self.t_bar[i], self.y_bar[i])

    def _crossed(self, cut, chain, p, end_bar):
        """The cotangent at a fixed time, at the end of the piece before a cut, of what lies behind the cut."""
        of, run = self.of, self.run
        t, y = of.outcome.fired_t[cut.first], of.outcome.fired_y[cut.first]
        t_bar, y_bar = self.start_bar, end_bar if cut.terminal else run.y1_bar.astype(float)
        if of.problem.t_eval is None and chain:
            y_bar = y_bar + self._last_row()
        for place, (e, y_before, p_before) in reversed(list(enumerate(chain))):
            part, y_bar = self._through(e, t, y_before, p_before, y_bar)
            t_bar += part
            if place:
                speed = np.empty_like(y_before)
                of.kernels.rhs.run(np.array([t]), y_before, p_before, speed)
                y_bar = self._at_fixed_time(e, t, y_before, p_before, speed[None].astype(float), t_bar, y_bar)
                t_bar = -(y_bar @ speed)
        if of.problem.t_eval is None:
            y_bar = y_bar + self._last_row()
        run.y1_bar[:] = 0.0
        event, i = cut.own
        t_bar, y_bar = t_bar + self.t_bar[i], y_bar + self.y_bar[i]
        return self._at_fixed_time(event, t, y, p, self._speeds(of.steps[cut.first], t, p), t_bar, y_bar)

    def _through(self, e, t, y, p, y_bar):
        """(t_bar, y_bar) before the reset of event e; the cotangent of the parameters becomes that before it."""
        t_part, y_part, p_part = _pulled(self.of.pulls.resets[e], t, y, p, y_bar.astype(y.dtype), self.run.p_sum)
        self.run.p_sum[:] = p_part
        return float(t_part[0]), y_part.astype(float)

    def _at_fixed_time(self, e, t, y, p, speeds, t_bar, y_bar):
        """w of an event, from the cotangents of its time and of its state; the parameters take their part."""
        of = self.of
        worth = float(t_bar + y_bar @ speeds[0])
        if not worth or of.pulls.still[e]:
            return y_bar
        g_t, g_y, g_p = event_slopes(of.pulls, e, t, y, p)
        along = g_t + speeds @ g_y
        shift = worth / float(along[0]) if along[0] else math.inf
        if not math.isfinite(shift):
            raise ArgumentError(grazing(of.name, of.pulls.names[e], t, "has no derivative"))
        if abs(along[0]) <= GRAZING * np.abs(along).max():
            warnings.warn(grazing(of.name, of.pulls.names[e], t, "hardly has one"), RuntimeWarning, stacklevel=6)
        self.run.p_sum -= (shift * g_p).astype(y.dtype)
        return y_bar - shift * g_y

    # ---- rows

    def _last_row(self):
        """Take the last row that is left: its cotangent."""
        self.row -= 1
        return self.rows_bar[self.row]

    def _rows(self, j, cut, first, behind):
        """Take the rows of a piece: where they begin and end."""
        of, end = self.of, self.row
        if of.problem.t_eval is None:
            self.row -= behind - first - (cut is not None) + (j == 0)
        elif j == 0:
            self.row = 0
        else:
            before = of.outcome.fired_t[of.cuts[j - 1].first]
            self.row = min(end, int(np.searchsorted(self._times, of.ahead * before, side="right")))
        return slice(self.row, end)

    def _merged(self, rows, within):
        """(times, cotangents, places in all rows or -1) of the rows of a piece, and of those at its events."""
        of, outcome = self.of, self.of.outcome
        times, bars, placed = outcome.ts[rows], self.rows_bar[rows], np.arange(rows.start, rows.stop)
        if of.problem.keeps_end_only:
            times, bars, placed = NO_TIMES, self.rows_bar[:0], placed[:0]
        if within:
            extra = [self._inside(i) for i, _ in within]
            times = np.concatenate([times, extra])
            bars = np.concatenate([bars, np.array([w for _, w in within])]).astype(self.rows_bar.dtype)
            placed = np.concatenate([placed, np.full(len(extra), -1)])
            order = np.argsort(of.ahead * times, kind="stable")
            times, bars, placed = times[order], np.ascontiguousarray(bars[order]), placed[order]
        return np.ascontiguousarray(times), np.ascontiguousarray(bars), placed

    def _inside(self, i):
        """The time of an event, between the ends of its step."""
        of = self.of
        t, starts, step = of.outcome.fired_t[i], of.outcome.record.t, of.steps[i]
        if (t - starts[step]) * of.ahead <= 0.0:
            return math.nextafter(starts[step], of.ahead * math.inf)
        ends = starts[step + 1] if step + 1 < len(starts) else of.outcome.t
        return math.nextafter(t, starts[step]) if t == ends else t


def event_slopes(pulls, e, t, y, p):
    """g_t, g_y (n,), g_p (m,) of the function of event e, by the transposed derivative of them all."""
    seed = np.zeros(len(pulls.names), y.dtype)
    seed[e] = 1.0
    g_t, g_y, g_p = _pulled(pulls.values, t, y, p, seed)
    return float(g_t[0]), g_y.astype(float), g_p.astype(float)


def _pulled(kernel, t, *arrays):
    """The outputs of a kernel at a time."""
    outputs = [np.empty(a.size, a.dtype) for a in kernel.arguments if a.written]
    kernel.run(np.array([t]), *arrays, *outputs)
    return outputs


def grazing(model, event, t, what):
    """That an event's function does not move at its event, in words; `what`: what its time then is."""
    return (
        f"{model}: event {event} at t = {t:.6g} only touches its zero: there its function does not change along the "
        f"solution, so its time {what}. Give it a function that crosses zero, or leave the event out."
    )


def check_differentiable(name, adjoint, checkpoints):
    """ArgumentError where events cannot be differentiated as asked for."""
    if adjoint != "discrete":
        raise ArgumentError(
            f"{name}: the solve has events, and adjoint={adjoint!r} takes smooth solutions; use "
            'adjoint="discrete", which goes back through events and resets.'
        )
    if checkpoints is not None:
        raise ArgumentError(
            f"{name}: checkpoints is {checkpoints!r}, but each step of a solve with events is recorded; leave "
            "checkpoints out."
        )


def event_cotangents(system, outcome, events, t_events_bar, y_events_bar):
    """(t_bar (fired,), y_bar (fired, n)) in the order in which events happened, of what a user gave; None for none.

    events : how many there are; t_events_bar, y_events_bar : in the structure of t_events and y_events, None is zero

    Raises
    ------
    ArgumentError, ShapeError : they do not fit, or are not finite
    """
    if t_events_bar is None and y_events_bar is None:
        return None
    name, structure = system.name, system.y_structure
    if not events:
        raise ArgumentError(f"{name}: the solve has no events; leave t_events_bar and y_events_bar out.")
    fired = len(outcome.fired_t)
    t_bar, y_bar = np.zeros(fired), np.zeros((fired, structure.size), system.dtype)
    for what, given, bars in (("t_events_bar", t_events_bar, t_bar), ("y_events_bar", y_events_bar, y_bar)):
        for e, value in enumerate(_listed(name, what, given, events)):
            if value is not None:
                where, places = f"{name}: {what}[{e}]", np.flatnonzero(outcome.fired_e == e)
                bars[places] = _event_rows(structure, value, where, bars, len(places))
    return t_bar, y_bar


def _listed(name, what, given, events):
    if given is None:
        return ()
    if not isinstance(given, (list, tuple)) or len(given) != events:
        found = f"{len(given)} entries" if isinstance(given, (list, tuple)) else f"of {type(given).__name__}"
        raise ArgumentError(
            f"{name}: {what} is {found}; a list with one entry for each of the {counted(events, 'event')} is needed, "
            "None for zeros."
        )
    return given


def _event_rows(structure, value, where, bars, times):
    """Cotangents of the times, or of the states, of one event; checked."""
    if bars.ndim == 1:
        rows = NUMBER.flatten_members(np.asarray(value), where, bars.dtype, times)[:, 0]
    else:
        rows = structure.flatten_members(value, where, bars.dtype, times)
    if not np.isfinite(rows).all():
        raise ArgumentError(f"{where} has {rows[~np.isfinite(rows)][0]}; finite numbers are needed.")
    return rows
