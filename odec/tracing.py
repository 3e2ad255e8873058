"""From a function of (t, y, parameters) to nodes: right-hand sides, event functions and resets alike."""

from __future__ import annotations

from odec.errors import ShapeError, TraceError
from odec.graph.node import coerce, dtype_is, input_node
from odec.graph.op import OPS
from odec.graph.structure import Leaf, children_of, describe, step_text
from odec.graph.trace import call_model, unwrap, wrap
from odec.ops.shaping import array
from odec.ops.structure import concatenate, reshape, slice_


def traced(call, name, y_structure, p_structure, dtype):
    """(inputs by name, what call(t, y, {name: value}) returned, {name: value}), all on traced arrays.

    inputs : nodes t (), y (n,), p (m,)
    """
    t = input_node("t", (), "float64")
    y = input_node("y", (y_structure.size,), dtype)
    p = input_node("p", (p_structure.size,), dtype)
    time = t if dtype == "float64" else OPS["cast"](t, dtype=dtype)
    state = _handles(
        y_structure, y, "y", f"{name} assigns into the state y, which belongs to the solver. Use y = y.copy() first."
    )
    values = _handles(p_structure, p, "", f"{name} assigns into a parameter. Use a copy of it.")
    try:
        result = call_model(call, name, (wrap(time), state, values), dtype)
    except TraceError as error:
        if error.__cause__ is None:
            raise
        root = y_structure.root
        shape = f"has shape {root.shape}" if isinstance(root, Leaf) else f"is {describe(root)}"
        raise TraceError(f"{error} Here y {shape}.") from error.__cause__
    return {"t": t, "y": y, "p": p}, result, values


def _handles(structure, flat, name, frozen):
    """The structure with a handle on a part of the flat input for each leaf."""
    paths = {leaf.offset: path for path, leaf in structure.leaves}

    def handle(leaf):
        part = slice_(flat, starts=(leaf.offset,), steps=(1,), shape=(leaf.size,)) if leaf.size else flat
        node = reshape(part, shape=leaf.shape)
        path = paths.get(leaf.offset, "")
        label = name + path.replace("['", ".").replace("']", "")
        if node.name is None and label.strip("."):
            node.name = label.strip(".")
        handle = wrap(node)
        handle._frozen = frozen
        return handle

    return structure.map(handle)


def flat_result(name, structure, result, dtype, what, duty):
    """What a function returned, checked against a structure, as one flat node.

    what : the name of the value that has the structure, 'y'; duty : 'dynamics must return dy/dt', for messages
    """
    if result is None:
        raise TraceError(f"{name} returned None; {duty} with the shape of {what} (is the return missing?).")
    parts = []
    with dtype_is(dtype):  # of constant parts
        _collect((name, what, duty), structure.root, unwrap(result), "", parts, dtype)
    flat = [reshape(p, shape=(p.size,)) for p in parts]
    return concatenate(*flat, axis=0)


def _collect(words, item, value, path, parts, dtype):
    name, what, duty = words
    if isinstance(item, Leaf):
        if isinstance(value, (str, bytes)) or (children_of(value) is not None and not isinstance(value, (list, tuple))):
            raise ShapeError(
                f"{name} returned{path} a {type(value).__name__}, but {what}{path} has shape {item.shape}; "
                f"{duty} in the structure of {what}."
            )
        try:
            node = coerce([array(value)], dtype)[0]
        except (TypeError, ValueError) as error:
            raise ShapeError(f"{name} returned{path} no array: {error}; {duty} with the shape of {what}.") from None
        node = OPS["to_float"](node) if node.dtype == "bool" else OPS["cast"](node, dtype=dtype)
        if node.shape != item.shape:
            where = f" for {what}{path}" if path else ""
            raise ShapeError(
                f"{name} returned shape {node.shape}{where}, but {what}{path} has shape {item.shape}; "
                f"{duty} with the shape of {what}."
            )
        parts.append(node)
        return
    found = children_of(value)
    if found is None or set(found[1]) != set(item.keys):
        cure = f" For an array {what} give {what}0 as a list or array." if (what, item.kind) == ("y", "tuple") else ""
        raise ShapeError(
            f"{name} returned {_described(value)}, but {what}{path} is {describe(item)}; {duty} in the structure of "
            f"{what}.{cure}"
        )
    by_key = dict(zip(found[1], found[2], strict=True))
    for key, child in zip(item.keys, item.children, strict=True):
        _collect(words, child, by_key[key], path + step_text(item.kind, key), parts, dtype)


def _described(value):
    """'a tuple of (0, 1)' or 'an array of shape (3,)': what a function returned, for messages."""
    found = children_of(value)
    if found is not None:
        return f"a {found[0]} of ({', '.join(map(str, found[1]))})"
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" if shape is None else f"an array of shape {shape}" if shape else "a number"
