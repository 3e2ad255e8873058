"""The rules of the op `call`: each transform of a call is a call of the transformed callee.

Transformed callees are kept, so that all calls of one Function share them.
"""

from __future__ import annotations

from dataclasses import dataclass

from odec.graph.function import Function
from odec.graph.node import Node, input_node, is_structural_zero
from odec.ops.call import RULES, call, result_of
from odec.transforms.derived import once
from odec.transforms.jvp import jvp
from odec.transforms.scalar import expand, operation_count
from odec.transforms.sparsity import propagated
from odec.transforms.tape import call_vjp
from odec.transforms.taylor import Jet, Series


def _called(function, *args):
    """The call, or None where the result is zero by structure."""
    zero = function is None or (not isinstance(function, Jet) and is_structural_zero(result_of(function)))
    return None if zero else call(function, *args)


def _jvp(node, tangents):
    function = node.params["function"]
    moving = [(name, t) for name, t in zip(function.inputs, tangents, strict=True) if t is not None]
    names = tuple(name for name, _ in moving)
    return _called(once(function, ("jvp", names), lambda: jvp(function, names)), *node.inputs, *(t for _, t in moving))


@dataclass(frozen=True, eq=False)
class _Coefficients:
    """The coefficients of a call: each is a call of a Function of the arguments' coefficients."""

    node: Node

    def coefficient(self, series, k):
        function, arguments = self.node.params["function"], self.node.inputs
        known = {
            name: [series(argument, j) for j in range(1, k + 1)]
            for name, argument in zip(function.inputs, arguments, strict=True)
            if argument.dtype != "bool" and not series.is_constant(argument)
        }
        present = tuple((name, tuple(c is not None for c in found)) for name, found in known.items())
        coefficient = once(function, ("taylor", k, present), lambda: _coefficient(function, present, k))
        return _called(coefficient, *arguments, *(c for found in known.values() for c in found if c is not None))


def _coefficient(function, present, k):
    """The k-th coefficient of a Function of its inputs and the coefficients `<input>_<j>` that are there."""
    inputs, curve = dict(function.inputs), {}
    for name, found in present:
        source = function.inputs[name]
        curve[source] = [source, *[None] * k]
        for j, is_there in enumerate(found, 1):
            if is_there:
                inputs[f"{name}_{j}"] = curve[source][j] = input_node(f"{name}_{j}", source.shape, source.dtype)
    series = Series(curve)
    for j in range(1, k + 1):
        for node in function.nodes:
            series(node, j)
    result = series(result_of(function), k)
    return None if result is None else Function(f"{function.name}_coefficient{k}", inputs, {"coefficient": result})


def _scalarise(*parts, function):
    (result,) = expand(function, dict(zip(function.inputs.values(), parts, strict=True))).values()
    return result


def _cost(function):
    return function.operations if isinstance(function, Jet) else operation_count(function)


def _reach(node, masks):
    function = node.params["function"]
    (result,) = propagated(function, {id(i): m for i, m in zip(function.inputs.values(), masks, strict=True)}).values()
    return result


RULES.update(
    jvp=_jvp, vjp=call_vjp, taylor=_Coefficients, scalarise=_scalarise, reach=_reach, cost=_cost,
)  # fmt: skip
