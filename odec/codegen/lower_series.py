"""Taylor coefficients of large models: a kernel that loops over the orders (transforms/orders.py).

A history holds the rows that convolutions read, in the tiles of convolution.py. One of a single tile is written in
place; else `order` writes a row, which is then put into its tiles.
"""

from __future__ import annotations

import numpy as np

from odec.codegen.convolution import tiles_for
from odec.codegen.kernel import Allocate, Assign, Call, Element, Index, Kernel, Literal, Loop, Return, work_for
from odec.codegen.lower_array import lower_array
from odec.codegen.lower_scalar import signature
from odec.codegen.workspace import ALIGNMENT
from odec.transforms.orders import FIRST_ROW, orders

ORDER = "order"  # the loop variable: one less than the order k whose coefficients are found
STATE = "y"  # the history of the state beside the coefficients themselves
SERIES, ROW = "y_series", "_row"  # its buffer; behind the name of a history: a row on its way into the tiles
VECTOR_BYTES = 32


def lower_series(jet, name):
    """The kernel of a Jet: (t, y, p) -> coefficients (order + 1, n).

    Raises
    ------
    NoLoop : as for transforms.orders.orders
    """
    return _SeriesLowering(jet, name).kernel()


class _SeriesLowering:
    def __init__(self, jet, name):
        self.jet, self.name, self.parts = jet, name, orders(jet.model)
        self.dtype = self.parts.order.outputs["next"].dtype
        self.start = lower_array(self.parts.start, f"{name}_start")
        self.order = lower_array(self.parts.order, f"{name}_order")
        self.n = jet.inputs["y"].size
        self.body, self.work_size = [], 0
        self.sizes = {h: self.parts.start.outputs[h].size for h in self.parts.histories}
        if any(STATE in (c.a, c.b) for c in self.parts.convolutions):
            self.sizes[STATE] = self.n
        lanes = VECTOR_BYTES // np.dtype(self.dtype).itemsize
        self.tiles = {h: tiles_for(n, jet.order, lanes) for h, n in self.sizes.items()}

    def kernel(self):
        """The statements: the zeroth values and y_1, then for each order k its convolutions and its graph."""
        order, n = self.jet.order, self.n
        tables = {
            "shares": (1.0 / np.arange(2.0, max(order, 2) + 1)).astype(self.dtype),
            "times": np.asarray(np.arange(max(order - 1, 1)) == 0, "float64"),
        }  # fmt: skip
        self._allocate()
        start = Assign(_at("coefficients", 0, ("i", 1)), None, (_at("y", 0, ("i", 1)),))
        self.body.append(Loop("i", n, [start], vector=True))
        if order > 0:
            self.body.append(self._call_start())
        if order > 1:
            self.body += [s for history in self.sizes for s in self._padded(history)]
            steps = [self._convolved(c) for c in self.parts.convolutions]
            kept = [s for history in self.sizes for s in self._kept(history)]
            self.body.append(Loop(ORDER, order - 1, [*steps, self._call_order(), *kept]))
        self.body.append(Return())
        callees = (self.start, self.order) if order > 1 else (self.start,)
        return Kernel(self.name, signature(self.jet), self.body, self.dtype, tables, self.work_size, callees)

    # ---- places

    def _allocate(self):
        """Buffers one behind another: histories, their rows, zeroth values, convolutions, the callees' workspace."""
        for history, tiles in self.tiles.items():
            self._buffer(SERIES if history == STATE else history, tiles.size, self.dtype)
            if history != STATE and tiles.count > 1:
                self._buffer(history + FIRST_ROW, self.sizes[history], self.dtype)
                self._buffer(history + ROW, self.sizes[history], self.dtype)
        for c in self.parts.convolutions:
            self._buffer(c.name, self.tiles[c.a].count * self.tiles[c.a].width, self.dtype)
        for name, node in self.parts.start.outputs.items():
            if name not in self.parts.histories and name != "dydt":
                self._buffer(name, node.size, node.dtype)
        self._buffer("scratch", work_for((self.start, self.order), self.dtype), self.dtype)

    def _buffer(self, name, size, dtype):
        if size:
            step = ALIGNMENT // np.dtype(self.dtype).itemsize
            self.body.append(Allocate(name, size, self.work_size, dtype))
            self.work_size += -(-size * np.dtype(dtype).itemsize // ALIGNMENT) * step

    def _first_row(self, history):
        """Where the zeroth row of a history is."""
        return _at(history if self.tiles[history].count == 1 else history + FIRST_ROW, 0)

    def _next_row(self, history):
        """Where `order` writes the row of its k."""
        tiles = self.tiles[history]
        return _at(history, tiles.width, (ORDER, tiles.width)) if tiles.count == 1 else _at(history + ROW, 0)

    # ---- statements

    def _call_start(self):
        places = {"t": _at("t", 0), "y": _at("y", 0), "p": _at("p", 0), "dydt": _at("coefficients", self.n)}
        return self._call(self.start, places | {h: self._first_row(h) for h in self.parts.histories})

    def _call_order(self):
        n = self.n
        places = {
            "share": _at("shares", 0, (ORDER, 1)), "time": _at("times", 0, (ORDER, 1)), "p": _at("p", 0),
            "y": _at("coefficients", n, (ORDER, n)), "next": _at("coefficients", 2 * n, (ORDER, n)),
            STATE + FIRST_ROW: _at("coefficients", 0),
        }  # fmt: skip
        for history in self.parts.histories:
            places[history], places[history + FIRST_ROW] = self._next_row(history), self._first_row(history)
        return self._call(self.order, places)

    def _call(self, kernel, places):
        work = [_at("scratch", 0)] if kernel.work_size else []
        return Call(kernel.name, (*(places.get(a.name, _at(a.name, 0)) for a in kernel.arguments), *work))

    def _convolved(self, c):
        """The call that puts a convolution where `order` reads it."""
        a, b = (_at(SERIES if name == STATE else name, 0) for name in (c.a, c.b))
        weights, tiles = (Literal(c.p, self.dtype), Literal(c.q, self.dtype)), self.tiles[c.a]
        size = tiles.count, tiles.width, tiles.rows
        return Call("convolve", (Index(1, ((ORDER, 1),)), *size, *weights, a, b, _at(c.name, 0)))

    def _kept(self, history):
        """Statements that put the k-th row of a history into its tiles, where `order` has not written it there."""
        tiles, n = self.tiles[history], self.sizes[history]
        if history != STATE and tiles.count == 1:
            return
        source, first, target = history + ROW, 0, history
        moving = ()
        if history == STATE:
            source, first, target, moving = "coefficients", n, SERIES, ((ORDER, n),)
        for start, count, width in _whole_and_rest(n, tiles):
            read = _at(source, first + start * tiles.width, ("i", tiles.width), ("j", 1), *moving)
            stride = tiles.rows * tiles.width
            written = _at(target, start * stride + tiles.width, ("i", stride), (ORDER, tiles.width), ("j", 1))
            yield Loop("i", count, [Loop("j", width, [Assign(written, None, (read,))], vector=True)])

    def _padded(self, history):
        """Zeros where the last tile goes on behind the row: numbers left there can be slow to compute with."""
        tiles = self.tiles[history]
        more = tiles.count * tiles.width - self.sizes[history]
        if more:
            last = (tiles.count - 1) * tiles.rows * tiles.width + tiles.width - more
            place = _at(SERIES if history == STATE else history, last, ("i", tiles.width), ("j", 1))
            zero = Assign(place, None, (Literal(0.0, self.dtype),))
            yield Loop("i", tiles.rows, [Loop("j", more, [zero], vector=True)])


def _whole_and_rest(n, tiles):
    """(first tile, how many, elements of each that are part of the row)."""
    whole, rest = divmod(n, tiles.width)
    return [part for part in ((0, whole, tiles.width), (whole, 1, rest)) if part[1] and part[2]]


def _at(buffer, offset, *terms):
    return Element(buffer, Index(offset, terms))
