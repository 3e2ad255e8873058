"""Where odec meets Numba: compiling the loop, and kernels inside the user's own @njit code.

Numba is imported here only, and only when there is something for it to compile.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import warnings
from collections.abc import Callable
from typing import cast

from odec.codegen import cache
from odec.codegen.compile import Library, cpu_description, object_code


@functools.cache
def _numba():
    """Numba, with the compiled meanings of machine.py's functions registered."""
    import numba
    from numba import types
    from numba.extending import intrinsic, overload

    from odec.codegen import machine

    @intrinsic
    def call_address(context, kernel, buffers):
        def emit(context, builder, signature, args):
            from llvmlite import ir

            pointers = [builder.extract_value(args[1], i) for i in range(len(buffers))]
            byte = ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [byte] * len(pointers))
            function = builder.inttoptr(args[0], kind.as_pointer())
            builder.call(function, [builder.bitcast(p, byte) for p in pointers])
            return context.get_dummy_value()

        return types.void(kernel, buffers), emit

    @intrinsic
    def advance(context, buffer, start):
        def emit(context, builder, signature, args):
            return builder.gep(args[0], [args[1]], source_etype=context.get_data_type(buffer.dtype))

        return buffer(buffer, types.intp), emit

    @intrinsic
    def take_next(context, counter):
        def emit(context, builder, signature, args):
            from llvmlite import ir

            return builder.atomic_rmw("add", args[0], ir.Constant(ir.IntType(64), 1), "monotonic")

        return types.int64(counter), emit

    # An intrinsic is called without the typing context that it is written with.
    run, move, number = (cast("Callable", f) for f in (call_address, advance, take_next))
    overload(machine.call_kernel)(lambda kernel, *buffers: lambda kernel, *buffers: run(kernel, buffers))
    overload(machine.offset)(lambda buffer, start: lambda buffer, start: move(buffer, start))
    overload(machine.take)(lambda counter: lambda counter: number(counter))
    return numba


def portable_ir(name, function, parameters, helpers):
    """LLVM IR, for any machine, of a Python function of pointers and numbers that returns an int64, as symbol `name`
    in Numba's convention: with where the result goes, where an exception would, and the arguments.

    Numba translates and nothing else: its optimiser works for the CPU that it runs on.
    parameters : as `loop_function` takes them
    """
    numba = _numba()
    from numba import types
    from numba.core import config
    from numba.core.compiler_lock import global_compiler_lock
    from numba.extending import register_jitable

    kinds = {"int": types.int64, "float64*": types.CPointer(types.float64), "float32*": types.CPointer(types.float32),
             "int64*": types.CPointer(types.int64), "none": types.none}  # fmt: skip
    signature = [
        kinds[p] if isinstance(p, str) else types.NamedTuple([kinds[k] for k in p[1:]], p[0]) for p in parameters
    ]
    # Wrappers for Python and C would be compiled for each helper, and called by nobody.
    options = {"error_model": "numpy", "fastmath": {"contract"}, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    with warnings.catch_warnings(), global_compiler_lock:
        warnings.simplefilter("ignore")
        settings: dict = config.__dict__
        usual, settings["OPT"] = settings["OPT"], type(settings["OPT"])(0)
        try:
            for helper in helpers:
                register_jitable(**options)(helper)
            jitted = numba.njit(types.int64(*signature), **options)(function)
        finally:
            settings["OPT"] = usual
    ((signature, overload),) = jitted.overloads.items()
    return _alone(jitted.inspect_llvm(signature), overload.fndesc.llvm_func_name, name)


def _compiled(name, function, parameters, helpers):
    """Object code of such a function, as symbol `name` of one argument: where the others lie, 8 bytes each."""
    text = portable_ir(f"{name}_of_all", function, parameters, helpers) + _unpacking(name, parameters)
    return object_code(text, every_pass=True)


def _unpacking(name, parameters):
    """LLVM IR of a function that reads the arguments of `name`_of_all from an array and calls it."""
    flat = [kind for p in parameters for kind in ([p] if isinstance(p, str) else p[1:])]
    kinds = ["i64" if kind == "int" else "ptr" for kind in flat]
    lines = [f"define i64 @{name}(ptr %all) {{", "  %result = alloca i64", "  %raised = alloca ptr"]
    for i, kind in enumerate(kinds):
        lines.append(f"  %at{i} = getelementptr i64, ptr %all, i64 {i}")
        lines.append(f"  %v{i} = load {kind}, ptr %at{i}")
    passed = ", ".join(["ptr %result", "ptr %raised", *(f"{kind} %v{i}" for i, kind in enumerate(kinds))])
    lines += [
        f"  %status = call i32 @{name}_of_all({passed})",
        "  %value = load i64, ptr %result",
        "  ret i64 %value",
        "}",
    ]
    return "\n".join(["", *lines, ""])


def _alone(text, symbol, name):
    """Numba's module with one function left visible, as `name`: the wrappers around it call into Numba
    and Python, which a process that only loads the object code has not imported."""
    import llvmlite.binding as llvm

    module = llvm.parse_assembly(text)
    for function in module.functions:
        if function.name == symbol:
            function.name, function.linkage = name, "external"
        elif not function.is_declaration:
            function.linkage = "internal"
    return str(module)


@functools.cache
def loop_function(name, function, parameters, helpers):
    """A loop as machine code, compiled once an installation: a Python callable of the address at which its
    arguments lie, 8 bytes each (one by one, ctypes would take as long to pass them as a short solve takes).

    parameters : 'int', 'float64*', 'float32*', 'int64*' or 'none' for each argument of `function`, or a NamedTuple's
        type followed by such kinds of its fields; what `function` does where an argument is not None is left out of
        the code where that argument is 'none'
    """
    stamp = f"loop {name} {parameters} {cpu_description()} {cache.odec_fingerprint()}"
    stored = cache.read(stamp)
    if stored is None:
        code = _compiled(name, function, parameters, helpers)
        cache.write(stamp, {}, code)
    else:
        code = stored[1]
    library = Library(code)
    entry = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(library.address(name))
    return lambda address, _code=library: entry(address)  # the code stays in memory as long as it can be called


def numba_type(kernel):
    """The Numba type of a compiled kernel: what lets the user's own @njit code call it.

    kernel(*arrays): one contiguous array for each argument, or a number for an input of one element.
    """
    import numba

    return numba.typeof(_dispatcher(kernel))


def _dispatcher(kernel):
    """An njit function that calls the kernel; its code is linked in, so LLVM can inline it."""
    if kernel.dispatcher is not None:
        return kernel.dispatcher
    numba = _numba()
    import numpy as np
    from numba import types
    from numba.core import cgutils
    from numba.core.errors import TypingError
    from numba.extending import intrinsic

    symbol = f"odec_{kernel.name}_{hashlib.sha256(kernel.text().encode()).hexdigest()[:16]}"
    pointer_kinds = kernel.arguments

    def pointer(context, builder, kind, value, argument):
        if isinstance(kind, types.Array):
            return context.make_array(kind)(context, builder, value).data
        number = context.cast(builder, value, kind, getattr(types, argument.dtype))
        return cgutils.alloca_once_value(builder, number)

    @intrinsic
    def invoke(context, arrays, work):
        _check_types(kernel, arrays, TypingError, types)

        def emit(context, builder, signature, args):
            from llvmlite import ir

            _link(context, kernel, symbol)
            items = [builder.extract_value(args[0], i) for i in range(len(arrays))]
            pointers = [
                pointer(context, builder, k, v, a) for k, v, a in zip(arrays, items, pointer_kinds, strict=True)
            ]
            pointers.append(context.make_array(work)(context, builder, args[1]).data)
            byte = ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [byte] * len(pointers))
            function = cgutils.get_or_insert_function(builder.module, kind, symbol)
            builder.call(function, [builder.bitcast(p, byte) for p in pointers])
            return context.get_dummy_value()

        return types.void(arrays, work), emit

    work_size, dtype = max(kernel.work_size, 1), np.dtype(kernel.dtype)

    run = cast("Callable", invoke)  # called without the typing context that it is written with

    @numba.njit
    def call(*arrays):
        run(arrays, np.empty(work_size, dtype))

    kernel.dispatcher = call
    return call


def _check_types(kernel, arrays, error, types):
    if len(arrays) != len(kernel.arguments):
        names = ", ".join(a.name for a in kernel.arguments)
        raise error(f"{kernel.name} takes {len(kernel.arguments)} arrays ({names}), not {len(arrays)}")
    for kind, argument in zip(arrays, kernel.arguments, strict=True):
        number = isinstance(kind, (types.Float, types.Integer)) and argument.size == 1 and not argument.written
        array = isinstance(kind, types.Array) and kind.layout == "C" and str(kind.dtype) == argument.dtype
        if not number and not (array and (kind.mutable or not argument.written)):
            raise error(f"{kernel.name}: {argument.name} must be a contiguous {argument.dtype} array, not {kind}")


def _link(context, kernel, symbol):
    """Add the kernel's LLVM IR to the library that is being compiled."""
    import llvmlite.binding as llvm

    module = llvm.parse_assembly(kernel.text())
    for function in module.functions:
        if function.name == kernel.name:
            function.name, function.linkage = symbol, "external"
        elif not function.is_declaration:
            function.linkage = "internal"
    library = context.codegen().create_library(symbol)
    library.add_llvm_module(module)
    library.finalize()
    context.active_code_library.add_linking_library(library)
