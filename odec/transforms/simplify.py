"""Graph -> an equal graph that takes less: fewer passes over arrays, no scalar computed twice."""

from __future__ import annotations

from odec.graph.function import Function
from odec.graph.node import CONSTANT, current_line, is_structural_zero, make, set_line
from odec.graph.op import OPS
from odec.ops.arithmetic import add, ipow, mul, sub
from odec.ops.families import broadcast_to, total
from odec.ops.structure import slice_, update

FEW = 4  # columns of a first factor up to which a product is a sum of columns by rows
LONG = 8  # rows and columns that such a product has at least


def rebuilt(nodes, replaced):
    """{id: node}: the nodes again, where replaced(node, its new inputs) is not None by that."""
    before, new = current_line(), {}
    for node in nodes:
        inputs = [new[id(i)] for i in node.inputs]
        set_line(node.line)
        result = replaced(node, inputs)
        if result is None:
            same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            result = node if same else make(node.op, inputs, **node.params)
        if result.name is None and result.op is not CONSTANT:
            result.name = node.name
        new[id(node)] = result
    set_line(before)
    return new


def array_form(function):
    """A Function as array code computes it best.

    A sum of updates of zeros in separate places, which reverse mode makes of an array that is read by slices, is one
    chain of updates. A product of matrices with a few columns in the first is a sum of products of columns and rows,
    which the loops that read it compute element by element.
    """

    def replaced(node, inputs):
        if node.op is add:
            return _joined(*inputs)
        return _columns_by_rows(*inputs) if node.op is OPS["matmul"] else None

    new = rebuilt(function.nodes, replaced)
    return Function(function.name, function.inputs, {name: new[id(n)] for name, n in function.outputs.items()})


def _columns_by_rows(a, b):
    """a @ b as a sum of a column of a times a row of b, for a few of them; else None."""
    (m, k), n = a.shape[-2:], b.shape[-1]
    if a.ndim != 2 or not 1 < k <= FEW or min(m, n) < LONG:
        return None
    column = lambda q: slice_(a, starts=(0, q), steps=(1, 1), shape=(m, 1))
    row = lambda q: slice_(b, starts=(q, 0), steps=(1, 1), shape=(1, n))
    return total([broadcast_to(column(q), (m, n)) * broadcast_to(row(q), (m, n)) for q in range(k)])


def _joined(x, y):
    """x + y as one chain of updates; None unless both are updates of zeros in separate places."""
    links, others = _links(x), _links(y)
    if not links or not others or any(_meet(a, b) for a in links for b in others):
        return None
    for link in reversed(others):
        x = make(update, [x, link.inputs[1]], **link.params)
    return x


def _links(node):
    """The updates of a chain that begins with zeros, last first; none where it begins otherwise."""
    links = []
    while node.op is update:
        links.append(node)
        node = node.inputs[0]
    return links if is_structural_zero(node) else []


def _meet(a, b):
    """Whether two updates may write to one element: whether the boxes around them overlap."""
    return all(p[0] <= q[1] and q[0] <= p[1] for p, q in zip(_box(a), _box(b), strict=True))


def _box(link):
    """(first, last) position along each axis."""
    for start, step, n in zip(link.params["starts"], link.params["steps"], link.inputs[1].shape, strict=True):
        end = start + step * (n - 1)
        yield min(start, end), max(start, end)


def mirrored(scalars):
    """{id: node}: each scalar, or the earlier one that it equals because (a - b)(c - d) is (b - a)(d - c).

    Models of bodies that attract each other compute each distance twice, once from each end.

    scalars : list of nodes, each after what it needs
    """
    pairs = {tuple(map(id, node.inputs)) for node in scalars if node.op is sub}
    if all((b, a) not in pairs for a, b in pairs):
        return {id(node): node for node in scalars}
    before, new = current_line(), {}
    differences, products, negative = {}, {}, {}
    for node in scalars:
        inputs = [new[id(i)] for i in node.inputs]
        if any(a is not b for a, b in zip(inputs, node.inputs, strict=True)):
            set_line(node.line)
            found = make(node.op, inputs, **node.params)
            found.name = found.name or node.name
        else:
            found = node
        if found.op is sub:
            a, b = map(id, found.inputs)
            other = differences.get((b, a))
            if other is not None:
                negative[id(found)], negative[id(other)] = other, found
            differences[a, b] = found
        elif found.op is mul or (found.op is ipow and found.params["exponent"] % 2 == 0):
            key = found.params.get("exponent"), *map(id, found.inputs)
            opposite = [negative.get(id(i)) for i in found.inputs]
            if None not in opposite:
                found = products.get((key[0], *map(id, opposite)), found)
            products.setdefault(key, found)
        new[id(node)] = found
    set_line(before)
    return new
