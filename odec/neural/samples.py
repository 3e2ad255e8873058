"""Where the samples of a batch lie in a state: along one axis of each of its arrays."""

from __future__ import annotations

import functools
import operator

import numpy as np

from odec.errors import ArgumentError, ShapeError
from odec.neural.quadrature import leaves_of
from odec.ops.reduction import sum_


def checked_axis(caller, batch_axis):
    """What a user gave as batch_axis; ArgumentError for what is no integer, None or "auto"."""
    integer = isinstance(batch_axis, (int, np.integer)) and not isinstance(batch_axis, bool)
    if not (integer or batch_axis is None or (isinstance(batch_axis, str) and batch_axis == "auto")):
        raise ArgumentError(
            f'{caller}: batch_axis is {batch_axis!r}; an axis of y, as 0, or None, or "auto" is needed.'
        )
    return batch_axis


def samples_of(name, structure, batch_axis):
    """(axis of the samples, their number); (None, 1) for a state that is one sample.

    batch_axis : that axis, or None, or "auto": 0 where arrays begin with one axis of the same length and one at least
        has another axis

    Raises
    ------
    ShapeError : an array without that axis, or of another length along it
    """
    shapes = [leaf.shape for _, leaf in structure.leaves]
    axis = _leading_axis(shapes) if batch_axis == "auto" else batch_axis
    if axis is None:
        return None, 1
    extents = {shape[axis] if -len(shape) <= axis < len(shape) else 0 for shape in shapes}
    if 0 in extents or len(extents) > 1:
        found = "that axis is missing" if 0 in extents else "its arrays differ in its length"
        raise ShapeError(
            f"{name}: batch_axis is {axis}, but y is {structure.describe()}: {found}; every array of y needs that "
            "axis, of one length; name the axis of the samples, or give batch_axis=None for a state without one."
        )
    return axis, extents.pop()


def _leading_axis(shapes):
    one_length = len({shape[:1] for shape in shapes}) == 1
    return 0 if one_length and any(len(shape) > 1 for shape in shapes) else None


def sums(structure, vector, axis):
    """The sum (samples,) over what each sample has of a node (n,); () where `axis` is None."""
    if axis is None:
        return sum_(vector, axes=(0,))
    parts = leaves_of(structure, vector)
    return functools.reduce(operator.add, (_sum_beside(part, axis % part.ndim) for part in parts))


def _sum_beside(part, axis):
    return sum_(part, axes=tuple(d for d in range(part.ndim) if d != axis))


def places(structure, axis):
    """(samples, numbers of one): where each sample lies in the flat vector; a row of all where `axis` is None."""
    if axis is None:
        return np.arange(structure.size)[None]
    parts = []
    for _, leaf in structure.leaves:
        flat = np.moveaxis(leaf.offset + np.arange(leaf.size).reshape(leaf.shape), axis, 0)
        parts.append(flat.reshape(len(flat), -1))
    return np.concatenate(parts, axis=1)
