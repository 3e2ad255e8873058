"""Functions that NumPy has not, on traced values and on plain numbers and arrays.

They are computed in forms that neither overflow nor lose digits.
"""

from __future__ import annotations

import numpy as np

from odec.graph.op import OPS, traceable
from odec.graph.trace import call_traceable, is_traced
from odec.ops.families import float_node


def erf(x):
    """The error function, 2/sqrt(pi) times the integral of exp(-s²) from 0 to x; shaped like x."""
    return _apply(erf, x)


def sigmoid(x):
    """1 / (1 + exp(-x)), shaped like x."""
    return _apply(sigmoid, x)


def softplus(x):
    """log(1 + exp(x)), shaped like x."""
    return _apply(softplus, x)


def relu(x):
    """max(0, x), shaped like x; its derivative at 0 is 0."""
    return _apply(relu, x)


def _apply(function, x):
    if is_traced(x):
        return call_traceable(function, (x,), {})
    x = np.asarray(x)
    return _ON_ARRAYS[function](x if x.dtype.kind == "f" else x.astype(float))


_ON_ARRAYS = {erf: OPS["erf"].evaluate, sigmoid: OPS["sigmoid"].evaluate, softplus: OPS["softplus"].evaluate,
              relu: lambda x: np.maximum(0, x)}  # fmt: skip
for _function, _name in ((erf, "erf"), (sigmoid, "sigmoid"), (softplus, "softplus")):
    traceable(_function)(OPS[_name])


@traceable(relu)
def _relu(x):
    return OPS["maximum"](0.0, float_node(x))  # the constant first: it wins the tie at 0
