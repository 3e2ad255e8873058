"""Taylor coefficients of a solution in several variables: the equations that they obey, as one larger model."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np

from odec.gradients.forward import is_by_elements
from odec.graph.function import Function
from odec.graph.node import constant, current_line, input_node, set_line, structural_zero, topological
from odec.ops.families import total
from odec.ops.recurrence import Same
from odec.ops.structure import concatenate, element, reshape, slice_, stack
from odec.transforms.orders import inlined
from odec.transforms.scalar import expand
from odec.transforms.sparsity import propagated
from odec.transforms.taylor import Series


def term_count(variables, degree):
    """How many monomials of a number of variables there are up to a degree."""
    return math.comb(variables + degree, degree)


@functools.lru_cache(64)
def exponents(variables, degree):
    """The exponents of all monomials, (variables,) tuples: by total degree, then x^2, x y, y^2."""
    if not variables:
        return ((),)
    return tuple(
        tuple(chosen.count(v) for v in range(variables))
        for total_ in range(degree + 1)
        for chosen in itertools.combinations_with_replacement(range(variables), total_)
    )


class Polynomials(Series):
    """Coefficients of nodes as truncated polynomials of some variables, by exponents; None is zero.

    Along each ray s e the terms of degree k are the k-th coefficient of a curve, so what an op's rule says of the
    orders j and k holds for exponents i and m with |i| for j and |m| for k, term by term [griewank2008, ch. 13].

    inputs : node -> {exponents: coefficient} of what moves with the variables
    """

    def is_constant(self, node):
        return node not in self._inputs and super().is_constant(node)

    def __call__(self, node, m):
        """The coefficient of e^m of a node."""
        if not any(m):
            return node
        if node in self._inputs:
            return self._inputs[node].get(m)
        if self.is_constant(node):
            return None
        key = (id(node), m)
        if key not in self._known:
            before = current_line()
            set_line(node.line)
            self._known[key] = self._by_rule(self.rule(node), m)
            set_line(before)
        return self._known[key]

    def _by_rule(self, rule, m):
        if rule is None:
            return None
        if isinstance(rule, Same):
            for node in topological([rule.other]):  # so that no recursion is deeper than a rule
                self(node, m)
            return self(rule.other, m)
        parts = [part for product in rule.products for part in self._terms(product, m)]
        if rule.linear is not None:
            parts.append(rule.linear([self(i, m) for i in rule.node.inputs]))
        result = total(parts)
        return result if result is None or rule.finish is None else rule.finish(result)

    def _terms(self, product, m):
        """The terms of a Product in e^m."""
        square = product.a is product.b and not product.first and product.by_element
        for i, rest in splits(m):
            if sum(i) < product.first or (square and i < rest):
                continue
            a, b = self(product.a, i), self(product.b, rest)
            weight = product.p * sum(i) / sum(m) + product.q
            if a is None or b is None or weight == 0.0:
                continue
            if square and i != rest:
                weight *= 2.0
            term = product.times(a if abs(weight) == 1.0 else abs(weight) * a, b)
            term = term if product.scale is None else product.scale * term
            yield term if weight > 0.0 else -term


def with_polynomials(f, places, degree):
    """dy_m/dt = f_m for the coefficients y_m of y = sum_m y_m e^m, as a Function of all of them.

    Every number of y is followed by its coefficients: y as (n, terms), flat, in the order of `exponents`.

    Parameters
    ----------
    f : Function (t: (), y: (n,), p: (m,)) -> (n,)
    places : for each variable the place in p of the parameter that it is added to, None where it enters y only
    degree : up to which terms are kept

    Returns
    -------
    Function (t: (), y: (n terms,), p: (m,)) -> dydt (n terms,), in the unit of y over those of the variables and of t

    References: [griewank2008] ch. 13
    """
    monomials = exponents(len(places), degree)
    t, y, p = f.inputs.values()
    inputs = {"t": input_node("t", (), t.dtype), "y": input_node("y", (y.size * len(monomials),), y.dtype), "p": p}
    rates = _of_elements if is_by_elements(f, len(monomials)) else _of_arrays
    return Function("rhs", inputs, {"dydt": rates(inlined(f), places, monomials, *inputs.values())})


def _of_elements(f, places, monomials, t, y, p):
    """The rates of small models, scalar by scalar."""
    states = np.array([element(y, i) for i in range(y.size)], object).reshape(-1, len(monomials))
    values = np.array([element(p, j) for j in range(p.size)], object)
    given = dict(zip(f.inputs.values(), (np.array(t, object), states[:, 0], values)))
    (rates,) = expand(f, given).values()
    one = constant(1.0, y.dtype)
    moving = {state[0]: dict(zip(monomials[1:], state[1:])) for state in states}
    moving |= {values[place]: {unit: one} for unit, place in _units(places)}
    rows = _coefficients(topological(rates), rates, moving, monomials)
    return stack([rate for row in rows for rate in row], (y.size,))


def _of_arrays(f, places, monomials, t, y, p):
    """The rates of large models, whose arrays stay arrays."""
    _, state, values = f.inputs.values()
    given = {m: input_node(f"y_{k}", state.shape, state.dtype) for k, m in enumerate(monomials) if k}
    units = {unit: constant(np.eye(1, p.size, place)[0], p.dtype) for unit, place in _units(places)}
    moving = {state: given, values: units} if units else {state: given}
    (found,) = _coefficients(f.nodes, f.outputs.values(), moving, monomials)
    inputs = f.inputs | {node.params["name"]: node for node in given.values()}
    whole = Function(f.name, inputs, {str(k): node for k, node in enumerate(found)})
    rows = reshape(y, shape=(state.size, len(monomials)))
    column = lambda k: slice_(rows, starts=(0, k), steps=(1, 1), shape=(state.size, 1))
    first, *others = (reshape(column(k), shape=(state.size,)) for k in range(len(monomials)))
    columns = (reshape(x, shape=(state.size, 1)) for x in whole(t, first, p, *others).values())
    return reshape(concatenate(*columns, axis=1), shape=(y.size,))


def _units(places):
    """(exponents of the variable itself, place in p) of those that are added to parameters."""
    width = len(places)
    return [(tuple(int(v == k) for v in range(width)), place) for k, place in enumerate(places) if place is not None]


def _coefficients(nodes, rates, moving, monomials):
    """For each rate all its coefficients; asked for in rising order, so that no recursion is deeper than the graph."""
    polynomials = Polynomials(moving)
    for m in monomials:
        for node in nodes:
            polynomials(node, m)
    zero = lambda rate: structural_zero(rate.dtype, rate.shape)
    return [[zero(rate) if (c := polynomials(rate, m)) is None else c for m in monomials] for rate in rates]


@functools.lru_cache(1 << 14)
def splits(m):
    """All (i, m - i) with 0 <= i <= m."""
    return tuple(
        (i, tuple(a - b for a, b in zip(m, i))) for i in itertools.product(*(range(extent + 1) for extent in m))
    )


# ---- conditions --------------------------------------------------------------------------------------------

# Of each op that is not smooth, which of its smooth pieces it is on.
SIDES = {
    "abs": np.sign, "sign": np.sign, "floor": np.floor, "ceil": np.ceil,
    "mod": lambda x, y: np.floor(x / y), "copysign": lambda x, y: np.sign(x) + 3.0 * np.sign(y),
    **dict.fromkeys(("maximum", "minimum", "fmax", "fmin", "lt", "ge"), np.less),
    **dict.fromkeys(("le", "gt"), np.less_equal), **dict.fromkeys(("eq", "ne"), np.equal),
    "pieces": lambda x, edges, values: np.searchsorted(np.asarray(edges, x.dtype), x, "right"),
}  # fmt: skip


def branches(f, places):
    """[(node, side)] of the nodes of f that are not smooth and whose arguments move with the variables.

    Where side(*inputs, **params), of their values, stays the same, the node is smooth.
    f, places : as `with_polynomials` takes them
    """
    rough = [node for node in f.nodes if node.op.name in SIDES]
    _, y, p = f.inputs.values()
    bits = np.zeros(p.shape, object)
    bits[[place for place in places if place is not None]] = 1
    arguments = {f"{k}.{j}": i for k, node in enumerate(rough) for j, i in enumerate(node.inputs)}
    masks = propagated(Function("arguments", f.inputs, arguments), {id(y): np.full(y.shape, 1, object), id(p): bits})
    moving = {int(name.split(".")[0]) for name, mask in masks.items() if any(mask.flat)}
    return [(node, SIDES[node.op.name]) for k, node in enumerate(rough) if k in moving]
