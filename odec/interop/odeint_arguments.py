"""What the odeint of every framework is given, checked, and the cotangent of its times."""

from __future__ import annotations

import inspect

import numpy as np

from odec.errors import ArgumentError, nearest
from odec.gradient import ADJOINTS, solve_vjp
from odec.gradients.estimates import check_summed, names_of
from odec.solving import solve


def _keywords(function):
    return frozenset(name for name, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY)


OF_SOLVE = _keywords(solve)  # the options that a solve without a gradient takes
KEYWORDS = OF_SOLVE | _keywords(solve_vjp)


def check_options(name, adjoint, regularizers, options, refused):
    """Refuse an unknown adjoint, what is no list of terms, and options that are unknown or that the framework decides.

    name : of the function, for errors
    refused : {option: why it cannot be given}

    Raises
    ------
    ArgumentError : the adjoint, regularizers that it does not have or that are none, or an option of `refused`
    TypeError : an option that no solve has
    """
    if adjoint not in ADJOINTS:
        raise ArgumentError(
            f"{name}: adjoint {adjoint!r} is not known{nearest(adjoint, ADJOINTS)} It is one of {', '.join(ADJOINTS)}."
        )
    for option in options:
        if option in refused:
            raise ArgumentError(f"{name}: {option} cannot be given, because {refused[option]}; leave it out.")
        if option not in KEYWORDS:
            raise TypeError(f"{name}() has no keyword {option!r}{nearest(option, KEYWORDS - set(refused))}")
    if names_of(regularizers):
        check_summed(adjoint, events=False, batched=False)


def checked_times(name, t):
    """t (..., m), m >= 2, as float64, whose rows are finite and rise or fall from the first to a different last.

    name : of the model or function, for errors

    Raises
    ------
    ArgumentError : a row is not like that
    """
    t = np.asarray(t, float)
    if not np.isfinite(t).all():
        raise ArgumentError(f"{name}: t has {t[~np.isfinite(t)][0]}; finite times are needed.")
    start, end = t[..., :1], t[..., -1:]
    if (start == end).any():
        raise ArgumentError(f"{name}: t starts and ends at {start[start == end][0]}; a different end is needed.")
    if (np.diff(t) * np.sign(end - start) < 0).any():
        raise ArgumentError(f"{name}: t is not sorted; rising or falling times are needed, the start first.")
    return t


def times_cotangent(gradient):
    """(m,), of the times t of an odeint, whose first and last are also the ends of the span, from a Gradient."""
    t_bar = np.array(gradient.t_eval)
    t_bar[0] += gradient.t0
    t_bar[-1] += gradient.t1
    return t_bar
