"""The goals of the Taylor method, measured: python tests/benchmarks/taylor.py [CASE ...] [--peers PYTHON]

Cases: lorenz, solar (the outer Solar System), bodies (100 of them), chain (Fermi, Pasta, Ulam and Tsingou's, of 1 000),
ensemble (10 000 Lorenz trajectories on one core), first (compile times); all of them by default. --peers names a Python
with heyoka, --limits a C file whose program prints the outer Solar System among its cases (odec depends on neither).
--quick takes few samples, to see that everything runs. Both solve to machine epsilon, and errors are compared before
anything is timed. Rows are case, goal, measured, peer; medians of runs that alternate with the peer's.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmark import alternating, command_line, compiled_limits, milliseconds, row, running_peers, timed

sys.path.insert(0, str(Path(__file__).parents[1] / "problems"))

from records import load, numbers

import odec

EPSILON = 2.2e-16
TO_ROUNDING: dict[str, Any] = dict(method="taylor", rtol=EPSILON, atol=EPSILON, t_eval=[])
SOLAR = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "15_outer_solar_system.py"))
MEMBERS, CUBIC = 10_000, 0.25
CALLS = 5  # one after another, whose median counts: the first after another process finds cold caches


@odec.dynamics
def lorenz(t, u, rho=28.0):
    return [10.0 * (u[1] - u[0]), u[0] * (rho - u[2]) - u[1], u[0] * u[1] - 8 / 3 * u[2]]


@odec.dynamics
def chain(t, y):
    """q, v : displacements and speeds of masses between springs, the outer ones fixed [fermi1955]."""
    q = np.concatenate([[0.0], y["q"], [0.0]])
    stretched = q[1:] - q[:-1]
    pull = stretched + CUBIC * stretched**3
    return {"q": y["v"], "v": pull[1:] - pull[:-1]}


@dataclass(frozen=True)
class Case:
    """A model, where it starts, how long it runs, and what tells its error.

    error : the state at the time `checked` -> its error
    arrays : what a peer is told: q, v where y0 is of them, masses and gravity of bodies
    goals : {code of a peer: times slower than odec}
    """

    title: str
    model: odec.Model
    y0: Any
    t1: float
    checked: float
    error: Any
    arrays: dict[str, Any]
    goals: dict[str, float]

    def solve(self, t1=None):
        return odec.solve(self.model, (0.0, self.t1 if t1 is None else t1), self.y0, **TO_ROUNDING)


# ---- the cases


def lorenz_case():
    """t to 1000, where nothing is left of what the start was; the error is that at t = 10."""
    record = next(p.record for p in load("nonstiff.json") if p.name == "lorenz")
    exact, y0 = numbers(record["reference"]["y"]), np.array(record["y0"])

    def error(y1):
        return float(np.max(np.abs(y1 - exact) / record["scale"]))

    return Case("Lorenz, t to 1000", lorenz, y0, 1000.0, 10.0, error, {"y": y0}, {"heyoka default": 1.3})


def kept(energy, q, v):
    """The relative error of an energy of (q, v), as a function of the state."""
    return lambda y1: abs(float(energy(y1["q"], y1["v"]) / energy(q, v) - 1))


def bodies_case(title, model, masses, gravity, q, v, t1, goals):
    def energy(q, v):
        return SOLAR["energy"](masses, gravity, q[None], v[None])[0]

    y0 = {"q": q, "v": v}
    return Case(title, model, y0, t1, t1, kept(energy, q, v), y0 | {"masses": masses, "gravity": gravity}, goals)


def solar_case():
    masses, gravity, q, v = (SOLAR[name] for name in ("MASSES", "GRAVITY", "POSITIONS", "SPEEDS"))
    model, goals = SOLAR["attracting"](masses, gravity), {"heyoka default": 2.7, "heyoka compact": 3.4}
    return bodies_case("outer Solar System, 1000 years", model, masses, gravity, q, v, 1000.0, goals)


def attracting(masses):
    """As the example's model, for so many bodies that a matrix of pulls would be all but empty."""
    i, j = np.triu_indices(len(masses), 1)
    by_i, by_j = masses[i, None], masses[j, None]

    @odec.dynamics
    def bodies(t, y):
        between = y["q"][j] - y["q"][i]
        pull = between * np.sum(between**2, axis=1, keepdims=True) ** -1.5
        rate = np.zeros_like(y["q"])
        np.add.at(rate, i, by_j * pull)
        np.subtract.at(rate, j, by_i * pull)
        return {"q": y["v"], "v": rate}

    return bodies


def many_bodies_case(count=100):
    """Bodies about the points of a grid, a unit apart."""
    rng, side = np.random.default_rng(6), int(np.ceil(count ** (1 / 3)))
    grid = np.stack(np.unravel_index(np.arange(count), (side,) * 3), axis=1)
    q, v = grid + rng.uniform(-0.2, 0.2, (count, 3)), rng.normal(scale=0.1, size=(count, 3))
    masses = rng.uniform(0.5, 1.5, count) / count
    return bodies_case("100 bodies, t to 2", attracting(masses), masses, 1.0, q, v, 2.0, {"heyoka compact": 5})


def chain_case(count=1_000):
    """The lowest mode, so wide that the cubic springs matter."""
    place = np.pi * np.arange(1, count + 1) / (count + 1)
    y0 = {"q": 100.0 * np.sin(place), "v": 0.1 * np.sin(5 * place)}

    def energy(q, v):
        stretched = np.diff(np.concatenate([[0.0], q, [0.0]]).astype(np.longdouble))
        return np.sum(v.astype(np.longdouble) ** 2) / 2 + np.sum(stretched**2 / 2 + CUBIC * stretched**4 / 4)

    return Case("chain of 1 000, t to 200", chain, y0, 200.0, 200.0, kept(energy, **y0), y0, {"heyoka compact": 5})


CASES = {"lorenz": lorenz_case, "solar": solar_case, "bodies": many_bodies_case, "chain": chain_case}


# ---- one trajectory


@contextlib.contextmanager
def heyoka_for(case, python):
    """The path of a file for end states, and the Peers, which know the case."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/case.npz", **case.arrays)
        with running_peers(python, "peer_taylor.py", ("heyoka",), f"{folder}/case.npz") as peers:
            yield f"{folder}/end.npy", peers


def one(name, arguments):
    """A case against other codes."""
    case, rounds = CASES[name](), 3 if arguments.quick else 15
    errors, steps = {"odec": case.error(case.solve(case.checked).y1)}, {"odec": case.solve().stats["steps"]}
    runs = {"odec": timed(case.solve, CALLS)}
    with heyoka_for(case, arguments.peers) as (path, peers):
        for peer in peers:
            for code in case.goals:
                peer.ask(code=code, t1=case.checked, path=path)
                errors[code] = case.error(end_state(case, path))
                steps[code] = peer.ask(code=code, t1=case.t1, path=None)["steps"]
                runs[code] = functools.partial(seconds_of, peer, code=code, t1=case.t1, path=None, calls=CALLS)
        found = alternating(runs, rounds)
    texts = {
        code: f"{code} {milliseconds(seconds)}, {steps[code]:,} steps of {seconds / steps[code] * 1e6:.2f} us, "
        f"error {errors[code]:.1e}"
        for code, seconds in found.items()
    }
    for code, goal in case.goals.items():
        if code in found:
            row(f"{case.title}: {code} over odec", f"{goal} times", f"{found[code] / found['odec']:.2f} times",
                f"{texts[code]}; {texts['odec']}")  # fmt: skip
    if name == "solar" and arguments.limits:
        against_limits(case, arguments.limits, rounds)
    print(f"    {case.title}: {texts['odec']}", flush=True)


def end_state(case, path):
    """A peer's end, in the structure of the case."""
    end = np.load(path)
    if not isinstance(case.y0, dict):
        return end
    q, v = end.reshape(2, *case.y0["q"].shape)
    return {"q": q, "v": v}


def seconds_of(peer, **request):
    return peer.ask(**request)["seconds"]


def against_limits(case, source, rounds):
    """Hand-written C, which reports the best of nine runs, and the best of nine of odec's."""
    program, once = compiled_limits(source), timed(case.solve)

    def c():
        lines = subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()
        return next(r["seconds"] for r in map(json.loads, lines) if r["case"].startswith("outer solar system"))

    found = alternating({"C": c, "odec": lambda: min(once() for _ in range(9))}, rounds)
    row(f"{case.title}: odec over C", "1.25 times", f"{found['odec'] / found['C']:.2f} times",
        f"C {milliseconds(found['C'])}, odec {milliseconds(found['odec'])}, each the best of 9")  # fmt: skip


# ---- many trajectories


def solve_ensemble(members=MEMBERS):
    rho = np.linspace(0.0, 21.0, members)
    return odec.solve_ensemble(lorenz, (0.0, 1.0), np.ones(3), (rho,), batched="rho", threads=1, **TO_ROUNDING)


def ensemble(arguments):
    """10 000 Lorenz trajectories on one core, end states only."""
    rho = np.linspace(0.0, 21.0, MEMBERS)
    exact = odec.solve_ensemble(
        lorenz, (0.0, 1.0), np.ones(3), (rho,), batched="rho", method="vern9", rtol=1e-14, atol=1e-14, t_eval=[]
    ).y1
    errors, runs = {"odec": distance(solve_ensemble().y1, exact)}, {"odec": timed(solve_ensemble)}
    with (
        tempfile.TemporaryDirectory() as folder,
        running_peers(arguments.peers, "peer_ensembles.py", ("heyoka",)) as peers,
    ):
        for peer in peers:
            for code in peer.codes:
                request = dict(code=code, members=MEMBERS)
                peer.ask(**request, path=f"{folder}/ends.npy")
                errors[code] = distance(np.load(f"{folder}/ends.npy"), exact)
                runs[code] = functools.partial(seconds_of, peer, **request, path=None)
        found = alternating(runs, 3 if arguments.quick else 15)
    code = "heyoka, 4 lanes, epsilon"
    if code in found:
        row("10 000 Lorenz trajectories, t to 1, one core: heyoka's 4 lanes over odec", "2 times",
            f"{found[code] / found['odec']:.2f} times",
            "; ".join(f"{c} {milliseconds(found[c])}, error {errors[c]:.1e}" for c in (code, "odec")))  # fmt: skip
    for code, seconds in found.items():
        told = "solves nothing" if "alone" in code else f"error {errors[code]:.1e}"
        print(f"    10 000 Lorenz trajectories, {code}: {milliseconds(seconds)}, {told}", flush=True)


def distance(ends, exact):
    """The largest |y - exact| / max(1, |exact|) of all members and components."""
    return float(np.max(np.abs(ends - exact) / np.maximum(1.0, np.abs(exact))))


# ---- compile times

FIRST_GOALS = {"lorenz": "0.3 s", "solar": "0.6 s", "bodies": "1.5 s"}
FIRST = textwrap.dedent(
    """
    import sys, time
    sys.path.insert(0, sys.argv[1])
    from taylor import CASES, TO_ROUNDING, odec

    @odec.dynamics
    def other(t, y):
        return [y[1], -y[0] ** 3]

    odec.solve(other, (0.0, 1.0), [1.0, 0.0], **TO_ROUNDING)
    case = CASES[sys.argv[2]]()
    began = time.perf_counter()
    sol = case.solve()
    print(time.perf_counter() - began - sol.stats["solve_seconds"])
    """
)


def first(arguments):
    """What a first solve takes beyond its steps, in a process that has solved another model: new, and cached."""
    for name, goal in FIRST_GOALS.items():
        fresh, cached = [], []
        for _ in range(1 if arguments.quick else 3):
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-c", FIRST, str(Path(__file__).parent), name]
                for seconds in (fresh, cached):
                    out = subprocess.run(command, check=True, capture_output=True, text=True,
                                         env=os.environ | {"ODEC_CACHE_DIR": folder}).stdout  # fmt: skip
                    seconds.append(float(out))
        case = CASES[name]()
        title, peer = case.title.split(",")[0], ", ".join(heyoka_compiles(case, arguments.peers))
        row(f"{title}: compile", goal, f"{statistics.median(fresh):.2f} s", peer)
        row(f"{title}: from the disk cache", "0.1 s", f"{statistics.median(cached):.3f} s")


def heyoka_compiles(case, python):
    """Each code that the case names, with the seconds that it took to compile."""
    with heyoka_for(case, python) as (_, peers):
        for peer in peers:
            for code in case.goals:
                yield f"{code} {peer.ask(code=code, t1=1.0, path=None)['compile']:.2f} s"


MEASURED = {name: functools.partial(one, name) for name in CASES} | {"ensemble": ensemble, "first": first}


if __name__ == "__main__":
    command_line(MEASURED, ("--limits",))
