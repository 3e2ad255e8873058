"""Kernels as readable Python, which runs: the `python` target."""

from __future__ import annotations

import numpy as np

from odec.codegen.kernel import Allocate, Assign, Call, Element, Index, Literal, Local, Loop, Return
from odec.graph.trace import place, source_line
from odec.ops.elementary import np_erf, np_sigmoid, np_softplus
from odec.ops.rough import np_rough_exp2, np_rough_log2


def print_python(kernel):
    """The kernel as the text of a Python function, after those it calls."""
    return "\n\n".join(map(_function_text, with_callees(kernel)))


def with_callees(kernel):
    """The kernels that a kernel needs, each once, callees first, itself last."""
    found = {}
    for callee in kernel.callees:
        found.update((k.name, k) for k in with_callees(callee))
    return [*found.values(), kernel]


def python_function(kernel):
    """The printed kernel as a Python function of one contiguous array for each argument: the `python` target."""
    namespace = dict(NAMESPACE)
    for k in with_callees(kernel):
        namespace.update(k.tables)
    exec(compile(print_python(kernel), f"<{kernel.name}>", "exec"), namespace)
    function, work_size = namespace[kernel.name], kernel.work_size

    def run(*arrays):
        flat = [a.reshape(-1) for a in arrays]
        work = [np.empty(work_size, kernel.dtype)] if work_size else []
        with np.errstate(all="ignore"):
            function(*flat, *work)

    return run


# ---- the routines that kernels call: `offset` views of flat buffers, as in the machine code ----------------


def _matrix(buffer, rows, columns, leading, flip=False):
    if flip:
        rows, columns = columns, rows
    found = np.lib.stride_tricks.as_strided(buffer, (rows, columns), (leading * buffer.itemsize, buffer.itemsize))
    return found.T if flip else found


def gemm(flip_a, flip_b, m, n, k, a, lda, b, ldb, c, ldc):
    """C = A B for row-major matrices with leading dimensions; a flipped factor is stored transposed."""
    _matrix(c, m, n, ldc)[...] = _matrix(a, m, k, lda, flip_a) @ _matrix(b, k, n, ldb, flip_b)


def gesv(n, m, a, x, pivots):
    """Solve A X = B in place of B, column by column; nan where A is singular."""
    columns = _matrix(x, m, n, n)
    try:
        columns[...] = np.linalg.solve(_matrix(a, n, n, n).T, columns.T).T
    except np.linalg.LinAlgError:
        columns[...] = np.nan


def det(n, a, pivots, result):
    """The determinant."""
    result[0] = np.linalg.det(_matrix(a, n, n, n))


def convolve(k, count, width, rows, p, q, a, b, c, ahead=None):
    """c = sum over j from 1 to k - 1 of (p j/k + q) a_j b_{k-j}, for histories in tiles (count, rows, width).

    ahead : where machine code keeps parts of later sums
    """
    tiled = lambda x: x[: count * rows * width].reshape(count, rows, width)[:, 1:k]
    weights = p * np.arange(1, k)[:, None] + q * k
    c[: count * width] = np.sum(weights * tiled(a) * tiled(b)[:, ::-1], axis=1).ravel() / k


ROUTINES = {"gemm": gemm, "gesv": gesv, "det": det, "convolve": convolve}
NAMESPACE = {
    "np": np, **ROUTINES,
    "sigmoid": np_sigmoid, "softplus": np_softplus, "erf": np_erf,
    "rough_log2": np_rough_log2, "rough_exp2": np_rough_exp2,
}  # fmt: skip


def _function_text(kernel):
    lines = []
    names = [a.name for a in kernel.arguments] + (["work"] if kernel.work_size else [])
    lines.append(f"def {kernel.name}({', '.join(names)}):")
    reads = ", ".join(f"{a.name} ({a.size})" for a in kernel.arguments if not a.written)
    writes = ", ".join(f"{a.name} ({a.size})" for a in kernel.arguments if a.written)
    lines.append(f'    """Reads {reads}; writes {writes}."""')
    _Printer(lines, kernel).block(kernel.body, 1)
    return "\n".join(lines) + "\n"


class _Printer:
    def __init__(self, lines, kernel):
        self.lines, self.kernel = lines, kernel
        self.line = None

    def block(self, body, depth):
        for statement in body:
            self.comment(getattr(statement, "line", None), depth)
            self.lines.append("    " * depth + self.statement(statement))
            if isinstance(statement, Loop):
                self.block(statement.body, depth + 1)

    def comment(self, line, depth):
        """The user's line, where it changes."""
        if line is not None and line != self.line:
            self.line = line
            text = source_line(line)
            self.lines.append("    " * depth + f"# {place(line)}" + (f": {text}" if text else ""))

    def statement(self, s):
        if isinstance(s, Assign):
            return f"{self.value(s.target)} = {self.expression(s)}"
        if isinstance(s, Loop):
            extent = f"int({s.extent.name})" if isinstance(s.extent, Local) else s.extent
            return f"for {s.index} in range({extent}):"
        if isinstance(s, Allocate):
            return f"{s.buffer} = {self.allocated(s)}"
        if isinstance(s, Call):
            return f"{s.function}({', '.join(map(self.argument, s.args))})"
        if isinstance(s, Return):
            return "return"
        raise TypeError(f"unknown statement {s!r}")

    def allocated(self, s):
        if s.offset is None:
            return f"np.empty({s.size}{'' if s.dtype == 'float64' else f', np.{s.dtype}'})"
        if s.dtype == self.kernel.dtype:
            return f"work[{s.offset}:{s.offset + s.size}]"
        return f"work[{s.offset}:].view(np.{s.dtype})[:{s.size}]"

    def expression(self, s):
        args = [self.value(a) for a in s.args]
        if s.op is None:
            return args[0]
        return s.op.python.format(*args, **s.params)

    def value(self, operand):
        if isinstance(operand, Element):
            return f"{operand.buffer}[{index_text(operand.index)}]"
        if isinstance(operand, Literal):
            return literal_text(operand.value)
        return operand.name

    def argument(self, argument):
        if isinstance(argument, Element):
            offset = index_text(argument.index)
            return argument.buffer if offset == "0" else f"{argument.buffer}[{offset}:]"
        if isinstance(argument, Index):
            return index_text(argument)
        if isinstance(argument, Literal):
            return literal_text(argument.value)
        return str(argument)


def literal_text(value):
    if isinstance(value, (bool, np.bool_)):
        return repr(bool(value))
    value = float(value)
    if value != value:
        return "np.nan"
    if value in (np.inf, -np.inf):
        return "np.inf" if value > 0 else "(-np.inf)"
    return repr(value) if value >= 0 and not (value == 0 and np.signbit(value)) else f"({value!r})"


def index_text(index):
    text = _sum_text(index.terms, index.offset)
    if index.table is None:
        return text
    return " + ".join([f"{index.table}[{text}]", *([_sum_text(index.beside, 0)] if index.beside else [])])


def _sum_text(terms, offset):
    texts = [v if stride == 1 else f"{stride} * {v}" for v, stride in terms]
    return " + ".join(texts + ([str(offset)] if offset or not texts else []))
