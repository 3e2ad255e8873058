"""Calls of every NumPy function that odec traces: (function, arrays, call on them)."""

import numpy as np

import odec.special
from odec.graph.op import TRACEABLE

CALLS = []


def add(function, call, *arrays):
    CALLS.append((function, call, arrays))


def grid(*shape, low=0.3, high=2.0, seed=0):
    """Distinct numbers without order, so that neither two elements nor two sums of them tie."""
    count = int(np.prod(shape, dtype=int))
    order = np.random.default_rng(seed + count).permutation(count)
    place = (order + 0.5 + 0.2 * np.sin(7.0 * order)) / max(count, 1)
    return (low + (high - low) * place).reshape(shape)


def signed(*shape, seed=1):
    return grid(*shape, low=-2.2, high=1.7, seed=seed)


v3, v4, v5, v7 = (signed(n) for n in (3, 4, 5, 7))
m23, m32, m33, m34 = signed(2, 3), signed(3, 2), signed(3, 3), signed(3, 4)
t234 = signed(2, 3, 4)
one, two = np.float64(0.7), np.float64(-1.3)

# ---- elementwise: every ufunc, on an array and with broadcasting ------------------------------------

UNARY_DOMAINS = {
    np.sqrt: (0.2, 3), np.cbrt: (0.2, 3), np.log: (0.2, 3), np.log2: (0.2, 3), np.log10: (0.2, 3), np.log1p: (0.2, 3),
    np.reciprocal: (0.3, 2), np.arcsin: (-0.9, 0.9), np.arccos: (-0.9, 0.9), np.arctanh: (-0.9, 0.9),
    np.arccosh: (1.2, 3), np.tan: (-1.2, 1.2),
}  # fmt: skip
for function in [f for f in TRACEABLE if isinstance(f, np.ufunc) and f.nin == 1]:
    if function in (np.invert, np.logical_not, np.rint, np.trunc):
        continue
    low, high = UNARY_DOMAINS.get(function, (-2.03, 1.97))
    add(function, function, grid(2, 3, low=low, high=high))
    add(function, function, np.float64((low + high) / 2 + 0.11))
for function in [f for f in TRACEABLE if isinstance(f, np.ufunc) and f.nin == 2 and f.nout == 1]:
    if function in (np.matmul, np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.heaviside):
        continue
    add(function, function, grid(2, 3), grid(3, low=0.35, high=2.2, seed=5))
    add(function, lambda x, f=function: f(x, 1.7), grid(2, 2))
    add(function, lambda x, f=function: f(0.9, x), grid(2, 2))
for function in (np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.logical_and, np.logical_xor, np.add, np.multiply):
    add(function, lambda x, y, f=function: f(x > 0, y > 0), m23, v3)
for function in (np.invert, np.logical_not):
    add(function, lambda x, f=function: f(x > 0), m23)
add(np.divmod, np.divmod, signed(2, 3), np.float64(0.77))
add(np.heaviside, lambda x: np.heaviside(x, 0.5), m23)
add(np.heaviside, lambda x: np.heaviside(np.array([-1.0, 0.0, 2.0]), x), v3)
add(np.power, lambda x: x**2, v3)
add(np.power, lambda x: x**3, v3)
add(np.power, lambda x: x**-3, v3)
add(np.power, lambda x: x**2.5, grid(3))
add(np.power, lambda x: x**0.5 + x**0 + x**1 + x**-1, grid(3))
add(np.power, lambda x: 2.0**x, v3)
add(np.power, lambda x, y: x**y, grid(2, 3), v3)
add(np.remainder, lambda x, y: x % y, v5, np.float64(-0.83))
add(np.floor_divide, lambda x, y: x // y, v5, np.float64(-0.83))
add(np.copysign, np.copysign, m23, v3)
add(np.clip, lambda x: np.clip(x, -0.5, 0.7), m23)
add(np.clip, lambda x, lo: np.clip(x, lo, None), m23, v3)
add(np.clip, lambda x: x.clip(max=0.5), m23)
add(np.clip, lambda x: np.clip(x, min=-0.5), m23)
add(np.sinc, np.sinc, np.array([-1.2, -0.4, 1e-3, 0.3, 2.7]))
add(np.sinc, np.sinc, np.float64(0.4))
add(np.where, lambda x: np.where(x > 0, x, x * x), m23)
add(np.where, lambda x, y: np.where(x > y, 1.0, y), m23, v3)
add(np.isfinite, np.isfinite, m23)
add(np.isnan, np.isnan, m23)
add(np.isinf, np.isinf, m23)

# ---- making ---------------------------------------------------------------------------------------------

for function in (np.array, np.asarray, np.asanyarray, np.ascontiguousarray):
    add(function, lambda x, f=function: f([x[0], 2.0 * x[1], x[2]]) * x, v3)
add(np.array, lambda x: np.array([[x[0], 1.0], [x[1], x[2]]]) @ np.array([x[2], 2.0]), v3)
add(np.array, lambda x: np.sin(np.array([x[0], x[1]])), v3)
add(np.array, lambda x: np.array([x[0:2], x[1:3]]) + x[:2], v3)
add(np.copy, np.copy, m23)
add(np.copy, lambda x: x.copy() * 2, m23)
add(np.zeros_like, lambda x: np.zeros_like(x) + x, m23)
add(np.zeros_like, lambda x: np.zeros_like(x, dtype=float, shape=(4,)) + x[0, 0], m23)
add(np.ones_like, lambda x: np.ones_like(x) * x, m23)
add(np.full_like, lambda x: np.full_like(x, 3.0) + x, m23)
add(np.full_like, lambda x: np.full_like(x, x[0], shape=(2, 2)), v3)


def _filled(x):
    out = np.empty_like(x)
    out[:] = 2 * x
    return out


add(np.empty_like, _filled, m23)

add(np.shape, lambda x: x * np.shape(x)[1] + np.shape([x, x])[0], m23)
add(np.ndim, lambda x: x * np.ndim(x), m23)
add(np.size, lambda x: x * np.size(x) + np.size(x, 1) + np.size(x[0, 0]), m23)

# ---- the same elements in another shape ---------------------------------------------------------------

for shape in ((3, 2), (-1,), 6, (1, -1), [2, 3, 1]):
    add(np.reshape, lambda x, s=shape: np.reshape(x, s), m23)
    add(np.reshape, lambda x, s=shape: x.reshape(s), m23)
add(np.reshape, lambda x: x.reshape(3, -1), m23)
add(np.reshape, lambda x: np.reshape(x, (3, 2), order="F"), m23)
add(np.ravel, np.ravel, m23)
add(np.ravel, lambda x: x.ravel() + x.flatten(), m23)
add(np.ravel, lambda x: x.T.ravel(), m23)
add(np.ravel, lambda x: x.ravel("F") + x.flatten("F"), m23)
add(np.transpose, np.transpose, t234)
add(np.transpose, lambda x: np.transpose(x, (2, 0, -2)), t234)
add(np.transpose, lambda x: x.transpose(1, 0, 2) + x.transpose((1, 0, 2)), t234)
add(np.transpose, lambda x: x.T, t234)
add(np.transpose, lambda x: x.transpose(), v3)
add(np.swapaxes, lambda x: np.swapaxes(x, 0, -1) + x.swapaxes(-1, 0), t234)
add(np.moveaxis, lambda x: np.moveaxis(x, 0, -1), t234)
add(np.moveaxis, lambda x: np.moveaxis(x, [0, 1], [-1, -2]), t234)
add(np.expand_dims, lambda x: np.expand_dims(x, 1), m23)
add(np.expand_dims, lambda x: np.expand_dims(x, (0, -1)), m23)
add(np.squeeze, lambda x: np.squeeze(x), signed(1, 3, 1))
add(np.squeeze, lambda x: x.squeeze(-1), signed(1, 3, 1))
for function in (np.atleast_1d, np.atleast_2d, np.atleast_3d):
    add(function, function, one)
    add(function, function, v3)
    add(function, function, m23)
    add(function, function, one, m23)
add(np.broadcast_to, lambda x: np.broadcast_to(x, (2, 4, 3)), signed(4, 1))
add(np.broadcast_to, lambda x: np.broadcast_to(x, (3,)), one)

# ---- joining and splitting --------------------------------------------------------------------------------

add(np.concatenate, lambda x, y: np.concatenate([x, y, x]), v3, v4)
add(np.concatenate, lambda x, y: np.concatenate((x, y), axis=-1), m23, signed(2, 2))
add(np.concatenate, lambda x, y: np.concatenate((x, y), axis=None), m23, v3)
add(np.concatenate, lambda x: np.concatenate([[0.0], x, [1.0]]), v3)
add(np.concatenate, lambda x: np.concatenate([x[:0], x]), v3)
for axis in (0, 1, -1):
    add(np.stack, lambda x, y, a=axis: np.stack([x, y], axis=a), m23, signed(2, 3, seed=8))
add(np.stack, lambda x, y: np.stack([x, y, 1.0]), one, two)
add(np.vstack, lambda x, y: np.vstack([x, y]), m23, v3)
add(np.hstack, lambda x, y: np.hstack([x, y, 2.0]), v3, v4)
add(np.hstack, lambda x, y: np.hstack((x, y)), m23, signed(2, 2))
add(np.dstack, lambda x, y: np.dstack((x, y)), m23, signed(2, 3, seed=8))
add(np.column_stack, lambda x, y: np.column_stack([x, y]), v3, m32)
add(np.append, lambda x, y: np.append(x, y), v3, m23)
add(np.append, lambda x: np.append(x, 1.0), v3)
add(np.split, lambda x: tuple(np.split(x, 2)), v4)
add(np.split, lambda x: tuple(np.split(x, [1, 3])), v5)
add(np.split, lambda x: tuple(np.split(x, 3, axis=1)), m23)
add(np.array_split, lambda x: tuple(np.array_split(x, 3)), v7)
add(np.array_split, lambda x: tuple(np.array_split(x, [2, -1], axis=-1)), t234)

# ---- rearranging -------------------------------------------------------------------------------------------

add(np.take, lambda x: np.take(x, [2, 0, 0]), v4)
add(np.take, lambda x: x.take([[1, -1], [0, 2]], axis=1), m23)
add(np.take, lambda x: np.take(x, 1, axis=0), m23)
add(np.take, lambda x: np.take(x, [5, -9], mode="clip"), v4)
add(np.roll, lambda x: np.roll(x, 2), v5)
add(np.roll, lambda x: np.roll(x, -1), m23)
add(np.roll, lambda x: np.roll(x, 1, axis=-1), m34)
add(np.roll, lambda x: np.roll(x, (1, -2), axis=(0, 1)), m34)
add(np.roll, lambda x: np.roll(x, 12), v5)
add(np.flip, np.flip, t234)
add(np.flip, lambda x: np.flip(x, 1), t234)
add(np.flip, lambda x: np.flip(x, (0, -1)), t234)
for mode in ("edge", "wrap", "reflect", "symmetric", "constant"):
    add(np.pad, lambda x, m=mode: np.pad(x, 2, mode=m), v4)
    add(np.pad, lambda x, m=mode: np.pad(x, ((1, 0), (2, 1)), m), m34)
add(np.pad, lambda x: np.pad(x, (1, 2), constant_values=(x[0], 3.0)), v3)
add(np.pad, lambda x: np.pad(x, ((0, 0), (1, 1)), constant_values=5.0), m23)
add(np.tile, lambda x: np.tile(x, 3), v3)
add(np.tile, lambda x: np.tile(x, (2, 1, 2)), m23)
add(np.repeat, lambda x: np.repeat(x, 2), m23)
add(np.repeat, lambda x: x.repeat([1, 0, 2], axis=1), m23)
add(np.diff, np.diff, v5)
add(np.diff, lambda x: np.diff(x, 2, axis=0), m34)
add(np.diff, lambda x: np.diff(x, prepend=0.0, append=x[:1]), v5)
add(np.diff, lambda x: np.diff(x, prepend=1.0, axis=0), m34)
add(np.diff, lambda x: np.diff(x, 0), v5)
add(np.gradient, np.gradient, v5)
add(np.gradient, lambda x: np.gradient(x, 0.3), v5)
add(np.gradient, lambda x: np.gradient(x, 0.3, edge_order=2), v5)
add(np.gradient, lambda x: np.gradient(x, np.array([0.0, 0.4, 1.1, 1.3, 2.0]), edge_order=2), v5)
add(np.gradient, lambda x: np.gradient(x, np.array([0.0, 0.4, 1.1]), axis=0), m34)
add(np.gradient, lambda x: tuple(np.gradient(x)), m34)
add(np.gradient, lambda x: tuple(np.gradient(x, 0.5, 2.0)), m34)
add(np.gradient, np.gradient, signed(2))
add(np.diag, np.diag, v3)
add(np.diag, lambda x: np.diag(x, -2), v3)
add(np.diag, np.diag, m34)
add(np.diag, lambda x: np.diag(x, 1), m34)
add(np.diagonal, np.diagonal, m34)
add(np.diagonal, lambda x: x.diagonal(-1, 0, 2), t234)
for function in (np.tril, np.triu):
    add(function, function, m34)
    add(function, lambda x, f=function: f(x, 1), t234)
    add(function, lambda x, f=function: f(x, -1), v3)

# ---- reductions and scans ------------------------------------------------------------------------------------

for function in (np.sum, np.prod, np.mean, np.max, np.min, np.std, np.var, np.ptp):
    add(function, function, t234)
    add(function, function, v7)
    add(function, function, v3)
    for axis in (0, -1, (0, 2), (-1, 1)):
        for keepdims in (False, True):
            add(function, lambda x, f=function, a=axis, k=keepdims: f(x, axis=a, keepdims=k), t234)
for name in ("sum", "prod", "mean", "max", "min", "std", "var"):
    add(getattr(np, name), lambda x, n=name: getattr(x, n)(axis=1), t234)
add(np.sum, lambda x: np.add.reduce(x), m23)
add(np.sum, lambda x: sum(x), v5)
add(np.sum, lambda x: np.sum([x[0], x[1] * 2]), v3)
add(np.sum, lambda x: np.sum(x > 0) * x, v5)
add(np.prod, lambda x: np.multiply.reduce(x, axis=1), m23)
add(np.max, lambda x: np.maximum.reduce(x), m23)
add(np.min, lambda x: np.minimum.reduce(x), m23)
add(np.var, lambda x: np.var(x, ddof=1), v5)
add(np.var, lambda x: np.var(x, axis=1, correction=1), m34)
add(np.std, lambda x: x.std(axis=0, ddof=1), m34)
for function in (np.all, np.any):
    add(function, lambda x, f=function: f(x > 0), v5)
    add(function, lambda x, f=function: f(x > 0, axis=1, keepdims=True), m34)
    add(function, lambda x, f=function: np.where(f(x > -5), x, 0.0), v5)
for function in (np.cumsum, np.cumprod):
    add(function, function, v7)
    add(function, function, m34)
    add(function, lambda x, f=function: f(x, axis=0), m34)
    add(function, lambda x, f=function: f(x, axis=-1), t234)
add(np.cumsum, lambda x: np.add.accumulate(x) + x.cumsum(), v5)
add(np.cumprod, lambda x: np.multiply.accumulate(x) + x.cumprod(), v5)

# ---- products ---------------------------------------------------------------------------------------------

add(np.matmul, lambda x, y: x @ y, m23, m34)
add(np.matmul, lambda x, y: x @ y, v3, m34)
add(np.matmul, lambda x, y: x @ y, m23, v3)
add(np.matmul, lambda x, y: x @ y, v3, signed(3, seed=9))
add(np.matmul, np.matmul, signed(2, 1, 3, 2), signed(3, 2, 2))
add(np.matmul, lambda x: m23 @ x, v3)
add(np.matmul, lambda x: x @ m23, signed(2))
add(np.dot, lambda x, y: x.dot(y), m23, m34)
add(np.dot, np.dot, v3, signed(3, seed=9))
add(np.dot, np.dot, one, m23)
add(np.dot, np.dot, t234, signed(2, 4, 3))
add(np.dot, np.dot, t234, v4)
add(np.vdot, np.vdot, m23, signed(2, 3, seed=9))
add(np.inner, np.inner, v3, m23)
add(np.inner, np.inner, t234, m34)
add(np.inner, np.inner, one, m23)
add(np.outer, np.outer, v3, m23)
add(np.linalg.outer, np.linalg.outer, v3, v4)
add(np.multiply.outer, np.multiply.outer, m23, v4)
add(np.tensordot, np.tensordot, t234, m34)
add(np.tensordot, lambda x, y: np.tensordot(x, y, axes=([1, 0], [0, 1])), t234, m32)
add(np.tensordot, lambda x, y: np.tensordot(x, y, axes=(2, -1)), t234, m34)
add(np.tensordot, lambda x, y: np.tensordot(x, y, axes=0), v3, m23)
for text, shapes in {
    "ij,jk->ik": ((2, 3), (3, 4)), "ij,jk": ((2, 3), (3, 4)), "ii": ((3, 3),), "ii->i": ((3, 3),), "ij->ji": ((2, 3),),
    "ij->": ((2, 3),), "i,i->": ((3,), (3,)), "i,j->ij": ((3,), (4,)), "bij,bjk->bik": ((2, 3, 4), (2, 4, 2)),
    "ijk,jl,k->il": ((2, 3, 4), (3, 2), (4,)), "...ij,...jk->...ik": ((2, 2, 3), (3, 2)), "...i,...i": ((2, 3), (3,)),
    "iij,j->i": ((2, 2, 3), (3,)), "ij,ij->j": ((2, 3), (2, 3)), "i,i,i->i": ((3,), (3,), (3,)),
    "a...b->b...": ((2, 3, 4),),
    "iji->j": ((2, 3, 2),), "ba": ((2, 3),), "ij , j -> i": ((2, 3), (3,)),
}.items():  # fmt: skip
    arrays = [signed(*s, seed=k) for k, s in enumerate(shapes)]
    add(np.einsum, lambda *xs, t=text: np.einsum(t, *xs), *arrays)
add(np.trace, np.trace, m33)
add(np.trace, lambda x: x.trace(1), m34)
add(np.trace, lambda x: np.trace(x, axis1=0, axis2=2), t234)
add(np.cross, np.cross, v3, signed(3, seed=9))
add(np.cross, np.cross, m23, v3)
add(np.cross, lambda x, y: np.cross(x, y, axis=0), m32, signed(3, 2, seed=9))
add(np.cross, lambda x, y: np.cross(x, y, axisa=0, axisb=1, axisc=0), m32, signed(2, 3, seed=9))
add(np.kron, np.kron, m23, m32)
add(np.kron, np.kron, v3, m23)
for mode in ("full", "same", "valid"):
    add(np.convolve, lambda x, y, m=mode: np.convolve(x, y, m), v7, v4)
    add(np.convolve, lambda x, y, m=mode: np.convolve(x, y, mode=m), v3, v5)
add(np.convolve, lambda x: np.convolve(x, [1.0, -2.0, 1.0], "same"), v7)
add(np.polyval, np.polyval, v4, m23)
add(np.polyval, lambda x: np.polyval([1.0, -2.0, 0.5], x), v3)
add(np.polyval, lambda p: np.polyval(p, 0.7), v3)

# ---- linear algebra ------------------------------------------------------------------------------------------

regular, stacked = m33 + 4 * np.eye(3), signed(2, 3, 3) + 4 * np.eye(3)
add(np.linalg.solve, np.linalg.solve, regular, v3)
add(np.linalg.solve, np.linalg.solve, regular, m32)
add(np.linalg.solve, np.linalg.solve, stacked, m32)
add(np.linalg.solve, lambda b: np.linalg.solve(regular, b), v3)
add(np.linalg.solve, np.linalg.solve, np.array([[0.0, 1.5], [0.7, 0.2]]), signed(2))
add(np.linalg.inv, np.linalg.inv, regular)
add(np.linalg.inv, np.linalg.inv, stacked)
add(np.linalg.det, np.linalg.det, regular)
add(np.linalg.det, np.linalg.det, stacked)
add(np.linalg.det, np.linalg.det, np.array([[0.0, 1.5], [0.7, 0.2]]))
add(np.linalg.norm, np.linalg.norm, v3)
add(np.linalg.norm, np.linalg.norm, t234)
for order in (None, 1, 2, 3, 2.5, np.inf, -np.inf, -1):
    add(np.linalg.norm, lambda x, o=order: np.linalg.norm(x, o), v5)
    add(np.linalg.norm, lambda x, o=order: np.linalg.norm(x, o, axis=1, keepdims=True), m34)
for order in (None, "fro", 1, -1, np.inf, -np.inf):
    add(np.linalg.norm, lambda x, o=order: np.linalg.norm(x, o), m34)
    add(np.linalg.norm, lambda x, o=order: np.linalg.norm(x, o, axis=(2, 0)), t234)
    add(np.linalg.norm, lambda x, o=order: np.linalg.norm(x, o, axis=(0, 1), keepdims=True), t234)

# ---- tables and special functions --------------------------------------------------------------------------------

xp, fp = np.array([-1.0, 0.2, 0.5, 2.0]), np.array([0.3, -1.0, 2.0, 1.5])
inside = np.array([-0.7, 0.1, 0.4, 0.9, 1.8, -1.6, 2.4])
add(np.interp, lambda x: np.interp(x, xp, fp), inside)
add(np.interp, lambda x: np.interp(x, xp, fp, left=-5.0, right=7.0), inside)
add(np.interp, lambda x, f: np.interp(x, xp, f), inside, fp)
add(np.interp, lambda x, f: np.interp(x, xp, f, left=f[1] * f[0]), inside.reshape(7, 1), fp)
add(np.interp, lambda x: np.interp(x, xp, fp), np.float64(0.3))
add(np.interp, lambda x: np.interp(x, [1.0], [2.5]) * x, inside)
for function in (odec.special.erf, odec.special.sigmoid, odec.special.softplus, odec.special.relu):
    add(function, function, m23)
    add(function, lambda x, f=function: f([x[0], 2 * x[1]]), v3)
    add(function, lambda x, f=function: f(np.array([x[0], 2 * x[1]])) + f(x[0]), v3)
