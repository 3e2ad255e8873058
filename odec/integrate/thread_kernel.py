"""One member a thread: what surrounds the loop on a GPU, as LLVM IR, as PTX and as readable Python.

The loop is the CPU's (loop.py). What it works on lies in a block of the thread's own memory. Steps between two that
ask for attention run in a loop of their own, whose states and stages are registers; what steps of all members share
is constant memory.
"""

from __future__ import annotations

import ast
import functools
import inspect
from dataclasses import dataclass, replace
from types import FunctionType
from typing import NamedTuple

import numpy as np

from odec.codegen import cuda, machine
from odec.codegen.kernel import Kernel, work_for
from odec.codegen.lower import lower
from odec.codegen.machine import call_kernel, offset
from odec.codegen.print_llvm import TYPES, print_llvm
from odec.codegen.print_python import print_python, with_callees
from odec.codegen.targets import CUDA
from odec.integrate import slots as at
from odec.integrate.compiled import PLAIN, WIDE, loop_signature, loop_text
from odec.integrate.interpolate import copy
from odec.integrate.lanes import Kept, Lanes, Members
from odec.integrate.loop import integrate
from odec.integrate.slots import NEEDS_ROOM

NAME = "ensemble"
WITHOUT_PAUSE = 2**62  # steps


class Sizes(NamedTuple):
    """What is known when the kernel is made, for the slots of count and whole of the same names."""

    n: int
    m: int
    p_stride: int
    carried: int
    degree: int
    events: int
    exponent: int
    adaptive: int
    own_p: int
    own_parameters: int


class Asked(NamedTuple):
    """What a launch is asked for: members, in what they differ, rows, inner stops, room for a member's events."""

    size: int
    own_begin: int
    own_end: int
    own_state: int
    own_times: int
    rows: int
    inner: int
    room: int


# The kernel's buffers in the GPU's memory, with their dtypes; "" is the state's.
READ = {
    "first_watch": "int64", "begins": "float64", "ends": "float64", "states": "", "parameters": "", "times": "float64",
    "stops": "float64", "large_p": "",
}  # fmt: skip
WRITTEN = {
    "ys": "", "fired_t": "float64", "fired_e": "int64", "fired_m": "int64", "fired_y": "", "t_end": "float64",
    "y_end": "", "tally": "int64", "fired": "int64",
}  # fmt: skip


CONSTANT_BYTES = 48 * 1024  # of the 64 KiB of constant memory; parameters that need more stay in the GPU's memory
ATTEMPT = ("now", "task", "y", "p", "f0", "rtol", "atol", "rules", "then", "y_next", "f1", "k", "work")  # advance's
HOT = ("y", "y_next", "f0", "f1", "k")  # what a step works on, in registers
REGISTERS, WARP = 65_536, 32  # of a processor; registers are given out by 8, threads by 32
HOT_BYTES = 512  # of these and the parameters, beyond which a step has too few registers, so that they stay in memory


def until_attention(advance, n, carried, kept, now, task, y, p, f0, rtol, atol, rules, then, y_next, f1, k, work,
                    hot_y, hot_y_next, hot_f0, hot_f1, hot_k):  # fmt: skip
    """Steps up to one that asks for attention, as if it were the first. hot_* : buffers that nobody else sees."""
    copy(n, y, hot_y)
    copy(carried, f0, hot_f0)
    while True:
        call_kernel(advance, now, task, hot_y, p, hot_f0, rtol, atol, rules, then, hot_y_next, hot_f1, hot_k, work)
        if then[at.ATTENTION] > 0.0:
            break
        copy(at.NOWS, then, now)
        if then[at.ACCEPTED] > 0.0:
            copy(n, hot_y_next, hot_y)
            copy(carried, hot_f1, hot_f0)
    copy(n, hot_y, y)
    copy(n, hot_y_next, y_next)
    copy(carried, hot_f0, f0)
    copy(carried, hot_f1, f1)
    copy(kept, hot_k, k)
    return 0


def trajectory(member, sizes, asked, fired, kernels, values, rates, lanes, members, kept, whole):
    """Solve one member in buffers of its own; fired[member] : how many events it had.

    A member with more events than there is room for ends with the status NEEDS_ROOM.
    """
    count, room = lanes.count, asked.room
    for slot in range(at.COUNTS):
        count[slot] = 0
    for slot in range(at.WHOLES):
        whole[slot] = 0
    for slot in range(at.TASKS):
        lanes.task[slot] = 0.0
    count[at.N], count[at.M], count[at.P_STRIDE], count[at.CARRIED] = sizes.n, sizes.m, sizes.p_stride, sizes.carried
    count[at.DEGREE], count[at.EVENTS], count[at.EXPONENT] = sizes.degree, sizes.events, sizes.exponent
    whole[at.ADAPTIVE], whole[at.OWN_P], whole[at.OWN_PARAMETERS] = sizes.adaptive, sizes.own_p, sizes.own_parameters
    whole[at.OWN_BEGIN], whole[at.OWN_END], whole[at.OWN_STATE] = asked.own_begin, asked.own_end, asked.own_state
    whole[at.OWN_TIMES], whole[at.TIMES], whole[at.STOPS] = asked.own_times, asked.rows, asked.inner
    whole[at.SIZE], whole[at.IDLE], whole[at.MORE], whole[at.PAUSE] = member + 1, 1, 1, WITHOUT_PAUSE
    whole[at.FIRED_ROOM], members.queue[0] = room, member
    own = Kept(kept.ts, kept.ys, kept.marks, kept.segments, offset(kept.fired_t, member * room),
               offset(kept.fired_e, member * room), offset(kept.fired_m, member * room),
               offset(kept.fired_y, member * room * sizes.n), kept.t_end, kept.y_end, kept.tally)  # fmt: skip
    if integrate(kernels, values, rates, lanes, members, own, whole) == NEEDS_ROOM:
        kept.tally[member * at.TALLIES + at.ENDED_AS] = NEEDS_ROOM
    fired[member] = whole[at.ALL_FIRED]
    return 0


@dataclass(frozen=True, eq=False)
class ThreadKernel:
    """The kernel of an ensemble, and what it is made of.

    title : of what, for readers; dtype : of the states; kept : stages that the dense output needs
    kernels : by name rhs, advance, dense, and with events: events, rates, reset0, ...
    resets : for each event whether it has one; columns : the places of the members' own parameters
    """

    name = NAME

    title: str
    dtype: str
    sizes: Sizes
    kept: int
    kernels: dict[str, Kernel]
    resets: tuple[bool, ...]
    columns: tuple[int, ...]

    @functools.cached_property
    def local(self):
        """{name: (numbers, dtype)} of the buffers of a thread."""
        s, state = self.sizes, self.dtype
        work = work_for([k for kernel in self.kernels.values() for k in with_callees(kernel)], state)
        found = {
            "now": (at.NOWS, "float64"), "then": (at.NOWS, "float64"), "task": (at.TASKS, "float64"),
            "y": (s.n, state), "y_next": (s.n, state), "f0": (s.carried, state), "f1": (s.carried, state),
            "k": (self.kept * s.n, state), "q": (s.degree * s.n, state), "work": (work, state),
            "own_p": (s.m * s.own_p, state), "real": (at.REALS, "float64"), "count": (at.COUNTS, "int64"),
            "watch": (s.events * at.WATCHED, "int64"), "g": (5 * s.events, state), "roots": (s.events, "float64"),
            "trial": (s.n + s.m if s.events else s.n * s.adaptive, state), "queue": (1, "int64"),
            "whole": (at.WHOLES, "int64"),
        }  # fmt: skip
        return {name: place for name, place in found.items() if place[0]}

    @property
    def local_bytes(self):
        """Bytes of a thread's own memory, beside its registers."""
        return self._block_bytes + (0 if self._in_registers else self._hot_bytes)

    @property
    def _block_bytes(self):
        return sum(_aligned(*place) for place in self.local.values())

    @property
    def _hot_bytes(self):
        return sum(_aligned(*self.local[name]) for name in HOT if name in self.local)

    @property
    def _in_registers(self):
        return self._hot_bytes + _aligned(self.sizes.m, self.dtype) <= HOT_BYTES

    @functools.cached_property
    def shared(self):
        """{name: (numbers, dtype)} of what lies in constant memory."""
        s, state = self.sizes, self.dtype
        tolerance = s.n * s.adaptive
        found = {"rules": (at.RULES, "float64"), "rtol": (tolerance, state), "atol": (tolerance, state),
                 "p": (s.m, state)}  # fmt: skip
        if sum(_aligned(*place) for place in found.values()) > CONSTANT_BYTES:
            del found["p"]
        return {name: place for name, place in found.items() if place[0]}

    def where(self, group):
        """For each field of Lanes, Members or Kept the name of its buffer, None where there is none."""
        names = {f: f for f in group._fields if f in (*self.local, *self.shared, *READ, *WRITTEN)}
        p = "p" if "p" in self.shared else "large_p"
        own = "own_p" if self.sizes.own_p else p
        special = {Lanes: {"p": own, "own_p": own}, Members: {"watch": "first_watch", "columns": "COLUMNS", "p": p}}
        return {f: special.get(group, {}).get(f, names.get(f)) for f in group._fields}

    # ---- machine code

    def llvm(self):
        """LLVM IR of the kernel in modules: its kernels, the loops, and `one_member(member, arguments)`."""
        kernels = print_llvm(list(self.kernels.values()), CUDA)
        return [kernels, _loop_ir(self.dtype, bool(self.resets)), _hot_ir(self.dtype), self._glue()]

    def ptx(self, cc):
        """The kernel as PTX for GPUs of compute capability `cc` and later."""
        visible = [NAME, *(f"shared_{name}" for name in self.shared)]
        return cuda.ptx([*self.llvm(), _entry()], cc, visible, inline=True, unroll=self._in_registers)

    def resources(self, cc):
        """What a thread of the kernel takes, as ptxas reports it."""
        return cuda.resources(self.ptx(cc), cc)[NAME]

    def report(self, cc):
        """What a thread takes and how many a processor holds, in words; needs ptxas."""
        r = self.resources(cc)
        threads = REGISTERS // (-(-r.registers // 8) * 8) // WARP * WARP
        spilled = r.spill_store_bytes + r.spill_load_bytes
        return (
            f"{self.title}, {cuda.architecture(cc)}: {r.registers} registers, {r.stack_bytes} bytes of local memory, "
            f"{spilled} bytes spilled; {threads} threads at most on a processor"
        )

    def _glue(self):
        named = ("rhs", *(name for name in self.kernels if name != "rhs"))
        resets = [_address(f"reset{i}") if there else "0" for i, there in enumerate(self.resets)]
        constant = (f"@shared_{name} = addrspace(4) externally_initialized global "
                    f"[{size} x {TYPES[dtype]}] zeroinitializer, align 16"
                    for name, (size, dtype) in self.shared.items())  # fmt: skip
        return "\n".join([
            _table("COLUMNS", map(str, self.columns or (0,))), _table("RESETS", resets or ["0"]), *constant,
            *(f"declare void @{name}({', '.join(['ptr'] * (len(self.kernels[name].arguments) + 1))})"
              for name in named),
            "declare void @llvm.assume(i1)", self._hot(), self._one_member(),
        ])  # fmt: skip

    def _hot(self):
        """LLVM IR of `steps`, in place of `advance`: with buffers in registers, and what all share from constant
        memory. The empty assembly keeps what is used only between such stretches out of the registers."""
        s, local = self.sizes, self.local
        hot = {f"hot.{name}": local[name] for name in HOT if name in local}
        here = {name: self._shared(name) if name in self.shared else f"%{name}" for name in ATTEMPT}
        if s.own_p or "p" not in self.shared:
            here["p"] = "%p"
        values = [f"i64 {_address('attempt')}", f"i64 {s.n}", f"i64 {s.carried}", f"i64 {self.kept * s.n}",
                  *(f"ptr {here[name]}" for name in ATTEMPT),
                  *(f"ptr %hot.{name}" if name in local else "ptr null" for name in HOT)]  # fmt: skip
        arguments = ", ".join(f"ptr %{name}" for name in ATTEMPT)
        return "\n".join([
            f"define void @attempt({arguments}) {{", BARRIER, f"  call void @advance({arguments})", "  ret void", "}",
            f"declare void @until_attention({_kinds(values)})", f"define void @steps({arguments}) {{",
            *_allocas(hot), BARRIER, f"  call void @until_attention({', '.join(values)})", BARRIER, "  ret void", "}",
        ])  # fmt: skip

    def _one_member(self):
        values = ["i64 %member", *(f"i64 {size}" for size in self.sizes), *(f"i64 %{f}" for f in Asked._fields),
                  "ptr %fired", *(f"i64 {_address(name)}" for name in ("steps", "rhs", "dense")),
                  "ptr @RESETS" if self.resets else "ptr null"]  # fmt: skip
        values += [f"i64 {_address(name)}" if self.resets else "ptr null" for name in ("events", "rates")]
        for group in (Lanes, Members, Kept):
            values += [f"ptr {self._shared(name) if name in self.shared else _pointer(name)}"
                       for name in self.where(group).values()]  # fmt: skip
        values.append("ptr %whole")
        return "\n".join([
            f"declare void @trajectory({_kinds(values)})", f"define void @one_member(i64 %member, {_declared()}) {{",
            f"  %block = alloca [{self._block_bytes} x i8], align 16", *self._places(),
            '  call void asm sideeffect "", "l,~{memory}"(ptr %block)',
            "  %never_every_step = icmp sge i64 %rows, 0", "  call void @llvm.assume(i1 %never_every_step)",
            f"  call void @trajectory({', '.join(values)})", "  ret void", "}", "",
        ])  # fmt: skip

    def _places(self):
        """LLVM IR of where a thread's buffers lie in its block."""
        place = 0
        for name, (size, dtype) in self.local.items():
            yield f"  %{name} = getelementptr inbounds i8, ptr %block, i64 {place}"
            place += _aligned(size, dtype)

    def _shared(self, name):
        return f"addrspacecast (ptr addrspace(4) @shared_{name} to ptr)"

    # ---- readable Python

    def python(self):
        """The kernel as Python that Numba's CUDA simulator runs: the kernels, the loop, and what a thread does."""
        kernels = {k.name: k for kernel in self.kernels.values() for k in with_callees(kernel)}
        tables = [
            f"{name} = np.array({a.tolist()}, np.{a.dtype})" for k in kernels.values() for name, a in k.tables.items()
        ]
        parts = [
            f'"""{self.title}."""',
            _head(),
            *tables,
            *(print_python(replace(k, callees=())) for k in kernels.values()),
        ]
        parts += [_loop_source(), self._thread_source()]
        return "\n\n".join(parts)

    def _thread_source(self):
        arguments = ", ".join((*Asked._fields, *self.shared, *READ, *WRITTEN))
        resets = ", ".join(f"reset{i}" if there else "None" for i, there in enumerate(self.resets))
        groups = [
            f"{group.__name__}({', '.join(f'{f}={name}' for f, name in self.where(group).items())})"
            for group in (Lanes, Members, Kept)
        ]
        sizes = ", ".join(f"{f}={v}" for f, v in self.sizes._asdict().items())
        values, s = "events, rates" if self.resets else "None, None", self.sizes
        hot = {name: self.local[name] for name in HOT if name in self.local}
        hots = ", ".join(f"hot_{name}" if name in hot else "None" for name in HOT)
        return "\n".join([
            f"COLUMNS = np.array({list(self.columns)}, np.int64)", f"RESETS = [{resets}]", "", "", "@cuda.jit",
            f"def {NAME}({arguments}):", "    member = cuda.grid(1)", "    if member < size:",
            *(f"        {name} = cuda.local.array({size}, np.{dtype})" for name, (size, dtype) in self.local.items()),
            *(f"        hot_{name} = cuda.local.array({size}, np.{dtype})" for name, (size, dtype) in hot.items()),
            "", f"        def steps({', '.join(ATTEMPT)}):",
            f"            until_attention(advance, {s.n}, {s.carried}, {self.kept * s.n}, {', '.join(ATTEMPT)},",
            f"                            {hots})",
            "", f"        sizes = Sizes({sizes})", f"        asked = Asked({', '.join(Asked._fields)})",
            "        kernels = Kernels(steps, rhs, dense, RESETS)",
            *(f"        {name} = {text}" for name, text in zip(("lanes", "members", "kept"), groups, strict=True)),
            f"        trajectory(member, sizes, asked, fired, kernels, {values}, lanes, members, kept, whole)", "",
        ])  # fmt: skip


# ---- LLVM IR


BARRIER = '  call void asm sideeffect "", "~{memory}"()'


@functools.cache
def _loop_ir(dtype, with_events):
    """LLVM IR of `trajectory` and of the loop it calls."""
    integrated, parts = loop_text(1, copies=True)
    function = FunctionType(trajectory.__code__, {**globals(), "integrate": integrated}, "trajectory")
    signature = ("int", (Sizes, *["int"] * len(Sizes._fields)), (Asked, *["int"] * len(Asked._fields)), "int64*",
                 *loop_signature(dtype, with_events))  # fmt: skip
    return cuda.translated_by_numba("trajectory", function, signature, (*parts, integrated))


@functools.cache
def _hot_ir(dtype):
    """LLVM IR of `until_attention`."""
    numbers = ("now", "task", "rules", "then")
    kinds = ["float64*" if name in numbers else f"{dtype}*" for name in (*ATTEMPT, *HOT)]
    return cuda.translated_by_numba("until_attention", until_attention, (*["int"] * 4, *kinds), (copy,))


def _entry():
    """LLVM IR of the kernel itself: a thread finds its member."""
    registers = ("tid", "ctaid", "ntid")
    values = ["i64 %member", *(f"i64 %{f}" for f in Asked._fields), *(f"ptr %{name}" for name in READ | WRITTEN)]
    return "\n".join([
        *(f"declare i32 @llvm.nvvm.read.ptx.sreg.{r}.x()" for r in registers),
        f"declare void @one_member({_kinds(values)})", f"define void @{NAME}({_declared()}) {{", "entry:",
        *(f"  %{r} = call i32 @llvm.nvvm.read.ptx.sreg.{r}.x()" for r in registers),
        *(f"  %{r}.wide = zext i32 %{r} to i64" for r in registers),
        "  %before = mul nuw nsw i64 %ctaid.wide, %ntid.wide", "  %member = add nuw nsw i64 %before, %tid.wide",
        "  %there = icmp slt i64 %member, %size", "  br i1 %there, label %solve, label %done", "solve:",
        f"  call void @one_member({', '.join(values)})", "  br label %done", "done:", "  ret void", "}", "",
    ])  # fmt: skip


def _declared():
    """The kernel's arguments as LLVM declares them."""
    numbers = [f"i64 %{f}" for f in Asked._fields]
    read = [f"ptr noalias readonly align 16 %{name}" for name in READ]
    return ", ".join([*numbers, *read, *(f"ptr noalias align 16 %{name}" for name in WRITTEN)])


def _kinds(values):
    return ", ".join(value.split()[0] for value in values)


def _allocas(buffers):
    return [f"  %{name} = alloca [{size} x {TYPES[dtype]}], align 16" for name, (size, dtype) in buffers.items()]


def _address(kernel):
    return f"ptrtoint (ptr @{kernel} to i64)"


def _pointer(name):
    """A buffer as LLVM names it."""
    return "null" if name is None else f"{'@' if name.isupper() else '%'}{name}"


def _table(name, items):
    items = [f"i64 {item}" for item in items]
    return f"@{name} = private unnamed_addr constant [{len(items)} x i64] [{', '.join(items)}]"


def _aligned(size, dtype):
    """Bytes of a buffer, so that the next one starts at a multiple of 16."""
    return -(-size * np.dtype(dtype).itemsize // 16) * 16


# ---- Python


def _head():
    """What the Python text imports, and how its loop calls kernels: some take no workspace."""
    call = "def call_kernel(kernel, *buffers):\n    kernel(*buffers[: kernel.__code__.co_argcount])"
    return "\n".join([
        "import numpy as np", "from numba import cuda", "",
        "from odec.codegen.print_python import det, gemm, gesv, np_erf as erf, np_rough_exp2 as rough_exp2",
        "from odec.codegen.print_python import np_rough_log2 as rough_log2, np_sigmoid as sigmoid",
        "from odec.codegen.print_python import np_softplus as softplus", "from odec.integrate.slots import NEEDS_ROOM",
        *dict.fromkeys(line for module in LOOP for line in _imports(module)), "", "", call, "", "",
        inspect.getsource(machine.offset), "", inspect.getsource(machine.take),
    ])  # fmt: skip


LOOP = (*PLAIN, *WIDE)


def _loop_source():
    """The loop as it stands in its files, for threads of their own."""
    texts = [_without_imports(module) for module in LOOP]
    texts += [inspect.getsource(part) for part in (Sizes, Asked)]
    texts += [f"WITHOUT_PAUSE = {WITHOUT_PAUSE}", inspect.getsource(until_attention), inspect.getsource(trajectory)]
    return "\n\n".join(texts).replace("COPIES = False", "COPIES = True")


def _without_imports(module):
    """A module's text without its docstring and its imports."""
    source = inspect.getsource(module)
    nodes, left_out = ast.parse(source).body, set()
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)) or node is nodes[0]:
            left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(source.splitlines(), 1)
    return "\n".join(line for number, line in lines if number not in left_out).strip() + "\n"


def _imports(module):
    """The imports of a module of what is not printed here."""
    printed = ("__future__", machine.__name__, *(m.__name__ for m in LOOP))
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module not in printed):
            yield ast.unparse(node)


def thread_kernel(system, method, columns=(), own_p=False, events=None):
    """The ThreadKernel of a system and a method.

    columns : places in the flat parameters in which members differ; own_p : whether they differ in any
    events : EventKernels or None
    """
    lowered = {
        name: lower(system.derivative(name, **how), name)
        for name, how in (("rhs", {}), ("advance", {"method": method, "commits": False}), ("dense", {"method": method}))
    }
    resets = ()
    if events is not None:
        resets = tuple(reset is not None for reset in events.resets)
        lowered |= {k.name: k for k in events.values.made_of() if k.name != "rhs"}
    n, m = system.y_structure.size, system.p_structure.size
    own = bool(own_p or any(resets))
    sizes = Sizes(
        n, m, m if own else 0, n if method.carries_slope else 0, method.degree, len(resets), method.error_exponent,
        int(method.adaptive), int(own), len(columns),
    )  # fmt: skip
    title = f"{system.name} by {method.name}: one member a thread"
    return ThreadKernel(title, system.graph.inputs["y"].dtype, sizes, len(method.kept), lowered, resets, tuple(columns))
