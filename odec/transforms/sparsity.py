"""Structural sparsity: which inputs each output can depend on, and colourings of such patterns."""

from __future__ import annotations

import numpy as np

from odec.transforms.vjp import vjp


def dependencies(function, wrt):
    """Outputs by name as object arrays of Python ints: bit j is set where input element j matters."""
    source = function.inputs[wrt]
    bits = np.empty(source.shape, object)
    for place, index in enumerate(np.ndindex(*source.shape)):
        bits[index] = 1 << place
    return propagated(function, {id(source): bits})


def propagated(function, masks):
    """Outputs by name as masks, from the masks of inputs, {id(node): object array}; the others are zero."""
    masks = dict(masks)
    blank = lambda node: np.full(node.shape, 0, object)
    for node in function.nodes:
        if any(id(i) in masks for i in node.inputs):
            parts = [masks[id(i)] if id(i) in masks else blank(i) for i in node.inputs]
            masks[id(node)] = np.asarray(node.op.reach(node, parts), object)
    return {name: masks[id(n)] if id(n) in masks else blank(n) for name, n in function.outputs.items()}


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


def diagonal_colouring(rows, columns, count):
    """A colour for each of `count` columns such that no two of one colour have an entry in the row of the other: then
    the entries of a diagonal are in the sum of the columns (greedy, by degree); -1 where the diagonal has no entry."""
    pairs = set(zip(rows.tolist(), columns.tolist(), strict=True))
    beside: list[set[int]] = [set() for _ in range(count)]
    for r, c in pairs:
        if r != c and (r, r) in pairs and (c, c) in pairs:
            beside[r].add(c)
            beside[c].add(r)
    colours = [-1] * count
    for c in sorted((c for c in range(count) if (c, c) in pairs), key=lambda c: -len(beside[c])):
        used = {colours[other] for other in beside[c]}
        colours[c] = next(colour for colour in range(count) if colour not in used)
    return np.array(colours, int)
