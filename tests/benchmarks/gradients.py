"""The goals of gradients, measured: python tests/benchmarks/gradients.py [CASE ...] [--peers PYTHON]

Cases: networks (three neural ODEs against other codes), first (a first gradient, compile included), ensemble (Lorenz
trajectories), rows (Lotka-Volterra with 100 output times), backward (the way back over the way forward); all of them
by default. --peers names a Python with jax, diffrax, torch and torchdiffeq, of which those that are missing are left
out (odec depends on none of them). --quick takes few samples, to see that everything runs. Gradients are compared
with one at 1e-12 before anything is timed. Rows are case, goal, measured, peer; medians of runs that alternate with
the peers'.
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
from networks import CALLS, distance, given_network, network, save_networks

import odec

LIBRARIES = "diffrax", "torchdiffeq"
NETWORKS = "small", "flow", "mnist"
GOALS = {
    "small": {"diffrax": 3, "torchdiffeq odeint_adjoint": 50},
    "flow": {"diffrax": 3},
    "mnist": {"": 3},
}  # times slower than odec, the quickest code whose name starts so
ADJOINTS = "discrete", "backsolve", "interpolating"


@odec.dynamics
def lorenz(t, u, rho):
    return [10.0 * (u[1] - u[0]), u[0] * (rho - u[2]) - u[1], u[0] * u[1] - 8 / 3 * u[2]]


@odec.dynamics
def lotka_volterra(t, y, a, b, c, d):
    return [a * y[0] - b * y[0] * y[1], d * y[0] * y[1] - c * y[1]]


def gradient(case, adjoint="discrete", tolerance=None, method="dopri5"):
    """(Solution, Gradient) of sum(y1²)."""
    y0, weights, rtol, atol = given_network(case)
    rtol, atol = (rtol, atol) if tolerance is None else (tolerance, tolerance)
    sol, pullback = odec.solve_vjp(
        network, (0.0, 1.0), y0, weights, method=method, rtol=rtol, atol=atol, t_eval=[], adjoint=adjoint
    )
    return sol, pullback(2 * sol.ys)


# ---- against other codes


def networks(arguments):
    """The gradient of three neural ODEs by their weights."""
    with tempfile.TemporaryDirectory() as folder:
        save_networks(NETWORKS, folder)
        with running_peers(arguments.peers, "peer_gradients.py", LIBRARIES, folder) as peers:
            for case in NETWORKS:
                compare(case, peers, f"{folder}/gradient.npz", 1 if arguments.quick else 9)


def compare(case, peers, path, rounds):
    exact = gradient(case, tolerance=1e-12, method="dop853")[1].params
    errors = {f"odec {a}": distance(gradient(case, a)[1].params, exact) for a in ADJOINTS}
    runs = {f"odec {a}": timed(functools.partial(gradient, case, a), CALLS[case]) for a in ADJOINTS}
    for peer in peers:
        for code in peer.codes:
            peer.ask(code=code, case=case, calls=1, path=path)
            with np.load(path) as bars:
                errors[code] = distance([bars[w] for w in ("w1", "b1", "w2", "b2")], exact)
            runs[code] = functools.partial(seconds_of, peer, code, case)
    found = alternating(runs, rounds)
    for name, goal in GOALS[case].items():
        codes = [code for code in found if code.startswith(name) and not code.startswith("odec")]
        if codes:
            code = min(codes, key=lambda code: found[code])
            theirs, ours = (f"{milliseconds(found[c])}, error {errors[c]:.1e}" for c in (code, "odec discrete"))
            row(f"{case}: {code} over odec discrete", f"{goal} times",
                f"{found[code] / found['odec discrete']:.2f} times", f"{theirs}; {ours}")  # fmt: skip
    for code, seconds in sorted(found.items(), key=lambda item: item[1]):
        print(f"    {case}, {code}: {milliseconds(seconds)}, error {errors[code]:.1e}", flush=True)


def seconds_of(peer, code, case):
    return peer.ask(code=code, case=case, calls=CALLS.get(case, 1), path=None)["seconds"]


# ---- a first gradient

FIRST = textwrap.dedent(
    """
    import sys, time
    sys.path.insert(0, sys.argv[1])
    import numpy as np
    from gradients import gradient, lotka_volterra, odec

    if sys.argv[2] == "installed":
        sol, pullback = odec.solve_vjp(lotka_volterra, (0.0, 1.0), np.ones(2), (1.0, 1.0, 1.0, 1.0), t_eval=[])
        pullback(sol.ys)
    began = time.perf_counter()
    gradient("small")
    print(time.perf_counter() - began)
    """
)


def first(arguments):
    """The first gradient of the small network in a process, from the decorator on; the model is in no cache."""
    for told, kind in (("", "installed"), (", the loops too", "bare")):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", FIRST, str(Path(__file__).parent), kind]
            out = subprocess.run(command, check=True, capture_output=True, text=True,
                                 env=os.environ | {"ODEC_CACHE_DIR": folder}).stdout  # fmt: skip
        row(f"small: first gradient, compile included{told}", "2 s" if not told else "", f"{float(out):.2f} s")


# ---- ensembles


def ensemble_gradient(members):
    rho = np.linspace(0.0, 21.0, members)
    ens, pullback = odec.solve_vjp(
        lorenz, (0.0, 1.0), np.ones(3), (rho,), batched="rho", method="dopri5", rtol=1e-8, atol=1e-8, t_eval=[]
    )
    return pullback(2 * ens.ys).params[0]


def ensemble(arguments):
    """The gradient of Lorenz trajectories by the rho of each, on all cores."""
    members, rounds = (1_000, 1) if arguments.quick else (100_000, 3)
    case, some = f"lorenz {members}", np.linspace(0, members - 1, 10).astype(int)
    rho = np.linspace(0.0, 21.0, members)[some]
    exact = []
    for value in rho:
        sol, pullback = odec.solve_vjp(
            lorenz, (0.0, 1.0), np.ones(3), (value,), method="dop853", rtol=1e-13, atol=1e-13, t_eval=[]
        )
        exact.append(pullback(2 * sol.ys).params[0])
    errors = {"odec": distance([ensemble_gradient(members)[some]], [np.array(exact)])}
    runs = {"odec": timed(functools.partial(ensemble_gradient, members))}
    with (
        tempfile.TemporaryDirectory() as folder,
        running_peers(arguments.peers, "peer_gradients.py", LIBRARIES[:1], folder) as peers,
    ):
        for peer in peers:
            code, path = "diffrax recursive checkpoint", f"{folder}/gradient.npz"
            peer.ask(code=code, case=case, calls=1, path=path)
            errors[code] = distance([np.load(path)["rho"][some]], [np.array(exact)])
            runs[code] = functools.partial(seconds_of, peer, code, case)
        found = alternating(runs, rounds)
    for code in list(found)[1:]:
        row(f"gradient of {members:,} Lorenz trajectories: {code} over odec", "15 times",
            f"{found[code] / found['odec']:.1f} times", f"{milliseconds(found[code])}, error {errors[code]:.1e}; "
            f"{milliseconds(found['odec'])}, error {errors['odec']:.1e}")  # fmt: skip


# ---- ratios of our own


def rows(arguments):
    """Lotka-Volterra, four parameters, 100 output times: a gradient over a plain solve."""
    times, y0, p = np.linspace(0.1, 10.0, 100), np.ones(2), (1.5, 1.0, 3.0, 1.0)
    system = lotka_volterra.bind(y0, p)

    def gradient():
        sol, pullback = odec.solve_vjp(system, (0.0, 10.0), y0, p, t_eval=times)
        pullback(2 * sol.ys)

    runs = {
        "solve": timed(lambda: odec.solve(system, (0.0, 10.0), y0, p, t_eval=times)),
        "gradient": timed(gradient),
    }  # fmt: skip
    found = alternating(runs, 5 if arguments.quick else 301)
    row("Lotka-Volterra, 4 parameters, 100 output times: gradient over solve", "4 times",
        f"{found['gradient'] / found['solve']:.2f} times",
        f"{milliseconds(found['gradient'])} and {milliseconds(found['solve'])}")  # fmt: skip


def backward(arguments):
    """The way back over the way forward, of the discrete adjoint."""
    for case in NETWORKS:
        y0, weights, rtol, atol = given_network(case)
        options = dict(method="dopri5", rtol=rtol, atol=atol, t_eval=[])
        sol, pullback = odec.solve_vjp(network, (0.0, 1.0), y0, weights, **options)
        bar = 2 * sol.ys
        solve = functools.partial(odec.solve, network, (0.0, 1.0), y0, weights, **options)
        runs = {"forward": timed(solve), "backward": timed(functools.partial(pullback, bar))}
        found = alternating(runs, 3 if arguments.quick else 21)
        row(f"{case}: backward over forward", "3 times", f"{found['backward'] / found['forward']:.2f} times",
            f"{milliseconds(found['backward'])} and {milliseconds(found['forward'])}, {sol.stats['steps']} steps and "
            f"{sol.stats['rejected']} rejected")  # fmt: skip


CASES = {"networks": networks, "first": first, "ensemble": ensemble, "rows": rows, "backward": backward}


if __name__ == "__main__":
    command_line(CASES)
