"""Matrix products as plain loops: for trajectories side by side, of which BLAS knows nothing, and for tiny ones."""

from __future__ import annotations

from odec.codegen.index_maps import plus, times
from odec.codegen.kernel import Allocate, Assign, Element, Index, Literal, Local, Loop
from odec.graph.op import OPS

TILE = 2  # rows and columns of the sums that are kept in registers at a time
ROW, COLUMN, INNER, SUMS = "gemm.row", "gemm.column", "gemm.inner", "gemm.sums"  # no name of a kernel has a dot


def product(args, dtype):
    """The statements of a Call of gemm, C = A B for row-major matrices with leading dimensions.

    args : flip_a, flip_b, m, n, k, a, lda, b, ldb, c, ldc; a flipped factor is stored transposed
    """
    flip_a, flip_b, m, n, k, a, lda, b, ldb, c, ldc = args
    a, b, c = Matrix(a, lda, flip_a), Matrix(b, ldb, flip_b), Matrix(c, ldc)
    body = []
    for top, row_count, rows in parts(m, TILE):
        for left, column_count, columns in parts(n, TILE):
            tile = _Tile(top, left, rows, columns, dtype)
            body.append(Loop(ROW, row_count, [Loop(COLUMN, column_count, tile.statements(a, b, c, k))]))
    return body


def parts(extent, size):
    """(start, how many parts, extent of each) of an axis: whole parts, then the rest."""
    whole, rest = divmod(extent, size)
    return [part for part in ((0, whole, size), (whole * size, 1, rest)) if part[1] and part[2]]


class Matrix:
    """Elements of a matrix in a buffer: rows `apart`, or columns where it is stored transposed."""

    def __init__(self, first, apart, flipped=False):
        self.first, self.apart, self.flipped = first, apart, flipped

    def turned(self):
        """The transposed matrix."""
        return Matrix(self.first, self.apart, not self.flipped)

    def at(self, row, column):
        """The element at two Indexes."""
        down, across = (1, self.apart) if self.flipped else (self.apart, 1)
        index = plus(self.first.index, plus(times(row, down), times(column, across)))
        return Element(self.first.buffer, index)


class _Tile:
    """rows x columns sums of products, for every tile of a part of C that starts at (top, left)."""

    def __init__(self, top, left, rows, columns, dtype):
        self.rows = [Index(top + i, ((ROW, TILE),)) for i in range(rows)]
        self.columns = [Index(left + j, ((COLUMN, TILE),)) for j in range(columns)]
        self.dtype = dtype

    def statements(self, a, b, c, k):
        places = [(row, column) for row in self.rows for column in self.columns]
        sums = [Element(SUMS, Index(number)) for number in range(len(places))]
        inner = Index(0, ((INNER, 1),))
        step = [Assign(Local(f"gemm.a{r.offset}", self.dtype), None, (a.at(r, inner),)) for r in self.rows]
        step += [Assign(Local(f"gemm.b{q.offset}", self.dtype), None, (b.at(inner, q),)) for q in self.columns]
        for place, (row, column) in zip(sums, places, strict=True):
            factors = Local(f"gemm.a{row.offset}", self.dtype), Local(f"gemm.b{column.offset}", self.dtype)
            term = Local("gemm.term", self.dtype)
            step += [Assign(term, OPS["mul"], factors), Assign(place, OPS["add"], (place, term))]
        return [
            Allocate(SUMS, len(sums), None, self.dtype),
            *(Assign(place, None, (Literal(0.0, self.dtype),)) for place in sums),
            Loop(INNER, k, step),
            *(Assign(c.at(*at), None, (place,)) for at, place in zip(places, sums, strict=True)),
        ]
