"""The places of nodes in array code, and the loops that compute them there."""

from __future__ import annotations

import math

import numpy as np

from odec.codegen.fusion import beneath_reshapes, is_assembled, is_elementwise, is_leaf, is_view, plan
from odec.codegen.index_maps import Cut, IndexMaps, Region, Split, Unmappable, is_row_major, row_major, through
from odec.codegen.kernel import Assign, Element, Index, Kernel, Literal, Local, Names
from odec.codegen.lower_scalar import RESERVED, signature
from odec.codegen.nest import Nest
from odec.codegen.print_python import ROUTINES
from odec.graph.node import CONSTANT, scalar_value, structural_zero, value_of

LOOP_NAMES = ("i", "j", "k", "l", "m", "n", *(f"i{d}" for d in range(2, 60)))


class Places:
    """Where the nodes of a graph are, while its kernel is written: buffers, tables, locals; and the loops
    that compute a node into a place."""

    def __init__(self, function, name):
        self.function, self.name = function, name
        self.arguments = signature(function)
        taken = {a.name for a in self.arguments}
        self.variables = [v for v in LOOP_NAMES if v not in taken]
        self.names = Names(RESERVED | taken | set(self.variables) | set(ROUTINES))
        self.dtype = next(iter(function.outputs.values())).dtype
        self.planned = plan(function)
        self.body: list = []
        self.tables: dict[str, np.ndarray] = {}
        self.callees: dict[str, Kernel] = {}
        self.regions: dict[int, Region] = {}  # where nodes are, by id
        self.locals: dict[int, Local | Element | Literal] = {}  # single numbers, by id
        self.targets: dict[int, Region] = {}  # where nodes that have a region in advance will be
        self.sizes: dict[str, tuple[int, str]] = {}  # buffers of the workspace: (elements, dtype)
        self._table_names: dict[tuple, str] = {}
        self._made: list = []  # nodes made while lowering: they live as long as their ids are keys

    # ---- places

    def buffer(self, name, shape, dtype=None):
        """The region of a new workspace buffer."""
        name = self.names.new(name) if name else self.names.temporary()
        self.sizes[name] = (math.prod(shape), dtype or self.dtype)
        return Region(name, 0, row_major(shape))

    def table(self, array):
        """The name of a constant buffer."""
        key = (array.dtype.str, array.tobytes())
        if key not in self._table_names:
            kind = "index" if array.dtype.kind == "i" else "table"
            name = self._table_names[key] = self.names.new(f"{self.name}_{kind}")
            self.tables[name] = array
        return self._table_names[key]

    def region_of(self, node):
        """The region of a node that has one, or needs one because no loop can compute it; else None."""
        region = self.regions.get(id(node))
        if region is not None or is_elementwise(node) or self._is_in_pieces(node):
            return region
        if node.op.name == "reshape":
            source = self.region_of(node.inputs[0]) if id(node.inputs[0]) not in self.locals else None
            region = None if source is None else source.reshaped(node.inputs[0].shape, node.shape)
            if region is not None:
                self.regions[id(node)] = region
            return region
        return None if is_view(node) or scalar_value(node) is not None else self.keep(node)

    def keep(self, node):
        """The region of a node, computed now if it is not there yet; None for a number in a local."""
        region = self.regions.get(id(node))
        if region is not None or id(node) in self.locals:
            return region
        if node.op is CONSTANT and scalar_value(node) is None:
            dtype = self.dtype if node.dtype == "bool" else node.dtype
            table = self.table(np.ascontiguousarray(value_of(node), dtype).reshape(-1))
            region = Region(table, 0, row_major(node.shape))
        elif is_elementwise(node) and node.size == 1:
            self._keep_number(node)
            return None
        elif is_view(node) and (region := self.region_of(node)) is not None:
            return region
        else:
            region = self.targets.get(id(node)) or self.buffer(node.name, node.shape, self._stored_dtype(node))
            self.store(node, region)
        self.regions[id(node)] = region
        return region

    def _stored_dtype(self, node):
        return self.dtype if node.dtype == "bool" else node.dtype

    def _keep_number(self, node):
        body, operand = Nest(self, node, node.shape).values()
        self.body += body
        self.locals[id(node)] = operand

    def contiguous(self, node):
        """A contiguous region with the elements of a node: the one it has, or a copy."""
        region = self.keep(node)
        if region is None:
            region = self.buffer(node.name, node.shape, self._stored_dtype(node))
            self.body.append(Assign(Element(region.buffer, Index()), None, (self.locals[id(node)],)))
        elif not is_row_major(region.strides, node.shape):
            copy = self.buffer(node.name, node.shape, self._stored_dtype(node))
            self.store(node, copy)
            region = copy
        else:
            return region
        self.regions[id(node)] = region
        self.locals.pop(id(node), None)
        return region

    def locate(self, node):
        """A region that holds a node: where its views lead, or else a copy."""
        variables = self.variables[: node.ndim]
        maps = IndexMaps(dict(zip(variables, node.shape, strict=True)))
        index = tuple(Index() if n == 1 else Index(0, ((v, 1),)) for v, n in zip(variables, node.shape, strict=True))
        source = node
        try:
            while is_view(source) and self.region_of(source) is None:
                index = through(source, index, maps)
                source = source.inputs[0]
            if not isinstance(index, tuple) or scalar_value(source) is not None:
                raise Unmappable
        except (Split, Unmappable):
            return self.contiguous(node)
        region = self.keep(source) or self.contiguous(source)
        at = region.at(index)
        strides = dict(at.terms)
        return Region(region.buffer, at.offset, tuple(strides.get(v, 0) for v in variables))

    # ---- loops

    def store(self, node, region):
        """Compute a node into a region."""
        if self._is_fused(node):
            self.fill(node, region)
        else:
            self.targets[id(node)] = region
            node.op.lower(self, node)

    def fill(self, node, region, starts=None, shape=None, addend=None):
        """Loops that write node[starts + i] to region[i]; with `addend`, addend[i] + node[starts + i]."""
        shape = node.shape if shape is None else shape
        if 0 in shape:
            return
        try:
            nest = Nest(self, node, shape, starts, cuttable=True)
        except Cut as cut:
            self._fill_in_pieces(cut, node, region, starts or (0,) * len(shape), shape, addend)
            return
        elements = [Element(r.buffer, r.at(nest.index)) for r in (region, addend) if r is not None]
        target, *rest = nest.merge(*elements)
        if node.dtype == "bool":
            nest.number()
        body = nest.statements(target, *rest)
        self.body += nest.loops(body)

    def _fill_in_pieces(self, cut, node, region, starts, shape, addend):
        low, high = ([*shape], [*shape])
        low[cut.dimension], high[cut.dimension] = cut.at, shape[cut.dimension] - cut.at
        move = tuple(cut.at if d == cut.dimension else 0 for d in range(len(shape)))
        after = tuple(a + b for a, b in zip(starts, move, strict=True))
        self.fill(node, region, starts, tuple(low), addend)
        self.fill(node, region.part(move), after, tuple(high), addend and addend.part(move))

    def part(self, node, region):
        """Compute a node into a part of a buffer; an op that no loop computes writes there itself."""
        source = beneath_reshapes(node)
        inside = region if source is node else region.reshaped(node.shape, source.shape)
        if inside is not None and self.regions.get(id(source)) == inside:
            return  # it was computed there
        if inside is None or self._is_fused(source):
            self.fill(node, region)
        else:
            self.store(source, inside)
            self.regions[id(source)] = inside

    def _is_in_pieces(self, node):
        """Whether loops read the pieces of an assembled array, not the array."""
        return is_assembled(node) and id(node) not in self.planned.kept

    def _is_fused(self, node):
        """Whether loops read or compute a node, so that it needs no code of its own."""
        return id(node) in self.regions or is_leaf(node) or is_elementwise(node) or is_view(node)

    def clear(self, node):
        """Zeros in the region of a node."""
        zero = structural_zero(node.dtype, node.shape)
        self._made.append(zero)
        self.fill(zero, self.targets[id(node)])
