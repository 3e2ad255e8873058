"""What array code keeps in buffers, and what it computes again inside the loops that read it."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from odec.graph.node import CONSTANT, INPUT
from odec.ops.structure import IndexMap

PIECES = 4  # inputs up to which an assembled array is read piece by piece, without a buffer
CHEAP = 4  # operations that are computed once per reader rather than stored and loaded again
FUNCTION_COST, DIVISION_COST = 20, 4  # of a mathematical function and of a division, in additions


def is_view(node):
    return isinstance(node.op.lower, IndexMap)


def is_elementwise(node):
    return node.op.lower is None and node.op not in (INPUT, CONSTANT)


def is_assembled(node):
    return node.op.name in ASSEMBLING


def is_leaf(node):
    return node.op in (INPUT, CONSTANT)


class _Counter:
    """Stands in for the LLVM emitter and for its values: counts what an elementwise op emits."""

    dtype = None

    def __init__(self):
        self.cost, self.calls_function = 0, False

    def instruction(self, opcode, *args):
        self.cost += {"fdiv": DIVISION_COST, "frem": FUNCTION_COST}.get(opcode, 1)
        return self

    def intrinsic(self, name, *args):
        if name == "pow":
            return self.function(name)
        return self.instruction("fdiv" if name == "sqrt" else name)

    def function(self, name, *args):
        self.cost += FUNCTION_COST
        self.calls_function = True
        return self

    def compare(self, predicate, *args):
        return self.instruction(predicate)

    def select(self, *args):
        return self.instruction("select")

    def logical(self, opcode, *args):
        return self.instruction(opcode)

    def cast(self, x, dtype):
        return self.instruction("cast")

    def pieces(self, x, edges, values):
        self.cost += FUNCTION_COST
        return self

    def integers(self, opcode, i, number):
        return self.instruction(opcode)

    def literal(self, value, dtype):
        return self

    def double(self, value):
        return self

    bits = from_bits = double


@functools.cache
def _emission(op, arity, params):
    counter = _Counter()
    op.llvm(counter, *[counter] * arity, **dict(params))
    return counter


def operation_cost(node):
    """What one element of an elementwise node costs, in additions."""
    return _emission(node.op, len(node.inputs), tuple(node.params.items())).cost


def calls_function(op, args, params):
    """Whether an elementwise op calls a mathematical function, which is worth vector lanes."""
    return _emission(op, len(args), tuple(params.items())).calls_function


def beneath(node):
    """The node under a chain of views."""
    while is_view(node):
        node = node.inputs[0]
    return node


def beneath_reshapes(node):
    """The node under a chain of reshapes, which holds the same elements in the same order."""
    while node.op.name == "reshape":
        node = node.inputs[0]
    return node


@dataclass(frozen=True)
class Plan:
    """kept : ids of the nodes that get a place of their own; the others are computed where they are read
    owned : ids of those kept nodes that are written straight into a part of their only reader"""

    kept: frozenset
    owned: frozenset


def plan(function):
    """The Plan of a graph. Results of sums, products and systems are kept; an elementwise node is kept
    where it is an operand of one of these, or is read in several places and is not cheap; so is an
    assembled array, unless it has few pieces, which the loops that read it take one by one."""
    nodes = function.nodes
    cost = _costs(nodes)
    readers = {id(n): set() for n in nodes}  # of each node: (reading loops, views on the way)
    wanted, kept, owned = set(), set(), set()
    repeated = lambda node, found: len(found) > 1 and cost[id(node)] > CHEAP
    for output in function.outputs.values():
        readers[id(output)].add((None, output, ()))
        wanted.add(id(beneath_reshapes(output)))
    for node in reversed(nodes):
        found = readers[id(node)]
        if is_leaf(node) or not found:
            continue
        if is_view(node):
            source = node.inputs[0]
            readers[id(source)] |= {(root, slot, (*path, id(node))) for root, slot, path in found}
            below = beneath(source)
            if source.size < node.size and cost[id(below)] > 1:  # computed again for every repetition
                wanted.add(id(below))
        elif _has_few_pieces(node) and id(node) not in wanted and not _is_part(found) and not repeated(node, found):
            for i in node.inputs:
                readers[id(i)] |= {(root, slot, (*path, id(node))) for root, slot, path in found}
        elif is_elementwise(node):
            several = repeated(node, found)
            if node.size == 1 or several or id(node) in wanted:
                kept.add(id(node))
                found = {(node, None, ())}
            for i in node.inputs:
                readers[id(i)] |= found
        else:
            kept.add(id(node))
            for slot, i in enumerate(node.inputs):
                readers[id(i)].add((node, slot, ()))
                if node.op.name not in FUSING:
                    wanted.add(id(beneath(i)))
            if is_assembled(node):
                owned |= {id(beneath_reshapes(i)) for i in node.inputs}
    owned = {n for n in owned if n in kept and len(readers[n]) == 1} - _ids(function.outputs.values())
    elementwise = {id(n) for n in nodes if is_elementwise(n)}
    return Plan(frozenset(kept), frozenset(owned - elementwise))


ASSEMBLING = ("concatenate", "update")  # ops that copy their inputs to parts of the result
FUSING = (*ASSEMBLING, "sum", "cumsum", "put_add")  # ops whose loops compute an elementwise input themselves


def _has_few_pieces(node):
    """Whether the loops over an assembled array can run piece by piece."""
    pieces = len(node.inputs) if node.op.name == "concatenate" else 1
    while node.op.name == "update":
        if any(abs(s) != 1 for s in node.params["steps"]):
            return False
        pieces, node = pieces + 1, node.inputs[0]
    return 1 < pieces <= PIECES


def _is_part(found):
    """Whether a node is read once, as a part of an assembled array, so that it can be written there."""
    ((root, _, _), *others) = found
    return not others and root is not None and is_assembled(root)


def _costs(nodes):
    """{id: cost of one element with everything that is computed again for it}."""
    readers, cost = {}, {}
    for node in nodes:
        for i in node.inputs:
            readers[id(i)] = readers.get(id(i), 0) + 1
    for node in nodes:
        if is_view(node):
            cost[id(node)] = cost[id(node.inputs[0])]
        elif is_assembled(node):
            cost[id(node)] = max(cost[id(i)] for i in node.inputs)
        elif not is_elementwise(node):
            cost[id(node)] = 0
        else:
            parts = [cost[id(i)] if readers[id(i)] == 1 or cost[id(i)] <= CHEAP else 0 for i in node.inputs]
            cost[id(node)] = operation_cost(node) + sum(parts)
    return cost


def _ids(nodes):
    return {id(n) for n in nodes} | {id(beneath_reshapes(n)) for n in nodes}
