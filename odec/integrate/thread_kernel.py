"""One member a thread: what surrounds the loop on a GPU, as LLVM IR, as PTX and as readable Python.

The loop is the CPU's (loop.py). What it works on lies in a block of the thread's own memory. Steps between two that
ask for attention run in a loop of their own, whose states and stages are registers; what steps of all members share
is constant memory.
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
from odec.codegen.machine import call_kernel, offset
from odec.codegen.print_llvm import TYPES, print_llvm
from odec.codegen.print_python import with_callees
from odec.codegen.targets import CUDA
from odec.integrate import slots as at
from odec.integrate.compiled import PLAIN, WIDE, loop_signature, loop_text
from odec.integrate.interpolate import copy
from odec.integrate.lanes import Kept, Lanes, Members
from odec.integrate.loop import integrate
from odec.integrate.roots import SAMPLES
from odec.integrate.slots import NEEDS_ROOM
from odec.integrate.thread_ir import (
    BARRIER,
    Launch,
    address_of,
    aligned,
    allocas,
    block,
    block_bytes,
    declared,
    kinds,
    pointer,
    table,
)
from odec.integrate.thread_text import filled, head, kernels_source, thread_head, without_imports

NAME = "ensemble"
WITHOUT_PAUSE = 2**62  # steps


class Sizes(NamedTuple):
    """What is known when the kernel is made, for the slots of count and whole of the same names."""

    n: int
    m: int
    p_stride: int
    carried: int
    slopes: int
    degree: int
    events: int
    exponent: int
    adaptive: int
    own_p: int
    own_parameters: int
    records: int


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
STARTS = {"starts": "int64"}  # of a kernel that records: where the record of each member starts, and the last one ends
RECORDED = {"marks": "float64", "segments": ""}

CONSTANT_BYTES = 48 * 1024  # of the 64 KiB of constant memory; parameters that need more stay in the GPU's memory
ATTEMPT = ("now", "task", "y", "p", "f0", "rtol", "atol", "rules", "then", "y_next", "f1", "k", "work")  # advance's
HOT = ("y", "y_next", "f0", "f1", "k")  # what a step works on, in registers
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


def trajectory(member, sizes, asked, fired, starts, kernels, values, rates, lanes, members, kept, whole):
    """Solve one member in buffers of its own; fired[member] : how many events it had.

    starts : where the record of each member starts, where accepted steps are recorded
    A member with more events, or steps to record, than there is room for ends with the status NEEDS_ROOM.
    """
    count, room = lanes.count, asked.room
    for slot in range(at.COUNTS):
        count[slot] = 0
    for slot in range(at.WHOLES):
        whole[slot] = 0
    for slot in range(at.TASKS):
        lanes.task[slot] = 0.0
    count[at.N], count[at.M], count[at.P_STRIDE], count[at.CARRIED] = sizes.n, sizes.m, sizes.p_stride, sizes.carried
    count[at.SLOPES], count[at.DEGREE], count[at.EVENTS] = sizes.slopes, sizes.degree, sizes.events
    count[at.EXPONENT] = sizes.exponent
    whole[at.ADAPTIVE], whole[at.OWN_P], whole[at.OWN_PARAMETERS] = sizes.adaptive, sizes.own_p, sizes.own_parameters
    whole[at.OWN_BEGIN], whole[at.OWN_END], whole[at.OWN_STATE] = asked.own_begin, asked.own_end, asked.own_state
    whole[at.OWN_TIMES], whole[at.TIMES], whole[at.STOPS] = asked.own_times, asked.rows, asked.inner
    whole[at.SIZE], whole[at.IDLE], whole[at.MORE], whole[at.PAUSE] = member + 1, 1, 1, WITHOUT_PAUSE
    whole[at.FIRED_ROOM], members.queue[0] = room, member
    marks, segments = kept.marks, kept.segments
    if sizes.records == 1:
        whole[at.RECORDS], whole[at.SEGMENT_ROOM] = at.EACH_ROUND, starts[member + 1] - starts[member]
        marks, segments = offset(marks, starts[member] * at.ROUND_MARKS), offset(segments, starts[member] * sizes.n)
    own = Kept(kept.ts, kept.ys, marks, segments, offset(kept.fired_t, member * room),
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

    @property
    def records(self):
        """Whether accepted steps are recorded, by a loop that takes them one by one."""
        return self.sizes.records == 1

    @property
    def launch(self):
        """What the kernel is launched with."""
        read, written = (STARTS, RECORDED) if self.records else ({}, {})
        return Launch(NAME, Asked._fields, READ | read, WRITTEN | written)

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
            "places": (SAMPLES if s.events else 0, "float64"),
            "trial": (s.n + s.m if s.events else s.n * s.adaptive, state), "queue": (1, "int64"),
            "whole": (at.WHOLES, "int64"),
        }  # fmt: skip
        return {name: place for name, place in found.items() if place[0]}

    @property
    def local_bytes(self):
        """Bytes of a thread's own memory, beside its registers."""
        return block_bytes(self.local) + (0 if self._in_registers or self.records else block_bytes(self._hot_local))

    @property
    def _hot_local(self):
        return {name: self.local[name] for name in HOT if name in self.local}

    @property
    def _in_registers(self):
        return block_bytes(self._hot_local) + aligned(self.sizes.m, self.dtype) <= HOT_BYTES

    @functools.cached_property
    def shared(self):
        """{name: (numbers, dtype)} of what lies in constant memory."""
        s, state = self.sizes, self.dtype
        tolerance = s.n * s.adaptive
        found = {"rules": (at.RULES, "float64"), "rtol": (tolerance, state), "atol": (tolerance, state),
                 "p": (s.m, state)}  # fmt: skip
        if block_bytes(found) > CONSTANT_BYTES:
            del found["p"]
        return {name: place for name, place in found.items() if place[0]}

    def where(self, group):
        """For each field of Lanes, Members or Kept the name of its buffer, None where there is none."""
        names = {f: f for f in group._fields if f in (*self.local, *self.shared, *self.launch.arguments)}
        p = "p" if "p" in self.shared else "large_p"
        own = "own_p" if self.sizes.own_p else p
        special = {Lanes: {"p": own, "own_p": own}, Members: {"watch": "first_watch", "columns": "COLUMNS", "p": p}}
        return {f: special.get(group, {}).get(f, names.get(f)) for f in group._fields}

    # ---- machine code

    def llvm(self):
        """LLVM IR of the kernel in modules: its kernels, the loops, and `one_member(member, arguments)`."""
        kernels = print_llvm(list(self.kernels.values()), CUDA)
        loop = _loop_ir(self.dtype, bool(self.resets))
        return [kernels, loop, *(() if self.records else (_hot_ir(self.dtype),)), self._glue()]

    def ptx(self, cc):
        """The kernel as PTX for GPUs of compute capability `cc` and later."""
        visible = [NAME, *(f"shared_{name}" for name in self.shared)]
        return cuda.ptx([*self.llvm(), self.launch.entry()], cc, visible, inline=True, unroll=self._in_registers)

    def resources(self, cc):
        """What a thread of the kernel takes, as ptxas reports it."""
        return cuda.resources(self.ptx(cc), cc)[NAME]

    def _glue(self):
        named = {name: self.kernels[name] for name in ("rhs", *(name for name in self.kernels if name != "rhs"))}
        resets = [address_of(f"reset{i}") if there else "0" for i, there in enumerate(self.resets)]
        constant = (f"@shared_{name} = addrspace(4) externally_initialized global "
                    f"[{size} x {TYPES[dtype]}] zeroinitializer, align 16"
                    for name, (size, dtype) in self.shared.items())  # fmt: skip
        return "\n".join([
            table("COLUMNS", map(str, self.columns or (0,))), table("RESETS", resets or ["0"]), *constant,
            *declared(named), "declare void @llvm.assume(i1)", *(() if self.records else (self._hot(),)),
            self._one_member(),
        ])  # fmt: skip

    def _hot(self):
        """LLVM IR of `steps`, in place of `advance`: with buffers in registers, and what all share from constant
        memory. The empty assembly keeps what is used only between such stretches out of the registers."""
        s, local = self.sizes, self.local
        here = {name: self._shared(name) if name in self.shared else f"%{name}" for name in ATTEMPT}
        if s.own_p or "p" not in self.shared:
            here["p"] = "%p"
        values = [f"i64 {address_of('attempt')}", f"i64 {s.n}", f"i64 {s.carried}", f"i64 {self.kept * s.n}",
                  *(f"ptr {here[name]}" for name in ATTEMPT),
                  *(f"ptr %hot.{name}" if name in local else "ptr null" for name in HOT)]  # fmt: skip
        arguments = ", ".join(f"ptr %{name}" for name in ATTEMPT)
        return "\n".join([
            f"define void @attempt({arguments}) {{", BARRIER, f"  call void @advance({arguments})", "  ret void", "}",
            f"declare void @until_attention({kinds(values)})", f"define void @steps({arguments}) {{",
            *allocas({f"hot.{name}": place for name, place in self._hot_local.items()}), BARRIER,
            f"  call void @until_attention({', '.join(values)})", BARRIER, "  ret void", "}",
        ])  # fmt: skip

    def _one_member(self):
        values = ["i64 %member", *(f"i64 {size}" for size in self.sizes), *(f"i64 %{f}" for f in Asked._fields),
                  "ptr %fired", "ptr %starts" if self.records else "ptr null",
                  *(f"i64 {address_of(name)}" for name in (self._attempts, "rhs", "dense")),
                  "ptr @RESETS" if self.resets else "ptr null", "ptr null"]  # fmt: skip
        values += [f"i64 {address_of(name)}" if self.resets else "ptr null" for name in ("events", "rates")]
        for group in (Lanes, Members, Kept):
            values += [f"ptr {self._shared(name) if name in self.shared else pointer(name)}"
                       for name in self.where(group).values()]  # fmt: skip
        values.append("ptr %whole")
        return "\n".join([
            f"declare void @trajectory({kinds(values)})",
            f"define void @one_member(i64 %member, {self.launch.declared}) {{", *block(self.local),
            "  %never_every_step = icmp sge i64 %rows, 0", "  call void @llvm.assume(i1 %never_every_step)",
            f"  call void @trajectory({', '.join(values)})", "  ret void", "}", "",
        ])  # fmt: skip

    @property
    def _attempts(self):
        """What the loop calls for its tries: one, or all up to one that asks for attention."""
        return "advance" if self.records else "steps"

    def _shared(self, name):
        return f"addrspacecast (ptr addrspace(4) @shared_{name} to ptr)"

    # ---- readable Python

    def python(self):
        """The kernel as Python that Numba's CUDA simulator runs: the kernels, the loop, and what a thread does."""
        needed = "from odec.integrate.slots import NEEDS_ROOM"
        parts = [
            head(self.title, LOOP, needed),
            kernels_source(self.kernels.values()),
            _loop_source(),
            self._thread_source(),
        ]
        return "\n\n".join(parts)

    def _thread_source(self):
        resets = ", ".join(f"reset{i}" if there else "None" for i, there in enumerate(self.resets))
        groups = (filled(group, self.where(group)) for group in (Lanes, Members, Kept))
        values, s = "events, rates" if self.resets else "None, None", self.sizes
        hot, starts = self._hot_local, "starts" if self.records else "None"
        hots = ", ".join(f"hot_{name}" if name in hot else "None" for name in HOT)
        buffers = self.local | {f"hot_{name}": place for name, place in hot.items()}
        return "\n".join([
            f"COLUMNS = np.array({list(self.columns)}, np.int64)", f"RESETS = [{resets}]", "", "",
            *thread_head(self.launch, buffers, self.shared),
            f"        def steps({', '.join(ATTEMPT)}):",
            f"            until_attention(advance, {s.n}, {s.carried}, {self.kept * s.n}, {', '.join(ATTEMPT)},",
            f"                            {hots})",
            "", f"        sizes = {filled(Sizes, s._asdict())}", f"        asked = Asked({', '.join(Asked._fields)})",
            f"        kernels = Kernels({self._attempts}, rhs, dense, RESETS, None)",
            *(f"        {name} = {text}" for name, text in zip(("lanes", "members", "kept"), groups, strict=True)),
            f"        trajectory(member, sizes, asked, fired, {starts}, kernels, {values}, lanes, members, kept,",
            "                   whole)", "",
        ])  # fmt: skip


# ---- LLVM IR


@functools.cache
def _loop_ir(dtype, with_events):
    """LLVM IR of `trajectory` and of the loop it calls."""
    integrated, parts = loop_text(1, copies=True)
    function = FunctionType(trajectory.__code__, {**globals(), "integrate": integrated}, "trajectory")
    signature = ("int", (Sizes, *["int"] * len(Sizes._fields)), (Asked, *["int"] * len(Asked._fields)), "int64*",
                 "int64*", *loop_signature(dtype, with_events, with_series=False))  # fmt: skip
    return cuda.translated_by_numba("trajectory", function, signature, (*parts, integrated))


@functools.cache
def _hot_ir(dtype):
    """LLVM IR of `until_attention`."""
    numbers = ("now", "task", "rules", "then")
    kinds = ["float64*" if name in numbers else f"{dtype}*" for name in (*ATTEMPT, *HOT)]
    return cuda.translated_by_numba("until_attention", until_attention, (*["int"] * 4, *kinds), (copy,))


LOOP = (*PLAIN, *WIDE)


def _loop_source():
    """The loop as it stands in its files, for threads of their own."""
    texts = [without_imports(module) for module in LOOP]
    texts += [inspect.getsource(part) for part in (Sizes, Asked)]
    texts += [f"WITHOUT_PAUSE = {WITHOUT_PAUSE}", inspect.getsource(until_attention), inspect.getsource(trajectory)]
    return "\n\n".join(texts).replace("COPIES = False", "COPIES = True")


def thread_kernel(system, method, columns=(), own_p=False, events=None, records=False):
    """The ThreadKernel of a system and a method.

    columns : places in the flat parameters in which members differ; own_p : whether they differ in any
    events : EventKernels or None; records : whether accepted steps are recorded
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
        n, m, m if own else 0, n if method.carries else 0, int(method.carries_slope), method.degree, len(resets),
        method.error_exponent, int(method.adaptive), int(own), len(columns), int(records),
    )  # fmt: skip
    title = f"{system.name} by {method.name}: one member a thread"
    return ThreadKernel(title, system.graph.inputs["y"].dtype, sizes, len(method.kept), lowered, resets, tuple(columns))
