"""What a kernel of threads is launched with and works in, as LLVM IR: its arguments, a block of a thread's own memory,
the tables and kernels that its loop finds by address; and what it takes of a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from odec.codegen.cuda import architecture
from odec.codegen.print_llvm import TYPES

REGISTERS, WARP = 65_536, 32  # of a processor; registers are given out by 8, threads by 32
BARRIER = '  call void asm sideeffect "", "~{memory}"()'


@dataclass(frozen=True)
class Launch:
    """What a kernel takes: whole numbers, the first of them `size`, how many members there are; then arrays.

    read, written : {name: dtype} of arrays in the GPU's memory; "" is the state's
    """

    name: str
    numbers: tuple[str, ...]
    read: dict[str, str]
    written: dict[str, str]

    @property
    def arguments(self):
        return *self.numbers, *self.read, *self.written

    @property
    def values(self):
        """A member and the arguments, as LLVM IR passes them."""
        arrays = *self.read, *self.written
        return ["i64 %member", *(f"i64 %{name}" for name in self.numbers), *(f"ptr %{name}" for name in arrays)]

    @property
    def declared(self):
        """The arguments as LLVM IR declares them."""
        numbers = (f"i64 %{name}" for name in self.numbers)
        read = (f"ptr noalias readonly align 16 %{name}" for name in self.read)
        return ", ".join([*numbers, *read, *(f"ptr noalias align 16 %{name}" for name in self.written)])

    def entry(self):
        """LLVM IR of the kernel itself: a thread finds its member, and calls `one_member`."""
        registers = ("tid", "ctaid", "ntid")
        return "\n".join([
            *(f"declare i32 @llvm.nvvm.read.ptx.sreg.{r}.x()" for r in registers),
            f"declare void @one_member({kinds(self.values)})", f"define void @{self.name}({self.declared}) {{",
            "entry:",
            *(f"  %{r} = call i32 @llvm.nvvm.read.ptx.sreg.{r}.x()" for r in registers),
            *(f"  %{r}.wide = zext i32 %{r} to i64" for r in registers),
            "  %before = mul nuw nsw i64 %ctaid.wide, %ntid.wide", "  %member = add nuw nsw i64 %before, %tid.wide",
            "  %there = icmp slt i64 %member, %size", "  br i1 %there, label %solve, label %done", "solve:",
            f"  call void @one_member({', '.join(self.values)})", "  br label %done", "done:", "  ret void", "}", "",
        ])  # fmt: skip


def report(kernel, cc):
    """What a thread of a kernel takes and how many a processor holds, in words; needs ptxas."""
    r = kernel.resources(cc)
    threads = REGISTERS // (-(-r.registers // 8) * 8) // WARP * WARP
    spilled = r.spill_store_bytes + r.spill_load_bytes
    return (
        f"{kernel.title}, {architecture(cc)}: {r.registers} registers, {r.stack_bytes} bytes of local memory, "
        f"{spilled} bytes spilled; {threads} threads at most on a processor"
    )


def kinds(values):
    """The types of values."""
    return ", ".join(value.split()[0] for value in values)


def block(buffers):
    """LLVM IR of a block of a thread's own memory with buffers {name: (numbers, dtype)}, each named in it."""
    places, place = [], 0
    for name, (size, dtype) in buffers.items():
        places.append(f"  %{name} = getelementptr inbounds i8, ptr %block, i64 {place}")
        place += aligned(size, dtype)
    seen = '  call void asm sideeffect "", "l,~{memory}"(ptr %block)'
    return [f"  %block = alloca [{place} x i8], align 16", *places, seen]


def block_bytes(buffers):
    """Bytes of such a block."""
    return sum(aligned(*buffer) for buffer in buffers.values())


def aligned(size, dtype):
    """Bytes of a buffer, so that the next one starts at a multiple of 16."""
    return -(-size * np.dtype(dtype).itemsize // 16) * 16


def allocas(buffers):
    """LLVM IR of buffers that can live in registers."""
    return [f"  %{name} = alloca [{size} x {TYPES[dtype]}], align 16" for name, (size, dtype) in buffers.items()]


def address_of(kernel):
    return f"ptrtoint (ptr @{kernel} to i64)"


def pointer(name):
    """A buffer as LLVM names it; tables have names in capitals."""
    return "null" if name is None else f"{'@' if name.isupper() else '%'}{name}"


def table(name, items):
    """LLVM IR of a constant array of whole numbers."""
    items = [f"i64 {item}" for item in items]
    return f"@{name} = private unnamed_addr constant [{len(items)} x i64] [{', '.join(items)}]"


def declared(kernels):
    """LLVM IR that declares kernels by name."""
    return [f"declare void @{name}({', '.join(['ptr'] * (len(k.arguments) + 1))})" for name, k in kernels.items()]
