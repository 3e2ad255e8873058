"""Reverse mode: products with the transposed Jacobian, J^T w."""

from __future__ import annotations

from odec.graph.function import Function
from odec.graph.node import current_line, input_node, set_line, structural_zero
from odec.transforms.jvp import free_name


def cotangents(nodes, seeds, wanted):
    """{id(node): cotangent node} from the seeds (node -> cotangent) back to what `wanted` (inputs) need."""
    needed = needing(nodes, wanted)
    result = {id(node): cotangent for node, cotangent in seeds}
    before = current_line()
    for node in reversed(nodes):
        cotangent = result.get(id(node))
        if cotangent is None or not node.inputs or id(node) not in needed:
            continue
        set_line(node.line)
        for argument, part in zip(node.inputs, _parts(node, cotangent, needed), strict=True):
            if part is not None and id(argument) in needed:
                known = result.get(id(argument))
                total = part if known is None else known + part
                result[id(argument)] = total
                if argument.name and total.name is None:
                    total.name = f"{argument.name}_bar"
    set_line(before)
    return result


def needing(nodes, sources):
    """ids of the sources and of the nodes that depend on one of them; each node follows what it needs."""
    found = {id(n) for n in sources}
    for node in nodes:
        if any(id(i) in found for i in node.inputs):
            found.add(id(node))
    return found


def _parts(node, cotangent, needed):
    """The cotangents of a node's inputs; a call computes them together, so it is told which ones to leave out."""
    if node.op.family != "call":
        return node.op.vjp(node, cotangent)
    return node.op.vjp(node, cotangent, tuple(id(i) in needed for i in node.inputs))


def vjp(function, wrt=None):
    """J^T w as a Function of the inputs and of one cotangent `<output>_bar` for each output.

    Outputs `<input>_bar` for each input in `wrt`, shaped like that input.
    """
    names = list(function.inputs) if wrt is None else list(wrt)
    bars = {}
    for name, output in function.outputs.items():
        label = free_name(f"{name}_bar", (*function.inputs, *bars))
        bars[label] = input_node(label, output.shape, output.dtype)
    merged = {}
    for output, bar in zip(function.outputs.values(), bars.values(), strict=True):  # one node may be several outputs
        merged[id(output)] = (output, bar if id(output) not in merged else merged[id(output)][1] + bar)
    found = cotangents(function.nodes, list(merged.values()), [function.inputs[n] for n in names])
    outputs = {}
    for name in names:
        node = function.inputs[name]
        bar = found.get(id(node))
        outputs[f"{name}_bar"] = structural_zero(node.dtype, node.shape) if bar is None else bar
    return Function(f"{function.name}_vjp", {**function.inputs, **bars}, outputs)
