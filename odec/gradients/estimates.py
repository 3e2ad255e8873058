"""Terms that the steps of a solve make: sums of the solver's own estimates of how hard its model is.

References: Pal, Ma, Shah and Rackauckas, ICML 139 (2021) 8325 [pal2021]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from odec.errors import ArgumentError, ShapeError
from odec.steppers.step import estimates_of


@dataclass(frozen=True)
class ErrorEstimate:
    """R_E = Σ_n E_n |h_n| over the accepted steps, of sizes h_n [pal2021].

    E_n is the root mean square over y of the step's estimate of its own error, in the unit of y, whatever the
    tolerances: Σ_i (h Σ_j b_error_j k_j)_i² / size of y, under the root; of methods with two estimates, such as dop853,
    |e|² / √(|e|² + 0.01 |e2|²) of them. Where it is 0 its derivative is taken as 0.
    """

    label = "error"
    needs = "an error estimate", "tsit5, dopri5, bs3, vern7 and dop853"


@dataclass(frozen=True)
class Stiffness:
    """R_S = Σ_n |f(t + h, y1) - f(t + h, x)| / |y1 - x| over the accepted steps [pal2021], in 1/time.

    y1 is the end of step n and x the state of its last other stage at t + h: along their difference the quotient says
    how fast the model moves, and it is near the largest |eigenvalue| of ∂f/∂y where stability holds steps down
    [hairer1996, IV.2]. A step where both are one adds 0.
    """

    label = "stiffness"
    needs = "a stage at the end of the step beside the new state", "tsit5, dopri5, dop853, vern7 and rk4"


STEP_TERMS = (ErrorEstimate, Stiffness)


@dataclass(frozen=True)
class Terms:
    """Sums over the steps of a solve.

    names : of `estimates_function`; over : how many of the first elements of y the norms are over, None for all
    """

    names: tuple
    over: int | None = None

    @property
    def options(self):
        """What kernels are asked for with."""
        return {"terms": self.names, "over": self.over}


def names_of(given):
    """The names of the terms that a user gave to solve_vjp; ArgumentError for what is no term."""
    if not isinstance(given, (list, tuple)):
        raise ArgumentError(
            f"solve_vjp: regularizers is {given!r}; a list of terms is needed, such as "
            "[odec.regularizers.ErrorEstimate()]."
        )
    for term in given:
        if not isinstance(term, STEP_TERMS):
            cure = f"Call it, as {term.__name__}()." if isinstance(term, type) else (
                "Terms that are integrals along the solution, such as Taylor(order=3), are given to odec.regularize."
            )  # fmt: skip
            raise ArgumentError(
                f"solve_vjp: regularizers has {term!r}; odec.regularizers.ErrorEstimate() or Stiffness() is needed. "
                f"{cure}"
            )
    return tuple(term.label for term in given)


def check_summed(adjoint, events, batched):
    """ArgumentError where a solve has no sums over its steps."""
    if adjoint != "discrete":
        raise ArgumentError(
            f"solve_vjp: regularizers are given, which are sums over the computed steps, but adjoint is {adjoint!r}, "
            'which differentiates the solution instead; take adjoint="discrete", or terms of odec.regularize.'
        )
    found = {
        "events are watched, which cut steps short": events,
        "batched asks for an ensemble, which keeps none": batched,
    }
    for what in (text for text, is_so in found.items() if is_so):
        raise ArgumentError(f"solve_vjp: regularizers are given, sums over steps, but {what}; leave one of both out.")


def check_estimated(name, names, method):
    """ArgumentError where the steps of a method do not make the estimates that are asked for."""
    for term in STEP_TERMS:
        if term.label in names and term.label not in estimates_of(method):
            what, examples = term.needs
            raise ArgumentError(
                f"{name}: {term.__name__}() needs {what}, but {method.name} has none; take a method that has one, such "
                f"as {examples}."
            )


def terms_bar_of(name, terms, given):
    """The cotangents (terms,) that a user gave, zeros for None; ArgumentError or ShapeError for what is none."""
    count = len(terms.names) if terms else 0
    if given is None:
        return np.zeros(count)
    if not count:
        raise ArgumentError(
            f"{name}: the pullback was given regularizers, but the solve has none; give them to solve_vjp as well, as "
            "regularizers=[odec.regularizers.ErrorEstimate()]."
        )
    try:
        flat = np.asarray(given, float)
    except (TypeError, ValueError):
        raise ArgumentError(f"{name}: regularizers is {given!r}; a number for each term is needed.") from None
    if flat.shape != (count,):
        raise ShapeError(
            f"{name}: regularizers has shape {flat.shape}; the cotangents of {count} sums have shape ({count},)."
        )
    if not np.isfinite(flat).all():
        raise ArgumentError(f"{name}: regularizers holds {flat[~np.isfinite(flat)][0]}; finite numbers are needed.")
    return flat
