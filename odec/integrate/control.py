"""The step size from the error: a PI controller in logarithms to base 2.

The factor needs two digits, so a straight line through the exponent's bits stands for the logarithm and
a parabola for the power: the libraries' would cost a tenth of a small model's step, all of it waiting.
"""

from __future__ import annotations

from odec.codegen.machine import bits, from_bits

LOG2_SAFETY = -0.15200309344504997  # log2(0.9)
SHRINK = 0.2  # the least factor of one step
GROW = 10.0  # the largest
LEAST_LOG = -13.287712379549449  # log2(1e-4): errors below say no more [hairer1993, II.4]
ONE_BITS = 4607182418800017408 - 193654783976931  # bits of 1.0, less 0.043 * 2^52 to centre the line
UNIT = 2.220446049250313e-16  # 2^-52
ROUNDER = 6755399441055744.0  # 1.5 * 2^52: a sum with it holds the nearest integer in its low bits
ROUNDER_BITS = 4843621399236968448


def log2_rough(x):
    """log2 of a non-negative finite number, to 0.044; about -1023 for 0."""
    return (bits(x) - ONE_BITS) * UNIT


def exp2_rough(x):
    """2^x to a relative 1.8e-3, for |x| < 1000."""
    rounded = x + ROUNDER
    z = x - (rounded - ROUNDER)
    return (1.0005137 + z * (0.70339652 + z * 0.23783042)) * from_bits((bits(rounded) - ROUNDER_BITS + 1023) << 52)


def accepted_factor(squared, log_before, order):
    """The next step over this one, after an accepted step [hairer1996, IV.2: beta = 0.04 for order 5].

    squared : the square of the error norm; log_before : log2 of the norm one accepted step earlier
    """
    beta = 0.2 / order
    log_error = 0.5 * log2_rough(squared)
    factor = exp2_rough((beta * log_before + LOG2_SAFETY) - (1.0 / order - 0.75 * beta) * log_error)
    return min(GROW, max(SHRINK, factor))


def rejected_factor(squared, order):
    """The next try over this one, after a rejected step."""
    return max(SHRINK, exp2_rough(LOG2_SAFETY - 0.5 * log2_rough(squared) / order))
