"""Gradients with the regulariser R_K in JAX behind a pipe, for regularizers.py: peer_regularizers.py jax FOLDER

The protocol is that of peer_gradients.py; the code "jax jet" takes the K-th derivative of the solution from repeated
calls of jax.experimental.jet, as kelly2020 does, and diffrax for the solve. A case is "NAME K", K of 0 for no term. The
loss is sum(z1²) + r. An answer holds the steps of the solve and the seconds of the first call beside the median.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import sys
import time

os.environ["JAX_PLATFORMS"] = "cpu"

import diffrax as dx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.jet import jet

WEIGHTS = "w1", "b1", "w2", "b2"
jax.config.update("jax_enable_x64", True)


def network(t, z, p):
    joined = jnp.concatenate([z, jnp.full((z.shape[0], 1), t)], 1)
    return jnp.tanh(joined @ p[0] + p[1]) @ p[2] + p[3]


def derivative(t, z, p, order):
    """d^order z / dt^order along the solution: x_{k+1} is the k-th derivative of the rate along x_1 .. x_k."""

    def rate(x):
        return jnp.concatenate([network(x[-1], x[:-1].reshape(z.shape), p).ravel(), jnp.ones(1)])

    start = jnp.concatenate([z.ravel(), jnp.asarray(t, z.dtype)[None]])
    series = [rate(start)]
    while len(series) < order:
        _, further = jet(rate, (start,), (list(series),))
        series.append(further[-1])
    return series[-1][:-1].reshape(z.shape)


@functools.cache
def gradient(folder, case):
    """(jitted p -> ((loss, steps), gradient), p)"""
    name, order = case.split()
    given = np.load(f"{folder}/{name}.npz")
    z0, (rtol, atol), order = jnp.asarray(given["y0"]), given["tolerances"], int(order)

    def field(t, y, p):
        z, _ = y
        term = (derivative(t, z, p, order) ** 2).sum(1).mean() if order else jnp.zeros(())
        return network(t, z, p), term

    def loss(p):
        sol = dx.diffeqsolve(
            dx.ODETerm(field), dx.Dopri5(), 0.0, 1.0, None, (z0, jnp.zeros(())), p,
            stepsize_controller=dx.PIDController(rtol=rtol, atol=atol),
        )  # fmt: skip
        assert sol.ys is not None
        return (sol.ys[0][-1] ** 2).sum() + sol.ys[1][-1], sol.stats["num_steps"]

    return jax.jit(jax.value_and_grad(loss, has_aux=True)), tuple(jnp.asarray(given[w]) for w in WEIGHTS)


def run(folder, case):
    found, p = gradient(folder, case)
    began = time.perf_counter()
    (_, steps), bars = jax.block_until_ready(found(p))
    return time.perf_counter() - began, int(steps), dict(zip(WEIGHTS, map(np.asarray, bars), strict=True))


def main():
    folder, first = sys.argv[2], {}
    print(json.dumps({"codes": ["jax jet"]}), flush=True)
    for line in sys.stdin:
        request, seconds, steps = json.loads(line), [], 0
        for _ in range(request["calls"]):
            last, steps, bars = run(folder, request["case"])
            first.setdefault(request["case"], last)
            seconds.append(last)
            if request["path"]:
                np.savez(request["path"], **bars)
        answer = {"seconds": statistics.median(seconds), "steps": steps, "first": first[request["case"]]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
