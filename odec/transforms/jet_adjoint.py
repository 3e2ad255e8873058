"""Reverse mode of Taylor coefficients, as a recurrence of its own: no order of it is larger than one of the jet.

A coefficient moves with those before it, (k + 1) dy_{k+1} = sum_j A_{k-j} dy_j + B_k dp, where A_j and B_j are the
coefficients of df/dy and df/dp along the solution [griewank2008, 13.4]. So with w_k the cotangents of y_0, ..., y_K and
u_0 = w_K / K, one order of vjp(f) after another gives, with (A^T u)_l the l-th coefficient of (df/dy)^T u,

    u_{l+1} = (w_{K-1-l} + (A^T u)_l) / (K - 1 - l),    y_bar = w_0 + (A^T u)_{K-1},    p_bar = (B^T u)_{K-1},

and t_bar as p_bar: coefficients of the adjoint model (f, (df/dy)^T u, ...), found side by side with those of y.
"""

from __future__ import annotations

from odec.graph.function import Function
from odec.graph.node import constant, current_line, input_node, is_structural_zero, set_line, structural_zero
from odec.graph.op import OPS
from odec.ops.call import result_of
from odec.ops.rearranging import along
from odec.ops.structure import concatenate, reshape, row
from odec.transforms.jvp import free_name
from odec.transforms.taylor import Series
from odec.transforms.vjp import vjp


class JetAdjoint(Function):
    """(t, y, p, cotangents of a Jet (order + 1, n)) -> bars, those of y and of what moves beside it, flat.

    model : Function (t: (), y: (2 n,), p: (m,)) -> (2 n + ...,) of y and u one after another: dy/dt, (df/dy)^T u, and
        (df/dt)^T u, (df/dp)^T u where asked for
    order : of the jet, at least 1
    names : of the inputs whose cotangents `bars` holds, in its order
    """

    def __init__(self, jet, names):
        f, others = jet.model, [name for name in names if name != "y"]
        pulled = vjp(f, list(f.inputs))
        self.names = "y", *(name for name in others if _moves(pulled.outputs[f"{name}_bar"]))
        self.model, self.order = _adjoint_model(f, pulled, self.names[1:]), jet.order
        bar = input_node(free_name("coefficients_bar", f.inputs), jet.result[0], f.inputs["y"].dtype)
        inputs = {**f.inputs, bar.params["name"]: bar}
        super().__init__(f"{jet.name}_vjp", inputs, {"bars": _unrolled(self.model, f, self.order, bar)})


def _moves(bar):
    return bar.size > 0 and not is_structural_zero(bar)


def _adjoint_model(f, pulled, names):
    """(t, y: (2 n,), p) -> dy/dt, (df/dy)^T u, and the other cotangents of `names`, one after another."""
    t, y, p = f.inputs.values()
    z = input_node("y", (2 * y.size,), y.dtype)
    point = t, along(z, 0, 0, y.size), p
    bars = pulled(*point, along(z, 0, y.size, 2 * y.size))
    (slope,) = f(*point).values()
    parts = [slope, bars["y_bar"], *(bars[f"{name}_bar"] for name in names)]
    rate = concatenate(*(_flat(part, y.dtype) for part in parts), axis=0)
    return Function(f"{f.name}_adjoint", {"t": t, "y": z, "p": p}, {"dydt": rate})


def _flat(part, dtype):
    part = part if part.dtype == dtype else OPS["cast"](part, dtype=dtype)
    return reshape(part, shape=(part.size,))


def _unrolled(model, f, order, bar):
    """The cotangents of y and of what moves beside it, flat, as a node of t, y, p and those of the coefficients."""
    (t, z, _), n, rate = model.inputs.values(), f.inputs["y"].size, result_of(model)
    weight = lambda k: row(bar, k)
    curve = {t: [t, constant(1.0, t.dtype)], z: [z]}
    series, before = Series(curve), current_line()
    for k in range(order):
        for node in model.nodes:
            series(node, k)
        part = series(rate, k)
        found = structural_zero(rate.dtype, rate.shape) if part is None else part
        slope, last = along(found, 0, 0, n), weight(order - 1 - k) + along(found, 0, n, 2 * n)
        curve[z].append(concatenate(slope * (1.0 / (k + 1)), last * (1.0 / max(order - 1 - k, 1)), axis=0))
    set_line(before)
    bars = concatenate(along(curve[z][-1], 0, n, None), along(found, 0, 2 * n, None), axis=0)
    start = concatenate(f.inputs["y"], weight(order) * (1.0 / order), axis=0)
    whole = Function(model.name, {**model.inputs, "bar": bar}, {"bars": bars})
    return whole(t, start, f.inputs["p"], bar)["bars"]
