"""exp and tanh of double vectors as LLVM IR that is inlined where it is used.

A call of a vector library costs more than these few instructions, of which LLVM keeps the constants in registers and
overlaps one element's with the next one's. Neural networks spend most of their time in them.

With k the integer nearest to x / ln 2 and r = x - k ln 2, |r| <= ln(2) / 2, exp(x) = 2^k (1 + p) and
expm1(x) = 2^k p + (2^k - 1), where p = expm1(r) = r + r² q(r); q interpolates at Chebyshev's points, which
leaves a relative 4e-17 in p. ln 2 is split so that k times its head is exact.

tanh(x) = e / (e + 1) with the sign of x and e = expm1(2 |x|) / 2 = 2^k p / 2 + (2^k - 1) / 2. This computes with
s = r / 2 = |x| - k ln(2) / 2 and p / 2, so that nothing is doubled or halved; ln 2 is not split, for the larger k is,
the less tanh depends on s.
References: Muller, Elementary Functions, 3rd ed., Birkhäuser 2016, 11.1; Cody and Waite, Software Manual for the
Elementary Functions, Prentice-Hall 1980, chapters 6 and 13
"""

from __future__ import annotations

import struct

INLINED = ("exp", "tanh")

LOG2_E, LN2 = 1.4426950408889634, 0.6931471805599453
LN2_HEAD, LN2_TAIL = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # the head has 32 bits
BIAS = 1023  # of the exponent in the bits of a number
# 1.5 * 2^52 and the bias: a sum with it is rounded to an integer, which lies in its low bits as it does in an exponent
ROUNDER = 6755399441055744.0 + BIAS
MANTISSA = 52  # bits below the exponent
SIGN = -(2**63)  # the bit of the sign
FLAT = 20.0  # beyond which tanh is 1
MOST, LEAST = 710.0, -746.0  # beyond which exp is infinite, or 0
# q, from the constant on: (expm1(r) - r) / r² on |r| <= ln(2) / 2
Q = (
    0.5000000000000001, 0.16666666666666669, 0.041666666666624164, 0.008333333333330065, 0.0013888888917196719,
    0.00019841269863040545, 2.4801521322368692e-05, 2.7557268480310024e-06, 2.7620075879983367e-07,
    2.5100375832561234e-08,
)  # fmt: skip
HALVED = tuple(2.0 ** (power + 1) * c for power, c in enumerate(Q))  # (expm1(2 s) / 2 - s) / s²


def symbol(name, lanes):
    return f"odec.{name}.v{lanes}f64"


def definition(name, lanes):
    """The text of a function of vectors of so many doubles, or of one double, which `symbol` names."""
    kind, whole = ("double", "i64") if lanes == 1 else (f"<{lanes} x double>", f"<{lanes} x i64>")
    lines = _Lines(kind, whole, lanes)
    _BODIES[name](lines)
    return "\n".join(
        (f"define private {kind} @{symbol(name, lanes)}({kind} %x) alwaysinline nounwind willreturn memory(none) {{",
         *lines.text, "}")
    )  # fmt: skip


def intrinsics(lanes):
    """{name: signature} of what the functions call."""
    kind, name = ("double" if lanes == 1 else f"<{lanes} x double>"), _fused(lanes)
    return {name: f"{kind} @{name}({kind}, {kind}, {kind})"}


def _fused(lanes):
    return "llvm.fmuladd.f64" if lanes == 1 else f"llvm.fmuladd.v{lanes}f64"


class _Lines:
    """Instructions on vectors of doubles, each of which returns the name of its result."""

    def __init__(self, kind, whole, lanes):
        self.kind, self.whole, self.lanes, self.text = kind, whole, lanes, []

    def constant(self, value):
        if self.lanes == 1:
            return _hex(value)
        return f"splat (double {_hex(value)})"

    def put(self, text):
        name = f"%v{len(self.text)}"
        self.text.append(f"  {name} = {text}")
        return name

    def give(self, name):
        self.text.append(f"  ret {self.kind} {name}")

    def do(self, opcode, a, b):
        return self.put(f"{opcode} {self.kind} {a}, {b}")

    def fused(self, a, b, c):
        """a b + c, in one instruction where there is one."""
        args = ", ".join(f"{self.kind} {x}" for x in (a, b, c))
        return self.put(f"call {self.kind} @{_fused(self.lanes)}({args})")

    def bounded(self, x, bound, comparison):
        """x, or the bound where it is beyond; nan stays."""
        flag = "i1" if self.lanes == 1 else f"<{self.lanes} x i1>"
        beyond = self.put(f"fcmp {comparison} {self.kind} {x}, {self.constant(bound)}")
        return self.put(f"select {flag} {beyond}, {self.kind} {self.constant(bound)}, {self.kind} {x}")

    def integer(self, value):
        return str(value) if self.lanes == 1 else f"splat (i64 {value})"

    def bits(self, x):
        return self.put(f"bitcast {self.kind} {x} to {self.whole}")

    def number(self, bits):
        return self.put(f"bitcast {self.whole} {bits} to {self.kind}")

    def whole_do(self, opcode, a, b):
        return self.put(f"{opcode} {self.whole} {a}, {b}")

    def nearest(self, x, scale):
        """(k + ROUNDER, k) of the integer k nearest to scale * x."""
        rounded = self.fused(x, self.constant(scale), self.constant(ROUNDER))
        return rounded, self.do("fsub", rounded, self.constant(ROUNDER))

    def power(self, rounded):
        """2^k of k + ROUNDER."""
        return self.number(self.whole_do("shl", self.bits(rounded), self.integer(MANTISSA)))

    def grown(self, r, coefficients):
        """r + r² (sum of coefficients[i] r^i)"""
        square = self.do("fmul", r, r)
        even, odd = (self.polynomial(coefficients[start::2], square) for start in (0, 1))
        return self.fused(square, self.fused(odd, r, even), r)

    def polynomial(self, coefficients, x):
        """sum of coefficients[i] x^i"""
        *others, last = map(self.constant, coefficients)
        for coefficient in reversed(others):
            last = self.fused(last, x, coefficient)
        return last


def _exp(b):
    x = b.bounded(b.bounded("%x", MOST, "ogt"), LEAST, "olt")
    _, k = b.nearest(x, LOG2_E)
    p = b.grown(b.fused(k, b.constant(-LN2_TAIL), b.fused(k, b.constant(-LN2_HEAD), x)), Q)
    first = b.fused(k, b.constant(0.5), b.constant(ROUNDER))  # 2^k in two factors, for it can be below the least double
    second = b.do("fadd", b.do("fsub", k, b.do("fsub", first, b.constant(ROUNDER))), b.constant(ROUNDER))
    power = b.power(first)
    b.give(b.do("fmul", b.fused(p, power, power), b.power(second)))


def _tanh(b):
    bits = b.bits("%x")
    sign = b.whole_do("and", bits, b.integer(SIGN))
    size = b.bounded(b.number(b.whole_do("xor", bits, sign)), FLAT, "ogt")
    rounded, k = b.nearest(size, 2 * LOG2_E)
    half, power = b.grown(b.fused(k, b.constant(-0.5 * LN2), size), HALVED), b.power(rounded)
    e = b.fused(half, power, b.fused(power, b.constant(0.5), b.constant(-0.5)))
    result = b.do("fdiv", e, b.do("fadd", e, b.constant(1.0)))
    b.give(b.number(b.whole_do("or", b.bits(result), sign)))


_BODIES = {"exp": _exp, "tanh": _tanh}


def _hex(value):
    return "0x" + struct.pack(">d", value).hex().upper()
