"""Quantities that are integrated along a solution: dr/dt = q(t, y, p) beside dy/dt = f(t, y, p); nothing reads r."""

from __future__ import annotations

from typing import NamedTuple

from odec.graph.function import Function
from odec.graph.node import INPUT, Node, input_node, structural_zero
from odec.graph.structure import Structure
from odec.ops.rearranging import along
from odec.ops.structure import concatenate, reshape


class Dynamics(NamedTuple):
    """What a rate q is made of.

    name : of the model, for messages
    f : Function (t: (), y: (n,), p: (m,)) -> (n,)
    structure : how y lies in the flat vector
    given : {name: node (n,)}, further parameters, each like y
    """

    name: str
    f: Function
    structure: Structure
    given: dict[str, Node]


def rate_of_part(plan, dynamics, structure):
    """plan.rate of the first numbers of y alone, as an expression of the inputs of `dynamics`.

    structure : of these numbers; what follows them in y is read by nothing
    """
    f, size = dynamics.f, structure.size
    t, y, p = f.inputs.values()
    if size == y.size:
        return plan.rate(dynamics)
    first = input_node("y", (size,), y.dtype)
    (slope,) = f(t, concatenate(first, structural_zero(y.dtype, (y.size - size,)), axis=0), p).values()
    inputs = {"t": t, "y": first, "p": p}
    part = Function(f.name, inputs, {"dydt": along(slope, 0, 0, size)})
    rate = plan.rate(dynamics._replace(f=part, structure=structure))
    given = {name: node for name, node in dynamics.given.items() if node.op is INPUT}
    return Function("rate", inputs | given, {"rate": rate}).substitute({first: along(y, 0, 0, size)})["rate"]


def with_quadratures(dynamics, rate):
    """The right-hand side of y and r together.

    Parameters
    ----------
    dynamics : Dynamics
    rate : node (k,), q as an expression of the inputs of dynamics.f and of dynamics.given

    Returns
    -------
    Function (t: (), y: (n + k,), p: (m + g,)) -> (n + k,), where y is y and r, p is p and what is given
    """
    f, given = dynamics.f, dynamics.given
    (slope,) = f.outputs.values()
    n, m = f.inputs["y"].size, f.inputs["p"].size
    inputs = {**f.inputs, **{f"given_{name}": node for name, node in given.items()}}
    both = Function(f.name, inputs, {"dydt": concatenate(slope, rate, axis=0)})
    t = input_node("t", (), f.inputs["t"].dtype)
    z = input_node("y", (n + rate.size,), f.inputs["y"].dtype)
    p = input_node("p", (m + sum(node.size for node in given.values()),), f.inputs["p"].dtype)
    point, start = [t, along(z, 0, 0, n), along(p, 0, 0, m)], m
    for node in given.values():
        point.append(along(p, 0, start, start + node.size))
        start += node.size
    return Function("rhs", {"t": t, "y": z, "p": p}, both(*point))


def leaves_of(structure, vector):
    """The parts of a vector (n,) that are the arrays of a Structure, each in its shape."""
    return [
        reshape(along(vector, 0, leaf.offset, leaf.offset + leaf.size), shape=leaf.shape)
        for _, leaf in structure.leaves
    ]
