"""What a kernel of threads is as readable Python, for Numba's CUDA simulator: its kernels, its loop from the files that
it stands in, and what a thread does with them."""

from __future__ import annotations

import ast
import inspect
from dataclasses import replace

from odec.codegen import machine
from odec.codegen.print_python import print_python, with_callees

FIRST = (
    "import numpy as np", "from numba import cuda", "",
    "from odec.codegen.print_python import det, gemm, gesv, np_erf as erf, np_rough_exp2 as rough_exp2",
    "from odec.codegen.print_python import np_rough_log2 as rough_log2, np_sigmoid as sigmoid",
    "from odec.codegen.print_python import np_softplus as softplus",
)  # fmt: skip
CALL = (
    "def call_kernel(kernel, *buffers):\n    kernel(*buffers[: kernel.__code__.co_argcount])"  # some take no workspace
)


def head(title, modules, *imports):
    """What a text begins with whose loop is that of modules: what they import of others, and how it calls kernels.

    imports : lines of what else the text needs
    """
    imports = dict.fromkeys([*imports, *(line for module in modules for line in _imports(module, modules))])
    return "\n".join([
        f'"""{title}."""', "", *FIRST, *imports, "", "", CALL, "", "", inspect.getsource(machine.offset), "",
        inspect.getsource(machine.take),
    ])  # fmt: skip


def kernels_source(kernels):
    """Kernels, and what they call, each once."""
    found = {k.name: k for kernel in kernels for k in with_callees(kernel)}
    tables = (f"{name} = np.array({a.tolist()}, np.{a.dtype})" for k in found.values() for name, a in k.tables.items())
    return "\n\n".join([*tables, *(print_python(replace(k, callees=())) for k in found.values())])


def thread_head(launch, buffers, shared=()):
    """Lines with which a kernel begins that has buffers {name: (numbers, dtype)} of a thread's own.

    shared : names of what lies in constant memory, which are arguments here
    """
    arguments = ", ".join((*launch.numbers, *shared, *launch.read, *launch.written))
    return [
        "@cuda.jit", f"def {launch.name}({arguments}):", "    member = cuda.grid(1)", "    if member < size:",
        *(f"        {name} = cuda.local.array({size}, np.{dtype})" for name, (size, dtype) in buffers.items()), "",
    ]  # fmt: skip


def filled(group, values):
    """Text of a NamedTuple with values {field: text}."""
    return f"{group.__name__}({', '.join(f'{field}={value}' for field, value in values.items())})"


def without_imports(module):
    """A module's text without its docstring and its imports."""
    source = inspect.getsource(module)
    nodes, left_out = ast.parse(source).body, set()
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)) or node is nodes[0]:
            left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(source.splitlines(), 1)
    return "\n".join(line for number, line in lines if number not in left_out).strip() + "\n"


def _imports(module, modules):
    """The imports of a module of what is not printed here."""
    printed = ("__future__", machine.__name__, *(m.__name__ for m in modules))
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module not in printed):
            yield ast.unparse(node)
