"""One step of an explicit Runge-Kutta method, as a graph."""

from __future__ import annotations

from odec.graph.function import Function
from odec.graph.node import input_node, line_is
from odec.graph.op import OPS
from odec.ops.call import call
from odec.ops.families import broadcast_to, total
from odec.ops.structure import concatenate, reshape
from odec.steppers.step import Step
from odec.transforms.scalar import operation_count

INLINE = 4_000  # scalar operations of all stages together up to which the right-hand side is inlined


def runge_kutta_step(f, tableau):
    """One explicit Runge-Kutta step: k_i = f(t + c_i h, y + h sum_j a_ij k_j), y1 = y + h sum_i b_i k_i.

    The stage state is summed as (y + h sum_{j<i-1} a_ij k_j) + (h a_i,i-1) k_{i-1}, so that only one
    multiply-add waits for the newest stage. Zero coefficients leave no operation behind.

    Parameters
    ----------
    f : Function (t: (), y: (n,), p: (m,)) -> (n,)
    tableau : ButcherTableau

    Returns
    -------
    Step

    References: [hairer1993] II.1, II.4
    """
    dtype, n = f.inputs["y"].dtype, f.inputs["y"].size
    shape = (n,)
    inputs = {
        "t": input_node("t", (), "float64"), "h": input_node("h", (), "float64"), "y": input_node("y", shape, dtype),
        "p": input_node("p", f.inputs["p"].shape, dtype), "f0": input_node("f0", shape, dtype),
        "rtol": input_node("rtol", shape, dtype), "atol": input_node("atol", shape, dtype),
    }  # fmt: skip
    t, h, y, p, f0, rtol, atol = inputs.values()
    with line_is(None):
        size = h if dtype == "float64" else OPS["cast"](h, dtype=dtype)
        rhs = _evaluation(f, tableau.stages)
        k = [f0]
        for i in range(1, tableau.stages):
            stage = _combined(y, size, tableau.a[i], k)
            time = t + float(tableau.c[i]) * h
            k.append(_named(rhs(time, stage, p), f"k{i + 1}"))
        y1 = stage if tableau.fsal else _combined(y, size, tableau.b, k)
        if not tableau.fsal:
            k.append(rhs(t + h, y1, p))
        error = _scaled_square(size, tableau.b_error, k, y, y1, rtol, atol)
        stages = concatenate(*(reshape(x, shape=(1, n)) for x in k[1:]), axis=0)
        outputs = {"y1": _named(y1, "y1"), "k": stages, "error": error}
    return Step(Function("step", inputs, outputs), tableau)


def _evaluation(f, stages):
    """f as a function of nodes: inlined when small, a call of its kernel when large."""
    if operation_count(f) * stages > INLINE:
        return lambda *args: call(f, *args)
    return lambda *args: next(iter(f(*args).values()))


def _named(node, name):
    if node.name is None:
        node.name = name
    return node


def _combined(y, h, coefficients, k):
    """y + h sum_j a_j k_j, the newest k added last."""
    terms = [(float(a), x) for a, x in zip(coefficients, k) if a != 0]
    *old, (last, newest) = terms
    start = y
    if old:
        start = y + broadcast_to(h, y.shape) * total(a * x for a, x in old)
    return start + broadcast_to(last * h, y.shape) * newest


def _scaled_square(h, coefficients, k, y, y1, rtol, atol):
    """mean_i (h sum_j e_j k_j / (atol + rtol max(|y|, |y1|)))² [hairer1993, II.4 (4.11)], as float64."""
    size = OPS["abs"]
    before, after = size(y), size(y1)
    scale = atol + rtol * OPS["where"](OPS["gt"](before, after), before, after)
    error = broadcast_to(h, y.shape) * total(float(e) * x for e, x in zip(coefficients, k) if e != 0)
    ratio = error / scale
    mean = OPS["sum"](ratio * ratio, axes=(0,)) * (1.0 / y.size)
    return mean if mean.dtype == "float64" else OPS["cast"](mean, dtype="float64")
