"""Models made from models: their state is (y, r), where dr/dt follows from the graph of dy/dt and nothing reads r."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from odec.errors import ArgumentError, ShapeError
from odec.graph.node import input_node
from odec.graph.structure import Branch, Structure, structure_of
from odec.model import Model, dtype_of_state
from odec.neural.flows import density_of
from odec.neural.quadrature import Dynamics, rate_of_part, with_quadratures
from odec.neural.regularizers import regularizers_of
from odec.ops.rearranging import along
from odec.system import System


def regularize(model, *terms, batch_axis: Any = "auto", per_sample=False, in_error_norm=True):
    """A Model whose state is (y, r): r' holds for each term |v|², v = d^K y/dt^K, f, or ε^T df/dy.

    Its parameters, their defaults and their names are those of `model`. Gradients of r by y0 and by params are those of
    any state: `odec.solve_vjp(regularized, t_span, regularized.start(y0), params)`. Of a model that is itself
    of (y, r), or of (z, logp), the terms measure y or z alone, and a probe of the same name is the same one.

    Parameters
    ----------
    model : Model
    terms : odec.regularizers.Taylor(order=K), Kinetic(), JacobianFrobenius(probe), as many as one likes; derivatives of
        several orders share their work
    batch_axis : the axis of y, in each of its arrays, along which samples lie: r' is the mean over samples of the sum
        over the other axes. "auto" is 0 for arrays y of more than one axis, and for structures whose arrays begin with
        one axis of the same length; None for none: r' is the sum over all of y
    per_sample : keep the samples apart
    in_error_norm : False leaves r out of the error norm, so that the steps are those of `model`

    Returns
    -------
    Model, with `start(y0)` = (y0, zeros like r); r has the shape (terms,), with per_sample (terms, samples), in the
    unit of v² times that of t

    Raises
    ------
    ArgumentError : no terms, or what is none; a probe as a parameter of a model with starred ones
    ShapeError : when it is bound: a probe that is not like y, or no batch axis where there should be one

    Warns
    -----
    UserWarning : when it is bound: order 2 or more of a right-hand side with kinks (relu, np.where, np.abs)

    References: [kelly2020], [finlay2020]
    """
    return _augmented("odec.regularize", model, regularizers_of(terms, batch_axis, per_sample), in_error_norm)


def cnf(model, trace="exact", *, probe=None, batch_axis: Any = "auto", in_error_norm=True):
    """A Model whose state is (z, logp): d logp/dt = -tr(df/dz) for each sample, so that with logp(t0) = 0

        log p(z(t1), t1) = log p(z(t0), t0) + logp(t1),    logp(t1) = -∫ tr(df/dz) dt from t0 to t1

    whichever of t0 and t1 is later. With x = z(t0) data and p(., t1) a known density p1, one solve forwards gives
    log p(x) = log p1(z(t1)) - logp(t1), and one backwards, from samples of p1, samples of x.

    Its parameters, their defaults and their names are those of `model`.

    Parameters
    ----------
    model : Model of z, whose samples do not depend on each other
    trace : "exact" takes a tangent for each number of a sample, fewer where the pattern of df/dz allows; "hutchinson"
        takes ε^T (df/dz) ε, one product with the Jacobian: its mean over ε is the trace
    probe : of "hutchinson": ε, an array or structure like z, of random signs or normal numbers, one for the whole
        solve; or the name of the parameter that holds it, which is then the last one. None is the name "probe"
    batch_axis : the axis of z, in each of its arrays, along which samples lie. "auto" is 0 for arrays of more than one
        axis, and for structures whose arrays begin with one axis of the same length; None for one sample
    in_error_norm : False leaves logp out of the error norm, so that the steps are those of `model`

    Returns
    -------
    Model, with `start(z0)` = (z0, zeros like logp); logp has the shape (samples,), () for one sample

    Raises
    ------
    ArgumentError : a trace or a probe that is none; a probe as a parameter of a model with starred ones
    ShapeError : when it is bound: samples that depend on each other, a probe that is not like z, or no batch axis where
        there should be one

    References: [chen2018] (8), [grathwohl2019]
    """
    return _augmented("odec.cnf", model, density_of(trace, probe, batch_axis), in_error_norm)


def _augmented(caller, model, plan, in_error_norm):
    if not isinstance(model, Model):
        found = getattr(model, "__name__", type(model).__name__)
        raise ArgumentError(
            f"{caller}: {found} is not an odec model; a function decorated with @odec.dynamics is needed."
        )
    if not isinstance(in_error_norm, (bool, np.bool_)):
        raise ArgumentError(f"{caller}: in_error_norm is {in_error_norm!r}; True or False is needed.")
    return Augmented(model, plan, bool(in_error_norm))


class Augmented(Model):
    """The model of (y, r), where dy/dt is that of another model and a plan says what dr/dt is of its graph.

    plan : `suffix` of the name; `symbols`, what y and r are called; `parameters`, names of further ones like y;
        `shape(name, y_structure)` of r; `rate(Dynamics)`, the flat node dr/dt; `labels`, what the rows of r are called.
        Where y is itself of the form (y, r), the plan sees its y alone, and a probe of the same name is the same one
    in_error_norm : whether r is in the error norm of a solve
    """

    def __init__(self, model, plan, in_error_norm=True):
        super().__init__(model.function)
        self.model, self.plan, self.in_error_norm = model, plan, in_error_norm
        self.name = f"{model.name}_{plan.suffix}"
        within = model.probes if isinstance(model, Augmented) else ()
        self.shared = tuple(name for name in plan.parameters if name in within)
        self.added = tuple(name for name in plan.parameters if name not in within)
        self.probes = within + self.added
        _check_names(model, self.added)
        self.parameters = model.parameters | dict.fromkeys(self.added, inspect.Parameter.empty)
        self._defaults = None if self.added else model._defaults

    def __call__(self, t, y, *params, **named):
        """dy/dt and dr/dt on numbers, by NumPy."""
        names = [name for name in self.parameters if name != "*"]
        values = self.parameter_values(dict(zip(names, params, strict=False)) | named if named else params)
        system = self.bind_values(y, values, None)
        flat = system.y_structure.flatten(y, f"{self.name}: y", system.dtype)
        p = system.p_structure.flatten(values, f"{self.name}: params", system.dtype)
        return system.y_structure.unflatten(system.graph.evaluate(float(t), flat, p)["dydt"])

    def __reduce__(self):
        return Augmented, (self.model, self.plan, self.in_error_norm)

    def start(self, y0):
        """(y0, r0): the state at the start, where r is zero; in single precision where y0 is."""
        shape = self._shape(structure_of(y0, f"{self.name}: y0"))
        return y0, np.zeros(shape, dtype_of_state(y0))

    def system_of(self, y_structure, p_structure, dtype):
        """The System for structures of (y, r) and of the parameters, made anew."""
        y_part = self._structure_of_y(y_structure)
        moving = _moving(self.model, y_part)
        own, given = self._split(p_structure, moving, dtype)
        inner = self.model.system_of(y_part, own, dtype)
        dynamics = Dynamics(self.name, inner.graph, y_part, given)
        p = inner.graph.inputs["p"]
        places = {name: p_structure.part(name)[1] for name in self.shared}
        shared = {name: along(p, 0, place.start, place.stop) for name, place in places.items()}
        rate = rate_of_part(self.plan, dynamics._replace(given=given | shared), moving)
        graph = with_quadratures(dynamics, rate)
        names = None if inner.state is None else (*inner.state, *self._names(y_structure.size - y_part.size))
        measured = inner.measured if self.in_error_norm else inner.measured or y_part.size
        quadratures = inner.quadratures + y_structure.size - y_part.size
        return System(self.name, graph, y_structure, p_structure, dtype, names, measured, quadratures)

    def _structure_of_y(self, whole):
        """The Structure of y in that of (y, r); ShapeError for another one."""
        first, second = self.plan.symbols
        root = whole.root
        if not (isinstance(root, Branch) and root.kind in ("tuple", "list") and len(root.keys) == 2):
            raise ShapeError(
                f"{self.name}: its state is ({first}, {second}), but what was given is {whole.describe()}; give "
                f"({first}0, {second}0), as model.start({first}0) makes it."
            )
        y, r = (whole.part(key)[0] for key in root.keys)
        shape = self._shape(y)
        if r.root != structure_of(np.empty(shape), "r").root:
            raise ShapeError(
                f"{self.name}: in its state ({first}, {second}), {second} is {r.describe()}, but it has shape {shape}; "
                f"give np.zeros({shape}), or ({first}0, {second}0) as model.start({first}0) makes it."
            )
        return y

    def _shape(self, y):
        """The shape of r beside y of a Structure."""
        return self.plan.shape(self.name, _moving(self.model, y))

    def _split(self, p_structure, y_part, dtype):
        """(Structure of the parameters of the model within, {name: input node like y} of those that the plan adds)."""
        root, added = p_structure.root, self.added
        for name in added:
            found, _ = p_structure.part(name)
            if found != y_part:
                raise ShapeError(
                    f"{self.name}: {name} is {found.describe()}, but it is like y, which is {y_part.describe()}; give "
                    "it that shape."
                )
        count = len(root.keys) - len(added)
        own = Branch(root.kind, root.keys[:count], root.children[:count], root.type)
        size = p_structure.size - len(added) * y_part.size
        return Structure(own, size), {name: input_node(name, (y_part.size,), dtype) for name in added}

    def _names(self, size):
        labels = self.plan.labels
        each = size // len(labels)
        return [label if each == 1 else f"{label}[{i}]" for label in labels for i in range(each)]


def _moving(model, structure):
    """The Structure of what the dynamics of a model read of its state: of y, where that is (y, r)."""
    return _moving(model.model, model._structure_of_y(structure)) if isinstance(model, Augmented) else structure


def _check_names(model, added):
    """ArgumentError for parameters that cannot follow those of a model."""
    if added and "*" in model.parameters:
        raise ArgumentError(
            f"{model.name} takes *{model.parameters['*']}, so {added[0]!r} cannot follow its parameters; name each of "
            "them in the signature, or give an array instead of the name."
        )
    for name in added:
        if name in model.parameters:
            raise ArgumentError(
                f"{model.name} has a parameter {name!r} already, but here that is the name of one more; choose another "
                "name."
            )
