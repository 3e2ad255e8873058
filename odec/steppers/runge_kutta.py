"""Explicit Runge-Kutta methods: a step and its dense output as graphs."""

from __future__ import annotations

from odec.graph.function import Function
from odec.graph.op import OPS
from odec.ops.call import call
from odec.ops.families import broadcast_to, total
from odec.ops.structure import row
from odec.steppers.hermite import hermite, stacked
from odec.steppers.tableaus import rounded
from odec.transforms.scalar import operation_count

INLINE = 100  # scalar operations of the right-hand side up to which it is inlined: beyond, a call costs less than
INLINE_ALL = 4_000  # the registers that are spilled; and of all stages together, for the sake of compile time


def runge_kutta_step(f, tableau, t, h, y, p, f0, rtol, atol):
    """One explicit Runge-Kutta step: k_i = f(t + c_i h, y + h sum_j a_ij k_j), y1 = y + h sum_i b_i k_i.

    The stage state is summed as (y + h sum_{j<i-1} a_ij k_j) + (h a_i,i-1) k_{i-1}, so that only one
    multiply-add waits for the newest stage. Zero coefficients leave no operation behind.

    Parameters
    ----------
    f : Function (t: (), y: (n,), p: (m,)) -> (n,)
    tableau : ButcherTableau
    t, h, y, p, f0, rtol, atol : input nodes, as in step.py

    References: [hairer1993] II.1, II.4
    """
    inputs = dict(t=t, h=h, y=y, p=p, f0=f0, rtol=rtol, atol=atol)
    size = in_dtype(h, y)
    rhs = evaluation(f, tableau.evaluations)
    k = [f0]
    for i in range(1, tableau.stages):
        stage = _combined(y, size, rounded(tableau.a[i], tableau.c, y.dtype), k)
        k.append(named(rhs(t + float(tableau.c[i]) * h, stage, p), f"k{i + 1}"))
    y1 = named(stage if tableau.fsal else _combined(y, size, rounded(tableau.b, tableau.c, y.dtype), k), "y1")
    f1 = k[-1] if tableau.fsal else named(rhs(t + h, y1, p), "f1")
    error = _error(tableau, size, k, f1, y, y1, rtol, atol)
    outputs = {"y1": y1, "f1": f1, "k": stacked([k[i] for i in tableau.kept], y), "error": error}
    return Function("step", inputs, outputs)


def runge_kutta_dense(f, tableau, t, h, y, p, f0, y1, f1, k):
    """The dense output of a step: q_m = h sum_i s_im k_i, extra stages evaluated here; else the cubic.

    References: [hairer1993] II.6
    """
    inputs = dict(t=t, h=h, y=y, p=p, f0=f0, y1=y1, f1=f1, k=k)
    size = in_dtype(h, y)
    if tableau.dense is None:
        return Function("dense", inputs, {"q": hermite(size, y, f0, y1, f1)})
    slopes = [f0, *(None for _ in range(1, tableau.stages))]
    for place, i in enumerate(tableau.kept):
        slopes[i] = row(k, place)
    if tableau.fsal:
        slopes[-1] = f1
    else:
        slopes.append(f1)
    rhs = evaluation(f, len(tableau.extra_a))
    nodes = (*tableau.c, *((1,) if not tableau.fsal else ()), *tableau.extra_c)
    for i, (c, a) in enumerate(zip(tableau.extra_c, tableau.extra_a)):
        stage = _combined(y, size, rounded(a, nodes, y.dtype), slopes)
        slopes.append(named(rhs(t + float(c) * h, stage, p), f"extra{i + 1}"))
    scale = broadcast_to(size, y.shape)
    inner = [scale * _weighted(column, slopes) for column in zip(*tableau.centred)]
    return Function("dense", inputs, {"q": stacked([y1 - y, *inner], y)})


def evaluation(f, times):
    """f as a function of nodes that is used so many times: inlined when small, a call of its kernel when large."""
    if is_called(f, times):
        return lambda *args: call(f, *args)
    return lambda *args: next(iter(f(*args).values()))


def is_called(f, times):
    """Whether so many uses of f are calls of its kernel."""
    operations = operation_count(f)
    return operations > INLINE or operations * times > INLINE_ALL


def in_dtype(h, y):
    """The step size in the dtype of the state."""
    return h if y.dtype == "float64" else OPS["cast"](h, dtype=y.dtype)


def in_double(x):
    """A node in double precision."""
    return OPS["cast"](x, dtype="float64")


def named(node, name):
    """The node, named for readers of the generated code unless it has a name."""
    if node.name is None:
        node.name = name
    return node


def zero_if_finite(x):
    """A float64 number that is 0, or nan where an element of x is not finite."""
    return in_double(OPS["sum"](x * 0.0, axes=(0,)))


def scale_of(y, y1, rtol, atol):
    """atol + rtol max(|y|, |y1|) [hairer1993, II.4 (4.11)]."""
    before, after = OPS["abs"](y), OPS["abs"](y1)
    return atol + rtol * OPS["where"](OPS["gt"](before, after), before, after)


def sum_of_squares(ratio):
    """A float64 number."""
    return in_double(OPS["sum"](ratio * ratio, axes=(0,)))


def _weighted(coefficients, k):
    return total(float(a) * x for a, x in zip(coefficients, k) if a != 0)


def _combined(y, h, coefficients, k):
    """y + h sum_j a_j k_j, the newest k added last."""
    terms = [(a, x) for a, x in zip(coefficients, k) if a != 0]
    *old, (last, newest) = terms
    start = y
    if old:
        start = y + broadcast_to(h, y.shape) * total(a * x for a, x in old)
    return start + broadcast_to(last * h, y.shape) * newest


def _error(tableau, h, k, f1, y, y1, rtol, atol):
    """The error² of step.py; a slope at the new point that no estimate sees is watched for nan."""
    if not tableau.adaptive:
        return zero_if_finite(f1)
    squared = _scaled_square(tableau, h, k, y, y1, rtol, atol)
    seen = tableau.fsal and tableau.b_error[-1] != 0
    return squared if seen else squared + zero_if_finite(f1)


def _scaled_square(tableau, h, k, y, y1, rtol, atol):
    """mean_i (h e_i / (atol + rtol max(|y|, |y1|)))² [hairer1993, II.4 (4.11)], float64; with a second estimate
    that times |e|² / (|e|² + 0.01 |e2|²) [hairer1993, II.10 (10.17)]."""
    scale = scale_of(y, y1, rtol, atol)
    step = broadcast_to(h, y.shape)

    def square(coefficients):
        return sum_of_squares(step * _weighted(coefficients, k) / scale)

    squared = square(tableau.b_error)
    if tableau.b_error_second is not None:
        both = squared + 0.01 * square(tableau.b_error_second)
        squared = squared * (squared / OPS["where"](OPS["eq"](both, 0.0), 1.0, both))
    return squared * (1.0 / y.size)
