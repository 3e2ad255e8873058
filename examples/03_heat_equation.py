"""The heat equation on a line, by the method of lines: slices of an array, as one writes them in NumPy."""

from pathlib import Path

import numpy as np

import odec

POINTS = 101


@odec.dynamics
def heat(t, u, diffusivity=1.0):
    du = np.zeros_like(u)  # both ends keep their temperature
    du[1:-1] = diffusivity * (u[2:] - 2 * u[1:-1] + u[:-2]) * (POINTS - 1) ** 2
    return du


def main():
    x = np.linspace(0.0, 1.0, POINTS)
    start = np.sin(np.pi * x) + 0.5 * np.sin(3 * np.pi * x)
    times = np.linspace(0.0, 0.1, 6)
    sol = odec.solve(heat, (0.0, 0.1), start, rtol=1e-6, t_eval=times)
    exact = np.exp(-(np.pi**2) * 0.1) * np.sin(np.pi * x) + 0.5 * np.exp(-9 * np.pi**2 * 0.1) * np.sin(3 * np.pi * x)
    print(sol)
    print(f"largest difference from the exact solution at t = 0.1: {np.abs(sol.y1 - exact).max():.1e}")
    jacobian = heat.bind(start).jacobian(0.0, start, 1.0, sparse=True)
    print(f"the Jacobian has {jacobian.nnz} entries of {POINTS**2}")

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), constrained_layout=True)
    for time, row in zip(sol.ts, sol.ys, strict=True):
        axes.plot(x, row, label=f"t = {time:.2f}", color=plt.cm.inferno(0.85 * time / 0.1))
    axes.set(xlabel="x", ylabel="temperature", title="Heat equation")
    figure.legend(loc="outside right center")
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    print("saved", path.name)


if __name__ == "__main__":
    main()
