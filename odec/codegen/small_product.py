"""Matrix products that are small along some axis, as vector loops: there BLAS spends its time on other things.

Sums of a few rows and columns stay in registers while the inner axis runs. Which axis fills the vectors depends on
how the factors lie: the columns, where those of B do; else the rows, where those of A do; else the inner axis.
Factors of products with many rows are copied into the order in which the sums read them, and so is a B that lies the
wrong way.
"""

from __future__ import annotations

import itertools

from odec.codegen.index_maps import plus, times
from odec.codegen.kernel import Allocate, Assign, Element, Index, Literal, Local, Loop
from odec.codegen.nest import pairwise_sum
from odec.codegen.wide_product import Matrix, parts, product
from odec.graph.op import OPS

TILE = 4  # rows of sums at a time
SUMS_AT_ONCE = 8  # vectors of sums, as many as hide the latency of an addition
MOST_COPIED = 16_384  # elements of a copied factor, which lies on the stack
FEW = 8  # of an axis, below which it does not fill vectors
NARROW = 16  # of the least axis, up to which a product of any size is small
SMALL = 1_000_000  # multiplications up to which other products are: beyond, BLAS is quicker even on one thread
MANY = 16  # rows, and numbers of the inner axis, from which copies in the order of the sums pay
TINY = 4096  # multiplications of a product that fits no form and is still not worth a call
ROW, COLUMN, INNER, LANE = "gemm.row", "gemm.column", "gemm.inner", "gemm.lane"  # no name of a kernel has a dot
SUMS, COPY, TILES = "gemm.sums", "gemm.copy", "gemm.tiles"


def small_product(args, dtype, lanes):
    """The statements of a Call of gemm, C = A B, for vectors of so many lanes; None where BLAS is to do it.

    args : flip_a, flip_b, m, n, k, a, lda, b, ldb, c, ldc; a flipped factor is stored transposed
    """
    flip_a, flip_b, m, n, k, a, lda, b, ldb, c, ldc = args
    if min(m, n, k) > NARROW and m * n * k > SMALL:
        return None
    a, b, c = Matrix(a, lda, flip_a), Matrix(b, ldb, flip_b), Matrix(c, ldc)
    copies = n * k <= MOST_COPIED
    if n >= FEW and min(m, k) >= MANY and copies and (not flip_a or m * k <= MOST_COPIED):
        return _across_tiles((m, n, k), a, b, c, dtype, lanes)
    if n >= FEW and not flip_b:
        return _across((m, n, k), a, b, c, dtype, lanes)
    if n >= FEW and copies:
        copied = Matrix(Element(COPY, Index()), n)
        return [*_copy(b, copied, n, k, dtype), *_across((m, n, k), a, copied, c, dtype, lanes)]
    if m >= FEW and flip_a:
        return _across((n, m, k), b.turned(), a.turned(), c.turned(), dtype, lanes)
    if k >= FEW and not flip_a and flip_b:
        return _along((m, n, k), a, b, c, dtype, lanes)
    if k >= FEW and not flip_a and copies:
        copied = Matrix(Element(COPY, Index()), k, True)
        return [*_copy(b, copied, n, k, dtype), *_along((m, n, k), a, copied, c, dtype, lanes)]
    return product(args, dtype) if m * n * k <= TINY else None


def _copy(b, copied, n, k, dtype):
    """Statements that copy a factor (k, n)."""
    at = Index(0, ((INNER, 1),)), Index(0, ((COLUMN, 1),))
    copy = Assign(copied.at(*at), None, (b.at(*at),))
    return [Allocate(COPY, n * k, None, dtype), Loop(INNER, k, [Loop(COLUMN, n, [copy])])]


def _across(sizes, a, b, c, dtype, lanes):
    """A product whose vectors are parts of the rows of B and C."""
    (m, n, k), body = sizes, []
    for rows in parts(m, TILE):
        across = SUMS_AT_ONCE // rows[-1] * lanes
        body += [_rows_loops(rows, columns, across, a, b, c, k, dtype) for columns in parts(n, across)]
    return body


class _Tiles(Matrix):
    """A factor, copied part by part of its rows, or columns, in the order in which sums read it: along the inner axis.

    So it streams through the cache, and rows that are a power of two of bytes apart do not share a few sets of it.
    """

    def __init__(self, buffer, start, width, k, columns):
        super().__init__(Element(buffer, Index(start * (k - 1))), k, columns)
        self.width = width

    def at(self, row, column):
        """The element at two Indexes, one of them a loop over parts with places in a part."""
        place, inner = (column, row) if self.flipped else (row, column)
        terms = tuple((v, step if v == LANE else step * self.apart) for v, step in place.terms)
        index = plus(Index(self.first.index.offset + place.offset, terms), times(inner, self.width))
        return Element(self.first.buffer, index)


def _tiled(factor, buffer, variable, extent, size, k, columns, dtype):
    """Statements that copy a factor, and its parts (start, number, extent, _Tiles), of rows or of columns."""
    body: list = [Allocate(buffer, extent * k, None, dtype)]
    found, inner = [], Index(0, ((INNER, 1),))
    beside = factor.flipped != columns  # the numbers of a part lie side by side
    for start, number, width in parts(extent, size):
        tiles, place = _Tiles(buffer, start, width, k, columns), Index(start, ((variable, size), (LANE, 1)))
        at = (inner, place) if columns else (place, inner)
        copy = Loop(LANE, width, [Assign(tiles.at(*at), None, (factor.at(*at),))], vector=beside)
        (outer, count), (other, rest) = ((INNER, k), (variable, number))[:: 1 if beside else -1]
        body.append(Loop(outer, count, [Loop(other, rest, [copy])]))
        found.append((start, number, width, tiles))
    return body, found


def _across_tiles(sizes, a, b, c, dtype, lanes):
    """A product as by _across, with copies of B and of an A that is stored transposed."""
    (m, n, k), across = sizes, SUMS_AT_ONCE // TILE * lanes
    body, columns = _tiled(b, COPY, COLUMN, n, across, k, True, dtype)
    rows = [(*part, a) for part in parts(m, TILE)]
    if a.flipped:
        copies, rows = _tiled(a, TILES, ROW, m, TILE, k, False, dtype)
        body += copies
    for (*tops, left), (*starts, right) in itertools.product(rows, columns):
        body.append(_rows_loops(tops, starts, across, left, right, c, k, dtype))
    return body


def _rows_loops(rows, columns, across, a, b, c, k, dtype):
    """The loops over the tiles of a part of the rows and a part of the columns, (start, number, extent) each."""
    (top, row_count, height), (left, column_count, width) = rows, columns
    places = [Index(top + i, ((ROW, TILE),)) for i in range(height)]
    column = Index(left, ((COLUMN, across), (LANE, 1)))
    tile = _rows_tile(places, column, width, a, b, c, k, dtype)
    return Loop(ROW, row_count, [Loop(COLUMN, column_count, tile)])


def _rows_tile(rows, column, width, a, b, c, k, dtype):
    """The statements of a tile of sums of so many rows, `width` wide."""
    sums = [Element(SUMS, Index(i * width, ((LANE, 1),))) for i in range(len(rows))]
    inner, right, term = Index(0, ((INNER, 1),)), Local("gemm.b", dtype), Local("gemm.term", dtype)
    left = [Local(f"gemm.a{i}", dtype) for i in range(len(rows))]
    step = [Assign(right, None, (b.at(inner, column),))]
    for place, factor in zip(sums, left, strict=True):
        step += [Assign(term, OPS["mul"], (factor, right)), Assign(place, OPS["add"], (place, term))]
    factors = [Assign(factor, None, (a.at(row, inner),)) for factor, row in zip(left, rows, strict=True)]
    return [
        Allocate(SUMS, len(rows) * width, None, dtype),
        Loop(LANE, width, [Assign(place, None, (Literal(0.0, dtype),)) for place in sums], vector=True),
        Loop(INNER, k, [*factors, Loop(LANE, width, step, vector=True)]),
        Loop(LANE, width, [Assign(c.at(row, column), None, (s,)) for row, s in zip(rows, sums)], vector=True),
    ]


def _along(sizes, a, b, c, dtype, lanes):
    """A product whose vectors are parts of the rows of A and of the columns of B."""
    (m, n, k), body = sizes, []
    for left, column_count, width in parts(n, TILE):
        step = max(1, SUMS_AT_ONCE // width)
        for top, row_count, height in parts(m, step):
            rows = [Index(top + i, ((ROW, step),)) for i in range(height)]
            columns = [Index(left + j, ((COLUMN, TILE),)) for j in range(width)]
            tile = _inner_tile(rows, columns, a, b, c, k, dtype, lanes)
            body.append(Loop(ROW, row_count, [Loop(COLUMN, column_count, tile)]))
    return body


def _inner_tile(rows, columns, a, b, c, k, dtype, lanes):
    """The statements of a tile of sums along the inner axis."""
    places = [(row, column) for row in rows for column in columns]
    sums = [Element(SUMS, Index(s * lanes, ((LANE, 1),))) for s in range(len(places))]

    def step(inner):
        left, right = ({id(x): Local(f"gemm.{name}{i}", dtype) for i, x in enumerate(group)}
                       for name, group in (("a", rows), ("b", columns)))  # fmt: skip
        body = [Assign(left[id(row)], None, (a.at(row, inner),)) for row in rows]
        body += [Assign(right[id(column)], None, (b.at(inner, column),)) for column in columns]
        for place, (row, column) in zip(sums, places, strict=True):
            term = Local("gemm.term", dtype)
            factors = left[id(row)], right[id(column)]
            body += [Assign(term, OPS["mul"], factors), Assign(place, OPS["add"], (place, term))]
        return body

    whole, rest = divmod(k, lanes)
    body = [
        Allocate(SUMS, len(places) * lanes, None, dtype),
        Loop(LANE, lanes, [Assign(place, None, (Literal(0.0, dtype),)) for place in sums], vector=True),
        Loop(INNER, whole, [Loop(LANE, lanes, step(Index(0, ((INNER, lanes), (LANE, 1)))), vector=True)]),
    ]
    if rest:
        body.append(Loop(LANE, rest, step(Index(whole * lanes, ((LANE, 1),)))))
    for number, place in enumerate(places):
        terms = [Element(SUMS, Index(number * lanes + lane)) for lane in range(lanes)]
        body += pairwise_sum(terms, c.at(*place), lambda k, number=number: Local(f"gemm.sum{number}.{k}", dtype))
    return body
