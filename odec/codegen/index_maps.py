"""Where an element of a view lies in the buffer behind it: affine maps of loop variables, and tables."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from odec.codegen.kernel import Index
from odec.graph.node import Data


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a buffer that holds an array: element (i, j, ...) at offset + sum of stride * index."""

    buffer: str
    offset: int
    strides: tuple[int, ...]

    def at(self, index):
        """The position of the element at a tuple of affine indices."""
        result = Index(self.offset)
        for i, stride in zip(index, self.strides, strict=True):
            result = plus(result, times(i, stride))
        return result

    def part(self, starts, steps=None):
        """The region of the elements start + step * i."""
        steps = steps or (1,) * len(starts)
        offset = self.offset + sum(a * s for a, s in zip(starts, self.strides, strict=True))
        return Region(self.buffer, offset, tuple(a * s for a, s in zip(steps, self.strides, strict=True)))

    def places(self, shape, flat):
        """Positions in the buffer of the elements at flat positions of an array of `shape`."""
        index = np.unravel_index(flat, shape) if shape else ()
        moved = (i * s for i, s in zip(index, self.strides, strict=True))
        return self.offset + sum(moved, np.zeros(len(flat), np.int64))

    def reshaped(self, shape, new_shape):
        """The same elements as an array of another shape, or None where strides cannot say it."""
        if not is_row_major(self.strides, shape):
            return None
        return Region(self.buffer, self.offset, row_major(new_shape))


@dataclass(frozen=True, slots=True)
class Gather:
    """An index through a table: the flat position `positions[at]`."""

    positions: Data
    at: Index


class Split(Exception):
    """A loop variable must be split so that its inner part runs over `inner` values."""

    def __init__(self, variable, inner):
        super().__init__(variable)
        self.variable, self.inner = variable, inner


class Cut(Exception):
    """The loops must be cut in two along a dimension, for what they read changes there."""

    def __init__(self, dimension, at):
        super().__init__(dimension, at)
        self.dimension, self.at = dimension, at


class Unmappable(Exception):
    """A view that no affine map of the loop variables expresses."""


def row_major(shape):
    """The strides of a contiguous array."""
    strides, stride = [], 1
    for n in reversed(shape):
        strides.append(stride)
        stride *= n
    return tuple(reversed(strides))


def is_row_major(strides, shape):
    """Whether an array with these strides is contiguous; axes of length 1 have no say."""
    return all(n == 1 or s == r for n, s, r in zip(shape, strides, row_major(shape), strict=True))


def plus(a, b):
    """The sum of two affine indices."""
    terms = dict(a.terms)
    for name, stride in b.terms:
        terms[name] = terms.get(name, 0) + stride
    return Index(a.offset + b.offset, tuple((n, s) for n, s in terms.items() if s))


def times(a, factor):
    """An affine index times a number."""
    return Index(a.offset * factor, tuple((n, s * factor) for n, s in a.terms if s * factor))


def replaced(index, variable, by):
    """An index with an affine index in place of a loop variable."""
    stride, beside = dict(index.terms).get(variable), dict(index.beside).get(variable)
    if beside:
        assert by.offset == 0, "what stands beside a table has no offset"
        kept = Index(0, tuple(t for t in index.beside if t[0] != variable))
        index = Index(index.offset, index.terms, index.table, plus(kept, times(by, beside)).terms)
    if not stride:
        return index
    rest = Index(index.offset, tuple(t for t in index.terms if t[0] != variable))
    moved = plus(rest, times(by, stride))
    return Index(moved.offset, moved.terms, index.table, index.beside)


def span(index, extents):
    """(lowest, highest) value of an affine index over the loops."""
    reach = [s * (extents[name] - 1) for name, s in index.terms]
    return index.offset + sum(r for r in reach if r < 0), index.offset + sum(r for r in reach if r > 0)


class IndexMaps:
    """What the index rule of a view may ask for; `extents` are those of the loop variables."""

    zero = Index()

    def __init__(self, extents):
        self.extents = extents

    def affine(self, i, step, start):
        """start + step * i."""
        return plus(times(i, step), Index(start))

    def table(self, array, index, _shape):
        """The element at array[index] of the flattened input."""
        return Gather(Data(array.reshape(-1)), Region("", 0, row_major(array.shape)).at(index))

    def reshaped(self, index, shape, source):
        """The index in an array of shape `source` of the element at `index` in `shape`."""
        flat = Region("", 0, row_major(shape)).at(index)
        result, terms, offset = [], flat.terms, flat.offset
        for d in range(len(source)):
            inner = math.prod(source[d + 1 :])
            whole = tuple((n, s // inner) for n, s in terms if s % inner == 0)
            terms = tuple((n, s) for n, s in terms if s % inner)
            quotient, offset = divmod(offset, inner)
            self._check_within(terms, offset, inner)
            result.append(Index(quotient, whole))
        return tuple(result)

    def _check_within(self, terms, offset, inner):
        """Split or Unmappable unless the terms never carry over into the axis outside."""
        low, high = span(Index(offset, terms), self.extents)
        if low >= 0 and high < inner:
            return
        for name, stride in terms:
            step, extent = abs(stride), self.extents[name]
            if inner % step == 0 and step * extent > inner and extent % (inner // step) == 0:
                raise Split(name, inner // step)
        raise Unmappable


def through(node, index, maps):
    """The index into the input of a view node, for an index into the view."""
    if isinstance(index, Gather):
        source = node.inputs[0]
        places = np.arange(source.size).reshape(source.shape)
        moved = np.reshape(node.op.evaluate(places, **node.params), -1)[index.positions.array]
        return Gather(Data(moved), index.at)
    return node.op.lower.index(node, maps, index)
