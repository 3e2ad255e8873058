"""Taylor coefficients by a loop over the orders: what is done once at the start, and what for each order k.

Of every product of two moving nodes a and b, v_k = sum_j a_j b_{k-j}, the terms with j from 1 to k - 1 need only
coefficients of lower orders, which are kept: their histories. These sums, the convolutions, come first. What remains of
order k is a graph: linear maps of k-th coefficients, and products of them by zeroth ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from odec.graph.function import Function
from odec.graph.node import (
    CONSTANT,
    INPUT,
    Node,
    constant,
    input_node,
    line_is,
    make,
    scalar_value,
    structural_zero,
    topological,
)
from odec.graph.op import OPS
from odec.ops.call import call, result_of
from odec.ops.comparison import as_bool
from odec.ops.families import broadcast_to, total
from odec.ops.linalg import matmul
from odec.ops.recurrence import Same
from odec.ops.structure import concatenate, reshape, slice_
from odec.transforms.simplify import rebuilt, rewritten
from odec.transforms.taylor import Series

FEW = 8  # elements up to which convolutions are joined, so that together they fill vectors
FIRST_ROW = "_0"  # behind the name of a history: its zeroth row as an input of `order`


class NoLoop(Exception):
    """The coefficients of a model cannot be found by a loop over the orders; they can be unrolled."""


@dataclass(frozen=True, eq=False)
class Convolution:
    """sum_{j=1..k-1} (p j/k + q) a_j b_{k-j}, element by element.

    name : of its input of `order`; a, b : names of histories; size : elements
    """

    name: str
    a: str
    b: str
    size: int
    p: float
    q: float


@dataclass(frozen=True, eq=False)
class Orders:
    """The parts of the loop that finds the coefficients of dy/dt = f(t, y, p).

    start : (t, y, p) -> dydt, and by name the zeroth values of nodes that `order` reads or that have histories
    order : (next_order = k + 1, time = t_k, y = y_k, p, convolutions, values, `<history>_0`) -> next = y_{k+1}, and by
        name the k-th row of each history
    histories : names of outputs of both; "y", the coefficients themselves, may be the history of a convolution too
    """

    start: Function
    order: Function
    convolutions: tuple[Convolution, ...]
    histories: tuple[str, ...]


def orders(function, time="t", state="y"):
    """The Orders of a Function (t: (), y: (n,), p: (m,)) -> (n,).

    Raises
    ------
    NoLoop : a product of moving matrices that is no matrix product, as in a linear system
    """
    return _Builder(_products_by_element(inlined(function), time, state), time, state).orders()


def inlined(function):
    """An equal Function without calls."""

    def replaced(node, inputs):
        return result_of_call(node.params["function"], inputs) if node.op is call else None

    if not any(node.op is call for node in function.nodes):
        return function
    return rewritten(function, replaced)


def result_of_call(callee, inputs):
    (result,) = inlined(callee)(*inputs).values()
    return result


def _products_by_element(function, time, state):
    """An equal Function in which products of two moving matrices are sums of products of elements."""
    series = _series(function, time, state)

    def replaced(node, inputs):
        if node.op is not matmul or any(series.is_constant(i) for i in node.inputs):
            return None
        a, b = inputs
        *lead, m, k = a.shape
        n, last = b.shape[-1], len(lead)
        wide = (*lead, m, k, n)
        left = broadcast_to(reshape(a, shape=(*lead, m, k, 1)), wide)
        right = broadcast_to(reshape(b, shape=(*lead, 1, k, n)), wide)
        return OPS["sum"](left * right, axes=(last + 1,))

    return rewritten(function, replaced)


def _series(function, time, state):
    return Series({function.inputs[name]: [] for name in (time, state)})


class _Builder:
    def __init__(self, function, time, state):
        self.function, self.series = function, _series(function, time, state)
        t, y = function.inputs[time], function.inputs[state]
        own = {"next_order": ((), y.dtype), "time": ((), t.dtype), "y": (y.shape, y.dtype)}
        self.inputs = {name: input_node(name, *kind) for name, kind in own.items()}
        self.inputs["p"] = function.inputs["p"]
        self.coefficients: dict[int, Any] = {id(t): self.inputs["time"], id(y): self.inputs["y"]}
        self.moving: dict[int, bool] = {}
        self.histories = {id(y): "y"}
        self.nodes: list[Node] = [y]  # of the histories, in order
        self.sums: dict[tuple, _Sum] = {}

    def orders(self):
        rate, done = result_of(self.function), 0
        for node in self.function.nodes:  # so that no recursion is deeper than a rule
            self.coefficient(node)
        outputs = {"next": self._next(rate)}
        while done < len(self.sums):  # rows of histories may need further convolutions
            found = list(self.sums.values())[done]
            self.coefficient(found.a)
            self.coefficient(found.b)
            done += 1
        convolutions, parts = self._convolutions()
        outputs |= {self.histories[id(node)]: _or_zero(self.coefficient(node), node) for node in self.nodes[1:]}
        new = rebuilt(topological(outputs.values()), lambda node, inputs: parts.get(id(node)))
        outputs, values = self._detached({name: new[id(node)] for name, node in outputs.items()})
        histories = {self.histories[id(node)]: node for node in self.nodes[1:]}
        start = Function(f"{self.function.name}_start", self.function.inputs, {"dydt": rate, **histories, **values})
        order = Function(f"{self.function.name}_order", self.inputs, outputs)
        return Orders(start, order, convolutions, tuple(histories))

    def _next(self, rate):
        """f_k / (k + 1), as a product with the rounded 1 / (k + 1) and the rest: the product alone errs the same way in
        every step, and a division takes four times as long [markstein1990]."""
        k_th = self.coefficient(rate)
        if k_th is None:
            return structural_zero(rate.dtype, rate.shape)
        whole, part = (
            broadcast_to(x, rate.shape) for x in (self.inputs["next_order"], 1.0 / self.inputs["next_order"])
        )
        near = k_th * part
        return near + (k_th - near * whole) * part

    # ---- the k-th coefficient of a node

    def coefficient(self, node):
        """The k-th coefficient as a node of the order's graph; None for zero."""
        if id(node) not in self.coefficients:
            with line_is(node.line):
                self.coefficients[id(node)] = self._coefficient(node)
        return self.coefficients[id(node)]

    def _coefficient(self, node):
        if not self.moves(node):
            return None
        rule = self.series.rule(node)
        if isinstance(rule, Same):
            for inner in topological([rule.other]):
                self.coefficient(inner)
            return self.coefficient(rule.other)
        parts = [part for product in rule.products for part in self._product(product)]
        if rule.linear is not None:
            parts.append(rule.linear([self.coefficient(i) for i in node.inputs]))
        result = total(parts)
        return result if result is None or rule.finish is None else rule.finish(result)

    def moves(self, node):
        """Whether a node may have coefficients beside its zeroth one."""
        if node.op is INPUT:
            return id(node) in self.coefficients
        if self.series.is_constant(node) or node.dtype == "bool" or self.series.rule(node) is None:
            return False
        if id(node) not in self.moving:
            self.moving[id(node)] = any(map(self.moves, node.inputs))
        return self.moving[id(node)]

    def _product(self, product):
        """The terms of a Product: those with a k-th coefficient, and the convolution."""
        product, factor = _without_factors(product)
        result = total(self._terms(product, product.a, product.b))
        if result is None:
            return []
        result = _scaled(factor, result)
        return [result if product.scale is None else product.scale * result]

    def _terms(self, product, a, b):
        newest, moving = self.coefficient(a), self.moves(a) and self.moves(b)
        if moving and not product.by_element:
            raise NoLoop
        if a is b and product.first == 0:
            return [] if newest is None else [2.0 * product.times(a, newest), self._sum(product)]
        parts = [] if newest is None else [_scaled(product.p + product.q, product.times(newest, b))]
        if product.first == 0 and (newest := self.coefficient(b)) is not None:
            parts.append(_scaled(product.q, product.times(a, newest)))
        return [*parts, self._sum(product)] if moving else parts

    # ---- convolutions

    def _sum(self, product):
        """The place of a convolution in the order's graph: a node that a part of an input will replace."""
        key = id(product.a), id(product.b), product.p, product.q
        if key not in self.sums:
            place = input_node(f"part_{len(self.sums) + 1}", product.a.shape, product.a.dtype)
            self.sums[key] = _Sum(place, product.a, product.b, product.p, product.q)
        return self.sums[key].place

    def _convolutions(self):
        """(Convolutions, {id(place): node}): those of a few elements with the same weights side by side in one."""
        groups: dict[tuple, list[_Sum]] = {}
        for number, found in enumerate(self.sums.values()):
            alone = number if found.a.size > FEW else None
            groups.setdefault((found.p, found.q, found.a is found.b, alone), []).append(found)
        convolutions, parts = [], {}
        for group in groups.values():
            name, first = f"sum_{len(convolutions) + 1}", group[0]
            a, b = (_joined([getattr(found, side) for found in group]) for side in "ab")
            self.inputs[name] = joined = input_node(name, a.shape, a.dtype)
            histories = self._history(a), self._history(b)
            convolutions.append(Convolution(name, *histories, a.size, first.p, first.q))
            start = 0
            for found in group:
                part = slice_(joined, starts=(start,), steps=(1,), shape=(found.a.size,)) if len(group) > 1 else joined
                parts[id(found.place)] = reshape(part, shape=found.a.shape)
                start += found.a.size
        return tuple(convolutions), parts

    def _history(self, node):
        name = self.histories.get(id(node))
        if name is None:
            name = self.histories[id(node)] = f"series_{len(self.nodes)}"
            self.nodes.append(node)
        return name

    # ---- zeroth values

    def _detached(self, outputs):
        """The outputs with what does not change with k as inputs, and {name: node} of those that have no history."""
        nodes = topological(outputs.values())
        late = {id(node) for name, node in self.inputs.items() if name != "p"}
        for node in nodes:
            if any(id(i) in late for i in node.inputs):
                late.add(id(node))
        read = {id(i) for node in nodes if id(node) in late for i in node.inputs} | set(map(id, outputs.values()))
        for node in reversed(nodes):  # what is repeated is read again and again, not kept again and again
            if node.op is OPS["broadcast"] and id(node) in read and id(node) not in {*late, *self.histories}:
                late.add(id(node))
                read.add(id(node.inputs[0]))
        values = {}

        def replaced(node, inputs):
            if id(node) in late:
                return None
            stays = node.op is CONSTANT or node is self.inputs["p"] or id(node) not in read
            return node if stays else self._value(node, values)

        new = rebuilt(nodes, replaced)
        return {name: new[id(node)] for name, node in outputs.items()}, values

    def _value(self, node, values):
        """The zeroth value of a node as an input: the first row of its history, or one of `values`; truth as 0 or 1."""
        history = self.histories.get(id(node))
        name = f"value_{len(values) + 1}" if history is None else f"{history}{FIRST_ROW}"
        truth = node.dtype == "bool"
        if history is None:
            values[name] = node = make(OPS["to_float"], [node], dtype=self.inputs["y"].dtype) if truth else node
        self.inputs[name] = input_node(name, node.shape, node.dtype)
        return as_bool(self.inputs[name]) if truth else self.inputs[name]


@dataclass(frozen=True, eq=False)
class _Sum:
    """The convolution of a and b before it is known where it is put."""

    place: Node
    a: Node
    b: Node
    p: float
    q: float


def _joined(nodes):
    """One node of the elements of several, or the only one itself."""
    if len(nodes) == 1:
        return nodes[0]
    return concatenate(*(reshape(node, shape=(node.size,)) for node in nodes), axis=0)


def _without_factors(product):
    """(the Product of what its nodes are multiples of, the number left out), so that x and c x share a history."""
    if not product.by_element:
        return product, 1.0
    (a, left), (b, right) = map(_multiple, (product.a, product.b))
    sign = -1.0 if product.p == 0.0 and product.q < 0.0 else 1.0
    return replace(product, a=a, b=b, q=sign * product.q), sign * left * right


def _multiple(node):
    """(another node, the number that it is multiplied by)."""
    if node.op is OPS["neg"]:
        other, factor = _multiple(node.inputs[0])
        return other, -factor
    if node.op is OPS["mul"]:
        for constant_, other in (node.inputs, node.inputs[::-1]):
            number = scalar_value(constant_)
            if number is not None and np.isfinite(number) and number != 0.0:
                other, factor = _multiple(other)
                return other, float(number) * factor
    return node, 1.0


def _scaled(factor, node):
    return node if factor == 1.0 else -node if factor == -1.0 else factor * node


def _or_zero(coefficient, node):
    return constant(0.0, node.dtype, node.shape) if coefficient is None else coefficient
