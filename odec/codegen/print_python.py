"""Kernels as readable Python, which runs: the `python` target."""

from __future__ import annotations

import numpy as np

from odec.codegen.kernel import Allocate, Assign, Call, Element, Literal, Loop, Return
from odec.graph.trace import place, source_line


def print_python(kernel):
    """The kernel as the text of a Python function."""
    lines = []
    for callee in kernel.callees:
        lines += [print_python(callee), ""]
    names = [a.name for a in kernel.arguments] + (["work"] if kernel.work_size else [])
    lines.append(f"def {kernel.name}({', '.join(names)}):")
    reads = ", ".join(f"{a.name} ({a.size})" for a in kernel.arguments if not a.written)
    writes = ", ".join(f"{a.name} ({a.size})" for a in kernel.arguments if a.written)
    lines.append(f'    """Reads {reads}; writes {writes}."""')
    _Printer(lines).block(kernel.body, 1)
    return "\n".join(lines) + "\n"


class _Printer:
    def __init__(self, lines):
        self.lines = lines
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
            return f"for {s.index} in range({s.extent}):"
        if isinstance(s, Allocate):
            return f"{s.buffer} = work[{s.offset}:{s.offset + s.size}]"
        if isinstance(s, Call):
            return f"{s.function}({', '.join(map(self.argument, s.args))})"
        if isinstance(s, Return):
            return "return"
        raise TypeError(f"unknown statement {s!r}")

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
    terms = [v if stride == 1 else f"{stride} * {v}" for v, stride in index.terms]
    text = " + ".join(terms + ([str(index.offset)] if index.offset or not terms else []))
    return f"{index.table}[{text}]" if index.table else text
