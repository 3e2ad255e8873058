"""A universal ODE: a network learns what predators and prey do to each other, a regression writes it as a formula.

The setting is that of Rackauckas et al., arXiv:2001.04385 (2020): growth and decay are known, the interaction is not.
The formula is traced and solved again, ten times as far as there were data.
"""

from pathlib import Path

import numpy as np

import odec

GROWTH, DECAY, HIDDEN, SPAN = 1.3, 1.8, 8, (0.0, 3.0)
POWERS = [(i, k - i) for k in range(4) for i in range(k, -1, -1)]  # of prey u and predators v: 1, u, v, u², uv, v², ...


@odec.dynamics
def truth(t, y, beta=0.9, gamma=0.8):
    u, v = y
    return [GROWTH * u - beta * u * v, gamma * u * v - DECAY * v]


@odec.dynamics
def partly_known(t, y, net):
    """What is known, and a network of two layers for the interaction."""
    return np.array([GROWTH, -DECAY]) * y + odec.nn.mlp(net, y)


@odec.dynamics
def recovered(t, y, coefficients):
    """What is known, and a sum of powers with coefficients (2, powers)."""
    return np.array([GROWTH, -DECAY]) * y + coefficients @ np.stack([y[0] ** i * y[1] ** j for i, j in POWERS])


def fitted(times, data):
    """The network with which the solution goes through the data."""
    from scipy.optimize import minimize

    net = odec.nn.layers(0, (2, HIDDEN, HIDDEN, 2))
    flat, rebuild = flattened(net)

    def loss(values):
        try:
            sol, pullback = odec.solve_vjp(partly_known, SPAN, data[0], (rebuild(values),), rtol=1e-8, t_eval=times)
        except odec.SolveError:
            return 1e6, np.zeros_like(values)  # too far: a shorter step of the search
        off = (sol.ys - data) / data.std(axis=0)
        return np.mean(off**2), flattened(pullback(2 * off / off.size / data.std(axis=0)).params[0])[0]

    found = minimize(loss, flat, jac=True, method="BFGS", options={"maxiter": 400, "gtol": 1e-9})
    print(f"the network passes the data at a distance of {np.sqrt(found.fun):.1e} of their spread")
    return rebuild(found.x)


def flattened(net):
    """(all numbers of a network in a vector, how to make a network of a vector)"""
    parts = [part for layer in net for part in layer]
    ends = np.cumsum([part.size for part in parts])

    def rebuild(values):
        found = [x.reshape(p.shape) for x, p in zip(np.split(values, ends[:-1]), parts, strict=True)]
        return tuple(zip(found[::2], found[1::2], strict=True))

    return np.concatenate([part.ravel() for part in parts]), rebuild


def sparse(features, values):
    """The coefficients of the few features that matter, by cross-validated orthogonal matching pursuit."""
    from sklearn.linear_model import OrthogonalMatchingPursuitCV

    scale = np.linalg.norm(features, axis=0)
    search = OrthogonalMatchingPursuitCV(fit_intercept=False, cv=5, max_iter=4).fit(features / scale, values)
    kept = np.abs(search.coef_) > 0.1 * np.abs(search.coef_).max()
    result = np.zeros(features.shape[1])
    result[kept] = np.linalg.lstsq(features[:, kept], values, rcond=None)[0]
    return result


def formula(coefficients):
    def power(name, n):
        return name if n == 1 else f"{name}**{n}"

    def term(i, j):
        return " ".join(power(name, n) for name, n in (("u", i), ("v", j)) if n) or "1"

    return " + ".join(f"{c:.3f} {term(*p)}" for c, p in zip(coefficients, POWERS, strict=True) if c)


def main():
    try:
        import sklearn  # noqa: F401
    except ImportError:
        print("skipped: scikit-learn is not installed; pip install scikit-learn")
        return
    start, times = np.array([0.44249296, 4.6280594]), np.linspace(*SPAN, 31)
    exact = odec.solve(truth, SPAN, start, rtol=1e-10, t_eval=times).ys
    data = exact * (1 + 1e-3 * np.random.default_rng(0).normal(size=exact.shape))

    net = fitted(times, data)
    fine = odec.solve(partly_known, SPAN, data[0], (net,), rtol=1e-8, t_eval=np.linspace(*SPAN, 301)).ys
    interaction = np.array([odec.nn.mlp(net, y) for y in fine])
    features = np.stack([fine[:, 0] ** i * fine[:, 1] ** j for i, j in POWERS], axis=1)
    coefficients = np.stack([sparse(features, interaction[:, k]) for k in range(2)])
    for name, row, true in zip("uv", coefficients, ("-0.900 u v", "0.800 u v"), strict=True):
        print(f"interaction in d{name}/dt: {formula(row)} (true: {true})")

    far = np.linspace(0.0, 30.0, 1_501)
    paths = {
        "truth": odec.solve(truth, (0.0, 30.0), start, rtol=1e-9, t_eval=far),
        "network": odec.solve(partly_known, (0.0, 30.0), start, (net,), rtol=1e-7, t_eval=far, throw=False),
        "recovered formula": odec.solve(
            recovered, (0.0, 30.0), start, (coefficients,), rtol=1e-9, t_eval=far, throw=False
        ),
    }

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 1, figsize=(9.0, 5.6), sharex=True, constrained_layout=True)
    for axes, k, name in zip(panels, range(2), ("prey u", "predators v"), strict=True):
        for (title, sol), style in zip(paths.items(), ("-", ":", "--"), strict=True):
            axes.semilogy(sol.ts, np.abs(sol.ys[:, k]), style, label=title)
        axes.semilogy(times, data[:, k], "k.", markersize=4, label="data")
        axes.set(ylabel=name, ylim=(0.01, 60.0))
    panels[1].set_xlabel("t")
    panels[0].legend(ncols=4, loc="upper right")
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    print("saved", path.name)


if __name__ == "__main__":
    main()
