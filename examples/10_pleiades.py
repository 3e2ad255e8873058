"""The Pleiades: seven stars, their pairs by broadcasting, a method of high order, and the energy as a check."""

from pathlib import Path

import numpy as np

import odec

MASSES = np.arange(1.0, 8.0)
POSITIONS = np.array([[3.0, 3.0], [3.0, -3.0], [-1.0, 2.0], [-3.0, 0.0], [2.0, 0.0], [-2.0, -4.0], [2.0, 4.0]])
SPEEDS = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, -1.25], [0.0, 1.0], [1.75, 0.0], [-1.5, 0.0]])


@odec.dynamics
def pleiades(t, y):
    """q, v : positions and speeds (7, 2) [hairer1993, II.10]."""
    between = y["q"][None, :, :] - y["q"][:, None, :]  # (7, 7, 2), from the first star to the second
    cubes = np.sum(between**2, axis=2) ** 1.5 + np.eye(7)  # 1 where a star meets itself
    return {"q": y["v"], "v": np.sum((MASSES / cubes)[:, :, None] * between, axis=1)}


def energy(q, v):
    """For positions and speeds (m, 7, 2) the kinetic and potential energy (m,)."""
    i, j = np.triu_indices(7, 1)
    distances = np.linalg.norm(q[:, i] - q[:, j], axis=2)
    return 0.5 * np.sum(MASSES * np.sum(v**2, axis=2), axis=1) - np.sum(MASSES[i] * MASSES[j] / distances, axis=1)


def main():
    y0, times = {"q": POSITIONS, "v": SPEEDS}, np.linspace(0.0, 3.0, 1501)
    for method in ("tsit5", "dop853", "vern9"):
        sol = odec.solve(pleiades, (0.0, 3.0), y0, method=method, rtol=1e-10, atol=1e-10)
        total = energy(sol.ys["q"], sol.ys["v"])
        drift = np.abs(total / total[0] - 1).max()
        print(f"{method}: {sol.stats['steps']:,} steps, {sol.stats['nfev']:,} evaluations, energy kept to {drift:.1e}")

    sol = odec.solve(pleiades, (0.0, 3.0), y0, method="vern9", rtol=1e-10, atol=1e-10, t_eval=times)
    q = sol.ys["q"]

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.6, 5.6), constrained_layout=True)
    for star, mass in enumerate(MASSES):
        (line,) = axes.plot(q[:, star, 0], q[:, star, 1], linewidth=1, label=f"mass {mass:.0f}")
        axes.plot(*q[0, star], "o", color=line.get_color(), markersize=3)
        axes.plot(*q[-1, star], "*", color=line.get_color(), markersize=9)
    axes.set(xlabel="x", ylabel="y", title="The Pleiades: dots at t = 0, stars at t = 3", aspect="equal")
    figure.legend(loc="outside right center")
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    print("saved", path.name)


if __name__ == "__main__":
    main()
