"""An array graph as a graph of scalars, for straight-line code and element-wise sparse derivatives."""

from __future__ import annotations

import numpy as np

from odec.graph.node import CONSTANT, INPUT, constant, current_line, make, scalar_value, set_line, spread, value_of
from odec.ops.structure import element


def scalar_inputs(function):
    """{input: object array of its elements as scalar nodes}."""
    result = {}
    for node in function.inputs.values():
        parts = np.empty(node.shape, object)
        for place, index in enumerate(np.ndindex(*node.shape)):
            parts[index] = element(node, place) if node.shape else node
        result[node] = parts
    return result


def expand(function, inputs=None, trail=None):
    """Outputs by name as object arrays of scalar nodes (shape ()).

    Nodes are expanded in the order in which they were made, which is the order of the user's lines and of
    a step's stages; `trail`, a list, receives the scalars in that order.

    Every op but the elementwise ones acts on object arrays as NumPy does on numbers, so their
    NumPy evaluation is their expansion.
    """
    values = {id(node): parts for node, parts in (inputs or scalar_inputs(function)).items()}
    before = current_line()
    for node in sorted(function.nodes, key=lambda node: node.serial):
        if node.op is INPUT:
            continue
        set_line(node.line)
        if node.op is CONSTANT:
            result = _constant_elements(node)
        else:
            result = _expanded(node, [values[id(i)] for i in node.inputs])
        if node.name is not None:
            _pass_name(node, result)
        values[id(node)] = result
        if trail is not None:
            trail.extend(result.flat)
    set_line(before)
    return {name: values[id(node)] for name, node in function.outputs.items()}


def _expanded(node, parts):
    if node.op.family != "elementwise":
        result = node.op.scalarise(*parts, **node.params)
        if isinstance(result, np.ndarray):
            return result
        boxed = np.empty((), object)
        boxed[()] = result
        return boxed
    result = np.empty(node.shape, object)
    flat = result.reshape(-1)
    for k, args in enumerate(zip(*(p.reshape(-1) for p in parts), strict=True)):
        flat[k] = make(node.op, args, **node.params)
    return result


def _constant_elements(node):
    result = np.empty(node.shape, object)
    if scalar_value(node) is not None:
        result.fill(spread(node, ()))
        return result
    for index, value in np.ndenumerate(value_of(node)):
        result[index] = constant(value, node.dtype)
    return result


def _pass_name(node, result):
    if node.shape == ():
        scalar = result[()]
        if scalar.name is None and scalar.op is not CONSTANT:
            scalar.name = node.name
        return
    for index, scalar in np.ndenumerate(result):
        if scalar.name is None and scalar.op is not CONSTANT:
            scalar.name = "_".join([node.name, *map(str, index)])


def operation_count(function):
    """How many scalar operations straight-line code of this graph would take, roughly."""
    return sum(node.op.cost(node) for node in function.nodes)
