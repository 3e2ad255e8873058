"""Comparisons, logic and selection."""

from __future__ import annotations

import numpy as np

from odec.graph.node import coerce, make, scalar_value, structural_zero, trace_dtype, value_of
from odec.graph.op import Op, traceable, zero
from odec.ops.families import (
    REAL,
    as_float,
    build_broadcast,
    elementwise,
    every_element,
    reach_of_elements,
    taylor_by_jvp,
)


def _comparison(name, symbol, predicate, ufunc, sympy):
    return elementwise(
        name, f"x {symbol} y", partials=zero, evaluate=ufunc, python=f"{{0}} {symbol} {{1}}",
        llvm=lambda b, x, y: b.compare(predicate, x, y), sympy=sympy, domain=(REAL, REAL), numpy=(ufunc,),
        result="bool",
    )  # fmt: skip


lt = _comparison("lt", "<", "olt", np.less, lambda sp, x, y: sp.Lt(x, y))
le = _comparison("le", "<=", "ole", np.less_equal, lambda sp, x, y: sp.Le(x, y))
gt = _comparison("gt", ">", "ogt", np.greater, lambda sp, x, y: sp.Gt(x, y))
ge = _comparison("ge", ">=", "oge", np.greater_equal, lambda sp, x, y: sp.Ge(x, y))
eq = _comparison("eq", "==", "oeq", np.equal, lambda sp, x, y: sp.Eq(x, y))
ne = _comparison("ne", "!=", "une", np.not_equal, lambda sp, x, y: sp.Ne(x, y))


def as_bool(node):
    """A float node as the truth of `node != 0`; a boolean node as it is."""
    return node if node.dtype == "bool" else ne(node, 0.0)


def _build_logical(op, *args):
    return build_broadcast(op, [as_bool(a) for a in coerce(args)])


def _logical(name, doc, python, opcode, functions, sympy, arity=2):
    return elementwise(
        name, doc, partials=zero, evaluate=functions[0], python=python,
        llvm=lambda b, *args: b.logical(opcode, *args), sympy=sympy, domain=(REAL,) * arity, numpy=functions,
        result="bool", build=_build_logical,
    )  # fmt: skip


logical_and = _logical(
    "and", "both", "{0} and {1}", "and", (np.logical_and, np.bitwise_and), lambda sp, x, y: sp.And(x, y)
)
logical_or = _logical("or", "either", "{0} or {1}", "or", (np.logical_or, np.bitwise_or), lambda sp, x, y: sp.Or(x, y))
logical_xor = _logical(
    "xor", "one but not both", "{0} != {1}", "xor", (np.logical_xor, np.bitwise_xor), lambda sp, x, y: sp.Xor(x, y)
)
logical_not = _logical(
    "not", "the opposite", "not {0}", "not", (np.logical_not, np.invert), lambda sp, x: sp.Not(x), arity=1
)


def _dtype_beside(node):
    """The dtype of the numbers that a truth value came from, or None where it came from none."""
    if node.dtype != "bool":
        return node.dtype
    return next(filter(None, map(_dtype_beside, node.inputs)), None)


def _build_to_float(op, x):
    return make(op, [as_bool(x)], dtype=_dtype_beside(x) or trace_dtype())


to_float = Op(
    "to_float", "elementwise", "1 where true, 0 where false", shape=lambda shape, dtype: shape,
    dtype=lambda _, dtype: dtype, evaluate=lambda x, dtype: np.asarray(x, dtype), scalarise=lambda x, dtype: x,
    build=_build_to_float, jvp=zero, vjp=lambda node, g: (None,),
    taylor=zero, simplify=None, python="np.{dtype}({0})",
    llvm=lambda b, x, dtype: b.cast(b.select(x, b.literal(1.0, dtype), b.literal(0.0, dtype)), dtype),
    reach=reach_of_elements, cost=every_element, lower=None,
    sympy=lambda sp, x, dtype: sp.Piecewise((1, x), (0, True)), domain=(REAL,),
)  # fmt: skip


def _build_where(op, condition, x, y):
    condition, x, y = coerce((condition, x, y))
    return build_broadcast(op, [as_bool(condition), as_float(x), as_float(y)])


def _where_jvp(node, tangents):
    condition, (_, dx, dy) = node.inputs[0], tangents
    if dx is None and dy is None:
        return None
    blank = structural_zero(node.dtype, node.shape)
    return where(condition, blank if dx is None else dx, blank if dy is None else dy)


def _where_vjp(node, g):
    blank = structural_zero(node.dtype, node.shape)
    return None, where(node.inputs[0], g, blank), where(node.inputs[0], blank, g)


def _simplify_where(inputs, params):
    condition, x, y = inputs
    known = scalar_value(condition)
    if x is y or known is not None:
        return x if x is y or known else y
    return None


def _where_reach(node, masks):
    """A condition known when tracing says which branch matters."""
    known = value_of(node.inputs[0])
    return reach_of_elements(node, masks) if known is None else np.where(known, masks[1], masks[2])


where = Op(
    "where", "elementwise", "x where the condition holds, else y", shape=lt.shape,
    dtype=lambda condition, x, y: x, evaluate=np.where, scalarise=np.where, build=_build_where, jvp=_where_jvp,
    vjp=_where_vjp, taylor=taylor_by_jvp, simplify=_simplify_where, python="({1} if {0} else {2})",
    llvm=lambda b, c, x, y: b.select(c, x, y), reach=_where_reach, cost=every_element, lower=None,
    sympy=lambda sp, c, x, y: sp.Piecewise((x, c), (y, True)), domain=(REAL, REAL, REAL), numpy=(),
)  # fmt: skip


@traceable(np.where)
def np_where(condition, x=None, y=None):
    """np.where with three arguments: with one, the shape of the result would depend on values."""
    if x is None or y is None:
        raise TypeError(
            "np.where with one argument returns as many indices as there are true values; give all three arguments"
        )
    return where(condition, x, y)


def smaller(a, b):
    """The smaller of two nodes or numbers, b where they cannot be compared."""
    return where(lt(a, b), a, b)


def larger(a, b):
    """The larger of two nodes or numbers, b where they cannot be compared."""
    return where(gt(a, b), a, b)
