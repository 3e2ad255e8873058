"""Sums of products of Taylor coefficients as LLVM IR: functions that the loop over the orders calls.

c = sum_{j=1..k-1} (p j/k + q) a_j b_{k-j}, element by element, with the weights k times as large and a division at the
end: rounded weights would err the same way in every step. The rows of a history lie tile by tile: a tile has so
many neighbouring elements of every row, one row behind another, so that what the sums of a tile read is one stretch of
memory. Elements fill vectors; the sums of a tile stay in registers while j runs, twice as many where they are few, so
that no addition waits for another. Of a square, where a is b and p is 0, half of the terms are added and doubled.
"""

from __future__ import annotations

from dataclasses import dataclass

SUMS = 8  # vectors of a tile at most


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


def symbol(tiles, p, square, dtype):
    """The name of the function for such histories and weights."""
    kind = "square" if square and p == 0.0 else "plain" if p == 0.0 else "weighted"
    return f"odec.convolve.{kind}.{tiles.count}.{tiles.width}.{tiles.rows}.{dtype}"


def definition(tiles, p, square, number, lanes, name):
    """The text of `void name(i64 k, number p, number q, ptr a, ptr b, ptr c)`; c has whole tiles of one row.

    number : LLVM's name of the type; lanes : of its vectors
    """
    return _Text(tiles, p != 0.0, square and p == 0.0, number, lanes, name).text()


class _Text:
    def __init__(self, tiles, weighted, square, number, lanes, name):
        self.tiles, self.weighted, self.square, self.number, self.name = tiles, weighted, square, number, name
        self.lanes, self.size = lanes, 8 if number == "double" else 4
        self.kind = number if lanes == 1 else f"<{lanes} x {number}>"
        self.zero = "0.0" if lanes == 1 else "zeroinitializer"
        self.lines, self.count = [], 0
        self.last = self.step = self.base = ""  # the last j; p/k and q in all lanes

    def text(self):
        head = f"define private void @{self.name}(i64 %k, {self.number} %p, {self.number} %q, ptr noalias readonly %a, "
        self.lines = [head + "ptr noalias readonly %b, ptr noalias %c) noinline nounwind {", "entry:"]
        self._header()
        stride, width = self.tiles.rows * self.tiles.width, self.tiles.width
        self.lines += ["  br label %tile", "tile:", "  %t = phi i64 [ 0, %entry ], [ %t.next, %store ]"]
        start, target = self.raw(f"mul nuw nsw i64 %t, {stride}"), self.raw(f"mul nuw nsw i64 %t, {width}")
        self.a, self.b, self.c = (self.moved(p, by) for p, by in (("%a", start), ("%b", start), ("%c", target)))
        self._tile(range(0, width, self.lanes))
        self.lines += [
            "  %t.next = add nuw nsw i64 %t, 1", f"  %t.more = icmp ult i64 %t.next, {self.tiles.count}",
            "  br i1 %t.more, label %tile, label %exit", "exit:", "  ret void", "}",
        ]  # fmt: skip
        return "\n".join(self.lines)

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

    def _tile(self, places):
        """The sums of a tile's vectors."""
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
        self.lines += ["  br label %store", "store:"]
        for s, place in zip(found, places, strict=True):
            divided = f"fdiv {self.kind} {s}, {self.order}" if self.weighted else ""
            s = self.raw(divided or f"fmul contract {self.kind} {s}, {self.base}")
            self.lines.append(f"  store {self.kind} {s}, ptr {self.moved(self.c, place)}, align {self.size}")

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
