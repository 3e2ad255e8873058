"""Tables as functions of a traced number: np.interp."""

from __future__ import annotations

import numpy as np

from odec.graph.node import Node, coerce, make, value_of
from odec.graph.op import Op, traceable, zero
from odec.ops.comparison import eq, ge, gt, logical_and, lt, where
from odec.ops.families import REAL, broadcast_to, every_element, float_node, reach_of_elements
from odec.ops.rearranging import along, diff
from odec.ops.reduction import sum_
from odec.ops.structure import reshape

# ---- the op: constant pieces ---------------------------------------------------------------------


def _evaluate_pieces(x, edges, values):
    return np.asarray(values, x.dtype)[np.searchsorted(np.asarray(edges, x.dtype), x, "right")]


def _sympy_pieces(sp, x, edges, values):
    steps = [(v, x < e) for v, e in zip(values, edges, strict=False)]
    return sp.Piecewise(*steps, (values[-1], True))


pieces = Op(
    "pieces", "elementwise", "values[number of edges <= x]: constant between edges",
    shape=lambda shape, edges, values: shape, dtype=lambda dtype, edges, values: dtype, evaluate=_evaluate_pieces,
    scalarise=_evaluate_pieces, build=lambda op, x, edges, values: make(op, [x], edges=edges, values=values),
    jvp=zero, vjp=lambda node, g: (None,), taylor=zero,
    simplify=None, python="np.take({values}, np.searchsorted({edges}, {0}, 'right'))",
    llvm=lambda b, x, edges, values: b.pieces(x, edges, values),
    reach=reach_of_elements, cost=every_element, lower=None, sympy=_sympy_pieces, domain=(REAL,),
)  # fmt: skip


# ---- np.interp ------------------------------------------------------------------------------------------


@traceable(np.interp)
def interp(x, xp, fp, left=None, right=None, period=None):
    """The straight lines through (xp, fp) at x; its derivative is the slope of the segment."""
    if period is not None:
        raise TypeError(
            "np.interp with period= cannot be traced; use np.interp(x % period, xp, fp) with the ends repeated"
        )
    x, xp = float_node(x), _table(xp, "xp")
    fp = float_node(fp)
    if fp.shape != xp.shape:
        raise ValueError(f"np.interp needs as many fp as xp, not shapes {fp.shape} and {xp.shape}")
    if not xp.size or np.any(np.diff(xp) <= 0):
        raise ValueError("np.interp needs xp with elements that increase; sort the table first")
    left = reshape(along(fp, 0, 0, 1), shape=()) if left is None else left
    right = reshape(along(fp, 0, -1, None), shape=()) if right is None else right
    known = value_of(fp)
    if xp.size == 1:
        inside = broadcast_to(reshape(fp, shape=()), x.shape)
    elif known is not None and np.all(np.isfinite(known)):
        inside = _by_search(x, xp, np.asarray(known, float))
    else:
        inside = _by_sum(x, xp, fp)
    return where(lt(x, xp[0]), left, where(gt(x, xp[-1]), right, inside))


def _table(xp, name):
    xp = value_of(coerce([xp])[0]) if isinstance(xp, Node) else np.asarray(xp)
    if xp is None or xp.dtype.kind not in "biuf" or xp.ndim != 1 or not np.all(np.isfinite(xp)):
        raise TypeError(f"{name} of np.interp is a vector of finite numbers known when tracing; close over an array")
    return np.asarray(xp, float)


def _by_search(x, xp, fp):
    """f_j + s_j (x - x_j) with the three looked up; the last piece is the last point, as NumPy has it."""
    edges, slopes = tuple(xp[1:].tolist()), (*(np.diff(fp) / np.diff(xp)).tolist(), 0.0)
    start, value, slope = (pieces(x, edges=edges, values=v) for v in (tuple(xp.tolist()), tuple(fp.tolist()), slopes))
    return value + slope * (x - start)


def _by_sum(x, xp, fp):
    """The same for traced fp: the segment that holds x is picked out of all of them."""
    x_ = reshape(x, shape=(*x.shape, 1))
    start, stop, gap = xp[:-1], xp[1:], np.diff(xp)
    holds = logical_and(ge(x_, start), lt(x_, stop))
    line = along(fp, 0, None, -1) + diff(fp) / gap * (x_ - start)
    inside = where(eq(x, x), sum_(where(holds, line, 0.0), axes=(x.ndim,)), x)  # nan stays nan
    return where(ge(x, xp[-1]), reshape(along(fp, 0, -1, None), shape=()), inside)
