"""Where the solution of a model has no Taylor series: the operation of the model that has none, and its values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from odec.graph.function import Function
from odec.graph.node import constant, input_node
from odec.graph.op import OPS
from odec.graph.origin import Origin
from odec.transforms.taylor import Series, taylor

SMOOTH = frozenset(OPS[name] for name in ("add", "sub", "mul", "neg"))  # whose results can only overflow


@dataclass(frozen=True)
class Singular:
    """The first coefficient of a series that is not finite.

    origin : the operation of the model that it comes from, with its place and values there; its `value` is that of the
        coefficient, its `output_place` the component whose equation it is in
    order : of the coefficient; overflows : whether it is a number too large, and no branch point
    """

    origin: Origin
    order: int
    overflows: bool


def singular_point(f, order, t, y, p):
    """The Singular of the solution of dy/dt = f(t, y, p) through a point, or None where its coefficients are finite.

    f : Function (t: (), y: (n,), p: (m,)) -> (n,), finite there
    """
    rows = taylor(f, order).evaluate(t, y, p)["coefficients"].reshape(order + 1, -1)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if not bad.size:
        return None
    last = int(bad[0]) - 1  # of f along the solution, whose earlier coefficients are finite
    curve = _curve(f, last)
    series, given = Series(curve), [*f.inputs.values(), *curve[f.inputs["y"]][1:]]
    made = {(k, id(node)): series(node, k) for k in range(1, last + 1) for node in f.nodes}
    (rate,) = f.outputs.values()
    outputs = {"rate": rate if last == 0 else made[last, id(rate)]}
    whole = Function(f.name, {node.params["name"]: node for node in given}, outputs)
    found = whole.first_non_finite(t, y, p, *rows[1 : last + 1])
    if found is None:  # it overflowed as it was divided, or scaled
        return None
    values = f.values(t, y, p)
    node = _blamed(f, made, found.node)
    place = found.place if found.node.shape == node.shape else 0
    origin = Origin(node, place, found.value, tuple(values[id(i)] for i in node.inputs), "rate", found.output_place)
    return Singular(origin, last + 1, _overflows(found))


def _curve(f, last):
    """Series of the inputs that move: of y with inputs y_1, ... for its coefficients."""
    t, y = f.inputs["t"], f.inputs["y"]
    coefficients = [input_node(f"y_{k}", y.shape, y.dtype) for k in range(1, last + 1)]
    return {t: [t, constant(1.0, t.dtype)], y: [y, *coefficients]}


def _blamed(f, made, culprit):
    """The node of f whose coefficients are the first that a culprit enters."""
    seen = {id(node) for node in f.nodes}
    if id(culprit) in seen:
        return culprit
    nodes = {id(node): node for node in f.nodes}
    return next(nodes[place] for (_, place), made_of in made.items() if _enters(culprit, made_of, seen))


def _enters(culprit, node, seen):
    """Whether a node is made of `culprit` and not of nodes seen before alone; adds what it sees."""
    stack = [] if node is None else [node]
    while stack:
        inner = stack.pop()
        if inner is culprit:
            return True
        if id(inner) not in seen:
            seen.add(id(inner))
            stack.extend(inner.inputs)
    return False


def _overflows(found):
    """Whether an operation on finite numbers gave one too large, not one that is not defined."""
    if np.isnan(found.value) or found.node.op.family != "elementwise":
        return False
    return found.node.op in SMOOTH or all(x.reshape(-1)[found.place] != 0.0 for x in found.inputs)
