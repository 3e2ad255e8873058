"""Which R_K makes which solver quick: python tests/benchmarks/solver_orders.py [map]

The networks of examples/17_easy_dynamics.py are trained with R_K for K = 1 .. 6, each with the largest strength that
leaves the error of the map below LARGEST, and solved by methods of order 2, 3, 5 and of adaptive order (LSODA of
SciPy). Rows are evaluations of f at a tolerance of 1e-6 [kelly2020, Figure 6]; the figure goes to
docs/figures/solver_orders.png. --quick trains with one strength each.
"""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
from benchmark import command_line, row
from scipy.integrate import solve_ivp

import odec

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "17_easy_dynamics.py"))
FIGURE = Path(__file__).parents[2] / "docs" / "figures" / "solver_orders.png"
SOLVERS = {"heun_euler": 2, "bs3": 3, "dopri5": 5, "LSODA": "adaptive"}
ORDERS, LARGEST, TOLERANCE = range(1, 7), 0.05, 1e-6
STRENGTHS = 10.0 ** np.arange(-1.0, -17.0, -1.0)


def error_of(params, z0):
    sol = odec.solve(EXAMPLE["network"], (0.0, 1.0), z0, params, rtol=1e-8, atol=1e-8, t_eval=[])
    return float(np.sqrt(np.mean((sol.y1 - z0 - z0**3) ** 2)))


def strongest(order, z0, strengths):
    """(parameters, strength, error) of the strongest regularisation that leaves a good map."""
    for strength in strengths:
        try:
            params = EXAMPLE["trained"](strength, z0, order)
        except odec.SolveError:
            continue
        error = error_of(params, z0)
        if error < LARGEST:
            return params, strength, error
    raise RuntimeError(f"no strength of R_{order} leaves an error below {LARGEST}")


def evaluations(solver, params, z0):
    if solver == "LSODA":
        rhs = EXAMPLE["network"].bind(z0, params).rhs
        weights = [params[name] for name in ("w1", "b1", "w2", "b2")]
        rate = lambda t, y: rhs(t, y.reshape(z0.shape), *weights).ravel()
        return solve_ivp(rate, (0.0, 1.0), z0.ravel(), method="LSODA", rtol=TOLERANCE, atol=TOLERANCE).nfev
    sol = odec.solve(EXAMPLE["network"], (0.0, 1.0), z0, params, method=solver, rtol=TOLERANCE, atol=TOLERANCE)
    return sol.stats["nfev"]


def solver_orders(arguments):
    z0 = np.linspace(-1.0, 1.0, 41)[:, None]
    strengths = STRENGTHS[-1:] if arguments.quick else STRENGTHS
    plain = EXAMPLE["trained"](0.0, z0)
    found = {0: (plain, 0.0, error_of(plain, z0))} | {k: strongest(k, z0, strengths) for k in ORDERS}
    counts = {s: [evaluations(s, found[k][0], z0) for k in found] for s in SOLVERS}
    for k, (_, strength, error) in found.items():
        told = ", ".join(f"{solver} {counts[solver][k]}" for solver in SOLVERS)
        row(f"R_{k}, strength {strength:.0e}" if k else "plain", "", told, f"error of the map {error:.3f}")
    draw(counts)


def draw(counts):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
    for solver, numbers in counts.items():
        axes.semilogy(range(len(numbers)), numbers, "o-", label=f"{solver}, order {SOLVERS[solver]}")
    axes.set(xlabel="K of the regulariser", ylabel="evaluations of f", xticks=range(7),
             xticklabels=["none", *map(str, ORDERS)])  # fmt: skip
    axes.legend(frameon=False)
    figure.savefig(FIGURE, dpi=120)


if __name__ == "__main__":
    command_line({"map": solver_orders})
