"""Reverse mode of the op `call`: one call backward for each call forward, which computes nothing costly again.

What the cotangents of a callee f need of its primal computation is seen in the graph of vjp(f): the nodes that do not
depend on the cotangent. The costly ones of them (products, systems, sums, mathematical functions) are residuals, which
a taped callee returns behind its result; cheap ones are computed again.
References: [griewank2008] 3.2
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from odec.graph.function import Function
from odec.graph.node import (
    CONSTANT,
    INPUT,
    Node,
    input_node,
    is_structural_zero,
    make,
    structural_zero,
)
from odec.graph.op import OPS
from odec.ops.arithmetic import add
from odec.ops.call import call, result_of
from odec.ops.families import total
from odec.ops.structure import concatenate, reshape, slice_, update
from odec.transforms.derived import known, once
from odec.transforms.jet_adjoint import JetAdjoint
from odec.transforms.jvp import free_name
from odec.transforms.simplify import rewritten
from odec.transforms.taylor import Jet
from odec.transforms.vjp import needing, vjp

# elementwise ops that take no longer than storing and loading their results
CHEAP = frozenset((
    "add", "sub", "neg", "mul", "div", "ipow", "maximum", "minimum", "fmax", "fmin", "abs", "sign", "copysign",
    "floor", "ceil", "cast", "lt", "le", "gt", "ge", "eq", "ne", "and", "or", "xor", "not", "to_float", "where",
))  # fmt: skip


@dataclass(frozen=True)
class Bars:
    """The backward half of a call.

    function : (*inputs[, packed], cotangent) -> cotangents of inputs one after another, flat; None if all are zero
    names : the inputs whose cotangents these are
    """

    function: Function | None
    names: tuple[str, ...]


@dataclass(frozen=True)
class Tape:
    """What a taped callee returns: the result of `graph` and then its residuals, flat.

    places : {residual: where it begins}
    size : elements of it all
    """

    graph: Function
    places: dict[Node, int]
    size: int


def taped(function, wrt=None):
    """A Function equal to `function` whose calls keep what reverse mode needs again.

    vjp(taped(function, wrt), wrt) is vjp(function, wrt) up to rounding, and computes no product, system, sum or
    mathematical function of a callee twice. Calls of a Function that has none of these stay as they are. Every other
    transform of the result is right as well, but gains nothing.

    wrt : names of the inputs whose cotangents will be asked for; None is all of them
    """
    moving = _moving(function, list(function.inputs) if wrt is None else list(wrt))

    def replaced(node, inputs):
        callee = node.params["function"] if node.op is call else None
        forward = taped_callee(callee, moving[callee]) if callee in moving else None
        return None if forward is None else _part(call(forward, *inputs), 0, node.shape)

    return rewritten(function, replaced)


def taped_calls(function):
    """The nodes of a Function that call taped callees, in order."""
    return [n for n in function.nodes if n.op is call and known(n.params["function"], "tape") is not None]


def with_results(function, results):
    """A Function with the outputs of another, in which some nodes are known: {id: node in their place}."""
    return rewritten(function, lambda node, _: results.get(id(node))).outputs


def _moving(function, wrt):
    """{callee: names of its inputs that depend on `wrt` in one of its calls, in order}."""
    needed = needing(function.nodes, [function.inputs[name] for name in wrt])
    found = {}
    for node in function.nodes:
        if node.op is call and id(node) in needed:
            names = found.setdefault(node.params["function"], set())
            names |= {n for n, i in zip(node.params["function"].inputs, node.inputs, strict=True) if id(i) in needed}
    return {callee: tuple(n for n in callee.inputs if n in names) for callee, names in found.items()}


def taped_callee(function, names):
    """The Function (*inputs) -> packed, the result of `function` and the residuals of the cotangents of `names`;
    None where there are no residuals. A Jet has none, for its adjoint finds the series once more."""
    if isinstance(function, Jet):
        return None
    return once(function, ("taped", names), lambda: _taped_callee(function, names))


def _taped_callee(function, names):
    result, kept = result_of(function), _residuals(function, names)
    if not kept:
        return None
    places, parts, size = {}, [_flat(result)], result.size
    for node in kept:
        if _flat(node) is parts[0]:
            places[node] = 0
            continue
        places[node] = size
        parts.append(_flat(node))
        size += node.size
    forward = Function(f"{function.name}_taped", function.inputs, {"packed": concatenate(*parts, axis=0)})
    graph = Function(function.name, function.inputs, function.outputs)
    once(forward, "tape", lambda: Tape(graph, places, size))
    return forward


def _residuals(function, names):
    """The costly nodes of `function` that its cotangents need, reached from them through cheap ones."""
    pulled, dtype = vjp(function, names), result_of(function).dtype
    primal = {id(n): n for n in function.nodes}
    bar = list(pulled.inputs.values())[-1]
    after = needing(pulled.nodes, [bar])
    stack = [i for n in pulled.nodes if id(n) in after for i in n.inputs if id(i) not in after]
    seen, found = set(), set()
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if id(node) in primal and node.dtype == dtype and _is_costly(node):
            found.add(id(node))
        else:
            stack.extend(node.inputs)
    return [n for n in function.nodes if id(n) in found]


def _is_costly(node):
    if node.op in (INPUT, CONSTANT):
        return False
    return node.op.name not in CHEAP if node.op.family == "elementwise" else node.op.cost(node) > node.size


# ---- the rule ------------------------------------------------------------------------------------------------------


def call_vjp(node, g, wanted=None):
    """The vjp rule of the op `call`: slices of one backward call's result.

    wanted : for each input, whether its cotangent is; None is all of them

    A taped callee gives its residuals to the backward call. It does so where the cotangent g is one of its result
    alone; derivatives of the residuals, which second derivatives ask for, come by the plain rule.
    """
    function = node.params["function"]
    asked = wanted or (True,) * len(node.inputs)
    names = tuple(
        name
        for name, argument, is_wanted in zip(function.inputs, node.inputs, asked, strict=True)
        if is_wanted and argument.op is not CONSTANT and argument.dtype != "bool"
    )
    tape = known(function, "tape")
    head = None if tape is None else _head(g, result_of(tape.graph).size)
    if tape is None or head is None:
        bars, args = once(function, ("vjp", names), lambda: _plain(function, names)), (g,)
    else:
        bars = once(function, ("backward", names), lambda: _backward(tape, names))
        args = node, reshape(head, shape=result_of(tape.graph).shape)
    return _unpacked(function, bars, (*node.inputs, *args))


def _plain(function, names):
    """The Bars of a callee that keeps no residuals."""
    if isinstance(function, Jet) and function.order > 0 and function.last is None:
        adjoint = JetAdjoint(function, names)
        return Bars(adjoint, adjoint.names)
    return _bars(vjp(function, names), names)


def _unpacked(function, bars, args):
    """The cotangent of each input of a callee, None where it is zero or was not asked for."""
    result = dict.fromkeys(function.inputs)
    if bars.function is not None:
        packed, offset = call(bars.function, *args), 0
        for name in bars.names:
            source = function.inputs[name]
            part = _part(packed, offset, source.shape)
            result[name] = part if part.dtype == source.dtype else OPS["cast"](part, dtype=source.dtype)
            offset += source.size
    return tuple(result.values())


def _bars(pulled, names):
    """The Bars of a Function that gives the cotangents of `names` one by one."""
    dtype = list(pulled.inputs.values())[-1].dtype
    found = {name: pulled.outputs[f"{name}_bar"] for name in names}
    found = {name: bar for name, bar in found.items() if bar.size and not is_structural_zero(bar)}
    if not found:
        return Bars(None, ())
    parts = [_flat(bar if bar.dtype == dtype else OPS["cast"](bar, dtype=dtype)) for bar in found.values()]
    return Bars(Function(pulled.name, pulled.inputs, {"bars": concatenate(*parts, axis=0)}), tuple(found))


def _backward(tape, names):
    """The Bars of a taped callee, which read its residuals."""
    pulled = vjp(tape.graph, names)
    *inputs, (label, bar) = pulled.inputs.items()
    packed = input_node(free_name("packed", pulled.inputs), (tape.size,), bar.dtype)
    kept = {id(n): _part(packed, place, n.shape) for n, place in tape.places.items()}
    ports = {**dict(inputs), packed.params["name"]: packed, label: bar}
    outputs = with_results(pulled, kept)
    return _bars(Function(f"{tape.graph.name}_backward", ports, outputs), names)


def _head(g, size):
    """The first elements of a flat cotangent that is zero by structure behind them; None where it may not be."""
    if g.size == size:
        return g
    parts, stack = [], [g]
    while stack:
        node = stack.pop()
        if node.op is add:
            stack.extend(reversed(node.inputs))
            continue
        part = _moved(node, size)
        if part is None:
            return None
        parts.append(part)
    return total(parts)


def _moved(node, size):
    """A chain of updates of zeros as the same on fewer zeros; None for any other node or one that writes behind."""
    links = []
    while node.op is update:
        links.append(node)
        node = node.inputs[0]
    if not is_structural_zero(node):
        return None
    result = structural_zero(node.dtype, (size,))
    for link in reversed(links):
        (start,), (step,), value = link.params["starts"], link.params["steps"], link.inputs[1]
        if max(start, start + step * (value.size - 1)) >= size:
            return None
        result = make(update, [result, value], **link.params)
    return result


def _flat(node):
    return reshape(node, shape=(node.size,))


def _part(packed, start, shape):
    """Elements of a flat array from `start` on, in a shape."""
    return reshape(slice_(packed, starts=(start,), steps=(1,), shape=(math.prod(shape),)), shape=shape)
