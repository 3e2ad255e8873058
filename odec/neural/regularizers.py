"""Terms that make dynamics easy to solve: each is the integral of a squared norm along the solution.

`Taylor(order=K)`, `Kinetic()` and `JacobianFrobenius(probe)`; `odec.regularize(model, *terms)` adds them to a model.

References: Kelly, Bettencourt, Johnson and Duvenaud, NeurIPS 33 (2020) [kelly2020]; Finlay, Jacobsen, Nurbekyan and
Oberman, ICML 119 (2020) [finlay2020]
"""

from __future__ import annotations

import functools
import math
import os
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from odec.errors import ArgumentError, ShapeError
from odec.gradients.estimates import STEP_TERMS
from odec.graph.node import Node
from odec.graph.trace import place, source_line
from odec.neural.probes import checked_probe, probe_node, pulled_back
from odec.neural.samples import checked_axis, samples_of, sums
from odec.ops.reduction import sum_
from odec.ops.structure import concatenate, reshape
from odec.transforms.taylor import coefficients, kink

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
MOST_ORDER = 20  # the largest K for which (K!)² is finite in single precision


@dataclass(frozen=True)
class Taylor:
    """R_K, the integral of |d^K y / dt^K|², the K-th total derivative of the solution [kelly2020, (1)].

    order : K, an integer from 1 to 20; the derivative, so K! times the normalised coefficient, in the unit of y over
        that of t to the K. Solvers of order p get by with few steps where derivatives beyond p are small

    Of a right-hand side with kinks (relu, np.where, np.abs) R_K with K of 2 and above is that of the smooth pieces:
    jumps of the derivatives are not seen, and a UserWarning says so.

    Raises
    ------
    ArgumentError : an order that is no integer from 1 to 20
    """

    order: int

    def __post_init__(self):
        integer = isinstance(self.order, (int, np.integer)) and not isinstance(self.order, bool)
        if not integer or not 1 <= self.order <= MOST_ORDER:
            raise ArgumentError(
                f"odec.regularizers.Taylor: order is {self.order!r}; an integer from 1 to {MOST_ORDER} is needed, such "
                "as order=3; order=1 is the kinetic energy."
            )
        object.__setattr__(self, "order", int(self.order))

    @property
    def label(self):
        """What r is called in results."""
        return f"R_{self.order}"

    def vector(self, flow):
        """d^K y / dt^K, a node (n,)."""
        return flow.derivative(self.order)


@dataclass(frozen=True)
class Kinetic:
    """The kinetic energy, the integral of |f|² = |dy/dt|² [finlay2020]: Taylor(order=1)."""

    order = 1
    label = "kinetic"

    def vector(self, flow):
        """f, a node (n,)."""
        return flow.derivative(1)


@dataclass(frozen=True, eq=False)
class JacobianFrobenius:
    """The integral of |ε^T df/dy|², whose mean over ε is that of |df/dy|², the Frobenius norm [finlay2020].

    probe : ε, an array or structure like y, of random signs or normal numbers, one for the whole solve; or a name: then
        the model has a parameter of that name more, its last one, like y, so that each solve can have another ε and
        nothing is compiled again
    """

    probe: Any

    order = 1
    label = "jacobian"

    def __post_init__(self):
        checked_probe("odec.regularizers.JacobianFrobenius", self.probe)

    def vector(self, flow):
        """ε^T df/dy, a node (n,)."""
        return flow.pulled_back(self.probe)


TERMS = (Taylor, Kinetic, JacobianFrobenius)


class _Flow:
    """The vectors that terms take the norms of, as nodes of a model's inputs; what several share is made once."""

    def __init__(self, dynamics, order):
        self._dynamics, self._order = dynamics, order

    @functools.cached_property
    def _coefficients(self):
        return coefficients(self._dynamics.f, self._order)

    def derivative(self, order):
        """d^order y / dt^order."""
        found = self._coefficients[order]
        return found if order == 1 else float(math.factorial(order)) * found

    def pulled_back(self, probe):
        """probe^T df/dy."""
        return pulled_back(self._dynamics, probe_node(self._dynamics, "JacobianFrobenius", probe))


@dataclass(frozen=True, eq=False)
class Regularizers:
    """Terms, and how samples count in them.

    batch_axis : the axis of the samples in each array of y; None for none; "auto" is 0 where y has more than one axis
    per_sample : a rate for each sample, instead of their mean
    """

    terms: tuple
    batch_axis: Any = "auto"
    per_sample: bool = False

    suffix = "regularized"
    symbols = ("y", "r")

    @property
    def parameters(self):
        """Names of the parameters that hold probes, each once."""
        probes = (getattr(term, "probe", None) for term in self.terms)
        return tuple(dict.fromkeys(p for p in probes if isinstance(p, str)))

    @property
    def labels(self):
        """What each row of r is called in results."""
        return tuple(term.label for term in self.terms)

    def shape(self, name, structure):
        """The shape of r: (terms,), or (terms, samples); ShapeError for a y without the axis of samples."""
        count, samples = len(self.terms), self._samples(name, structure)
        return (count, samples[1]) if self.per_sample else (count,)

    def rate(self, dynamics):
        """dr/dt, a flat node.

        Warns
        -----
        UserWarning : derivatives beyond the first of a right-hand side with kinks
        """
        order = max(term.order for term in self.terms)
        if order > 1:
            self._warn_of_kinks(dynamics, order)
        flow = _Flow(dynamics, order)
        rates = [self._rate(dynamics, term.vector(flow)) for term in self.terms]
        return concatenate(*(reshape(rate, shape=(rate.size,)) for rate in rates), axis=0)

    def _rate(self, dynamics, vector) -> Node:
        axis, count = self._samples(dynamics.name, dynamics.structure)
        if not self.per_sample:
            return sum_(vector * vector, axes=(0,)) * (1.0 / count)
        return sums(dynamics.structure, vector * vector, axis)

    def _samples(self, name, structure):
        """(axis of the samples, their number); (None, 1) for a state that is one sample."""
        axis, count = samples_of(name, structure, self.batch_axis)
        if axis is None and self.per_sample:
            raise ShapeError(
                f"{name}: per_sample=True, but y, which is {structure.describe()}, has no batch axis; a state with an "
                "axis of samples is needed: give y0 the shape (samples, ...), or name the axis, as batch_axis=0."
            )
        return axis, count

    def _warn_of_kinks(self, dynamics, order):
        node = kink(dynamics.f, choices_only=True)
        if node is None:
            return
        text = source_line(node.line)
        found, where = f'"{text}"' if text else node.op.name, f" ({place(node.line)})" if node.line else ""
        warnings.warn(
            f"{dynamics.name}{where}: {found} is not smooth, and the term of order {order} then takes the derivatives "
            "of its smooth pieces: jumps between them are not seen. For a regularizer that sees all of f take a smooth "
            "function (np.tanh, odec.special.softplus), or order 1.",
            UserWarning,
            stacklevel=_frames_of_odec() + 1,
        )


def _frames_of_odec():
    """How many frames lie between a caller of this and the user's code, that caller's own with them."""
    frame, count = sys._getframe(1), 0
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame, count = frame.f_back, count + 1
    return count


def regularizers_of(terms, batch_axis, per_sample):
    """The Regularizers of what a user gave to odec.regularize; ArgumentError for what cannot be used."""
    if not terms:
        raise ArgumentError(
            "odec.regularize: no terms were given; at least one is needed, as odec.regularizers.Taylor(order=3)."
        )
    for term in terms:
        if not isinstance(term, TERMS):
            cure = f"; call it, as {term.__name__}(...)" if isinstance(term, type) else ""
            if isinstance(term, STEP_TERMS):
                cure = "; give a sum over the solver's steps to odec.solve_vjp, as regularizers=[...]"
            raise ArgumentError(
                f"odec.regularize: {term!r} is no term; odec.regularizers.Taylor(order=3), Kinetic() or "
                f"JacobianFrobenius(probe) is needed{cure}."
            )
    checked_axis("odec.regularize", batch_axis)
    if not isinstance(per_sample, (bool, np.bool_)):
        raise ArgumentError(f"odec.regularize: per_sample is {per_sample!r}; True or False is needed.")
    return Regularizers(tuple(terms), batch_axis, bool(per_sample))
