"""Solves as differentiable functions of PyTorch tensors: `odec.torch.odeint(model, y0, t, params)`.

The model stays a NumPy function that odec compiles; PyTorch sees one operation, whose backward pass is the pullback
of `odec.solve_vjp`.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from odec.errors import ArgumentError, ShapeError
from odec.gradient import solve_vjp
from odec.graph.structure import Branch, Leaf, Structure, children_of
from odec.interop.odeint_arguments import OF_SOLVE, check_options, checked_times, times_cotangent
from odec.solving import solve

REFUSED = {
    "t_eval": "the output times are t",
    "t_span": "the solve goes from t[0] to t[-1]",
    "dtype": "it follows y0, which y0.double() converts",
    "throw": "a solve that fails always raises SolveError",
    "events": "the result is the rows at t alone",
    "batched": "the model says how a batch moves, or odec.solve_vjp solves an ensemble",
    "dense_output": "the result is a tensor of the rows at t",
    "progress": "it is for one long solve, which odec.solve is for",
}


def odeint(model, y0, t, params=(), *, adjoint="discrete", regularizers=(), **options):
    """The states at the times t of dy/dt = f(t, y, *params) from y0 at t[0], differentiable by y0, t and params.

    Gradients go to the inputs that require them, in float64 or float32 as y0; no other input costs anything. Tensors
    on a GPU are copied to the CPU, where odec solves, and the result is copied back.

    Parameters
    ----------
    model : Model or System
    y0 : tensor, or a nested tuple, list or dict of tensors: the state at t[0]. float32 if all are, else float64
    t : tensor (m,) or list of at least two times, rising or falling, in the model's unit of time
    params : tuple in signature order, or dict by name, of tensors, numbers, and nested tuples, lists and dicts of
        them, as dict(net.named_parameters())
    adjoint, regularizers : as odec.solve_vjp takes them
    options : as odec.solve takes them: method, rtol, atol, first_step, max_steps, ...

    Returns
    -------
    ys : tensor (m, *y0.shape), or such tensors in the structure of y0; in the unit of y0. With regularizers (ys, sums),
        where sums is a tensor (terms,) of their values, as differentiable as ys is

    Raises
    ------
    ImportError : PyTorch is not installed
    ArgumentError, ShapeError, TraceError : as odec.solve; second derivatives
    SolveError : the solve stopped before t[-1]
    """
    torch = _torch()
    check_options("odec.torch.odeint", adjoint, regularizers, options, REFUSED)
    t = _times(torch, t)
    leaves = []
    y_form, p_form = _taken_apart(torch, y0, leaves), _taken_apart(torch, params, leaves)
    states = leaves[: y_form.size]
    call = _Call(model, y_form, p_form, _dtype(torch, states), adjoint, list(regularizers), options)
    device = next((x.device for x in states if isinstance(x, torch.Tensor)), torch.device("cpu"))
    inputs = [x for x in (t, *leaves) if isinstance(x, torch.Tensor)]
    if any(x.device.type != "cpu" for x in inputs):
        _say_that_tensors_are_copied()
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        found = _functions()[0].apply(call, device, t, *leaves)
    else:
        found = tuple(torch.from_numpy(part).to(device) for part in call.solved(t, leaves)[0])
    ys = y_form.map(lambda leaf: found[leaf.offset])
    return (ys, found[-1]) if regularizers else ys


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise ImportError("odec: PyTorch is not installed, which this needs; pip install odec[torch].") from None
    return torch


@functools.cache
def _say_that_tensors_are_copied():
    warnings.warn(
        "odec.torch.odeint: tensors on a GPU are copied to the CPU, where odec solves, and the result is copied "
        "back; keep them on the CPU if the copies cost much. This is said once.",
        stacklevel=3,
    )


# ---- what was given, as NumPy arrays ----------------------------------------------------------------------


def _times(torch, t):
    """t as a tensor (m,) of at least two times."""
    if not isinstance(t, torch.Tensor):
        t = torch.as_tensor(t, dtype=torch.float64)
    if t.ndim != 1 or len(t) < 2:
        raise ArgumentError(
            f"odec.torch.odeint: t has shape {tuple(t.shape)}; a vector of at least two times, the start first, is "
            "needed."
        )
    checked_times("odec.torch.odeint", t.detach().cpu())
    return t


def _taken_apart(torch, value, leaves):
    """A Structure whose leaf with offset k stands for the k-th of its leaves, which are added to `leaves`.

    A list of numbers that holds tensors is one tensor, as a list of numbers is one array to odec.
    """
    before = len(leaves)

    def taken(item):
        parts = None if _is_written_out(item) else children_of(item)
        if isinstance(item, list) and parts and all(_is_scalar(v) for v in item):
            item, parts = torch.stack([torch.as_tensor(v) for v in item]), None
        if parts is None:
            leaves.append(item)
            return Leaf((), len(leaves) - 1 - before)
        kind, keys, values, cls = parts
        return Branch(kind, keys, tuple(taken(v) for v in values), cls)

    root = taken(value)
    return Structure(root, len(leaves) - before)


def _is_written_out(item):
    """Whether a list holds numbers alone, in rows or not."""
    return (
        isinstance(item, list) and bool(item) and all(isinstance(v, (int, float)) or _is_written_out(v) for v in item)
    )


def _is_scalar(item):
    return children_of(item) is None and np.ndim(item) == 0


def _dtype(torch, states):
    """'float32' where every floating tensor of a state is that, else 'float64'."""
    found = {x.dtype for x in states if isinstance(x, torch.Tensor) and x.dtype.is_floating_point}
    other = found - {torch.float32, torch.float64}
    if other:
        name = str(other.pop()).removeprefix("torch.")
        raise ArgumentError(
            f"odec.torch.odeint: y0 is {name}; float32 or float64 is needed; convert it, as y0.float()."
        )
    return "float32" if found == {torch.float32} else "float64"


def _array(value, dtype):
    """A tensor as a NumPy array, in place where it lies on the CPU in that dtype; anything else itself."""
    if not hasattr(value, "detach"):
        return value
    value = value.detach().cpu()
    if value.dtype.is_floating_point:
        value = value.to(getattr(_torch(), dtype))
    return value.numpy()


def _in_order(item, value, into):
    """Put the leaves of a value where a Structure's root says; the value may hold more."""
    if isinstance(item, Leaf):
        into[item.offset] = value
        return into
    parts = children_of(value)
    if parts is None:
        raise ShapeError(
            f"odec.torch.odeint: the input is a {item.kind} of tensors where the model has one array; join them, as "
            "torch.stack(...), or bind the model to that structure."
        )
    by_key = dict(zip(parts[1], parts[2], strict=True))
    for key, child in zip(item.keys, item.children, strict=True):
        _in_order(child, by_key[key], into)
    return into


@dataclass(frozen=True)
class _Call:
    """What a solve is given beside numbers; y and params have the k-th leaf at offset k."""

    model: Any
    y: Structure
    params: Structure
    dtype: str
    adjoint: str
    regularizers: list
    options: dict

    def solved(self, t, leaves, differentiated=False):
        """(rows of each leaf of y, then the sums of regularizers where there are any; pullback or None)."""
        solution, pullback = self.solution(t, leaves, differentiated)
        rows = _in_order(self.y.root, solution.ys, [None] * self.y.size)
        return [*rows, solution.regularizers] if self.regularizers else rows, pullback

    def solution(self, t, leaves, differentiated) -> Any:
        """(Solution, pullback or None)."""
        times, arrays = _array(t, "float64"), [_array(x, self.dtype) for x in leaves]
        y0 = self.y.map(lambda leaf: arrays[leaf.offset])
        params = self.params.map(lambda leaf: arrays[self.y.size + leaf.offset])
        given = self.model, (float(times[0]), float(times[-1])), y0, params
        how = {**self.options, "t_eval": times, "dtype": self.dtype}
        if differentiated or self.regularizers:
            return solve_vjp(*given, adjoint=self.adjoint, regularizers=self.regularizers, **how)
        return solve(*given, **{name: value for name, value in how.items() if name in OF_SOLVE}), None

    def pulled(self, pullback, bars):
        """Cotangents of t and of each leaf, as arrays, from those of what `solved` returns first."""
        sums_bar = bars[-1] if self.regularizers else None
        found = pullback(self.y.map(lambda leaf: bars[leaf.offset]), regularizers=sums_bar)
        y0_bar = _in_order(self.y.root, found.y0, [None] * self.y.size)
        return [times_cotangent(found), *y0_bar, *_in_order(self.params.root, found.params, [None] * self.params.size)]


# ---- the operation that PyTorch sees ----------------------------------------------------------------------


@functools.cache
def _functions():
    """(a solve, its pullback) as classes of autograd Functions: the pullback is one to refuse its own derivative."""
    torch = _torch()

    class Odeint(torch.autograd.Function):
        """A solve; backward is the pullback of solve_vjp."""

        @staticmethod
        def forward(ctx, call, device, t, *leaves):
            found, pullback = call.solved(t, leaves, differentiated=True)
            wanted = [x if isinstance(x, torch.Tensor) and x.requires_grad else None for x in (t, *leaves)]
            kinds = [x if x is None else (x.dtype, x.device) for x in wanted]
            ctx.pull = functools.partial(_gradients, torch, call, pullback, kinds)
            ctx.save_for_backward(*(x for x in wanted if x is not None))
            # copied: an adjoint may start from the rows, and the user may write into the result
            return tuple(torch.tensor(part, device=device) for part in found)

        @staticmethod
        def backward(ctx, *bars):
            if torch.is_grad_enabled():
                return None, None, *Pullback.apply(ctx.pull, len(bars), *bars, *ctx.saved_tensors)
            return None, None, *ctx.pull(bars)

    class Pullback(torch.autograd.Function):
        """The pullback of a solve, which has no derivative of its own."""

        @staticmethod
        def forward(ctx, pull, count, *tensors):
            return tuple(pull(tensors[:count]))

        @staticmethod
        def backward(ctx, *_):
            raise ArgumentError(
                "odec.torch.odeint: the second derivative of a solve was asked for; only the first is available in "
                "this version. Leave out create_graph=True, or detach the gradient."
            )

    return Odeint, Pullback


def _gradients(torch, call, pullback, kinds, bars):
    """The cotangent of each input as a tensor of its (dtype, device), None where no kind is given."""
    found = call.pulled(pullback, [_array(bar, call.dtype) for bar in bars])
    return [
        None if kind is None else torch.from_numpy(np.ascontiguousarray(bar)).to(dtype=kind[0], device=kind[1])
        for bar, kind in zip(found, kinds, strict=True)
    ]
