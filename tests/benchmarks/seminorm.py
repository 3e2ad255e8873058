"""Evaluations that the seminorm saves: python tests/benchmarks/seminorm.py

Gradients by backsolve of six models, and of the networks of examples 16 to 18 as training leaves them, with the norm
sqrt(|(y, a)|² + |g|²) and with |(y, a)| alone; a histogram goes to docs/figures/seminorm.png. The published
counts are against the largest of the parts' norms, at most sqrt(2) smaller: some 7 % fewer evaluations at order 5.
Rows are case, parameters, tolerance, evaluations without and with it, the share saved, and the largest errors of the
gradient by the parameters, relative to its largest entry, against one at 1e-10. Counts, no times: any machine will do.
"""

from __future__ import annotations

import runpy
import statistics
from pathlib import Path

import numpy as np

import odec
from odec.gradients.continuous import Backsolve, Backward
from odec.solving import posed

PUBLISHED = "40 %, up to 62 % [Kidger, Chen and Lyons, ICML 139 (2021)]"
TOLERANCES = (1e-3, 1e-5, 1e-7)
EXACT = 1e-10
EXAMPLES = Path(__file__).parents[2] / "examples"
FIGURE = Path(__file__).parents[2] / "docs" / "figures" / "seminorm.png"


@odec.dynamics
def spiral(t, y, w1, b1, w2, b2):
    return np.tanh(y**3 @ w1 + b1) @ w2 + b2


@odec.dynamics
def lotka_volterra(t, y, a, b, c, d):
    return [a * y[0] - b * y[0] * y[1], d * y[0] * y[1] - c * y[1]]


@odec.dynamics
def network(t, y, w1, b1, w2, b2):
    return np.tanh(y @ w1 + b1) @ w2 + b2


@odec.dynamics
def pendulum(t, y, length, damping, w1, b1, w2):
    force = np.tanh(y @ w1 + b1) @ w2
    return np.stack([y[1], -9.81 / length * np.sin(y[0]) - damping * y[1] + force])


@odec.dynamics
def fitzhugh_nagumo(t, y, a, b, tau, current):
    return [y[0] - y[0] ** 3 / 3 - y[1] + current, (y[0] + a - b * y[1]) / tau]


@odec.dynamics
def reaction_diffusion(t, y, d, rate):
    return d * (np.roll(y, 1) - 2 * y + np.roll(y, -1)) + rate * y * (1 - y)


def weights(rng, n, hidden, out):
    """(w1, b1, w2, b2), each uniform within 1 / sqrt(inputs)."""
    shapes = ((n, hidden), n), (hidden, n), ((hidden, out), hidden), (out, hidden)
    return tuple(rng.uniform(-1, 1, shape) / np.sqrt(inputs) for shape, inputs in shapes)


def cases():
    """(name, model, rows, y0, params); a model that magnifies errors on its way back has more rows."""
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, 40, endpoint=False)
    w1, b1, w2, _ = weights(rng, 2, 16, 1)
    return (
        ("spiral network, 2-50-2", spiral, [25.0], np.array([2.0, 0.0]), weights(rng, 2, 50, 2)),
        ("Lotka-Volterra", lotka_volterra, [10.0], np.ones(2), (1.5, 1.0, 3.0, 1.0)),
        ("network 2-50-2, batch 20", network, [5.0], rng.normal(size=(20, 2)), weights(rng, 2, 50, 2)),
        ("pendulum with a network's force", pendulum, [5.0], np.array([1.5, 0.0]), (1.0, 0.2, w1, b1, w2[:, 0])),
        ("FitzHugh-Nagumo", fitzhugh_nagumo, np.arange(1.0, 20.5), np.array([-1.0, 1.0]), (0.7, 0.8, 12.5, 0.5)),
        ("reaction and diffusion, 40 points", reaction_diffusion, [1.0], 0.5 + 0.4 * np.sin(2 * np.pi * x),
         (np.full(40, 2.0), np.linspace(0.5, 1.5, 40))),
    )  # fmt: skip


def trained_cases():
    """As cases, of networks that have been trained, with the terms that they were trained with."""
    easy, digits, flow = (
        runpy.run_path(str(EXAMPLES / f"{name}.py")) for name in ("17_easy_dynamics", "18_digits", "16_flow")
    )
    z0 = np.linspace(-1.0, 1.0, 41)[:, None]
    for title, strength in (("map z + z³", 0.0), ("map z + z³, trained with R_3", easy["STRENGTH"])):
        yield title, easy["network"], [1.0], z0, easy["trained"](strength, z0)
    images, labels = digits["digits"]()
    for name in ("plain", "R_2", "R_3", "kinetic and Jacobian", "error estimate", "stiffness"):
        params, _ = digits["trained"](digits["NETS"][name], images[:1500], labels[:1500])
        yield f"digits, {name}", digits["network"], [1.0], images[1500:], {k: params[k] for k in digits["DYNAMICS"]}
    rng = np.random.default_rng(0)
    for name, trace in (("rings", "exact"), ("moons", "hutchinson")):
        layers, _ = flow["trained"](flow[name], trace, rng)
        model, data = odec.cnf(flow["network"]), flow[name](rng, 200)
        yield f"flow of {name}", model, [1.0], model.start(data), (layers,)


def adjoint(model, rows, y0, params, tolerance, how):
    """The Reconstructed of the sum of the rows' squares."""
    given = posed(model, (0.0, rows[-1]), y0, params, rtol=tolerance, atol=tolerance * 1e-1, t_eval=rows)
    start = given.problem.y.copy()
    out = given.run()
    return Backsolve(given.system, given.record, given.problem, out, start, how).pull(2 * out.ys)


def error(found, exact):
    return np.max(np.abs(found.p - exact.p)) / np.max(np.abs(exact.p))


def main():
    print("| case | parameters | tolerance | without | with | saved | error without | error with |")
    print("|---|---|---|---|---|---|---|---|")
    saved = []
    for name, *case in (*cases(), *trained_cases()):
        exact = adjoint(*case, EXACT, Backward())
        for tolerance in TOLERANCES:
            whole, semi = (adjoint(*case, tolerance, Backward(seminorm=s)) for s in (False, True))
            saved.append(1 - semi.nfev / whole.nfev)
            print(f"| {name} | {semi.p.size} | {tolerance:.0e} | {whole.nfev} | {semi.nfev} | {saved[-1]:.0%} "
                  f"| {error(whole, exact):.1e} | {error(semi, exact):.1e} |")  # fmt: skip
    draw(saved)
    print(f"\nmedian {statistics.median(saved):.0%}, largest {max(saved):.0%}; published: {PUBLISHED}")


def draw(saved):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
    shares = [saved[k :: len(TOLERANCES)] for k in range(len(TOLERANCES))]
    labels = [f"tolerance {tolerance:.0e}" for tolerance in TOLERANCES]
    edges = np.arange(np.floor(10 * min(saved)) / 10, 0.71, 0.05)
    axes.hist(shares, edges, stacked=True, label=labels)
    axes.axvline(0.4, color="k", linewidth=1, linestyle="--", label="published median")
    axes.set(xlabel="share of the evaluations going back that the seminorm saves", ylabel="gradients")
    axes.legend(frameon=False)
    figure.savefig(FIGURE, dpi=120)


if __name__ == "__main__":
    main()
