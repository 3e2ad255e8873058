"""Taylor coefficients of large models: a kernel that loops over the orders (transforms/orders.py).

A history holds the rows that convolutions read, in the tiles of convolution.py. One of a single tile is written in
place; else `order` writes a row, which is then put into its tiles.
"""

from __future__ import annotations

import math

import numpy as np

from odec.codegen.convolution import rows_ahead, tiles_for
from odec.codegen.kernel import Allocate, Assign, Call, Element, Index, Kernel, Literal, Local, Loop, Return, work_for
from odec.codegen.lower import has_few_elements, lower
from odec.codegen.lower_scalar import signature
from odec.codegen.workspace import ALIGNMENT
from odec.graph.op import OPS
from odec.transforms.jet_adjoint import JetAdjoint
from odec.transforms.orders import FIRST_ROW, orders

ORDER = "order"  # the loop variable: one less than the order k whose coefficients are found
STATE = "y"  # the history of the state beside the coefficients themselves
SERIES, ROW = "y_series", "_row"  # its buffer; behind the name of a history: a row on its way into the tiles
AHEAD = "_ahead"  # behind the name of a convolution: parts of its later rows
VECTOR_BYTES = 32


def lower_series(jet, name):
    """The kernel of a Jet, (t, y, p[, last]) -> coefficients (order + 1, n), or of a JetAdjoint.

    Raises
    ------
    NoLoop : as for transforms.orders.orders
    """
    lowering = _AdjointLowering if isinstance(jet, JetAdjoint) else _SeriesLowering
    return lowering(jet, name).kernel()


class _SeriesLowering:
    rows = "coefficients"  # the buffer of the state's

    def __init__(self, jet, name):
        self.jet, self.name, self.parts = jet, name, orders(jet.model)
        self.dtype = self.parts.order.outputs["next"].dtype
        self.start, self.order = (
            lower(part, f"{name}_{what}", "scalar" if has_few_elements(part) else "array")
            for what, part in (("start", self.parts.start), ("order", self.parts.order))
        )
        self.n = jet.model.inputs["y"].size
        self.body, self.work_size = [], 0
        self.sizes = {h: self.parts.start.outputs[h].size for h in self.parts.histories}
        if any(STATE in (c.a, c.b) for c in self.parts.convolutions):
            self.sizes[STATE] = self.n
        lanes = VECTOR_BYTES // np.dtype(self.dtype).itemsize
        self.tiles = {h: tiles_for(n, jet.order, lanes) for h, n in self.sizes.items()}

    def kernel(self):
        """The statements: the zeroth values and y_1, then for each order k its convolutions and its graph."""
        order, n = self.jet.order, self.n
        tables = {"next_orders": np.arange(2.0, max(order, 2) + 1).astype(self.dtype), "times": self._times()}
        self._allocate()
        self.body.append(_each(n, _copied(_at("coefficients", 0, ("i", 1)), _at("y", 0, ("i", 1)))))
        if order > 0:
            self.body.append(self._call_start(_at("coefficients", n)))
        if order > 1:
            places = {"next_order": _at("next_orders", 0, (ORDER, 1)), "next": _at("coefficients", 2 * n, (ORDER, n))}
            self.body += self._loop(self._count(), places, [])
        return self._kernel(tables)

    def _count(self):
        """How many orders the loop is over; where only the kernel is told, after zeros for those beyond."""
        order, n = self.jet.order, self.n
        if self.jet.last is None:
            return order - 1
        beyond = Assign(_at("coefficients", 2 * n, ("i", 1)), None, (Literal(0.0, self.dtype),))
        count, one = Local("count", "float64"), Literal(1.0, "float64")
        self.body += [_each((order - 1) * n, beyond), Assign(count, OPS["sub"], (_at("last", 0), one))]
        return count

    def _loop(self, count, places, then):
        """The loop over so many orders from 2 on: where `order` reads its number and writes, and what follows it."""
        padded = [s for history in self.sizes for s in self._padded(history)]
        steps = self._convolved()
        kept = [s for history in self.sizes for s in self._kept(history)]
        return [*padded, Loop(ORDER, count, [*steps, self._call_order(places), *then, *kept])]

    def _kernel(self, tables):
        callees = (self.start, self.order) if self.jet.order > 1 else (self.start,)
        body = [*self.body, Return()]
        return Kernel(self.name, signature(self.jet), body, self.dtype, tables, self.work_size, callees)

    def _times(self):
        """t_k of the orders of the loop."""
        return np.asarray(np.arange(max(self.jet.order - 1, 1)) == 0, "float64")

    # ---- places

    def _allocate(self):
        """Buffers one behind another: histories, their rows, zeroth values, convolutions, the callees' workspace."""
        for history, tiles in self.tiles.items():
            self._buffer(SERIES if history == STATE else history, tiles.size, self.dtype)
            if history != STATE and tiles.count > 1:
                self._buffer(history + FIRST_ROW, self.sizes[history], self.dtype)
                self._buffer(history + ROW, self.sizes[history], self.dtype)
        for c in self.parts.convolutions:
            row, ahead = self.tiles[c.a].count * self.tiles[c.a].width, rows_ahead(self.tiles[c.a])
            self._buffer(c.name, row, self.dtype)
            self._buffer(c.name + AHEAD, row * ahead, self.dtype)
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

    def _call_start(self, slope):
        places = {"t": _at("t", 0), "y": _at(self.rows, 0), "p": _at("p", 0), "dydt": slope}
        return self._call(self.start, places | {h: self._first_row(h) for h in self.parts.histories})

    def _call_order(self, places):
        n = self.n
        places |= {
            "time": _at("times", 0, (ORDER, 1)), "p": _at("p", 0), "y": _at(self.rows, n, (ORDER, n)),
            STATE + FIRST_ROW: _at(self.rows, 0),
        }  # fmt: skip
        for history in self.parts.histories:
            places[history], places[history + FIRST_ROW] = self._next_row(history), self._first_row(history)
        return self._call(self.order, places)

    def _call(self, kernel, places):
        work = [_at("scratch", 0)] if kernel.work_size else []
        return Call(kernel.name, (*(places.get(a.name, _at(a.name, 0)) for a in kernel.arguments), *work))

    def _convolved(self):
        """The calls that put the convolutions where `order` reads them: some tiles of one, then the tiles of the others
        beside them, so that what several read is read from memory once."""
        counts = [self.tiles[c.a].count for c in self.parts.convolutions]
        turns = math.gcd(*counts)
        calls = [self._convolution(c, turns) for c in self.parts.convolutions]
        return [Loop("i", turns, calls)] if turns > 1 else calls

    def _convolution(self, c, turns):
        """The call for the tiles of one of so many turns, which `i` counts."""
        tiles, weights = self.tiles[c.a], (Literal(c.p, self.dtype), Literal(c.q, self.dtype))
        count, row = tiles.count // turns, tiles.count // turns * tiles.width
        part = lambda buffer, size: _at(buffer, 0, *([("i", size)] if turns > 1 else []))
        a, b = (part(SERIES if name == STATE else name, row * tiles.rows) for name in (c.a, c.b))
        ahead = [part(c.name + AHEAD, row * rows_ahead(tiles))] if rows_ahead(tiles) else []
        return Call("convolve", (
            Index(1, ((ORDER, 1),)), count, tiles.width, tiles.rows, *weights, a, b, part(c.name, row), *ahead,
        ))  # fmt: skip

    def _kept(self, history):
        """Statements that put the k-th row of a history into its tiles, where `order` has not written it there."""
        tiles, n = self.tiles[history], self.sizes[history]
        if history != STATE and tiles.count == 1:
            return
        source, first, target = history + ROW, 0, history
        moving = ()
        if history == STATE:
            source, first, target, moving = self.rows, n, SERIES, ((ORDER, n),)
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


class _AdjointLowering(_SeriesLowering):
    """Of a JetAdjoint: rows of y and u, from the rates of its model, of which `rate` holds the newest."""

    rows = "rows"

    def kernel(self):
        """The statements: y_0 and u_0, then for each order k the rates, and y_{k+1} and u_{k+1} from them."""
        order, n = self.jet.order, self.n // 2
        size = self.parts.start.outputs["dydt"].size
        self._buffer("rows", (order + 1) * self.n, self.dtype)
        self._buffer("rate", size, self.dtype)
        self._allocate()
        self.body += [
            _each(n, _copied(_at("rows", 0, ("i", 1)), _at("y", 0, ("i", 1)))),
            _each(n, _product(_at("rows", n, ("i", 1)), self._weight(order), Literal(1.0 / order, self.dtype))),
            self._call_start(_at("rate", 0)), *self._found(0),
        ]  # fmt: skip
        if order > 1:
            places = {"next_order": _at("one", 0), "next": _at("rate", 0)}
            self.body += self._loop(order - 1, places, self._found(1, (ORDER, 1)))
        self.body.append(_each(n, _copied(_at("bars", 0, ("i", 1)), _at("rows", order * self.n + n, ("i", 1)))))
        if size > 2 * n:
            self.body.append(_each(size - 2 * n, _copied(_at("bars", n, ("i", 1)), _at("rate", 2 * n, ("i", 1)))))
        left = np.maximum(np.arange(order - 1.0, -1.0, -1.0), 1.0)
        tables = {"one": np.ones(1), "up": 1.0 / np.arange(1.0, order + 1), "down": 1.0 / left}
        return self._kernel({k: v.astype(self.dtype) for k, v in tables.items()} | {"times": self._times()})

    def _weight(self, k, *loop):
        """The cotangent of the coefficient k, or of the one that `loop` counts down from it."""
        n = self.n // 2
        return _at(list(self.jet.inputs)[-1], k * n, *((name, -stride * n) for name, stride in loop), ("i", 1))

    def _found(self, k, *loop):
        """The loops that find y_{k+1} and u_{k+1} from rates, as jet_adjoint.py says; `loop` counts k up."""
        n, total = self.n // 2, Local("total", self.dtype)
        row = lambda first: _at("rows", (k + 1) * self.n + first, *((name, self.n) for name, _ in loop), ("i", 1))
        up, down = (_at(table, k, *loop) for table in ("up", "down"))
        sum_ = Assign(total, OPS["add"], (self._weight(self.jet.order - 1 - k, *loop), _at("rate", n, ("i", 1))))
        return [
            _each(n, _product(row(0), _at("rate", 0, ("i", 1)), up)),
            _each(n, sum_, _product(row(n), total, down)),
        ]


def _each(size, *statements):
    return Loop("i", size, list(statements), vector=True)


def _copied(target, source):
    return Assign(target, None, (source,))


def _product(target, a, b):
    return Assign(target, OPS["mul"], (a, b))


def _whole_and_rest(n, tiles):
    """(first tile, how many, elements of each that are part of the row)."""
    whole, rest = divmod(n, tiles.width)
    return [part for part in ((0, whole, tiles.width), (whole, 1, rest)) if part[1] and part[2]]


def _at(buffer, offset, *terms):
    return Element(buffer, Index(offset, terms))
