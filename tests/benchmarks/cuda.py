"""Ensembles on a GPU: seconds, nanoseconds a step of a trajectory, the share of the GPU's peak arithmetic; gradients;
and diffrax on the same GPU, where it is installed.

    python tests/benchmarks/cuda.py [--quick]

Operations are counted in the kernel's PTX of one step: a fused multiply-add counts two, everything else one.
"""

import argparse
import importlib.util
import re
import sys
import time
from pathlib import Path

import numpy as np

import odec
from odec.codegen.cuda_driver import device
from odec.errors import ArgumentError

sys.path.insert(0, str(Path(__file__).parents[1] / "problems"))
PER_CLOCK = {  # multiply-adds of a processor in a clock, fp64 and fp32 (CUDA C++ programming guide, table 32)
    (8, 0): (32, 64), (8, 6): (2, 128), (8, 9): (2, 128), (9, 0): (64, 128), (10, 0): (64, 128), (12, 0): (2, 128),
}  # fmt: skip


@odec.dynamics
def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]


def pleiades_case(members):
    import records

    problem = next(p for p in records.load() if p.name == "pleiades")
    start = problem.y0 * (1 + 1e-3 * np.random.default_rng(1).normal(size=(members, problem.y0.size)))
    return problem.model, (0.0, 3.0), start, problem.params, "y0", "vern7"


def lorenz_case(members):
    return lorenz, (0.0, 1.0), [1.0, 1.0, 1.0], {"rho": np.linspace(0.0, 21.0, members)}, "rho", "tsit5"


def operations(system, method, dtype):
    """Floating-point operations of one step."""
    text, kind = system.source("advance", "ptx", method=method, commits=False), "f64" if dtype == "float64" else "f32"
    found = re.findall(rf"^\s+(fma|mul|add|sub|div|sqrt|rcp|neg|abs)\S*\.{kind}\s", text, re.MULTILINE)
    return sum(2 if name == "fma" else 1 for name in found)


def seconds(function, repeats):
    """The least of some runs, after one that compiles."""
    function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - began)
    return min(times), result


def row(gpu, name, case, dtype, tolerance, repeats):
    model, span, y0, params, batched, method = case
    how = {"batched": batched, "method": method, "rtol": tolerance, "atol": tolerance, "target": "cuda"}
    took, found = seconds(
        lambda: odec.solve_ensemble(model, span, y0, params, dtype=dtype, on_device=True, **how), repeats
    )
    steps = found.stats["steps"] + found.stats["rejected"]
    system = model.bind(np.asarray(y0)[0] if batched == "y0" else np.asarray(y0), params if batched == "y0" else (),
                        dtype=dtype)  # fmt: skip
    double, single = PER_CLOCK.get(gpu.cc, (0, 0))
    peak = 2 * gpu.processors * gpu.clock * (double if dtype == "float64" else single)
    share = operations(system, method, dtype) * steps / took / peak if peak else float("nan")
    print(f"| {name} | {method} | {dtype} | {took:.4f} | {took / steps * 1e9:.3f} | {share:.1%} |", flush=True)


def gradient_row(members, dtype, tolerance, repeats):
    """The gradient of a function of the ends of a Lorenz ensemble by each rho: the solve, and the way back."""
    model, span, y0, params, batched, method = lorenz_case(members)
    how = {"batched": batched, "method": method, "rtol": tolerance, "atol": tolerance, "target": "cuda", "dtype": dtype}
    forward, (ens, pullback) = seconds(lambda: odec.solve_vjp(model, span, y0, params, **how), repeats)
    back, found = seconds(lambda: pullback(2 * ens.y1), repeats)
    steps = found.stats["steps"]
    for way, took in (("forwards", forward), ("backwards", back)):
        each = took / steps * 1e9
        print(
            f"| Lorenz, gradient of {members:,}, {way} | {method} | {dtype} | {took:.4f} | {each:.3f} | |", flush=True
        )


def diffrax_row(members, dtype, tolerance, repeats):
    """The Lorenz ensemble by diffrax, vmapped and jitted."""
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", dtype == "float64")

    def rate(t, y, rho):
        return jnp.stack([10.0 * (y[1] - y[0]), y[0] * (rho - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]])

    def one(rho):
        controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
        return diffrax.diffeqsolve(
            diffrax.ODETerm(rate), diffrax.Tsit5(), 0.0, 1.0, None, jnp.ones(3, dtype), rho,
            stepsize_controller=controller, saveat=diffrax.SaveAt(t1=True), throw=False,
        ).ys  # fmt: skip

    many, rho = jax.jit(jax.vmap(one)), jnp.linspace(0.0, 21.0, members, dtype=dtype)
    took, _ = seconds(lambda: many(rho).block_until_ready(), repeats)
    print(f"| Lorenz, diffrax | tsit5 | {dtype} | {took:.4f} | | |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the members")
    quick = parser.parse_args().quick
    try:
        gpu = device()
    except ArgumentError as error:
        print(f"No table: {error}")
        return
    members, repeats = (10_000, 1) if quick else (1_000_000, 5)
    print(f"{gpu.name}, compute capability {gpu.cc}, {gpu.processors} processors at {gpu.clock / 1e9:.2f} GHz\n")
    print("| ensemble | method | dtype | seconds | ns a step | of the peak |\n|---|---|---|---|---|---|")
    for dtype, tolerance in (("float32", 1e-4), ("float64", 1e-8)):
        row(gpu, f"Lorenz, {members:,}", lorenz_case(members), dtype, tolerance, repeats)
        if importlib.util.find_spec("diffrax"):
            diffrax_row(members, dtype, tolerance, repeats)
        gradient_row(members // 10, dtype, tolerance, repeats)
    row(gpu, f"Pleiades, {members // 10:,}", pleiades_case(members // 10), "float64", 1e-8, repeats)


if __name__ == "__main__":
    main()
