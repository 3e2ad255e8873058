"""Gradients of solves in other codes behind a pipe, for gradients.py: peer_gradients.py LIBRARY FOLDER

LIBRARY is diffrax or torchdiffeq. A line of JSON comes first, {"codes": [...]}; then one request a line, {"code":
name, "case": case, "calls": k, "path": file or null}, and one answer a line, {"seconds": s}: the median of k gradients
of sum(y1²) by the parameters one after another, the last saved at the path as an .npz. A network's weights and
tolerances lie in FOLDER/case.npz; the case "lorenz N" is an ensemble, whose gradient is by each rho. The first run of a
code compiles it.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import sys
import time

import numpy as np

WEIGHTS = "w1", "b1", "w2", "b2"


def diffrax(folder):
    os.environ["JAX_PLATFORMS"] = "cpu"
    import diffrax as dx
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    adjoints = {"recursive checkpoint": dx.RecursiveCheckpointAdjoint(), "backsolve": dx.BacksolveAdjoint()}

    def neural(t, z, p):
        joined = jnp.concatenate([z, jnp.full((z.shape[0], 1), t)], 1)
        return jnp.tanh(joined @ p[0] + p[1]) @ p[2] + p[3]

    def end(rates, y0, p, adjoint, rtol, atol):
        return dx.diffeqsolve(
            dx.ODETerm(rates), dx.Dopri5(), 0.0, 1.0, None, y0, p, adjoint=adjoint, max_steps=4096,
            stepsize_controller=dx.PIDController(rtol=rtol, atol=atol),
        ).ys[-1]  # fmt: skip

    def lorenz(t, u, rho):
        return jnp.stack([10.0 * (u[1] - u[0]), u[0] * (rho - u[2]) - u[1], u[0] * u[1] - 8 / 3 * u[2]])

    @functools.cache
    def gradient(adjoint, case):
        if case.startswith("lorenz"):
            values = jnp.linspace(0.0, 21.0, int(case.split()[1]))

            def loss(rho):
                return (end(lorenz, jnp.ones(3), rho, adjoints[adjoint], 1e-8, 1e-8) ** 2).sum()

            return jax.jit(jax.vmap(jax.value_and_grad(loss))), values, ("rho",)
        given = np.load(f"{folder}/{case}.npz")
        z0, (rtol, atol) = jnp.asarray(given["y0"]), given["tolerances"]

        def loss(p):
            return (end(neural, z0, p, adjoints[adjoint], rtol, atol) ** 2).sum()

        return jax.jit(jax.value_and_grad(loss)), tuple(jnp.asarray(given[w]) for w in WEIGHTS), WEIGHTS

    def run(adjoint, case):
        found, p, names = gradient(adjoint, case)
        began = time.perf_counter()
        _, bars = jax.block_until_ready(found(p))
        seconds = time.perf_counter() - began
        return seconds, dict(zip(names, map(np.asarray, bars if len(names) > 1 else (bars,)), strict=True))

    return {f"diffrax {adjoint}": functools.partial(run, adjoint) for adjoint in adjoints}


def torchdiffeq(folder):
    import torch
    from torchdiffeq import odeint, odeint_adjoint

    class Dynamics(torch.nn.Module):
        def __init__(self, given):
            super().__init__()
            for name in WEIGHTS:
                setattr(self, name, torch.nn.Parameter(torch.from_numpy(given[name])))

        def forward(self, t, z):
            joined = torch.cat([z, t.expand(z.shape[0], 1)], 1)
            return torch.tanh(joined @ self.w1 + self.b1) @ self.w2 + self.b2

    @functools.cache
    def dynamics(case):
        given = np.load(f"{folder}/{case}.npz")
        return Dynamics(given), torch.from_numpy(given["y0"]), [float(x) for x in given["tolerances"]]

    def run(mode, case):
        f, z0, (rtol, atol) = dynamics(case)
        f.zero_grad()
        t = torch.tensor([0.0, 1.0], dtype=torch.float64)
        began = time.perf_counter()
        if mode == "direct":
            z = odeint(f, z0, t, rtol=rtol, atol=atol, method="dopri5")
        else:
            norm = {"norm": "seminorm"} if mode == "odeint_adjoint, seminorm" else None
            z = odeint_adjoint(f, z0, t, rtol=rtol, atol=atol, method="dopri5", adjoint_options=norm)
        (z[-1] ** 2).sum().backward()
        seconds = time.perf_counter() - began
        return seconds, {name: getattr(f, name).grad.numpy() for name in WEIGHTS}

    modes = "odeint_adjoint", "odeint_adjoint, seminorm", "direct"
    return {f"torchdiffeq {mode}": functools.partial(run, mode) for mode in modes}


LIBRARIES = {"diffrax": diffrax, "torchdiffeq": torchdiffeq}


def main():
    runs = LIBRARIES[sys.argv[1]](sys.argv[2])
    print(json.dumps({"codes": list(runs)}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        seconds = []
        for _ in range(request["calls"]):
            last, bars = runs[request["code"]](request["case"])
            seconds.append(last)
        if request["path"]:
            np.savez(request["path"], **bars)
        print(json.dumps({"seconds": statistics.median(seconds)}), flush=True)


if __name__ == "__main__":
    main()
