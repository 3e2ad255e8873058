"""The cubic through the states and slopes at both ends of a step: the dense output of methods without one."""

from __future__ import annotations

import numpy as np

from odec.graph.node import constant
from odec.ops.families import broadcast_to
from odec.ops.structure import concatenate, reshape


def hermite(h, y, f0, y1, f1):
    """q (3, n), as step.py wants it [hairer1993, II.6 (6.7)].

    h : () in the dtype of y; y, y1, f0, f1 : (n,)
    """
    size = broadcast_to(h, y.shape)
    change, left, right = y1 - y, size * f0, size * f1
    return stacked([change, 0.5 * (left - right), change - 0.5 * (left + right)], y)


def stacked(rows, y):
    """(len(rows), n) of vectors (n,) like y."""
    if not rows:
        return constant(np.empty((0, y.size)), y.dtype)
    return concatenate(*(reshape(x, shape=(1, y.size)) for x in rows), axis=0)
