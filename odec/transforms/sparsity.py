"""Structural sparsity: which inputs each output can depend on, and colourings of such patterns."""

from __future__ import annotations

import numpy as np

from odec.graph.node import CONSTANT, INPUT, scalar_value, value_of
from odec.graph.op import zero
from odec.transforms.vjp import vjp


def dependencies(function, wrt):
    """Outputs by name as object arrays of Python ints: bit j is set where input element j matters."""
    source = function.inputs[wrt]
    masks = {}
    for node in function.nodes:
        if node is source:
            bits = np.empty(node.shape, object)
            for place, index in enumerate(np.ndindex(*node.shape)):
                bits[index] = 1 << place
            masks[id(node)] = bits
        elif node.op not in (INPUT, CONSTANT):
            parts = [masks.get(id(i)) for i in node.inputs]
            if any(p is not None for p in parts):
                masks[id(node)] = np.asarray(_propagate(node, parts), object)
    blank = lambda node: np.full(node.shape, 0, object)
    return {name: masks[id(n)] if id(n) in masks else blank(n) for name, n in function.outputs.items()}


def _propagate(node, parts):
    parts = [np.full(i.shape, 0, object) if p is None else p for p, i in zip(parts, node.inputs, strict=True)]
    if node.op.family == "elementwise":
        if node.op.jvp is zero:
            return np.full(node.shape, 0, object)
        if node.op.name == "where" and node.inputs[0].op is CONSTANT:
            condition = np.asarray(value_of(node.inputs[0]))
            return np.where(condition, parts[1], parts[2])
        result = parts[0]
        for p in parts[1:]:
            result = np.bitwise_or(result, p)
        return result
    if node.op.name == "sum":
        return np.asarray(np.bitwise_or.reduce(parts[0], axis=node.params["axes"]), object)
    if node.op.name == "cumsum":
        return np.bitwise_or.accumulate(parts[0], axis=node.params["axis"])
    if node.op.name == "matmul":
        return _matmul(node, *parts)
    if node.op.name == "put_add":
        return _put_add(node, parts[0])
    if node.op.family == "linear":
        return node.op.evaluate(*parts, **node.params)
    return _all_of(node, parts)


def _matmul(node, a, b):
    """Row i of a meets column j of b; a zero in a constant factor cuts the dependence."""
    result = np.empty(node.shape, object)
    present_a, present_b = (_nonzero(i) for i in node.inputs)
    if present_a is None and present_b is None:
        rows = np.bitwise_or.reduce(a, axis=-1)[..., :, None]
        columns = np.bitwise_or.reduce(b, axis=-2)[..., None, :]
        result[...] = np.bitwise_or(rows, columns)
        return result
    for index in np.ndindex(*node.shape):
        *lead, i, j = index
        left, right = a[(*lead, i)], b[(*lead, slice(None), j)]
        keep = np.ones(len(left), bool)
        if present_a is not None:
            keep &= present_a[(*lead, i)]
        if present_b is not None:
            keep &= present_b[(*lead, slice(None), j)]
        mask = 0
        for bits in (*left[keep], *right[keep]):
            mask |= bits
        result[index] = mask
    return result


def _nonzero(node):
    if node.op is not CONSTANT:
        return None
    value = node.params["value"]
    return np.full(node.shape, scalar_value(node) != 0) if scalar_value(node) is not None else value.array != 0


def _put_add(node, bits):
    result = np.full(node.shape, 0, object).reshape(-1)
    for place, mask in zip(node.params["index"].array.ravel(), bits.ravel(), strict=True):
        result[place] |= mask
    return result.reshape(node.shape)


def _all_of(node, parts):
    """Everything depends on everything: linear systems, determinants."""
    mask = 0
    for p in parts:
        for bits in p.flat:
            mask |= bits
    return np.full(node.shape, mask, object)


def pattern(masks):
    """(rows, columns) of the set bits, in row-major order."""
    rows, columns = [], []
    for row, bits in enumerate(masks.ravel()):
        found = bit_positions(bits)
        columns.append(found)
        rows.append(np.full(found.size, row))
    if not rows:
        return np.empty(0, int), np.empty(0, int)
    return np.concatenate(rows), np.concatenate(columns)


def bit_positions(bits):
    """Positions of the ones of a Python int, rising."""
    if bits.bit_count() <= 8:
        found = []
        while bits:
            low = bits & -bits
            found.append(low.bit_length() - 1)
            bits ^= low
        return np.asarray(found, int)
    packed = np.frombuffer(bits.to_bytes((bits.bit_length() + 7) // 8, "little"), np.uint8)
    return np.flatnonzero(np.unpackbits(packed, bitorder="little"))


def jacobian_pattern(function, wrt):
    """(rows, columns) where d output / d wrt can differ from zero; the output flattened."""
    (masks,) = dependencies(function, wrt).values()
    return pattern(masks)


def hessian_pattern(function, wrt):
    """(rows, columns) where the Hessian of some w . f can differ from zero: the Jacobian pattern of J^T w."""
    gradient = vjp(function, wrt=[wrt])
    return jacobian_pattern(gradient, wrt)


def colouring(rows, columns, count):
    """A colour for each of `count` columns such that no two of one colour share a row (greedy, by degree)
    [curtis1974, gebremedhin2005]; -1 for a column that the pattern has not, which then is no seed."""
    members = [[] for _ in range(count)]
    by_row: dict[int, list[int]] = {}
    for r, c in zip(rows.tolist(), columns.tolist(), strict=True):
        members[c].append(r)
        by_row.setdefault(r, []).append(c)
    colours = np.full(count, -1)
    row_colours: dict[int, set[int]] = {r: set() for r in by_row}
    for c in sorted(range(count), key=lambda c: -len(members[c])):
        if not members[c]:
            break
        used = set().union(*(row_colours[r] for r in members[c]))
        colour = 0
        while colour in used:
            colour += 1
        colours[c] = colour
        for r in members[c]:
            row_colours[r].add(colour)
    return colours
