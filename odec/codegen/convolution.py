"""Sums of products of Taylor coefficients as LLVM IR: functions that the loop over the orders calls.

c = sum_{j=1..k-1} (p j/k + q) a_j b_{k-j} for rows a_j, b_j of n elements each. Elements fill vectors; several sums are
in registers while j runs, more than one for each vector where there are few, so that no addition waits for another.
Of a square, where a is b and p is 0, half of the terms are added and doubled.
"""

from __future__ import annotations

SUMS = 8  # vectors of sums at a time


def symbol(n, p, square, dtype):
    """The name of the function for so many elements and such weights."""
    kind = "square" if square and p == 0.0 else "plain" if p == 0.0 else "weighted"
    return f"odec.convolve.{kind}.{n}.{dtype}"


def definition(n, p, square, number, lanes, name):
    """The text of `void name(i64 k, number p, number q, ptr a, ptr b, ptr c)`.

    number : LLVM's name of the type; lanes : of its vectors
    """
    return _Text(n, p != 0.0, square and p == 0.0, number, lanes, name).text()


class _Text:
    def __init__(self, n, weighted, square, number, lanes, name):
        self.n, self.weighted, self.square, self.number, self.name = n, weighted, square, number, name
        self.lanes = next(w for w in (lanes, lanes // 2, 1) if 1 <= w <= n)
        self.size = 8 if number == "double" else 4
        self.lines, self.count = [], 0

    def text(self):
        head = f"define private void @{self.name}(i64 %k, {self.number} %p, {self.number} %q, ptr noalias readonly %a, "
        self.lines = [head + "ptr noalias readonly %b, ptr noalias %c) nounwind {", "entry:"]
        self._header()
        width, n = self.lanes, self.n
        vectors, rest = divmod(n, width)
        tiles, some = divmod(vectors, SUMS)
        if tiles > 1:
            self._tile_loop(tiles, [i * width for i in range(SUMS)])
            start = tiles * SUMS * width
        else:
            start, some = 0, vectors
        places = [start + i * width for i in range(some)]
        if rest:  # the last vector overlaps the one before: its elements are the same twice
            places.append(n - width)
        block = "begin" if tiles <= 1 else "tiles.exit"
        for first in range(0, len(places), SUMS):
            block = self._tile(block, f"tile{first}", "0", places[first : first + SUMS])
        self.lines += ["  ret void", "}"]
        return "\n".join(self.lines)

    # ---- pieces of text

    def raw(self, text):
        self.count += 1
        self.lines.append(f"  %.{self.count} = {text}")
        return f"%.{self.count}"

    @property
    def kind(self):
        return self.number if self.lanes == 1 else f"<{self.lanes} x {self.number}>"

    def splat(self, value):
        if self.lanes == 1:
            return value
        first = self.raw(f"insertelement {self.kind} poison, {self.number} {value}, i64 0")
        return self.raw(f"shufflevector {self.kind} {first}, {self.kind} poison, <{self.lanes} x i32> zeroinitializer")

    def address(self, base, row, element, shift):
        """The address of base[row * n + element + shift]."""
        place = self.raw(f"mul nsw i64 {row}, {self.n}")
        place = place if element == "0" else self.raw(f"add nsw i64 {place}, {element}")
        pointer = self.raw(f"getelementptr inbounds {self.number}, ptr {base}, i64 {place}")
        return pointer if not shift else self.raw(f"getelementptr inbounds {self.number}, ptr {pointer}, i64 {shift}")

    def load(self, pointer, shift):
        if shift:
            pointer = self.raw(f"getelementptr inbounds {self.number}, ptr {pointer}, i64 {shift}")
        return self.raw(f"load {self.kind}, ptr {pointer}, align {self.size}")

    def _header(self):
        """How often j runs, and the weight and its step as vectors."""
        if self.square:
            terms = self.raw("sub nsw i64 %k, 1")
            self.last = self.raw(f"lshr i64 {terms}, 1")
            self.odd = self.raw("and i64 %k, 1")
        else:
            self.last = self.raw("sub nsw i64 %k, 1")
        if self.weighted:
            k = self.raw(f"uitofp i64 %k to {self.number}")
            step = self.raw(f"fdiv {self.number} %p, {k}")
            self.step, self.base = self.splat(step), self.splat("%q")
        self.lines += ["  br label %begin", "begin:"]

    def _tile_loop(self, tiles, places):
        self.lines += ["  br label %tiles", "tiles:", "  %e = phi i64 [ 0, %begin ], [ %e.next, %tiles.end ]"]
        block = self._tile("tiles", "tile", "%e", places)
        self.lines += [
            "  br label %tiles.end", "tiles.end:", f"  %e.next = add nuw nsw i64 %e, {SUMS * self.lanes}",
            f"  %tiles.more = icmp ult i64 %e.next, {tiles * SUMS * self.lanes}",
            "  br i1 %tiles.more, label %tiles, label %tiles.exit", "tiles.exit:",
        ]  # fmt: skip
        return block

    def _tile(self, before, label, element, places):
        """The sums of the vectors at `element` and so many places behind it; the block in which they are written."""
        count = len(places)
        sums = [f"%{label}.s{i}" for i in range(count)]
        start = self.raw(f"icmp ugt i64 {self.last}, 0")
        self.lines += [
            f"  br i1 {start}, label %{label}.j, label %{label}.done", f"{label}.j:",
            f"  %{label}.i = phi i64 [ 1, %{before} ], [ %{label}.next, %{label}.j ]",
        ]  # fmt: skip
        zero = "zeroinitializer" if self.lanes > 1 else "0.0"
        self.lines += [f"  {s} = phi {self.kind} [ {zero}, %{before} ], [ {s}.new, %{label}.j ]" for s in sums]
        if self.weighted:
            number = self.raw(f"uitofp i64 %{label}.i to {self.number}")
            scaled = self.raw(f"fmul contract {self.kind} {self.splat(number)}, {self.step}")
            weight = self.raw(f"fadd contract {self.kind} {scaled}, {self.base}")
        other = self.raw(f"sub nsw i64 %k, %{label}.i")
        a, b = self.address("%a", f"%{label}.i", element, 0), self.address("%b", other, element, 0)
        for s, place in zip(sums, places):
            x, y = self.load(a, place), self.load(b, place)
            if self.weighted:
                x = self.raw(f"fmul contract {self.kind} {x}, {weight}")
            product = self.raw(f"fmul contract {self.kind} {x}, {y}")
            self.lines.append(f"  {s}.new = fadd contract {self.kind} {s}, {product}")
        self.lines += [
            f"  %{label}.next = add nuw nsw i64 %{label}.i, 1",
            f"  %{label}.more = icmp ule i64 %{label}.next, {self.last}",
            f"  br i1 %{label}.more, label %{label}.j, label %{label}.done", f"{label}.done:",
        ]  # fmt: skip
        found = [self.raw(f"phi {self.kind} [ {zero}, %{before} ], [ {s}.new, %{label}.j ]") for s in sums]
        block = f"{label}.done"
        if self.square:
            found, block = self._doubled(label, element, places, found)
        pointer = "%c" if element == "0" else self.raw(f"getelementptr inbounds {self.number}, ptr %c, i64 {element}")
        for s, place in zip(found, places):
            if not self.weighted:
                s = self.raw(f"fmul contract {self.kind} {s}, {self.splat('%q')}")
            target = self.raw(f"getelementptr inbounds {self.number}, ptr {pointer}, i64 {place}")
            self.lines.append(f"  store {self.kind} {s}, ptr {target}, align {self.size}")
        return block

    def _doubled(self, label, element, places, sums):
        """Twice the sums, and the square in the middle where k is even."""
        twice = [self.raw(f"fadd contract {self.kind} {s}, {s}") for s in sums]
        even = self.raw(f"icmp eq i64 {self.odd}, 0")
        self.lines += [f"  br i1 {even}, label %{label}.middle, label %{label}.store", f"{label}.middle:"]
        half = self.raw("lshr i64 %k, 1")
        a, squares = self.address("%a", half, element, 0), []
        for s, place in zip(twice, places):
            x = self.load(a, place)
            square = self.raw(f"fmul contract {self.kind} {x}, {x}")
            squares.append(self.raw(f"fadd contract {self.kind} {s}, {square}"))
        self.lines += [f"  br label %{label}.store", f"{label}.store:"]
        return [
            self.raw(f"phi {self.kind} [ {s}, %{label}.done ], [ {x}, %{label}.middle ]")
            for s, x in zip(twice, squares)
        ], f"{label}.store"
