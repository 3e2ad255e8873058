"""Ensembles of Lorenz's equations: a thousand starts that drift apart, and the peaks of z along a sweep of rho."""

from pathlib import Path

import numpy as np

import odec

SIGMA, BETA = 10.0, 8 / 3


@odec.dynamics(state=("x", "y", "z"))
def lorenz(t, state, rho, sigma=SIGMA, beta=BETA):
    x, y, z = state
    return [sigma * (y - x), x * (rho - z) - y, x * y - beta * z]


def drift():
    """A thousand starts within a thousandth of each other."""
    starts = np.array([1.0, 1.0, 1.0]) + 1e-3 * np.random.default_rng(0).normal(size=(1000, 3))
    times = np.linspace(12.0, 24.0, 1201)
    return odec.solve_ensemble(lorenz, (0.0, 24.0), starts, {"rho": 28.0}, batched="y0", rtol=1e-8, t_eval=times)


def sweep(rho):
    """Where z has its peaks, for each rho (N,)."""
    peak = odec.Event(lambda t, y, rho, sigma, beta: y[0] * y[1] - beta * y[2], direction=-1)
    return odec.solve_ensemble(
        lorenz, (0.0, 50.0), np.ones(3), {"rho": rho}, batched="rho", rtol=1e-7, atol=1e-7, events=peak
    )


def main():
    near = drift()
    print(near)
    spread = near.ys[:, :, 0].std(axis=0)
    print(f"x differs by {spread[0]:.1e} at t = 12, by {spread[400]:.1e} at t = 16, by {spread[-1]:.1f} at t = 24")

    rho = np.linspace(1.0, 220.0, 800)
    swept = sweep(rho)
    print(swept)
    times, heights = swept.t_events[0], swept.y_events[0][:, :, 2]
    heights = np.where(times > 25.0, heights, np.nan)  # what a start does before it settles is left out
    calm = np.nanmax(heights, axis=1, initial=0.0) - np.nanmin(heights, axis=1, initial=np.inf) < 0.5
    print(f"{np.count_nonzero(calm)} of {len(rho)} values of rho lead to rest, or to one loop with peaks of one height")

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(1, 1.4), constrained_layout=True)
    near.plot(left, components="x")
    left.set(ylim=(-19, 31), title="A thousand starts, 0.001 apart")
    right.plot(np.repeat(rho, heights.shape[1]), (heights - rho[:, None]).ravel(), ",", color="tab:blue")
    right.set(xlabel="rho", ylabel="peaks of z, less rho", xlim=(rho[0], rho[-1]))
    right.set_title("Every peak of z from t = 25 to 50")
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    print("saved", path.name)


if __name__ == "__main__":
    main()
