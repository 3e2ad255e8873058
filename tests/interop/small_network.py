"""A network that moves samples, and what a solve of it is asked for, by the tests of PyTorch and of JAX."""

import numpy as np

import odec
from odec.regularizers import ErrorEstimate, JacobianFrobenius, Kinetic, Stiffness, Taylor

BOTH = [ErrorEstimate(), Stiffness()]
TIMES = np.array([0.0, 0.4, 1.0])
ROUGH = {"rtol": 1e-3, "atol": 1e-4}
FIXED = {"first_step": 0.2, "max_step": 0.2, "rtol": 1e-1}
REFUSALS = [  # options, and words of the ArgumentError
    (
        {"method": "rk4", "first_step": 0.1},
        r"^network: ErrorEstimate\(\) needs .* but rk4 has none",
    ),
    ({"method": "bs3", "regularizers": [Stiffness()]}, r"Stiffness\(\) needs a stage .* bs3 has none"),
    ({"adjoint": "backsolve"}, "adjoint is 'backsolve', which differentiates the solution instead"),
    ({"adjoint": "interpolating"}, "adjoint is 'interpolating', which differentiates the solution instead"),
    ({"events": [lambda t, y, *p: y[0, 0]]}, "events cannot be given"),
    ({"regularizers": ErrorEstimate()}, "^solve_vjp: regularizers is .* a list of terms is needed"),
    ({"regularizers": None}, "^solve_vjp: regularizers is None; a list of terms is needed"),
    ({"regularizers": [Stiffness]}, r"Call it, as Stiffness\(\)"),
    ({"regularizers": [Taylor(order=2)]}, "are given to odec.regularize"),
]


@odec.dynamics
def network(t, y, w1, b1, w2):
    return np.tanh(y @ w1 + b1) @ w2


easy = odec.regularize(odec.cnf(network, "hutchinson"), Kinetic(), JacobianFrobenius("probe"))

_RNG = np.random.default_rng(7)
START = _RNG.normal(size=(3, 2))
WEIGHTS = {"w1": _RNG.normal(size=(2, 4)), "b1": _RNG.normal(size=4), "w2": _RNG.normal(size=(4, 2))}
PROBES = _RNG.normal(size=(3, *START.shape))
YS_BAR, SUMS_BAR = _RNG.normal(size=(3, *START.shape)), np.array([30.0, 0.2])


def of_solve_vjp(ys_bar=YS_BAR, sums_bar=SUMS_BAR, **options):
    """(Solution, Gradient) of `network`, from odec alone; the sums are BOTH."""
    how = ROUGH | {"t_eval": TIMES, "regularizers": BOTH} | options
    solution, pullback = odec.solve_vjp(network, (TIMES[0], TIMES[-1]), START, WEIGHTS, **how)
    return solution, pullback(ys_bar, regularizers=sums_bar)


def of_easy(probe):
    """(Solution, Gradient) of `easy` with a probe, from odec alone, of the sum of squares of all rows."""
    given = (TIMES[0], TIMES[-1]), easy.start(easy.model.start(START)), WEIGHTS | {"probe": probe}
    solution, pullback = odec.solve_vjp(easy, *given, t_eval=TIMES, **ROUGH)
    (z, logp), r = solution.ys
    return solution, pullback(((2 * z, 2 * logp), 2 * r))
