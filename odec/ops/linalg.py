"""Matrix products, linear systems, determinants."""

from __future__ import annotations

import functools
import operator

import numpy as np

from odec.graph.node import coerce, constant, is_structural_zero, make, structural_zero, value_of
from odec.graph.op import OPS, Op, traceable
from odec.ops.comparison import eq, gt, where
from odec.ops.families import REAL, as_float, broadcast_to, product_rules, reach_of_all, total
from odec.ops.recurrence import Product, Recurrence
from odec.ops.structure import concatenate, reshape, slice_, take, transpose


def flipped(x):
    """The last two axes exchanged."""
    axes = tuple(range(x.ndim))
    return transpose(x, axes=(*axes[:-2], axes[-1], axes[-2]))


def _build(op, *args):
    return make(op, coerce(args))


def _simplify_matmul(inputs, params):
    a, b = inputs
    shape = (*a.shape[:-1], b.shape[-1])
    return structural_zero(a.dtype, shape) if is_structural_zero(a) or is_structural_zero(b) else None


def _matmul_reach(node, masks):
    """Row i of a meets column j of b; a zero in a constant factor cuts the dependence."""
    (a, b), (known_a, known_b) = masks, map(value_of, node.inputs)
    result = np.empty(node.shape, object)
    if known_a is None and known_b is None:
        rows = np.bitwise_or.reduce(a, axis=-1)[..., :, None]
        result[...] = np.bitwise_or(rows, np.bitwise_or.reduce(b, axis=-2)[..., None, :])
        return result
    for index in np.ndindex(*node.shape):
        *lead, i, j = index
        row, column = (*lead, i), (*lead, slice(None), j)
        keep = np.ones(a.shape[-1], bool)
        for known, part in ((known_a, row), (known_b, column)):
            if known is not None:
                keep &= known[part] != 0
        result[index] = functools.reduce(operator.or_, (*a[row][keep], *b[column][keep]), 0)
    return result


matmul = Op(
    "matmul", "bilinear", "matrix product over the last two axes, earlier axes alike",
    shape=lambda a, b: (*a[:-1], b[-1]), dtype=lambda a, b: a, evaluate=np.matmul, scalarise=np.matmul, build=_build,
    **product_rules((lambda a, b, g: matmul(g, flipped(b)), lambda a, b, g: matmul(flipped(a), g))),
    simplify=_simplify_matmul, python=None, llvm=None, reach=_matmul_reach,
    cost=lambda node: 2 * node.size * node.inputs[0].shape[-1], lower=lambda lowering, node: lowering.matmul(node),
    sympy="sums of products", domain=(REAL, REAL),
)  # fmt: skip


# ---- linear systems ----------------------------------------------------------------------------------


def _elimination_cost(node):
    n = node.inputs[0].shape[-1]
    return n**3 + 2 * n * n * (node.shape[-1] if node.shape else 1)


def _scalar(x, *place):
    return reshape(slice_(x, starts=place, steps=(1,) * len(place), shape=(1,) * len(place)), shape=())


def eliminate(a, b):
    """Gaussian elimination with partial pivoting on rows of scalar nodes, in place; pivots are
    chosen by selection, so the code is straight-line. Returns the sign of the permutation as a node."""
    n, sign = len(a), constant(1.0, a[0][0].dtype)
    for k in range(n):
        for r in range(k + 1, n):
            larger = gt(OPS["abs"](a[r][k]), OPS["abs"](a[k][k]))
            for row in (a, b):
                for c in range(len(row[k])):
                    if row is b or c >= k:
                        row[k][c], row[r][c] = where(larger, row[r][c], row[k][c]), where(larger, row[k][c], row[r][c])
            sign = where(larger, -1.0 * sign, sign)
        for r in range(k + 1, n):
            # A pivot of zero heads a column of zeros: nothing is left to eliminate there.
            factor = where(eq(a[k][k], 0.0), 0.0, a[r][k] / a[k][k])
            for c in range(k + 1, n):
                a[r][c] = a[r][c] - factor * a[k][c]
            for c in range(len(b[r])):
                b[r][c] = b[r][c] - factor * b[k][c]
    return sign


def _scalarise_solve(a, b):
    a, x = a.tolist(), b.tolist()
    eliminate(a, x)
    n = len(a)
    for c in range(len(x[0])):
        for r in reversed(range(n)):
            rest = x[r][c]
            for j in range(r + 1, n):
                rest = rest - a[r][j] * x[j][c]
            x[r][c] = rest / a[r][r]
    return _object_array(x, b.shape)


def _object_array(values, shape):
    result = np.empty(shape, object)
    for place in np.ndindex(*shape):
        item = values
        for i in place:
            item = item[i]
        result[place] = item
    return result


def _solve_jvp(node, tangents):
    (a, _), (da, db) = node.inputs, tangents
    moved = None if da is None else -matmul(da, node)
    right = total([db, moved])
    return None if right is None else solve(a, right)


def _solve_vjp(node, g):
    w = solve(flipped(node.inputs[0]), g)
    return -matmul(w, flipped(node)), w


def _solve_taylor(node, series):
    """A x = b: A_0 x_k = b_k - sum_{j=1..k} A_j x_{k-j}."""
    a, _ = node.inputs
    product = Product(a, node, q=-1.0, first=1, times=matmul)
    return Recurrence(node, (product,), lambda parts: parts[1], lambda right: solve(a, right))


def _np_solve(a, b):
    try:
        return np.linalg.solve(a, b)
    except np.linalg.LinAlgError:
        return np.full(b.shape, np.nan)


solve = Op(
    "solve", "bilinear", "x with a x = b, for a matrix b", shape=lambda a, b: b, dtype=lambda a, b: a,
    evaluate=_np_solve, scalarise=_scalarise_solve, build=_build, jvp=_solve_jvp, vjp=_solve_vjp,
    taylor=_solve_taylor, simplify=None, python=None, llvm=None, reach=reach_of_all,
    cost=_elimination_cost, lower=lambda lowering, node: lowering.solve(node),
    sympy="found by elimination", domain=(REAL, REAL),
)  # fmt: skip


def identity(node):
    return constant(np.eye(node.shape[-1]), node.dtype)


def _det_slope(a, v):
    """d det / dA: the cofactors, which singular matrices have too; above 3 x 3, det(A) A^-T."""
    if a.shape[-1] <= 3:
        return _cofactors(a)
    return flipped(solve(a, identity(a))) * OPS["broadcast"](v, shape=a.shape)


def _cofactors(a):
    """The cofactor matrix of a 1 x 1, 2 x 2 or 3 x 3 matrix; indices run cyclically."""
    n = a.shape[-1]
    i, j = np.indices((n, n))
    at = lambda di, dj: take(a, index=(i + di) % n * n + (j + dj) % n)
    if n == 1:
        return constant(1.0, a.dtype, a.shape)
    if n == 2:
        return at(1, 1) * constant(np.array([[1.0, -1.0], [-1.0, 1.0]]), a.dtype)
    return at(1, 1) * at(2, 2) - at(1, 2) * at(2, 1)


def _scalarise_det(a):
    """By cofactors up to 3 x 3, where singular matrices shall have derivatives; by elimination above."""
    if len(a) <= 3:
        return np.asarray(_expanded(a), object)
    a = a.tolist()
    result = eliminate(a, [[] for _ in a])
    for k in range(len(a)):
        result = result * a[k][k]
    return np.asarray(result, object)


def _expanded(a):
    """The determinant of a small matrix by its first row."""
    if len(a) == 1:
        return a[0, 0]
    if len(a) == 2:
        return a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0]
    minors = [_expanded(np.delete(a[1:], k, axis=1)) for k in range(3)]
    return a[0, 0] * minors[0] - a[0, 1] * minors[1] + a[0, 2] * minors[2]


def _det_taylor(node, series):
    """k v_k = sum_j j <A_j, (d det / dA)_{k-j}>."""
    (a,) = node.inputs
    dot = lambda change, slope: OPS["sum"](change * slope, axes=(0, 1))
    return Recurrence(node, (Product(a, _det_slope(a, node), p=1.0, q=0.0, first=1, times=dot),))


det = Op(
    "det", "nonlinear", "determinant", shape=lambda a: (), dtype=lambda a: a, evaluate=np.linalg.det,
    scalarise=_scalarise_det, build=_build,
    jvp=lambda node, t: OPS["sum"](_det_slope(node.inputs[0], node) * t[0], axes=(0, 1)),
    vjp=lambda node, g: (_det_slope(node.inputs[0], node) * OPS["broadcast"](g, shape=node.inputs[0].shape),),
    taylor=_det_taylor, simplify=None, python=None, llvm=None, reach=reach_of_all,
    cost=_elimination_cost, lower=lambda lowering, node: lowering.det(node),
    sympy="found by elimination", domain=(REAL,),
)  # fmt: skip


# ---- NumPy's products ------------------------------------------------------------------------------------


@traceable(np.matmul)
def np_matmul(a, b):
    """a @ b with NumPy's promotion of vectors and broadcasting of leading axes."""
    a, b = (as_float(n) for n in coerce([a, b]))
    if not a.ndim or not b.ndim:
        raise ValueError("matmul: a scalar operand; use * instead")
    left, right = a.ndim == 1, b.ndim == 1
    a = reshape(a, shape=(1, *a.shape)) if left else a
    b = reshape(b, shape=(*b.shape, 1)) if right else b
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: inner lengths differ, {a.shape[-1]} and {b.shape[-2]}")
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    product = matmul(broadcast_to(a, lead + a.shape[-2:]), broadcast_to(b, lead + b.shape[-2:]))
    shape = product.shape[:-2] + product.shape[-2:-1] * (not left) + product.shape[-1:] * (not right)
    return reshape(product, shape=shape)


# ---- NumPy's linear algebra --------------------------------------------------------------------------------


def _square(a, name):
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ValueError(f"{name} takes square matrices, not an array of shape {a.shape}")


def _each(function, lead, *arrays):
    """`function` of each matrix of stacks with leading axes `lead`, stacked again."""
    count = int(np.prod(lead, dtype=int))
    stacks = [reshape(a, shape=(count, *a.shape[len(lead) :])) for a in arrays]
    pick = lambda a, k: reshape(
        slice_(a, starts=(k, *(0,) * (a.ndim - 1)), steps=(1,) * a.ndim, shape=(1, *a.shape[1:])), shape=a.shape[1:]
    )
    results = [function(*(pick(a, k) for a in stacks)) for k in range(count)]
    rows = concatenate(*(reshape(r, shape=(1, *r.shape)) for r in results), axis=0)
    return reshape(rows, shape=(*lead, *results[0].shape))


@traceable(np.linalg.solve)
def np_solve(a, b):
    """x with a x = b, b a vector or (with more axes) matrices, as NumPy 2 tells them apart."""
    a, b = (as_float(n) for n in coerce([a, b]))
    _square(a, "np.linalg.solve")
    vector = b.ndim == 1
    b = reshape(b, shape=(*b.shape, 1)) if vector else b
    if not b.ndim or b.shape[-2] != a.shape[-1]:
        raise ValueError(f"np.linalg.solve: a matrix of shape {a.shape} does not fit a right side of shape {b.shape}")
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = broadcast_to(a, lead + a.shape[-2:]), broadcast_to(b, lead + b.shape[-2:])
    x = _each(solve, lead, a, b) if lead else solve(a, b)
    return reshape(x, shape=x.shape[:-1]) if vector else x


@traceable(np.linalg.inv)
def inv(a):
    a = as_float(coerce([a])[0])
    _square(a, "np.linalg.inv")
    return np_solve(a, identity(a))


@traceable(np.linalg.det)
def np_det(a):
    a = as_float(coerce([a])[0])
    _square(a, "np.linalg.det")
    lead = a.shape[:-2]
    return _each(det, lead, a) if lead else det(a)
