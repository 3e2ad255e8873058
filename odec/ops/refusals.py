"""NumPy's functions that a traced array cannot have, each with what to write instead."""

from __future__ import annotations

import numpy as np

from odec.graph.op import traceable

_SHAPE = "the shape of its result depends on values"
_STEPS = "its result moves in steps, so it has no useful derivative"
_ORDER = "which element it takes depends on values"

REFUSED = {
    np.round: (_STEPS, "use np.floor(x + 0.5)"),
    np.around: (_STEPS, "use np.floor(x + 0.5)"),
    np.rint: (_STEPS, "use np.floor(x + 0.5)"),
    np.trunc: (_STEPS, "use np.sign(x) * np.floor(np.abs(x))"),
    np.fix: (_STEPS, "use np.sign(x) * np.floor(np.abs(x))"),
    np.argmax: (_ORDER, "use np.max, or np.where with a comparison"),
    np.argmin: (_ORDER, "use np.min, or np.where with a comparison"),
    np.argsort: (_ORDER, "sort before the solve, or use np.maximum and np.minimum"),
    np.sort: (_ORDER, "sort before the solve, or use np.maximum and np.minimum"),
    np.searchsorted: (_ORDER, "use np.interp for a table"),
    np.nonzero: (_SHAPE, "use np.where(condition, a, b)"),
    np.flatnonzero: (_SHAPE, "use np.where(condition, a, b)"),
    np.argwhere: (_SHAPE, "use np.where(condition, a, b)"),
    np.extract: (_SHAPE, "use np.where(condition, a, 0.0)"),
    np.compress: (_SHAPE, "use np.where(condition, a, 0.0)"),
    np.unique: (_SHAPE, "find the distinct values before the solve"),
    np.array_equal: ("it asks for values", "use np.all(a == b) inside np.where"),
    np.allclose: ("it asks for values", "use np.where(np.abs(a - b) < tolerance, ...)"),
}


def _refusing(function, reason, cure):
    def refuse(*args, **kwargs):
        raise TypeError(f"{reason}; {cure}")

    traceable(function)(refuse)


for _function, (_reason, _cure) in REFUSED.items():
    _refusing(_function, _reason, _cure)
