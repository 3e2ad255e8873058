"""Continuous normalising flows: d log p / dt = -tr(df/dz) along a solution of dz/dt = f, for each sample.

References: Chen, Rubanova, Bettencourt and Duvenaud, NeurIPS 31 (2018) [chen2018]; Grathwohl, Chen, Bettencourt,
Sutskever and Duvenaud, ICLR (2019) [grathwohl2019]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from odec.errors import ArgumentError, ShapeError, nearest
from odec.graph.node import constant, structural_zero
from odec.neural.probes import checked_probe, probe_node, pulled_back
from odec.neural.samples import checked_axis, places, samples_of, sums
from odec.ops.families import broadcast_to, total
from odec.ops.rearranging import along
from odec.ops.reduction import sum_
from odec.ops.structure import reshape, take
from odec.transforms.jacobian import SMALL, diagonal_by_elements
from odec.transforms.jvp import tangents
from odec.transforms.scalar import operation_count
from odec.transforms.sparsity import bit_positions, diagonal_colouring, propagated

TRACES = ("exact", "hutchinson")


@dataclass(frozen=True, eq=False)
class Density:
    """log p of each sample: its rate is minus the trace of the sample's own block of df/dz.

    trace : "exact", by as few tangents as the pattern of the block allows, or "hutchinson", ε^T (df/dz) ε, whose mean
        over ε is the trace [hutchinson1990]
    probe : ε, like z, or the name of a parameter that holds it; None with trace="exact"
    batch_axis : the axis of the samples, None for a state that is one sample, "auto"
    """

    trace: str = "exact"
    probe: Any = None
    batch_axis: Any = "auto"

    suffix = "flow"
    symbols = ("z", "logp")
    labels = ("logp",)

    @property
    def parameters(self):
        """Names of the parameters that hold probes."""
        return (self.probe,) if isinstance(self.probe, str) else ()

    def shape(self, name, structure):
        """The shape of logp: (samples,), or () for a state that is one sample."""
        axis, samples = samples_of(name, structure, self.batch_axis)
        return () if axis is None else (samples,)

    def rate(self, dynamics):
        """d log p / dt, a flat node (samples,).

        Raises
        ------
        ShapeError : samples that depend on each other
        """
        axis, samples = samples_of(dynamics.name, dynamics.structure, self.batch_axis)
        pattern = _block_pattern(dynamics, places(dynamics.structure, axis))
        if self.trace == "exact":
            found = _exact(dynamics, axis, diagonal_colouring(*pattern))
        else:
            probe = probe_node(dynamics, "odec.cnf", self.probe)
            found = sums(dynamics.structure, pulled_back(dynamics, probe) * probe, axis)
        return -reshape(found, shape=(samples,))


def density_of(trace, probe, batch_axis):
    """The Density of what a user gave to odec.cnf; ArgumentError for what cannot be used."""
    if not isinstance(trace, str) or trace not in TRACES:
        raise ArgumentError(
            f"odec.cnf: trace is {trace!r}{nearest(trace, TRACES)} It is one of 'exact' and 'hutchinson'; the latter "
            "takes one product with the Jacobian, however many numbers a sample has."
        )
    if trace == "exact" and probe is not None:
        raise ArgumentError(
            'odec.cnf: a probe was given, but trace="exact" needs none; give trace="hutchinson", or no probe.'
        )
    if trace == "hutchinson":
        probe = checked_probe("odec.cnf", "probe" if probe is None else probe)
    return Density(trace, probe, checked_axis("odec.cnf", batch_axis))


# ---- what depends on what --------------------------------------------------------------------------------


def _block_pattern(dynamics, lying):
    """(rows, columns, numbers of one sample): where the block of any sample can differ from zero.

    lying : (samples, numbers of one), the places of each sample in the flat vector
    """
    samples, numbers = lying.shape
    masks = np.zeros(dynamics.structure.size, object)
    labels = np.array([_label(k, samples.bit_length()) << numbers for k in range(samples)], object)
    masks[lying] = labels[:, None] | np.array([1 << k for k in range(numbers)], object)
    (found,) = propagated(dynamics.f, {id(dynamics.f.inputs["y"]): masks}).values()
    own = (1 << numbers) - 1
    mixed = np.flatnonzero(np.bitwise_or.reduce(found[lying], axis=1) & ~(labels | own))
    if mixed.size:
        raise ShapeError(
            f"{dynamics.name}: dz/dt of sample {mixed[0]} depends on other samples, so that none has a density of its "
            "own; each must make its own dz/dt. Write the model so, name the axis of the samples with batch_axis=, or "
            "give batch_axis=None for one state of all numbers."
        )
    columns = [bit_positions(bits & own) for bits in np.bitwise_or.reduce(found[lying], axis=0)]
    rows = np.repeat(np.arange(numbers), [len(c) for c in columns])
    return rows, np.concatenate(columns).astype(int), numbers


def _label(k, digits):
    """A mask for sample k: a bit for each binary digit that is 0, another for each that is 1. It holds no other one."""
    return sum(1 << (2 * d + (k >> d & 1)) for d in range(digits))


# ---- the exact trace ---------------------------------------------------------------------------------------


def _exact(dynamics, axis, colours):
    """tr(df/dz) of each sample: a tangent for each colour of the numbers of a sample, in all samples at once."""
    f, lying = dynamics.f, places(dynamics.structure, axis)
    groups = [np.flatnonzero(colours == colour) for colour in range(colours.max(initial=-1) + 1)]
    if operation_count(f) * (1 + len(groups)) <= SMALL:
        whole = np.full(f.inputs["y"].size, -1)
        whole[lying] = colours
        return sums(dynamics.structure, diagonal_by_elements(f, "y", whole), axis)
    found = total([_of_group(dynamics, axis, lying, group) for group in groups])
    return structural_zero(f.inputs["y"].dtype, (len(lying),)) if found is None else found


def _of_group(dynamics, axis, lying, group):
    """The sum over a group of the numbers of a sample of their entries on the diagonal, (samples,)."""
    f = dynamics.f
    (slope,) = f.outputs.values()
    seed = np.zeros(slope.shape)
    seed[lying[:, group]] = 1.0
    tangent = _tangent(f, seed)
    if tangent is None:
        return None
    if dynamics.structure.is_array and axis in (None, 0):
        matrix, first, last = reshape(tangent, shape=lying.shape), group[0], group[-1]
        if last - first == len(group) - 1:
            return sum_(along(matrix, 1, first, last + 1), axes=(1,))
    return sum_(take(tangent, index=lying[:, group]), axes=(1,))


def _tangent(f, seed):
    """The tangent of f(t, y, p) from numbers (n,) in place of the tangent of y; None where it is zero.

    What only rearranges y has a tangent of known numbers: zeros are left out, and rows that repeat stay one row, which
    products with matrices multiply once.
    """
    known = {id(f.inputs["y"]): seed}
    for node in f.nodes:
        if len(node.inputs) == 1 and node.op.family == "linear" and id(node.inputs[0]) in known:
            known[id(node)] = np.asarray(node.op.evaluate(known[id(node.inputs[0])], **node.params))
    nodes = {id(node): node for node in f.nodes}
    seeds = {nodes[k]: _numbers(values, nodes[k].dtype) for k, values in known.items() if values.any()}
    (slope,) = f.outputs.values()
    return tangents([node for node in f.nodes if id(node) not in known], seeds).get(id(slope))


def _numbers(values, dtype):
    """Known numbers as a node: one number that all are, a row that repeats, or the array."""
    if np.all(values == values.flat[0]):
        return constant(values.flat[0], dtype, values.shape)
    if values.ndim == 2 and np.all(values == values[0]):
        return broadcast_to(constant(values[:1], dtype), values.shape)
    return constant(values, dtype)
