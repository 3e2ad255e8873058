"""Arithmetic: sums, products, quotients, powers, extrema, remainders, roundings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from odec.graph.node import constant, install_operator, is_structural_zero, make, scalar_value
from odec.graph.op import OPS, Op, zero
from odec.ops.families import (  # fmt: skip
    NONZERO,
    POSITIVE,
    REAL,
    build_elementwise,
    elementwise,
    every_element,
    function,
    instruction,
    intrinsic,
    product_rules,
    reach_of_elements,
    taylor_by_jvp,
)
from odec.ops.recurrence import Product, Recurrence, Same


def like(node, value):
    """The constant `value` in the dtype and shape of `node`."""
    return constant(value, node.dtype, node.shape)


def _is(node, value):
    """Whether every element of `node` is the constant `value`, the sign of zero included."""
    known = scalar_value(node)
    return known is not None and known == value and math.copysign(1, known) == math.copysign(1, value)


def _negated(node):
    return node.inputs[0] if node.op.name == "neg" else None


def _vanishes(node):
    """Whether x + node is x for every x: not so for 0.0, which turns -0.0 into 0.0."""
    return _is(node, -0.0) or is_structural_zero(node)


# ---- sums --------------------------------------------------------------------------------------


def _simplify_add(inputs, params):
    x, y = inputs
    if _vanishes(x):
        return y
    if _vanishes(y):
        return x
    if _negated(y) is not None:
        return sub(x, _negated(y))
    return sub(y, _negated(x)) if _negated(x) is not None else None


def _simplify_sub(inputs, params):
    x, y = inputs
    if _is(y, 0.0):
        return x
    if _vanishes(x):
        return neg(y)
    return add(x, _negated(y)) if _negated(y) is not None else None


def _simplify_neg(inputs, params):
    return inputs[0] if is_structural_zero(inputs[0]) else _negated(inputs[0])


add = elementwise(
    "add", "x + y", partials=(lambda x, y, v: 1.0, lambda x, y, v: 1.0), evaluate=np.add, python="{0} + {1}",
    llvm=instruction("fadd"), sympy=lambda sp, x, y: x + y, domain=(REAL, REAL), numpy=(np.add,),
    simplify=_simplify_add,
)  # fmt: skip
sub = elementwise(
    "sub", "x - y", partials=(lambda x, y, v: 1.0, lambda x, y, v: -1.0), evaluate=np.subtract, python="{0} - {1}",
    llvm=instruction("fsub"), sympy=lambda sp, x, y: x - y, domain=(REAL, REAL), numpy=(np.subtract,),
    simplify=_simplify_sub,
)  # fmt: skip
neg = elementwise(
    "neg", "-x", partials=(lambda x, v: -1.0,), evaluate=np.negative, python="-{0}", llvm=instruction("fneg"),
    sympy=lambda sp, x: -x, domain=(REAL,), numpy=(np.negative,), simplify=_simplify_neg,
)  # fmt: skip


# ---- products and quotients ----------------------------------------------------------------------


def _simplify_mul(inputs, params):
    x, y = inputs
    for a, b in ((x, y), (y, x)):
        if is_structural_zero(a):
            return a
        if _is(a, 1.0):
            return b
        if _is(a, -1.0):
            return neg(b)
    if _negated(x) is not None and _negated(y) is not None:
        return mul(_negated(x), _negated(y))
    return None


mul = Op(
    "mul", "elementwise", "x y", shape=add.shape, dtype=add.dtype, evaluate=np.multiply, scalarise=np.multiply,
    build=build_elementwise, **product_rules((lambda x, y, g: g * y, lambda x, y, g: x * g)),
    simplify=_simplify_mul, python="{0} * {1}", llvm=instruction("fmul"),
    reach=reach_of_elements, cost=every_element, lower=None,
    sympy=lambda sp, x, y: x * y, domain=(REAL, REAL), numpy=(np.multiply,),
)  # fmt: skip


def _taylor_div(node, series):
    """v = a/b: v_k = (a_k - sum_{j=1..k} b_j v_{k-j}) / b_0 (override: no series of 1/b)."""
    _, b = node.inputs
    return Recurrence(node, (Product(b, node, q=-1.0, first=1),), lambda parts: parts[0], lambda top: top / b)


div = elementwise(
    "div", "x / y", partials=(lambda x, y, v: 1.0 / y, lambda x, y, v: -v / y), evaluate=np.divide,
    python="{0} / {1}", llvm=instruction("fdiv"), sympy=lambda sp, x, y: x / y, domain=(REAL, NONZERO),
    numpy=(np.divide,), taylor=_taylor_div,
    simplify=lambda i, p: i[0] if _is(i[1], 1.0) or is_structural_zero(i[0]) else None,
)  # fmt: skip

for _symbol, _op in (("+", add), ("-", sub), ("*", mul), ("/", div), ("negate", neg)):
    install_operator(_symbol, _op)


# ---- powers ----------------------------------------------------------------------------------------

LONGEST_CHAIN = 64  # a larger integer power goes to the library's pow: the product's error grows with n


def _simplify_pow(inputs, params):
    x, y = inputs
    n = scalar_value(y)
    if n is None:
        return None
    if n in _NUMPY_FAST_POWERS:
        return _NUMPY_FAST_POWERS[n](x)
    return ipow(x, exponent=int(n)) if abs(n) <= LONGEST_CHAIN and n == int(n) else None


# The same shortcuts that NumPy takes for `array ** number`, and as exact.
_NUMPY_FAST_POWERS = {
    0.0: lambda x: like(x, 1.0),
    0.5: lambda x: OPS["sqrt"](x),
    1.0: lambda x: x,
    2.0: lambda x: x * x,
    -1.0: lambda x: 1.0 / x,
}


def _pow_by_base(x, y, v):
    return y * pow(x, y - 1.0)


def _pow_by_exponent(x, y, v):
    """v log x, and 0 at x = 0, where v log x would be 0 times infinity."""
    return v * OPS["log"](OPS["where"](OPS["eq"](x, 0.0), 1.0, x))


def _taylor_pow(node, series):
    """v = u^a: k u_0 v_k = sum_{j=1..k} ((a + 1) j - k) u_j v_{k-j} for a constant a (override: no series of u^(a-1));
    otherwise v = exp(w), w = a log u, so k v_k = sum_j j w_j v_{k-j}."""
    x, y = node.inputs
    if not series.is_constant(y):
        w = y * OPS["log"](x)
        return Recurrence(node, (Product(w, node, p=1.0, q=0.0, first=1),))
    power = scalar_value(y)
    if power is None:
        products = Product(x, node, p=1.0, q=0.0, first=1, scale=y + 1.0), Product(x, node, q=-1.0, first=1)
    else:
        products = (Product(x, node, p=float(power) + 1.0, q=-1.0, first=1),)
    return Recurrence(node, products, finish=lambda top: top / x)


pow = elementwise(
    "pow", "x ** y", partials=(_pow_by_base, _pow_by_exponent), evaluate=np.power,
    python="{0} ** {1}", llvm=intrinsic("pow"), sympy=lambda sp, x, y: x**y, domain=(POSITIVE, REAL),
    numpy=(np.power, np.float_power), simplify=_simplify_pow, taylor=_taylor_pow,
)  # fmt: skip


def _product_chain(times, x, n) -> Any:
    """x to the integer n > 0 by repeated squaring."""
    result = None
    while n:
        if n & 1:
            result = x if result is None else times(result, x)
        n >>= 1
        x = times(x, x) if n else x
    return result


def _llvm_ipow(b, x, exponent):
    chain = _product_chain(lambda p, q: b.instruction("fmul", p, q), x, abs(exponent))
    return chain if exponent > 0 else b.instruction("fdiv", b.literal(1.0, x.dtype), chain)


def _taylor_ipow(node, series):
    """A positive power by products of series, so that u_0 = 0 is no exception (override);
    a negative one by the quotient's rule."""
    x, n = node.inputs[0], node.params["exponent"]
    positive = _product_chain(lambda p, q: p * q, x, abs(n))
    return Same(positive if n > 0 else 1.0 / positive)


ipow = Op(
    "ipow", "elementwise", "x to an integer power, by repeated squaring",
    shape=lambda shape, exponent: shape, dtype=lambda dtype, exponent: dtype,
    evaluate=lambda x, exponent: np.power(x, np.asarray(exponent, x.dtype) if x.dtype != object else exponent),
    scalarise=lambda x, exponent: x, build=lambda op, x, exponent: make(op, [x], exponent=exponent),
    jvp=lambda node, tangents: _ipow_slope(node) * tangents[0],
    vjp=lambda node, g: (_ipow_slope(node) * g,),
    taylor=_taylor_ipow, simplify=None, python="{0} ** {exponent}", llvm=_llvm_ipow,
    reach=reach_of_elements, cost=every_element, lower=None,
    sympy=lambda sp, x, exponent: x**exponent, domain=(NONZERO,),
)  # fmt: skip


def _ipow_slope(node):
    x, n = node.inputs[0], node.params["exponent"]
    return float(n) * pow(x, float(n - 1))


# ---- piecewise linear ------------------------------------------------------------------------------


def _first_wins(x, y, v):
    return OPS["to_float"](OPS["eq"](x, v))


def _second_wins(x, y, v):
    return OPS["to_float"](OPS["ne"](x, v))


def _extremum(name, doc, function_, emission, python, sympy):
    """max or min: the derivative follows the argument that is taken (the first, in a tie)."""
    return elementwise(
        name, doc, partials=(_first_wins, _second_wins), evaluate=function_, python=python, llvm=emission,
        sympy=sympy, domain=(REAL, REAL), numpy=(function_,), taylor=taylor_by_jvp,
    )  # fmt: skip


maximum = _extremum("maximum", "the larger of x and y; nan if either is", np.maximum, intrinsic("maximum"),
                    "np.maximum({0}, {1})", lambda sp, x, y: sp.Max(x, y))  # fmt: skip
minimum = _extremum("minimum", "the smaller of x and y; nan if either is", np.minimum, intrinsic("minimum"),
                    "np.minimum({0}, {1})", lambda sp, x, y: sp.Min(x, y))  # fmt: skip
fmax = _extremum("fmax", "the larger of x and y, ignoring nan", np.fmax, intrinsic("maxnum"),
                 "np.fmax({0}, {1})", lambda sp, x, y: sp.Max(x, y))  # fmt: skip
fmin = _extremum("fmin", "the smaller of x and y, ignoring nan", np.fmin, intrinsic("minnum"),
                 "np.fmin({0}, {1})", lambda sp, x, y: sp.Min(x, y))  # fmt: skip

absolute = elementwise(
    "abs", "|x|", partials=(lambda x, v: sign(x),), evaluate=np.abs, python="abs({0})", llvm=intrinsic("fabs"),
    sympy=lambda sp, x: sp.Abs(x), domain=(NONZERO,), numpy=(np.absolute, np.fabs), taylor=taylor_by_jvp,
)  # fmt: skip


def _llvm_sign(b, x):
    one = b.intrinsic("copysign", b.literal(1.0, x.dtype), x)
    rest = b.instruction("fadd", x, b.literal(0.0, x.dtype))  # 0 for both zeros, nan for nan
    return b.select(b.compare("one", x, b.literal(0.0, x.dtype)), one, rest)


sign = elementwise(
    "sign", "-1, 0 or 1", partials=zero, evaluate=np.sign, python="np.sign({0})", llvm=_llvm_sign,
    sympy=lambda sp, x: sp.sign(x), domain=(NONZERO,), numpy=(np.sign,),
)  # fmt: skip
copysign = elementwise(
    "copysign", "|x| with the sign of y",
    partials=(lambda x, y, v: copysign(like(x, 1.0), x) * copysign(like(x, 1.0), y), lambda x, y, v: None),
    evaluate=np.copysign, python="np.copysign({0}, {1})", llvm=intrinsic("copysign"),
    sympy=lambda sp, x, y: sp.Abs(x) * sp.sign(y), domain=(NONZERO, NONZERO), numpy=(np.copysign,),
    taylor=taylor_by_jvp,
)  # fmt: skip
floor = elementwise(
    "floor", "the largest integer <= x", partials=zero, evaluate=np.floor, python="np.floor({0})",
    llvm=intrinsic("floor"), sympy=lambda sp, x: sp.floor(x), domain=((0.1, 0.9),), numpy=(np.floor,),
)  # fmt: skip
ceil = elementwise(
    "ceil", "the smallest integer >= x", partials=zero, evaluate=np.ceil, python="np.ceil({0})",
    llvm=intrinsic("ceil"), sympy=lambda sp, x: sp.ceiling(x), domain=((0.1, 0.9),), numpy=(np.ceil,),
)  # fmt: skip


def _llvm_mod(b, x, y):
    """NumPy's remainder: the sign of y; C's fmod plus y where their signs differ."""
    rest, zero_ = b.instruction("frem", x, y), b.literal(0.0, x.dtype)
    wrong = b.logical("xor", b.compare("olt", rest, zero_), b.compare("olt", y, zero_))
    shifted = b.select(wrong, b.instruction("fadd", rest, y), rest)
    return b.select(b.compare("oeq", rest, zero_), b.intrinsic("copysign", zero_, y), shifted)


mod = elementwise(
    "mod", "the remainder of x / y with the sign of y", partials=(lambda x, y, v: 1.0, lambda x, y, v: -floor(x / y)),
    evaluate=np.mod, python="np.mod({0}, {1})", llvm=_llvm_mod, sympy=lambda sp, x, y: sp.Mod(x, y),
    domain=((0.1, 0.9), (1.0, 3.0)), numpy=(np.remainder,), taylor=taylor_by_jvp,
)  # fmt: skip
hypot = elementwise(
    "hypot", "sqrt(x² + y²) without overflow", partials=(lambda x, y, v: x / v, lambda x, y, v: y / v),
    evaluate=np.hypot, python="np.hypot({0}, {1})", llvm=function("hypot"),
    sympy=lambda sp, x, y: sp.sqrt(x**2 + y**2), domain=(NONZERO, REAL), numpy=(np.hypot,),
)  # fmt: skip


# ---- precision ---------------------------------------------------------------------------------------


def _cast_shape(shape, dtype):
    if dtype not in ("float64", "float32"):
        raise TypeError(f"dtype={dtype} cannot be traced, for values are real; it is float64 or float32")
    return shape


cast = Op(
    "cast", "elementwise", "the same number in another precision", shape=_cast_shape,
    dtype=lambda _, dtype: dtype, evaluate=lambda x, dtype: np.asarray(x, dtype), scalarise=lambda x, dtype: x,
    build=lambda op, x, dtype: make(op, [x], dtype=dtype),
    jvp=lambda node, tangents: None if tangents[0] is None else cast(tangents[0], dtype=node.dtype),
    vjp=lambda node, g: (cast(g, dtype=node.inputs[0].dtype),), taylor=taylor_by_jvp,
    simplify=lambda inputs, params: inputs[0] if inputs[0].dtype == params["dtype"] else None,
    python="np.{dtype}({0})", llvm=lambda b, x, dtype: b.cast(x, dtype),
    reach=reach_of_elements, cost=every_element, lower=None,
    sympy=lambda sp, x, dtype: x, domain=(REAL,),
)  # fmt: skip
