"""What the loop is given and what it leaves behind, as flat vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from odec.errors import Status
from odec.integrate import slots as at
from odec.integrate.control import CONTROLLERS, Controller
from odec.integrate.dense import DenseOutput
from odec.integrate.roots import PLACES, SAMPLES

NO_TIMES = np.empty(0)
NOTHING: Any = None  # an array that a solve has not made


@dataclass(frozen=True, eq=False)
class Residuals:
    """Room for what a step's evaluations leave for the way back (taped_step_function), step behind step.

    room : a vector; the first `head` numbers are those of the evaluation at the start, where a method carries its slope
    size : numbers of a step, stages for the dense output before residuals; steps : how many have their own place, all
        further ones share the next
    """

    room: np.ndarray
    head: int
    size: int
    steps: int


@dataclass
class Problem:
    """One solve, as flat vectors.

    span : (t0, t1); y (n,), p (m,); rtol, atol : numbers or vectors (n,); a large y becomes the end of the outcome
    t_eval : times to keep, None for every step; the array becomes the times of the outcome
    tstops : times strictly within the span, in its direction
    first_step : 0 to choose one; max_steps : of all steps tried
    records : keep the start, the size and the state of each accepted step
    most_records : steps, or polynomials, to keep at a time
    residuals : room for what the evaluations of recorded steps leave for the way back; without events and tstops
    storage : vector(name, size, dtype) makes the arrays for them, and makes them longer; None is in memory
    """

    span: tuple[float, float]
    y: np.ndarray
    p: np.ndarray
    rtol: float | np.ndarray = 1e-6
    atol: float | np.ndarray = 1e-9
    t_eval: np.ndarray | None = None
    tstops: tuple[float, ...] = ()
    first_step: float = 0.0
    min_step: float = 0.0
    max_step: float = math.inf
    max_steps: int = 1_000_000
    controller: Controller = CONTROLLERS["PI"]
    dense: bool = False
    records: bool = False
    most_records: int = 2**62
    residuals: Residuals | None = None
    events: EventKernels | None = None
    storage: Any = None
    pause: Callable | None = None  # called with the time reached at the loop's pauses

    @property
    def keeps_end_only(self):
        """Whether the end is the only row to keep."""
        return self.t_eval is not None and len(self.t_eval) == 0

    @property
    def interpolates(self):
        """Whether the dense output is needed."""
        return bool(self.dense or self.events or (self.t_eval is not None and len(self.t_eval)))


@dataclass(frozen=True, eq=False)
class EventKernels:
    """The kernels of a list of events, and how each is meant.

    values : (t, y, p) -> (n_events,); rates : its derivative along the solution, likewise
    resets : for each event (t, y, p) -> (y, p), or None
    directions, terminal_after : for each event, -1, 0 or 1, and the number of firings that ends the solve (0: none)
    series : (t, k (order + 1, n), p) -> (n_events, order + 1), coefficients along a Taylor step that left k; or None
    """

    values: object
    rates: object
    resets: tuple
    directions: tuple[int, ...]
    terminal_after: tuple[int, ...]
    series: object = None

    @property
    def most(self):
        """How often events happen in one step at most."""
        return len(self.resets) * (SAMPLES if self.series is None else PLACES)

    @property
    def watched(self):
        """The loop's table of events at the start of a solve."""
        table = np.zeros((len(self.resets), at.WATCHED), np.int64)
        table[:, at.DIRECTION_OF], table[:, at.TERMINAL_AFTER] = self.directions, self.terminal_after
        table[:, at.HAS_RESET] = [r is not None for r in self.resets]
        return table.ravel()


@dataclass(frozen=True, eq=False)
class Record:
    """The accepted steps of a solve: where each started, how long it was, also where an event cut it, and its state.

    marks (steps, 2) : t and h; y (steps, n), contiguous
    """

    marks: np.ndarray
    y: np.ndarray

    @property
    def t(self):
        """(steps,)"""
        return self.marks[:, 0]

    @property
    def h(self):
        """(steps,)"""
        return self.marks[:, 1]


@dataclass
class Outcome:
    """What the loop leaves behind; arrays are new.

    ts (rows,), ys (rows, n); t, y : where it ended
    h : the size of the last step tried; slope, p : of a solve that failed, f at the end and the parameters in use
    record : of a Problem that records
    reach : |h| times the fastest rate of the model, the median over a long solve and where steps ran out; else None
    fired_t, fired_e, fired_y : times, indices and states of events, in the order in which they happened; None without
    """

    ts: np.ndarray
    ys: np.ndarray
    t: float
    y: np.ndarray
    status: Status
    steps: int
    rejected: int
    nfev: int
    h: float
    reach: float | None = None
    slope: np.ndarray = NOTHING
    p: np.ndarray = NOTHING
    dense: DenseOutput | None = None
    record: Record | None = None
    fired_t: np.ndarray = NOTHING
    fired_e: np.ndarray = NOTHING
    fired_y: np.ndarray = NOTHING
