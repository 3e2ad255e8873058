"""`odec.solve_ivp`: SciPy's signature and result around `odec.solve`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from odec.errors import ArgumentError, Status, nearest
from odec.event import Event
from odec.integrate.dense import DenseOutput
from odec.model import Model
from odec.solving import solve
from odec.system import System

METHODS = {"RK45": "dopri5", "RK23": "bs3", "DOP853": "dop853"}
IMPLICIT = ("Radau", "BDF", "LSODA")
OPTIONS = ("rtol", "atol", "first_step", "max_step", "min_step", "max_steps", "controller", "tstops", "progress")
LEAST_RTOL = 100 * np.finfo(float).eps  # what SciPy raises a smaller one to


def solve_ivp(fun, t_span, y0, method="RK45", t_eval=None, dense_output=False, events=None, vectorized=False, args=None,
              **options):  # fmt: skip
    """Solve dy/dt = fun(t, y, *args) as `scipy.integrate.solve_ivp` does, compiled.

    Parameters
    ----------
    fun : f(t, y, *args) -> (n,), traced as `odec.dynamics` traces it; or a model of odec
    t_span : (t0, t1), in the unit of time
    y0 : (n,) the state at t0
    method : "RK45", "RK23", "DOP853", or a method of odec, by name or as a record
    t_eval : sorted times to keep; None keeps every step
    dense_output : whether `sol` is a function of time
    events : a function g(t, y, *args) or a list of them, with the attributes `terminal` (whether, or after how many,
        the solve ends) and `direction` of SciPy; or odec.Event records
    vectorized : whether fun takes y of shape (n, k)
    args : what fun and the events take beside t and y; floats and float arrays become parameters of the model, so
        that other values need no compiling, everything else a constant of it
    options : rtol=1e-3, atol=1e-6, first_step, max_step and min_step as SciPy's; max_steps and others of `odec.solve`

    Returns
    -------
    scipy.integrate's OdeResult : t (m,), y (n, m), sol, t_events, y_events, nfev, njev, nlu, status (0: the end, 1: a
        terminal event, -1: stopped early), message, success

    Raises
    ------
    TraceError : fun or an event cannot be traced
    ArgumentError, ShapeError : arguments that cannot be used, methods that odec does not have
    """
    y0, args = _state(y0), _arguments(args)
    if isinstance(fun, (Model, System)):
        model, params, closed = fun, args, lambda function: function
    else:
        model, params, closed = _traceable(fun, args, vectorized)
    keywords = _keywords(method, options)
    if dense_output:
        keywords["dense_output"] = True
    if events is not None:
        keywords["events"] = _events(events, closed)
    solution = solve(model, t_span, y0, params, method=_method(method), t_eval=t_eval, throw=False, **keywords)
    return _result(solution, slice(None) if t_eval is None or len(t_eval) else slice(0))


# ---- arguments -------------------------------------------------------------------------------------------------


def _state(y0):
    y = np.asarray(y0)
    if y.dtype.kind not in "iuf":
        raise ArgumentError(
            f"solve_ivp: y0 is made of {y.dtype}; real numbers are needed; split others into real parts."
        )
    if y.ndim != 1:
        raise ArgumentError(
            f"solve_ivp: y0 has shape {y.shape}; one dimension is needed, as in SciPy; odec.solve takes any shape."
        )
    return y.astype(float)


def _arguments(args):
    try:
        return () if args is None else tuple(args)
    except TypeError:
        raise TypeError(f"solve_ivp: args is {args!r}; a tuple is needed: write args=({args!r},).") from None


def _traceable(fun, args, vectorized):
    """(Model, the values of its parameters, what makes an event function take those) of a plain function."""
    if not callable(fun):
        raise ArgumentError(f"solve_ivp: fun is {type(fun).__name__}; a function f(t, y) is needed.")
    varies = [_is_parameter(arg) for arg in args]

    def closed(function):
        def taking(t, y, *values):
            rest = iter(values)
            return function(t, y, *(next(rest) if v else arg for v, arg in zip(varies, args, strict=True)))

        taking.__name__ = getattr(function, "__name__", type(function).__name__)
        return taking

    inner = closed(fun)

    def rate(t, y, *values):
        return _as_rows(inner(t, y[:, None], *values), y) if vectorized else _spread(inner(t, y, *values), y)

    rate.__name__ = inner.__name__
    return Model(rate), tuple(arg for arg, v in zip(args, varies, strict=True) if v), closed


def _is_parameter(arg):
    """Whether an argument is a finite float or an array of them; any other may decide what fun computes."""
    kind = np.float64 if isinstance(arg, float) else getattr(arg, "dtype", None)
    return (
        kind is not None
        and isinstance(arg, (float, np.floating, np.ndarray))
        and (np.dtype(kind).kind == "f" and bool(np.all(np.isfinite(arg))))
    )


def _spread(rate, y):
    """A single number for every component, as NumPy's broadcasting gives it to SciPy."""
    if rate is None or isinstance(rate, (list, tuple)):
        return rate
    return rate if np.shape(rate) else rate + np.zeros_like(y)


def _as_rows(rate, y):
    return np.reshape(np.stack(rate) if isinstance(rate, (list, tuple)) else rate, y.shape)


def _method(method):
    """The method of odec that a name or solver class of SciPy means."""
    name = method.__name__ if isinstance(method, type) else method
    if isinstance(name, str) and name in IMPLICIT:
        raise ArgumentError(
            f"solve_ivp: method {name!r} is for stiff problems, and this version of odec has no implicit methods; use "
            "'DOP853' or 'RK45' if the problem is not stiff, else scipy.integrate.solve_ivp."
        )
    return METHODS.get(name, name) if isinstance(name, str) else method


def _keywords(method, options):
    """What `odec.solve` takes; a warning for what has no meaning here, as SciPy gives it."""
    for name in options:
        if name not in OPTIONS:
            text = f"solve_ivp: method {method!r} has no use for {name}, which is ignored{nearest(name, OPTIONS)}"
            warnings.warn(text, stacklevel=3)
    keywords: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-6} | {k: v for k, v in options.items() if k in OPTIONS}
    if np.any(np.less(keywords["rtol"], LEAST_RTOL)):
        warnings.warn(f"solve_ivp: rtol is below {LEAST_RTOL:.2g}, which is used instead.", stacklevel=3)
        keywords["rtol"] = np.maximum(keywords["rtol"], LEAST_RTOL)
    # zero is SciPy's way to ask for a purely relative error
    keywords["atol"] = np.where(np.equal(keywords["atol"], 0), np.finfo(float).tiny, keywords["atol"])
    return keywords


def _events(events, closed):
    """odec.Event records of functions with SciPy's attributes, and of records, over the arguments of fun."""
    given = (events,) if callable(events) or isinstance(events, Event) else events
    return [_over(event, closed) if isinstance(event, Event) else _event(event, closed) for event in given]


def _event(function, closed):
    terminal, direction = getattr(function, "terminal", None) or False, getattr(function, "direction", 0)
    if not isinstance(terminal, bool) and terminal == int(terminal):
        terminal = int(terminal)
    return Event(closed(function), terminal, direction)


def _over(event, closed):
    return replace(event, fn=closed(event.fn), reset=event.reset and closed(event.reset))


# ---- results ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interpolant:
    """The solution between its steps, called as SciPy's OdeSolution: sol(t) is (n,), or (n, m) for times (m,).

    Times outside the span that was solved raise ArgumentError: a polynomial says nothing there.
    """

    dense: DenseOutput
    name: str

    def __call__(self, t):
        times = np.asarray(t, float)
        if times.ndim > 1:
            raise ArgumentError(f"{self.name}: sol(t) takes a number or times (m,), not shape {times.shape}.")
        return self.dense(times, self.name).T

    @property
    def ts(self):
        """(k + 1,) the times between which the polynomials lie."""
        return np.append(self.dense.starts, self.dense.end[0])

    @property
    def t_min(self):
        """The least time that can be asked for."""
        return float(min(self.ts[0], self.ts[-1]))

    @property
    def t_max(self):
        """The greatest time that can be asked for."""
        return float(max(self.ts[0], self.ts[-1]))


def _result(solution, kept):
    from scipy.integrate._ivp.ivp import OdeResult

    status = {Status.SUCCESS: 0, Status.TERMINATED: 1}.get(solution.status, -1)
    return OdeResult(
        t=solution.ts[kept], y=solution.flat_rows[kept].T,
        sol=None if solution.dense is None else Interpolant(solution.dense, solution.name),
        t_events=solution.t_events, y_events=solution.y_events,
        nfev=solution.stats["nfev"], njev=solution.stats["njev"], nlu=solution.stats["nlu"],
        status=status, message=solution.message, success=status >= 0,
    )  # fmt: skip
