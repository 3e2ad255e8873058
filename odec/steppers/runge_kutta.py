"""Explicit Runge-Kutta methods: a step and its dense output as graphs."""

from __future__ import annotations

from odec.graph.function import Function
from odec.graph.op import OPS
from odec.ops.call import call
from odec.ops.families import broadcast_to, total
from odec.ops.structure import row, slice_
from odec.steppers.hermite import hermite, stacked
from odec.steppers.tableaus import rounded
from odec.transforms.scalar import operation_count

INLINE = 100  # scalar operations of the right-hand side up to which it is inlined: beyond, a call costs less than
INLINE_ALL = 4_000  # the registers that are spilled; and of all stages together, for the sake of compile time
AT_END = 1e-12  # how far from 1 the c of a stage at the end may be, given as a decimal


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
    _, k, y1, f1 = _stages(f, tableau, t, h, y, p, f0)
    error = _error(tableau, in_dtype(h, y), k, f1, y, y1, rtol, atol)
    outputs = {"y1": y1, "f1": f1, "k": stacked([k[i] for i in tableau.kept], y), "error": error}
    return Function("step", inputs, outputs)


def _stages(f, tableau, t, h, y, p, f0):
    """(states of the stages, their slopes, y1, f1)."""
    size, rhs, states, k = in_dtype(h, y), evaluation(f, tableau.evaluations), [y], [f0]
    for i in range(1, tableau.stages):
        states.append(_combined(y, size, rounded(tableau.a[i], tableau.c, y.dtype), k))
        k.append(named(rhs(t + float(tableau.c[i]) * h, states[i], p), f"k{i + 1}"))
    b = rounded(tableau.b, tableau.c, y.dtype)
    y1 = named(states[-1] if tableau.fsal else _combined(y, size, b, k), "y1")
    return states, k, y1, k[-1] if tableau.fsal else named(rhs(t + h, y1, p), "f1")


def runge_kutta_estimates(f, tableau, t, h, y, p, f0, over):
    """What a step says of the model: error, stiffness, float64 numbers, those of them that `estimated` names.

    error : the root mean square of the local error estimate, in the unit of y
    stiffness : |f1 - k_i| / |y1 - y_i| for the last stage i at t + h, in 1/time; 0 where both states are one
    over : how many of the first elements of y the norms are over

    References: [hairer1996] IV.2
    """
    inputs = dict(t=t, h=h, y=y, p=p, f0=f0)
    states, k, y1, f1 = _stages(f, tableau, t, h, y, p, f0)
    step, outputs, i = broadcast_to(in_dtype(h, y), y.shape), {}, _stage_at_end(tableau)

    def square(v):
        return sum_of_squares(in_double(v if over == y.size else slice_(v, starts=(0,), steps=(1,), shape=(over,))))

    if tableau.adaptive:
        squared = _of_estimates(tableau, lambda coefficients: square(step * _weighted(coefficients, k)))
        outputs["error"] = _root(squared * (1.0 / over))
    if i is not None:
        moved = square(y1 - states[i])
        still = OPS["eq"](moved, 0.0)
        ratio = square(f1 - k[i]) / OPS["where"](still, 1.0, moved)
        outputs["stiffness"] = _root(OPS["where"](still, 0.0, ratio))
    return Function("estimates", inputs, outputs)


def estimated(tableau):
    """Names of what `runge_kutta_estimates` can say."""
    return (*["error"] * tableau.adaptive, *["stiffness"] * (_stage_at_end(tableau) is not None))


def _stage_at_end(tableau):
    """The last stage at t + h beside y1, or None."""
    others = range(tableau.stages - tableau.fsal)
    return max((i for i in others if abs(tableau.c[i] - 1) < AT_END), default=None)


def _root(square):
    """The square root, whose derivative at 0 is taken as 0."""
    zero = OPS["eq"](square, 0.0)
    return OPS["where"](zero, 0.0, OPS["sqrt"](OPS["where"](zero, 1.0, square)))


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
    """mean_i (h e_i / (atol + rtol max(|y|, |y1|)))² [hairer1993, II.4 (4.11)], float64."""
    scale = scale_of(y, y1, rtol, atol)
    step = broadcast_to(h, y.shape)
    squared = _of_estimates(tableau, lambda coefficients: sum_of_squares(step * _weighted(coefficients, k) / scale))
    return squared * (1.0 / y.size)


def _of_estimates(tableau, square):
    """|e|² of the coefficients of e; with a second estimate that times |e|² / (|e|² + 0.01 |e2|²)
    [hairer1993, II.10 (10.17)]."""
    squared = square(tableau.b_error)
    if tableau.b_error_second is None:
        return squared
    both = squared + 0.01 * square(tableau.b_error_second)
    return squared * (squared / OPS["where"](OPS["eq"](both, 0.0), 1.0, both))
