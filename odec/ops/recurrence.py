"""How the Taylor coefficients of a node follow from those of others: what an op's `taylor` rule returns.

Coefficients are normalised, v_k = v^(k)/k!. One statement of a rule serves twice: unrolled into nodes, order by order
(`coefficient`), and as a loop over the orders (transforms/jets.py).
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from odec.graph.node import Node


@dataclass(frozen=True, eq=False)
class Product:
    """scale sum_{j=first..k} (p j/k + q) times(a_j, b_{k-j}).

    first : 0 or 1; p is 0 with 0
    times : bilinear in nodes
    scale : a node that does not move, or None for 1
    """

    a: Node
    b: Node
    p: float = 0.0
    q: float = 1.0
    first: int = 0
    times: Callable = operator.mul
    scale: Node | None = None

    @property
    def by_element(self):
        """Whether elements are multiplied one by one."""
        return self.times is operator.mul or getattr(self.times, "name", "") == "mul"

    def terms(self, series, k):
        """[(age, sign, term)]: `age` is the last order that a term waits for; all terms together are the sum."""
        pairs = [(j, series(self.a, j), series(self.b, k - j)) for j in range(self.first, k + 1)]
        pairs = [(j, a, b) for j, a, b in pairs if a is not None and b is not None]
        if self.p == 0.0:
            return [self._signed(max(j, k - j), self.q, self.times(a, b)) for j, a, b in self._folded(pairs, k)]
        newest = [self._signed(k, self.p + self.q, self.times(a, b)) for j, a, b in pairs if j == k]
        if self.q == 0.0:  # j u_j is shared by all the sums that u enters
            older = _chained((max(j, k - j), 1.0, self.times(float(j) * a if j > 1 else a, b))
                             for j, a, b in pairs if j < k)  # fmt: skip
            return newest if older is None else [self._signed(k - 1, self.p / k, older), *newest]
        older = [self._signed(max(j, k - j), 1.0, self.times((self.p * j / k + self.q) * a, b))
                 for j, a, b in pairs if j < k]  # fmt: skip
        return [*older, *newest]

    def _folded(self, pairs, k):
        """Half of the terms of a square, each twice."""
        if self.a is not self.b or self.first or not self.by_element:
            return pairs
        known = {j: a for j, a, _ in pairs}
        half = [(j, 2.0 * a, known[k - j]) for j, a in known.items() if 2 * j < k and k - j in known]
        return half + ([(k // 2, known[k // 2], known[k // 2])] if k % 2 == 0 and k // 2 in known else [])

    def _signed(self, age, factor, term):
        if self.scale is not None:
            term = self.scale * term
        return (age, factor, term) if abs(factor) == 1.0 else (age, 1.0, factor * term)


@dataclass(frozen=True, eq=False)
class Recurrence:
    """v_k = finish(linear(coefficients of the inputs at k) + the products), for k from 1.

    linear : (the inputs' coefficients, None for zero) -> node or None; None where there is no such part
    finish : (node) -> node, linear, and made of nodes that do not move with k; None for nothing to do
    """

    node: Node
    products: tuple[Product, ...] = ()
    linear: Callable | None = None
    finish: Callable | None = None

    def coefficient(self, series, k):
        """v_k as a node, None for zero."""
        terms = [term for product in self.products for term in product.terms(series, k)]
        if self.linear is not None:
            part = self.linear([series(i, k) for i in self.node.inputs])
            terms += [] if part is None else [(k, 1.0, part)]
        result = _chained(terms)
        return result if result is None or self.finish is None else self.finish(result)


@dataclass(frozen=True, eq=False)
class Same:
    """v_k is the k-th coefficient of another node with the same value."""

    other: Node

    def coefficient(self, series, k):
        return series(self.other, k)


LONG = 8  # terms from which a sum is two chains, of which the second holds every other of the older terms


def _chained(terms) -> Any:
    """The sum of (age, sign, term), the oldest first, so that one addition waits for the newest coefficient."""
    ordered = sorted(terms, key=lambda term: term[0])
    if not ordered:
        return None
    older = sum(age < ordered[-1][0] for age, _, _ in ordered)
    if older >= LONG:
        half = _in_order(ordered[1:older:2])
        ordered = [*ordered[0:older:2], (ordered[older - 1][0], 1.0, half), *ordered[older:]]
    return _in_order(ordered)


def _in_order(ordered):
    """The sum of (age, sign, term), one after another."""
    first = next((i for i, (_, sign, _) in enumerate(ordered) if sign > 0), 0)
    ordered = [ordered[first], *ordered[:first], *ordered[first + 1 :]]  # a difference, not the negative of a term
    (_, sign, start), *rest = ordered
    start = start if sign > 0 else -start
    return functools.reduce(lambda sum_, term: _added(sum_, *term[1:]), rest, start)


def _added(sum_, sign, term):
    return sum_ + term if sign > 0 else sum_ - term
