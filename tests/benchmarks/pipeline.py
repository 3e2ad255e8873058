"""The goals of the pipeline, measured: python tests/benchmarks/pipeline.py [--peers PYTHON] [--limits LIMITS_C]

--peers names a Python with jax and diffrax (odec depends on neither), --limits a C file with the
Dormand-Prince loop; both are optional. Accuracy is checked before anything is timed. Each row is
goal, measured, peer; medians of several runs that alternate with the peer's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
from benchmark import compiled_limits, row

import odec

LORENZ = textwrap.dedent(
    """
    import time, sys
    started = time.perf_counter()
    import numpy as np, odec

    @odec.dynamics
    def other(t, y, mu=1.0):
        return [y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]]

    @odec.dynamics
    def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
        x, v, z = y
        return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]

    if "other" in sys.argv:
        odec.solve(other, (0.0, 1.0), [1.0, 0.0])
    began = time.perf_counter()
    odec.solve(lorenz, (0.0, 1.0), [1.0, 1.0, 1.0])
    print(time.perf_counter() - began)
    """
)


def median(function, repeats=9):
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


@odec.dynamics
def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]


def lorenz_plain(t, y):
    x, v, z = y
    return [10.0 * (v - x), x * (28.0 - z) - v, x * v - 8 / 3 * z]


def check_accuracy():
    """Both solvers against a much tighter solution, before any timing."""
    from scipy.integrate import solve_ivp

    exact = solve_ivp(lorenz_plain, (0, 5), [1, 1, 1], method="DOP853", rtol=1e-13, atol=1e-13).y[:, -1]
    ours = odec.solve(lorenz, (0, 5), [1.0, 1.0, 1.0], method="dopri5", rtol=1e-8, atol=1e-8).y1
    theirs = solve_ivp(lorenz_plain, (0, 5), [1, 1, 1], method="RK45", rtol=1e-8, atol=1e-8).y[:, -1]
    errors = [float(np.abs(y - exact).max()) for y in (ours, theirs)]
    print(f"accuracy at t = 5, rtol = atol = 1e-8: odec {errors[0]:.1e}, scipy RK45 {errors[1]:.1e}")
    assert errors[0] < 1e-5


def loop_time(limits, peers):
    def run():
        stats = odec.solve(
            lorenz, (0.0, 1000.0), [1.0, 1.0, 1.0], method="dopri5", rtol=1e-8, atol=1e-8, t_eval=[]
        ).stats
        return stats["solve_seconds"] / (stats["steps"] + stats["rejected"]) * 1e9

    run()
    ours, c = [], []
    for _ in range(5):
        ours += [run() for _ in range(5)]
        if limits:
            c += _limit_times(limits)
    mine = statistics.median(ours)
    row("Lorenz, dopri5, 1e-8: ns per attempted step", "at most C", f"{mine:.1f}",
        f"C {statistics.median(c):.1f}, ratio {mine / statistics.median(c):.2f}" if c else "C not given")  # fmt: skip
    row("the same against scipy RK45", "500 times", *_against(mine, _scipy_step()))
    if peers:
        row("the same against diffrax Dopri5", "6 times", *_against(mine, _diffrax_step(peers)))


def _against(mine, theirs):
    return f"{theirs / mine:.1f} times", f"{theirs:.0f} ns"


def _limit_times(binary):
    process = subprocess.Popen([binary], stdout=subprocess.PIPE, text=True)
    first = json.loads(process.stdout.readline())
    process.kill()
    process.wait()
    assert first["case"].startswith("lorenz t=1000 dopri5")
    return [first["ns_per_step"]]


def _scipy_step():
    from scipy.integrate import solve_ivp

    def run():
        began = time.perf_counter()
        solution = solve_ivp(lorenz_plain, (0, 20), [1.0, 1.0, 1.0], method="RK45", rtol=1e-8, atol=1e-8)
        return (time.perf_counter() - began) / (solution.nfev / 6) * 1e9

    return statistics.median(run() for _ in range(5))


def _diffrax_step(python):
    script = textwrap.dedent(
        """
        import time, statistics, jax, diffrax, jax.numpy as jnp
        jax.config.update("jax_enable_x64", True)
        def f(t, u, a):
            return jnp.stack([10.0 * (u[1] - u[0]), u[0] * (28.0 - u[2]) - u[1], u[0] * u[1] - 8 / 3 * u[2]])
        @jax.jit
        def run(u0):
            sol = diffrax.diffeqsolve(diffrax.ODETerm(f), diffrax.Dopri5(), 0.0, 100.0, 1e-3, u0, max_steps=10**7,
                                      stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-8))
            return sol.ys[-1], sol.stats["num_steps"]
        jax.block_until_ready(run(jnp.ones(3)))
        times = []
        for _ in range(7):
            began = time.perf_counter()
            out = jax.block_until_ready(run(jnp.ones(3)))
            times.append((time.perf_counter() - began) / int(out[1]) * 1e9)
        print(statistics.median(times))
        """
    )
    return float(subprocess.run([python, "-c", script], check=True, capture_output=True, text=True).stdout)


def start_up():
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"
        script.write_text(LORENZ)
        environment = os.environ | {"ODEC_CACHE_DIR": cache}

        def run(*arguments):
            began = time.perf_counter()
            out = subprocess.run([sys.executable, str(script), *arguments], env=environment, check=True,
                                 capture_output=True, text=True)  # fmt: skip
            return float(out.stdout), time.perf_counter() - began

        first, _ = run("other")
        cached = statistics.median(run("other")[0] for _ in range(7))
        alone = [run()[1] for _ in range(7)]
        row("first solve in a process that compiled another model", "0.3 s", f"{first:.3f} s")
        row("the same from the disk cache", "0.1 s", f"{cached:.3f} s")
        row("fresh script, everything cached, whole process", "0.6 s", f"{statistics.median(alone):.3f} s")
    bare = statistics.median(_import_seconds("numpy") for _ in range(9))
    ours = statistics.median(_import_seconds("odec") for _ in range(9))
    row("import odec against import numpy", "1.5 times", f"{ours / bare:.2f} times", f"numpy {bare:.3f} s")


def _import_seconds(module):
    code = f"import time; b = time.perf_counter(); import numpy, {module}; print(time.perf_counter() - b)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def random_model(operations, n, seed):
    def model(t, y, p):
        choose = random.Random(seed)
        values = [*y, *p]
        for _ in range(operations):
            a, b = choose.choice(values[-40:]), choose.choice(values[-40:])
            kind = choose.randrange(5)
            values.append((a + b, a - b, a * b, 0.5 * np.sin(a), np.tanh(a))[kind])
        return values[-n:]

    return odec.dynamics(model)


def compile_times():
    with tempfile.TemporaryDirectory() as cache:
        os.environ["ODEC_CACHE_DIR"] = cache
        random_model(20, 3, 1).bind(np.ones(3), (np.ones(3),)).compiled("step", method="tsit5")
        seconds = {"rhs": [], "jacobian": [], "step": []}
        for seed in range(5):
            n = 10
            began = time.perf_counter()
            system = random_model(1000, n, seed).bind(np.full(n, 0.1), (np.full(5, 0.3),))
            for kernel in seconds:
                system.compiled(kernel)
                seconds[kernel].append(time.perf_counter() - began)
                began = time.perf_counter()
        del os.environ["ODEC_CACHE_DIR"]
    measured = " / ".join(f"{statistics.median(s):.2f}" for s in seconds.values())
    row(
        "1 000 random scalar operations: rhs / sparse Jacobian / tsit5 step compiled",
        "0.4 / 1.5 / 1.5 s",
        f"{measured} s",
    )


def overhead():
    y0, first = np.ones(3), 1e-3

    def run():
        odec.solve(lorenz, (0.0, 1e-3), y0, method="dopri5", first_step=first, t_eval=[])

    run()
    row("odec.solve on a compiled model, one step", "60 us", f"{median(run, 2000) * 1e6:.1f} us")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers")
    parser.add_argument("--limits")
    arguments = parser.parse_args()
    limits = compiled_limits(arguments.limits) if arguments.limits else None
    check_accuracy()
    print("| case | goal | measured | peer |\n|---|---|---|---|")
    loop_time(limits, arguments.peers)
    start_up()
    compile_times()
    overhead()


if __name__ == "__main__":
    main()
