"""Where a number that is not finite comes from: back from an output to the operation that made it.

Only what the output depends on is followed. Whether it depends on a number is asked of NumPy: the
operation is done again with that number exchanged for a finite one. So the branch of a np.where that
was not taken, or an infinity that a later division turned into 0, is never blamed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from odec.graph.node import Node

GOLDEN = 0.6180339887498949  # its multiples modulo 1 are evenly spread and never alike


@dataclass(frozen=True)
class Origin:
    """The operation whose result is the first that is not finite on the way to an output.

    node : the operation; an input or a constant where that was not finite to begin with
    place : flat position of the element in `node`; value : that element, nan or an infinity
    inputs : the values of the operation's inputs, as arrays
    output, output_place : the output's name, and the flat position in it, from which the way led here
    """

    node: Node
    place: int
    value: float
    inputs: tuple[np.ndarray, ...]
    output: str
    output_place: int


def first_non_finite(function, arrays, outputs=None):
    """The Origin of the first element of the outputs that is not finite, or None where all are finite."""
    values = function.values(*arrays)
    for name in function.outputs if outputs is None else outputs:
        node = function.outputs[name]
        bad = np.flatnonzero(~np.isfinite(values[id(node)]))
        if bad.size:
            found, place = _source(node, int(bad[0]), values)
            inputs = tuple(values[id(i)] for i in found.inputs)
            return Origin(found, place, float(values[id(found)].flat[place]), inputs, name, int(bad[0]))
    return None


def _source(node, place, values):
    """(node, place) that made the element at `place` of `node` not finite."""
    while (back := _responsible(node, place, [values[id(i)] for i in node.inputs])) is not None:
        node, place = node.inputs[back[0]], back[1]
    return node, place


def _responsible(node, place, inputs):
    """(input number, flat position) of an input element that is not finite and decides the element at
    `place`; None where that element would be the same without all of these."""
    if node.op.family == "elementwise":
        back = _decisive(node, 0, [x.reshape(-1)[place : place + 1] for x in inputs])
        return None if back is None else (back[0], place)
    return _decisive(node, place, inputs)


def _decisive(node, place, inputs):
    """As `_responsible`, for inputs as the operation takes them: halves of the suspects until one is left."""
    suspects = np.array([(i, k) for i, x in enumerate(inputs) for k in np.flatnonzero(~np.isfinite(x))], int)
    least = _telling(node, place, inputs, suspects)
    if least is None:
        return None
    innocent = _element(node, place, inputs, suspects, least)
    low, high = 0, len(suspects)
    while high - low > 1:
        middle = (low + high) // 2
        others = np.delete(suspects, slice(low, middle), axis=0)
        blameless = _same(_element(node, place, inputs, others, least), innocent)
        low, high = (middle, high) if blameless else (low, middle)
    return int(suspects[low, 0]), int(suspects[low, 1])


def _telling(node, place, inputs, suspects):
    """Numbers in place of the suspects that change the element, or None where it does not depend on them."""
    if len(suspects):
        found = _element(node, place, inputs, suspects[:0], 0.0)
        for least in (0.25, 1.25):  # any function of one number is finite near one of them
            if not _same(_element(node, place, inputs, suspects, least), found):
                return least
    return None


def _element(node, place, inputs, exchanged, least):
    """One element of the operation's result with the `exchanged` input elements (input, position) made finite."""
    arrays = [np.array(x, order="C") for x in inputs]
    for i, array in enumerate(arrays):
        positions = exchanged[exchanged[:, 0] == i, 1]
        array.reshape(-1)[positions] = least + 0.5 * (GOLDEN * positions % 1.0)
    with np.errstate(all="ignore"):
        return np.asarray(node.op.evaluate(*arrays, **node.params), node.dtype).flat[place]


def _same(x, y):
    return x == y or (x != x and y != y)
