"""Plain functions as graphs, evaluated in several ways: what the tests of tracing and ops share."""

import ctypes
import functools

import numpy as np

from odec.codegen import blas
from odec.codegen.compile import Library, object_code
from odec.codegen.lower_scalar import lower_scalar
from odec.codegen.print_llvm import print_llvm
from odec.codegen.print_python import python_function
from odec.codegen.targets import cpu_target
from odec.graph.function import Function
from odec.graph.node import input_node
from odec.graph.trace import call_model, unwrap, wrap
from odec.ops.families import float_nodes


def graph_of(function, *arrays, dtype="float64"):
    """The Function of a plain function at the shapes of some arrays; outputs out0, out1, ..."""
    inputs = {f"x{k}": input_node(f"x{k}", np.shape(a), dtype) for k, a in enumerate(arrays)}
    result = call_model(function, "model", [wrap(n) for n in inputs.values()], dtype)
    results = result if isinstance(result, tuple) or (isinstance(result, list) and ragged(result)) else [result]
    outputs = float_nodes(*[unwrap(r) for r in results])
    return Function("model", inputs, {f"out{k}": n for k, n in enumerate(outputs)})


def ragged(values):
    return len({np.shape(v) for v in values}) > 1


def evaluated(graph, *arrays):
    """The outputs of a Function as a list of arrays, by NumPy."""
    return list(graph.evaluate(*arrays).values())


def python_of(graph):
    """The function of arrays that gives the outputs of a Function as a list of arrays, by the Python text of its
    scalar layout.
    """
    kernel = python_function(lower_scalar(graph, "kernel"))

    def run(*arrays):
        given = [np.ascontiguousarray(a, n.dtype) for a, n in zip(arrays, graph.inputs.values(), strict=True)]
        out = [np.empty(n.shape, n.dtype) for n in graph.outputs.values()]
        kernel(*given, *out)
        return out

    return run


def run_python(graph, *arrays):
    """The outputs of a Function as a list of arrays, by the Python text of its scalar layout."""
    return python_of(graph)(*arrays)


def loaded(kernels):
    """{name: function of ndarrays} of kernels compiled together, without the disk cache."""
    return functions_of(kernels, *machine_code(kernels))


def machine_code(kernels):
    """Object code of kernels compiled together, without the disk cache, and the names of the routines that it calls."""
    text = print_llvm(kernels, cpu_target())
    return object_code(text), blas.symbols_in(text)


def functions_of(kernels, code, routines):
    """{name: function of ndarrays} of kernels in object code."""
    library = Library(code, blas.symbols(routines))

    def run(kernel, *arrays):
        function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(arrays) + 1))(library.address(kernel.name))
        work = np.full(kernel.work_size, np.nan, kernel.dtype)  # nothing may be read before it is written
        function(*[a.ctypes.data for a in arrays], work.ctypes.data)

    return {k.name: functools.partial(run, k) for k in kernels}
