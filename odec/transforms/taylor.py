"""Taylor coefficients of the solution of dy/dt = f(t, y, p), unrolled into graph nodes.

Coefficients are normalised: y(t + h) = sum_k y_k h^k, so (k+1) y_{k+1} = f_k, where f_k is the k-th
coefficient of f along the solution [jorba2005].
"""

from __future__ import annotations

import functools
import hashlib
import weakref

import numpy as np

from odec.graph.function import Function
from odec.graph.node import (
    CONSTANT,
    INPUT,
    constant,
    current_line,
    input_node,
    scalar_value,
    set_line,
    structural_zero,
)
from odec.graph.op import OPS, zero
from odec.ops.families import broadcast_to, taylor_by_jvp
from odec.ops.recurrence import Same
from odec.ops.structure import concatenate, reshape


class Series:
    """Coefficients of nodes along a curve, found when asked for and kept; None is zero."""

    def __init__(self, inputs):
        self._inputs = inputs  # input node -> list of its coefficients
        self._known = {}
        self._rules = {}
        self._constant = {}

    def __call__(self, node, k):
        """The k-th coefficient of a node along the curve."""
        if node.op is INPUT:
            coefficients = self._inputs.get(node, [node])
            return coefficients[k] if k < len(coefficients) else None
        if k == 0:
            return node
        if self.is_constant(node):
            return None
        key = (id(node), k)
        if key not in self._known:
            before = current_line()
            set_line(node.line)
            rule = self.rule(node)
            self._known[key] = None if rule is None else rule.coefficient(self, k)
            set_line(before)
        return self._known[key]

    def rule(self, node):
        """How the coefficients of a node follow from others, None for zero."""
        known = self._rules.get(id(node))
        if known is None:
            known = self._rules[id(node)] = node.op.taylor(node, self), node  # the node, so that its id stays its own
        return known[0]

    def is_constant(self, node):
        """Whether no input that moves along the curve reaches the node."""
        known = self._constant.get(id(node))
        if known is None:
            if node.op is CONSTANT:
                answer = True
            elif node.op is INPUT:
                answer = node not in self._inputs
            else:
                answer = all(self.is_constant(i) for i in node.inputs)
            known = self._constant[id(node)] = (answer, node)
        return known[0]


class Jet(Function):
    """Taylor coefficients (order + 1, *y.shape), and what they are of: loops over the orders need only that, so the
    graph in which they are unrolled is made when it is first looked at.

    model : Function (t: (), y: (n,), ...) -> (n,); order : of the last coefficient
    last : one more input, float64, a whole number from 2 to order: coefficients beyond that order are 0, and a loop
        does not look for them; None without it
    """

    def __init__(self, model, order, time, state, told=False):
        self.name, self.inputs, self.model, self.order = f"{model.name}_taylor{order}", model.inputs, model, order
        self._moving, self._order, self._digest, self._outputs = (time, state), None, None, None
        self.last = input_node("last", (), "float64") if told else None
        if told:
            self.inputs = {**model.inputs, "last": self.last}

    @property
    def outputs(self):
        """{"coefficients": node}"""
        if self._outputs is None:
            series = _unrolled(self.model, self.order, *self._moving)
            self._outputs = {"coefficients": series if self.last is None else _ended(series, self.last)}
        return self._outputs

    @property
    def kinds(self):
        """(shape, dtype) of the outputs, by name."""
        y = self.inputs[self._moving[1]]
        return {"coefficients": ((self.order + 1, *y.shape), y.dtype)}

    @property
    def stamp(self):
        """What tells Functions apart, without the graph."""
        said = repr((self.model.digest, self.order, self._moving, *(() if self.last is None else ("last",))))
        return hashlib.sha256(said.encode()).hexdigest()

    @property
    def operations(self):
        """How many scalar operations the unrolled graph takes, roughly."""
        each, pairs = self.costs
        return int(each * (1 + self.order) + pairs * self.order * (self.order + 1) / 2)

    @functools.cached_property
    def costs(self):
        """(for each order, for each pair of orders): of how many scalar operations `operations` is made."""
        series = Series({self.inputs[name]: [] for name in self._moving})
        stack, seen, each, pairs = [*self.model.nodes], set(), 0, 0.0
        while stack:
            node = stack.pop()
            if id(node) in seen or node.op in (INPUT, CONSTANT):
                continue
            seen.add(id(node))
            rule = None if series.is_constant(node) else series.rule(node)
            products = getattr(rule, "products", ())
            moving = [p for p in products if not (series.is_constant(p.a) or series.is_constant(p.b))]
            terms = sum(0.5 if p.a is p.b else 1.0 for p in moving)
            each += node.op.cost(node) if not terms else 0
            pairs += terms * max(2 * node.size, node.op.cost(node))
            stack += [p.b for p in products] + ([rule.other] if isinstance(rule, Same) else [])
        return each, pairs


_jets: weakref.WeakValueDictionary = weakref.WeakValueDictionary()  # (id of a model, order): a Jet keeps its model


def taylor(function, order, time="t", state="y", told=False):
    """Coefficients 0 .. order of the solution through (t, y), stacked: a Jet of shape (order + 1, *y.shape).

    function : Function (t: (), y: (n,), ...) -> (n,)
    told : with one more input, the last order to find
    """
    key = id(function), order, time, state, told
    found = _jets.get(key)
    if found is None:
        found = _jets[key] = Jet(function, order, time, state, told)
    return found


def _ended(series, last):
    """The coefficients up to an order, zeros for those beyond."""
    column = (series.shape[0], *[1] * (len(series.shape) - 1))
    orders = constant(np.arange(float(series.shape[0])).reshape(column), "float64")
    beyond = OPS["lt"](broadcast_to(last, series.shape), broadcast_to(orders, series.shape))
    return OPS["where"](beyond, structural_zero(series.dtype, series.shape), series)


def _unrolled(function, order, time, state):
    rows = [reshape(c, shape=(1, *c.shape)) for c in coefficients(function, order, time, state)]
    return concatenate(*rows, axis=0)


def coefficients(function, order, time="t", state="y"):
    """[y_0, y_1, ..., y_order]: coefficients of the solution through (t, y), nodes shaped like y.

    function : Function (t: (), y: (n,), ...) -> (n,)
    """
    t, y = function.inputs[time], function.inputs[state]
    (rate,) = function.outputs.values()
    curve = {t: [t, constant(1.0, t.dtype)], y: [y]}
    series = Series(curve)
    # Coefficients are asked for in rising order, so that no recursion is deeper than the graph.
    for k in range(order):
        for node in function.nodes:
            series(node, k)
        part = series(rate, k)
        zero = structural_zero(y.dtype, y.shape)
        curve[y].append(zero if part is None else part * (1.0 / (k + 1)))
    return curve[y]


BRANCHING = ("sqrt", "cbrt", "hypot", "arctan2", "arcsin", "arccos", "arccosh")  # finite at a branch point


def kink(function, moving=("t", "y"), choices_only=False):
    """The first node of a Function that depends on the inputs named `moving` and is not analytic where it is finite: a
    choice, a rounding, a table, or else, unless `choices_only`, a root at 0; None where there is none."""
    series = Series({function.inputs[name]: [] for name in moving})
    for node in function.nodes:
        if node.op in (INPUT, CONSTANT) or series.is_constant(node):
            continue
        if node.op.family == "call":
            callee = node.params["function"]
            pairs = zip(callee.inputs, node.inputs, strict=True)
            found = kink(callee, [name for name, i in pairs if not series.is_constant(i)], choices_only)
            if found is not None:
                return found
        elif is_piecewise(node.op) if choices_only else _can_kink(node):
            return node
    return None


def _can_kink(node):
    """Whether an op is finite where it is not analytic. A negative power grows too large to be stepped over."""
    if node.op.name == "pow":
        exponent = scalar_value(node.inputs[1])
        return exponent is None or exponent > 0.0
    return node.op.name in BRANCHING or is_piecewise(node.op)


def is_piecewise(op):
    """Whether coefficients follow from a linear map that is chosen at the point, or are zero: choices, tables."""
    return op.taylor in (zero, taylor_by_jvp) and op.name != "cast"
