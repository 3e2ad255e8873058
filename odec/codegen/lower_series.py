"""Taylor coefficients of large models: a kernel that loops over the orders (transforms/orders.py).

Rows of a history lie one behind another, elements innermost, so that convolutions fill vector lanes.
"""

from __future__ import annotations

import numpy as np

from odec.codegen.kernel import Allocate, Assign, Call, Element, Index, Kernel, Literal, Loop, Return, work_for
from odec.codegen.lower_array import lower_array
from odec.codegen.lower_scalar import signature
from odec.codegen.workspace import ALIGNMENT
from odec.transforms.orders import FIRST_ROW, orders

ORDER = "order"  # the loop variable: one less than the order whose coefficients are found


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
        self.state = jet.inputs["y"]
        self.body, self.work_size = [], 0
        self.sizes = {h: self.parts.start.outputs[h].size for h in self.parts.histories} | {"y": self.state.size}

    def kernel(self):
        """The statements: the zeroth values and y_1, then for each order k its convolutions and its graph."""
        order = self.jet.order
        arguments = signature(self.jet)
        tables = {
            "shares": 1.0 / np.arange(2.0, max(order, 2) + 1).astype(self.dtype),
            "times": np.arange(max(order - 1, 1)) == 0.0,
        }  # fmt: skip
        tables = {
            key: np.asarray(values, self.dtype if key == "shares" else "float64") for key, values in tables.items()
        }
        self._allocate(order)
        n = self.state.size
        self.body.append(Loop("i", n, [Assign(_at("coefficients", 0, ("i", 1)), None, (_at("y", 0, ("i", 1)),))]))
        if order > 0:
            self.body.append(self._call_start(n))
        if order > 1:
            steps = [self._convolved(c) for c in self.parts.convolutions]
            self.body.append(Loop(ORDER, order - 1, [*steps, self._call_order(n)]))
        self.body.append(Return())
        callees = (self.start, self.order) if order > 1 else (self.start,)
        return Kernel(self.name, arguments, self.body, self.dtype, tables, self.work_size, callees)

    def _allocate(self, order):
        """Buffers one behind another: histories, zeroth values, convolutions, the workspace of what is called."""
        for name in self.parts.histories:
            self._buffer(name, order * self.sizes[name], self.dtype)
        for name, node in self.parts.order.inputs.items():
            if name not in ("share", "time", "y", "p") and not name.endswith(FIRST_ROW):
                self._buffer(name, node.size, node.dtype)
        for name, node in self.parts.start.outputs.items():
            if name not in self.parts.histories and name not in self.parts.order.inputs and name != "dydt":
                self._buffer(name, node.size, node.dtype)
        self._buffer("scratch", work_for((self.start, self.order), self.dtype), self.dtype)

    def _buffer(self, name, size, dtype):
        if size:
            step = ALIGNMENT // np.dtype(self.dtype).itemsize
            self.body.append(Allocate(name, size, self.work_size, dtype))
            self.work_size += -(-size * np.dtype(dtype).itemsize // ALIGNMENT) * step

    def _call_start(self, n):
        places = {"t": _at("t", 0), "y": _at("y", 0), "p": _at("p", 0), "dydt": _at("coefficients", n)}
        return self._call(self.start, lambda name: places.get(name, _at(name, 0)))

    def _call_order(self, n):
        places = {
            "share": _at("shares", 0, (ORDER, 1)), "time": _at("times", 0, (ORDER, 1)), "p": _at("p", 0),
            "y": _at("coefficients", n, (ORDER, n)), "next": _at("coefficients", 2 * n, (ORDER, n)),
            "y" + FIRST_ROW: _at("coefficients", 0),
        }  # fmt: skip
        for history in self.parts.histories:
            size = self.sizes[history]
            places[history], places[history + FIRST_ROW] = _at(history, size, (ORDER, size)), _at(history, 0)
        return self._call(self.order, lambda name: places.get(name, _at(name, 0)))

    def _call(self, kernel, place):
        work = [_at("scratch", 0)] if kernel.work_size else []
        return Call(kernel.name, (*(place(a.name) for a in kernel.arguments), *work))

    def _convolved(self, c):
        """The call that puts a convolution where `order` reads it."""
        a, b = (_at("coefficients" if name == "y" else name, 0) for name in (c.a, c.b))
        weights = Literal(c.p, self.dtype), Literal(c.q, self.dtype)
        return Call("convolve", (Index(1, ((ORDER, 1),)), c.size, *weights, a, b, _at(c.name, 0)))


def _at(buffer, offset, *terms):
    return Element(buffer, Index(offset, terms))
