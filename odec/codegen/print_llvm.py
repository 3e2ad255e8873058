"""Kernels as LLVM IR.

One emitter serves every value type: with `lanes` above 1 each buffer holds vectors (one trajectory
a lane), if the lanes do not share it, and every scalar that depends on one becomes a vector; inside a
`vector` loop the same statements run on several neighbouring elements at once.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

import numpy as np

from odec.codegen import blas, convolution, inline_math, targets
from odec.codegen.kernel import Allocate, Assign, Call, Element, Kernel, Literal, Local, Loop, Return
from odec.codegen.parts import in_parts
from odec.codegen.small_product import small_product
from odec.codegen.wide_product import product
from odec.errors import CompileError
from odec.graph.trace import place

TYPES = {"float64": "double", "float32": "float", "bool": "i1", "int32": "i32", "int64": "i64"}
BITS = {"float64": "f64", "float32": "f32"}
BYTES = {**targets.BYTES, "int32": 4}
NONE: frozenset = frozenset()
PURE = "nounwind willreturn memory(none)"
IN_REGISTERS = 256  # numbers of one buffer that may still live there


class Value(NamedTuple):
    """A value as LLVM text, its dtype, and how many lanes it has; 0 for a literal, which fits any number."""

    text: str
    dtype: str
    lanes: int


def type_text(dtype, lanes):
    return TYPES[dtype] if lanes == 1 else f"<{lanes} x {TYPES[dtype]}>"


def print_llvm(kernels, target, lanes=1, shared=()):
    """An LLVM module that defines the kernels, with what they call.

    lanes : trajectories side by side; above 1 a buffer holds a vector for each element, one number a lane
    shared : names of arguments whose buffers hold one number an element all the same, which every lane reads

    Raises
    ------
    CompileError : a kernel writes a shared argument, or calls a matrix routine for several lanes
    """
    module = _Module(target, lanes)
    own = [frozenset(a.name for a in k.arguments if a.name in shared) if lanes > 1 else NONE for k in kernels]
    for kernel, narrow in zip(kernels, own, strict=True):
        module.reserve(kernel, narrow)
    for kernel, narrow in zip(kernels, own, strict=True):
        module.define(kernel, narrow)
    return module.text()


class _Module:
    def __init__(self, target, lanes):
        self.target, self.lanes = target, lanes
        self.definitions, self.globals = [], []
        self.declarations: dict[str, str] = {}
        self.kernels: dict[str, Kernel] = {}  # what can be called
        self.symbols: dict[tuple, str] = {}  # of kernels by (name, names of shared arguments)
        self.defined: set[str] = set()
        self.tables: dict[tuple, str] = {}

    def reserve(self, kernel, shared):
        """Let a kernel have its own name as symbol."""
        self.symbols.setdefault((kernel.name, shared), kernel.name)
        stack = [kernel]
        while stack:
            found = stack.pop()
            self.kernels.setdefault(found.name, found)
            stack.extend(found.callees)

    def define(self, kernel, shared):
        """The symbol of a kernel whose arguments of these names are shared, defined if it is not yet."""
        taken = kernel.name in self.symbols.values()
        name = f"{kernel.name}.{len(self.symbols)}" if taken else kernel.name
        symbol = self.symbols.setdefault((kernel.name, shared), name)
        if symbol not in self.defined:
            self.defined.add(symbol)
            if self.target.has_blas:
                kernel = in_parts(kernel)
                self.kernels |= {part.name: part for part in kernel.callees}
            self.definitions.append(_Emitter(self, kernel, symbol, shared).function_text())
        return symbol

    def routine(self, name, number):
        """The symbol of a matrix routine for numbers of an LLVM type."""
        symbol = f"odec.{name}.{number}"
        text = blas.wrapper if self.target.has_blas else blas.declaration
        self.declarations[symbol] = text(name, number)
        return symbol

    def declare(self, name, signature):
        self.declarations[name] = f"declare {signature}"

    def table(self, values, dtype):
        """The name of a constant table of numbers."""
        name = self.tables.get((values, dtype))
        if name is None:
            name = self.tables[values, dtype] = f"table.{len(self.tables)}"
            self.globals.append(table_text(name, np.asarray(values, dtype)))
        return name

    def text(self):
        parts = [*self.globals, *self.declarations.values(), *self.definitions]
        return "\n".join(parts) + "\n"


def table_text(name, array):
    """A constant buffer as a private global."""
    dtype = {"f8": "float64", "f4": "float32", "i4": "int32"}[array.dtype.str[1:]]
    if array.size > 64:
        data = "\\" + array.tobytes().hex("\\").upper()
        kind = f"[{array.nbytes} x i8]"
        return f'@{name} = private unnamed_addr constant {kind} c"{data}", align 64'
    items = ", ".join(f"{TYPES[dtype]} {literal_text(v, dtype)}" for v in array.flat)
    return f"@{name} = private unnamed_addr constant [{array.size} x {TYPES[dtype]}] [{items}], align 64"


def literal_text(value, dtype):
    if dtype == "bool":
        return "true" if value else "false"
    if dtype == "int32":
        return str(int(value))
    value = float(np.float32(value)) if dtype == "float32" else float(value)
    return "0x" + struct.pack(">d", value).hex().upper()


class _Emitter:
    """Writes the body of one kernel; the emission rules of ops call its methods."""

    def __init__(self, module, kernel, symbol, shared):
        self.module, self.kernel, self.symbol = module, kernel, symbol
        self.wide = module.lanes  # lanes of every buffer but these: trajectories side by side
        self.narrow = {*kernel.tables, *shared}  # buffers of one number an element
        self.lanes = self.wide  # lanes of the values being computed now
        self.vector_index: str | None = None  # the loop variable along which lanes run, in a vector loop
        self.lines: list[str] = []
        self.stack: dict[tuple, tuple[str, int]] = {}  # (name, type) -> (pointer, elements), made at the entry
        self.alike = 1  # lanes whose functions a scalar must use, so that no element differs from its neighbours
        self.values: dict[str, Value] = {}
        self.buffers = {a.name: (f"%{a.name}", a.dtype) for a in kernel.arguments}
        self.count = 0
        self.block = "entry"
        self.line = None
        for name, array in kernel.tables.items():
            label = f"{symbol}.{name}"
            module.globals.append(table_text(label, array))
            dtype = {"f8": "float64", "f4": "float32", "i4": "int32"}[array.dtype.str[1:]]
            self.buffers[name] = (f"@{label}", dtype)

    def function_text(self):
        self.statements(self.kernel.body)
        written = {a.name: a.written for a in self.kernel.arguments}
        for name in self.narrow:
            if written.get(name):
                raise CompileError(
                    f"{self.kernel.name} writes {name}, so each lane needs its own: it cannot be shared."
                )
        arguments = [f"ptr noalias {'' if w else 'readonly '}%{name}" for name, w in written.items()]
        arguments.append("ptr noalias %work")  # always there: every kernel of a kind has one signature
        head = f"define void @{self.symbol}({', '.join(arguments)}) nounwind {{\nentry:\n"
        rooms = [f"  {at} = alloca [{size} x {kind}], align 32" for (_, kind), (at, size) in self.stack.items()]
        return head + "\n".join([*rooms, *self.lines]) + "\n}"

    # ---- statements

    def statements(self, body):
        for s in body:
            line = getattr(s, "line", None)
            if line is not None and line != self.line:
                self.line = line
                self.lines.append(f"  ; {place(line)}")
            if isinstance(s, Assign):
                self.assign(s)
            elif isinstance(s, Loop):
                vector = s.vector and self.wide == 1
                self.vector_loop(s) if vector else self.loop(s.index, 0, self.extent(s), 1, s.body)
            elif isinstance(s, Allocate):
                self.allocate(s)
            elif isinstance(s, Call):
                self.call(s)
            elif isinstance(s, Return):
                self.lines.append("  ret void")
            else:
                raise TypeError(f"unknown statement {s!r}")

    def assign(self, s):
        args = [self.operand(a) for a in s.args]
        value = args[0] if s.op is None else s.op.llvm(self, *args, **s.params)
        if isinstance(s.target, Local):
            self.values[s.target.name] = value
        else:
            self.store(s.target, value)

    def allocate(self, s):
        if s.offset is None:
            pointer = self.on_stack(s)
        else:
            pointer, unit = self.fresh(), type_text(self.kernel.dtype, self.wide)
            self.lines.append(f"  {pointer} = getelementptr inbounds {unit}, ptr %work, i64 {s.offset}")
        self.buffers[s.buffer] = (pointer, s.dtype)

    def on_stack(self, s):
        """Numbers that live in registers; where they are too many, those of one name share a place, one at a time."""
        key = s.buffer if s.size > IN_REGISTERS else len(self.stack), type_text(s.dtype, self.wide)
        pointer, size = self.stack.get(key) or (self.fresh(), 0)
        self.stack[key] = pointer, max(size, s.size)
        return pointer

    def loop(self, index, start, stop, step, body):
        label = f"loop{self._number()}"
        before, variable = self.block, f"%{index}.{label}"
        self.lines += [
            f"  br label %{label}", f"{label}:",
            f"  {variable} = phi i64 [ {start}, %{before} ], [ {variable}.next, %{label}.end ]",
        ]  # fmt: skip
        self.block = label
        shadowed = self.values.get(index)
        self.values[index] = Value(variable, "int64", 1)
        self.statements(body)
        self.lines += [
            f"  br label %{label}.end", f"{label}.end:",
            f"  {variable}.next = add nuw nsw i64 {variable}, {step}",
            f"  {variable}.more = icmp ult i64 {variable}.next, {stop}",
            f"  br i1 {variable}.more, label %{label}, label %{label}.exit", f"{label}.exit:",
        ]  # fmt: skip
        self.block = f"{label}.exit"
        if shadowed is not None:
            self.values[index] = shadowed

    def extent(self, s):
        """How often the body of a loop runs, as the text of an i64."""
        if not isinstance(s.extent, Local):
            return str(s.extent)
        if self.wide > 1:
            raise CompileError(f"{self.kernel.name}: how often {s.index} runs is one number; compile it with lanes=1.")
        return self.raw(f"fptosi double {self.values[s.extent.name].text} to i64")

    def vector_loop(self, s):
        """Whole vectors first, then the rest one by one through the same vector functions, so that
        an element's value does not depend on where it stands."""
        lanes = self.module.target.lanes[self.kernel.dtype]
        whole = s.extent - s.extent % lanes
        if whole:
            self.lanes, self.vector_index = lanes, s.index
            self.loop(s.index, 0, whole, lanes, s.body)
            self.lanes, self.vector_index = 1, None
        if whole < s.extent:
            self.alike = lanes
            self.loop(s.index, whole, s.extent, 1, s.body)
            self.alike = 1

    def call(self, s):
        if s.function == "gemm" and (loops := self.product_loops(s.args)) is not None:
            self.statements(loops)
            return
        if s.function == "convolve":
            self.convolve(*s.args)
            return
        if s.function in blas.INTEGERS:
            if self.wide > 1:
                raise CompileError(
                    f"{self.kernel.name}: {s.function} takes one trajectory at a time; compile it with lanes=1."
                )
            function, buffers = self.module.routine(s.function, TYPES[self.kernel.dtype]), None
        elif s.function in self.module.kernels:
            function, buffers = self.callee(self.module.kernels[s.function], s.args)
        else:
            raise CompileError(f"{self.kernel.name} calls {s.function!r}, which is neither a kernel nor a routine")
        args = [f"ptr {self.address(a)}" if isinstance(a, Element) else f"i64 {int(a)}" for a in s.args]
        if len(args) == buffers:
            args.append("ptr %work")  # a kernel that needs no workspace: any pointer will do
        self.lines.append(f"  call void @{function}({', '.join(args)})")

    def convolve(self, k, count, width, rows, p, q, a, b, c, ahead=None):
        """A call of the function of convolution.py that is made for these sizes and weights."""
        if self.wide > 1:
            raise CompileError(
                f"{self.kernel.name}: convolutions take one trajectory at a time; compile it with lanes=1."
            )
        dtype, square, tiles = self.kernel.dtype, a == b, convolution.Tiles(count, width, rows)
        blocks = ahead is not None
        number, name = TYPES[dtype], convolution.symbol(tiles, p.value, square, blocks, dtype)
        lanes = math.gcd(self.module.target.lanes[dtype], width)
        self.module.declarations[name] = convolution.definition(tiles, p.value, square, blocks, number, lanes, name)
        weights = ", ".join(f"{number} {literal_text(w.value, dtype)}" for w in (p, q))
        pointers = ", ".join(f"ptr {self.address(x)}" for x in (a, b, c, ahead or c))
        self.lines.append(f"  call void @{name}(i64 {self.position(k)}, {weights}, {pointers})")

    def product_loops(self, args):
        """The statements of a product that is not to be a call."""
        if self.wide > 1:
            return product(args, self.kernel.dtype)
        if self.module.target.has_blas:
            return small_product(args, self.kernel.dtype, self.module.target.lanes[self.kernel.dtype])
        return None

    def callee(self, kernel, args):
        """(symbol, number of arguments) of a kernel that reads one number an element where this one does."""
        pairs = zip(kernel.arguments, args, strict=False) if self.wide > 1 else ()
        shared = frozenset(a.name for a, element in pairs if element.buffer in self.narrow)
        return self.module.define(kernel, shared), len(kernel.arguments)

    # ---- memory

    def position(self, index):
        """An index as the text of an i64."""
        total = self.total(None, index.terms)
        if total is None:
            total = str(index.offset)
        elif index.offset:
            total = self.raw(f"add nsw i64 {total}, {index.offset}")
        if index.table is None:
            return total
        pointer = self.raw(f"getelementptr inbounds i32, ptr {self.buffers[index.table][0]}, i64 {total}")
        return self.total(self.raw(f"sext i32 {self.raw(f'load i32, ptr {pointer}, align 4')} to i64"), index.beside)

    def total(self, start, terms):
        """The text of start + sum of stride * loop variable; None where there is nothing to add up."""
        for name, stride in terms:
            variable = self.values[name].text
            term = variable if stride == 1 else self.raw(f"mul nsw i64 {variable}, {stride}")
            start = term if start is None else self.raw(f"add nsw i64 {start}, {term}")
        return start

    def address(self, element):
        pointer, dtype = self.buffers[element.buffer]
        at = self.position(element.index)
        if at == "0":
            return pointer
        kind = type_text(dtype, 1 if element.buffer in self.narrow else self.wide)
        return self.raw(f"getelementptr inbounds {kind}, ptr {pointer}, i64 {at}")

    def stride(self, element):
        """How far apart neighbouring lanes of an element are: 0, 1, another number, or None for a table."""
        if self.vector_index is None:
            return 1 if self.wide > 1 and element.buffer not in self.narrow else 0
        stride = dict(element.index.terms).get(self.vector_index, 0)
        if element.index.table is None:
            return stride
        return None if stride else dict(element.index.beside).get(self.vector_index, 0)

    def load(self, element):
        dtype = self.buffers[element.buffer][1]
        stride = self.stride(element)
        if self.lanes == 1 or stride in (0, 1):
            lanes = self.lanes if stride == 1 else 1
            text = self.raw(f"load {type_text(dtype, lanes)}, ptr {self.address(element)}, align {BYTES[dtype]}")
            return Value(text, dtype, lanes)
        return self.gather(element, dtype)

    def lane_addresses(self, element):
        """The address of an element for each lane of a vector loop."""
        index = self.vector_index or ""
        base = self.values[index]
        for lane in range(self.lanes):
            moved = self.raw(f"add nuw nsw i64 {base.text}, {lane}")
            self.values[index] = Value(moved, "int64", 1)
            yield lane, self.address(element)
        self.values[index] = base

    def gather(self, element, dtype):
        kind, result = type_text(dtype, self.lanes), "poison"
        for lane, address in self.lane_addresses(element):
            item = self.raw(f"load {TYPES[dtype]}, ptr {address}, align {BYTES[dtype]}")
            result = self.raw(f"insertelement {kind} {result}, {TYPES[dtype]} {item}, i64 {lane}")
        return Value(result, dtype, self.lanes)

    def scatter(self, element, value):
        kind = type_text(value.dtype, self.lanes)
        for lane, address in self.lane_addresses(element):
            item = self.raw(f"extractelement {kind} {value.text}, i64 {lane}")
            self.lines.append(f"  store {TYPES[value.dtype]} {item}, ptr {address}, align {BYTES[value.dtype]}")

    def store(self, element, value):
        dtype, stride = self.buffers[element.buffer][1], self.stride(element)
        if self.lanes > 1 and stride not in (0, 1):
            self.scatter(element, self.fit(value))
            return
        value = self.fit(value) if stride == 1 else self.fit(value, max(1, value.lanes))
        kind = type_text(dtype, value.lanes)
        self.lines.append(f"  store {kind} {value.text}, ptr {self.address(element)}, align {BYTES[dtype]}")

    # ---- values

    def _number(self):
        self.count += 1
        return self.count

    def fresh(self):
        return f"%.{self._number()}"

    def raw(self, text):
        name = self.fresh()
        self.lines.append(f"  {name} = {text}")
        return name

    def operand(self, a):
        if isinstance(a, Element):
            return self.load(a)
        if isinstance(a, Literal):
            return Value(literal_text(a.value, a.dtype), a.dtype, 0)  # lanes 0: fits any width
        return self.values[a.name]

    def fit(self, value, lanes=None):
        """The value in all lanes being computed."""
        lanes = self.lanes if lanes is None else lanes
        if value.lanes == lanes:
            return value
        if value.lanes == 0:
            text = value.text if lanes == 1 else f"splat ({TYPES[value.dtype]} {value.text})"
            return Value(text, value.dtype, lanes)
        kind = type_text(value.dtype, lanes)
        first = self.raw(f"insertelement {kind} poison, {TYPES[value.dtype]} {value.text}, i64 0")
        text = self.raw(f"shufflevector {kind} {first}, {kind} poison, <{lanes} x i32> zeroinitializer")
        return Value(text, value.dtype, lanes)

    def literal(self, value, dtype):
        return Value(literal_text(value, dtype), dtype, 0)

    def widened(self, args):
        """The arguments in a common width: 1 only if all are scalars."""
        lanes = max(1, *(a.lanes for a in args))
        return [self.fit(a, lanes) for a in args], lanes

    def instruction(self, opcode, *args):
        args, lanes = self.widened(args)
        kind = type_text(args[0].dtype, lanes)
        text = self.raw(f"{opcode} contract {kind} {', '.join(a.text for a in args)}")
        return Value(text, args[0].dtype, lanes)

    def compare(self, predicate, *args):
        args, lanes = self.widened(args)
        kind = type_text(args[0].dtype, lanes)
        return Value(self.raw(f"fcmp {predicate} {kind} {args[0].text}, {args[1].text}"), "bool", lanes)

    def select(self, condition, x, y):
        (condition, x, y), lanes = self.widened((condition, x, y))
        kind = type_text(x.dtype, lanes)
        text = self.raw(f"select {type_text('bool', lanes)} {condition.text}, {kind} {x.text}, {kind} {y.text}")
        return Value(text, x.dtype, lanes)

    def logical(self, opcode, *args):
        if opcode == "not":
            opcode, args = "xor", (*args, Value("true", "bool", 0))
        args, lanes = self.widened(args)
        return Value(self.raw(f"{opcode} {type_text('bool', lanes)} {args[0].text}, {args[1].text}"), "bool", lanes)

    def cast(self, x, dtype):
        if x.dtype == dtype:
            return x
        (x,), lanes = self.widened((x,))
        opcode = "fptrunc" if dtype == "float32" else "fpext"
        text = self.raw(f"{opcode} {type_text(x.dtype, lanes)} {x.text} to {type_text(dtype, lanes)}")
        return Value(text, dtype, lanes)

    def double(self, value):
        """A literal in double precision, whatever the kernel's dtype."""
        return Value(literal_text(value, "float64"), "float64", 0)

    def bits(self, x):
        """The 64 bits of a double as an integer."""
        x = self.fit(x, max(1, x.lanes))
        text = self.raw(f"bitcast {type_text('float64', x.lanes)} {x.text} to {type_text('int64', x.lanes)}")
        return Value(text, "int64", x.lanes)

    def from_bits(self, i):
        """The double with these 64 bits."""
        text = self.raw(f"bitcast {type_text('int64', i.lanes)} {i.text} to {type_text('float64', i.lanes)}")
        return Value(text, "float64", i.lanes)

    def integers(self, opcode, i, number):
        """An instruction on an integer and a number known now."""
        kind = type_text("int64", i.lanes)
        right = number if i.lanes == 1 else f"splat (i64 {number})"
        return Value(self.raw(f"{opcode} {kind} {i.text}, {right}"), "int64", i.lanes)

    def intrinsic(self, name, *args):
        if name == "pow":
            return self.function(name, *args)  # as an intrinsic it has no vector form
        args, lanes = self.widened(args)
        dtype = args[0].dtype
        suffix = BITS[dtype] if lanes == 1 else f"v{lanes}{BITS[dtype]}"
        return self.invoke(f"llvm.{name}.{suffix}", dtype, lanes, args)

    def function(self, name, *args):
        """A mathematical function from the target's table, in parts as wide as it has functions for."""
        args, lanes = self.widened(args)
        dtype = args[0].dtype
        wide = self.alike if lanes == 1 else lanes
        if self.module.target.inlines and wide > 1 and dtype == "float64" and name in inline_math.INLINED:
            return self.inlined(name, args[0], lanes)
        width = self.module.target.width(dtype, wide)
        symbol = self.module.target.symbol(name, dtype, width)
        if lanes == 1:
            return self.part(self.invoke(symbol, dtype, width, [self.fit(a, width) for a in args]), 0, 1)
        parts = [
            self.invoke(symbol, dtype, width, [self.part(a, start, width) for a in args])
            for start in range(0, lanes, width)
        ]
        return self.joined(parts)

    def inlined(self, name, x, lanes):
        """One of the functions that are inlined."""
        symbol = inline_math.symbol(name, lanes)
        self.module.declarations[symbol] = inline_math.definition(name, lanes)
        for intrinsic, signature in inline_math.intrinsics(lanes).items():
            self.module.declare(intrinsic, signature)
        kind = type_text("float64", lanes)
        return Value(self.raw(f"call {kind} @{symbol}({kind} {self.fit(x, lanes).text})"), "float64", lanes)

    def part(self, x, start, lanes):
        """So many neighbouring lanes of a value."""
        if x.lanes == lanes:
            return x
        kind, smaller = type_text(x.dtype, x.lanes), type_text(x.dtype, lanes)
        if lanes == 1:
            return Value(self.raw(f"extractelement {kind} {x.text}, i64 {start}"), x.dtype, 1)
        symbol = f"llvm.vector.extract.v{lanes}{BITS[x.dtype]}.v{x.lanes}{BITS[x.dtype]}"
        self.module.declare(symbol, f"{smaller} @{symbol}({kind}, i64 immarg) {PURE}")
        return Value(self.raw(f"call {smaller} @{symbol}({kind} {x.text}, i64 {start})"), x.dtype, lanes)

    def joined(self, parts):
        """The lanes of several values of one width side by side."""
        (_, dtype, width), *others = parts
        if not others:
            return parts[0]
        lanes, result = width * len(parts), "poison"
        kind, smaller = type_text(dtype, lanes), type_text(dtype, width)
        symbol = f"llvm.vector.insert.v{lanes}{BITS[dtype]}.v{width}{BITS[dtype]}"
        if width > 1:
            self.module.declare(symbol, f"{kind} @{symbol}({kind}, {smaller}, i64 immarg) {PURE}")
        for k, part in enumerate(parts):
            if width == 1:
                result = self.raw(f"insertelement {kind} {result}, {smaller} {part.text}, i64 {k}")
            else:
                items = f"{kind} {result}, {smaller} {part.text}, i64 {k * width}"
                result = self.raw(f"call {kind} @{symbol}({items})")
        return Value(result, dtype, lanes)

    def pieces(self, x, edges, values):
        """values[number of edges <= x], from constant tables, lane by lane: log2(n) loads, no branch."""
        x, count = self.fit(x, max(1, x.lanes)), len(edges)
        tables = [self.module.table(t, x.dtype) for t in (edges, values)]
        lanes = [self.part(x, k, 1) for k in range(x.lanes)]
        return self.joined([Value(self.search(part.text, x.dtype, count, *tables), x.dtype, 1) for part in lanes])

    def search(self, x, dtype, count, edges, values):
        number, place = TYPES[dtype], "0"
        for step in (1 << k for k in reversed(range(count.bit_length()))):
            last = self.raw(f"add nuw nsw i64 {place}, {step - 1}")
            inside = self.raw(f"icmp ult i64 {last}, {count}")
            safe = self.raw(f"select i1 {inside}, i64 {last}, i64 {count - 1}")
            pointer = self.raw(f"getelementptr inbounds {number}, ptr @{edges}, i64 {safe}")
            edge = self.raw(f"load {number}, ptr {pointer}, align {BYTES[dtype]}")
            reached = self.raw(f"fcmp ule {number} {edge}, {x}")  # unordered: nan sorts behind every edge
            taken = self.raw(f"and i1 {inside}, {reached}")
            moved = self.raw(f"add nuw nsw i64 {place}, {step}")
            place = self.raw(f"select i1 {taken}, i64 {moved}, i64 {place}")
        pointer = self.raw(f"getelementptr inbounds {number}, ptr @{values}, i64 {place}")
        return self.raw(f"load {number}, ptr {pointer}, align {BYTES[dtype]}")

    def invoke(self, symbol, dtype, lanes, args):
        kind = type_text(dtype, lanes)
        self.module.declare(symbol, f"{kind} @{symbol}({', '.join([kind] * len(args))}) {PURE}")
        text = self.raw(f"call contract {kind} @{symbol}({', '.join(f'{kind} {a.text}' for a in args)})")
        return Value(text, dtype, lanes)


__all__ = ["TYPES", "print_llvm"]
