"""LLVM IR -> object code -> functions that can be called: llvmlite alone, no Numba.

Numba needs 0.6 to 1.8 s to import and start; a kernel that is already LLVM IR needs none of it.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import weakref

from odec.codegen import blas, cache
from odec.codegen.kernel import Argument
from odec.codegen.print_llvm import print_llvm
from odec.codegen.targets import cpu_target, has_libmvec
from odec.codegen.workspace import aligned
from odec.errors import CompileError

_lock = threading.RLock()
# What only code with loops has. Straight-line code is as the graph has it, each value once: all that there is to find
# are instructions that combine. LLVM's whole pipeline takes ten times as long, and packing scalars into vectors
# loses as often as it gains: over the nonstiff problems of the tests a step takes 0.81 to 1.11 of the time without.
LOOP = "= phi "
SLP_LINES = 4_000  # beyond, packing scalars into vectors takes most of the compile time


@functools.cache
def _llvm():
    """llvmlite, with the native target set up once."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


@functools.cache
def _machine():
    """The machine that code is generated for; engines have their own, for each frees the one it was given."""
    return _new_machine()


def _new_machine():
    llvm = _llvm()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, jit=True
    )


@functools.cache
def cpu_description():
    """What object code depends on beside odec: CPU, its features, LLVM."""
    llvm = _llvm()
    return f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()} {llvm.llvm_version_info}"


def optimised(text, every_pass=False):
    """The LLVM module of an IR text after optimisation: by every pass where the text has loops, or when told to, for
    Numba writes its loops with variables in memory.
    """
    every_pass = every_pass or LOOP in text
    llvm = _llvm()
    with _lock:
        try:
            module = llvm.parse_assembly(text)
            module.verify()
        except RuntimeError as error:
            raise CompileError(f"generated LLVM IR was refused: {error}; this is a bug in odec.") from None
        options = llvm.create_pipeline_tuning_options(speed_level=3)
        options.loop_vectorization = options.loop_interleaving = True
        options.slp_vectorization = text.count("\n") < SLP_LINES
        builder = llvm.create_pass_builder(_machine(), options)
        passes = builder.getModulePassManager() if every_pass else llvm.create_new_module_pass_manager()
        if not every_pass:
            passes.add_instruction_combine_pass()
        passes.run(module, builder)
        return module


def object_code(text, every_pass=False):
    """Native object code of an IR text."""
    module = optimised(text, every_pass)
    with _lock:
        return _machine().emit_object(module)


def assembly(text):
    """Native assembly of an IR text."""
    module = optimised(text)
    with _lock:
        return _machine().emit_assembly(module)


class Library:
    """Loaded object code; keeps it in memory and gives addresses by name."""

    def __init__(self, code, symbols=None):
        llvm = _llvm()
        with _lock:
            for name, address in (symbols or {}).items():
                llvm.add_symbol(name, address)
            self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _new_machine())
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
            self._engine.finalize_object()

    def address(self, name):
        address = self._engine.get_function_address(name)
        if not address:
            raise CompileError(f"object code has no function {name!r}")
        return address


def address(array):
    """Where the first element of a contiguous array lies; of one that can be written to three times as quickly."""
    if not array.flags.writeable:
        return array.ctypes.data
    return ctypes.addressof(ctypes.c_char.from_buffer(array)) if array.nbytes else 0


class CompiledKernel:
    """A kernel as machine code: call it with one contiguous array for each argument.

    arguments : tuple of Argument; `kernel(*inputs, *outputs)` writes the outputs and returns nothing.
    work_size : elements of `dtype` in the workspace, for all lanes
    lanes : trajectories side by side; above 1 each array has them as its last axis, if its argument is not shared
    address : of the C function `void (one pointer for each argument, work pointer)`
    """

    def __init__(self, name, arguments, work_size, dtype, lanes, library, made_of, text):
        self.name, self.arguments, self.work_size, self.dtype = name, arguments, work_size, dtype
        self.lanes = lanes
        self.made_of = made_of  # () -> the Kernels that were compiled together, as other targets print them
        self.text = text  # () -> the LLVM IR of the kernel and what it calls
        self.dispatcher = None  # Numba's handle on it, once Numba has met it
        self.address = library.address(name)
        self._library = library  # keeps the code in memory
        self._call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(arguments) + 1))(self.address)

    def __call__(self, *arrays):
        if len(arrays) != len(self.arguments):
            names = ", ".join(a.name for a in self.arguments)
            raise TypeError(f"{self.name} takes {len(self.arguments)} arrays ({names}), not {len(arrays)}")
        for argument, array in zip(self.arguments, arrays, strict=True):
            argument.check(array, self.name)
        self.run(*arrays)

    def run(self, *arrays):
        """As a call, without checks."""
        work = aligned(self.work_size, self.dtype)
        self._call(*map(address, arrays), address(work))

    @property
    def _numba_type_(self):
        from odec.codegen.numba_bridge import numba_type

        return numba_type(self)

    def __repr__(self):
        def port(a):
            return f"{a.name}: {a.dtype}[{a.size}]"

        return f"<CompiledKernel {self.name}({', '.join(map(port, self.arguments))})>"


class Program:
    """Kernels that were compiled together."""

    def __init__(self, code, record, symbols, made_of, text):
        library = Library(code, symbols)
        self.kernels = {}
        for entry in record["kernels"]:
            arguments = tuple(
                Argument(name, size, dtype, written, tuple(shape), shared)
                for name, size, dtype, written, shape, shared in entry["arguments"]
            )
            self.kernels[entry["name"]] = CompiledKernel(
                entry["name"], arguments, entry["work_size"], entry["dtype"], record["lanes"], library, made_of, text
            )


_programs: weakref.WeakValueDictionary = weakref.WeakValueDictionary()


def program(key, make_kernels, lanes=1, shared=()):
    """The Program of `key`: from memory, from the disk cache, or compiled from `make_kernels()`.

    key : str, from everything that the kernels depend on: graph digest, kind, options
    make_kernels : () -> list of Kernel
    lanes, shared : trajectories side by side, and names of arguments that they share, as for `print_llvm`
    """
    stamp = key if lanes == 1 else f"{key} {lanes} lanes share {sorted(shared)}"
    with _lock:
        known = _programs.get(stamp)
        if known is None:
            known = _programs[stamp] = _load(stamp, make_kernels, lanes, shared)
        return known


def _load(key, make_kernels, lanes, shared):
    make_text = functools.cache(lambda: print_llvm(make_kernels(), cpu_target(), lanes, shared))
    stored = cache.read(_stamp(key))
    if stored is not None:
        try:
            return _loaded(stored[1], stored[0], make_kernels, make_text)
        except (CompileError, KeyError, TypeError, IndexError, ValueError):
            pass  # a damaged entry is rebuilt
    kernels = make_kernels()
    text = print_llvm(kernels, cpu_target(), lanes, shared)
    record = {"symbols": blas.symbols_in(text), "vector": "@_ZGV" in text, "lanes": lanes, "kernels": [
        {"name": k.name, "work_size": k.work_size * lanes, "dtype": k.dtype,
         "arguments": [_entry(a.widened(lanes, shared)) for a in k.arguments]}
        for k in kernels
    ]}  # fmt: skip
    code = object_code(text)
    cache.write(_stamp(key), record, code)
    return _loaded(code, record, make_kernels, make_text)


def _entry(a):
    return [a.name, a.size, a.dtype, a.written, list(a.shape), a.shared]


def _loaded(code, record, make_kernels, make_text):
    """A Program, after what its code refers to is in the process: a missing symbol would end it."""
    if record["vector"] and not has_libmvec():
        raise CompileError("the code needs glibc's vector library, which is not here.")
    return Program(code, record, blas.symbols(record["symbols"]), make_kernels, make_text)


def _stamp(key):
    """The key with what machine code depends on beside the graph."""
    return f"{key} {cpu_description()} {has_libmvec()} {cache.odec_fingerprint()}"
