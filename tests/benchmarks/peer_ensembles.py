"""An ensemble of Lorenz trajectories in other codes behind a pipe, for ensembles.py: peer_ensembles.py LIBRARY

LIBRARY is heyoka, numbalsoda, numbalsoda_threads or diffrax. A line of JSON comes first, {"codes": [...]}, the names
of what it times; then one request a line, {"code": name, "members": N, "path": file or null}, and one answer a line,
{"seconds": s, "cores": k}: one run of N trajectories, rho from 0 to 21, t to 1, whose end states (N, 3) are saved at
the path. The first run of a code compiles it. Only numbalsoda_threads leaves the first core.
"""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np

TOLERANCE = 1e-8


def rhos(members):
    return np.linspace(0.0, 21.0, members)


def heyoka():
    import heyoka as hy

    x, y, z = hy.make_vars("x", "y", "z")
    lorenz = [(x, 10 * (y - x)), (y, x * (hy.par[0] - z) - y), (z, x * y - 8 / 3 * z)]

    def runner(lanes, options):
        solver = hy.taylor_adaptive_batch(lorenz, np.ones((3, lanes)), pars=np.ones((1, lanes)), **options)

        def run(members, end=1.0):
            values, ends = rhos(members), np.empty((members, 3))
            start, state, pars = np.zeros(lanes), solver.state, solver.pars
            began = time.perf_counter()
            for i in range(0, members, lanes):
                solver.set_time(start)
                state[:] = 1.0
                pars[0, :] = values[i : i + lanes]
                solver.propagate_until(end)
                ends[i : i + lanes] = state.T
            return time.perf_counter() - began, ends, 1

        return run

    wide = hy.recommended_simd_size()
    runs = {}
    for lanes in sorted({4, wide}):
        runs[f"heyoka, {lanes} lanes, 1e-8"] = runner(lanes, {"tol": TOLERANCE})
        runs[f"heyoka, {lanes} lanes, epsilon"] = runner(lanes, {})
    four = runs["heyoka, 4 lanes, 1e-8"]
    runs["heyoka, 4 lanes, its Python loop alone"] = lambda members: four(members, end=0.0)
    return runs


def numbalsoda(parallel=False):
    from numba import cfunc, get_num_threads, njit, prange
    from numbalsoda import dop853, lsoda_sig

    @cfunc(lsoda_sig)
    def lorenz(t, u, du, p):
        du[0] = 10.0 * (u[1] - u[0])
        du[1] = u[0] * (p[0] - u[2]) - u[1]
        du[2] = u[0] * u[1] - 8 / 3 * u[2]

    address = lorenz.address

    @njit(parallel=parallel)
    def sweep(values, span):
        ends = np.empty((values.size, 3))
        for i in prange(values.size):
            u, _ = dop853(address, np.ones(3), span, values[i : i + 1].copy(), rtol=TOLERANCE, atol=TOLERANCE)
            ends[i] = u[-1]
        return ends

    def run(members):
        values, span = rhos(members), np.array([0.0, 1.0])
        began = time.perf_counter()
        ends = sweep(values, span)
        return time.perf_counter() - began, ends, get_num_threads() if parallel else 1

    return {"numbalsoda dop853, prange" if parallel else "numbalsoda dop853, one thread": run}


def diffrax():
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["JAX_PLATFORMS"] = "cpu"
    import diffrax as dx
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def lorenz(t, u, rho):
        return jnp.stack([10.0 * (u[1] - u[0]), u[0] * (rho - u[2]) - u[1], u[0] * u[1] - 8 / 3 * u[2]])

    controller = dx.PIDController(rtol=TOLERANCE, atol=TOLERANCE)

    def solve(rho):
        return dx.diffeqsolve(
            dx.ODETerm(lorenz), dx.Dopri5(), 0.0, 1.0, 1e-3, jnp.ones(3), rho, max_steps=10**7,
            stepsize_controller=controller,
        ).ys[-1]  # fmt: skip

    sweep = jax.jit(jax.vmap(solve))

    def run(members):
        values = jax.block_until_ready(jnp.asarray(rhos(members)))
        began = time.perf_counter()
        ends = jax.block_until_ready(sweep(values))
        return time.perf_counter() - began, np.asarray(ends), 1

    return {"diffrax vmap Dopri5": run}


LIBRARIES = {
    "heyoka": heyoka, "numbalsoda": numbalsoda, "numbalsoda_threads": lambda: numbalsoda(parallel=True),
    "diffrax": diffrax,
}  # fmt: skip


def main():
    library = sys.argv[1]
    if library != "numbalsoda_threads":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    runs = LIBRARIES[library]()
    print(json.dumps({"codes": list(runs)}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        seconds, ends, cores = runs[request["code"]](request["members"])
        if request["path"]:
            np.save(request["path"], ends)
        print(json.dumps({"seconds": seconds, "cores": cores}), flush=True)


if __name__ == "__main__":
    main()
