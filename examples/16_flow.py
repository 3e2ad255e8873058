"""Flows learn two densities [Grathwohl et al. 2019]: rings with the exact trace, moons with Hutchinson's.

--quick takes a tenth of the steps: what runs is seen, what is learned is not.
"""

import sys
from pathlib import Path

import numpy as np

import odec
from odec import nn

HIDDEN, BATCH, RATE, SIDE = 32, 256, 2e-2, 3.0
STEPS = 40 if "--quick" in sys.argv[1:] else 400
ROUGH = {"method": "bs3", "rtol": 1e-3, "atol": 1e-3}


@odec.dynamics
def network(t, z, layers):
    return nn.mlp(layers, nn.with_time(t, z))


def moons(rng, count):
    """Samples (count, 2) of two half circles that reach into each other."""
    angle, upper = np.pi * rng.random(count), rng.random(count) < 0.5
    points = np.stack(
        [np.where(upper, np.cos(angle), 1 - np.cos(angle)), np.where(upper, 1, -1) * np.sin(angle)], axis=1
    )
    return 1.5 * (points + np.where(upper, 0.0, 0.5)[:, None] * [0, 1] - [0.5, 0.25]) + 0.1 * rng.normal(
        size=(count, 2)
    )


def rings(rng, count):
    """Samples (count, 2) of two circles around zero."""
    angle, radius = 2 * np.pi * rng.random(count), np.where(rng.random(count) < 0.5, 1.0, 2.2)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.1 * rng.normal(size=(count, 2))


def first_layers(rng):
    """Layers whose tanh bend where the data lie."""
    *hidden, last = nn.layers(rng, (3, HIDDEN, HIDDEN, 2))
    return (*((2 * w, rng.normal(size=b.shape)) for w, b in hidden), last)


def log_normal(z):
    return -(z**2).sum(axis=1) / 2 - np.log(2 * np.pi)


def adam(layers, gradient, moments, step):
    """The layers after a step of Adam; `moments` are changed in place [Kingma and Ba 2015]."""
    rate, found = RATE * 0.5 * (1 + np.cos(np.pi * step / STEPS)), []
    for i, (arrays, slopes) in enumerate(zip(layers, gradient, strict=True)):
        m, v = moments.get(i, ([0.0] * len(arrays),) * 2)
        m = [0.9 * a + 0.1 * g for a, g in zip(m, slopes, strict=True)]
        v = [0.99 * a + 0.01 * g**2 for a, g in zip(v, slopes, strict=True)]
        moments[i], n = (m, v), step + 1
        scaled = [a / (1 - 0.9**n) / (np.sqrt(b / (1 - 0.99**n)) + 1e-8) for a, b in zip(m, v, strict=True)]
        found.append(tuple(a - rate * s for a, s in zip(arrays, scaled, strict=True)))
    return tuple(found)


def trained(draw, trace, rng):
    """The layers, and the log-likelihood of the batch at each step."""
    flow, layers = odec.cnf(network, trace), first_layers(rng)
    moments, found = {}, []
    for step in range(STEPS):
        x, params = draw(rng, BATCH), {"layers": layers}
        if trace == "hutchinson":
            params["probe"] = rng.choice([-1.0, 1.0], x.shape)
        sol, pullback = odec.solve_vjp(flow, (0.0, 1.0), flow.start(x), params, t_eval=[], **ROUGH)
        z, logp = sol.ys
        found.append(np.mean(log_normal(z[0]) - logp[0]))
        gradient = pullback((z / BATCH, np.full(logp.shape, 1 / BATCH)))  # of the mean of -log p
        layers = adam(layers, gradient.params["layers"], moments, step)
    return layers, np.array(found)


def main():
    rng, flow = np.random.default_rng(0), odec.cnf(network)
    side = np.linspace(-SIDE, SIDE, 121)
    grid, cell = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2), (side[1] - side[0]) ** 2
    rows = []
    for draw, trace in ((rings, "exact"), (moons, "hutchinson")):
        layers, likelihood = trained(draw, trace, rng)
        z, change = odec.solve(
            flow, (0.0, 1.0), flow.start(grid), {"layers": layers}, rtol=1e-5, atol=1e-5, t_eval=[]
        ).y1
        density = np.exp(log_normal(z) - change)
        base = rng.normal(size=(1500, 2))
        samples = odec.solve(network, (1.0, 0.0), base, {"layers": layers}, rtol=1e-5, atol=1e-5, t_eval=[]).y1
        first, last = likelihood[:20].mean(), likelihood[-20:].mean()
        print(f"{draw.__name__}, {trace} trace: log-likelihood {first:.2f} at first, {last:.2f} at last; "
              f"the density integrates to {density.sum() * cell:.3f}")  # fmt: skip
        rows.append((f"{draw.__name__}, {trace} trace", draw(rng, 1500), density.reshape(121, 121), samples))

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 3, figsize=(9.5, 6.4), sharex=True, sharey=True, constrained_layout=True)
    for axes, (title, data, density, samples) in zip(panels, rows, strict=True):
        axes[0].plot(*data.T, ".", color="0.4", markersize=1.5)
        axes[1].pcolormesh(side, side, density, cmap="magma", shading="gouraud", rasterized=True)
        axes[2].plot(*samples.T, ".", color="tab:blue", markersize=1.5)
        for one, what in zip(axes, ("data", "density of the flow", "samples of the flow"), strict=True):
            one.set(aspect="equal", xlim=(-SIDE, SIDE), ylim=(-SIDE, SIDE), title=what)
        axes[0].set_ylabel(title)
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    print("saved", path.name)


if __name__ == "__main__":
    main()
