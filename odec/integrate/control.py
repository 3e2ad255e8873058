"""The step size from the error: digital filters in logarithms to base 2, as records; advance.py applies them."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from odec.errors import ArgumentError, nearest


@dataclass(frozen=True)
class Controller:
    """How the error of the steps decides the next step size.

    h_{n+1} / h_n = e_n^(-beta1/k) e_{n-1}^(-beta2/k) e_{n-2}^(-beta3/k) r_n^(-alpha2) r_{n-1}^(-alpha3),
    r_n = h_n / h_{n-1},
    with e the error norm in units of safety^k times the tolerance, and k the power of h with which it falls.

    safety : where the step settles, in units of the largest that the tolerance accepts
    least, most : limits of h_{n+1} / h_n; also 'least' after a rejected step, whose size follows from its error alone
    Rejected steps, and steps cut by max_step, tstops or the end, leave the history as it was.

    Raises
    ------
    ArgumentError : a gain that is no number, limits that are not 0 < least < 1 < most, a safety outside (0, 1]

    References: Söderlind, ACM Trans. Math. Softw. 29 (2003) 1; Söderlind and Wang, J. Comput. Appl. Math. 185
    (2006) 225
    """

    name: str
    beta1: float
    beta2: float = 0.0
    beta3: float = 0.0
    alpha2: float = 0.0
    alpha3: float = 0.0
    safety: float = 0.9
    least: float = 0.2
    most: float = 10.0

    def __post_init__(self):
        for field in ("beta1", "beta2", "beta3", "alpha2", "alpha3", "safety", "least", "most"):
            value = getattr(self, field)
            if isinstance(value, (bool, str)) or not _is_finite(value):
                raise ArgumentError(f"controller {self.name}: {field} is {value!r}; a finite number is needed.")
        if self.beta1 <= 0:
            raise ArgumentError(
                f"controller {self.name}: beta1 is {self.beta1}; it must be positive, or steps grow with the error."
            )
        if not 0 < self.safety <= 1:
            raise ArgumentError(f"controller {self.name}: safety is {self.safety}; a number in (0, 1] is needed.")
        if not 1e-3 <= self.least < 1 < self.most <= 1e3:
            raise ArgumentError(
                f"controller {self.name}: least is {self.least} and most is {self.most}; "
                "0.001 <= least < 1 < most <= 1000 is needed."
            )

    def gains(self, exponent):
        """What the loop reads: the safety's part of log2 of the ratio, the five gains, log2 of the limits, 1/k and
        the safety's part after a rejection."""
        return _gains(self, exponent)


@functools.lru_cache(256)
def _gains(c, exponent):
    k, safety = float(exponent), math.log2(c.safety)
    steady = (c.beta1 + c.beta2 + c.beta3) * safety
    betas = c.beta1 / k, c.beta2 / k, c.beta3 / k
    return np.array((steady, *betas, c.alpha2, c.alpha3, math.log2(c.least), math.log2(c.most), 1.0 / k, safety))


def _is_finite(value):
    try:
        return math.isfinite(value)
    except TypeError:
        return False


# Gains by name [soderlind2003, table 1; soderlind2006, table 1]. "PI" is the one of Hairer's DOPRI5, beta = 0.04 at
# order 5 [hairer1996, IV.2], "I" the textbook's, "PID" of Kennedy and Carpenter, Appl. Numer. Math. 35 (2000) 177.
CONTROLLERS = {
    c.name: c
    for c in (
        Controller("PI", 0.85, -0.2, safety=0.85),
        Controller("I", 1.0),
        Controller("PID", 0.49, -0.34, 0.10),
        Controller("PI3040", 0.7, -0.4),
        Controller("PI3333", 2 / 3, -1 / 3),
        Controller("PI4020", 0.6, -0.2),
        Controller("H211PI", 1 / 6, 1 / 6),
        Controller("H211b", 1 / 4, 1 / 4, alpha2=1 / 4),
        Controller("H312PID", 1 / 18, 1 / 9, 1 / 18),
        Controller("H312b", 1 / 8, 2 / 8, 1 / 8, alpha2=3 / 8, alpha3=1 / 8),
        Controller("H321", 1 / 3, 1 / 18, -5 / 18, alpha2=-5 / 6, alpha3=-1 / 6),
    )
}


def controller_named(name):
    """The Controller of a name, or the record itself; None is PI."""
    if isinstance(name, Controller):
        return name
    wanted = "PI" if name is None else name
    if isinstance(wanted, str) and wanted in CONTROLLERS:
        return CONTROLLERS[wanted]
    raise ArgumentError(
        f"controller {name!r} is not known{nearest(name, CONTROLLERS)} It is one of {', '.join(CONTROLLERS)}, or an "
        "odec.Controller."
    )
