"""What an ensemble returns."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from odec.errors import ArgumentError, Status, counted
from odec.event import event_kernels
from odec.failure import message
from odec.graph.structure import Structure, component_names, component_paths, structure_of
from odec.integrate.batch import Batch, Fired
from odec.solution import Solution

NOT_KEPT: Any = None  # rows of an ensemble that was only reduced, events of one without
FIRST_MEMBERS = 5  # of each status that a table of failures shows


@dataclass(frozen=True)
class Origin:
    """What made an ensemble: enough to solve one of its members again.

    system : System; record : of the method; events : Events; batch : the members, without compiled events
    """

    system: Any
    record: Any
    events: tuple
    batch: Batch

    def outcome(self, i):
        """(the Problem, its Outcome) of member i, solved by itself."""
        problem = self.batch.member(i)
        if self.events:
            problem.events = event_kernels(self.system, self.events, self.record)
        return problem, self.system.solver(self.record).run(problem)


@dataclass(frozen=True)
class Failure:
    """The members that ended with one status: `count` of them, `members` (count,) their places, in order."""

    status: Status
    members: np.ndarray

    @property
    def count(self):
        """How many there are."""
        return len(self.members)

    def __repr__(self):
        shown = ", ".join(map(str, self.members[:FIRST_MEMBERS]))
        more = ", ..." if self.count > FIRST_MEMBERS else ""
        return f"{self.status.name}: {counted(self.count, 'member')} ({shown}{more}): {self.status.sentence}"


class Failures(tuple):
    """The failed members of an ensemble, a Failure for each status, the most frequent first."""

    __slots__ = ()

    def __repr__(self):
        return "\n".join(map(repr, self)) or "no member failed"


@dataclass(frozen=True, eq=False, repr=False)
class EnsembleSolution:
    """The solutions of N members of an ensemble. Of a member that failed, what it reached is there, the rest is nan.

    ts : (m,) times, or (N, m) where each member has its own, nan after its last; where the end only was kept, m is 1
    ys : (N, m, *y.shape); for a structured state the same structure of such arrays; None where `reduce` was asked for;
        dask arrays with gather=False
    y1 : (N, *y.shape), the state where each member ended, nan where it failed; in the structure of y
    t1 : (N,) where each ended; status : (N,) int8, as odec.Status; success : (N,) whether the end, or a terminal event,
        was reached
    steps, rejected : (N,); nfev : (N,) evaluations of the right-hand side, 0 where y0 or parameters are not finite
    stats : `steps`, `rejected`, `nfev`, sums over the members; `lane_use`, the share of the lanes' steps that a member
        needed; `trajectories`, `failed`; `compile_seconds`, `solve_seconds`
    t_events, y_events : for each event its times (N, k) and states (N, k, *y.shape) just before any reset, nan after a
        member's last; None without events; `events` has them one after the other
    reduced : {name: (m, *y.shape)} of the reductions over the members that succeeded, in the structure of y; without m
        where the end only was kept
    batched : {name: (N, ...)}, the inputs that the members differ in; "y0" is the state. Arrays are those that were
        given, not copies: what changes them changes what `message` finds
    t_span : (t0, t1), numbers or arrays (N,)
    flat_rows, flat_y1 : (N, m, n) and (N, n), states as vectors, in the order of `names`

    `ensemble[i]` is one member as a Solution, `len(ensemble)` is N.
    """

    ts: np.ndarray
    t1: np.ndarray
    status: np.ndarray
    steps: np.ndarray
    rejected: np.ndarray
    nfev: np.ndarray
    flat_rows: np.ndarray
    flat_y1: np.ndarray
    stats: dict
    structure: Structure
    name: str = "model"
    state: tuple[str, ...] | None = None
    t_span: tuple = (0.0, 1.0)
    batched: dict = field(default_factory=dict)
    reduced: dict = field(default_factory=dict)
    fired: Fired = NOT_KEPT
    n_events: int = 0
    origin: Origin = NOT_KEPT

    def __len__(self):
        return len(self.status)

    def __getstate__(self):  # functions of events cannot be pickled; without them `message` names no cause
        kept = {name: value for name, value in self.__dict__.items() if name != "_by_event"}
        return kept | {"origin": NOT_KEPT} if self.n_events else kept

    @property
    def ys(self) -> Any:
        """(N, m, *y.shape), the kept rows in the structure of y; None where they were only reduced."""
        return None if self.flat_rows is None else self.structure.unflatten(self.flat_rows, self.flat_rows.shape[:2])

    @property
    def y1(self) -> Any:
        """(N, *y.shape), the end states in the structure of y."""
        return self.structure.unflatten(self.flat_y1, (len(self),))

    @property
    def success(self):
        """(N,) whether each member reached the end of its time span, or a terminal event."""
        return succeeded(self.status)

    @property
    def names(self):
        """The name of each component, in the order of the flat state."""
        return tuple(component_names(self.structure, self.state))

    def flat_reduction(self, name):
        """(m, n), what `reduced` has by that name, as vectors in the order of `names`."""
        value, where = self.reduced[name], f"{self.name}: {name}"
        if structure_of(value, where).leaves == self.structure.leaves:  # of the end only
            return self.structure.flatten(value, where, self.flat_y1.dtype)[None]
        return self.structure.flatten_members(value, where, self.flat_y1.dtype, self.ts.shape[-1])

    # ---- events

    @property
    def events(self):
        """All events, by member and then in the order in which they happened: member, event (k,), t (k,), y (k, n)."""
        return self.fired

    @property
    def t_events(self):
        """For each event its times (N, k), nan after a member's last; None without events."""
        return None if not self.n_events else [times for times, _ in self._by_event]

    @property
    def y_events(self):
        """For each event its states (N, k, *y.shape), nan after a member's last; None without events."""
        if not self.n_events:
            return None
        return [self.structure.unflatten(states, states.shape[:2]) for _, states in self._by_event]

    @functools.cached_property
    def _by_event(self):
        """(times (N, k), flat states (N, k, n)) of each event."""
        return [self._padded(np.flatnonzero(self.fired.event == e)) for e in range(self.n_events)]

    def _padded(self, which):
        members = self.fired.member[which]
        counts = np.bincount(members, minlength=len(self))
        most = int(counts.max(initial=0))
        place = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        times = np.full((len(self), most), np.nan)
        states = np.full((len(self), most, self.structure.size), np.nan, self.flat_y1.dtype)
        times[members, place], states[members, place] = self.fired.t[which], self.fired.y[which]
        return times, states

    # ---- members

    def __getitem__(self, i):
        """Member i as a Solution, from what was kept: its rows, its end, its events."""
        i = self._place(i)
        ts, rows = self._rows_of(i)
        events: Any = (None, None)
        if self.n_events:
            events = self._events_of(i)
        stats = {name: int(getattr(self, name)[i]) for name in ("steps", "rejected", "nfev")}
        return Solution(
            ts, self.structure.unflatten(rows, (len(rows),)), self.structure.unflatten(self.flat_y1[i]),
            Status(int(self.status[i])), self._brief(i), stats, self.name, self.state, rows, self.structure, *events,
        )  # fmt: skip

    def _place(self, i):
        try:
            place = operator.index(i)
        except TypeError:
            raise ArgumentError(
                f"{self.name}: ensemble[{i!r}] is no member; give its number, as ensemble[0]."
            ) from None
        if not -len(self) <= place < len(self):
            raise IndexError(f"{self.name}: ensemble[{place}] is not there; the ensemble has {len(self):,} members.")
        return place % len(self)

    def _rows_of(self, i):
        """(times, rows) that member i reached."""
        if self.flat_rows is None:
            times, rows = self.t1[i : i + 1], self.flat_y1[i : i + 1]
        else:
            times, rows = (self.ts if self.ts.ndim == 1 else self.ts[i]), np.asarray(self.flat_rows[i])
        there = ~(np.isnan(times) | np.isnan(rows).any(axis=1))
        return times[there], rows[there]

    def _events_of(self, i):
        first, last = np.searchsorted(self.fired.member, (i, i + 1))
        event = self.fired.event[first:last]
        which = [first + np.flatnonzero(event == e) for e in range(self.n_events)]
        return [self.fired.t[w] for w in which], [self.structure.unflatten(self.fired.y[w], (len(w),)) for w in which]

    def _brief(self, i):
        status = Status(int(self.status[i]))
        if status in (Status.SUCCESS, Status.TERMINATED):
            return status.sentence
        steps = f"{self.steps[i]:,} steps ({self.rejected[i]:,} rejected)"
        return f"{self.name}: {status.sentence} at t = {self.t1[i]:.6g} after {steps}."

    def message(self, i):
        """How member i ended, in words; one that failed is solved again by itself, to name the cause and its line."""
        i = self._place(i)
        status = Status(int(self.status[i]))
        if self.origin is None or status in (Status.SUCCESS, Status.TERMINATED, Status.INTERRUPTED, Status.RUNNING):
            return self._brief(i)
        given = self._not_finite_input(i)
        if given:
            return f"{self.name}: {given}; finite numbers are needed."
        problem, out = self.origin.outcome(i)
        if out.status in (Status.SUCCESS, Status.TERMINATED, Status.INTERRUPTED):
            return self._brief(i)
        origin = self.origin
        return message(origin.system, origin.record, out, problem.rtol, problem.atol, problem.min_step)

    def _not_finite_input(self, i):
        """'y0[1] is nan' of a member with such an input, else None."""
        assert self.origin is not None
        problem, system = self.origin.batch.member(i), self.origin.system
        for what, flat, structure in (("y0", problem.y, system.y_structure), ("params", problem.p, system.p_structure)):
            bad = np.flatnonzero(~np.isfinite(flat))
            if bad.size:
                return f"{what}{list(component_paths(structure))[bad[0]]} is {flat[bad[0]]}"
        return None

    @property
    def failures(self):
        """The members that failed, by status: a tuple of records with `status`, `count` and `members`."""
        failed = np.flatnonzero(~self.success)
        kinds, counts = np.unique(self.status[failed], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return Failures(Failure(Status(int(k)), failed[self.status[failed] == k]) for k in kinds[order])

    # ---- to look at

    def __repr__(self):
        counts = ", ".join(f"{k} {self.stats[k]:,}" for k in ("steps", "rejected", "nfev") if k in self.stats)
        return f"<EnsembleSolution of {self.name}: {self._ended()}; {self._kept()}, {counts}>"

    def _ended(self):
        """'1,000 trajectories, 990 reached the end, 2 ended by an event, 8 failed (NON_FINITE 8)'."""
        parts = [f"{len(self):,} {'trajectory' if len(self) == 1 else 'trajectories'}"]
        reached, ended = (int(np.count_nonzero(self.status == s)) for s in (Status.SUCCESS, Status.TERMINATED))
        parts.append(f"{'all' if reached == len(self) else f'{reached:,}'} reached the end")
        if ended:
            parts.append(f"{ended:,} ended by a terminal event")
        failures = self.failures
        if failures:
            kinds = ", ".join(f"{f.status.name} {f.count:,}" for f in failures)
            parts.append(f"{sum(f.count for f in failures):,} failed ({kinds})")
        return ", ".join(parts)

    def _kept(self):
        if self.flat_rows is None:
            return f"{', '.join(self.reduced)} of {counted(self.ts.shape[-1], 'row')}"
        return f"{counted(self.ts.shape[-1], 'row')} each"

    def _repr_html_(self):
        """A table for notebooks: the model, how many ended how, what was kept, the work."""
        rows = [("ended", self._ended()), ("kept", self._kept()), ("batched", ", ".join(self.batched) or "time span")]
        rows += [(f.status.name, repr(f).split(": ", 1)[1]) for f in self.failures]
        rows += [(k.replace("_", " "), f"{v:.3g}" if isinstance(v, float) else f"{v:,}") for k, v in self.stats.items()]
        body = "".join(f"<tr><td>{escape(a)}</td><td>{escape(b)}</td></tr>" for a, b in rows)
        return f"<table><caption>Ensemble of {escape(self.name)}</caption><tbody>{body}</tbody></table>"

    def to_xarray(self):
        """The rows as an xarray.Dataset with the dimension `trajectory` and the batched parameters as coordinates.

        Raises
        ------
        ImportError : xarray is not installed
        """
        from odec.interop.xarray_ensemble import to_dataset

        return to_dataset(self)

    def plot(self, ax=None, *, kind="auto", components=None, **options):
        """Draw the ensemble on Matplotlib axes, which are returned: one, or an array of one for each component.

        Parameters
        ----------
        ax : axes to draw on, all components on the same, or one for each; None takes the current ones for one
            component, and new ones on each other for several
        kind : "fan", the median and the bands that hold 50 and 90 of 100 members over time; "members", a line for each,
            of 200 where there are more, coloured by the input in which they differ if that is one number; "reduced",
            what was asked for with `reduce`, over time; "end", a histogram of the states where the members ended.
            "auto" is the first of them that what was kept allows, "members" for fewer than 20
        components : names or places of the components to draw; None draws all, or six evenly chosen of more
        options : as Matplotlib's `Axes.plot` takes them for the lines, `Axes.hist` for the histogram

        Raises
        ------
        ArgumentError : a component or a kind that is not there, or nothing kept that it can be drawn from
        ImportError : Matplotlib is not installed
        """
        from odec.interop.matplotlib_ensemble import plot_ensemble

        return plot_ensemble(self, ax, kind, components, options)


def succeeded(status):
    """(N,) whether each status (N,) is that of a solve that reached its end."""
    return (status == Status.SUCCESS) | (status == Status.TERMINATED)
