"""Matrix routines for generated code, from the library that NumPy or SciPy has loaded already.

Generated code calls `odec_<routine>` of a 64-bit CBLAS and LAPACK, or `odec32_<routine>` of the Fortran
interface with 32-bit integers; `symbols` gives their addresses.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import re
from pathlib import Path

import numpy as np

from odec.errors import CompileError

ROUTINES = ("dgemm", "sgemm", "dgesv", "sgesv", "dgetrf", "sgetrf")


@functools.cache
def _openblas():
    """{routine: address} in the OpenBLAS of NumPy's wheels; empty where NumPy has another library."""
    folder = Path(np.__file__).parent
    for place in (folder.parent / "numpy.libs", folder / ".dylibs"):
        for path in sorted(place.glob("*scipy_openblas64_*")):
            try:
                library = ctypes.CDLL(str(path))  # NumPy has loaded it: this finds the same one
                names = {r: f"scipy_cblas_{r}64_" if "gemm" in r else f"scipy_{r}_64_" for r in ROUTINES}
                return {r: ctypes.cast(getattr(library, n), ctypes.c_void_p).value for r, n in names.items()}
            except (OSError, AttributeError):
                continue
    return {}


@functools.cache
def _scipy():
    """{routine: address} of SciPy's Fortran interface, which every SciPy has."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    name = ctypes.pythonapi.PyCapsule_GetName
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    found = {}
    for routine in ROUTINES:
        module = importlib.import_module(f"scipy.linalg.cython_{'blas' if 'gemm' in routine else 'lapack'}")
        capsule = module.__pyx_capi__[routine]
        found[routine] = pointer(capsule, name(capsule))
    return found


def prefix():
    """What names of routines begin with in generated code: 'odec_' (64-bit CBLAS) or 'odec32_' (Fortran)."""
    return "odec_" if _openblas() else "odec32_"


def symbols_in(text):
    """Names of the routines that an LLVM module refers to."""
    return sorted(set(re.findall(rf"@(odec(?:32)?_(?:{'|'.join(ROUTINES)}))\(", text)))


def symbols(names):
    """{name: address} of routines by their names in generated code.

    Raises
    ------
    CompileError : this installation has no such library
    """
    result = {}
    for name in names:
        kind, routine = name.split("_", 1)
        address = (_openblas() if kind == "odec" else _scipy()).get(routine)
        if not address:
            raise CompileError(f"{name}: NumPy's own OpenBLAS is not here; clear the cache with `odec cache --clear`.")
        result[name] = address
    return result


# ---- the text of the calls -------------------------------------------------------------------------------

GEMM = """
define private void @odec.gemm.{t}(i64 %flip_a, i64 %flip_b, i64 %m, i64 %n, i64 %k, ptr %a, i64 %lda, ptr %b, i64 %ldb, ptr %c, i64 %ldc) nounwind {{
  %fa = trunc i64 %flip_a to i32
  %fb = trunc i64 %flip_b to i32
  %ta = add i32 %fa, 111
  %tb = add i32 %fb, 111
  call void @odec_{x}gemm(i32 101, i32 %ta, i32 %tb, i64 %m, i64 %n, i64 %k, {t} 1.0, ptr %a, i64 %lda, ptr %b, i64 %ldb, {t} 0.0, ptr %c, i64 %ldc)
  ret void
}}
declare void @odec_{x}gemm(i32, i32, i32, i64, i64, i64, {t}, ptr, i64, ptr, i64, {t}, ptr, i64) nounwind
"""  # noqa: E501

# Row-major C = A B is column-major C' = B' A', so the factors change places.
GEMM_32 = """
@odec.flags.{t} = private unnamed_addr constant [2 x i8] c"NT"
define private void @odec.gemm.{t}(i64 %flip_a, i64 %flip_b, i64 %m, i64 %n, i64 %k, ptr %a, i64 %lda, ptr %b, i64 %ldb, ptr %c, i64 %ldc) nounwind {{
{integers}
  %one = alloca {t}
  %zero = alloca {t}
  store {t} 1.0, ptr %one
  store {t} 0.0, ptr %zero
  %ta = getelementptr i8, ptr @odec.flags.{t}, i64 %flip_a
  %tb = getelementptr i8, ptr @odec.flags.{t}, i64 %flip_b
  call void @odec32_{x}gemm(ptr %tb, ptr %ta, ptr %n.p, ptr %m.p, ptr %k.p, ptr %one, ptr %b, ptr %ldb.p, ptr %a, ptr %lda.p, ptr %zero, ptr %c, ptr %ldc.p)
  ret void
}}
declare void @odec32_{x}gemm(ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr) nounwind
"""  # noqa: E501

GESV = """
define private void @odec.gesv.{t}(i64 %n, i64 %m, ptr %a, ptr %x, ptr %pivots) nounwind {{
entry:
{integers}
  %info = alloca {i}
  call void @{p}{x}gesv(ptr %n.p, ptr %m.p, ptr %a, ptr %n.p, ptr %pivots, ptr %x, ptr %n.p, ptr %info)
  %found = load {i}, ptr %info
  %singular = icmp ne {i} %found, 0
  br i1 %singular, label %spoil, label %done
spoil:
  %size = mul i64 %n, %m
  br label %next
next:
  %i = phi i64 [ 0, %spoil ], [ %more, %next ]
  %at = getelementptr {t}, ptr %x, i64 %i
  store {t} 0x7FF8000000000000, ptr %at
  %more = add i64 %i, 1
  %again = icmp ult i64 %more, %size
  br i1 %again, label %next, label %done
done:
  ret void
}}
declare void @{p}{x}gesv(ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr) nounwind
"""

# The product of the pivots; each row that was exchanged changes the sign.
DET = """
define private void @odec.det.{t}(i64 %n, ptr %a, ptr %pivots, ptr %result) nounwind {{
entry:
{integers}
  %info = alloca {i}
  call void @{p}{x}getrf(ptr %n.p, ptr %n.p, ptr %a, ptr %n.p, ptr %pivots, ptr %info)
  %down = add i64 %n, 1
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %more, %next ]
  %known = phi {t} [ 1.0, %entry ], [ %product, %next ]
  %place = mul i64 %i, %down
  %at = getelementptr {t}, ptr %a, i64 %place
  %item = load {t}, ptr %at
  %p.at = getelementptr {i}, ptr %pivots, i64 %i
  %p.found = load {i}, ptr %p.at
  %more = add i64 %i, 1
  %row = {row}
  %kept = icmp eq {i} %p.found, %row
  %opposite = fneg {t} %item
  %factor = select i1 %kept, {t} %item, {t} %opposite
  %product = fmul {t} %known, %factor
  %again = icmp ult i64 %more, %n
  br i1 %again, label %next, label %done
done:
  store {t} %product, ptr %result
  ret void
}}
declare void @{p}{x}getrf(ptr, ptr, ptr, ptr, ptr, ptr) nounwind
"""

ARGUMENTS = {"gemm": "iiiiibibibi", "gesv": "iibbb", "det": "ibbb"}  # integers and buffers
INTEGERS = {"gemm": ("m", "n", "k", "lda", "ldb", "ldc"), "gesv": ("n", "m"), "det": ("n",)}


def wrapper(routine, number):
    """LLVM text of @odec.<routine>.<number>, which calls the library; `number` is double or float."""
    start = prefix()
    wide = start == "odec_"
    text = {"gemm": GEMM if wide else GEMM_32, "gesv": GESV, "det": DET}[routine]
    integer = "i64" if wide else "i32"
    lines = []
    for name in INTEGERS[routine]:
        lines.append(f"  %{name}.p = alloca {integer}")
        if wide:
            lines.append(f"  store i64 %{name}, ptr %{name}.p")
        else:
            lines += [f"  %{name}.i = trunc i64 %{name} to i32", f"  store i32 %{name}.i, ptr %{name}.p"]
    row = "add i64 %i, 1" if wide else "trunc i64 %more to i32"
    letter = "d" if number == "double" else "s"
    return text.format(t=number, x=letter, i=integer, p=start, integers="\n".join(lines), row=row).strip()


def declaration(routine, number):
    """LLVM text that only names @odec.<routine>.<number>, for a machine without BLAS."""
    kinds = ", ".join("i64" if kind == "i" else "ptr" for kind in ARGUMENTS[routine])
    return f"declare void @odec.{routine}.{number}({kinds})"
