"""One nest of loops: an elementwise expression with its views, computed element by element."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from odec.codegen.fusion import calls_function, is_elementwise, is_view
from odec.codegen.index_maps import Cut, Gather, IndexMaps, Split, Unmappable, plus, replaced, span, through, times
from odec.codegen.kernel import Assign, Element, Index, Literal, Local, Loop
from odec.graph.node import CONSTANT, scalar_value
from odec.graph.op import OPS, Op


class Slot(NamedTuple):
    """The result of the k-th operation of a nest."""

    number: int


@dataclass(frozen=True, slots=True)
class Operation:
    """An elementwise op on elements, literals, locals and slots."""

    op: Op
    args: tuple
    params: dict
    dtype: str
    line: tuple | None
    name: str | None


@dataclass
class Axis:
    """A loop of the nest: its variable, how often it runs, and whether the result is summed over it."""

    variable: str
    extent: int
    summed: bool = False


class Nest:
    """Loops over `shape`, and the operations that give node[starts + index] in the innermost body."""

    def __init__(self, lowering, node, shape, starts=None, summed=(), cuttable=False):
        self.lowering, self.cuttable = lowering, cuttable
        self._seeks_rows, self._has_rows = True, False
        splits = {d: [n] for d, n in enumerate(shape) if n != 1}
        while True:
            try:
                self._build(node, shape, starts, summed, splits)
                if not (self._has_rows and self.calls_function):
                    return
                self._seeks_rows = self._has_rows = False  # vector lanes are worth more than short rows
            except Split as split:
                dimension, position = self._origin[split.variable]
                extent = splits[dimension][position]
                splits[dimension][position : position + 1] = [extent // split.inner, split.inner]

    def _build(self, node, shape, starts, summed, splits):
        self.axes, self._origin, self.operations, self._known, self.index = [], {}, [], {}, []
        for d in range(len(shape)):
            place = Index()
            for position, extent in enumerate(splits.get(d, ())):
                variable = self.lowering.variables[len(self.axes)]
                self.axes.append(Axis(variable, extent, d in summed))
                self._origin[variable] = (d, position)
                place = plus(times(place, extent), Index(0, ((variable, 1),)))
            self.index.append(place)
        self._maps = IndexMaps({a.variable: a.extent for a in self.axes})
        start = [plus(i, Index(a)) for i, a in zip(self.index, starts or (0,) * len(shape), strict=True)]
        self.result = self.pull(node, tuple(start))

    @property
    def calls_function(self):
        return any(calls_function(o.op, o.args, o.params) for o in self.operations)

    # ---- what is read and computed

    def pull(self, node, index):
        """The operand that holds node[index], after the operations that compute it."""
        stack, wanted = [(node, index)], (id(node), index)
        while stack:
            node, index = stack[-1]
            key = (id(node), index)
            if key in self._known:
                stack.pop()
                continue
            operand = self._leaf(node, index)
            if operand is None and not is_elementwise(node):
                source = self._source(node, index)
                if source is None:
                    continue  # it has a region now
                if (operand := self._known.get((id(source[0]), source[1]))) is None:
                    stack.append(source)
                    continue
            elif operand is None:
                missing = [(i, index) for i in node.inputs if (id(i), index) not in self._known]
                if missing:
                    stack.extend(reversed(missing))
                    continue
                args = tuple(self._known[id(i), index] for i in node.inputs)
                operand = self._operation(node.op, args, node.params, node.dtype, node.line, node.name)
            self._known[key] = operand
            stack.pop()
        return self._known[wanted]

    def _operation(self, op, args, params, dtype, line=None, name=None):
        self.operations.append(Operation(op, args, params, dtype, line, name))
        return Slot(len(self.operations) - 1)

    def number(self):
        """Make 1 and 0 of a result that is true or false, as buffers keep it."""
        dtype = self.lowering.dtype
        self.result = self._operation(OPS["where"], (self.result, Literal(1.0, dtype), Literal(0.0, dtype)), {}, dtype)

    def _source(self, node, index):
        """(input, index into it) where a view or an assembled array is read; None where it got a region instead."""
        if not is_view(node):
            return self._piece(node, index)
        moved = self._through(node, index)
        return None if moved is None else (node.inputs[0], moved)

    def _piece(self, node, index):
        """The piece of an assembled array that all loops together read; Cut where they read several."""
        if self.cuttable and isinstance(index, tuple):
            with contextlib.suppress(Unmappable):
                for piece, starts, steps in pieces_of(node):
                    inside = self._inside(piece, starts, steps, index)
                    if inside is not None:
                        return piece, inside
        self.lowering.keep(node)
        return None

    def _inside(self, piece, starts, steps, index):
        """The index into a piece; None where the loops miss it, Cut where they leave it."""
        moved = tuple(times(plus(i, Index(-a)), s) for i, a, s in zip(index, starts, steps, strict=True))
        for i, n in zip(moved, piece.shape, strict=True):
            low, high = span(i, self._maps.extents)
            if high < 0 or low >= n:
                return None
        for i, n in zip(moved, piece.shape, strict=True):
            low, high = span(i, self._maps.extents)
            if low < 0:
                self._cut(i, 0)
            if high >= n:
                self._cut(i, n)
        return moved

    def _cut(self, index, bound):
        """Cut the one loop that an index depends on where it reaches a bound."""
        if len(index.terms) > 1:
            raise Unmappable
        ((variable, stride),) = index.terms
        dimension, _ = self._origin[variable]
        if sum(d == dimension for d, _ in self._origin.values()) > 1:
            raise Unmappable
        # the first iteration on the far side of the bound
        at = -((index.offset - bound) // stride) if stride > 0 else (index.offset - bound) // -stride + 1
        raise Cut(dimension, at)

    def _through(self, node, index):
        """The index into the input of a view; None where the view was given a region instead."""
        try:
            return through(node, index, self._maps)
        except Unmappable:  # a contiguous input is read flat, which needs no map
            source = node.inputs[0]
            region = self.lowering.contiguous(source).reshaped(source.shape, node.shape)
            self.lowering.regions[id(node)] = region
            return None

    def _leaf(self, node, index):
        """The operand for a node that is in a buffer, a local or a constant; else None."""
        lowering = self.lowering
        if node.op is CONSTANT:
            if scalar_value(node) is not None:
                return Literal(scalar_value(node), node.dtype)
            lowering.keep(node)
        local = lowering.locals.get(id(node))
        if local is not None:
            return local
        region = lowering.region_of(node)
        if region is None:
            return None
        element = Element(region.buffer, self._position(region, node, index))
        if node.dtype == "bool":  # masks are kept as 0 and 1
            return self._operation(OPS["ne"], (element, Literal(0.0, lowering.dtype)), {}, "bool")
        return element

    def _position(self, region, node, index):
        if not isinstance(index, Gather):
            return region.at(index)
        places = region.places(node.shape, index.positions.array)
        return self.through_table(places, index.at)

    def through_table(self, places, at):
        """The index of a buffer at places[at], with a table of starts where rows of places lie evenly."""
        offset, terms, beside = at.offset, at.terms, ()
        while self._seeks_rows and terms:
            variable, stride = min(terms, key=lambda term: term[1])
            extent = self._maps.extents[variable]
            others = tuple((v, s) for v, s in terms if v != variable)
            if stride != 1 or any(n % extent for n in (offset, places.size, *(s for _, s in others))):
                break
            rows = places.reshape(-1, extent)
            apart = int(rows[0, 1] - rows[0, 0])
            if (rows != rows[:, :1] + apart * np.arange(extent)).any():
                break
            places, offset, terms = rows[:, 0], offset // extent, tuple((v, s // extent) for v, s in others)
            beside += ((variable, apart),) if apart else ()
            self._has_rows = True
        if not terms:
            return Index(int(places[offset]), beside)
        return Index(offset, terms, self.lowering.table(places.astype("int32")), beside)

    # ---- loops

    def run_along_rows(self):
        """Put a loop innermost that makes fewer jumps in memory than the last one, if there is one."""
        operands = [a for o in self.operations for a in o.args] + [self.result]
        strides = [dict(a.index.terms + a.index.beside) for a in operands if isinstance(a, Element)]

        def jumps(axis):
            return sum(s.get(axis.variable, 0) not in (0, 1) for s in strides)

        if self.axes and jumps(best := min(reversed(self.axes), key=jumps)) < jumps(self.axes[-1]):
            self.axes.remove(best)
            self.axes.append(best)

    def merge(self, *elements):
        """Join neighbouring loops where every access, of `elements` too, goes on in the same stride.

        Returns the elements with the joined variables.
        """
        for k in reversed(range(len(self.axes) - 1)):
            outer, inner = self.axes[k], self.axes[k + 1]
            accesses = [a for o in self.operations for a in o.args] + [self.result, *elements]
            indices = [a.index for a in accesses if isinstance(a, Element)]
            terms = [dict(t) for index in indices for t in (index.terms, index.beside)]
            flat = all(t.get(outer.variable, 0) == t.get(inner.variable, 0) * inner.extent for t in terms)
            if flat and outer.summed == inner.summed:
                elements = self.substitute(outer.variable, Index(), elements)
                elements = self.substitute(inner.variable, Index(0, ((outer.variable, 1),)), elements)
                outer.extent *= inner.extent
                del self.axes[k + 1]
        return elements

    def substitute(self, variable, by, elements=()):
        """Put an affine index in place of a loop variable, here and in `elements`, which are returned."""

        def moved(a):
            return Element(a.buffer, replaced(a.index, variable, by)) if isinstance(a, Element) else a

        self.operations = [
            Operation(o.op, tuple(map(moved, o.args)), o.params, o.dtype, o.line, o.name) for o in self.operations
        ]
        self.result = moved(self.result)
        return tuple(map(moved, elements))

    def values(self, target=None):
        """(statements that compute the result, the operand that holds it): `target` where the last one can write it."""
        names, body, operands = self.lowering.names, [], []
        last = len(self.operations) - 1
        for k, o in enumerate(self.operations):
            args = tuple(operands[a.number] if isinstance(a, Slot) else a for a in o.args)
            if target is not None and k == last and self.result == Slot(last):
                place = target
            else:
                place = Local(names.new(o.name) if o.name else names.temporary(), o.dtype)
            body.append(Assign(place, o.op, args, o.params, o.line))
            operands.append(place)
        return body, operands[self.result.number] if isinstance(self.result, Slot) else self.result

    def statements(self, target, addend=None):
        """The innermost body: target = result, or target = addend + result."""
        body, result = self.values(target if addend is None else None)
        if addend is not None:
            body.append(Assign(target, OPS["add"], (addend, result)))
        elif result is not target:
            body.append(Assign(target, None, (result,)))
        return body

    def loops(self, body, axes=None, vector=None):
        """The body inside the loops; the innermost in vector lanes where functions are called."""
        vector = self.calls_function if vector is None else vector
        for position, axis in enumerate(reversed(self.axes if axes is None else axes)):
            body = [Loop(axis.variable, axis.extent, body, vector=vector and position == 0)]
        return body


def pieces_of(node):
    """(input, starts, steps) of the pieces of an assembled array; of two that meet, the first one counts."""
    if node.op.name == "update":
        base, value = node.inputs
        yield value, node.params["starts"], node.params["steps"]
        yield base, (0,) * node.ndim, (1,) * node.ndim
        return
    offset, axis = 0, node.params["axis"]
    for piece in node.inputs:
        yield piece, tuple(offset if d == axis else 0 for d in range(node.ndim)), (1,) * node.ndim
        offset += piece.shape[axis]


def pairwise_sum(terms, target, local):
    """Statements that add up terms, a power of two of them, in pairs.

    local : (k) -> a new Local for the k-th sum
    """
    body = []
    while len(terms) > 1:
        sums = []
        for a, b in zip(terms[::2], terms[1::2], strict=True):
            sums.append(target if len(terms) == 2 else local(len(body)))
            body.append(Assign(sums[-1], OPS["add"], (a, b)))
        terms = sums
    return body or [Assign(target, None, (terms[0],))]
