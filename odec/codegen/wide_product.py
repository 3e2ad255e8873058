"""Matrix products for trajectories side by side: loops, for BLAS knows no lanes."""

from __future__ import annotations

from odec.codegen.index_maps import plus
from odec.codegen.kernel import Allocate, Assign, Element, Index, Literal, Local, Loop
from odec.graph.op import OPS

TILE = 2  # rows and columns of the sums that are kept in registers at a time
ROW, COLUMN, INNER, SUMS = "gemm.row", "gemm.column", "gemm.inner", "gemm.sums"  # no name of a kernel has a dot


def product(args, dtype):
    """The statements of a Call of gemm, C = A B for row-major matrices with leading dimensions.

    args : flip_a, flip_b, m, n, k, a, lda, b, ldb, c, ldc; a flipped factor is stored transposed
    """
    flip_a, flip_b, m, n, k, a, lda, b, ldb, c, ldc = args
    a = _Matrix(a, *((1, lda) if flip_a else (lda, 1)))
    b = _Matrix(b, *((1, ldb) if flip_b else (ldb, 1)))
    c = _Matrix(c, ldc, 1)
    body = []
    for top, row_count, rows in _tiles(m):
        for left, column_count, columns in _tiles(n):
            tile = _Tile(top, left, rows, columns, dtype)
            body.append(Loop(ROW, row_count, [Loop(COLUMN, column_count, tile.statements(a, b, c, k))]))
    return body


def _tiles(extent):
    """(start, how many tiles, extent of each) of an axis: whole tiles, then the rest."""
    whole, rest = divmod(extent, TILE)
    tiles = [(0, whole, TILE), (whole * TILE, 1, rest)]
    return [tile for tile in tiles if tile[1] and tile[2]]


class _Matrix:
    """Elements of a matrix in a buffer, `down` apart from row to row and `across` from column to column."""

    def __init__(self, first, down, across):
        self.first, self.down, self.across = first, down, across

    def at(self, row, column):
        """The element at two indices, each (start, variable, stride)."""
        index = self.first.index
        for (start, variable, stride), apart in ((row, self.down), (column, self.across)):
            index = plus(index, Index(start * apart, ((variable, stride * apart),)))
        return Element(self.first.buffer, index)


class _Tile:
    """rows x columns sums of products, for every tile of a part of C that starts at (top, left)."""

    def __init__(self, top, left, rows, columns, dtype):
        self.rows = [(top + i, ROW, TILE) for i in range(rows)]
        self.columns = [(left + j, COLUMN, TILE) for j in range(columns)]
        self.dtype = dtype

    def statements(self, a, b, c, k):
        places = [(row, column) for row in self.rows for column in self.columns]
        sums = [Element(SUMS, Index(number)) for number in range(len(places))]
        inner = (0, INNER, 1)
        step = [Assign(Local(f"gemm.a{r[0]}", self.dtype), None, (a.at(r, inner),)) for r in self.rows]
        step += [Assign(Local(f"gemm.b{q[0]}", self.dtype), None, (b.at(inner, q),)) for q in self.columns]
        for place, (row, column) in zip(sums, places, strict=True):
            factors = Local(f"gemm.a{row[0]}", self.dtype), Local(f"gemm.b{column[0]}", self.dtype)
            term = Local("gemm.term", self.dtype)
            step += [Assign(term, OPS["mul"], factors), Assign(place, OPS["add"], (place, term))]
        return [
            Allocate(SUMS, len(sums), None, self.dtype),
            *(Assign(place, None, (Literal(0.0, self.dtype),)) for place in sums),
            Loop(INNER, k, step),
            *(Assign(c.at(*at), None, (place,)) for at, place in zip(places, sums, strict=True)),
        ]
