"""exp and tanh of double vectors as LLVM IR that is inlined where it is used.

A call of a vector library costs more than these few instructions, of which LLVM keeps the constants in registers and
overlaps one element's with the next one's. Neural networks spend most of their time in them.

With k the integer nearest to x / ln 2 and r = x - k ln 2, |r| <= ln(2) / 2, exp(x) = 2^k (1 + p) and
expm1(x) = 2^k p + (2^k - 1), where p = expm1(r) = r + r² q(r); q interpolates at Chebyshev's points to 1e-18. Then
tanh(x) = expm1(2 |x|) / (expm1(2 |x|) + 2) with the sign of x. ln 2 is split so that k times its head is exact.
References: Muller, Elementary Functions, 3rd ed., Birkhäuser 2016, 11.1; Cody and Waite, Software Manual for the
Elementary Functions, Prentice-Hall 1980, chapters 6 and 13
"""

from __future__ import annotations

import struct

INLINED = ("exp", "tanh")

LOG2_E = 1.4426950408889634
LN2_HEAD, LN2_TAIL = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # the head has 32 bits
ROUNDER = 6755399441055744.0  # 1.5 * 2^52: a sum with it is rounded to an integer, which lies in its low bits
TO_EXPONENT = 1023 - 4843621399236968448  # from those bits to the exponent's
FLAT = 20.0  # beyond which tanh is 1
MOST, LEAST = 710.0, -746.0  # beyond which exp is infinite, or 0
# q, from the constant on: (expm1(r) - r) / r² on |r| <= ln(2) / 2
Q = (
    0.5, 0.1666666666666667, 0.04166666666666667, 0.008333333333326141, 0.0013888888888883752, 0.00019841269874800493,
    2.4801587325533363e-05, 2.7557255425746435e-06, 2.7557273661348637e-07, 2.510520637395701e-08,
    2.0914679376583935e-09,
)  # fmt: skip


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
    kind, counts = ("double" if lanes == 1 else f"<{lanes} x double>"), {"fmuladd": 3, "fabs": 1, "copysign": 2}
    names = {name: _intrinsic(name, lanes) for name in counts}
    return {names[k]: f"{kind} @{names[k]}({', '.join([kind] * count)})" for k, count in counts.items()}


def _intrinsic(name, lanes):
    return f"llvm.{name}.f64" if lanes == 1 else f"llvm.{name}.v{lanes}f64"


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
        return self.call("fmuladd", a, b, c)

    def call(self, name, *args):
        return self.put(
            f"call {self.kind} @{_intrinsic(name, self.lanes)}({', '.join(f'{self.kind} {a}' for a in args)})"
        )

    def bounded(self, x, bound, comparison):
        """x, or the bound where it is beyond; nan stays."""
        flag = "i1" if self.lanes == 1 else f"<{self.lanes} x i1>"
        beyond = self.put(f"fcmp {comparison} {self.kind} {x}, {self.constant(bound)}")
        return self.put(f"select {flag} {beyond}, {self.kind} {self.constant(bound)}, {self.kind} {x}")

    def power(self, rounded):
        """2^k of k + ROUNDER."""
        whole = (lambda n: str(n)) if self.lanes == 1 else (lambda n: f"splat (i64 {n})")
        bits = self.put(f"bitcast {self.kind} {rounded} to {self.whole}")
        biased = self.put(f"add {self.whole} {bits}, {whole(TO_EXPONENT)}")
        shifted = self.put(f"shl {self.whole} {biased}, {whole(52)}")
        return self.put(f"bitcast {self.whole} {shifted} to {self.kind}")

    def reduced(self, x):
        """(k + ROUNDER, expm1(r)) of x = k ln 2 + r."""
        rounded = self.fused(x, self.constant(LOG2_E), self.constant(ROUNDER))
        k = self.do("fsub", rounded, self.constant(ROUNDER))
        r = self.fused(k, self.constant(-LN2_TAIL), self.fused(k, self.constant(-LN2_HEAD), x))
        square = self.do("fmul", r, r)
        even, odd = (self.polynomial(Q[start::2], square) for start in (0, 1))
        return rounded, self.fused(square, self.fused(odd, r, even), r)

    def polynomial(self, coefficients, x):
        """sum of coefficients[i] x^i"""
        *others, last = map(self.constant, coefficients)
        for coefficient in reversed(others):
            last = self.fused(last, x, coefficient)
        return last


def _exp(b):
    x = b.bounded(b.bounded("%x", MOST, "ogt"), LEAST, "olt")
    rounded, p = b.reduced(x)
    k = b.do("fsub", rounded, b.constant(ROUNDER))
    first = b.fused(k, b.constant(0.5), b.constant(ROUNDER))  # 2^k in two factors, for it can be below the least double
    second = b.do("fadd", b.do("fsub", k, b.do("fsub", first, b.constant(ROUNDER))), b.constant(ROUNDER))
    power = b.power(first)
    b.give(b.do("fmul", b.fused(p, power, power), b.power(second)))


def _tanh(b):
    size = b.bounded(b.call("fabs", "%x"), FLAT, "ogt")
    rounded, p = b.reduced(b.do("fadd", size, size))
    power = b.power(rounded)
    grown = b.fused(p, power, b.do("fsub", power, b.constant(1.0)))
    b.give(b.call("copysign", b.do("fdiv", grown, b.do("fadd", grown, b.constant(2.0))), "%x"))


_BODIES = {"exp": _exp, "tanh": _tanh}


def _hex(value):
    return "0x" + struct.pack(">d", value).hex().upper()
