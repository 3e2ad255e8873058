"""The step size from the error: a PI controller in logarithms to base 2.

The factor 2^(-a log2 err + b log2 err_before) needs two digits, so polynomials replace the libraries'
log and pow, which would cost a tenth of a small model's step.
"""

from __future__ import annotations

from odec.integrate.machine import bits, from_bits

SAFETY = 0.9
SHRINK = 0.2  # the least factor of one step
GROW = 10.0  # the largest
MANTISSA = 4503599627370496  # 2^52


def log2_rough(x):
    """log2 of a positive finite number, to 3e-4."""
    i = bits(x)
    exponent = (i >> 52) - 1023
    z = from_bits((i & (MANTISSA - 1)) | (1023 << 52)) - 1.0
    return exponent + z + z * (1.0 - z) * (0.44102163 + z * (0.08325865 * z - 0.24437422))  # polynomial exact at both ends


def exp2_rough(x):
    """2^x to 3e-4 of it, for |x| < 1000."""
    whole = int(x + 2048.0) - 2048  # floor, as the sum is positive
    z = x - whole
    return (1.0 + z + z * (1.0 - z) * (-0.30519654 - 0.07932284 * z)) * from_bits((whole + 1023) << 52)


def clipped_log2(squared):
    """log2 of an error from its square, within the range in which the controller works."""
    return 0.5 * log2_rough(min(max(squared, 1e-60), 1e60))


def accepted_factor(log_error, log_before, order):
    """The next step over this one, after an accepted step [hairer1996, IV.2: beta = 0.04 for order 5]."""
    beta = 0.2 / order
    factor = SAFETY * exp2_rough(-(1.0 / order - 0.75 * beta) * log_error + beta * log_before)
    return min(GROW, max(SHRINK, factor))


def rejected_factor(log_error, order):
    """The next try over this one, after a rejected step."""
    return max(SHRINK, SAFETY * exp2_rough(-log_error / order))
