"""Where code runs: value types and the table of mathematical functions of each target."""

from __future__ import annotations

import functools
import platform
import sys
from dataclasses import dataclass, field

LIBM = {
    name: name
    for name in ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "sinh", "cosh", "tanh",
                 "cbrt", "hypot", "erf", "pow")
} | {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2", "arcsinh": "asinh", "arccosh": "acosh",
    "arctanh": "atanh",
}  # fmt: skip

# What glibc's libmvec has for 4 doubles or 8 floats in 32-byte registers, to 4 ulp (glibc manual, 19.7).
LIBMVEC = ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "sinh", "cosh", "tanh", "cbrt",
           "hypot", "erf", "pow", "arcsin", "arccos", "arctan", "arctan2", "arcsinh", "arccosh", "arctanh")  # fmt: skip
TWO_ARGUMENTS = ("hypot", "pow", "arctan2")
VECTOR_BYTES = 32  # of the registers that libmvec's _ZGVdN functions take


@dataclass(frozen=True)
class Target:
    """A machine to print for: the width of vector loops by dtype, and its mathematical functions."""

    name: str
    lanes: dict = field(default_factory=lambda: {"float64": 1, "float32": 1})
    vector_functions: tuple = ()  # those that libmvec has
    prefix: str = ""  # of the scalar functions: "__nv_" for CUDA's libdevice
    has_blas: bool = True  # whether code can call NumPy's; else matrices.py stands in

    def symbol(self, function, dtype, lanes):
        """The symbol of a mathematical function for vectors of `lanes`, or None."""
        single = "f" if dtype == "float32" else ""
        if lanes == 1:
            return self.prefix + LIBM[function] + single
        if function in self.vector_functions and lanes * (4 if single else 8) == VECTOR_BYTES:
            return f"_ZGVdN{lanes}{'vv' if function in TWO_ARGUMENTS else 'v'}_{LIBM[function]}{single}"
        return None


@functools.cache
def cpu_target():
    """The machine we are on, with glibc's vector functions where they are."""
    lanes = {"float64": 4, "float32": 8} if _has_avx2() else {"float64": 2, "float32": 4}
    return Target("cpu", lanes, LIBMVEC if _has_avx2() and has_libmvec() else ())


CUDA = Target("cuda", prefix="__nv_", has_blas=False)  # NVIDIA's libdevice has every function of LIBM under its own name


def _has_avx2():
    import llvmlite.binding as llvm

    return platform.machine() in ("x86_64", "AMD64") and bool(llvm.get_host_cpu_features().get("avx2"))


@functools.cache
def has_libmvec():
    """Whether glibc's vector library has all the functions above (2.35 and later); loads it into the process."""
    import llvmlite.binding as llvm

    if not sys.platform.startswith("linux"):
        return False
    try:
        llvm.load_library_permanently("libmvec.so.1")
    except RuntimeError:
        return False
    return llvm.address_of_symbol("_ZGVdN4v_tanh") is not None
