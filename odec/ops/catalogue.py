"""What a model may call."""

from __future__ import annotations

import numpy as np

from odec import special
from odec.graph.op import TRACEABLE
from odec.ops.refusals import REFUSED


def supported():
    """The names of all functions that can be traced: 'np.sin', 'np.linalg.norm', 'odec.special.erf', ..."""
    names = [
        f"{prefix}.{name}"
        for prefix, module in (("np", np), ("np.linalg", np.linalg))
        for name, value in vars(module).items()
        if callable(value) and _is_traceable(value)
    ]
    own = [f"odec.special.{f.__name__}" for f in TRACEABLE if getattr(f, "__module__", None) == special.__name__]
    return sorted([*names, "np.multiply.outer", *own])


def _is_traceable(value):
    try:
        return value in TRACEABLE and value not in REFUSED
    except TypeError:  # not hashable
        return False
