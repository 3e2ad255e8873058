"""The scalar layout: a graph as straight-line code on scalars."""

from __future__ import annotations

import math

from odec.codegen.kernel import Argument, Assign, Element, Index, Kernel, Literal, Local, Names, Return
from odec.graph.node import CONSTANT, INPUT, scalar_value, topological
from odec.transforms.scalar import expand
from odec.transforms.simplify import mirrored

RESERVED = {"np", "work", "float", "abs", "range", "True", "False", "None", "sigmoid", "softplus", "erf",
            "rough_log2", "rough_exp2",
            "and", "or", "not", "if", "else", "for", "in", "is", "def", "return", "lambda", "from", "import", "as",
            "with", "while", "class", "pass", "global", "del", "try", "raise", "yield", "assert", "async", "await",
            "break", "continue", "except", "finally", "elif", "nonlocal", "entry"}  # fmt: skip


def signature(function, extra=()):
    """The arguments of a function's kernel: inputs, then outputs, flat."""
    inputs = [Argument(name, n.size, n.dtype, shape=n.shape) for name, n in function.inputs.items()]
    outputs = [
        Argument(name, math.prod(shape), dtype, written=True, shape=shape)
        for name, (shape, dtype) in function.kinds.items()
    ]
    return (*inputs, *outputs, *extra)


def lower_scalar(function, name=None):
    """The kernel of a Function in the scalar layout."""
    trail = []
    outputs = expand(function, trail=trail)
    arguments = signature(function)
    names = Names(RESERVED | {a.name for a in arguments})
    dtype = next(iter(function.outputs.values())).dtype
    operands, body = {}, []
    ends = [n for parts in outputs.values() for n in parts.flat]
    once = mirrored(topological([*trail, *ends]))
    needed = {id(n) for n in topological([once[id(n)] for n in ends])}
    for node in topological([*(once[id(n)] for n in trail), *(once[id(n)] for n in ends)]):
        if id(node) in needed:
            operands[id(node)] = _operand(node, operands, names, body)
    for output, parts in outputs.items():
        for k, node in enumerate(parts.flat):
            body.append(Assign(Element(output, Index(k)), None, (operands[id(once[id(node)])],)))
    body.append(Return())
    return Kernel(name or function.name, arguments, body, dtype)


def _operand(node, operands, names, body):
    """Where the value of a scalar node is, after the statement that computes it."""
    if node.op is CONSTANT:
        return Literal(
            scalar_value(node) if scalar_value(node) is not None else node.params["value"].array[()], node.dtype
        )
    if node.op is INPUT:
        if node.shape:
            return None  # reached through its elements
        source, index = node.params["name"], Index(0)
    elif node.op.name == "take":
        source, index = node.inputs[0].params["name"], Index(int(node.params["index"].array))
    else:
        local = Local(names.new(node.name) if node.name else names.temporary(), node.dtype)
        body.append(Assign(local, node.op, tuple(operands[id(i)] for i in node.inputs), node.params, node.line))
        return local
    if node.op is INPUT:
        wish = f"{source}_now"  # the buffer has the plain name
    else:
        wish = node.name or f"{source}_{index.offset}"
    local = Local(names.new(wish), node.dtype)
    body.append(Assign(local, None, (Element(source, index),), line=node.line))
    return local
