"""Families of ops: from the least an author must say to a complete record.

Taylor coefficients are normalised, v_k = v^(k)/k!. For v = f(u) the elementwise family uses
k v_k = sum_{j=1..k} j u_j (df/du)_{k-j}, where df/du is itself a node [griewank2008, ch. 13].
"""

from __future__ import annotations

import functools
import operator

import numpy as np

from odec.errors import ShapeError
from odec.graph.node import Node, coerce, constant, make, structural_zero
from odec.graph.op import OPS, Op, zero
from odec.ops.recurrence import Product, Recurrence

REAL = (-3.0, 3.0)
POSITIVE = (0.2, 3.0)
NONZERO = (0.3, 3.0)


def total(terms):
    """Sum of the terms that are not None (zero); None when all are."""
    present = [t for t in terms if t is not None]
    return functools.reduce(operator.add, present) if present else None


def broadcast_to(node, shape):
    return node if node.shape == tuple(shape) else OPS["broadcast"](node, shape=tuple(shape))


# ---- what depends on what: masks are object arrays of Python ints, one bit an input element ---------------


def reach_of_elements(node, masks):
    """Each element depends on what the same elements of the inputs depend on."""
    if node.op.jvp is zero:
        return np.full(node.shape, 0, object)
    return functools.reduce(np.bitwise_or, masks)


def reach_of_all(node, masks):
    """Every element depends on everything: linear systems, determinants."""
    mask = functools.reduce(operator.or_, (bits for part in masks for bits in part.flat), 0)
    return np.full(node.shape, mask, object)


def reach_by_moving(node, masks):
    """An op that rearranges elements does the same to their masks."""
    return node.op.evaluate(*masks, **node.params)


def every_element(node):
    return node.size


def every_input(node):
    return node.inputs[0].size


def nothing(node):
    return 0


# ---- elementwise ------------------------------------------------------------------------------


def elementwise(name, doc, *, partials, evaluate, python, llvm, sympy, domain, numpy=(), simplify=None,
                taylor=None, result="float", build=None):  # fmt: skip
    """The record of an op that acts on each element by itself.

    partials : one function (*inputs, v) -> node a number or None for each argument; or `zero`
    """

    def jvp(node, tangents):
        if partials is zero:
            return None
        return total(
            _times(partial(*node.inputs, node), tangent)
            for partial, tangent in zip(partials, tangents, strict=True)
            if tangent is not None
        )

    def vjp(node, cotangent):
        if partials is zero:
            return (None,) * len(node.inputs)
        return tuple(
            None if i.dtype == "bool" else _times(partial(*node.inputs, node), cotangent)
            for partial, i in zip(partials, node.inputs, strict=True)
        )

    def dtype(*dtypes, **params):
        return "bool" if result == "bool" else next((d for d in dtypes if d != "bool"), "float64")

    return Op(
        name, "elementwise", doc, shape=_same_shape, dtype=dtype, evaluate=evaluate, scalarise=evaluate,
        build=build or build_elementwise, jvp=zero if partials is zero else jvp, vjp=vjp,
        taylor=zero if partials is zero else taylor or functools.partial(taylor_by_partials, partials),
        simplify=simplify, python=python, llvm=llvm, reach=reach_of_elements, cost=every_element, lower=None,
        sympy=sympy, domain=domain, numpy=numpy,
    )  # fmt: skip


def _times(partial, tangent):
    return None if partial is None else partial * tangent


def _same_shape(*shapes, **params):
    return shapes[0]


def build_elementwise(op, *args):
    if len(args) == 2:  # two nodes alike is by far the commonest case, and graphs have thousands
        x, y = args
        if isinstance(x, Node) and isinstance(y, Node) and x.shape == y.shape and "bool" not in (x.dtype, y.dtype):
            return make(op, args)
    nodes = [as_float(a) for a in coerce(args)]
    return build_broadcast(op, nodes)


def build_broadcast(op, nodes):
    """op(*nodes) after NumPy broadcasting of their shapes."""
    shape = nodes[0].shape
    if any(n.shape != shape for n in nodes):
        try:
            shape = np.broadcast_shapes(*(n.shape for n in nodes))
        except ValueError:
            shapes = " and ".join(str(n.shape) for n in nodes)
            raise ShapeError(f"{op.name}: shapes {shapes} cannot be broadcast together") from None
        nodes = [broadcast_to(n, shape) for n in nodes]
    return make(op, nodes)


def as_float(node):
    """A boolean node as 0 and 1; any other node as it is."""
    return OPS["to_float"](node) if node.dtype == "bool" else node


def float_nodes(*args):
    """Float nodes from nodes, numbers, arrays and nested lists; numbers take the dtype of the nodes."""
    return [as_float(a) for a in coerce(args)]


def float_node(a):
    """The float node of one argument."""
    return as_float(coerce([a])[0])


def check_real(dtype):
    """TypeError for a dtype= that asks for anything but real numbers."""
    if dtype is not None and np.dtype(dtype).kind != "f":
        raise TypeError(f"dtype={np.dtype(dtype)} cannot be traced, for values are real; leave dtype out")


def taylor_by_partials(partials, node, series):
    """v_k = sum_i sum_{j=1..k} (j/k) (u_i)_j (partial_i)_{k-j}."""
    products = []
    for partial, argument in zip(partials, node.inputs, strict=True):
        moves = argument.dtype != "bool" and not series.is_constant(argument)
        slope = partial(*node.inputs, node) if moves else None
        if slope is not None:
            if not isinstance(slope, Node):
                slope = constant(slope, node.dtype, node.shape)
            products.append(Product(argument, slope, p=1.0, q=0.0, first=1))
    return Recurrence(node, tuple(products))


# ---- linear, bilinear, piecewise linear ---------------------------------------------------------


def linear(name, doc, *, shape, evaluate, transpose, lower, sympy="a rearrangement", scalarise=None, build=None,
           numpy=(), simplify=None, domain=(REAL,), dtype=None, reach=reach_by_moving, cost=nothing):  # fmt: skip
    """The record of an op that is linear in all its inputs together.

    transpose : (node, cotangent) -> one cotangent for each input
    """

    def apply(node, parts):
        if all(p is None for p in parts):
            return None
        filled = [
            structural_zero(i.dtype, i.shape) if p is None else p for p, i in zip(parts, node.inputs, strict=True)
        ]
        return make(node.op, filled, **node.params)

    return Op(
        name, "linear", doc, shape=shape, dtype=dtype or (lambda first, *rest, **params: first), evaluate=evaluate,
        scalarise=scalarise or evaluate, build=build or _build_plain, jvp=apply, vjp=transpose,
        taylor=lambda node, series: Recurrence(node, linear=functools.partial(apply, node)), simplify=simplify,
        python=None, llvm=None, reach=reach, cost=cost, lower=lower, sympy=sympy, domain=domain, numpy=numpy,
    )  # fmt: skip


def _build_plain(op, *args, **params):
    return make(op, coerce(args), **params)


def product_rules(transposes):
    """jvp, vjp and taylor of an op that is linear in each of its two inputs."""

    def jvp(node, tangents):
        (a, b), (da, db) = node.inputs, tangents
        left = None if da is None else make(node.op, [da, b], **node.params)
        right = None if db is None else make(node.op, [a, db], **node.params)
        return total([left, right])

    def vjp(node, cotangent):
        return tuple(transpose(*node.inputs, cotangent) for transpose in transposes)

    def taylor(node, series):
        return Recurrence(node, (Product(*node.inputs, times=node.op),))

    return {"jvp": jvp, "vjp": vjp, "taylor": taylor}


def taylor_by_jvp(node, series):
    """v_k of a piecewise linear op: the linear map at u_0 applied to u_k."""

    def apply(parts):
        return node.op.jvp(node, [None if i.dtype == "bool" else u for i, u in zip(node.inputs, parts, strict=True)])

    return Recurrence(node, linear=apply)


# ---- emission of elementwise ops ----------------------------------------------------------------


def instruction(opcode):
    return lambda b, *args: b.instruction(opcode, *args)


def intrinsic(name):
    return lambda b, *args: b.intrinsic(name, *args)


def function(name):
    return lambda b, *args: b.function(name, *args)
