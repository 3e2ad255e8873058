"""`odec.steady_state`: where dy/dt = 0, by Newton's method and pseudo-transient continuation, and its gradient."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from odec.direction import direction_of
from odec.errors import ArgumentError, SolveError, counted
from odec.gradient import Gradient
from odec.graph.structure import component_names
from odec.integrate.factors import Factors
from odec.integrate.run import all_finite
from odec.integrate.steady import ROUNDING, searched
from odec.solving import bound, first_not_finite, parameters_by_name, positive_integer, real_number, tolerance

SINGULAR = 100.0  # times the rounding of dtype: no implicit function
SPARSE_SIZE, SPARSE_SHARE = 100, 0.1  # Jacobians at least so large, with at most so many nonzeros, stay sparse
MOST_EIGENVALUES = 500


@dataclass(frozen=True)
class SteadyState:
    """Where dy/dt = 0, or what was reached on the way there.

    y : the state, in the structure of y0
    success, message : whether it is steady, and how it ended
    residual : the largest |dy/dt| of a component, in units of y over time
    stats : `iterations`, of which `pseudo_steps` were pseudo-transient; `nfev`, `njev`
    jacobian : df/dy at y, (n, n), y and f flat; a scipy.sparse CSR array of a large model; None without success
    """

    y: Any
    success: bool
    message: str
    residual: float
    stats: dict = field(default_factory=dict)
    jacobian: Any = field(default=None, repr=False)
    name: str = "model"

    @functools.cached_property
    def stable(self):
        """Whether every eigenvalue of the Jacobian has a negative real part.

        None where the largest real part is zero within rounding, as a conserved quantity or a centre makes it; for more
        than 500 components; and without success.
        """
        if self.jacobian is None or self.jacobian.shape[0] > MOST_EIGENVALUES:
            return None
        dense = self.jacobian if isinstance(self.jacobian, np.ndarray) else self.jacobian.toarray()
        if not np.isfinite(dense).all():
            return None
        values = np.linalg.eigvals(dense.astype(float))
        largest, rounding = values.real.max(), SINGULAR * np.finfo(dense.dtype).eps * np.abs(values).max()
        return None if abs(largest) <= rounding else bool(largest < 0)

    def __repr__(self):
        kind = {True: ", stable", False: ", unstable", None: ""}[self.stable]
        counts = counted(self.stats.get("iterations", 0), "iteration")
        return f"<SteadyState of {self.name}: {self.message}; residual {self.residual:.3g}, {counts}{kind}>"


def steady_state(model, y0, params=(), *, t=None, rtol=1e-10, atol=1e-12, max_steps=1_000, dtype=None, throw=True):
    """The state y with f(t, y, *params) = 0 that a search from y0 finds.

    Damped Newton on the generated Jacobian; where that stops contracting or the Jacobian is singular, pseudo-transient
    continuation from y0: (I/dt - J) dy = f, with dt growing as |f| falls. That is an implicit solution of dy/dt = f, so
    linear conserved quantities, which make the Jacobian singular, keep their values of y0 up to rounding. The state
    found may be unstable: see `SteadyState.stable`.

    Parameters
    ----------
    model : Model or System
    y0 : where the search begins, an array or a structure
    params : tuple in signature order, or dict by name
    t : time at which a model that depends on time is held; None for a model that does not
    rtol, atol : positive numbers, or shaped like y: the search ends where the root mean square of
        dy / (atol + rtol |y|) is at most 1 for a Newton step dy, or where f is zero within rounding
    max_steps : bounds the iterations of both kinds together
    dtype : float64 or float32; None follows y0
    throw : raise SolveError when no steady state is found, else return what was reached

    Returns
    -------
    SteadyState

    Raises
    ------
    ArgumentError, ShapeError, TraceError : the arguments or the model cannot be used
    SolveError : no steady state was found; `.solution` is the SteadyState that was reached

    References: Deuflhard, Newton Methods for Nonlinear Problems (2004), section 3.3 (natural monotonicity); Kelley and
    Keyes, SIAM J. Numer. Anal. 35 (1998) 508 (switched evolution relaxation)
    """
    slope, y, rtol, atol, most = _posed("steady_state", model, y0, params, t, rtol, atol, max_steps, dtype)
    return _concluded(slope, searched(slope, y, rtol, atol, most), throw)


def steady_state_vjp(model, y0, params=(), *, t=None, rtol=1e-10, atol=1e-12, max_steps=1_000, dtype=None, throw=True):
    """(steady, pullback): the SteadyState, and the transposed derivative of its y in the parameters.

    `pullback(y_bar)`, with y_bar in the structure of y, is the Gradient of <y_bar, y>, by the implicit function
    theorem: J^T lam = y_bar, params_bar = -(df/dparams)^T lam. Its y0 is zeros, for a steady state does not change with
    where the search begins; its t1 is the cotangent of the time t at which the model is held, and its t0 is zero.
    Arguments as `steady_state` takes them.

    Raises
    ------
    ArgumentError, ShapeError, TraceError : the arguments, y_bar or the model cannot be used
    SolveError : no steady state was found; or, by pullback, the Jacobian is singular there, as a conserved quantity
        makes it, so that y is no function of the parameters alone
    """
    slope, start, rtol, atol, most = _posed("steady_state_vjp", model, y0, params, t, rtol, atol, max_steps, dtype)
    found = searched(slope, start, rtol, atol, most)
    steady = _concluded(slope, found, throw)
    factors = functools.cache(lambda: _regular(slope, steady))

    def pullback(y_bar):
        """The Gradient of <y_bar, y>."""
        bar = _cotangent(slope.system, y_bar)
        t_bar, p_bars = slope.transposed(found.y, -factors().solve(bar, transposed=True))
        structure = slope.system.y_structure
        zeros = structure.unflatten(np.zeros(structure.size, slope.dtype))
        by_name = dict(zip(slope.system.parameters.keys, p_bars, strict=True))
        return Gradient(zeros, by_name if isinstance(params, dict) else p_bars, None, 0.0, t_bar)

    return steady, pullback


def steady_state_jvp(model, y0, params=(), *, tangents, t=None, rtol=1e-10, atol=1e-12, max_steps=1_000,
                     dtype=None):  # fmt: skip
    """(steady, y_dot): the SteadyState, and the derivative of its y along a direction of the parameters.

    By the implicit function theorem J y_dot = -(df/dparams) dparams. Arguments as `steady_state` takes them.

    Parameters
    ----------
    tangents : (dy0, dparams), in the structure of y0, and a tuple in signature order or a dict by name; None, and a
        missing name, is zero. A steady state does not change with where the search begins, so dy0 has no effect

    Returns
    -------
    SteadyState, and y_dot in the structure of y

    Raises
    ------
    ArgumentError, ShapeError, TraceError : the arguments, the tangents or the model cannot be used
    SolveError : no steady state was found; or the Jacobian is singular there, so that y is no function of the
        parameters alone
    """
    slope, start, rtol, atol, most = _posed("steady_state_jvp", model, y0, params, t, rtol, atol, max_steps, dtype)
    _, dp = direction_of(slope.system, tangents)
    found = searched(slope, start, rtol, atol, most)
    steady = _concluded(slope, found, throw=True)
    y_dot = _regular(slope, steady).solve(-slope.along(found.y, dp))
    return steady, slope.system.y_structure.unflatten(y_dot.astype(slope.dtype))


# ---- the question -----------------------------------------------------------------------------------------


class _Slope:
    """f of a System at one time and with one set of parameters, and its derivatives, all of them flat and counted."""

    def __init__(self, system, t, p):
        self.system, self.t, self.dtype = system, t, np.dtype(system.dtype)
        self.eps = float(np.finfo(self.dtype).eps)
        self.params = tuple(system.p_structure.unflatten(p).values())
        n = system.y_structure.size
        self.sparse = n >= SPARSE_SIZE and system.jacobian_sparsity().nnz <= SPARSE_SHARE * n * n
        self.nfev = self.njev = 0

    def __call__(self, y):
        """f (n,) at y (n,)."""
        self.nfev += 1
        rate = self.system.rhs(self.t, self._stated(y), *self.params)
        return self.system.y_structure.flatten(rate, self.system.name)

    def jacobian(self, y):
        """df/dy (n, n) at y (n,), float64, dense or a CSR array."""
        self.njev += 1
        found = self.system.jacobian(self.t, self._stated(y), *self.params, sparse=self.sparse)
        return found.astype(float)

    def transposed(self, y, w):
        """((df/dt)^T w, (df/dparams)^T w as a tuple in signature order)."""
        t_bar, _, p_bars = self.system.vjp(self.t, self._stated(y), *self.params, cotangent=self._stated(w))
        return t_bar, p_bars

    def along(self, y, dp):
        """(df/dparams) dp (n,), float64, of dp (m,) or None for zero."""
        structure = self.system.p_structure
        dparams = None if dp is None else tuple(structure.unflatten(dp).values())
        rate = self.system.jvp(self.t, self._stated(y), *self.params, tangents=(None, None, dparams))
        return self.system.y_structure.flatten(rate, self.system.name)

    def moved(self, y, dy):
        """y + dy (n,), rounded to the dtype of the model."""
        with np.errstate(over="ignore", invalid="ignore"):
            return (y + dy).astype(self.dtype).astype(float)

    def _stated(self, y):
        with np.errstate(over="ignore"):
            return self.system.y_structure.unflatten(y.astype(self.dtype))


def _posed(where, model, y0, params, t, rtol, atol, max_steps, dtype):
    """(_Slope, start (n,), rtol, atol, most iterations) of arguments, which it checks."""
    system, y, p = bound(model, y0, parameters_by_name(model, params, where), dtype)
    for what, flat in (("y0", y), ("params", p)):
        if not all_finite(flat):
            raise ArgumentError(f"{system.name}: {first_not_finite(system, what, flat)}; finite numbers are needed.")
    slope = _Slope(system, _time(system, t), p)
    relative = tolerance(system, "rtol", rtol)
    absolute = tolerance(system, "atol", atol)
    relative = np.maximum(relative, ROUNDING * slope.eps)
    return slope, y.astype(float), relative, absolute, positive_integer(system.name, "max_steps", max_steps)


def _time(system, t):
    if t is None:
        if _depends_on_time(system.graph):
            raise ArgumentError(
                f"{system.name} depends on t, so f(t, y) = 0 has no single answer; say at which time the model is to "
                "be held, as t=0.0."
            )
        return 0.0
    try:
        time = real_number(t)
    except (TypeError, ValueError):
        time = math.nan
    if not math.isfinite(time):
        raise ArgumentError(f"{system.name}: t is {t!r}; a finite number is needed.")
    return time


def _depends_on_time(graph):
    time = graph.inputs["t"]
    return any(node is time for node in graph.outputs.values()) or any(
        given is time for node in graph.nodes for given in node.inputs
    )


def _cotangent(system, y_bar):
    bar = system.y_structure.flatten(y_bar, f"{system.name}: y_bar")
    if not all_finite(bar):
        place = int(np.flatnonzero(~np.isfinite(bar))[0])
        named = component_names(system.y_structure, system.state)[place]
        raise ArgumentError(
            f"{system.name}: y_bar is {bar[place]} for {named}; finite numbers are needed: check the loss."
        )
    return bar


# ---- the answer -------------------------------------------------------------------------------------------


def _concluded(slope, found, throw):
    """The SteadyState of a Found; SolveError, with `throw`, where it is not steady."""
    system = slope.system
    jacobian = slope.jacobian(found.y).astype(slope.dtype) if found.steady else None
    stats = {
        "iterations": found.iterations, "pseudo_steps": found.pseudo_steps, "nfev": slope.nfev, "njev": slope.njev
    }  # fmt: skip
    message = _failure(slope, found) if jacobian is None else _success(slope, found, jacobian)
    y = system.y_structure.unflatten(found.y.astype(slope.dtype))
    steady = SteadyState(y, found.steady, message, float(np.max(np.abs(found.f))), stats, jacobian, system.name)
    if throw and not found.steady:
        raise SolveError(message, steady)
    return steady


def _success(slope, found, jacobian):
    """How the state was found; and whether it is one of many."""
    if found.pseudo_steps == 0 or _is_regular(slope, Factors(jacobian.astype(float))):
        return f"steady by {found.how}"
    return f"steady by {found.how}; the Jacobian is singular there, so y depends on y0 by what is conserved"


def _is_regular(slope, factors):
    return factors.reciprocal_condition > SINGULAR * slope.eps


def _failure(slope, found):
    """One sentence: where the search ended, which component is worst, and what to try."""
    system, bad = slope.system, np.flatnonzero(~np.isfinite(found.f))
    worst = int(bad[0]) if bad.size else int(np.argmax(np.abs(found.f)))
    named = component_names(system.y_structure, system.state)[worst]
    after = f"after {counted(found.iterations, 'iteration')}"
    there = f"{system.name}: no steady state found {after}: d{named}/dt {found.how}"
    if bad.size:
        return f"{there} ({found.f[worst]}). Check y0 and params."
    return (
        f"{there} ({found.f[worst]:.3g} at {named} = {found.y[worst]:.6g}, the largest). The model may have no steady "
        "state near y0: start nearer to one, for example from the end of odec.solve, or raise max_steps."
    )


def _regular(slope, steady):
    """The Factors of J at a steady state; SolveError where there is no implicit function."""
    name = slope.system.name
    if not steady.success:
        raise SolveError(f"{name}: what was reached is not steady, so it has no gradient. {steady.message}", steady)
    factors = Factors(steady.jacobian.astype(float))
    if not _is_regular(slope, factors):
        raise SolveError(
            f"{name}: the Jacobian is singular at the steady state, as a conserved quantity makes it, so y is no "
            "function of the parameters alone; fix the conserved total inside the model: replace one component by the "
            "total, a parameter, less the others.",
            steady,
        )
    return factors
