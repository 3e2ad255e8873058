"""Dynamics that are easy to solve: a neural ODE learns z + z³ with and without R_3 [Kelly et al. 2020, Figure 1]."""

from pathlib import Path

import numpy as np

import odec

HIDDEN, STEPS, RATE, STRENGTH = 32, 600, 2e-2, 5e-4


@odec.dynamics
def network(t, z, w1, b1, w2, b2):
    """A layer of tanh on samples z (batch, 1) with time beside them."""
    joined = np.concatenate([z, np.full_like(z, t)], axis=1)
    return np.tanh(joined @ w1 + b1) @ w2 + b2


def adam(params, gradient, state, rate, beta1=0.9, beta2=0.999):
    """Parameters after a step of Adam; `state` keeps its moments [Kingma and Ba 2015]."""
    state["steps"] = n = state.get("steps", 0) + 1
    found = {}
    for name, g in gradient.items():
        m, v = state.get(name, (0.0, 0.0))
        m, v = state[name] = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        found[name] = params[name] - rate * (m / (1 - beta1**n)) / (np.sqrt(v / (1 - beta2**n)) + 1e-8)
    return found


def trained(strength, z0, order=3):
    """Parameters that minimise the squared error and so much of R_K."""
    rng = np.random.default_rng(1)
    params = {
        "w1": rng.normal(size=(2, HIDDEN)) * [[2.0], [6.0]], "b1": 3.0 * rng.normal(size=HIDDEN),
        "w2": 0.3 * rng.normal(size=(HIDDEN, 1)), "b2": np.zeros(1),
    }  # fmt: skip
    model = odec.regularize(network, odec.regularizers.Taylor(order=order), in_error_norm=False)
    target, state = z0 + z0**3, {}
    for step in range(STEPS):
        sol, pullback = odec.solve_vjp(
            model, (0.0, 1.0), model.start(z0), params, method="dopri5", rtol=1e-5, atol=1e-5, t_eval=[]
        )
        bar = 2 * (sol.ys[0] - target) / target.size, np.full(sol.ys[1].shape, strength)
        rate = RATE * 0.5 * (1 + np.cos(np.pi * step / STEPS))
        params = adam(params, pullback(bar).params, state, rate)
    return params


def main():
    z0 = np.linspace(-1.0, 1.0, 41)[:, None]
    times = np.linspace(0.0, 1.0, 101)
    found = {}
    for title, strength in (("without regularisation", 0.0), ("with R_3", STRENGTH)):
        params = trained(strength, z0)
        sol = odec.solve(network, (0.0, 1.0), z0, params, method="dopri5", rtol=1e-8, atol=1e-8, t_eval=times)
        error = float(np.sqrt(np.mean((sol.y1 - z0 - z0**3) ** 2)))
        evaluations = odec.solve(network, (0.0, 1.0), z0, params, method="dopri5", rtol=1e-6, atol=1e-6).stats["nfev"]
        found[title] = sol.ys[..., 0], error, evaluations
        print(f"{title}: error {error:.4f}, {evaluations} evaluations at a tolerance of 1e-6")

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9.0, 4.2), sharey=True, constrained_layout=True)
    for axes, (title, (paths, error, evaluations)) in zip(panels, found.items(), strict=True):
        axes.plot(times, paths[:, ::2], color="tab:blue", linewidth=0.9)
        axes.plot(np.ones(len(z0[::2])), (z0 + z0**3)[::2, 0], "k_", markersize=8)
        axes.set(xlabel="t", title=f"{title}: {evaluations} evaluations, error {error:.3f}")
    panels[0].set_ylabel("z(t); marks: z + z³")
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    print("saved", path.name)


if __name__ == "__main__":
    main()
