"""`odec.jax.odeint`: a solve as a differentiable function of JAX arrays."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from odec.ensemble import solve_ensemble
from odec.errors import ArgumentError, ShapeError, SolveError
from odec.gradient import solve_vjp
from odec.gradients.estimates import check_estimated, names_of
from odec.graph.structure import Leaf, children_of
from odec.interop.odeint_arguments import OF_SOLVE, check_options, checked_times, times_cotangent
from odec.model import dtype_of_state
from odec.solving import bound, parameters_by_name, posed, solve

REFUSED = {
    "t_eval": "the output times are t",
    "t_span": "the solve goes from t[0] to t[-1]",
    "dense_output": "a polynomial is no array",
    "batched": "members are those of jax.vmap",
    "events": "the result is the rows at t alone",
    "dtype": "the solve has the dtype of y0",
    "progress": "JAX decides when a solve runs",
}
UNTRACED = ("tstops",)  # options checked against times, which are not known while JAX traces


def odeint(model, y0, t, params=(), *, adjoint="discrete", regularizers=(), throw=True, **options):
    """ys (len(t), *y0.shape): the solution of dy/dt = f(t, y, *params), y(t[0]) = y0, at the times t, as a
    function that JAX differentiates backwards by y0, t and params.

    It works under jax.jit, jax.grad, jax.vjp, jax.jacrev and jax.vmap. The solve runs on the CPU, called by JAX
    (jax.pure_callback), the members of a vmap by odec.solve_ensemble, whose times go in one direction; its backward
    pass solves again and goes back over the steps by odec.solve_vjp, member by member. With regularizers the members
    are solved one after another.

    Parameters
    ----------
    model : Model or System
    y0 : the state at t[0], an array or a structure of arrays; where all are float32 the solve is in float32, else in
        float64, for which JAX needs jax_enable_x64
    t : (m,), m >= 2, sorted times, rising or falling, in the model's unit; without jax_enable_x64 JAX rounds them to
        float32
    params : tuple in signature order, or dict by name
    adjoint, regularizers : as odec.solve_vjp takes them
    throw : raise when the end is not reached; False makes the rows that were not reached nan, the sums of regularizers
        and the gradient too
    options : as odec.solve takes them, but for t_eval, dense_output, events, dtype and progress; plain values,
        not traced ones

    Returns
    -------
    array, or structure of arrays, each with a leading axis of length m, in the unit of y. With regularizers (ys, sums),
        where ys is that and sums an array (terms,) of their values, in the dtype of y

    Raises
    ------
    ArgumentError, ShapeError, TraceError : the arguments or the model cannot be used; when JAX traces, at the latest
    SolveError : the solve stopped early. Under jit and vmap it reaches the caller as JAX's own JaxRuntimeError, which
        quotes it as its last line, and JAX logs "jax.pure_callback failed"; so with an ArgumentError about values that
        are only known when the solve runs
    TypeError : jax.jvp, jax.jacfwd and jax.hessian, from JAX: there is no forward mode
    ImportError : JAX is not installed
    """
    jax = _jax()
    check_options("odec.jax.odeint", adjoint, regularizers, options, REFUSED)
    y_like, values = _stand_ins(jax, y0), parameters_by_name(model, params, "odec.jax.odeint")
    dtype = jax.dtypes.canonicalize_dtype(dtype_of_state(y_like)).name
    by_name = {name: _stand_ins(jax, value) for name, value in values.items()}  # JAX sorts the keys of a dict
    system, *_ = bound(model, y_like, by_name, None if _is_bound(model) else dtype)
    if system.dtype != dtype:
        raise ArgumentError(
            f"{system.name}: the system is bound to {system.dtype}, but JAX gives y0 as {dtype}; bind the model again "
            "with that dtype, or enable jax_enable_x64."
        )
    times = _times(jax, system.name, t)
    call = HostSolve(system, adjoint, throw, list(regularizers), options)
    call.check(None if any(map(_is_traced, jax.tree_util.tree_leaves(t))) else np.asarray(t, float))
    y = _flat(jax, system.y_structure, y0, dtype)
    rows, *sums = _differentiable(jax, call)(y, times, _flat(jax, system.p_structure, values, dtype))
    ys = system.y_structure.unflatten(rows, times.shape)
    return (ys, *sums) if sums else ys


def _jax() -> Any:
    try:
        import jax
    except ImportError:
        raise ImportError("odec: JAX is not installed, which this needs; pip install odec[jax].") from None
    return jax


def _is_bound(model):
    return hasattr(model, "y_structure")


def _stand_ins(jax, value):
    """A structure with zeros, which need no memory, for JAX's arrays, traced ones included."""
    blank = lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape) if isinstance(x, jax.Array) else x
    return jax.tree_util.tree_map(blank, value)


def _times(jax, name, t):
    """t as a vector of floats of JAX."""
    times = jax.numpy.asarray(t, float)
    if times.ndim != 1 or times.size < 2:
        raise ShapeError(
            f"{name}: t has shape {times.shape}; a one-dimensional array of at least two times is needed, from the "
            "start to the end."
        )
    return times


def _flat(jax, structure, value, dtype):
    """A structured value that fits as one vector (size,) of JAX."""
    parts = [jax.numpy.ravel(jax.numpy.asarray(part, dtype)) for part in _parts(structure.root, value)]
    return jax.numpy.concatenate(parts) if parts else jax.numpy.zeros(0, dtype)


def _parts(item, value):
    """The leaves of a value in the order in which they lie in the flat vector."""
    if isinstance(item, Leaf):
        yield value
        return
    _, keys, values, _ = children_of(value) or (None, (), (), None)
    by_key = dict(zip(keys, values, strict=True))
    for key, child in zip(item.keys, item.children, strict=True):
        yield from _parts(child, by_key[key])


@dataclass(frozen=True)
class HostSolve:
    """A solve on flat NumPy vectors, y (n,), t (m,), p (q,), and its pullback; what JAX calls back.

    system : System; adjoint, throw, regularizers, options : as odeint takes them
    """

    system: Any
    adjoint: str
    throw: bool
    regularizers: list = field(default_factory=list)
    options: dict = field(default_factory=dict)

    @property
    def forward(self):
        """The options that a solve without a gradient takes."""
        return {name: value for name, value in self.options.items() if name in OF_SOLVE}

    def check(self, times):
        """ArgumentError for options, for regularizers that the method has no estimates for, and for times (None where
        JAX does not know them yet), before anything runs."""
        system, t = self.system, np.array([0.0, 1.0]) if times is None else checked_times(self.system.name, times)
        options = {name: value for name, value in self.forward.items() if times is not None or name not in UNTRACED}
        y, p = np.zeros(system.y_structure.size), np.zeros(system.p_structure.size)
        y, p = system.y_structure.unflatten(y), system.p_structure.unflatten(p)
        given = posed(system, (t[0], t[-1]), y, p, t_eval=t, **options)
        check_estimated(system.name, names_of(self.regularizers), given.record)

    def given(self, y, t, p):
        """The positional arguments of odec.solve, and the output times."""
        system, t = self.system, checked_times(self.system.name, t)
        y, p = system.y_structure.unflatten(np.asarray(y)), system.p_structure.unflatten(np.asarray(p))
        return (system, (t[0], t[-1]), y, p), t

    def found(self, *given):
        """(rows,), as `rows` finds them; with regularizers (rows (m, n), sums (terms,)), of vectors y, t, p."""
        return self.summed(*given) if self.regularizers else (self.rows(*given),)

    def rows(self, *given):
        """(*lead, m, n), the states at the times t, of y (*lead, n), t (*lead, m), p (*lead, q), of which each axis of
        lead is 1 where it does not matter: members of one ensemble."""
        arrays = [np.asarray(part) for part in given]
        lead = np.broadcast_shapes(*(part.shape[:-1] for part in arrays))
        differ = [math.prod(part.shape[:-1]) > 1 for part in arrays]
        y, t, p = (_members(part, lead) if of_its_own else part.ravel() for part, of_its_own in zip(arrays, differ))
        found = self.ensemble(y, t, p, differ) if any(differ) else self.one(y, t, p)
        return found.reshape(*lead, *found.shape[-2:])

    def ensemble(self, y, t, p, differ):
        """(N, m, n), the rows of members, for which y, t and p that differ have a first axis N."""
        system, t = self.system, checked_times(self.system.name, t)
        own_y, _, own_p = differ
        found = solve_ensemble(
            system, (t[..., 0], t[..., -1]), system.y_structure.unflatten(y, y.shape[:-1]),
            system.p_structure.unflatten(p, p.shape[:-1]), t_eval=t,
            batched=("y0",) * own_y + system.parameters.keys * own_p, **self.forward,
        )  # fmt: skip
        if self.throw and not found.success.all():
            first = int(np.flatnonzero(~found.success)[0])
            raise SolveError(f"member {first} of {len(found):,}: {found.message(first)}", found[first])
        return found.flat_rows

    def one(self, y, t, p):
        """(m, n), the state at the times t."""
        arguments, t = self.given(y, t, p)
        return _all_rows(solve(*arguments, t_eval=t, throw=self.throw, **self.forward), t)

    def summed(self, y, t, p):
        """(states at the times t (m, n), sums of the regularizers (terms,), nan where the end was not reached)."""
        solution, _ = self.recorded(y, t, p)
        sums = solution.regularizers
        return _all_rows(solution, t), sums if solution.success else np.full_like(sums, np.nan)

    def recorded(self, y, t, p) -> Any:
        """(Solution, Pullback), of the rows at the times t and of the regularizers."""
        arguments, t = self.given(y, t, p)
        how = {"adjoint": self.adjoint, "throw": self.throw, "regularizers": self.regularizers, **self.options}
        return solve_vjp(*arguments, t_eval=t, **how)

    def pulled(self, y, t, p, rows_bar, sums_bar=None):
        """(y_bar (n,), t_bar (m,), p_bar (q,)) of sum(rows_bar * rows), and sums_bar @ sums where there are any."""
        solution, pullback = self.recorded(y, t, p)
        if not solution.success:
            return tuple(np.full_like(np.asarray(part), np.nan) for part in (y, t, p))
        system = self.system
        rows_bar = system.y_structure.unflatten(np.asarray(rows_bar), (len(t),))
        found = pullback(rows_bar, regularizers=sums_bar)
        return (
            system.y_structure.flatten(found.y0, f"{system.name}: y0_bar", system.dtype),
            times_cotangent(found).astype(t.dtype),
            system.p_structure.flatten(found.params, f"{system.name}: params_bar", system.dtype),
        )  # fmt: skip


def _differentiable(jax, call):
    """`call.found` as a function of JAX whose reverse mode is `call.pulled`."""
    like = jax.ShapeDtypeStruct
    host = functools.partial(_on_host, jax)
    terms = len(call.regularizers)
    members, sums = ("sequential", [(terms,)]) if terms else ("expand_dims", [])

    @jax.custom_vjp
    def found(y, t, p):
        shapes = (t.size, y.size), *sums
        return host(call.found, tuple(like(shape, y.dtype) for shape in shapes), members, y, t, p)

    def backward(kept, bars):
        return host(call.pulled, tuple(like(part.shape, part.dtype) for part in kept), "sequential", *kept, *bars)

    found.defvjp(lambda *given: (found(*given), given), backward)
    return found


def _all_rows(solution, t):
    """(m, n), the rows of a Solution at the times t, nan from where it stopped."""
    reached = solution.flat_rows
    rows = np.full((len(t), reached.shape[1]), np.nan, reached.dtype)
    rows[: len(reached)] = reached
    return rows


def _members(array, lead):
    """Vectors along the axes `lead` as one (N, size)."""
    return np.broadcast_to(array, (*lead, array.shape[-1])).reshape(math.prod(lead), array.shape[-1])


def _on_host(jax, function, like, vmap_method, *given):
    """A function of NumPy arrays, called at once where all are known, so that what it raises arrives as it is."""
    if any(_is_traced(part) for part in given):
        return jax.pure_callback(function, like, *given, vmap_method=vmap_method)
    return jax.tree_util.tree_map(jax.numpy.asarray, function(*given))


def _is_traced(value):
    return isinstance(value, _jax().core.Tracer)
