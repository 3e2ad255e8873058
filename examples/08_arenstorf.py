"""Arenstorf's orbit: a satellite around earth and moon that comes back after four loops, and what a tolerance costs."""

from pathlib import Path

import numpy as np

import odec

PERIOD = 17.0652165601579625589  # in units of 4.35 days
START = [0.994, 0.0, 0.0, -2.00158510637908252240]  # in distances from earth to moon


@odec.dynamics(state=("x", "y", "vx", "vy"))
def arenstorf(t, y, moon=0.012277471):
    """In the frame that turns with earth at (-moon, 0) and moon at (1 - moon, 0) [hairer1993, II.0 (0.1)]."""
    x, y, vx, vy = y
    earth = 1 - moon
    pull_earth = earth / np.hypot(x + moon, y) ** 3
    pull_moon = moon / np.hypot(x - earth, y) ** 3
    return [
        vx, vy,
        x + 2 * vy - pull_earth * (x + moon) - pull_moon * (x - earth),
        y - 2 * vx - (pull_earth + pull_moon) * y,
    ]  # fmt: skip


def main():
    print("how far from its start the satellite is after one period, and the evaluations that took")
    for rtol in (1e-6, 1e-9, 1e-12):
        for method in ("tsit5", "vern9"):
            sol = odec.solve(arenstorf, (0.0, PERIOD), START, method=method, rtol=rtol, atol=rtol, t_eval=[])
            gap = np.hypot(*(sol.y1 - START)[:2])
            print(f"rtol {rtol:.0e}, {method}: {gap:.1e} after {sol.stats['nfev']:,}")

    sol = odec.solve(arenstorf, (0.0, PERIOD), START, method="vern9", rtol=1e-12, atol=1e-12, dense_output=True)

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.5), constrained_layout=True)
    sol.plot(left, phase=("x", "y"), linewidth=0.9)
    left.plot(*sol.ys[:, :2].T, ".", markersize=3, color="tab:blue", label="steps")
    left.plot(-0.012277471, 0.0, "o", color="tab:green", markersize=9, label="earth")
    left.plot(1 - 0.012277471, 0.0, "o", color="tab:gray", markersize=5, label="moon")
    left.set(
        xlabel="x, earth-moon distances", ylabel="y, earth-moon distances", title="Arenstorf orbit", aspect="equal"
    )
    left.legend(loc="upper left")
    right.semilogy(sol.ts[:-1], np.diff(sol.ts), ".-", linewidth=0.5, markersize=3)
    right.set(
        xlabel="t, units of 4.35 days",
        ylabel="step size, same unit",
        title=f"vern9 takes {sol.stats['steps']} steps, short ones at the moon",
    )
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    print("saved", path.name)


if __name__ == "__main__":
    main()
