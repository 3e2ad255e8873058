"""A Function as text: one line a node."""

from __future__ import annotations

from odec.graph.function import Function
from odec.graph.node import CONSTANT, INPUT, Data
from odec.graph.trace import place

SHORT = {"float64": "f64", "float32": "f32", "bool": "bool"}


def listing(function):
    """The graph as text, one node a line: `%7: f64[3] = sin(%4)   # model.py:12  name`.

    Inputs go by their names; a constant that is one number everywhere stands where it is used.
    """
    names = _listed_names(function)
    rows = []
    for node in function.nodes:
        if id(node) in names and node.op is not INPUT and not is_one_number(node):
            remark = "  ".join(part for part in (place(node.line) if node.line else "", node.name or "") if part)
            rows.append((f"  {names[id(node)]}: {type_text(node)} = {_application(node, names)}", remark))
    width = min(max((len(text) for text, _ in rows), default=0), 80)
    lines = [_header(function)] + [f"{text:<{width}}   # {remark}" if remark else text for text, remark in rows]
    lines += [f"  return {', '.join(f'{name} = {names[id(node)]}' for name, node in function.outputs.items())}"]
    return "\n".join(lines)


def _listed_names(function):
    """{id(node): how other lines refer to it}."""
    names, count = {}, 0
    for node in function.nodes:
        if node.op is INPUT:
            names[id(node)] = node.params["name"]
        elif is_one_number(node):
            names[id(node)] = number_text(node.params["value"])
        else:
            names[id(node)] = f"%{count}"
            count += 1
    return names


def is_one_number(node):
    return node.op is CONSTANT and not isinstance(node.params["value"], Data)


def _header(function):
    inputs = ", ".join(f"{name}: {type_text(node)}" for name, node in function.inputs.items())
    outputs = ", ".join(f"{name}: {type_text(node)}" for name, node in function.outputs.items())
    return f"{function.name}({inputs}) -> {outputs}"


def type_text(node):
    extents = ",".join(map(str, node.shape))
    return str(SHORT.get(node.dtype, node.dtype)) + (f"[{extents}]" if node.shape else "")


def _application(node, names):
    if node.op is CONSTANT:
        return short_text(node.params["value"])
    arguments = [names[id(i)] for i in node.inputs] + [f"{k}={short_text(v)}" for k, v in node.params.items()]
    return f"{node.op.name}({', '.join(arguments)})"


def short_text(value):
    """A parameter in a few words."""
    if isinstance(value, Data):
        flat = value.array.reshape(-1)
        shown = ", ".join(number_text(v) for v in flat[:4].tolist())
        return f"[{shown}{', ...' if flat.size > 4 else ''}]"
    if isinstance(value, Function):
        return value.name
    return number_text(value) if isinstance(value, float) else str(value)


def number_text(value):
    return repr(value) if isinstance(value, bool) else f"{value:.6g}"
