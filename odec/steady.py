"""`odec.steady_state`: where dy/dt = 0, by Newton's method and pseudo-transient continuation, and its gradient."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.linalg import get_lapack_funcs
from scipy.sparse import diags_array, eye_array
from scipy.sparse.linalg import splu

from odec.errors import ArgumentError, SolveError, counted
from odec.gradient import Gradient
from odec.graph.structure import component_names
from odec.integrate.run import all_finite
from odec.solving import bound, first_not_finite, parameters_by_name, positive_integer, real_number, tolerance

NEWTON_ITERATIONS = 50  # beyond which Newton's method is given up for pseudo-transient continuation
LEAST_DAMPING = 1 / 64
NEAR_SINGULAR = 1e4  # times the rounding of dtype: Newton's step would wander along what is conserved
SINGULAR = 100.0  # times the rounding of dtype: no implicit function
ROUNDING = 8.0  # spacings of |J| |y| below which a slope cannot be told from zero
FIRST_STEP = 0.1  # of the pseudo time, in units of 1 / |J|: well below where I/dt - J of an unstable mode is singular
FASTEST_GROWTH = 10.0  # of the pseudo time step, from one step to the next
REJECTIONS = 60  # in a row, each with a quarter of the pseudo time step before
SPARSE_SIZE, SPARSE_SHARE = 100, 0.1  # Jacobians at least so large, with at most so many nonzeros, stay sparse
MOST_EIGENVALUES = 500


@dataclass(frozen=True)
class SteadyState:
    """Where dy/dt = 0, or what was reached on the way there.

    y : the state, in the structure of y0
    success, message : whether it is steady, and how it ended
    residual : the largest |dy/dt| of a component, in units of y over time
    stats : `iterations`, of which `pseudo_steps` were pseudo-transient; `nfev`, `njev`, `nlu`
    stable : whether every eigenvalue of the Jacobian has a negative real part; None where the largest real part is zero
        within rounding (a conserved quantity, a centre), for more than 500 components, and without success
    """

    y: Any
    success: bool
    message: str
    residual: float
    stats: dict = field(default_factory=dict)
    stable: bool | None = None
    name: str = "model"

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
    slope, y, rtol, atol, most = _posed(model, y0, params, t, rtol, atol, max_steps, dtype)
    return _concluded(slope, _searched(slope, y, rtol, atol, most), throw)


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
    slope, start, rtol, atol, most = _posed(model, y0, params, t, rtol, atol, max_steps, dtype)
    found = _searched(slope, start, rtol, atol, most)
    steady = _concluded(slope, found, throw)
    factors = functools.cache(lambda: _regular(slope, found, steady))

    def pullback(y_bar):
        """The Gradient of <y_bar, y>."""
        bar = _cotangent(slope.system, y_bar)
        t_bar, p_bars = slope.transposed(found.y, -factors().solve(bar, transposed=True))
        structure = slope.system.y_structure
        zeros = structure.unflatten(np.zeros(structure.size, slope.dtype))
        by_name = dict(zip(slope.system.parameters.keys, p_bars, strict=True))
        return Gradient(zeros, by_name if isinstance(params, dict) else p_bars, None, 0.0, t_bar)

    return steady, pullback


# ---- the question -----------------------------------------------------------------------------------------


class _Slope:
    """f of a System at one time and with one set of parameters, and its derivatives, all of them flat and counted."""

    def __init__(self, system, t, p):
        self.system, self.t, self.dtype = system, t, np.dtype(system.dtype)
        self.eps = float(np.finfo(self.dtype).eps)
        self.params = tuple(system.p_structure.unflatten(p).values())
        n = system.y_structure.size
        self.sparse = n >= SPARSE_SIZE and system.jacobian_sparsity().nnz <= SPARSE_SHARE * n * n
        self.nfev = self.njev = self.nlu = 0

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

    def factored(self, matrix):
        """The _Factors of a matrix."""
        self.nlu += 1
        return _Factors(matrix)

    def moved(self, y, dy):
        """y + dy (n,), rounded to the dtype of the model."""
        with np.errstate(over="ignore", invalid="ignore"):
            return (y + dy).astype(self.dtype).astype(float)

    def _stated(self, y):
        with np.errstate(over="ignore"):
            return self.system.y_structure.unflatten(y.astype(self.dtype))


def _posed(model, y0, params, t, rtol, atol, max_steps, dtype):
    """(_Slope, start (n,), rtol, atol, most iterations) of arguments, which it checks."""
    system, y, p = bound(model, y0, parameters_by_name(model, params), dtype)
    for what, flat in (("y0", y), ("params", p)):
        if not all_finite(flat):
            raise ArgumentError(f"{system.name}: {first_not_finite(system, what, flat)}; finite numbers are needed.")
    slope = _Slope(system, _time(system, t), p)
    relative = tolerance(system.name, "rtol", rtol, system.y_structure, system.dtype)
    absolute = tolerance(system.name, "atol", atol, system.y_structure, system.dtype)
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


# ---- the search -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """Where a search ended: y and f (n,), whether that is steady, by which method or why not, and the counts."""

    y: np.ndarray
    f: np.ndarray
    steady: bool
    how: str
    iterations: int
    pseudo_steps: int = 0


def _searched(slope, y, rtol, atol, most):
    """The _Found of a search from y: Newton's method, then pseudo-transient continuation."""
    f = slope(y)
    if not np.isfinite(f).all():
        return _Found(y, f, False, "is not finite at y0", 0)
    weight = lambda y: atol + rtol * np.abs(y)
    with np.errstate(all="ignore"):
        found, spent = _newton(slope, y, f, weight, min(most, NEWTON_ITERATIONS))
        return found or _continued(slope, y, f, weight, most, spent)


def _newton(slope, y, f, weight, most):
    """(_Found or None, iterations): damped so that each step brings the next Newton correction down."""
    for spent in range(1, most + 1):
        jacobian = slope.jacobian(y)
        if _at_rounding(slope, jacobian, y, f):
            return _Found(y, f, True, "Newton's method", spent - 1), spent - 1
        factors = slope.factored(jacobian)
        if not factors.reciprocal_condition > NEAR_SINGULAR * slope.eps:
            return None, spent
        dy, scale = -factors.solve(f), weight(y)
        size = _rms(dy / scale)
        if size <= 1.0:
            y, f = _better(slope, y, f, dy)
            return _Found(y, f, True, "Newton's method", spent), spent
        step = _damped(slope, factors, y, dy, scale, size)
        if step is None:
            return None, spent
        y, f = step
    return None, most


def _damped(slope, factors, y, dy, scale, size):
    """(y, f) after as much of dy as makes the next correction smaller, or None."""
    damping = 1.0
    while damping >= LEAST_DAMPING:
        trial = slope.moved(y, damping * dy)
        f = slope(trial)
        if np.isfinite(f).all() and _rms(factors.solve(f) / scale) <= (1.0 - damping / 4) * size:
            return trial, f
        damping /= 2
    return None


def _continued(slope, y, f, weight, most, spent):
    """The _Found of pseudo-transient continuation: implicit Euler steps that turn into Newton's as f falls."""
    jacobian = slope.jacobian(y)
    dt, refused, settled = FIRST_STEP / (_largest(jacobian) or 1.0), 0, False
    for pseudo in range(1, most - spent + 1):
        if _at_rounding(slope, jacobian, y, f):
            return _Found(y, f, True, "pseudo-transient continuation", spent + pseudo - 1, pseudo - 1)
        dy = slope.factored(_shifted(jacobian, 1.0 / dt)).solve(f)
        arrived = _rms(dy / weight(y)) <= 1.0 and _rms(dy) <= 0.1 * dt * _rms(f)  # as small as Newton's step would be
        if arrived and settled:  # twice: a slow mode may have hidden behind a fast one
            y, f = _better(slope, y, f, dy)
            return _Found(y, f, True, "pseudo-transient continuation", spent + pseudo, pseudo)
        trial = slope.moved(y, dy)
        after = slope(trial)
        if not (np.isfinite(after).all() and _rms(after) <= 10.0 * _rms(f)):
            dt, refused = dt / 4, refused + 1
            if refused == REJECTIONS:
                return _Found(y, f, False, "stays large or not finite however small the step", spent + pseudo, pseudo)
            continue
        dt *= _growth(f, after, dy, y)
        y, f, refused, settled, jacobian = trial, after, 0, arrived, slope.jacobian(trial)
    return _Found(y, f, False, "is not zero", most, max(0, most - spent))


def _growth(f, after, dy, y):
    """The factor of dt: |f| / |f after|, and at least 2 where the step changed little."""
    ratio = _rms(f) / max(_rms(after), 1e-300)
    least = 2.0 if _rms(dy) <= 0.1 * _rms(y) else 0.1
    return min(max(ratio, least), FASTEST_GROWTH)


def _better(slope, y, f, dy):
    """(y, f) after a last step, or before it where rounding made that the worse."""
    trial = slope.moved(y, dy)
    after = slope(trial)
    return (trial, after) if _rms(after) <= _rms(f) else (y, f)


def _at_rounding(slope, jacobian, y, f):
    """Whether each f_i is within rounding of zero: |f| <= 8 eps |J| |y|."""
    return bool(np.all(np.abs(f) <= ROUNDING * slope.eps * (abs(jacobian) @ np.abs(y))))


def _rms(x):
    return math.sqrt(float(np.mean(np.square(x))))


# ---- linear algebra ---------------------------------------------------------------------------------------


class _Factors:
    """LU factors of a square matrix whose rows and columns were scaled to a largest entry of one.

    reciprocal_condition : about 1 / condition number of the scaled matrix, 0 where it is singular or not finite; of a
        sparse matrix the ratio of its extreme pivots
    """

    def __init__(self, matrix):
        self.rows = _inverse_or_one(_maxima(matrix, 1))
        self.columns = _inverse_or_one(_maxima(_scaled(matrix, self.rows, 1.0), 0))
        scaled = _scaled(matrix, self.rows, self.columns)
        dense = isinstance(matrix, np.ndarray)
        self._solve, self.reciprocal_condition = _dense(scaled) if dense else _sparse(scaled)

    def solve(self, b, transposed=False):
        """x (n,) with A x = b, or with A^T x = b."""
        if transposed:
            return self.rows * self._solve(self.columns * b, True)
        return self.columns * self._solve(self.rows * b, False)


def _dense(matrix):
    """(solve, reciprocal condition) of a dense matrix."""
    if not np.isfinite(matrix).all():
        return _unsolved, 0.0
    factor, condition, solve = get_lapack_funcs(("getrf", "gecon", "getrs"), (matrix,))
    lu, pivots, info = factor(matrix)
    if info:
        return _unsolved, 0.0
    rcond, _ = condition(lu, float(np.abs(matrix).sum(axis=0).max()))
    return lambda b, transposed: solve(lu, pivots, b, trans=int(transposed))[0], float(rcond)


def _sparse(matrix):
    """(solve, ratio of extreme pivots) of a sparse matrix."""
    if not np.isfinite(matrix.data).all():
        return _unsolved, 0.0
    try:
        lu = splu(matrix.tocsc())
    except RuntimeError:  # exactly singular
        return _unsolved, 0.0
    pivots = np.abs(lu.U.diagonal())
    return lambda b, transposed: lu.solve(b, "T" if transposed else "N"), float(pivots.min() / pivots.max())


def _unsolved(b, transposed):
    return np.full_like(b, np.nan)


def _maxima(matrix, axis):
    found = abs(matrix).max(axis=axis)
    return found if isinstance(found, np.ndarray) else found.toarray().reshape(-1)


def _inverse_or_one(largest):
    return 1.0 / np.where((largest > 0) & np.isfinite(largest), largest, 1.0)


def _scaled(matrix, rows, columns):
    if isinstance(matrix, np.ndarray):
        return rows[:, None] * matrix * columns
    return diags_array(rows) @ matrix @ diags_array(np.broadcast_to(columns, rows.shape))


def _shifted(jacobian, shift):
    """shift I - J."""
    if isinstance(jacobian, np.ndarray):
        return shift * np.eye(len(jacobian)) - jacobian
    return shift * eye_array(jacobian.shape[0], format="csr") - jacobian


def _largest(jacobian):
    """The largest sum of absolute values in a row, 0 where it is not finite."""
    size = float(np.max(abs(jacobian).sum(axis=1)))
    return size if math.isfinite(size) else 0.0


# ---- the answer -------------------------------------------------------------------------------------------


def _concluded(slope, found, throw):
    """The SteadyState of a _Found; SolveError, with `throw`, where it is not steady."""
    stats = {
        "iterations": found.iterations, "pseudo_steps": found.pseudo_steps,
        "nfev": slope.nfev, "njev": slope.njev, "nlu": slope.nlu,
    }  # fmt: skip
    system = slope.system
    message = _success(slope, found) if found.steady else _failure(slope, found)
    stable = _stable(slope, found.y) if found.steady else None
    y = system.y_structure.unflatten(found.y.astype(slope.dtype))
    steady = SteadyState(y, found.steady, message, float(np.max(np.abs(found.f))), stats, stable, system.name)
    if throw and not found.steady:
        raise SolveError(message, steady)
    return steady


def _stable(slope, y):
    if y.size > MOST_EIGENVALUES:
        return None
    jacobian = slope.system.jacobian(slope.t, slope._stated(y), *slope.params).astype(float)
    if not np.isfinite(jacobian).all():
        return None
    values = np.linalg.eigvals(jacobian)
    largest, rounding = float(values.real.max()), SINGULAR * slope.eps * float(np.abs(values).max())
    return None if abs(largest) <= rounding else largest < 0


def _success(slope, found):
    """How the state was found; and whether it is one of many."""
    if found.pseudo_steps == 0 or _is_regular(slope, slope.factored(slope.jacobian(found.y))):
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


def _regular(slope, found, steady):
    """The _Factors of J at a steady state; SolveError where there is no implicit function."""
    name = slope.system.name
    if not steady.success:
        raise SolveError(f"{name}: what was reached is not steady, so it has no gradient. {steady.message}", steady)
    factors = slope.factored(slope.jacobian(found.y))
    if not _is_regular(slope, factors):
        raise SolveError(
            f"{name}: the Jacobian is singular at the steady state, as a conserved quantity makes it, so y is no "
            "function of the parameters alone; fix the conserved total inside the model: replace one component by the "
            "total, a parameter, less the others.",
            steady,
        )
    return factors
