"""Blocks of rows: loops and narrow products on the rows of arrays run one after another on a few rows at a time, which
stay in the nearest cache from the first to the last of them.

A statement is cut where its outermost loop, or the rows of a factor of a product, can be: statement k on block b comes
before statement k + 1 on it, and after statement k + 1 on block b - 1, so what they read and write in different blocks
must not meet. Arrays that only these statements need are no longer than a block then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from odec.codegen.index_maps import plus, replaced, span
from odec.codegen.kernel import Allocate, Assign, Call, Element, Index, Literal, Local, Loop
from odec.codegen.small_product import NARROW
from odec.graph.op import OPS

MOST_ROWS, LEAST_ROWS = 32, 16  # of a block
LARGE = 8192  # elements from which on an array that is written and read again does not stay in the nearest cache
EVERYTHING = 2**62


class _Access(NamedTuple):
    """Elements low ... high of a buffer in the first block, `stride` further on in each next one."""

    buffer: str
    low: int
    high: int
    stride: int
    written: bool


class _Cut(NamedTuple):
    """A statement in blocks: `first` comes before all of them."""

    first: list
    body: list
    accesses: list


def in_row_blocks(body, sizes, names, dtype):
    """The statements with some of them in a loop over blocks of rows, where that pays; `sizes` of the buffers change.

    sizes : {name of a workspace buffer: (elements, dtype)}; names : Names
    """
    for rows in sorted({_rows(s.args) for s in body if _is_narrow(s)}, reverse=True):
        height = next((h for h in range(MOST_ROWS, LEAST_ROWS - 1, -1) if rows % h == 0 and rows >= 2 * h), None)
        if height is not None:
            blocks = _Blocks(rows, rows // height, names, sizes, dtype)
            blocks.sort(body)
            if blocks.pay():
                return blocks.statements()
    return body


def _is_narrow(statement):
    """Whether a statement is a product that is no call of a library, of factors with many rows."""
    if not isinstance(statement, Call) or statement.function != "gemm":
        return False
    flip_a, flip_b, m, n, k, *_ = statement.args
    return min(m, n, k) <= NARROW and not (flip_a and flip_b)


def _rows(args):
    flip_a, _, m, _, k, *_ = args
    return k if flip_a else m


class _Blocks:
    """Statements in three parts: before the loop over blocks, in it, and behind it."""

    def __init__(self, rows, parts, names, sizes, dtype):
        self.rows, self.parts, self.names, self.sizes, self.dtype = rows, parts, names, sizes, dtype
        self.variable, self.temporaries = names.new("block"), {}
        self.before, self.cuts, self.after = [], [], []

    def sort(self, body):
        """Put each statement into a part: one that cannot be in the loop before it where it can, else behind."""
        behind, loop = [], []
        for statement in body:
            own = _accesses([statement], self.variable)
            free = not self._meet(behind, own)
            early = free and not self._meet(loop, own)
            if early and all(a.written for a in own):  # zeros, of which the rows may be another array's columns
                self.before.append(statement)
                continue
            cut = self._cut(statement) if free else None
            if cut is not None and not self._meet(loop, cut.accesses, True) and self._can_go_first(cut.first, loop):
                self.cuts.append(cut)
                loop += cut.accesses
                self.before += cut.first
            elif early:
                self.before.append(statement)
            else:
                self.after.append(statement)
                behind += own

    def _can_go_first(self, first, loop):
        return not self._meet(loop, _accesses(first, self.variable))

    def _meet(self, some, others, blocked=False):
        return any(self._conflict(a, b, blocked) for b in others for a in some)

    def _conflict(self, a, b, blocked):
        if a.buffer != b.buffer or not (a.written or b.written):
            return False
        if blocked and a.stride == b.stride and max(a.high, b.high) - min(a.low, b.low) < a.stride:
            return False
        (low, high), (least, most) = map(self._reach, (a, b))
        return low <= most and least <= high

    def _reach(self, a):
        ends = 0, a.stride * (self.parts - 1)
        return a.low + min(ends), a.high + max(ends)

    # ---- statements in blocks

    def _cut(self, statement):
        """The _Cut of a statement, or None."""
        if not isinstance(statement, Loop):
            fits = _is_narrow(statement) and _rows(statement.args) == self.rows
            return self._cut_product(statement) if fits else None
        if statement.extent % self.rows or _is_opaque(statement):
            return None
        height = statement.extent // self.parts
        moved = Index(0, ((statement.index, 1), (self.variable, height)))
        return self._made([], [replace(_substituted(statement, statement.index, moved), extent=height)])

    def _made(self, first, body):
        return _Cut(first, body, _accesses(body, self.variable))

    def _cut_product(self, call):
        flip_a, flip_b, m, n, k, a, lda, b, ldb, c, ldc = call.args
        height = _rows(call.args) // self.parts
        a = self._moved(a, lda * height)
        if not flip_a:
            c = self._moved(c, ldc * height)
            return self._made([], [replace(call, args=(flip_a, flip_b, height, n, k, a, lda, b, ldb, c, ldc))])
        name, i, j = (self.names.new(wish) for wish in ("product", "row", "column"))
        self.temporaries[name] = m * n, self.dtype  # the product of a block, which is added to the others'
        at = lambda first, apart: Element(first.buffer, plus(first.index, Index(0, ((i, apart), (j, 1)))))
        nest = lambda statement: Loop(i, m, [Loop(j, n, [statement])])
        part = Element(name, Index())
        args = flip_a, flip_b, m, n, height, a, lda, self._moved(b, ldb * height), ldb, part, n
        clear = Assign(at(c, ldc), None, (Literal(0.0, self.dtype),))
        add = Assign(at(c, ldc), OPS["add"], (at(c, ldc), at(part, n)))
        return self._made([nest(clear)], [replace(call, args=args), nest(add)])

    def _moved(self, element, stride):
        return Element(element.buffer, plus(element.index, Index(0, ((self.variable, stride),))))

    # ---- the result

    def pay(self):
        """Whether an array that the loop writes and reads again does not stay in the nearest cache otherwise."""
        own = [cut.accesses for cut in self.cuts]
        written, read = ([{a.buffer for a in found if a.written == kind} for found in own] for kind in (True, False))
        large = {a.buffer for found in own for a in found if a.stride * self.parts >= LARGE}
        return any(large & written[k] & read[later] for later in range(len(own)) for k in range(later))

    def statements(self):
        """All statements; the buffers of the loop alone become as long as a block of theirs."""
        loop = [s for cut in self.cuts for s in cut.body]
        self.sizes.update(self.temporaries)
        outside = {a.buffer for a in _accesses([*self.before, *self.after], self.variable)}
        found = [a for cut in self.cuts for a in cut.accesses]
        for name in {a.buffer for a in found if a.buffer in self.sizes} - outside:
            own = [a for a in found if a.buffer == name]
            stride, low = own[0].stride, min(a.low for a in own)
            if stride > 0 and {a.stride for a in own} == {stride} and max(a.high for a in own) - low < stride:
                self.sizes[name] = stride, self.sizes[name][1]
                loop = [_in_place(s, name, Index(-low, ((self.variable, -stride),))) for s in loop]
        return [*self.before, Loop(self.variable, self.parts, loop), *self.after]


def _operands(statement):
    """The Elements of a statement, those that it writes last: (element, whether it is written)."""
    yield from ((a, False) for a in statement.args if isinstance(a, Element))
    if isinstance(statement, Assign) and isinstance(statement.target, Element):
        yield statement.target, True


def _is_opaque(loop):
    """Whether it is unknown which elements a loop reaches in an iteration."""
    return any(
        _is_opaque(s) if isinstance(s, Loop)
        else not isinstance(s, Assign) or any(e.index.table is not None for e, _ in _operands(s))
        for s in loop.body
    )  # fmt: skip


def _accesses(statements, block, extents=None):
    """What statements read and write; of a local, which is assigned once, its name stands for the buffer."""
    extents, found = extents or {}, []
    for s in statements:
        if isinstance(s, Loop):
            found += _accesses(s.body, block, {**extents, s.index: s.extent})
        elif isinstance(s, Assign):
            found += [_access(element, written, block, extents) for element, written in _operands(s)]
            locals_of = [(a, False) for a in s.args if isinstance(a, Local)] + [(s.target, True)]
            found += [_Access(x.name, 0, 0, 0, written) for x, written in locals_of if isinstance(x, Local)]
        elif isinstance(s, Allocate):
            found.append(_Access(s.buffer, 0, s.size - 1, 0, True))
        elif isinstance(s, Call) and s.function == "gemm":
            flip_a, flip_b, m, n, k, a, lda, b, ldb, c, ldc = s.args
            for first, shape, apart, written in (
                (a, (k, m) if flip_a else (m, k), lda, False), (b, (n, k) if flip_b else (k, n), ldb, False),
                (c, (m, n), ldc, True),
            ):  # fmt: skip
                length = (shape[0] - 1) * apart + shape[1]
                access = _access(first, written, block, extents)
                found.append(access._replace(high=access.high + length - 1))
        elif isinstance(s, Call):
            found += [_Access(e.buffer, 0, EVERYTHING, 0, True) for e, _ in _operands(s)]
    return found


def _access(element, written, block, extents):
    index, stride = element.index, dict(element.index.terms).get(block, 0)
    if index.table is not None:
        return _Access(element.buffer, 0, EVERYTHING, 0, written)
    rest = Index(index.offset, tuple(term for term in index.terms if term[0] != block))
    low, high = span(rest, extents)
    return _Access(element.buffer, low, high, stride, written)


def _mapped(statement, move):
    """A statement with other Elements."""
    moved = lambda a: move(a) if isinstance(a, Element) else a
    if isinstance(statement, Loop):
        return replace(statement, body=[_mapped(s, move) for s in statement.body])
    if isinstance(statement, Assign):
        return replace(statement, target=moved(statement.target), args=tuple(map(moved, statement.args)))
    return replace(statement, args=tuple(map(moved, statement.args)))


def _substituted(statement, variable, by):
    return _mapped(statement, lambda e: Element(e.buffer, replaced(e.index, variable, by)))


def _in_place(statement, name, shift):
    return _mapped(statement, lambda e: Element(name, plus(e.index, shift)) if e.buffer == name else e)
