"""Structures: nested tuples, lists, dicts, NamedTuples and dataclasses of arrays, and their flat form.

A `Structure` is what is left of such a value when its leaves are taken out; it puts flat vectors
back into the user's form.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from odec.errors import ArgumentError, ShapeError


@dataclass(frozen=True)
class Leaf:
    """An array (or number) of a shape, at `offset` in the flat vector."""

    shape: tuple[int, ...]
    offset: int

    @property
    def size(self):
        size = 1
        for extent in self.shape:
            size *= extent
        return size


@dataclass(frozen=True)
class Branch:
    """A container: `kind` is 'tuple', 'list', 'dict', 'namedtuple' or 'dataclass'."""

    kind: str
    keys: tuple
    children: tuple
    type: Any = None  # the class of a NamedTuple or dataclass


@dataclass(frozen=True)
class Structure:
    """The shape of a structured value; `size` numbers in all."""

    root: Leaf | Branch
    size: int

    @property
    def leaves(self):
        """[(path, Leaf)], the path as text such as 'pendulum.length' or '[0]'."""
        return list(_leaves(self.root, ""))

    @property
    def is_array(self):
        """Whether the value is one array or number, not a container."""
        return isinstance(self.root, Leaf)

    def flatten(self, value, what, dtype: Any = np.float64, out=None):
        """`value` as one new contiguous vector (size,) of `dtype`; ShapeError where it does not fit."""
        if out is None and self._is_quick(value, dtype):
            return value.reshape(-1).copy() if type(value) is np.ndarray else np.array(list(value.values()), dtype)
        flat = np.empty(self.size, dtype) if out is None else out
        _fill(self.root, value, flat, what, "")
        return flat

    def flatten_members(self, value, what, dtype, *lead):
        """A value whose arrays hold members along their first axis, or axes, of the lengths `lead`, as (*lead, size) of
        `dtype`; ShapeError where it does not fit. One contiguous array of that dtype is not copied."""
        if isinstance(self.root, Leaf):
            array = _fitting(self.root, value, what, lead)
            return np.ascontiguousarray(array.reshape(*lead, self.size), dtype)
        flat = np.empty((*lead, self.size), dtype)
        _fill(self.root, value, flat, what, "", lead)
        return flat

    def part(self, key):
        """The Structure of one child, in a vector of its own; and where that lies in the vector of all, a slice."""
        assert isinstance(self.root, Branch)
        child = self.root.children[self.root.keys.index(key)]
        leaves = [leaf for _, leaf in _leaves(child, "")]
        offset, size = (leaves[0].offset if leaves else 0), sum(leaf.size for leaf in leaves)
        return Structure(_moved(child, -offset), size), slice(offset, offset + size)

    def _is_quick(self, value, dtype):
        """Whether a value is an array, or a dict of numbers, that lies as the flat vector does."""
        if type(value) is np.ndarray:
            found = _array_structure(value.shape) if value.dtype == dtype else None
        else:
            found = _numbers_structure(tuple(value)) if type(value) is dict and _are_numbers(value.values()) else None
        return found is self or found == self

    def __hash__(self):
        return self._hash

    @functools.cached_property
    def _hash(self):
        return hash((self.root, self.size))

    def __reduce__(self):  # without the hash, which another process would not find the same
        return Structure, (self.root, self.size)

    def unflatten(self, flat, lead=()) -> Any:
        """A vector (*lead, size) in the user's form; its leaves are views of it."""
        if isinstance(self.root, Leaf):
            return flat.reshape((*lead, *self.root.shape))
        return _rebuild(
            self.root, lambda leaf: flat[..., leaf.offset : leaf.offset + leaf.size].reshape((*lead, *leaf.shape))
        )

    def map(self, function) -> Any:
        """The user's form with `function(leaf)` in place of each leaf."""
        return _rebuild(self.root, function)

    def describe(self):
        """In words, for messages: 'shape (3,)' or 'a dict of x: (), v: (2,)'."""
        return describe(self.root)


@functools.lru_cache(1024)
def _array_structure(shape):
    leaf = Leaf(shape, 0)
    return Structure(leaf, leaf.size)


@functools.lru_cache(1024)
def _numbers_structure(names):
    return Structure(Branch("dict", names, tuple(Leaf((), k) for k in range(len(names)))), len(names))


def _are_numbers(values):
    return all(type(v) is float or type(v) is int for v in values)


def structure_of(value, what):
    """The Structure of a value; ArgumentError for what is not made of real numbers."""
    if type(value) is np.ndarray and value.dtype.kind == "f":
        return _array_structure(value.shape)
    if type(value) is dict and _are_numbers(value.values()):
        return _numbers_structure(tuple(value))
    position = [0]
    root = _build(value, what, "", position, ())
    return Structure(root, position[0])


def component_paths(structure):
    """For each number of the flat vector how the user reaches it: '[1]', '.v[0]', "['angle']"."""
    for path, leaf in structure.leaves:
        for index in np.ndindex(*leaf.shape):
            yield path + (f"[{', '.join(map(str, index))}]" if index else "")


def component_names(structure, given=None):
    """The name of each component: as given, else from where it lies in y."""
    if given is not None and len(given) == structure.size:
        return list(given)
    return ["y" + path for path in component_paths(structure)]


def children_of(value):
    """(kind, keys, values, class) of a container, or None for a leaf."""
    fields = getattr(value, "_fields", None)
    if isinstance(value, tuple) and fields is not None:
        return "namedtuple", fields, tuple(value), type(value)
    if isinstance(value, tuple):
        return "tuple", tuple(range(len(value))), value, None
    if isinstance(value, dict):
        return "dict", tuple(value), tuple(value.values()), None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = tuple(f.name for f in dataclasses.fields(value))
        return "dataclass", names, tuple(getattr(value, n) for n in names), type(value)
    if isinstance(value, list):
        return "list", tuple(range(len(value))), tuple(value), None
    return None


def _is_array_like(value):
    """Whether a list is an array written out (numbers, in rows of equal length), not a container."""
    if not isinstance(value, list) or not value:
        return False
    return all((np.ndim(v) == 0 and not _is_container(v)) or (isinstance(v, list) and _is_array_like(v)) for v in value)


def _is_container(value):
    return isinstance(value, (tuple, dict)) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _array(value, what, path):
    where = f"{what}{path}"
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):
        raise ShapeError(
            f"{where}: rows of different lengths make no array; rows of equal length, or a structure, are needed."
        ) from None
    if array.dtype.kind == "c":
        raise ArgumentError(f"{where}: complex values are not supported; pass real and imaginary parts as a structure.")
    if array.dtype.kind not in "biuf":
        raise ArgumentError(f"{where}: {type(value).__name__} is not a number or an array of numbers; use floats.")
    return array


def _shape(value, what, path):
    """The shape of a leaf; a tensor of another library, which may be traced or differentiated, shows no numbers."""
    if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray):
        return tuple(value.shape)
    return _array(value, what, path).shape


def _build(value, what, path, position, seen):
    parts = None if _is_array_like(value) else children_of(value)
    if parts is None:
        leaf = Leaf(_shape(value, what, path), position[0])
        position[0] += leaf.size
        return leaf
    if id(value) in seen:
        raise ArgumentError(f"{what}{path}: the structure contains itself; use a tree of arrays.")
    kind, keys, values, cls = parts
    children = tuple(
        _build(v, what, path + step_text(kind, k), position, (*seen, id(value)))
        for k, v in zip(keys, values, strict=True)
    )
    return Branch(kind, keys, children, cls)


def step_text(kind, key):
    return f".{key}" if kind in ("namedtuple", "dataclass") else f"[{key!r}]"


def _leaves(item, path):
    if isinstance(item, Leaf):
        yield path, item
        return
    for key, child in zip(item.keys, item.children, strict=True):
        yield from _leaves(child, path + step_text(item.kind, key))


def _moved(item, by):
    """A Leaf, or the Branch of such, with its offsets moved."""
    if isinstance(item, Leaf):
        return Leaf(item.shape, item.offset + by)
    return dataclasses.replace(item, children=tuple(_moved(c, by) for c in item.children))


def _fitting(leaf, value, what, lead=()):
    """A value as an array of the shape of a leaf, after the axes `lead`."""
    array = _array(value, what, "")
    if array.shape != (*lead, *leaf.shape):
        bound = f"{leaf.shape}, each of {lead[0]:,} members" if lead else f"{leaf.shape}"
        raise ShapeError(
            f"{what} has shape {array.shape}, but the model is bound to {bound}; "
            f"pass {f'shape {(*lead, *leaf.shape)}' if lead else 'that shape'}, or bind the model again."
        )
    return array


def _fill(item, value, flat, what, path, lead=()):
    if isinstance(item, Leaf):
        array = _fitting(item, value, f"{what}{path}", lead)
        flat[..., item.offset : item.offset + item.size] = array.reshape(*lead, -1)
        return
    parts = children_of(value)
    matches = parts is not None and len(parts[1]) == len(item.children) and set(parts[1]) == set(item.keys)
    if parts is None or not matches or ((parts[0] == "dict") != (item.kind == "dict") and item.type is not None):
        found = "an array" if parts is None else f"{parts[0]} with {list(parts[1])}"
        raise ShapeError(f"{what}{path} is {found}, but the model is bound to {describe(item)}; pass that structure.")
    by_key = dict(zip(parts[1], parts[2], strict=True))
    for key, child in zip(item.keys, item.children, strict=True):
        _fill(child, by_key[key], flat, what, path + step_text(item.kind, key), lead)


def _rebuild(item, function):
    if isinstance(item, Leaf):
        return function(item)
    values = [_rebuild(c, function) for c in item.children]
    if item.kind == "tuple":
        return tuple(values)
    if item.kind == "list":
        return values
    if item.kind == "dict" or item.type is None:
        return dict(zip(item.keys, values, strict=True))
    return item.type(*values) if item.kind == "namedtuple" else item.type(**dict(zip(item.keys, values, strict=True)))


def describe(item):
    if isinstance(item, Leaf):
        return f"shape {item.shape}" if item.shape else "a number"
    inside = ", ".join(f"{k}: {describe(c)}" for k, c in zip(item.keys, item.children, strict=True))
    return f"a {item.kind} of ({inside})"
