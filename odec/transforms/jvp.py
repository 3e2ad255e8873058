"""Forward mode: directional derivatives, J v."""

from __future__ import annotations

from odec.graph.function import Function
from odec.graph.node import CONSTANT, INPUT, current_line, input_node, set_line, structural_zero


def tangents(nodes, seeds):
    """{id(node): tangent node} of every node that depends on the seeds (input -> tangent node)."""
    result = {id(node): tangent for node, tangent in seeds.items() if tangent is not None}
    before = current_line()
    for node in nodes:
        if node.op in (INPUT, CONSTANT):
            continue
        parts = [result.get(id(i)) for i in node.inputs]
        if any(p is not None for p in parts):
            set_line(node.line)
            tangent = node.op.jvp(node, parts)
            if tangent is not None:
                result[id(node)] = tangent
                if node.name and tangent.name is None:
                    tangent.name = f"{node.name}_dot"
    set_line(before)
    return result


def jvp(function, wrt=None):
    """J v as a Function of the inputs and of one tangent `<input>_dot` for each input in `wrt`, in that order.

    Where the function has such an input already (it is a jvp itself), the tangent is `<input>_dot2`, and so on.
    Outputs `<output>_dot`, shaped like the outputs of `function`.
    """
    names, inputs, seeds = list(function.inputs) if wrt is None else list(wrt), dict(function.inputs), {}
    for name in names:
        source, label = function.inputs[name], free_name(f"{name}_dot", inputs)
        inputs[label] = seeds[source] = input_node(label, source.shape, source.dtype)
    found = tangents(function.nodes, seeds)
    outputs = {
        f"{name}_dot": found[id(node)] if id(node) in found else structural_zero(node.dtype, node.shape)
        for name, node in function.outputs.items()
    }
    return Function(f"{function.name}_jvp", inputs, outputs)


def free_name(wish, taken):
    """`wish`, with a number after it where it is taken."""
    name, number = wish, 2
    while name in taken:
        name, number = f"{wish}{number}", number + 1
    return name
