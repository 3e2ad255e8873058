"""Elementary and special functions of one or two real arguments."""

from __future__ import annotations

import math

import numpy as np

from odec.graph.trace import BORROWED
from odec.ops.families import POSITIVE, REAL, elementwise, function, intrinsic

INSIDE = (-0.9, 0.9)  # the open interval of arcsin, arccos, arctanh, away from its ends


def unary(name, doc, slope, domain, sympy, *, evaluate=None, emission=None, numpy=None, python=None):
    """A function of one argument; `slope` is df/dx as a formula in x and v = f(x)."""
    evaluate = evaluate or getattr(np, name)
    return elementwise(
        name, doc, partials=(slope,), evaluate=evaluate, python=python or f"np.{name}({{0}})",
        llvm=emission or function(name), sympy=sympy, domain=(domain,),
        numpy=(evaluate,) if numpy is None else numpy,
    )  # fmt: skip


sqrt = unary(
    "sqrt", "square root", lambda x, v: 0.5 / v, POSITIVE, lambda sp, x: sp.sqrt(x), emission=intrinsic("sqrt")
)
cbrt = unary("cbrt", "cube root", lambda x, v: (1 / 3) / (v * v), POSITIVE, lambda sp, x: sp.cbrt(x))
exp = unary("exp", "e to the x", lambda x, v: v, REAL, lambda sp, x: sp.exp(x))
exp2 = unary("exp2", "2 to the x", lambda x, v: math.log(2) * v, REAL, lambda sp, x: 2**x)
expm1 = unary("expm1", "exp(x) - 1, accurate near 0", lambda x, v: v + 1.0, REAL, lambda sp, x: sp.exp(x) - 1)
log = unary("log", "natural logarithm", lambda x, v: 1.0 / x, POSITIVE, lambda sp, x: sp.log(x))
log2 = unary(
    "log2", "logarithm to base 2", lambda x, v: (1 / math.log(2)) / x, POSITIVE, lambda sp, x: sp.log(x) / sp.log(2)
)
log10 = unary(
    "log10", "logarithm to base 10", lambda x, v: (1 / math.log(10)) / x, POSITIVE, lambda sp, x: sp.log(x) / sp.log(10)
)
log1p = unary(
    "log1p", "log(1 + x), accurate near 0", lambda x, v: 1.0 / (1.0 + x), POSITIVE, lambda sp, x: sp.log(1 + x)
)

sin = unary("sin", "sine", lambda x, v: cos(x), REAL, lambda sp, x: sp.sin(x))
cos = unary("cos", "cosine", lambda x, v: -sin(x), REAL, lambda sp, x: sp.cos(x))
tan = unary("tan", "tangent", lambda x, v: 1.0 + v * v, (-1.2, 1.2), lambda sp, x: sp.tan(x))
arcsin = unary("arcsin", "inverse sine", lambda x, v: 1.0 / sqrt(1.0 - x * x), INSIDE, lambda sp, x: sp.asin(x))
arccos = unary("arccos", "inverse cosine", lambda x, v: -1.0 / sqrt(1.0 - x * x), INSIDE, lambda sp, x: sp.acos(x))
arctan = unary("arctan", "inverse tangent", lambda x, v: 1.0 / (1.0 + x * x), REAL, lambda sp, x: sp.atan(x))
sinh = unary("sinh", "hyperbolic sine", lambda x, v: cosh(x), REAL, lambda sp, x: sp.sinh(x))
cosh = unary("cosh", "hyperbolic cosine", lambda x, v: sinh(x), REAL, lambda sp, x: sp.cosh(x))
tanh = unary("tanh", "hyperbolic tangent", lambda x, v: 1.0 - v * v, REAL, lambda sp, x: sp.tanh(x))
arcsinh = unary(
    "arcsinh", "inverse hyperbolic sine", lambda x, v: 1.0 / sqrt(1.0 + x * x), REAL, lambda sp, x: sp.asinh(x)
)
arccosh = unary(
    "arccosh",
    "inverse hyperbolic cosine",
    lambda x, v: 1.0 / sqrt((x - 1.0) * (x + 1.0)),
    (1.2, 3.0),
    lambda sp, x: sp.acosh(x),
)
arctanh = unary(
    "arctanh", "inverse hyperbolic tangent", lambda x, v: 1.0 / (1.0 - x * x), INSIDE, lambda sp, x: sp.atanh(x)
)

arctan2 = elementwise(
    "arctan2", "angle of the point (y, x), first argument y",
    partials=(lambda y, x, v: x / (x * x + y * y), lambda y, x, v: -y / (x * x + y * y)),
    evaluate=np.arctan2, python="np.arctan2({0}, {1})", llvm=function("arctan2"),
    sympy=lambda sp, y, x: sp.atan2(y, x), domain=(POSITIVE, REAL), numpy=(np.arctan2,),
)  # fmt: skip


# ---- stable forms and special functions ---------------------------------------------------------------


def np_sigmoid(x):
    """1 / (1 + exp(-x)), from exp(-|x|) so that nothing overflows."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(np.asarray(x).dtype)[()]


def np_softplus(x):
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def np_erf(x):
    from scipy.special import erf

    return erf(x)


def _exp_minus_abs(b, x):
    return b.function("exp", b.instruction("fneg", b.intrinsic("fabs", x)))


def _llvm_sigmoid(b, x):
    e, one = _exp_minus_abs(b, x), b.literal(1.0, x.dtype)
    top = b.select(b.compare("oge", x, b.literal(0.0, x.dtype)), one, e)
    return b.instruction("fdiv", top, b.instruction("fadd", one, e))


def _llvm_softplus(b, x):
    tail = b.function("log1p", _exp_minus_abs(b, x))
    return b.instruction("fadd", b.intrinsic("maximum", x, b.literal(0.0, x.dtype)), tail)


def _llvm_logaddexp(b, x, y):
    gap = b.instruction("fsub", x, y)
    top = b.intrinsic("maximum", x, y)
    summed = b.instruction("fadd", top, b.function("log1p", _exp_minus_abs(b, gap)))
    return b.select(b.compare("oeq", x, y), b.instruction("fadd", x, b.literal(math.log(2), x.dtype)), summed)


sigmoid = unary(
    "sigmoid", "1 / (1 + exp(-x))", lambda x, v: v * sigmoid(-x), REAL, lambda sp, x: 1 / (1 + sp.exp(-x)),
    evaluate=np_sigmoid, numpy=(), emission=_llvm_sigmoid, python="sigmoid({0})",
)  # fmt: skip
softplus = unary(
    "softplus", "log(1 + exp(x))", lambda x, v: sigmoid(x), REAL, lambda sp, x: sp.log(1 + sp.exp(x)),
    evaluate=np_softplus, numpy=(), emission=_llvm_softplus, python="softplus({0})",
)  # fmt: skip
erf = unary(
    "erf", "error function", lambda x, v: (2 / math.sqrt(math.pi)) * exp(-(x * x)), REAL, lambda sp, x: sp.erf(x),
    evaluate=np_erf, numpy=(), python="erf({0})",
)  # fmt: skip
logaddexp = elementwise(
    "logaddexp", "log(exp(x) + exp(y))", partials=(lambda x, y, v: sigmoid(x - y), lambda x, y, v: sigmoid(y - x)),
    evaluate=np.logaddexp, python="np.logaddexp({0}, {1})", llvm=_llvm_logaddexp,
    sympy=lambda sp, x, y: sp.log(sp.exp(x) + sp.exp(y)), domain=(REAL, REAL), numpy=(np.logaddexp,),
)  # fmt: skip

BORROWED.update(erf=erf, expit=sigmoid)
