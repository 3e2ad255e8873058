"""The goals of ensembles on the CPU, measured: python tests/benchmarks/ensembles.py [CASE ...] [--peers PYTHON]

Cases: lorenz (10 000 trajectories against other codes), lanes, threads, uneven (lane use), memory, floats; all of
them by default. --peers names a Python with heyoka, numbalsoda, numba, jax and diffrax, of which those that are
missing are left out (odec depends on none of them). --quick takes few members and samples, to see that everything
runs. Accuracy is checked before anything is timed. Rows are case, goal, measured, peer; medians of runs that
alternate with the peer's.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
from benchmark import alternating, command_line, milliseconds, row, running_peers, timed

import odec
from odec.integrate.batch import Batch
from odec.integrate.ensemble import run_batch
from odec.integrate.problem import NO_TIMES, Problem

TOLERANCE = 1e-8
TOLERANCES = (1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13)
METHODS = ("tsit5", "dopri5", "vern7", "vern8", "dop853")
LORENZ_GOALS = {"heyoka, 4 lanes, 1e-8": 3, "heyoka, 4 lanes, epsilon": 3, "numbalsoda": 7, "diffrax": 25}
LIBRARIES = "heyoka", "numbalsoda", "numbalsoda_threads", "diffrax"
SIGMA, BETA = 10.0, 8 / 3


@odec.dynamics(state=("x", "y", "z"))
def lorenz(t, u, sigma, rho, beta):
    x, y, z = u
    return [sigma * (y - x), x * (rho - z) - y, x * y - beta * z]


@odec.dynamics
def driven_pendulum(t, y, push):
    return [y[1], push * np.exp(-0.1 * t) - np.sin(y[0]) - 0.1 * y[1]]


@odec.dynamics(state=("prey", "predators"))
def lotka_volterra(t, y, birth, hunt, death, feed):
    prey, predators = y
    return [birth * prey - hunt * prey * predators, feed * prey * predators - death * predators]


def rhos(members):
    return np.linspace(0.0, 21.0, members)


def solve_lorenz(members, method="tsit5", tolerance=TOLERANCE, threads=1, dtype=None):
    """The end states of Lorenz trajectories, y0 = (1, 1, 1), t to 1."""
    return odec.solve_ensemble(
        lorenz, (0.0, 1.0), np.ones(3), (SIGMA, rhos(members), BETA), batched=("rho",), method=method, rtol=tolerance,
        atol=tolerance, t_eval=[], threads=threads, dtype=dtype,
    )  # fmt: skip


def largest_error(ends, reference):
    """The largest |y - reference| / max(1, |reference|) of all members and components."""
    return float(np.max(np.abs(ends - reference) / np.maximum(1.0, np.abs(reference))))


# ---- against other codes


def against_others(arguments):
    """10 000 Lorenz trajectories on one core, end states only, every code with its error."""
    members, rounds = (1_000, 1) if arguments.quick else (10_000, 15)
    tolerances = (TOLERANCE, 1e-9, 1e-13) if arguments.quick else TOLERANCES
    reference = solve_lorenz(members, "vern9", 1e-14).y1
    ours = {f"odec {m} {tolerance:.0e}": (m, tolerance) for m in METHODS for tolerance in tolerances}
    errors = {name: largest_error(solve_lorenz(members, *how).y1, reference) for name, how in ours.items()}
    runs = {name: timed(functools.partial(solve_lorenz, members, *how)) for name, how in ours.items()}
    with (
        running_peers(arguments.peers, "peer_ensembles.py", LIBRARIES) as peers,
        tempfile.TemporaryDirectory() as folder,
    ):
        path, cores = f"{folder}/ends.npy", {}
        for peer in peers:
            for code in peer.codes:
                cores[code] = peer.ask(code=code, members=members, path=path)["cores"]
                errors[code] = largest_error(np.load(path), reference)
                runs[code] = functools.partial(seconds_of, peer, code, members)
        found = {code: seconds * cores.get(code, 1) for code, seconds in alternating(runs, rounds).items()}
    same_tolerance = [name for name, (_, tolerance) in ours.items() if tolerance == TOLERANCE]
    for name, goal in LORENZ_GOALS.items():
        codes = [code for code in found if code.startswith(name)]
        if codes:
            code = min(codes, key=lambda code: found[code])
            as_good = [name for name in ours if errors[name] <= errors[code]]
            lorenz_row(members, code, same_tolerance, "at 1e-8", goal, found, errors)
            lorenz_row(members, code, as_good, "with an error as small", "", found, errors)
    for code, seconds in sorted(found.items(), key=lambda item: item[1]):
        told = "solves nothing" if "alone" in code else f"error {errors[code]:.1e}"
        print(f"    {code}: {milliseconds(seconds)} on one core, {told}", flush=True)


def seconds_of(peer, code, members):
    return peer.ask(code=code, members=members, path=None)["seconds"]


def lorenz_row(members, code, ours, told, goal, found, errors):
    """The row of a peer's code over the quickest of ours."""
    case = f"{members:,} Lorenz trajectories to t = 1, one core: {code} over odec {told}"
    if not ours:
        return row(case, goal, "no method here", f"error {errors[code]:.1e}")
    best = min(ours, key=lambda name: found[name])
    return row(case, f"{goal} times" if goal else "", f"{found[code] / found[best]:.2f} times",
               f"{milliseconds(found[code])}, error {errors[code]:.1e}; {best} {milliseconds(found[best])}, "
               f"error {errors[best]:.1e}")  # fmt: skip


# ---- lanes against one lane


def flat_batch(model, y0, params, name, values, t1, tolerance=TOLERANCE, dtype=None):
    """(solver for a method, Batch) of a model whose parameter `name` is a number and takes each of the values."""
    system = model.bind(y0, params, dtype=dtype or np.float64)
    y, p = np.array(y0, system.dtype), np.array(params, system.dtype)
    column = list(model.parameters).index(name)
    problem = Problem((0.0, t1), y, p, tolerance, tolerance, t_eval=NO_TIMES)
    values = np.array(values, system.dtype)[:, None]
    return system.solver, Batch(problem, len(values), parameters=values, columns=np.array([column]))


def lane_cases(members):
    """{name: (goal, solver for a method, Batch)}"""
    return {
        "Lorenz": (3, *flat_batch(lorenz, np.ones(3), (SIGMA, 1.0, BETA), "rho", rhos(members), 1.0)),
        "a pendulum with sin and exp": (
            2, *flat_batch(driven_pendulum, np.zeros(2), (1.0,), "push", np.linspace(0.1, 2.0, members), 10.0),
        ),
    }  # fmt: skip


def lanes(arguments):
    """Vector lanes against the same loop with one lane, both on one core, steps of the same members."""
    members, rounds = (200, 1) if arguments.quick else (10_000, 11)
    for name, (goal, solver_of, batch) in lane_cases(members).items():
        for method in METHODS:
            solver = solver_of(method)
            wide, one = run_batch(solver, batch, threads=1), run_batch(solver, batch, threads=1, lanes=1)
            apart = largest_error(wide.y1, one.y1)
            runs = {
                "wide": timed(functools.partial(run_batch, solver, batch, threads=1)),
                "one": timed(functools.partial(run_batch, solver, batch, threads=1, lanes=1)),
            }
            found = alternating(runs, rounds)
            per_step = {k: seconds * 1e9 / int((wide.steps + wide.rejected).sum()) for k, seconds in found.items()}
            row(f"{name}, {method}: one lane over all lanes", f"{goal} times",
                f"{found['one'] / found['wide']:.2f} times",
                f"{per_step['one']:.1f} and {per_step['wide']:.1f} ns a step; ends differ by {apart:.1e}")  # fmt: skip


# ---- threads


def threads(arguments):
    """Two threads against one; the results are compared bit for bit."""
    members, rounds = (1_000, 1) if arguments.quick else (200_000, 7)
    for method in ("tsit5", "dop853"):
        one, two = (solve_lorenz(members, method, threads=k) for k in (1, 2))
        same = all(np.array_equal(getattr(one, k), getattr(two, k)) for k in ("y1", "status", "t1"))
        runs = {k: timed(functools.partial(solve_lorenz, members, method, threads=k)) for k in (1, 2)}
        found = alternating(runs, rounds)
        row(f"{members:,} Lorenz trajectories, {method}: one thread over two", "1.8 times",
            f"{found[1] / found[2]:.2f} times", f"{milliseconds(found[1])} and {milliseconds(found[2])}; results "
            f"{'are the same bits' if same else 'DIFFER'}")  # fmt: skip


# ---- lane use


def solve_uneven(params, method):
    return odec.solve_ensemble(
        lotka_volterra, (0.0, 10.0), np.ones(2), params, batched=("birth", "hunt", "death", "feed"), method=method,
        rtol=1e-6, atol=1e-9, t_eval=[], threads=1,
    )  # fmt: skip


def uneven(arguments):
    """Lotka-Volterra, parameters from 0.05 to 5: some members take a hundred times as many steps as others."""
    members = 2_000 if arguments.quick else 100_000
    rng = np.random.default_rng(4)
    params = tuple(5.0 * 10.0 ** rng.uniform(-2.0, 0.0, members) for _ in range(4))
    for method in ("tsit5", "dop853"):
        solve_uneven(tuple(p[:64] for p in params), method)
        began = time.perf_counter()
        ens = solve_uneven(params, method)
        seconds = time.perf_counter() - began
        steps = ens.steps + ens.rejected
        told = f"steps of a member {steps.min():,} to {steps.max():,}, median {np.median(steps):,.0f}"
        row(f"{members:,} uneven Lotka-Volterra trajectories, {method}: lane use", "85 %",
            f"{100 * ens.stats['lane_use']:.1f} %",
            f"{milliseconds(seconds)}, {seconds * 1e9 / steps.sum():.1f} ns a step; {told}; "
            f"{ens.stats['failed']:,} failed")  # fmt: skip


# ---- memory

MEMORY = textwrap.dedent(
    """
    import sys
    sys.path.insert(0, sys.argv[1])
    from ensembles import solve_lorenz

    def kilobytes(name):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name))

    members = int(sys.argv[2])
    solve_lorenz(1_000, threads=None)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = kilobytes("VmRSS")
    ens = solve_lorenz(members, threads=None)
    peak = kilobytes("VmHWM")
    arrays = (ens.batched["rho"], ens.flat_y1, ens.status, ens.t1, ens.steps, ens.rejected)
    kept = sum(array.nbytes for array in arrays)
    print(((peak - before) * 1024 - kept) / 2**20, kept / 2**20)
    """
)


def memory(arguments):
    """A million trajectories, the end states only: what they take beyond inputs and outputs, in a fresh process."""
    members = 10_000 if arguments.quick else 1_000_000
    command = [sys.executable, "-c", MEMORY, str(Path(__file__).parent), str(members)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    row(f"{members:,} Lorenz trajectories, end only: peak memory beyond inputs and outputs", "64 MiB",
        f"{float(out[0]):.1f} MiB", f"inputs and outputs {float(out[1]):.1f} MiB")  # fmt: skip


# ---- single precision


def floats(arguments):
    """float32 lanes, twice as many, against float64 at a tolerance that both reach."""
    members, rounds = (200, 1) if arguments.quick else (20_000, 11)
    reference = solve_lorenz(members, "vern9", 1e-13).y1
    for method in ("tsit5", "dopri5"):
        kinds = {"float64": np.float64, "float32": np.float32}
        solves = {k: functools.partial(solve_lorenz, members, method, 1e-4, dtype=d) for k, d in kinds.items()}
        errors = {k: largest_error(solve().y1, reference) for k, solve in solves.items()}
        found = alternating({k: timed(solve) for k, solve in solves.items()}, rounds)
        row(f"{members:,} Lorenz trajectories to 1e-4, {method}: float64 over float32", "",
            f"{found['float64'] / found['float32']:.2f} times",
            ", ".join(f"{k} {milliseconds(found[k])}, error {errors[k]:.1e}" for k in kinds))  # fmt: skip


CASES = {
    "lorenz": against_others, "lanes": lanes, "threads": threads, "uneven": uneven, "memory": memory, "floats": floats,
}  # fmt: skip


if __name__ == "__main__":
    command_line(CASES)
