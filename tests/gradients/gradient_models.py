"""Models that tests of gradients share."""

import numpy as np

import odec


@odec.dynamics
def driven(t, y, a, b, c, d):
    """Lotka and Volterra's, with prey that breed by season."""
    return [a * y[0] - b * y[0] * y[1] + 0.3 * np.sin(2 * t), -c * y[1] + d * y[0] * y[1]]


@odec.dynamics
def decay(t, y, rate):
    return -rate * y
