"""What the shapes and parameters of a node must satisfy: asked of graphs that come from a file.

Traced graphs satisfy it by construction. An op with parameters that has no check here is not loaded.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from odec.graph.function import Function
from odec.graph.node import Data
from odec.graph.op import CHECKS
from odec.ops.arithmetic import LONGEST_CHAIN


def check(name):
    """Decorator: the function below is the check of the op `name`."""

    def register(function):
        CHECKS[name] = function
        return function

    return register


def need(condition, what):
    if not condition:
        raise ValueError(what)


def are_integers(values):
    return type(values) is tuple and all(type(v) is int for v in values)


# ---- elementwise ops with parameters ------------------------------------------------------------------


@check("ipow")
def check_ipow(x, *, exponent):
    need(
        type(exponent) is int and 0 < abs(exponent) <= LONGEST_CHAIN,
        f"exponent must be an integer up to {LONGEST_CHAIN}",
    )


@check("cast")
@check("to_float")
def check_precision(x, *, dtype):
    need(dtype in ("float64", "float32"), "dtype must be float64 or float32")


@check("pieces")
def check_pieces(x, *, edges, values):
    numbers = type(edges) is tuple and type(values) is tuple and all(type(v) is float for v in (*edges, *values))
    need(numbers and len(values) == len(edges) + 1, "one more value than edges is needed")
    need(all(a < b for a, b in itertools.pairwise(edges)), "edges must increase")


# ---- rearrangements -----------------------------------------------------------------------------------


@check("reshape")
def check_reshape(x, *, shape):
    need(are_integers(shape) and min(shape, default=0) >= 0 and math.prod(shape) == math.prod(x), "sizes differ")


@check("transpose")
def check_transpose(x, *, axes):
    need(are_integers(axes) and sorted(axes) == list(range(len(x))), "axes must be a permutation")


@check("broadcast")
def check_broadcast(x, *, shape):
    need(are_integers(shape) and len(shape) >= len(x), "the shape is too short")
    ends = zip(x[::-1], shape[::-1], strict=False)
    need(min(shape, default=0) >= 0 and all(a in (1, b) for a, b in ends), "shapes do not fit")


@check("slice")
def check_slice(x, *, starts, steps, shape):
    need(are_integers(starts) and are_integers(steps) and are_integers(shape), "integers are needed")
    need(len(starts) == len(steps) == len(shape) == len(x), "one start, step and length for each axis is needed")
    for extent, start, step, length in zip(x, starts, steps, shape, strict=True):
        need(length >= 0 and step != 0, "a negative length or a step of 0")
        need(length == 0 or (0 <= start < extent and 0 <= start + step * (length - 1) < extent), "outside the array")


@check("update")
def check_update(base, value, *, starts, steps):
    check_slice(base, starts=starts, steps=steps, shape=value)


@check("concatenate")
def check_concatenate(*parts, axis):
    need(parts and type(axis) is int and 0 <= axis < len(parts[0]), "no such axis")
    need(len({(*s[:axis], -1, *s[axis + 1 :]) for s in parts}) == 1, "shapes differ")


@check("take")
def check_take(x, *, index):
    check_table(index, math.prod(x))


@check("put_add")
def check_put_add(x, *, index, shape):
    need(are_integers(shape) and min(shape, default=0) >= 0, "no shape")
    check_table(index, math.prod(shape))
    need(index.array.shape == x, "one index for each element is needed")


def check_table(index, size):
    """Positions of an array of `size` elements."""
    need(isinstance(index, Data) and index.array.dtype == np.int64, "a table of integers is needed")
    inside = not index.array.size or (index.array.min() >= 0 and index.array.max() < size)
    need(inside, "an index outside the array")


# ---- sums and matrices --------------------------------------------------------------------------------


@check("sum")
def check_sum(x, *, axes):
    need(are_integers(axes) and list(axes) == sorted(set(axes)) and set(axes) <= set(range(len(x))), "no such axes")


@check("cumsum")
def check_cumsum(x, *, axis):
    need(type(axis) is int and 0 <= axis < len(x), "no such axis")


@check("matmul")
def check_matmul(a, b):
    need(len(a) == len(b) >= 2 and a[:-2] == b[:-2] and a[-1] == b[-2], "shapes do not fit")


@check("solve")
def check_solve(a, b):
    need(len(a) == len(b) == 2 and a[0] == a[1] == b[0], "shapes do not fit")


@check("det")
def check_det(a):
    need(len(a) == 2 and a[0] == a[1], "the matrix is not square")


# ---- calls --------------------------------------------------------------------------------------------


@check("call")
def check_call(*inputs, function):
    need(isinstance(function, Function) and len(function.outputs) == 1, "a function of one output is needed")
    need([n.shape for n in function.inputs.values()] == list(inputs), "inputs do not fit the function")
