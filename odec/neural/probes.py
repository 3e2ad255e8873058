"""Random vectors that stand for a whole Jacobian: given as arrays, or as parameters of a model."""

from __future__ import annotations

import numpy as np

from odec.errors import ArgumentError
from odec.graph.node import constant
from odec.transforms.vjp import vjp


def checked_probe(caller, probe):
    """What a user gave as a probe; ArgumentError for None, a function, or a text that is no name."""
    if isinstance(probe, str):
        if not probe.isidentifier():
            raise ArgumentError(
                f"{caller}: probe is {probe!r}; an array like y, or the name of a parameter, such as 'probe', is "
                "needed."
            )
    elif probe is None or callable(probe):
        raise ArgumentError(
            f"{caller}: probe is {probe!r}; an array like y is needed, such as rng.choice([-1.0, 1.0], y0.shape), or "
            "the name of a parameter that will hold it."
        )
    return probe


def probe_node(dynamics, caller, probe):
    """A probe as a node (n,): what the parameter of that name holds, or a constant.

    Raises
    ------
    ShapeError : an array that is not like y
    ArgumentError : a number that is not finite
    """
    if isinstance(probe, str):
        return dynamics.given[probe]
    where, dtype = f"{dynamics.name}: {caller}: probe", dynamics.f.inputs["y"].dtype
    flat = dynamics.structure.flatten(probe, where, dtype)
    if not np.isfinite(flat).all():
        raise ArgumentError(f"{where} holds {flat[~np.isfinite(flat)][0]}; finite numbers are needed.")
    return constant(flat, dtype)


def pulled_back(dynamics, probe):
    """ε^T df/dy, a node (n,), for a node ε (n,)."""
    return vjp(dynamics.f, ["y"])(*dynamics.f.inputs.values(), probe)["y_bar"]
