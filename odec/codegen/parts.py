"""Large kernels as calls of their parts: a compiler's time for a function grows with the square of its loops.

LLVM asks of each loop under which conditions it is entered, and walks back over every loop before it.
"""

from __future__ import annotations

from dataclasses import replace

from odec.codegen.kernel import Allocate, Assign, Call, Element, Index, Kernel, Local, Loop, Return
from odec.codegen.workspace import buffers_of

MOST_LOOPS = 16  # of a part
PRODUCT = 8  # loops that a matrix product may become


def in_parts(kernel) -> Kernel:
    """The kernel itself, or one that calls parts of it, in the same workspace, where it has many loops."""
    pieces = _pieces([s for s in kernel.body if not isinstance(s, Return)])
    if len(pieces) == 1:
        return kernel
    rooms, parts = {}, []
    for number, piece in enumerate(pieces):
        used = {name for s in piece for name in _read(s)}
        known = [rooms[name] for name in rooms if name in used]
        rooms |= {s.buffer: s for s in piece if isinstance(s, Allocate)}
        tables = {name: array for name, array in kernel.tables.items() if name in used}
        body = [*known, *piece, Return()]
        parts.append(replace(kernel, name=f"{kernel.name}.part{number}", body=body, tables=tables))
    everything = tuple(Element(a.name, Index()) for a in kernel.arguments)
    calls = [Call(part.name, everything, None) for part in parts]
    return replace(kernel, body=[*calls, Return()], tables={}, callees=tuple(parts))


def _loops(statement):
    if isinstance(statement, Call):
        return PRODUCT if statement.function == "gemm" else 1
    return 1 + sum(map(_loops, statement.body)) if isinstance(statement, Loop) else 0


def _pieces(body):
    """Lists of statements of about MOST_LOOPS loops, cut where no local, nor a buffer in registers, is still read."""
    last = {name: k for k, statement in enumerate(body) for name in _read(statement)}
    pieces, count, until = [[]], 0, -1
    for k, statement in enumerate(body):
        if count >= MOST_LOOPS and until < k:
            pieces.append([])
            count = 0
        pieces[-1].append(statement)
        count += _loops(statement)
        until = max([until, *(last.get(name, -1) for name in _made(statement))])
    return pieces


def _made(statement):
    """What a statement makes that only the function knows in which it stands."""
    if isinstance(statement, Allocate):
        return [statement.buffer] if statement.offset is None else []
    return [statement.target.name] if isinstance(statement, Assign) and isinstance(statement.target, Local) else []


def _read(statement):
    """Names of locals, buffers and tables in a statement, and in its loops."""
    return {*buffers_of(statement), *_locals(statement)}


def _locals(statement):
    if isinstance(statement, Loop):
        extent = [statement.extent.name] if isinstance(statement.extent, Local) else []
        return {*extent, *(name for s in statement.body for name in _locals(s))}
    found = [*getattr(statement, "args", ()), getattr(statement, "target", None)]
    indices = [a.index for a in found if isinstance(a, Element)]
    names = {a.name for a in found if isinstance(a, Local)} | {i.table for i in indices if i.table is not None}
    return names | {variable for i in indices for variable, _ in (*i.terms, *i.beside)}
