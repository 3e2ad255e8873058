"""The choice of a layout, and the kernel of a Function in it."""

from __future__ import annotations

import contextlib

from odec.codegen.lower_scalar import lower_scalar
from odec.errors import ArgumentError, nearest
from odec.transforms.jet_adjoint import JetAdjoint
from odec.transforms.orders import NoLoop
from odec.transforms.scalar import operation_count
from odec.transforms.taylor import Jet

STRAIGHT_LINE = 5_000  # scalar operations and outputs up to which straight-line code pays in any case
LONGEST_LINE = 8 * STRAIGHT_LINE  # up to which it is for series that no loop finds, whose array code is longer still
FEW_ELEMENTS = 4  # scalar operations a node up to which loops would hardly be shorter than straight-line code
LAYOUTS = ("auto", "scalar", "array")


def lower(function, name, layout="auto"):
    """The kernel of a Function: straight-line for small graphs, loops over buffers for large ones."""
    if layout not in LAYOUTS:
        raise ArgumentError(
            f"layout {layout!r} is not known{nearest(layout, LAYOUTS)} It is one of {', '.join(LAYOUTS)}."
        )
    if isinstance(function, (Jet, JetAdjoint)) and (layout == "array" or (layout == "auto" and not is_short(function))):
        from odec.codegen.lower_series import lower_series

        with contextlib.suppress(NoLoop):
            return lower_series(function, name)
        if layout == "auto" and operation_count(function) <= LONGEST_LINE:
            return lower_scalar(function, name)
    if layout == "array" or (layout == "auto" and not is_small(function)):
        from odec.codegen.lower_array import lower_array

        return lower_array(function, name)
    return lower_scalar(function, name)


def has_few_elements(function):
    """Whether loops over the elements of the nodes would hardly be shorter than straight-line code."""
    return operation_count(function) <= FEW_ELEMENTS * len(function.nodes)


def is_small(function):
    """Whether the scalar layout suits a graph."""
    calls = any(n.op.name == "call" for n in function.nodes)
    return not calls and (is_short(function) or has_few_elements(function))


def is_short(function):
    """Whether straight-line code of a graph is short."""
    if isinstance(function, Jet):
        return function.last is None and function.operations <= STRAIGHT_LINE
    elements = sum(n.size for n in (*function.inputs.values(), *function.outputs.values()))
    return operation_count(function) + elements // 4 <= STRAIGHT_LINE
