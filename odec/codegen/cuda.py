"""LLVM IR -> PTX, through LLVM's own NVPTX target; what NVIDIA's wheels add, found where they are installed.

PTX needs llvmlite alone, and NVIDIA's libdevice where there are mathematical functions; ptxas only tells how many
registers and how much memory a kernel takes.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from odec.codegen import blas, cache, matrices
from odec.codegen.compile import _lock
from odec.codegen.numba_bridge import portable_ir
from odec.errors import ArgumentError, CompileError

TRIPLE = "nvptx64-nvidia-cuda"
CAPABILITIES = ((7, 0), (7, 2), (7, 5), (8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0), (12, 1))
# Intrinsics and instructions that NVPTX cannot lower, or only to a rough value, as functions of libdevice.
ROOT = re.compile(r"@sqrt(?=\()")
POWER = re.compile(r"@llvm\.pow\.f(32|64)\b")
REMAINDER = re.compile(r"frem (?:\w+ )*?(double|float) ([^,\n]+), ([^,\n]+)")
HEADER = re.compile(r"^target (?:triple|datalayout).*\n", re.MULTILINE)


@dataclass(frozen=True)
class Resources:
    """What ptxas gives one thread of a kernel; bytes of local memory, all but registers."""

    registers: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int
    constant_bytes: int


def ptx(texts, cc, entries, inline=False, unroll=True, apart=()):
    """PTX of LLVM modules linked together, for GPUs of compute capability `cc` and later.

    texts : LLVM IR; entries : names of the functions that are kernels, and of the constants that the host sets;
        nothing else is visible from outside
    inline : put every function into the kernels, so that what is private to a thread can live in registers
    unroll : write loops of known length out, so that arrays that only they run over can
    apart : names of functions that stay functions all the same

    Raises
    ------
    ArgumentError : cc is no known compute capability
    CompileError : the IR is refused, or libdevice is needed and not installed
    """
    name = architecture(cc)
    texts = [*texts, *_matrix_routines(texts)]
    digest = hashlib.sha256("\0".join([*texts, *entries]).encode()).hexdigest()
    stamp = f"ptx {name} {inline} {unroll} {apart} {digest} {cache.odec_fingerprint()}"
    stored = cache.read(stamp)
    if stored is None:
        text = _compiled(texts, name, entries, inline, unroll, apart)
        cache.write(stamp, {}, text.encode())
        return text
    return stored[1].decode()


def _compiled(texts, name, entries, inline, unroll, apart):
    with _lock:
        llvm = _llvm()
        machine = llvm.Target.from_triple(TRIPLE).create_target_machine(cpu=name, opt=3)
        module = _linked([_translated(text, entries) for text in texts], machine, inline, apart)
        for item in (*module.functions, *module.global_variables):
            if not item.is_declaration and item.name not in entries:
                item.linkage = "internal"
        options = llvm.create_pipeline_tuning_options(speed_level=3)
        options.loop_vectorization = options.loop_interleaving = options.slp_vectorization = False
        options.loop_unrolling = unroll
        builder = llvm.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
        missing = [f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")]
        if missing:
            raise CompileError(f"{', '.join(entries)}: {missing[0]} has no form for CUDA; this is a bug in odec.")
        return machine.emit_assembly(module)


def architecture(cc):
    """'sm_90' of (9, 0)."""
    if cc not in CAPABILITIES:
        listed = ", ".join(map(str, CAPABILITIES))
        raise ArgumentError(f"cc is {cc!r}; a compute capability is needed, one of {listed}.")
    return f"sm_{cc[0]}{cc[1]}"


@functools.cache
def _llvm():
    """llvmlite, with NVPTX set up once."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        llvm.Target.from_triple(TRIPLE)
    except RuntimeError:
        raise CompileError(
            "llvmlite was built without LLVM's NVPTX target, which makes code for CUDA; install llvmlite from PyPI."
        ) from None
    return llvm


def _translated(text, entries):
    """IR of any target as NVPTX takes it."""
    text = HEADER.sub("", text)
    text = ROOT.sub("@llvm.sqrt.f64", text)
    text = POWER.sub(lambda found: "@__nv_pow" + ("f" if found[1] == "32" else ""), text)
    text, remainders = REMAINDER.subn(_remainder, text)
    if remainders:
        text += "".join(
            f"\ndeclare {kind} @__nv_fmod{suffix}({kind}, {kind})\n"
            for kind, suffix in (("double", ""), ("float", "f"))
            if f"@__nv_fmod{suffix}(" in text and f"declare {kind} @__nv_fmod{suffix}(" not in text
        )
    for entry in entries:
        head = re.compile(rf"^define (?:internal )?void @{re.escape(entry)}\(", re.MULTILINE)
        text = head.sub(f"define ptx_kernel void @{entry}(", text)
    return text


def _remainder(found):
    kind, x, y = found.groups()
    return f"call {kind} @__nv_fmod{'' if kind == 'double' else 'f'}({kind} {x}, {kind} {y})"


def _linked(texts, machine, inline, apart):
    """One module of several, with what they use of libdevice."""
    llvm, modules, layout = _llvm(), [], str(machine.target_data)
    try:
        for text in texts:
            module = llvm.parse_assembly(text)
            module.verify()
            for function in module.functions if inline else ():
                if not function.is_declaration:
                    function.add_function_attribute("noinline" if function.name in apart else "alwaysinline")
            modules.append(module)
    except RuntimeError as error:
        raise CompileError(f"generated LLVM IR was refused: {error}; this is a bug in odec.") from None
    if any("@__nv_" in text for text in texts):
        modules.append(llvm.parse_bitcode(_libdevice().read_bytes()))
    for module in modules:
        module.triple, module.data_layout = TRIPLE, layout
    first, *rest = modules
    for module in rest:
        first.link_in(module)
    return first


# ---- what Numba translates


@functools.cache
def translated_by_numba(name, function, parameters, helpers):
    """LLVM IR of a Python function of pointers and numbers, as `void @name(arguments)`.

    Translated once an installation. parameters, helpers : as `numba_bridge.portable_ir` takes them
    """
    stamp = f"portable {name} {parameters} {cache.odec_fingerprint()}"
    stored = cache.read(stamp)
    if stored is not None:
        return stored[1].decode()
    text = portable_ir(f"{name}.numba", function, parameters, helpers)
    kinds = ["i64" if kind == "int" else "ptr" for p in parameters for kind in ([p] if isinstance(p, str) else p[1:])]
    arguments = ", ".join(f"{kind} %a{i}" for i, kind in enumerate(kinds))
    text += f"""
define void @{name}({arguments}) {{
  %result = alloca i64
  %raised = alloca ptr
  %status = call i32 @{name}.numba(ptr %result, ptr %raised, {arguments})
  ret void
}}
"""
    cache.write(stamp, {}, text.encode())
    return text


def _matrix_routines(texts):
    """LLVM IR of the matrix routines that modules only name."""
    named = {found for text in texts for found in re.findall(r"@odec\.(\w+)\.(double|float)\(", text)}
    for routine, number in sorted(named):
        buffer = "float64*" if number == "double" else "float32*"
        kinds = tuple("int" if kind == "i" else buffer for kind in blas.ARGUMENTS[routine])
        yield translated_by_numba(f"odec.{routine}.{number}", getattr(matrices, routine), kinds, matrices.HELPERS)


# ---- what NVIDIA's wheels, or a CUDA toolkit, bring


def _libdevice():
    """Where NVIDIA's library of mathematical functions lies, as LLVM bitcode."""
    for root in _roots():
        path = root / "nvvm" / "libdevice" / "libdevice.10.bc"
        if path.is_file():
            return path
    raise CompileError(
        "CUDA code with mathematical functions needs NVIDIA's libdevice.10.bc, which is not here; install "
        '"odec[cuda]", or set CUDA_HOME to a CUDA toolkit.'
    )


def ptxas():
    """Where NVIDIA's assembler lies, or None."""
    name = "ptxas.exe" if os.name == "nt" else "ptxas"
    for root in _roots():
        path = root / "bin" / name
        if path.is_file():
            return path
    found = shutil.which("ptxas")
    return Path(found) if found else None


def _roots():
    """Folders laid out as a CUDA toolkit, the wheels' first: nvidia/cuda_nvcc (CUDA 12), nvidia/cu13, ..."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or ():
        yield Path(folder) / "cuda_nvcc"
        yield from sorted(Path(folder).glob("cu[0-9]*"), reverse=True)
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield Path(os.environ[variable])
    yield Path("/usr/local/cuda")


def resources(text, cc):
    """{kernel: Resources} of PTX, as ptxas reports them for compute capability `cc`.

    Raises
    ------
    CompileError : ptxas is not installed, or refuses the text
    """
    program = ptxas()
    if program is None:
        raise CompileError(
            "the registers and the memory of a CUDA kernel are told by NVIDIA's ptxas, which is not here; install "
            '"odec[cuda]", or put a CUDA toolkit on the PATH.'
        )
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(text, encoding="ascii")
        command = [program, "-v", f"-arch={architecture(cc)}", "-o", source.with_suffix(".cubin"), source]
        done = subprocess.run(command, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode:
        raise CompileError(
            f"ptxas refused generated PTX for {architecture(cc)}: {said.strip()}; this is a bug in odec."
        )
    return {name: _resources(name, part) for name, part in _by_entry(said)}


def _by_entry(said):
    """(kernel, what ptxas said of it)."""
    pieces = re.split(r"Compiling entry function '([^']+)'", said)
    return zip(pieces[1::2], pieces[2::2], strict=True)


def _resources(name, said):
    used = r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    of_entry = re.search(rf"properties for {re.escape(name)}\s+{used}", said)
    registers = re.search(r"Used (\d+) registers", said)
    assert of_entry and registers, said
    stack, stores, loads = map(int, of_entry.groups())
    deepest = re.search(r"(\d+) bytes cumulative stack size", said)
    constants = sum(map(int, re.findall(r"(\d+) bytes cmem", said)))
    return Resources(int(registers[1]), int(deepest[1]) if deepest else stack, stores, loads, constants)
