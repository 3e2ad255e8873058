"""Taylor coefficients of a function along a curve of given coefficients, as a step leaves those of a solution."""

from __future__ import annotations

import numpy as np

from odec.graph.function import Function
from odec.graph.node import CONSTANT, INPUT, constant, input_node, structural_zero, topological
from odec.ops.call import result_of
from odec.ops.structure import concatenate, reshape, row, slice_
from odec.transforms.orders import inlined
from odec.transforms.taylor import Series, is_piecewise


def along(function, order):
    """The coefficients 0 .. order of numbers g along the curve (t + s, sum_j k_j s^j), in powers of s.

    function : Function (t: (), y: (n,), p: (m,)) -> (numbers,)

    Returns
    -------
    Function (t: (), k: (order + 1, n), p: (m,)) -> (numbers, order + 1); rows of nan for what is not smooth in t and y
    """
    function = inlined(function)
    t, y, p = function.inputs.values()
    later = [input_node(f"y_{j}", y.shape, y.dtype) for j in range(1, order + 1)]
    series = Series({t: [t, constant(1.0, t.dtype)], y: [y, *later]})
    values = result_of(function)
    rows = [_row(series, slice_(values, starts=(i,), steps=(1,), shape=(1,)), order) for i in range(values.size)]
    inputs = {node.name: node for node in (t, y, *later, p)}
    unrolled = Function("series", inputs, {"series": concatenate(*rows, axis=0)})
    given = {name: input_node(name, shape, dtype) for name, shape, dtype in (
        ("t", (), t.dtype), ("k", (order + 1, *y.shape), y.dtype), ("p", p.shape, p.dtype),
    )}  # fmt: skip
    coefficients = (row(given["k"], j) for j in range(order + 1))
    return Function("series", given, unrolled(given["t"], *coefficients, given["p"]))


def is_smooth(node, series):
    """Whether no op on the way from what moves to a node has a kink or a jump."""
    moving = (n for n in topological([node]) if n.op not in (INPUT, CONSTANT) and not series.is_constant(n))
    return not any(is_piecewise(n.op) for n in moving)


def _row(series, value, order):
    """The coefficients (1, order + 1) of a value (1,)."""
    if not is_smooth(value, series):
        return constant(np.full((1, order + 1), np.nan), value.dtype)
    nodes, found = topological([value]), []
    for k in range(order + 1):
        for node in nodes:  # so that no recursion is deeper than a rule
            series(node, k)
        part = series(value, k)
        found.append(structural_zero(value.dtype, (1, 1)) if part is None else reshape(part, shape=(1, 1)))
    return concatenate(*found, axis=1)
