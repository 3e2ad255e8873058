"""Quadratures: the last numbers of a state, which are integrated along a solution and which nothing reads."""

from __future__ import annotations

from odec.graph.function import Function
from odec.graph.node import structural_zero
from odec.ops.rearranging import along
from odec.ops.structure import concatenate


def at_rest(f, count):
    """The Function whose last `count` numbers are zero, where those of f are rates of quadratures.

    f : Function (t: (), y: (n,), p: (m,)) -> (n,)
    """
    if not count:
        return f
    ((name, rate),) = f.outputs.items()
    still = structural_zero(rate.dtype, (count,))
    return Function(f"{f.name}_at_rest", f.inputs, {name: concatenate(along(rate, 0, 0, -count), still, axis=0)})
