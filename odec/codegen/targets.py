"""Where code runs: value types and the table of mathematical functions of each target."""

from __future__ import annotations

import functools
import platform
import sys
from dataclasses import dataclass, field

BYTES = {"float64": 8, "float32": 4}

LIBM = {
    name: name
    for name in ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "sinh", "cosh", "tanh",
                 "cbrt", "hypot", "erf", "pow")
} | {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2", "arcsinh": "asinh", "arccosh": "acosh",
    "arctanh": "atanh",
}  # fmt: skip

TWO_ARGUMENTS = ("hypot", "pow", "arctan2")

# Of x86, widest first: the feature that a CPU must have, the bytes of its vectors, the letter in the names of the
# functions that glibc's libmvec has for them, to 4 ulp (glibc manual, 19.7), and the trajectories in double
# precision that an ensemble takes side by side: two registers, for the additions of one hide behind the other's.
REGISTERS = (("avx512f", 64, "e", 8), ("avx2", 32, "d", 8), ("sse2", 16, "b", 4))


@dataclass(frozen=True)
class Target:
    """A machine to print for.

    lanes : the width of vector loops by dtype
    forms : (bytes, letter) of the vectors that libmvec's functions take, widest first
    prefix : of the scalar functions
    has_blas : whether code can call NumPy's BLAS; else matrices.py stands in
    inlines : whether vectors of doubles take the functions of inline_math.py
    """

    name: str
    lanes: dict = field(default_factory=lambda: {"float64": 1, "float32": 1})
    forms: tuple = ()
    prefix: str = ""
    has_blas: bool = True
    inlines: bool = False

    def width(self, dtype, lanes):
        """Lanes of the widest functions that take a vector of `lanes` in equal parts; 1 where none does."""
        widths = (size // BYTES[dtype] for size, _ in self.forms)
        return next((w for w in widths if lanes % w == 0), 1)

    def symbol(self, function, dtype, width):
        """The symbol of a mathematical function for vectors of a width that there is."""
        single = "f" if dtype == "float32" else ""
        if width == 1:
            return self.prefix + LIBM[function] + single
        letter = dict(self.forms)[width * BYTES[dtype]]
        return f"_ZGV{letter}N{width}{'vv' if function in TWO_ARGUMENTS else 'v'}_{LIBM[function]}{single}"


@functools.cache
def cpu_target():
    """The machine we are on, with glibc's vector functions where they are."""
    lanes = {"float64": 4, "float32": 8} if _has("avx2") else {"float64": 2, "float32": 4}
    forms = [(size, letter) for feature, size, letter, _ in REGISTERS if _has(feature)]
    return Target("cpu", lanes, tuple(forms) if has_libmvec() else (), inlines=True)


def best_lanes(dtype):
    """How many trajectories an ensemble takes side by side on this CPU: a power of two."""
    lanes = next((lanes for feature, _, _, lanes in REGISTERS if _has(feature)), 4)
    return lanes * BYTES["float64"] // BYTES[dtype]


# NVIDIA's libdevice has every function of LIBM under its own name.
CUDA = Target("cuda", prefix="__nv_", has_blas=False)


@functools.cache
def _has(feature):
    import llvmlite.binding as llvm

    return platform.machine() in ("x86_64", "AMD64") and bool(llvm.get_host_cpu_features().get(feature))


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
    return all(llvm.address_of_symbol(f"_ZGV{letter}N{size // 8}v_tanh") for _, size, letter, _ in REGISTERS)
