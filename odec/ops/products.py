"""NumPy's products of vectors, matrices and tensors, from matrix products and sums."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from odec.graph.node import coerce, structural_zero
from odec.graph.op import OPS, traceable
from odec.ops.families import broadcast_to, float_node, float_nodes
from odec.ops.linalg import matmul, np_matmul
from odec.ops.rearranging import along, diagonal
from odec.ops.reduction import checked_axis, sum_
from odec.ops.shaping import np_concatenate, np_stack, sizes
from odec.ops.structure import reshape, transpose

# ---- vectors and matrices ------------------------------------------------------------------------


@traceable(np.dot)
def dot(a, b, out=None):
    """Over the last axis of a and the last but one of b; the product where either is a number."""
    if out is not None:
        raise TypeError("out= cannot be traced here; assign the result instead")
    a, b = float_nodes(a, b)
    if not a.ndim or not b.ndim:
        return OPS["mul"](a, b)
    if a.ndim <= 2 and b.ndim <= 2:
        return np_matmul(a, b)
    return tensordot(a, b, (a.ndim - 1, max(b.ndim - 2, 0)))


@traceable(np.vdot)
def vdot(a, b):
    a, b = float_nodes(a, b)
    if a.size != b.size:
        raise ValueError(f"np.vdot needs as many elements on both sides, not {a.size} and {b.size}")
    return np_matmul(reshape(a, shape=(a.size,)), reshape(b, shape=(b.size,)))


@traceable(np.inner)
def inner(a, b):
    a, b = float_nodes(a, b)
    return tensordot(a, b, (a.ndim - 1, b.ndim - 1)) if a.ndim and b.ndim else OPS["mul"](a, b)


@traceable(np.outer, np.linalg.outer)
def outer(a, b, out=None):
    if out is not None:
        raise TypeError("out= cannot be traced here; assign the result instead")
    a, b = float_nodes(a, b)
    return OPS["mul"](reshape(a, shape=(a.size, 1)), reshape(b, shape=(1, b.size)))


@traceable(np.multiply.outer)
def multiply_outer(a, b):
    a, b = float_nodes(a, b)
    return OPS["mul"](reshape(a, shape=a.shape + (1,) * b.ndim), b)


@traceable(np.trace)
def trace(a, offset=0, axis1=0, axis2=1, dtype=None, out=None):
    if out is not None:
        raise TypeError("out= cannot be traced here; assign the result instead")
    found = diagonal(float_node(a), offset, axis1, axis2)
    return sum_(found, axes=(found.ndim - 1,))


@traceable(np.kron)
def kron(a, b):
    a, b = float_nodes(a, b)
    ndim = max(a.ndim, b.ndim)
    a, b = (reshape(n, shape=(1,) * (ndim - n.ndim) + n.shape) for n in (a, b))
    apart = OPS["mul"](
        reshape(a, shape=tuple(n for extent in a.shape for n in (extent, 1))),
        reshape(b, shape=tuple(n for extent in b.shape for n in (1, extent))),
    )
    return reshape(apart, shape=tuple(m * n for m, n in zip(a.shape, b.shape, strict=True)))


@traceable(np.cross)
def cross(a, b, axisa=-1, axisb=-1, axisc=-1, axis=None):
    axisa, axisb, axisc = (axisa, axisb, axisc) if axis is None else (axis,) * 3
    a, b = float_nodes(a, b)
    if not a.ndim or not b.ndim:
        raise ValueError("np.cross takes vectors, not numbers")
    (a1, a2, a3), (b1, b2, b3) = (_components(v, axis_) for v, axis_ in ((a, axisa), (b, axisb)))
    product = np_stack([a2 * b3 - a3 * b2, a3 * b1 - a1 * b3, a1 * b2 - a2 * b1], -1)
    axisc = checked_axis(axisc, product.ndim)
    order = list(range(product.ndim - 1))
    order.insert(axisc, product.ndim - 1)
    return transpose(product, axes=tuple(order))


def _components(v, axis):
    axis = checked_axis(axis, v.ndim)
    if v.shape[axis] != 3:
        raise ValueError(
            f"np.cross takes vectors of 3 components, not {v.shape[axis]}; write x1 * y2 - x2 * y1 in the plane"
        )
    rest = (*v.shape[:axis], *v.shape[axis + 1 :])
    return [reshape(along(v, axis, k, k + 1), shape=rest) for k in range(3)]


# ---- tensors -----------------------------------------------------------------------------------------


@traceable(np.tensordot)
def tensordot(a, b, axes: Any = 2):
    a, b = float_nodes(a, b)
    if isinstance(axes, (tuple, list)):
        over_a, over_b = (sizes(s) for s in axes)
    else:
        count = operator.index(axes)
        over_a, over_b = tuple(range(a.ndim - count, a.ndim)), tuple(range(count))
    over_a, over_b = ([checked_axis(d, n.ndim) for d in over] for over, n in ((over_a, a), (over_b, b)))
    if [a.shape[d] for d in over_a] != [b.shape[d] for d in over_b]:
        raise ValueError("shape-mismatch for sum: the axes of np.tensordot differ in length")
    free_a, free_b = ([d for d in range(n.ndim) if d not in over] for over, n in ((over_a, a), (over_b, b)))
    inside = int(np.prod([a.shape[d] for d in over_a], dtype=int))
    left = reshape(transpose(a, axes=(*free_a, *over_a)), shape=(a.size // max(inside, 1), inside))
    right = reshape(transpose(b, axes=(*over_b, *free_b)), shape=(inside, b.size // max(inside, 1)))
    return reshape(matmul(left, right), shape=(*(a.shape[d] for d in free_a), *(b.shape[d] for d in free_b)))


@traceable(np.einsum)
def einsum(subscripts, *operands, out=None, optimize=False):
    """Pairs of operands from left to right, each as one batched matrix product."""
    if out is not None or not isinstance(subscripts, str):
        raise TypeError("np.einsum is traced with a subscripts string first and without out=")
    nodes = float_nodes(*operands)
    terms, result = _subscripts(subscripts, nodes)
    done, labels = _diagonals(nodes[0], terms[0])
    for k in range(1, len(nodes)):
        other, other_labels = _diagonals(nodes[k], terms[k])
        needed = set(result).union(*terms[k + 1 :])
        done, labels = _contracted(done, labels, other, other_labels, needed)
    done, labels = _summed(done, labels, set(result))
    return transpose(done, axes=tuple(labels.index(c) for c in result))


def _subscripts(text, nodes):
    """One list of labels an operand, and the labels of the result; '...' becomes numbers from the right."""
    left, arrow, right = text.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(nodes):
        raise ValueError(f"np.einsum: {len(terms)} terms in {text!r}, but {len(nodes)} operands")
    spelled = [_labels(term, node.ndim) for term, node in zip(terms, nodes, strict=True)]
    widest = sorted({c for s in spelled for c in s if not isinstance(c, str)}, reverse=True)
    if arrow:
        result = [c for part in _around_dots(right) for c in (widest if part == "..." else part)]
    else:
        counts = [c for s in spelled for c in s if isinstance(c, str)]
        result = widest + sorted(c for c in set(counts) if counts.count(c) == 1)
    if len(set(result)) < len(result) or not set(result) <= {c for s in spelled for c in s}:
        raise ValueError(f"np.einsum: the result in {text!r} repeats a label or names one that no operand has")
    for node, s in zip(nodes, spelled, strict=True):
        if len(s) != node.ndim:
            raise ValueError(f"np.einsum: {text!r} names {len(s)} axes of an operand that has {node.ndim}")
    return spelled, result


def _around_dots(term):
    before, dots, after = term.partition("...")
    return [before, "...", after] if dots else [term]


def _labels(term, ndim):
    spare = ndim - len(term.replace("...", ""))
    return [c for part in _around_dots(term) for c in (range(spare - 1, -1, -1) if part == "..." else part)]


def _diagonals(node, labels):
    """The operand with each label once: a repeated one takes the diagonal."""
    labels = list(labels)
    for c in list(labels):
        while labels.count(c) > 1:
            first = labels.index(c)
            second = labels.index(c, first + 1)
            if node.shape[first] != node.shape[second]:
                raise ValueError(f"np.einsum: label {c!r} stands for axes of different lengths")
            node = diagonal(node, 0, first, second)
            labels = [*labels[:first], *labels[first + 1 : second], *labels[second + 1 :], c]
    return node, labels


def _summed(node, labels, needed):
    axes = tuple(d for d, c in enumerate(labels) if c not in needed)
    return (sum_(node, axes=axes) if axes else node), [c for c in labels if c in needed]


def _contracted(a, a_labels, b, b_labels, needed):
    """Both operands multiplied, and summed over the labels that are not needed any more."""
    a, a_labels = _summed(a, a_labels, needed.union(b_labels))
    b, b_labels = _summed(b, b_labels, needed.union(a_labels))
    shared = [c for c in a_labels if c in b_labels]
    extents = dict(zip(a_labels, a.shape, strict=True))
    for c, n in zip(b_labels, b.shape, strict=True):
        if c in extents and n != extents[c] and 1 not in (n, extents[c]):
            raise ValueError(f"np.einsum: label {c!r} stands for lengths {extents[c]} and {n}")
        extents[c] = max(n, extents.get(c, n))
    a, b = (
        broadcast_to(n, tuple(extents[c] if c in shared else e for c, e in zip(labels, n.shape, strict=True)))
        for n, labels in ((a, a_labels), (b, b_labels))
    )
    batch, inside = [c for c in shared if c in needed], [c for c in shared if c not in needed]
    free_a, free_b = [c for c in a_labels if c not in shared], [c for c in b_labels if c not in shared]
    size = lambda labels: int(np.prod([extents[c] for c in labels], dtype=int))
    lead = tuple(extents[c] for c in batch)
    left = reshape(_ordered(a, a_labels, batch + free_a + inside), shape=(*lead, size(free_a), size(inside)))
    right = reshape(_ordered(b, b_labels, batch + inside + free_b), shape=(*lead, size(inside), size(free_b)))
    product = matmul(left, right) if inside else OPS["mul"](left, right)
    labels = batch + free_a + free_b
    return reshape(product, shape=tuple(extents[c] for c in labels)), labels


def _ordered(node, labels, order):
    return transpose(node, axes=tuple(labels.index(c) for c in order))


# ---- convolution and polynomials ---------------------------------------------------------------------------


@traceable(np.convolve)
def convolve(a, v, mode="full"):
    """sum_j v_j a_{k-j}, by one shifted copy of the longer array for each element of the shorter."""
    a, v = float_nodes(a, v)
    if a.ndim != 1 or v.ndim != 1 or not a.size or not v.size:
        raise ValueError("np.convolve takes two vectors with elements")
    a, v = (a, v) if a.size >= v.size else (v, a)
    n, m = a.size, v.size
    first, length = {"full": (0, n + m - 1), "same": ((m - 1) // 2, n), "valid": (m - 1, n - m + 1)}.get(mode, (0, 0))
    if not length:
        raise ValueError(f"mode={mode!r} of np.convolve is not known; use 'full', 'same' or 'valid'")
    blank = coerce([np.zeros(m - 1)], a.dtype)[0]
    padded = np_concatenate([blank, a, blank]) if m > 1 else a
    total = None
    for j in range(m):
        start = m - 1 + first - j
        term = OPS["mul"](along(v, 0, j, j + 1), along(padded, 0, start, start + length))
        total = term if total is None else total + term
    return total


@traceable(np.polyval)
def polyval(p, x):
    """p_0 x^(n-1) + ... + p_(n-1), by Horner's rule."""
    p, x = float_nodes(p, x)
    total = structural_zero(x.dtype, x.shape)
    for k in range(p.shape[0]):
        total = total * x + reshape(along(p, 0, k, k + 1), shape=())
    return total
