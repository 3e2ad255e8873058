"""Graph -> an equal graph that takes less: fewer passes over arrays, no scalar computed twice."""

from __future__ import annotations

from odec.graph.function import Function
from odec.graph.node import CONSTANT, current_line, is_structural_zero, make, set_line
from odec.ops.arithmetic import add, ipow, mul, sub
from odec.ops.linalg import matmul
from odec.ops.reduction import sum_
from odec.ops.structure import slice_, update
from odec.transforms.products import is_product, part_of_product, product, summed_product


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


def rewritten(function, replaced):
    """The Function of the nodes as `rebuilt` makes them."""
    new = rebuilt(function.nodes, replaced)
    return Function(function.name, function.inputs, {name: new[id(n)] for name, n in function.outputs.items()})


def array_form(function):
    """A Function as array code computes it best.

    A sum of updates of zeros in separate places, which reverse mode makes of an array that is read by slices, is one
    chain of updates. Products of matrices are as products.py has them; so is one of which only parts are read, each
    once, or only the sum over its rows.
    """
    readers = _readers(function)

    def replaced(node, inputs):
        if node.op is add:
            return _joined(*inputs)
        if node.op is matmul and node.ndim == 2:
            return product(*inputs)
        if node.op not in (slice_, sum_) or not is_product(inputs[0]):
            return None
        found = readers[id(node.inputs[0])]
        if node.op is slice_ and _are_parts(found, node.inputs[0].size):
            return part_of_product(inputs[0], node)
        return summed_product(inputs[0]) if found == [node] and node.params.get("axes") == (0,) else None

    return rewritten(function, replaced)


def _readers(function):
    """{id of a node: the nodes that read it}; None stands for an output."""
    readers = {id(node): [] for node in function.nodes}
    for node in function.nodes:
        for i in node.inputs:
            readers[id(i)].append(node)
    for node in function.outputs.values():
        readers[id(node)].append(None)
    return readers


def _are_parts(readers, size):
    """Whether all are slices with unit steps, no larger together than what they are of."""
    return all(n is not None and n.op is slice_ and set(n.params["steps"]) == {1} for n in readers) and (
        sum(n.size for n in readers) <= size
    )


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
