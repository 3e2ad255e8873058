"""Jacobians and divergence from coloured forward mode: one tangent pass a colour [curtis1974]."""

from __future__ import annotations

import numpy as np

from odec.graph.function import Function
from odec.graph.node import constant, structural_zero, topological
from odec.ops.reduction import sum_
from odec.ops.structure import concatenate, reshape, stack, take
from odec.transforms.jvp import tangents
from odec.transforms.scalar import expand, operation_count, scalar_inputs
from odec.transforms.sparsity import colouring, diagonal_colouring, jacobian_pattern

SMALL = 4_000  # scalar operations up to which derivatives are always taken element by element
FEW_ELEMENTS = 8  # scalar operations a node up to which a larger graph is treated so, too: it is scalars already


def jacobian_values(function, wrt, pattern=None):
    """The structurally nonzero entries of d output / d wrt as a Function with output `values` (nnz,),
    in the row-major order of `jacobian_pattern`.

    Small graphs are expanded to scalars first, so that no operation with a structural zero is left.
    """
    rows, columns = jacobian_pattern(function, wrt) if pattern is None else pattern
    colours = colouring(rows, columns, function.inputs[wrt].size)
    if not len(rows):
        (output,) = function.outputs.values()
        return Function(
            f"{function.name}_jacobian_{wrt}", function.inputs, {"values": constant(np.zeros(0), output.dtype)}
        )
    entries = _way(function)(function, wrt, rows, columns, colours)
    return Function(f"{function.name}_jacobian_{wrt}", function.inputs, {"values": entries})


def _way(function):
    count = operation_count(function)
    small = count <= SMALL or count <= FEW_ELEMENTS * len(function.nodes)
    return _by_elements if small else _by_arrays


def _by_elements(function, wrt, rows, columns, colours):
    (dtype,) = {o.dtype for o in function.outputs.values()}
    inputs = scalar_inputs(function)
    (outputs,) = expand(function, inputs).values()
    outputs = outputs.reshape(-1)
    elements = inputs[function.inputs[wrt]].reshape(-1)
    nodes = topological(outputs)
    one, zero = constant(1.0, dtype), structural_zero(dtype)
    entries = np.full(len(rows), zero, object)
    for colour in range(colours.max(initial=-1) + 1):
        found = _element_tangents(nodes, {id(elements[c]): one for c in np.flatnonzero(colours == colour)})
        for k in np.flatnonzero(colours[columns] == colour):
            entries[k] = found.get(id(outputs[rows[k]]), zero)
    return stack(list(entries), (len(rows),))


def diagonal_by_elements(function, wrt, colours):
    """The diagonal (n,) of d output / d wrt, element by element; zero where a colour of `diagonal_colouring` is -1."""
    places = np.arange(len(colours))
    return _by_elements(function, wrt, places, places, colours)


def _element_tangents(nodes, seeds):
    """Tangents of scalar nodes from seeds on the elements of an input."""
    result = dict(seeds)
    for node in nodes:
        if id(node) in result:
            continue
        parts = [result.get(id(i)) for i in node.inputs]
        if any(p is not None for p in parts):
            tangent = node.op.jvp(node, parts)
            if tangent is not None:
                result[id(node)] = tangent
    return result


def _by_arrays(function, wrt, rows, columns, colours):
    source = function.inputs[wrt]
    ((_, output),) = function.outputs.items()
    count = colours.max(initial=-1) + 1
    passes = []
    for colour in range(count):
        seed = constant((colours == colour).astype(float).reshape(source.shape), source.dtype)
        found = tangents(function.nodes, {source: seed}).get(id(output))
        found = structural_zero(output.dtype, output.shape) if found is None else found
        passes.append(reshape(found, shape=(output.size,)))
    together = concatenate(*passes, axis=0)
    return take(together, index=colours[columns] * output.size + rows)


def divergence(function, wrt="y"):
    """The trace of d output / d wrt as a Function with output `divergence` ()."""
    colours = diagonal_colouring(*jacobian_pattern(function, wrt), function.inputs[wrt].size)
    there = np.flatnonzero(colours >= 0)
    if not len(there):
        total = constant(0.0, function.inputs[wrt].dtype)
    else:
        total = sum_(_way(function)(function, wrt, there, there, colours), axes=(0,))
    return Function(f"{function.name}_divergence", function.inputs, {"divergence": total})
