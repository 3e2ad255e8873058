"""Kernels: lists of five kinds of statement over named buffers.

A kernel reads and writes flat row-major buffers. Locals are scalars of a dtype. The printers turn
a kernel into readable Python or LLVM IR; they are the only readers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from odec.graph.op import Op


@dataclass(frozen=True, slots=True)
class Index:
    """A position in a buffer: offset + sum of stride * loop variable, then through a table if there is one.

    beside : terms that are added to the number in the table
    """

    offset: int = 0
    terms: tuple[tuple[str, int], ...] = ()
    table: str | None = None
    beside: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a buffer."""

    buffer: str
    index: Index


@dataclass(frozen=True, slots=True)
class Local:
    """A scalar that is assigned once."""

    name: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A number known when the kernel is made."""

    value: Any
    dtype: str


@dataclass(frozen=True, slots=True)
class Assign:
    """target = op(*args), or target = args[0] where op is None."""

    target: Local | Element
    op: Op | None
    args: tuple
    params: dict = field(default_factory=dict)
    line: tuple | None = None


@dataclass(frozen=True, slots=True)
class Loop:
    """body for index = 0 .. extent - 1; `vector` asks for vector lanes along the index.

    extent : at least 1; where it is found out when the kernel runs, a Local, a whole number in float64
    """

    index: str
    extent: int | Local
    body: list
    vector: bool = False
    line: tuple | None = None


@dataclass(frozen=True, slots=True)
class Allocate:
    """A buffer of `size` elements of `dtype`: at `offset` in the workspace (in elements of the kernel's
    dtype), or, where `offset` is None, a few numbers of its own, which machine code keeps in registers."""

    buffer: str
    size: int
    offset: int | None
    dtype: str


@dataclass(frozen=True, slots=True)
class Call:
    """function(*args): a library routine or another kernel; args are buffers at offsets, integers and numbers."""

    function: str
    args: tuple
    line: tuple | None = None


@dataclass(frozen=True, slots=True)
class Return:
    """The end of the kernel."""


@dataclass(frozen=True, slots=True)
class Argument:
    """A buffer of the signature: `size` elements of `dtype`, written by the kernel or only read; of a kernel for
    several lanes, each element once a lane, or, where the argument is shared, once for all of them."""

    name: str
    size: int
    dtype: str
    written: bool = False
    shape: tuple = ()
    shared: bool = False

    def widened(self, lanes, shared):
        """The buffer as a kernel for so many lanes has it; `shared`: names of the arguments that all lanes share."""
        if lanes == 1:
            return self
        if self.name in shared:
            return replace(self, shared=True)
        return replace(self, size=self.size * lanes, shape=(*self.shape, lanes))

    def check(self, array, kernel):
        """TypeError or ValueError where an array cannot stand for this buffer."""
        if not isinstance(array, np.ndarray) or array.dtype != self.dtype or not array.flags.c_contiguous:
            found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"{kernel}: {self.name} must be a contiguous {self.dtype} array, not {found}")
        if array.size != self.size or (self.written and not array.flags.writeable):
            raise ValueError(f"{kernel}: {self.name} needs {self.size} writable elements, not {array.size}")


@dataclass(frozen=True)
class Kernel:
    """name(*arguments[, work]): `tables` are constant buffers, `work_size` elements of scratch `dtype`."""

    name: str
    arguments: tuple[Argument, ...]
    body: list
    dtype: str
    tables: dict = field(default_factory=dict)
    work_size: int = 0
    callees: tuple = ()


def work_for(kernels, dtype):
    """Elements of `dtype` in a workspace that suits each of the kernels, whose own dtypes can be other ones."""
    size = np.dtype(dtype).itemsize
    return max((-(-k.work_size * np.dtype(k.dtype).itemsize // size) for k in kernels), default=0)


class Names:
    """Names that collide neither with each other nor with words that mean something in the text."""

    def __init__(self, reserved):
        self._taken = set(reserved)
        self._next: dict[str, int] = {}

    def new(self, wish):
        """`wish` itself if it is free, else with a number after it."""
        wish = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in wish) or "v"
        if wish[0].isdigit() or wish.startswith("__"):
            wish = f"v{wish}"
        if wish not in self._taken:
            self._taken.add(wish)
            return wish
        number = self._next.get(wish, 2)
        while f"{wish}_{number}" in self._taken:
            number += 1
        self._next[wish] = number + 1
        self._taken.add(f"{wish}_{number}")
        return f"{wish}_{number}"

    def temporary(self):
        """A name for a value that the user gave none: _1, _2, ..."""
        number = self._next.get("", 1)
        while f"_{number}" in self._taken:
            number += 1
        self._next[""] = number + 1
        self._taken.add(f"_{number}")
        return f"_{number}"
