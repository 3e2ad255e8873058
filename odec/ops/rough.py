"""Logarithm and power to base 2 to two digits, for the step-size controller.

A straight line through the exponent's bits stands for the logarithm and a parabola for the power: the libraries'
would cost a tenth of a small model's step, all of it waiting.
"""

from __future__ import annotations

import numpy as np

from odec.ops.arithmetic import floor, maximum
from odec.ops.families import REAL, elementwise

# A double whose low bits hold the high half of x's bits is 2^52 more than that half; less the half that 1.0 has, and
# 0.043 * 2^20 to centre the line. Vectors have no conversion of 64-bit integers on most CPUs.
MAGIC_BITS = 4841369599423283200  # of 2^52
MAGIC = 4503599627370496.0 + 1072693248.0 - 45088.0
UNIT = 9.5367431640625e-07  # 2^-20
CENTRE = 45088.0 * UNIT
LEAST_OCTAVE = -900.0  # below which a slope is that of this octave, so that nothing overflows
ROUNDER = 6755399441055744.0  # 1.5 * 2^52: a sum with it holds the nearest integer in its low bits
ROUNDER_BITS = 4843621399236968448
C0, C1, C2 = 1.0005137, 0.70339652, 0.23783042  # of the parabola, least squares over half an octave on each side


def np_rough_log2(x):
    """log2 of non-negative finite numbers, to 0.044; about -1023 for 0."""
    high = np.asarray(x, np.float64).view(np.uint64) >> np.uint64(32)
    return ((high | np.uint64(MAGIC_BITS)).view(np.float64) - MAGIC) * UNIT


def np_rough_exp2(x):
    """2^x to a relative 1.8e-3, for |x| < 1000."""
    with np.errstate(invalid="ignore"):
        rounded = np.asarray(x + ROUNDER, np.float64)
        z = x - (rounded - ROUNDER)
        power = ((rounded.view(np.int64) - (ROUNDER_BITS - 1023)) << 52).view(np.float64)
        return (C0 + z * (C1 + z * C2)) * power


def _emit_log2(b, x):
    high = b.integers("or", b.integers("lshr", b.bits(x), 32), MAGIC_BITS)
    return b.instruction("fmul", b.instruction("fsub", b.from_bits(high), b.double(MAGIC)), b.double(UNIT))


def _emit_exp2(b, x):
    rounded = b.instruction("fadd", x, b.double(ROUNDER))
    z = b.instruction("fsub", x, b.instruction("fsub", rounded, b.double(ROUNDER)))
    exponent = b.integers("sub", b.bits(rounded), ROUNDER_BITS - 1023)
    power = b.from_bits(b.integers("shl", exponent, 52))
    inner = b.instruction("fadd", b.instruction("fmul", z, b.double(C2)), b.double(C1))
    outer = b.instruction("fadd", b.instruction("fmul", z, inner), b.double(C0))
    return b.instruction("fmul", outer, power)


def _power(whole):
    """2 to the power of a whole number, exactly."""
    return rough_exp2(whole) / C0


def _slope_of_log2(x, v):
    """1 / 2^e for x from 2^e to 2^(e + 1): of the straight line, whatever the bits left out make of it."""
    return 1.0 / _power(maximum(floor(v - CENTRE), LEAST_OCTAVE))


def _slope_of_exp2(x, v):
    whole = floor(x + 0.5)
    return (C1 + (2.0 * C2) * (x - whole)) * _power(whole)


def _rough(name, doc, slope, evaluate, emission):
    return elementwise(
        name, doc, partials=(slope,), evaluate=evaluate, python=f"{name}({{0}})", llvm=emission,
        sympy="a rough form of log2 and exp2, for step sizes only", domain=(REAL,),
    )  # fmt: skip


rough_log2 = _rough("rough_log2", "log2 to 0.044", _slope_of_log2, np_rough_log2, _emit_log2)
rough_exp2 = _rough("rough_exp2", "2 to the x, to 1.8e-3", _slope_of_exp2, np_rough_exp2, _emit_exp2)
