"""Sums of products of Taylor coefficients as LLVM IR: functions that the loop over the orders calls.

c = sum_{j=1..k-1} (p j/k + q) a_j b_{k-j}, element by element, with the weights k times as large and a division at the
end: rounded weights would err the same way in every step. The rows of a history lie tile by tile: a tile has so
many neighbouring elements of every row, one row behind another, so that what the sums of a tile read is one stretch of
memory. Elements fill vectors.

Low orders (up to EARLY): the sums of a tile stay in registers while j runs, twice as many where they are few, so that
no addition waits for another. Of a square, where a is b and p is 0, half of the terms are added and doubled.

Higher orders come in blocks of BLOCK, K .. K + 3. At the first of them all the rows up to K - 1 are there, and what
these give to the four sums is found in one pass: a row that is loaded serves four products instead of one, and memory
is read once for four orders. The three sums of later orders wait in `ahead`; each of those then adds the few terms
with rows from K on.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

SUMS = 8  # vectors of a tile at most
BLOCK, EARLY = 4, 5  # orders in a block, of which the first begins behind EARLY
NEAR = 2_048  # numbers of a history that stays in the first cache level beside others: there blocks gain nothing


@dataclass(frozen=True)
class Tiles:
    """How a row of n elements lies: in `count` tiles of `width` elements, the last ones padded; `rows` rows a tile."""

    count: int
    width: int
    rows: int

    @property
    def size(self):
        """Elements of a history."""
        return self.count * self.rows * self.width


def tiles_for(n, rows, lanes):
    """The Tiles of a history whose vectors have so many lanes."""
    vectors = -(-n // lanes)
    count = max(1, -(-vectors // SUMS))
    return Tiles(count, -(-vectors // count) * lanes, rows)


def symbol(tiles, p, square, blocks, dtype):
    """The name of the function for such histories and weights."""
    kind = "square" if square and p == 0.0 else "plain" if p == 0.0 else "weighted"
    kind += ".blocks" if blocks else ""
    return f"odec.convolve.{kind}.{tiles.count}.{tiles.width}.{tiles.rows}.{dtype}"


def definition(tiles, p, square, blocks, number, lanes, name):
    """The text of `void name(i64 k, number p, number q, ptr a, ptr b, ptr c, ptr ahead)`.

    c has whole tiles of one row, and `ahead`, which lives from order to order, of `rows_ahead` rows
    blocks : whether higher orders come in blocks, else `ahead` is not looked at
    number : LLVM's name of the type; lanes : of its vectors
    """
    return _Text(tiles, p != 0.0, square and p == 0.0, blocks, number, lanes, name).text()


def rows_ahead(tiles):
    """Rows of sums that wait for their orders: none where there are few orders, or histories stay near at hand."""
    return BLOCK - 1 if tiles.rows > EARLY + 1 and tiles.size > NEAR else 0


class _Text:
    def __init__(self, tiles, weighted, square, blocks, number, lanes, name):
        self.tiles, self.weighted, self.square, self.number, self.name = tiles, weighted, square, number, name
        self.blocks = blocks
        self.lanes, self.size = lanes, 8 if number == "double" else 4
        self.kind = number if lanes == 1 else f"<{lanes} x {number}>"
        self.zero = "0.0" if lanes == 1 else "zeroinitializer"
        self.lines, self.count = [], 0
        self.last = self.step = self.base = ""  # the last j; p/k and q in all lanes

    def text(self):
        head = f"define private void @{self.name}(i64 %k, {self.number} %p, {self.number} %q, ptr noalias readonly %a, "
        self.lines = [
            head + "ptr noalias readonly %b, ptr noalias %c, ptr noalias %ahead) noinline nounwind {", "entry:",
        ]  # fmt: skip
        self._header()
        if self.blocks:
            early = self.raw(f"icmp ule i64 %k, {EARLY}")
            self.lines += [f"  br i1 {early}, label %low, label %high", "low:"]
        self._over("tile", self.tiles.count, "low" if self.blocks else "entry", self._low_tile)
        self.lines.append("  ret void")
        if self.blocks:
            self.lines.append("high:")
            self.place = self.raw(f"and i64 {self.raw(f'sub nuw nsw i64 %k, {EARLY + 1}')}, {BLOCK - 1}")
            begins = self.raw(f"icmp eq i64 {self.place}, 0")
            self.lines.append(f"  br i1 {begins}, label %first, label %later")
            for block, sums in (("first", self._first), ("later", self._later)):
                self.lines.append(f"{block}:")
                self._over(f"{block}.tile", self.tiles.count, block, functools.partial(self._high_tile, block, sums))
                self.lines.append("  ret void")
        return "\n".join([*self.lines, "}"])

    def _over(self, name, count, before, body):
        """A loop of `body` (index) from the block `before` on, which goes on in the block `<name>.done`."""
        index = f"%{name}.i"
        self.lines += [
            f"  br label %{name}", f"{name}:",
            f"  {index} = phi i64 [ 0, %{before} ], [ {index}.next, %{name}.end ]",
        ]  # fmt: skip
        body(index)
        self.lines += [
            f"  br label %{name}.end", f"{name}.end:", f"  {index}.next = add nuw nsw i64 {index}, 1",
            f"  {index}.more = icmp ult i64 {index}.next, {count}",
            f"  br i1 {index}.more, label %{name}, label %{name}.done", f"{name}.done:",
        ]  # fmt: skip

    def _at_tile(self, tile, more=None):
        """Set the pointers to a tile, and `more` elements on."""
        stride = self.raw(f"mul nuw nsw i64 {tile}, {self.tiles.rows * self.tiles.width}")
        step = self.raw(f"mul nuw nsw i64 {tile}, {self.tiles.width}")
        if more is not None:
            stride, step = (self.raw(f"add nuw nsw i64 {x}, {more}") for x in (stride, step))
        self.a, self.b, self.c, self.ahead = (
            self.moved(p, by) for p, by in (("%a", stride), ("%b", stride), ("%c", step), ("%ahead", step))
        )

    # ---- pieces of text

    def raw(self, text):
        self.count += 1
        self.lines.append(f"  %.{self.count} = {text}")
        return f"%.{self.count}"

    def splat(self, value):
        if self.lanes == 1:
            return value
        first = self.raw(f"insertelement {self.kind} poison, {self.number} {value}, i64 0")
        return self.raw(f"shufflevector {self.kind} {first}, {self.kind} poison, <{self.lanes} x i32> zeroinitializer")

    def moved(self, pointer, by):
        return pointer if by == 0 else self.raw(f"getelementptr inbounds {self.number}, ptr {pointer}, i64 {by}")

    def row(self, pointer, j):
        return self.moved(pointer, self.raw(f"mul nuw nsw i64 {j}, {self.tiles.width}"))

    def load(self, pointer, place):
        return self.raw(f"load {self.kind}, ptr {self.moved(pointer, place)}, align {self.size}")

    def sum(self, new, s, x, y):
        product = self.raw(f"fmul contract {self.kind} {x}, {y}")
        self.lines.append(f"  {new} = fadd contract {self.kind} {s}, {product}")

    # ---- the sums

    def _header(self):
        """How often j runs, and the weight's parts as vectors."""
        terms = self.raw("sub nsw i64 %k, 1")
        self.last = self.raw(f"lshr i64 {terms}, 1") if self.square else terms
        if self.weighted:
            k = self.raw(f"uitofp i64 %k to {self.number}")
            self.order, self.step = self.splat(k), self.splat("%p")
            self.base = self.splat(self.raw(f"fmul {self.number} %q, {k}"))
        else:
            self.base = self.splat("%q")

    def _low_tile(self, tile):
        """The sums of a tile's vectors, at a low order."""
        self._at_tile(tile)
        places = range(0, self.tiles.width, self.lanes)
        turns = 2 if 2 * len(places) <= SUMS else 1
        sums = [f"%s{i}" for i in range(turns * len(places))]
        rounds = self.last if turns == 1 else self.raw(f"lshr i64 {self.last}, 1")
        some = self.raw(f"icmp ugt i64 {rounds}, 0")
        self.lines += [
            f"  br i1 {some}, label %loop, label %done", "loop:", "  %i = phi i64 [ 0, %tile ], [ %i.next, %loop ]",
        ]  # fmt: skip
        self.lines += [f"  {s} = phi {self.kind} [ {self.zero}, %tile ], [ {s}.new, %loop ]" for s in sums]
        for turn in range(turns):
            j = self.raw(f"add nuw nsw i64 {self.raw(f'mul nuw nsw i64 %i, {turns}')}, {turn + 1}")
            part = sums[turn * len(places) : (turn + 1) * len(places)]
            self._terms(j, places, part, [f"{s}.new" for s in part])
        self.lines += [
            "  %i.next = add nuw nsw i64 %i, 1", f"  %i.more = icmp ult i64 %i.next, {rounds}",
            "  br i1 %i.more, label %loop, label %done", "done:",
        ]  # fmt: skip
        found = [self.raw(f"phi {self.kind} [ {self.zero}, %tile ], [ {s}.new, %loop ]") for s in sums]
        block = "done"
        if turns == 2:
            halves = zip(found[: len(places)], found[len(places) :], strict=True)
            found = [self.raw(f"fadd contract {self.kind} {x}, {y}") for x, y in halves]
            odd = self.raw(f"icmp ne i64 {self.raw(f'and i64 {self.last}, 1')}, 0")
            found = self._where(odd, block, "last", found, lambda s, new: self._terms(self.last, places, s, new))
            block = "last.end"
        if self.square:
            found = [self.raw(f"fadd contract {self.kind} {s}, {s}") for s in found]
            even = self.raw(f"icmp eq i64 {self.raw('and i64 %k, 1')}, 0")
            found = self._where(even, block, "middle", found, lambda s, new: self._middle(places, s, new))
        self._store_whole(found, places)

    def _store_whole(self, sums, places):
        for s, place in zip(sums, places, strict=True):
            divided = f"fdiv {self.kind} {s}, {self.order}" if self.weighted else ""
            self._store(self.raw(divided or f"fmul contract {self.kind} {s}, {self.base}"), self.c, place)

    def _store(self, value, pointer, place):
        self.lines.append(f"  store {self.kind} {value}, ptr {self.moved(pointer, place)}, align {self.size}")

    # ---- blocks of orders

    def _high_tile(self, block, sums, tile):
        """What an order of a block does with a tile, some vectors at a time: `sums` (places, block before)."""
        vectors = self.tiles.width // self.lanes
        some = 2 if vectors % 2 == 0 else 1
        chunk = some * self.lanes

        def part(index):
            self._at_tile(tile, self.raw(f"mul nuw nsw i64 {index}, {chunk}"))
            sums(range(0, chunk, self.lanes), f"{block}.part")

        self._over(f"{block}.part", vectors // some, f"{block}.tile", part)

    def _first(self, places, before):
        """All that rows up to K - 1 give to the sums of the orders K .. K + 3."""
        sums = {(b, p): self.zero for b in range(BLOCK) for p in places}
        rows = lambda pointer, numbers: {n: self._loaded(pointer, r, places) for n, r in numbers.items()}
        starts = rows(self.a, {j: str(j) for j in range(1, BLOCK)})
        ends = rows(self.b, {-j: self._sum("%k", -j) for j in range(1, BLOCK)})
        for j in range(1, BLOCK):
            self._products(sums, str(j), starts[j], {b: ends[b - j] for b in range(j)})
        turns = self.raw(f"lshr i64 {self._sum('%k', -BLOCK)}, 1")

        def two_rows(turn, sums):
            j = self._sum(self.raw(f"shl nuw nsw i64 {turn}, 1"), BLOCK)
            left = self.raw(f"sub nuw nsw i64 %k, {j}")
            behind = rows(self.b, {n: self._sum(left, n) for n in range(-1, BLOCK)})
            for more in range(2):
                number = self._sum(j, more)
                row = self._loaded(self.a, number, places)
                self._products(sums, number, row, {b: behind[b - more] for b in range(BLOCK)})

        sums = self._running("far", before, 0, turns, sums, two_rows)
        self._store_whole([sums[0, p] for p in places], places)
        for (b, p), s in sums.items():
            if b:
                self._store(s, self.ahead, (b - 1) * self.tiles.count * self.tiles.width + p)

    def _later(self, places, before):
        """The sum of order k = K + b from what waits for it and the terms with rows from K on."""
        row = self.raw(f"mul nuw nsw i64 {self._sum(self.place, -1)}, {self.tiles.count * self.tiles.width}")
        waiting = self.moved(self.ahead, row)
        sums = {(0, p): self.load(waiting, p) for p in places}
        if self.square:
            sums = {key: self.raw(f"fmul {self.kind} {s}, {self.splat('0.5')}") for key, s in sums.items()}

        def both_ends(j, sums):
            late = self.raw(f"sub nuw nsw i64 %k, {j}")
            for number, other in ((j, late), (late, j))[: 1 if self.square else 2]:
                self._products(sums, number, self._loaded(self.a, number, places),
                               {0: self._loaded(self.b, other, places)})  # fmt: skip

        found = self._running("near", before, 1, self._sum(self.place, 1), sums, both_ends).values()
        self._store_whole([self.raw(f"fadd {self.kind} {s}, {s}") for s in found] if self.square else found, places)

    def _running(self, name, before, first, stop, sums, body):
        """The sums after a loop of `body` (index, sums), which adds to them; `before` is the block that it follows."""
        index = f"%{name}.i"
        self.lines += [
            f"  br label %{name}", f"{name}:", f"  {index} = phi i64 [ {first}, %{before} ], [ {index}.next, %{name} ]",
        ]  # fmt: skip
        names, at = {key: f"%{name}.s{n}" for n, key in enumerate(sums)}, len(self.lines)
        new = dict(names)
        body(index, new)
        self.lines[at:at] = [
            f"  {names[key]} = phi {self.kind} [ {sums[key]}, %{before} ], [ {new[key]}, %{name} ]" for key in names
        ]
        self.lines += [
            f"  {index}.next = add nuw nsw i64 {index}, 1", f"  {index}.more = icmp ult i64 {index}.next, {stop}",
            f"  br i1 {index}.more, label %{name}, label %{name}.done", f"{name}.done:",
        ]  # fmt: skip
        return new

    def _sum(self, value, number):
        return self.raw(f"add nsw i64 {value}, {number}")

    def _loaded(self, pointer, row, places):
        row = self.row(pointer, row)
        return {place: self.load(row, place) for place in places}

    def _products(self, sums, j, row, others):
        """Add to the sums of the orders b the products of the row j of a with rows of b, {b: row}."""
        for b, other in others.items():
            weight = self._weight(j, b) if self.weighted else None
            for place, x in row.items():
                x = x if weight is None else self.raw(f"fmul contract {self.kind} {x}, {weight}")
                product = self.raw(f"fmul contract {self.kind} {x}, {other[place]}")
                sums[b, place] = self.raw(f"fadd contract {self.kind} {sums[b, place]}, {product}")

    def _weight(self, j, b):
        """p j + q (k + b) in all lanes."""
        number = self.raw(f"sitofp i64 {j} to {self.number}")
        order = self.raw(f"sitofp i64 {self._sum('%k', b)} to {self.number}")
        scaled, base = (self.raw(f"fmul {self.number} {x}, {y}") for x, y in ((number, "%p"), (order, "%q")))
        return self.splat(self.raw(f"fadd {self.number} {scaled}, {base}"))

    def _terms(self, j, places, sums, new):
        """new = sums + (p j + q k) a_j b_{k-j}, vector by vector; where p is 0, a_j b_{k-j}."""
        weight = ""
        if self.weighted:
            number = self.splat(self.raw(f"uitofp i64 {j} to {self.number}"))
            scaled = self.raw(f"fmul contract {self.kind} {number}, {self.step}")
            weight = self.raw(f"fadd contract {self.kind} {scaled}, {self.base}")
        a, b = self.row(self.a, j), self.row(self.b, self.raw(f"sub nsw i64 %k, {j}"))
        for s, result, place in zip(sums, new, places, strict=True):
            x, y = self.load(a, place), self.load(b, place)
            self.sum(result, s, self.raw(f"fmul contract {self.kind} {x}, {weight}") if self.weighted else x, y)

    def _middle(self, places, sums, new):
        """new = sums + the square of the coefficient in the middle."""
        a = self.row(self.a, self.raw("lshr i64 %k, 1"))
        for s, result, place in zip(sums, new, places, strict=True):
            x = self.load(a, place)
            self.sum(result, s, x, x)

    def _where(self, condition, block, label, values, added):
        """The values after a branch in which `added` (values, names) makes new ones."""
        new = [f"%{label}.{i}" for i in range(len(values))]
        self.lines += [f"  br i1 {condition}, label %{label}, label %{label}.end", f"{label}:"]
        added(values, new)
        self.lines += [f"  br label %{label}.end", f"{label}.end:"]
        pairs = zip(values, new, strict=True)
        return [self.raw(f"phi {self.kind} [ {x}, %{block} ], [ {y}, %{label} ]") for x, y in pairs]
