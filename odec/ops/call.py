"""The application of another Function as one node: its kernel is called, not inlined.

A step of a large model holds its right-hand side once, however many stages evaluate it.
"""

from __future__ import annotations

from collections.abc import Callable

from odec.graph.node import coerce, make
from odec.graph.op import Op

RULES: dict[str, Callable] = {}  # transforms of the callee; odec.transforms.callee states them, one floor up


def result_of(function):
    """The one output of a Function, as a node."""
    (node,) = function.outputs.values()
    return node


def _build(op, function, *args):
    return make(op, coerce(args), function=function)


def _evaluate(*arrays, function):
    (array,) = function.evaluate(*arrays).values()
    return array


call = Op(
    "call", "call", "f(*inputs) for a Function f of one output",
    shape=lambda *shapes, function: function.result[0], dtype=lambda *dtypes, function: function.result[1],
    evaluate=_evaluate,
    scalarise=lambda *parts, function: RULES["scalarise"](*parts, function=function), build=_build,
    jvp=lambda node, tangents: RULES["jvp"](node, tangents),
    vjp=lambda node, g, wanted=None: RULES["vjp"](node, g, wanted),
    taylor=lambda node, series: RULES["taylor"](node), simplify=None, python=None, llvm=None,
    reach=lambda node, masks: RULES["reach"](node, masks), cost=lambda node: RULES["cost"](node.params["function"]),
    lower=lambda lowering, node: lowering.call(node), sympy="found through the graph of the callee", domain=(),
)  # fmt: skip
