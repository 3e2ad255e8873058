"""The goals of regularised dynamics, measured: python tests/benchmarks/regularizers.py [CASE ...] [--peers PYTHON]

Cases: jets (the gradient with R_K of two networks against jax.experimental.jet), first (a first gradient with R_3,
compile included), orders (the cost of R_K against K, into docs/figures/regulariser_cost.png); all of them by default.
--peers names a Python with jax and diffrax (odec depends on neither). --quick takes few samples, to see that everything
runs. Gradients are compared with one at 1e-11 before anything is timed. Rows are case, goal, measured, peer; medians of
runs that alternate with the peer's.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
from benchmark import alternating, command_line, milliseconds, row, running_peers, timed
from networks import CALLS, WEIGHTS, distance, given_network, network, save_networks

import odec

NETWORKS = "small", "digits"
ORDERS = 0, 2, 3, 4
MOST_ORDER = 6
FIGURE = Path(__file__).parents[2] / "docs" / "figures" / "regulariser_cost.png"


@functools.cache
def regularized(order):
    return odec.regularize(network, odec.regularizers.Taylor(order=order)) if order else network


def gradient(case, order, tolerance=None, method="dopri5", fixed=None):
    """(Solution, Gradient) of sum(z1²) + R_K; `fixed` steps of the size 1 / fixed."""
    y0, weights, rtol, atol = given_network(case)
    rtol, atol = (rtol, atol) if tolerance is None else (tolerance, tolerance)
    steps = {} if fixed is None else {"first_step": 1.0 / fixed, "max_step": 1.0 / fixed}
    model = regularized(order)
    start = model.start(y0) if order else y0
    sol, pullback = odec.solve_vjp(
        model, (0.0, 1.0), start, weights, method=method, rtol=rtol, atol=atol, t_eval=[], **steps
    )
    return sol, pullback((2 * sol.ys[0], np.ones_like(sol.ys[1])) if order else 2 * sol.ys)


# ---- against jax's jet


def jets(arguments):
    """Gradients with R_K, and what a step costs more than without."""
    with tempfile.TemporaryDirectory() as folder:
        save_networks(NETWORKS, folder)
        with running_peers(arguments.peers, "peer_regularizers.py", ("jax",), folder) as peers:
            for case in NETWORKS:
                compare(case, peers, f"{folder}/gradient.npz", 1 if arguments.quick else 7)


def compare(case, peers, path, rounds):
    runs, steps, errors = {}, {}, {}
    for order in ORDERS:
        exact = gradient(case, order, 1e-11, "dop853")[1].params
        sol, found = gradient(case, order)
        steps["odec", order], errors["odec", order] = sol.stats["steps"], distance(found.params, exact)
        runs["odec", order] = timed(functools.partial(gradient, case, order), CALLS[case])
        for peer in peers:
            answer = peer.ask(code="jax jet", case=f"{case} {order}", calls=1, path=path)
            steps["jax jet", order] = answer["steps"]
            with np.load(path) as bars:
                errors["jax jet", order] = distance([bars[w] for w in WEIGHTS], exact)
            runs["jax jet", order] = functools.partial(seconds_of, peer, case, order)
            if order == 3:
                print(f"    {case}, jax jet R_3: first gradient {answer['first']:.1f} s", flush=True)
    found = alternating(runs, rounds)
    per_step = {key: seconds / steps[key] for key, seconds in found.items()}
    for code in dict.fromkeys(code for code, _ in found):
        for order in ORDERS:
            key = code, order
            print(f"    {case}, {code} R_{order}: {milliseconds(found[key])}, {steps[key]} steps, error "
                  f"{errors[key]:.1e}, {per_step[key] / per_step[code, 0]:.2f} times the plain step")  # fmt: skip
    row(f"{case}: a step of the gradient with R_3 over a plain one", "at most 3 times",
        f"{per_step['odec', 3] / per_step['odec', 0]:.2f} times")  # fmt: skip
    for order in ORDERS[1:] if peers else ():
        ours, theirs = ("odec", order), ("jax jet", order)
        texts = (f"{milliseconds(found[key])}, {steps[key]} steps, error {errors[key]:.1e}" for key in (theirs, ours))
        row(f"{case}: gradient with R_{order}, jax jet over odec", "5 times" if order == 3 else "",
            f"{found[theirs] / found[ours]:.1f} times", "; ".join(texts))  # fmt: skip


def seconds_of(peer, case, order):
    return peer.ask(code="jax jet", case=f"{case} {order}", calls=CALLS[case], path=None)["seconds"]


# ---- a first gradient

FIRST = textwrap.dedent(
    """
    import sys, time
    sys.path.insert(0, sys.argv[1])
    import numpy as np
    from regularizers import gradient, odec

    other = odec.dynamics(lambda t, y, a: -a * y)
    sol, pullback = odec.solve_vjp(other, (0.0, 1.0), np.ones(2), (1.0,), t_eval=[])
    pullback(sol.ys)
    began = time.perf_counter()
    gradient(sys.argv[2], 3)
    print(time.perf_counter() - began)
    """
)


def first(arguments):
    """The first gradient with R_3 in a process, from the decorator on; the model is in no cache."""
    for case in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", FIRST, str(Path(__file__).parent), case]
            out = subprocess.run(command, check=True, capture_output=True, text=True,
                                 env=os.environ | {"ODEC_CACHE_DIR": folder}).stdout  # fmt: skip
        row(f"{case}: first gradient with R_3, compile included", "3 s", f"{float(out):.2f} s")


# ---- cost against the order


def orders(arguments):
    """A gradient with R_K for each K, with the same steps, over the plain one."""
    ratios = {}
    for case in NETWORKS:
        runs = {
            order: timed(functools.partial(gradient, case, order, None, "rk4", 10), CALLS[case])
            for order in range(MOST_ORDER + 1)
        }
        found = alternating(runs, 1 if arguments.quick else 9)
        ratios[case] = [found[order] / found[0] for order in range(1, MOST_ORDER + 1)]
        power = np.polyfit(np.log(range(1, MOST_ORDER + 1)), np.log(ratios[case]), 1)[0]
        row(f"{case}: gradient with R_K, K = 1 .. {MOST_ORDER}, over the plain one", "no faster than K²",
            f"as K^{power:.2f}: {', '.join(f'{r:.2f}' for r in ratios[case])}")  # fmt: skip
    draw(ratios)


def draw(ratios):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.0, 3.4), layout="constrained")
    numbers = np.arange(1, MOST_ORDER + 1)
    for case, values in ratios.items():
        axes.plot(numbers, values, "o-", label=f"{case} network")
    axes.plot(numbers, numbers.astype(float) ** 2, "k--", lw=1, label="K²")
    axes.set(xlabel="K", ylabel="gradient with R_K over the plain one", ylim=(0, 12))
    axes.legend(frameon=False)
    figure.savefig(FIGURE, dpi=120)


CASES = {"jets": jets, "first": first, "orders": orders}


if __name__ == "__main__":
    command_line(CASES)
