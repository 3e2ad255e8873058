"""Places of buffers in the workspace, reused once what they held has been read for the last time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from odec.codegen.kernel import Allocate, Assign, Call, Element, Loop

ALIGNMENT = 64  # bytes: a cache line, and any vector register


def aligned(size, dtype):
    """A new vector whose first element begins a cache line, as the places of buffers in it take for granted.

    Vectors that lie across two cache lines are loaded and stored half as quickly.
    """
    if not size:
        return np.empty(0, dtype)
    width = np.dtype(dtype).itemsize
    room = np.empty(size + ALIGNMENT // width, dtype)
    skipped = -room.ctypes.data % ALIGNMENT // width
    return room[skipped : skipped + size]


def place_buffers(body, sizes, outputs, dtype):
    """Put an Allocate before the first use of each buffer, or put the buffer into an output that is not written
    yet; the size of the workspace.

    sizes, outputs : dict name -> (elements, dtype); dtype : of the workspace, in whose elements offsets count
    """
    lives = _lives(body, {*sizes, *outputs})
    order = sorted((name for name in lives if name in sizes), key=lambda name: lives[name].start)
    hosts = _hosted(body, lives, {name: sizes[name] for name in order}, outputs)
    _rename(body, hosts)
    placed, total, before = [], 0, {}
    step = ALIGNMENT // np.dtype(dtype).itemsize
    for name in order:
        if name in hosts:
            continue
        (count, kind), start = sizes[name], lives[name].start
        placed = [p for p in placed if lives[p[2]].stop > start]
        size = -(-count * np.dtype(kind).itemsize // ALIGNMENT) * step
        heir = next((p for p in placed if sizes[p[2]] == sizes[name] and _inherits(body, lives, name, p[2])), None)
        if heir is not None:
            placed.remove(heir)
            offset = heir[0]
        else:
            offset = _gap(placed, size)
        placed.append((offset, offset + size, name))
        total = max(total, offset + size)
        before.setdefault(start, []).append(Allocate(name, count, offset, kind))
    body[:] = [s for k, statement in enumerate(body) for s in (*before.get(k, ()), statement)]
    return total


def _lives(body, names):
    """{name: range from the first statement that uses a buffer to the one after the last}."""
    lives = {}
    for k, statement in enumerate(body):
        for name in buffers_of(statement):
            if name in names:
                lives[name] = range(lives[name].start if name in lives else k, k + 1)
    return lives


def _gap(placed, size):
    """The first offset at which so many elements are free."""
    offset = 0
    for low, high, _ in sorted(placed):
        if offset + size <= low:
            break
        offset = max(offset, high)
    return offset


def _hosted(body, lives, sizes, outputs):
    """{buffer: the output in whose memory it lives}, for buffers that are done with when the output is written.

    The last ones come first: those that the output itself is made from stay outside.
    """
    hosts, tenant = {}, {output: output for output in outputs if output in lives}
    for name in reversed(sizes):
        for output, later in tenant.items():
            if sizes[name] == outputs[output] and _follows(body, lives, later, name):
                hosts[name], tenant[output] = output, name
                break
    return hosts


def _follows(body, lives, name, other):
    """Whether a buffer may lie where another one lay."""
    return lives[other].stop <= lives[name].start or _inherits(body, lives, name, other)


def _inherits(body, lives, name, other):
    """Whether the statement that makes a buffer reads another one for the last time, each element just before it
    writes the same one."""
    start = lives[name].start
    return lives[other].stop == start + 1 and _replaces(body[start], name, other)


def _replaces(statement, name, other):
    """Whether loops write every element of a buffer once, last in their body, after reading of another buffer
    only the element at that place."""
    extents = {}
    while isinstance(statement, Loop):
        extents[statement.index] = statement.extent
        inner = statement.body
        if len(inner) > 1 or not isinstance(inner[0], Loop):
            break
        statement = inner[0]
    else:
        return False
    if not all(isinstance(s, Assign) for s in inner):
        return False
    *_, write = (s.target for s in inner)
    if not isinstance(write, Element) or write.buffer != name or not _is_one_to_one(write.index, extents):
        return False
    reads = [a for s in inner for a in s.args if isinstance(a, Element)]
    others = [s.target for s in inner[:-1] if isinstance(s.target, Element)]
    return not others and all(a.buffer != name and (a.buffer != other or a.index == write.index) for a in reads)


def _is_one_to_one(index, extents):
    """Whether an affine index differs between any two iterations of the loops."""
    if index.table is not None or {v for v, n in extents.items() if n > 1} - {v for v, _ in index.terms}:
        return False
    reach = 0
    for variable, stride in sorted(index.terms, key=lambda term: abs(term[1])):
        if abs(stride) <= reach:
            return False
        reach += abs(stride) * (extents[variable] - 1)
    return True


def _rename(body, names):
    """Elements of one buffer as elements of another, in place."""
    if names:
        body[:] = [_renamed(statement, names) for statement in body]


def _renamed(statement, names):
    moved = lambda a: Element(names.get(a.buffer, a.buffer), a.index) if isinstance(a, Element) else a
    if isinstance(statement, Loop):
        return replace(statement, body=[_renamed(s, names) for s in statement.body])
    if isinstance(statement, Assign):
        return replace(statement, target=moved(statement.target), args=tuple(map(moved, statement.args)))
    if isinstance(statement, Call):
        return replace(statement, args=tuple(map(moved, statement.args)))
    return statement


def buffers_of(statement):
    """Names of the buffers that a statement reads or writes, in order."""
    if isinstance(statement, Loop):
        for inner in statement.body:
            yield from buffers_of(inner)
    elif isinstance(statement, Assign):
        operands = (*statement.args, statement.target)
        yield from (a.buffer for a in operands if isinstance(a, Element))
    elif isinstance(statement, Call):
        yield from (a.buffer for a in statement.args if isinstance(a, Element))
