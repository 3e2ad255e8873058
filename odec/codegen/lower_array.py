"""The array layout: a graph as fused loops over flat row-major buffers and BLAS calls.

Views are index maps, elementwise chains are computed inside the loop that needs them, and only what
`fusion.plan` keeps gets a buffer; outputs and parts of concatenations are written in place.
"""

from __future__ import annotations

import numpy as np

from odec.codegen.fusion import beneath_reshapes, calls_function, is_elementwise, is_leaf, is_view
from odec.codegen.index_maps import Region, is_row_major, plus, row_major
from odec.codegen.kernel import Allocate, Assign, Call, Element, Index, Kernel, Literal, Local, Loop, Return
from odec.codegen.nest import Nest, pairwise_sum
from odec.codegen.places import Places
from odec.codegen.row_blocks import in_row_blocks
from odec.codegen.workspace import place_buffers
from odec.graph.function import Function
from odec.graph.node import Data, input_node, make
from odec.graph.op import OPS
from odec.ops.structure import slices
from odec.transforms.simplify import array_form

LOOP_PRODUCT = 32  # multiplications up to which a matrix product is a loop nest among others, as with a vector
STRAIGHT_SYSTEM = 5  # unknowns up to which a linear system is solved by straight-line code
WAYS = 4  # sums that rows are added to in turn where one sum would wait for itself
ACCUMULATORS = 8  # partial sums of a reduction along neighbouring elements: fills vector registers


def lower_array(function, name=None):
    """The kernel of a Function in the array layout."""
    return _ArrayLowering(array_form(function), name or function.name).kernel()


class _ArrayLowering(Places):
    """The `lower` rules of ops call its methods; each of them writes the target region of a node."""

    def kernel(self):
        for node in self.function.inputs.values():
            self.regions[id(node)] = Region(node.params["name"], 0, row_major(node.shape))
        self._aim_at_outputs()
        for node in self.function.nodes:
            if id(node) in self.planned.kept and id(node) not in self.planned.owned:
                self.keep(node)
        for name, node in self.function.outputs.items():
            known = self.regions.get(id(beneath_reshapes(node)))
            if known is None or known.buffer != name:
                self.fill(node, Region(name, 0, row_major(node.shape)))
        self.body = in_row_blocks(self.body, self.sizes, self.names, self.dtype)
        outputs = {a.name: (a.size, a.dtype) for a in self.arguments if a.written}
        work_size = place_buffers(self.body, self.sizes, outputs, self.dtype)
        self.body.append(Return())
        callees = tuple(self.callees.values())
        return Kernel(self.name, self.arguments, self.body, self.dtype, self.tables, work_size, callees)

    def _aim_at_outputs(self):
        for name, node in self.function.outputs.items():
            source = beneath_reshapes(node)
            scalar = is_elementwise(source) and source.size == 1
            if id(source) in self.planned.kept and not scalar and id(source) not in self.targets:
                self.targets[id(source)] = Region(name, 0, row_major(source.shape))
                if source.op.name == "concatenate":
                    self._aim_at_parts(source)

    def _aim_at_parts(self, joined):
        """Let what others read too, and an output is joined of, be computed where it goes."""
        for part, region in self._parts(joined):
            source = beneath_reshapes(part)
            inside = region.reshaped(part.shape, source.shape)
            alone = source.size > 1 and not is_leaf(source) and not is_view(source)
            if alone and inside is not None and id(source) in self.planned.kept and id(source) not in self.targets:
                self.targets[id(source)] = inside
                if source.op.name == "concatenate":
                    self._aim_at_parts(source)

    def _parts(self, node):
        """(input, its region) of a concatenation whose region is known."""
        region, axis, offset = self.targets[id(node)], node.params["axis"], 0
        for i in node.inputs:
            yield i, region.part(tuple(offset if d == axis else 0 for d in range(node.ndim)))
            offset += i.shape[axis]

    # ---- assembled arrays

    def concatenate(self, node):
        """Each input written to its part."""
        for part, region in self._parts(node):
            self.part(part, region)

    def update(self, node):
        """A chain of updates of one base, written in order into one buffer."""
        region, chain, base = self.targets[id(node)], [], node
        while base.op.name == "update" and id(base) not in self.regions:
            chain.append(base)
            base = base.inputs[0]
        self._fill_base(base, chain, region)
        for link in reversed(chain):
            starts, steps = link.params["starts"], link.params["steps"]
            self.part(link.inputs[1], region.part(starts, steps))

    def _fill_base(self, base, chain, region):
        """The base of a chain of updates, where they leave it to be seen."""
        if not self._is_fused(base):
            self.part(base, region)
            return
        covered = np.zeros(base.shape, bool)
        for link in chain:
            starts, steps, shape = link.params["starts"], link.params["steps"], link.inputs[1].shape
            covered[slices(starts, steps, shape)] = True
        for starts, shape in slabs_outside(covered):
            self.fill(base, region.part(starts), starts, shape)

    # ---- sums

    def accumulate(self, node, x, axes):
        """Sums of x over axes."""
        region = self.targets[id(node)]
        if x.size == 0:
            self.clear(node)
            return
        kept = [d for d in range(x.ndim) if d not in axes]
        strides = dict(zip(kept, region.strides, strict=True))
        spread = Region(region.buffer, region.offset, tuple(strides.get(d, 0) for d in range(x.ndim)))
        nest = Nest(self, x, x.shape, summed=axes)
        nest.run_along_rows()
        (target,) = nest.merge(Element(region.buffer, spread.at(nest.index)))
        if not nest.axes or not nest.axes[-1].summed:
            self.clear(node)
            body = nest.statements(target, target)
            self.body += nest.loops(body)
        else:
            self._sum_along(nest, target, node.dtype)

    def _sum_along(self, nest, target, dtype):
        """Sums over the innermost loop, in several partial sums that fill vector lanes: the order of
        additions is fixed by the extent alone."""
        summed, kept = [a for a in nest.axes if a.summed], [a for a in nest.axes if not a.summed]
        *outer, last = summed
        count = ACCUMULATORS if last.extent >= 2 * ACCUMULATORS else 1
        taken = {a.variable for a in nest.axes}
        partial, lane = self.names.new("partial"), next(v for v in self.variables if v not in taken)
        place = Element(partial, Index(0, ((lane, 1),)))
        zero = Loop(lane, count, [Assign(place, None, (Literal(0.0, dtype),))])
        vector = count > 1 or nest.calls_function
        whole, rest = divmod(last.extent, count)
        operations, result = nest.operations, nest.result
        moved = plus(Index(0, ((last.variable, count),)), Index(0, ((lane, 1),)))
        nest.substitute(last.variable, moved)
        body = nest.statements(place, place)
        inner = [Loop(last.variable, whole, [Loop(lane, count, body, vector=vector)])]
        if rest:
            nest.operations, nest.result = operations, result
            nest.substitute(last.variable, Index(whole * count, ((lane, 1),)))
            body = nest.statements(place, place)
            inner.append(Loop(lane, rest, body, vector=vector))
        terms = [Element(partial, Index(k)) for k in range(count)]
        tree = pairwise_sum(terms, target, lambda _: Local(self.names.temporary(), dtype))
        self.body.append(Allocate(partial, count, None, dtype))
        self.body += nest.loops([zero, *nest.loops(inner, outer, False), *tree], kept, False)

    def running_sum(self, node, x, axis):
        """Sums of x up to each element along an axis."""
        region = self.targets[id(node)]
        if x.size == 0:
            return
        if self._calls_function(x):  # the loop is a recurrence, so lanes cannot run along it
            self.keep(x)
        first = tuple(1 if d == axis else n for d, n in enumerate(x.shape))
        later = tuple(n - 1 if d == axis else n for d, n in enumerate(x.shape))
        one = tuple(int(d == axis) for d in range(x.ndim))
        self.fill(x, region, shape=first)
        self.fill(x, region.part(one), one, later, addend=region)

    def scatter_add(self, node, x, index):
        """x added into zeros at the flat positions of a table."""
        region = self.targets[id(node)]
        if _waits(index, node.size):
            way = (np.arange(len(index)) % WAYS).reshape(-1, *(1,) * (index.ndim - 1))
            sums = make(OPS["put_add"], [x], index=Data(index + way * node.size), shape=(WAYS, *node.shape))
            self._made.append(sums)
            self.keep(sums)
            self.accumulate(node, sums, (0,))
            return
        self.clear(node)
        if x.size == 0:
            return
        if self._calls_function(x):  # two lanes may meet in one element
            self.keep(x)
        places = region.places(node.shape, index.reshape(-1))
        nest = Nest(self, x, x.shape)
        flat = Region("", 0, row_major(x.shape)).at(nest.index)
        (target,) = nest.merge(Element(region.buffer, nest.through_table(places, flat)))
        body = nest.statements(target, target)
        self.body += nest.loops(body)

    def _calls_function(self, x):
        """Whether computing x inside a loop would call a mathematical function there."""
        stack, seen = [x], set()
        while stack:
            node = stack.pop()
            if id(node) in seen or is_leaf(node) or id(node) in self.regions or id(node) in self.locals:
                continue
            seen.add(id(node))
            if is_elementwise(node) and calls_function(node.op, node.inputs, node.params):
                return True
            if is_elementwise(node) or is_view(node) or self._is_in_pieces(node):
                stack.extend(node.inputs)
        return False

    # ---- linear algebra

    def matmul(self, node):
        """A matrix product: a loop nest for a tiny one and for vectors, else a call (see small_product.py)."""
        a, b = node.inputs
        m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
        if m * n * k <= LOOP_PRODUCT or m == 1 or n == 1 or 0 in (*node.shape, k):
            self._matmul_loops(node, a, b)
        else:
            self._matmul_call(node, a, b, m, n, k)

    def _matmul_loops(self, node, a, b):
        *lead, m, k = a.shape
        n = b.shape[-1]
        wide = (*lead, m, k, n)
        left = OPS["broadcast"](OPS["reshape"](a, shape=(*lead, m, k, 1)), shape=wide)
        right = OPS["broadcast"](OPS["reshape"](b, shape=(*lead, 1, k, n)), shape=wide)
        products = left * right
        self._made += [left, right, products]
        self.accumulate(node, products, (len(lead) + 1,))

    def _matmul_call(self, node, a, b, m, n, k):
        region = self.targets[id(node)]
        c = region
        if (n != 1 and region.strides[-1] != 1) or (m != 1 and region.strides[-2] < n):
            c = self.buffer(node.name, node.shape)
        (a, flip_a, lda), (b, flip_b, ldb) = self._factor(a), self._factor(b)
        ldc = max(c.strides[-2], n) if m != 1 else n
        lead = node.shape[:-2]
        variables = self.variables[: len(lead)]
        index = [Index(0, ((v, 1),)) for v in variables]
        at = lambda r: Element(r.buffer, Region(r.buffer, r.offset, r.strides[: len(lead)]).at(index))
        body = [Call("gemm", (flip_a, flip_b, m, n, k, at(a), lda, at(b), ldb, at(c), ldc), node.line)]
        for v, extent in zip(reversed(variables), reversed(lead), strict=True):
            body = [Loop(v, extent, body)]
        self.body += body
        if c is not region:
            self.regions[id(node)] = c
            self.fill(node, region)
            del self.regions[id(node)]

    def _factor(self, x):
        """(region, flipped, leading dimension) of a factor as BLAS reads it."""
        region = self.locate(x)
        (rows, columns), (down, across) = x.shape[-2:], region.strides[-2:]
        if (across == 1 or columns == 1) and (down >= columns or rows == 1):
            return region, False, down if rows != 1 else columns
        if (down == 1 or rows == 1) and (across >= rows or columns == 1):
            return region, True, across if columns != 1 else rows
        return self.contiguous(x), False, columns

    def solve(self, node):
        a, b = node.inputs
        n, m = b.shape
        if n <= STRAIGHT_SYSTEM:
            self._call_straight(node)
            return
        region = self.targets[id(node)]
        matrix, x, pivots = self.buffer("lu", (n, n)), region, self._pivots(n)
        if m != 1 or not is_row_major(region.strides, node.shape):
            x = self.buffer(node.name, (n * m,))
            x = Region(x.buffer, 0, (1, n))
        self.fill(a, Region(matrix.buffer, 0, (1, n)))
        self.fill(b, x)
        self.body.append(Call("gesv", (n, m, *map(start, (matrix, x, pivots))), node.line))
        if x is not region:
            self.regions[id(node)] = x
            self.fill(node, region)
            del self.regions[id(node)]

    def det(self, node):
        (a,) = node.inputs
        n = a.shape[-1]
        if n <= STRAIGHT_SYSTEM:
            self._call_straight(node)
            return
        matrix = self.buffer("lu", (n, n))
        self.fill(a, matrix)
        self.body.append(Call("det", (n, *map(start, (matrix, self._pivots(n), self.targets[id(node)]))), node.line))

    def _pivots(self, n):
        """Room for n integers of eight bytes."""
        return self.buffer("pivots", (n * (8 // np.dtype(self.dtype).itemsize),))

    def _call_straight(self, node):
        """Call straight-line code for one small op."""
        inputs = {f"a{k}": input_node(f"a{k}", i.shape, i.dtype) for k, i in enumerate(node.inputs)}
        name = f"{node.op.name}_{'_'.join(str(n) for i in node.inputs for n in i.shape)}_{node.dtype}"
        function = Function(name, inputs, {"x": make(node.op, list(inputs.values()), **node.params)})
        self._call(node, function, name, "scalar")

    def call(self, node):
        """A call of another Function's kernel."""
        function = node.params["function"]
        self._call(node, function, f"{function.name}_{function.stamp[:10]}", "auto")

    def _call(self, node, function, name, layout):
        from odec.codegen.lower import lower

        callee = self.callees.get(name)
        if callee is None:
            callee = self.callees[name] = lower(function, name, layout)
        region = self.targets[id(node)]
        result = region
        if not is_row_major(region.strides, node.shape):
            result = self.buffer(node.name, node.shape, node.dtype)
        args = [start(self._whole(i)) for i in node.inputs] + [start(result)]
        if callee.work_size:
            size = callee.work_size
            args.append(start(self.buffer("scratch", (size,), callee.dtype)))
        self.body.append(Call(name, tuple(args), node.line))
        if result is not region:
            self.regions[id(node)] = result
            self.fill(node, region)
            del self.regions[id(node)]

    def _whole(self, node):
        """A contiguous region with the elements of a node."""
        region = self.locate(node)
        return region if is_row_major(region.strides, node.shape) else self.contiguous(node)


def start(region):
    """The first element of a region."""
    return Element(region.buffer, Index(region.offset))


def slabs_outside(covered):
    """[(starts, shape)] of boxes that hold every element that is not covered: the slabs around the box
    of what is covered, or everything where that box has holes."""
    if not covered.any():
        return [((0,) * covered.ndim, covered.shape)]
    box = []
    for d in range(covered.ndim):
        found = np.flatnonzero(covered.any(axis=tuple(e for e in range(covered.ndim) if e != d)))
        box.append((int(found[0]), int(found[-1]) + 1))
    if not covered[tuple(slice(a, b) for a, b in box)].all():
        return [((0,) * covered.ndim, covered.shape)]
    result, inside = [], [(0, n) for n in covered.shape]
    for d, (a, b) in enumerate(box):
        for low, high in ((0, a), (b, covered.shape[d])):
            if low < high:
                ranges = [*inside[:d], (low, high), *inside[d + 1 :]]
                result.append((tuple(r[0] for r in ranges), tuple(r[1] - r[0] for r in ranges)))
        inside[d] = (a, b)
    return result


def _waits(index, size):
    """Whether adding row after row at these flat positions of so many often waits for the row before."""
    if index.ndim == 0 or index.size < 4 * WAYS * size:
        return False
    first = index.reshape(len(index), -1)[:, 0]
    return 2 * np.count_nonzero(first[1:] == first[:-1]) > len(index)
