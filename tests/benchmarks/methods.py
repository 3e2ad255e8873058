"""The goals of the explicit methods, measured: python tests/benchmarks/methods.py [CASE ...] [--peers PYTHON]

Cases: work (time to an error), step (time of a step), compile, events, memory, progress; all of them by default.
--peers names a Python with numba and numbalsoda (odec depends on neither of them there); `step` needs gcc. --quick
takes few samples, to see that everything runs. Accuracy is checked before anything is timed. Rows are
case, goal, measured, peer; medians of runs that alternate with the peer's.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import straight_line
from benchmark import command_line, row

PROBLEMS = Path(__file__).parents[1] / "problems"
sys.path.insert(0, str(PROBLEMS))

from records import load, numbers  # noqa: E402

import odec  # noqa: E402

NONSTIFF = {problem.name: problem for problem in load("nonstiff.json")}
TARGETS = (1e-6, 1e-10)
TOLERANCES = tuple(10 ** (-3 - k / 2) for k in range(23))
SCIPY_TOLERANCES = TOLERANCES[4:22]  # SciPy raises smaller ones
LONGEST = 0.1  # seconds of a solve at which the scan of a method stops: others are quicker by far
TIMED_PROBLEMS = ("arenstorf", "pleiades")


def microseconds(seconds):
    return f"{seconds * 1e6:,.0f} us"


def adaptive():
    return [record.name for record in odec.methods() if record.error_order is not None]


def scaled_error(problem, y1):
    """max_i |y_i - reference_i| / scale_i at the end."""
    return float(np.max(np.abs(y1 - numbers(problem.record["reference"]["y"])) / problem.record["scale"]))


# ---- time to an error


@dataclass(frozen=True)
class Point:
    """A solve at one tolerance: its error and the median seconds of a call and of what happens inside it."""

    tolerance: float
    error: float
    whole: float
    inside: float


def time_at(points, target, which):
    """Seconds at which the error falls to `target` for good, log time linear in log error.

    None where it never does.
    """
    worst = lasting_errors(points)
    below = np.flatnonzero(worst <= target)
    if not below.size:
        return None
    first = int(below[0])
    if first == 0 or worst[first] == target:
        return getattr(points[first], which)
    share = math.log(worst[first - 1] / target) / math.log(worst[first - 1] / worst[first])
    before, after = (math.log(getattr(points[i], which)) for i in (first - 1, first))
    return math.exp(before + share * (after - before))


def lasting_errors(points):
    """The error of each tolerance as the largest of it, of all tighter ones and of the last three: a lucky
    zero of the error does not pass for accuracy."""
    errors = [p.error for p in points]
    return np.maximum(np.maximum.accumulate(errors[::-1])[::-1], max(errors[-3:]))


def odec_solver(problem, method):
    """A call at a tolerance on the compiled system, without output."""
    system, record = problem.system, problem.record
    span, y0 = (record["t0"], record["t1"]), problem.y0

    def solve(tolerance):
        return odec.solve(
            system, span, y0, problem.params, method=method, rtol=tolerance, atol=tolerance, t_eval=[], throw=False
        )

    solve(1e-3)
    return solve


def odec_point(solve, problem, tolerance, seconds, repeats):
    began = time.perf_counter()
    sol = solve(tolerance)
    calls = max(1, int(seconds / (time.perf_counter() - began)))
    whole, inside = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        stats = [solve(tolerance).stats["solve_seconds"] for _ in range(calls)]
        whole.append((time.perf_counter() - began) / calls)
        inside.append(statistics.median(stats))
    error = scaled_error(problem, sol.y1) if sol.success else math.inf
    return Point(tolerance, error, statistics.median(whole), statistics.median(inside))


def odec_points(problem, method, seconds, repeats):
    """Points over the tolerances, from loose to tight, to the first whose solve takes too long."""
    solve, points = odec_solver(problem, method), []
    for tolerance in TOLERANCES:
        points.append(odec_point(solve, problem, tolerance, seconds, repeats))
        if points[-1].whole > LONGEST:
            break
    return points


class Peer:
    """numbalsoda's DOP853 in another Python; use as a context."""

    def __init__(self, python):
        script = str(Path(__file__).with_name("peer_dop853.py"))
        self.process = subprocess.Popen([python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate()

    def point(self, problem, tolerance, seconds):
        record = problem.record
        request = {
            "problem": problem.name, "t_span": [record["t0"], record["t1"]], "y0": record["y0"],
            "params": list(record["params"].values()), "tolerance": tolerance, "seconds": seconds,
        }  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        error = scaled_error(problem, np.array(answer["y"])) if answer["ok"] else math.inf
        return Point(tolerance, error, answer["whole"], answer["inside"])


def merged(rounds):
    """Points of several rounds as one list: medians of the seconds."""
    return [
        Point(
            same[0].tolerance, same[0].error,
            statistics.median(p.whole for p in same), statistics.median(p.inside for p in same),
        )
        for same in zip(*rounds)
    ]  # fmt: skip


def pleiades_in_numpy(masses):
    """The Pleiades as one writes them for SciPy: all pairs at once."""

    def f(t, y):
        place = y[:14].reshape(2, 7)
        apart = place[:, None, :] - place[:, :, None]
        square = (apart**2).sum(axis=0)
        np.fill_diagonal(square, 1.0)
        pull = masses / (square * np.sqrt(square))
        return np.concatenate([y[14:], (pull * apart).sum(axis=2).ravel()])

    return f


def scipy_points(problem, repeats):
    from scipy.integrate import solve_ivp

    record, p = problem.record, np.array(list(problem.record["params"].values()))
    f = pleiades_in_numpy(p) if problem.name == "pleiades" else lambda t, y: problem.f(t, y, p)
    points = []
    for tolerance in SCIPY_TOLERANCES:
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            sol = solve_ivp(f, (record["t0"], record["t1"]), problem.y0, method="DOP853", rtol=tolerance,
                            atol=tolerance, t_eval=[record["t1"]])  # fmt: skip
            times.append(time.perf_counter() - began)
        seconds = statistics.median(times)
        points.append(Point(tolerance, scaled_error(problem, sol.y[:, -1]), seconds, seconds))
    return points


def work(arguments):
    """Time to errors of 1e-6 and 1e-10 on Arenstorf's orbit and the Pleiades."""
    seconds, repeats, rounds = (1e-3, 1, 1) if arguments.quick else (0.01, 3, 3)
    for name in TIMED_PROBLEMS:
        problem = NONSTIFF[name]
        ours, peer = {method: [] for method in adaptive()}, []
        with Peer(arguments.peers) if arguments.peers else contextlib.nullcontext() as numbalsoda:
            for _ in range(rounds):
                if numbalsoda is not None:
                    peer.append([numbalsoda.point(problem, tolerance, seconds) for tolerance in TOLERANCES])
                for method, points in ours.items():
                    points.append(odec_points(problem, method, seconds, repeats))
        ours = {method: merged(points) for method, points in ours.items()}
        work_rows(problem, ours, merged(peer), scipy_points(problem, 1 if arguments.quick else 3))


def work_rows(problem, ours, peer, scipy):
    for target in reachable(problem, ours, peer):
        for which, told in (("whole", "whole call"), ("inside", "inside the call")):
            found = {method: time_at(points, target, which) for method, points in ours.items()}
            ranked = sorted((seconds, method) for method, seconds in found.items() if seconds is not None)
            case = f"{problem.name} to {target:.1e}, {told}"
            if not ranked:
                row(case, "a third of numbalsoda", "reached by no method")
                continue
            best, method = ranked[0]
            for label, points, goal in (("numbalsoda", peer, 3), ("SciPy", scipy, 100)):
                theirs = time_at(points, target, which)
                if theirs is not None:
                    row(f"{case}: {label} dop853 over {method}", f"{goal} times", f"{theirs / best:.2f} times",
                        f"{microseconds(theirs)}, odec {microseconds(best)}")  # fmt: skip
            listed = ", ".join(f"{method} {microseconds(seconds)}" for seconds, method in ranked)
            print(f"    {case}: {listed}", flush=True)


def reachable(problem, ours, peer):
    """The targets, one below what the peer and the best method reach raised to that."""
    best = min(lasting_errors(points)[-1] for points in ours.values())
    theirs = lasting_errors(peer)[-1] if peer else 0.0
    floor = max(best, theirs)
    if min(TARGETS) < floor:
        rounding = 1.1e-16 * problem.record["cond"]
        print(f"    {problem.name}: least error of odec {best:.1e}, of the peer {theirs:.1e}; "
              f"rounding times cond is {rounding:.1e}")  # fmt: skip
    return [max(target, 1.01 * floor) for target in TARGETS]


# ---- the time of a step

STEP_CASES = {  # right-hand sides in C of which the quickest counts, fixed step, steps of a run in C and in odec
    "lorenz": ((straight_line.LORENZ,), 1e-3, 300_000, 100_000),
    "pleiades": ((straight_line.PLEIADES, straight_line.PLEIADES_PAIRS), 1e-4, 20_000, 10_000),
}


def step(arguments):
    """Nanoseconds of a step in the loop against the straight-line C program of the same method."""
    runs = 3 if arguments.quick else 9
    for name, (variants, size, c_steps, steps) in STEP_CASES.items():
        problem = NONSTIFF[name]
        params = np.array(list(problem.record["params"].values()))
        models = [straight_line.CModel(name, rhs, problem.y0, params, size, c_steps) for rhs in variants]
        for record in odec.methods():
            if not straight_line.translates(record):
                continue
            bound = min(straight_line.step_nanoseconds(model, record, runs=runs)[0] for model in models)
            ours = statistics.median(step_nanoseconds(problem, record, size, steps) for _ in range(runs))
            bound = min(bound, *(straight_line.step_nanoseconds(model, record, runs=runs)[0] for model in models))
            peer = f"C {bound:.1f} ns"
            if record.error_order is not None:
                guarded = min(straight_line.step_nanoseconds(m, record, guarded=True, runs=runs)[0] for m in models)
                peer += f", with norm and step size {guarded:.1f} ns"
            row(f"{name}, {record.name}: a step", "1.25 of C", f"{ours / bound:.2f} ({ours:.1f} ns)", peer)


def step_nanoseconds(problem, record, size, steps):
    """Seconds inside the loop over tried steps, for a run of `steps` of them."""
    options = {"first_step": size} if record.error_order is None else {"rtol": 1e-6, "atol": 1e-6, "max_step": size}
    sol = odec.solve(
        problem.system, (0.0, steps * size), problem.y0, problem.params, method=record.name, t_eval=[], **options
    )
    tried = sol.stats["steps"] + sol.stats["rejected"]
    assert tried >= 0.9 * steps, sol.message
    return sol.stats["solve_seconds"] / tried * 1e9


# ---- compiling

COMPILE = textwrap.dedent(
    """
    import sys, time
    sys.path.insert(0, sys.argv[1])
    import odec
    from records import load

    @odec.dynamics
    def other(t, y, mu=1.0):
        return [y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]]

    problem = next(p for p in load("nonstiff.json") if p.name == "pleiades")
    odec.solve(other, (0.0, 1.0), [1.0, 0.0])
    began = time.perf_counter()
    sol = odec.solve(problem.model, (0.0, 0.1), problem.y0, problem.params, method=sys.argv[2])
    print(time.perf_counter() - began)
    """
)


def compile_time(arguments):
    """The first solve of the Pleiades in a process that compiled another model, with an empty cache."""
    for method in ("vern7", "vern9", "dop853"):
        if method not in adaptive():
            continue
        times = []
        for _ in range(1 if arguments.quick else 5):
            with tempfile.TemporaryDirectory() as cache:
                environment = os.environ | {"ODEC_CACHE_DIR": cache}
                out = subprocess.run([sys.executable, "-c", COMPILE, str(PROBLEMS), method], env=environment,
                                     check=True, capture_output=True, text=True)  # fmt: skip
                times.append(float(out.stdout))
        goal = "1 s" if method == "vern7" else ""
        row(f"Pleiades, {method}: first solve, nothing cached", goal, f"{statistics.median(times):.2f} s")


# ---- events


def events(arguments):
    """A ball that loses no energy: every bounce found once, at the time of the closed form."""
    bounces, g = 1_000 if arguments.quick else 100_000, 9.81

    @odec.dynamics
    def ball(t, y, g):
        return [y[1], -g]

    bounce = odec.Event(lambda t, y, g: y[0], direction=-1, reset=lambda t, y, g: [y[0], -y[1]])
    fall = math.sqrt(2 / g)

    def solve(count):
        return odec.solve(ball, (0.0, 2 * fall * count), [1.0, 0.0], (g,), events=[bounce], t_eval=[],
                          max_steps=100 * count)  # fmt: skip

    solve(10)
    sol = solve(bounces)
    times = sol.t_events[0]
    row(f"{bounces:,} bounces of a ball: found", f"{bounces:,}", f"{len(times):,}",
        f"{sol.stats['solve_seconds'] / bounces * 1e9:.0f} ns a bounce")  # fmt: skip
    if len(times) == bounces:
        gaps = np.diff(times) / (2 * fall)
        late = np.abs(times - fall * (2 * np.arange(bounces) + 1)).max()
        row("the same: time between bounces over the closed form's", "1", f"{gaps.min():.12f} to {gaps.max():.12f}",
            f"largest error of a time {late:.1e}")  # fmt: skip
    root_of_the_dense_output()


def root_of_the_dense_output():
    """How far the times of events lie from the roots of sol(t), in spacings of t."""

    @odec.dynamics
    def pendulum(t, y, g=9.81):
        return [y[1], -g * np.sin(y[0])]

    crossing = odec.Event(lambda t, y, g: y[0] - 0.3)
    for method in ("tsit5", "dop853", "vern9"):
        if method not in adaptive():
            continue
        sol = odec.solve(pendulum, (0.0, 500.0), [1.0, 0.0], method=method, rtol=1e-8, atol=1e-8, events=[crossing],
                         dense_output=True)  # fmt: skip
        times = sol.t_events[0]
        at = np.array([sol(t) for t in times])
        ulps = np.abs((at[:, 0] - 0.3) / at[:, 1]) / np.spacing(times)
        row(f"{len(times)} events with {method}: from the root of sol(t)", "4 ulp of t", f"{ulps.max():.1f} ulp")


# ---- memory

MEMORY = textwrap.dedent(
    """
    import sys
    sys.path.insert(0, sys.argv[1])
    import numpy as np, odec
    from records import load

    def kilobytes(name):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name))

    name, kind, rows = sys.argv[2], sys.argv[3], int(sys.argv[4])
    problem = next(p for p in load("nonstiff.json") if p.name == name)
    times = np.linspace(0.0, 3.0, rows) if kind == "t_eval" else None

    def solve(limit, t_eval):
        return odec.solve(problem.system, (0.0, 3.0), problem.y0, problem.params, t_eval=t_eval, max_steps=limit,
                          max_step=3.0 / rows, throw=False)

    solve(100, times if times is None else times[:100])
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = kilobytes("VmRSS")
    sol = solve(rows - 1 if times is None else 10 * rows, times)
    peak = kilobytes("VmHWM")
    print((peak - before) * 1024 / (sol.ts.nbytes + sol.ys.nbytes), len(sol.ts))
    """
)


def memory(arguments):
    """Peak memory of a solve that keeps a million rows, over the bytes of the rows."""
    rows = 100_000 if arguments.quick else 1_000_000
    for name in ("lorenz", "pleiades"):
        for kind in ("every step", "t_eval"):
            command = [sys.executable, "-c", MEMORY, str(PROBLEMS), name, kind, str(rows)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            row(f"{name}, {int(out[1]):,} rows, {kind}: peak memory over the rows", "1.2", f"{float(out[0]):.2f}")


# ---- progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal, so that the bar is drawn."""

    def isatty(self):
        return True


def progress(arguments):
    """A solve of about two seconds with and without its progress bar, in turn."""
    problem, end = NONSTIFF["lorenz"], 30_000.0 if arguments.quick else 300_000.0

    def seconds(**options):
        stream = Terminal()
        with contextlib.redirect_stderr(stream), contextlib.redirect_stdout(stream):
            began = time.perf_counter()
            odec.solve(problem.system, (0.0, end), problem.y0, problem.params, method="dopri5", rtol=1e-8, atol=1e-8,
                       t_eval=[], max_steps=10**9, **options)  # fmt: skip
            return time.perf_counter() - began, len(stream.getvalue())

    seconds()
    pairs = [(seconds(), seconds(progress=True)) for _ in range(3 if arguments.quick else 9)]
    ratio = statistics.median(shown[0] / bare[0] for bare, shown in pairs)
    row(f"progress=True on a solve of {pairs[0][0][0]:.1f} s", "2 %", f"{100 * (ratio - 1):.1f} %",
        f"{pairs[0][1][1]} characters written")  # fmt: skip


CASES = {
    "work": work, "step": step, "compile": compile_time, "events": events, "memory": memory, "progress": progress,
}  # fmt: skip


if __name__ == "__main__":
    command_line(CASES)
