"""One member a thread: what surrounds the loop that goes back over recorded steps, as LLVM IR, as PTX and as Python.

The loop is the CPU's (rounds.py) with one lane. What it works on lies in a block of the thread's own memory.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from types import FunctionType
from typing import NamedTuple

from odec.codegen import cuda
from odec.codegen.kernel import Kernel, work_for
from odec.codegen.lower import lower
from odec.codegen.print_llvm import print_llvm
from odec.codegen.print_python import with_callees
from odec.codegen.targets import CUDA
from odec.gradients import rounds as at
from odec.gradients.members import loop_back_signature, loop_back_text
from odec.gradients.rounds import Pulls, Tape, pull_rounds
from odec.integrate import thread_ir
from odec.integrate.slots import TALLIES, TOOK
from odec.integrate.thread_ir import Launch, address_of, block, block_bytes, declared, pointer, table
from odec.integrate.thread_text import filled, head, kernels_source, thread_head, without_imports

NAME = "ensemble_vjp"


class Sizes(NamedTuple):
    """What is known when the kernel is made, for the slots of whole of the same names."""

    n: int
    m: int
    degree: int
    own_p: int
    own_parameters: int


class Asked(NamedTuple):
    """What a launch is asked for: members, rows, whether their times are the members' own, inner stops, and 1 or -1,
    where time runs forwards or backwards."""

    size: int
    rows: int
    own_times: int
    inner: int
    ahead: int


# The kernel's buffers in the GPU's memory, with their dtypes; "" is the state's.
READ = {
    "starts": "int64", "tally": "int64", "marks": "float64", "states": "", "t_end": "float64", "y_end": "",
    "parameters": "", "times": "float64", "stops": "float64", "rows_bar": "", "p": "",
}  # fmt: skip
WRITTEN = {"times_bar": "float64", "t0_bar": "float64", "t1_bar": "float64", "y0_bar": "", "p_sum": ""}


def pull_member(member, sizes, asked, starts, tally, kernels, tape, whole):
    """Go back over the record of one member, in buffers of its own.

    starts : where the record of each member starts; tally : how each of them ended
    """
    whole[at.N], whole[at.M], whole[at.DEGREE] = sizes.n, sizes.m, sizes.degree
    whole[at.OWN_P], whole[at.OWN_PARAMETERS] = sizes.own_p, sizes.own_parameters
    whole[at.ROWS], whole[at.OWN_TIMES], whole[at.STOPS] = asked.rows, asked.own_times, asked.inner
    whole[at.AHEAD], whole[at.FIRST] = asked.ahead, starts[member]
    whole[at.ROUNDS] = tally[member * TALLIES + TOOK]
    return pull_rounds(kernels, tape, whole)


@dataclass(frozen=True, eq=False)
class BackKernel:
    """The kernel that goes back over the steps of an ensemble, and what it is made of.

    title : of what, for readers; dtype : of the states; columns : the places of the members' own parameters
    kernels : by name plain, rhs, and `within` of members with rows, else `timed`
    """

    launch = Launch(NAME, Asked._fields, READ, WRITTEN)
    name = NAME

    title: str
    dtype: str
    sizes: Sizes
    kernels: dict[str, Kernel]
    columns: tuple[int, ...]

    @functools.cached_property
    def local(self):
        """{name: (numbers, dtype)} of the buffers of a thread."""
        s, state = self.sizes, self.dtype
        work = work_for([k for kernel in self.kernels.values() for k in with_callees(kernel)], state)
        found = {
            "own_p": (s.m * s.own_p, state), "held": (1, "float64"), "look": (1, "float64"), "t_sums": (1, "float64"),
            "t_next": (1, "float64"), "p_sums": (s.m, state), "p_next": (s.m, state), "y1_bar": (s.n, state),
            "y_bar": (s.n, state), "q": (s.degree * s.n, state), "q_bar": (s.degree * s.n, state),
            "h_bar": (1, "float64"), "real": (at.REALS, "float64"), "count": (at.COUNTS, "int64"),
            "slope": (s.n, state), "when": (1, "float64"), "work": (work, state), "whole": (at.WHOLES, "int64"),
        }  # fmt: skip
        return {name: place for name, place in found.items() if place[0]}

    @property
    def local_bytes(self):
        """Bytes of a thread's own memory, beside its registers."""
        return block_bytes(self.local)

    @property
    def where(self):
        """For each field of Tape the name of its buffer, None where there is none."""
        own = "own_p" if "own_p" in self.local else "p"
        special = {"p": own, "own_p": own, "shared_p": "p", "q_wide": "q", "columns": "COLUMNS"}
        there = *self.local, *READ, *WRITTEN, "COLUMNS"
        names = {f: special.get(f, f) for f in Tape._fields}
        return {f: name if name in there else None for f, name in names.items()}

    # ---- machine code

    def llvm(self):
        """LLVM IR of the kernel in modules: its kernels, the loop, and `one_member(member, arguments)`."""
        return [print_llvm(list(self.kernels.values()), CUDA), _loop_ir(self.dtype), self._glue()]

    def ptx(self, cc):
        """The kernel as PTX for GPUs of compute capability `cc` and later.

        The derivatives of a large model, which a step calls, stay functions: each is there once, not once a stage.
        """
        callees = (k.name for kernel in self.kernels.values() for k in with_callees(kernel))
        apart = tuple(sorted(set(callees) - set(self.kernels)))
        return cuda.ptx([*self.llvm(), self.launch.entry()], cc, [NAME], inline=True, unroll=False, apart=apart)

    def resources(self, cc):
        """What a thread of the kernel takes, as ptxas reports it."""
        return cuda.resources(self.ptx(cc), cc)[NAME]

    def _glue(self):
        kernels = (address_of(f) if f in self.kernels else "0" for f in Pulls._fields)
        values = ["i64 %member", *(f"i64 {size}" for size in self.sizes), *(f"i64 %{f}" for f in Asked._fields),
                  "ptr %starts", "ptr %tally", *(f"i64 {kernel}" for kernel in kernels),
                  *(f"ptr {pointer(name)}" for name in self.where.values()), "ptr %whole"]  # fmt: skip
        return "\n".join([
            table("COLUMNS", map(str, self.columns or (0,))), *declared(self.kernels),
            f"declare void @pull_member({thread_ir.kinds(values)})",
            f"define void @one_member(i64 %member, {self.launch.declared}) {{", *block(self.local),
            f"  call void @pull_member({', '.join(values)})", "  ret void", "}", "",
        ])  # fmt: skip

    # ---- readable Python

    def python(self):
        """The kernel as Python that Numba's CUDA simulator runs: the kernels, the loop, and what a thread does."""
        needed = "from odec.gradients import rounds as at", "from odec.integrate.slots import TALLIES, TOOK"
        parts = [
            head(self.title, (at,), *needed),
            kernels_source(self.kernels.values()),
            _loop_source(),
            self._thread_source(),
        ]
        return "\n\n".join(parts)

    def _thread_source(self):
        kernels = {f: f if f in self.kernels else None for f in Pulls._fields}
        return "\n".join([
            f"COLUMNS = np.array({list(self.columns)}, np.int64)", "", "", *thread_head(self.launch, self.local),
            f"        sizes = {filled(Sizes, self.sizes._asdict())}",
            f"        asked = Asked({', '.join(Asked._fields)})",
            f"        kernels = {filled(Pulls, kernels)}", f"        tape = {filled(Tape, self.where)}",
            "        pull_member(member, sizes, asked, starts, tally, kernels, tape, whole)", "",
        ])  # fmt: skip


def _loop_source():
    """The loop as it stands in its file, and what a thread does with it."""
    return "\n\n".join([without_imports(at), *map(inspect.getsource, (Sizes, Asked, pull_member))])


@functools.cache
def _loop_ir(dtype):
    """LLVM IR of `pull_member` and of the loop it calls."""
    pulled, parts = loop_back_text(1)
    function = FunctionType(pull_member.__code__, {**globals(), "pull_rounds": pulled}, "pull_member")
    sizes, asked = ((group, *["int"] * len(group._fields)) for group in (Sizes, Asked))
    signature = "int", sizes, asked, "int64*", "int64*", *loop_back_signature(dtype)
    return cuda.translated_by_numba("pull_member", function, signature, (*parts, pulled))


def back_kernel(system, method, columns, own_p, rows):
    """The BackKernel of a system and a method.

    columns : places in the flat parameters in which members differ; own_p : whether they differ in any
    rows : whether members have rows
    """
    asked = "within" if rows else "timed"
    of = lambda **how: system.derivative("lane_vjp", method=method, **how)
    functions = {"plain": of(), asked: of(rows=rows, timed=True), "rhs": system.derivative("rhs")}
    kernels = {name: lower(function, name) for name, function in functions.items()}
    n, m = system.y_structure.size, system.p_structure.size
    sizes = Sizes(n, m, method.degree if rows else 0, int(own_p), len(columns))
    title = f"{system.name} by {method.name}: back over one member a thread"
    return BackKernel(title, system.graph.inputs["y"].dtype, sizes, kernels, tuple(columns))
