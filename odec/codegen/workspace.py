"""Places of buffers in the workspace, reused once what they held has been read for the last time."""

from __future__ import annotations

import numpy as np

from odec.codegen.kernel import Allocate, Assign, Call, Element, Loop

ALIGNMENT = 64  # bytes: a cache line, and any vector register


def place_buffers(body, sizes, dtype):
    """Put an Allocate before the first use of each buffer; the size of the workspace.

    sizes : dict name -> (elements, dtype); dtype : of the workspace, in whose elements offsets count
    """
    first, last = {}, {}
    for k, statement in enumerate(body):
        for name in buffers_of(statement):
            if name in sizes:
                first.setdefault(name, k)
                last[name] = k
    width, placed, total = np.dtype(dtype).itemsize, [], 0
    step = ALIGNMENT // width
    before = {}
    for name in sorted(first, key=first.__getitem__):
        placed = [p for p in placed if last[p[2]] >= first[name]]
        count, kind = sizes[name]
        size = -(-count * np.dtype(kind).itemsize // ALIGNMENT) * step
        offset = 0
        for low, high, _ in sorted(placed):
            if offset + size <= low:
                break
            offset = max(offset, high)
        placed.append((offset, offset + size, name))
        total = max(total, offset + size)
        before.setdefault(first[name], []).append(Allocate(name, count, offset, kind))
    body[:] = [s for k, statement in enumerate(body) for s in (*before.get(k, ()), statement)]
    return total


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
