"""One nest of loops: an elementwise expression with its views, computed element by element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from odec.codegen.fusion import calls_function, is_view
from odec.codegen.index_maps import Gather, IndexMaps, Split, Unmappable, plus, replaced, through, times
from odec.codegen.kernel import Assign, Element, Index, Literal, Local, Loop
from odec.graph.node import CONSTANT, scalar_value
from odec.graph.op import OPS


class Slot(NamedTuple):
    """The result of the k-th operation of a nest."""

    number: int


@dataclass(frozen=True, slots=True)
class Operation:
    """An elementwise op on elements, literals, locals and slots."""

    op: object
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

    def __init__(self, lowering, node, shape, starts=None, summed=()):
        self.lowering = lowering
        splits = {d: [n] for d, n in enumerate(shape) if n != 1}
        while True:
            try:
                self._build(node, shape, starts, summed, splits)
                return
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
        stack = [(node, index)]
        while stack:
            node, index = stack[-1]
            key = (id(node), index)
            if key in self._known:
                stack.pop()
                continue
            operand = self._leaf(node, index)
            if operand is None and is_view(node):
                moved = self._through(node, index)
                if moved is None:
                    continue  # it has a region now
                source = (node.inputs[0], moved)
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
        return operand

    def _operation(self, op, args, params, dtype, line=None, name=None):
        self.operations.append(Operation(op, args, params, dtype, line, name))
        return Slot(len(self.operations) - 1)

    def number(self):
        """Make 1 and 0 of a result that is true or false, as buffers keep it."""
        dtype = self.lowering.dtype
        self.result = self._operation(OPS["where"], (self.result, Literal(1.0, dtype), Literal(0.0, dtype)), {}, dtype)

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
        if not index.at.terms:
            return Index(int(places[index.at.offset]))
        return Index(index.at.offset, index.at.terms, self.lowering.table(places.astype("int32")))

    # ---- loops

    def merge(self, *elements):
        """Join neighbouring loops where every access, of `elements` too, goes on in the same stride.

        Returns the elements with the joined variables.
        """
        for k in reversed(range(len(self.axes) - 1)):
            outer, inner = self.axes[k], self.axes[k + 1]
            accesses = [a for o in self.operations for a in o.args] + [self.result, *elements]
            terms = [dict(a.index.terms) for a in accesses if isinstance(a, Element)]
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

    def statements(self, target, addend=None):
        """The innermost body: target = result, or target = addend + result.

        target : Element, or None for a new Local; returns (statements, operand that holds the result)
        """
        names, body, operands = self.lowering.names, [], []
        last = len(self.operations) - 1
        for k, o in enumerate(self.operations):
            args = tuple(operands[a.number] if isinstance(a, Slot) else a for a in o.args)
            ends_here = addend is None and target is not None and k == last and self.result == Slot(last)
            place = target if ends_here else Local(names.new(o.name) if o.name else names.temporary(), o.dtype)
            body.append(Assign(place, o.op, args, o.params, o.line))
            operands.append(place)
        result = operands[self.result.number] if isinstance(self.result, Slot) else self.result
        if addend is not None:
            body.append(Assign(target, OPS["add"], (addend, result)))
        elif target is not None and result is not target:
            body.append(Assign(target, None, (result,)))
        return body, result

    def loops(self, body, axes=None, vector=None):
        """The body inside the loops; the innermost in vector lanes where functions are called."""
        vector = self.calls_function if vector is None else vector
        for position, axis in enumerate(reversed(self.axes if axes is None else axes)):
            body = [Loop(axis.variable, axis.extent, body, vector=vector and position == 0)]
        return body


__all__ = ["Nest"]
