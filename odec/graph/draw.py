"""A Function as a picture: SVG, by Graphviz where it is installed."""

from __future__ import annotations

import math
import subprocess
from html import escape
from typing import Any, NamedTuple

from odec.errors import ArgumentError
from odec.graph.node import CONSTANT, INPUT
from odec.graph.show import is_one_number, number_text, short_text, type_text

MOST_DRAWN = 500  # boxes; beyond this a drawing shows nothing and Graphviz takes minutes
DOT_SECONDS = 20


class Drawing(str):
    """SVG text that a notebook shows as a picture."""

    def _repr_svg_(self):
        return str(self)


def draw(function):
    """The graph as SVG, laid out by Graphviz where it is installed.

    Raises
    ------
    ArgumentError : more than 500 nodes
    """
    boxes, seen_as = _boxes(function)
    if len(boxes) > MOST_DRAWN:
        raise ArgumentError(
            f"{function.name}: {len(boxes):,} nodes do not make a readable drawing; at most {MOST_DRAWN} are drawn. "
            "Print the graph instead."
        )
    arrows = [(boxes[seen_as[id(i)]], box) for box in boxes.values() for i in box.sources if seen_as[id(i)] in boxes]
    return Drawing(
        _by_graphviz(function.name, boxes.values(), arrows) or _by_layers(function.name, boxes.values(), arrows)
    )


class _Box(NamedTuple):
    """One box of a drawing: its lines of text, the first in bold, and the nodes it reads."""

    key: str
    kind: str  # 'input', 'constant', 'op' or 'output'
    lines: tuple
    sources: tuple


def _boxes(function):
    """{id(node) or output: box}, and {id(node): whose box shows it}: a change of shape goes with what it reads."""
    boxes: dict[Any, _Box] = {}
    seen_as, labels = {}, {}
    for node in function.nodes:
        source = _same_numbers(node)
        seen_as[id(node)] = id(node) if source is None else seen_as[id(source)]
        if source is not None and node.name and labels[seen_as[id(node)]][0] is None:
            labels[seen_as[id(node)]] = (node.name, node)
        elif source is None:
            labels[id(node)] = (node.name, node)
    for node in function.nodes:
        if seen_as[id(node)] == id(node) and not is_one_number(node):
            boxes[id(node)] = _Box(f"n{len(boxes)}", _kind(node), _label(node, *labels[id(node)]), node.inputs)
    for name, node in function.outputs.items():
        label = (f"{name} = {number_text(node.params['value'])}" if is_one_number(node) else name, type_text(node))
        boxes["output", name] = _Box(f"n{len(boxes)}", "output", label, (node,))
    return boxes, seen_as


def _same_numbers(node):
    """What a node reads, if it is the same numbers in another shape and that is drawn as an op."""
    if len(node.inputs) == 1 and node.params.keys() == {"shape"} and node.size == node.inputs[0].size:
        return node.inputs[0] if node.inputs[0].op is not INPUT and not is_one_number(node.inputs[0]) else None
    return None


def _kind(node):
    return "input" if node.op is INPUT else "constant" if node.op is CONSTANT else "op"


def _label(node, name, shown):
    """Lines of a box: the op, the user's name and the type (of `shown`, a reshaped form), the parameters."""
    if node.op is INPUT:
        return (node.params["name"], type_text(node))
    if node.op is CONSTANT:
        return (name or "constant", type_text(shown), _cut(short_text(node.params["value"])))
    arguments = [number_text(i.params["value"]) if is_one_number(i) else "·" for i in node.inputs]
    plain = all(a == "·" for a in arguments)
    title = node.op.name if plain else f"{node.op.name}({', '.join(arguments)})"
    telling = {k: v for k, v in node.params.items() if k != "shape" and not (k == "steps" and set(v) <= {1})}
    parameters = " ".join(
        f"{k}={short_text(v[0] if type(v) is tuple and len(v) == 1 else v)}" for k, v in telling.items()
    )
    named = f"{name}: {type_text(shown)}" if name else type_text(shown)
    return (_cut(title), _cut(named), *([_cut(parameters)] if parameters else []))


def _cut(text, most=34):
    return text if len(text) <= most else text[: most - 1] + "…"


COLOURS = {"input": "#dceaf7", "constant": "#eeeeee", "op": "#ffffff", "output": "#ddf1df"}
FONT = "Helvetica, Arial, sans-serif"


def _by_graphviz(name, boxes, arrows):
    """SVG by the `dot` program, or None where there is none or it fails."""
    try:
        answer = subprocess.run(
            ["dot", "-Tsvg"],
            input=_dot_text(name, boxes, arrows).encode(),
            capture_output=True,
            timeout=DOT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    svg = answer.stdout.decode("utf-8", "replace")
    start = svg.find("<svg")
    return svg[start:] if start >= 0 else None


def _dot_text(name, boxes, arrows):
    lines = [
        "digraph g {",
        f"  graph [label=<<B>{escape(name)}</B>>, labelloc=t, ranksep=0.35, nodesep=0.25, "
        'fontname="Helvetica", fontsize=13];',
        '  node [shape=box, style="rounded,filled", color="#8a8a8a", fontname="Helvetica", fontsize=11, '
        'height=0.3, margin="0.12,0.06"];',
        '  edge [color="#707070", arrowsize=0.6];',
    ]
    for box in boxes:
        head, *rest = (escape(line) for line in box.lines)
        small = "".join(f'<BR/><FONT POINT-SIZE="9" COLOR="#555555">{line}</FONT>' for line in rest)
        lines.append(f'  {box.key} [fillcolor="{COLOURS[box.kind]}", label=<<B>{head}</B>{small}>];')
    lines += [f"  {a.key} -> {b.key};" for a, b in arrows]
    return "\n".join([*lines, "}"])


ROW, GAP, LETTER, LINE = 46, 18, 6.4, 13  # pixels: between rows, between boxes, a letter, a line of text


def _by_layers(name, boxes, arrows):
    """SVG with a row for each depth; boxes sit near the mean of what they read."""
    depth = {}
    before = {box.key: [] for box in boxes}
    for a, b in arrows:
        before[b.key].append(a.key)
    for box in boxes:  # in an order in which each follows what it needs
        depth[box.key] = 1 + max((depth[k] for k in before[box.key]), default=-1)
    rows: dict[int, list[_Box]] = {}
    for box in boxes:
        rows.setdefault(depth[box.key], []).append(box)
    places, top = {}, 34.0
    for _, row in sorted(rows.items()):
        _place_row(row, before, places, top)
        top += max(_height(box) for box in row) + ROW
    left = min((x - w / 2 for x, _, w, _ in places.values()), default=0) - 12
    right = max((x + w / 2 for x, _, w, _ in places.values()), default=100) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left:.0f} 0 {right - left:.0f} {top - ROW + 12:.0f}" '
        f'width="{right - left:.0f}" height="{top - ROW + 12:.0f}" font-family="{FONT}">',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#707070"/></marker></defs>',
        f'<text x="{(left + right) / 2:.0f}" y="18" text-anchor="middle" font-size="13" font-weight="bold">'
        f"{escape(name)}</text>",
        *(_arrow(places[a.key], places[b.key]) for a, b in arrows),
        *(_drawn_box(box, places[box.key]) for box in boxes),
        "</svg>",
    ]
    return "\n".join(parts)


def _width(box):
    return LETTER * max(map(len, box.lines)) + 16


def _height(box):
    return LINE * len(box.lines) + 8


def _place_row(row, before, places, top):
    """Centres in a row: as near to the mean of their sources as the boxes' widths allow."""

    def wish(box):
        known = [places[k][0] for k in before[box.key]]
        return sum(known) / len(known) if known else 0.0

    row = sorted(row, key=wish)
    wishes, widths = [wish(b) for b in row], [_width(b) for b in row]
    centres, edge = [], -math.inf
    for x, w in zip(wishes, widths, strict=True):
        centres.append(max(x, edge + GAP + w / 2))
        edge = centres[-1] + w / 2
    shift = sum(x - c for x, c in zip(wishes, centres, strict=True)) / len(row)
    for box, centre, w in zip(row, centres, widths, strict=True):
        places[box.key] = (centre + shift, top, w, _height(box))


def _arrow(a, b):
    (x1, y1, _, height), (x2, y2, *_) = a, b
    y1 += height
    bend = min(ROW, y2 - y1) / 2
    return (
        f'<path d="M{x1:.1f},{y1:.1f} C{x1:.1f},{y1 + bend:.1f} {x2:.1f},{y2 - bend:.1f} {x2:.1f},{y2:.1f}" '
        'fill="none" stroke="#707070" marker-end="url(#arrow)"/>'
    )


def _drawn_box(box, at):
    x, y, w, h = at
    parts = [
        f'<rect x="{x - w / 2:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="5" '
        f'fill="{COLOURS[box.kind]}" stroke="#8a8a8a"/>'
    ]
    for k, line in enumerate(box.lines):
        style = 'font-size="11" font-weight="bold"' if k == 0 else 'font-size="9" fill="#555555"'
        parts.append(
            f'<text x="{x:.1f}" y="{y + LINE * (k + 1):.1f}" text-anchor="middle" {style}>{escape(line)}</text>'
        )
    return "".join(parts)
