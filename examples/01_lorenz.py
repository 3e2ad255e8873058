"""The Lorenz attractor: decorate, solve, print, save a picture."""

from pathlib import Path

import numpy as np

import odec


@odec.dynamics(state=("x", "y", "z"))
def lorenz(t, state, sigma=10.0, rho=28.0, beta=8 / 3):
    x, y, z = state
    return [sigma * (y - x), x * (rho - z) - y, x * y - beta * z]


def main():
    sol = odec.solve(lorenz, (0.0, 40.0), [1.0, 1.0, 1.0], rtol=1e-8, atol=1e-10, t_eval=np.linspace(0, 40, 8001))
    print(sol)
    print("end state", sol.y1)

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 5), constrained_layout=True)
    axes.plot(sol.ys[:, 0], sol.ys[:, 2], linewidth=0.4)
    axes.set(xlabel="x", ylabel="z", title="Lorenz attractor")
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    print("saved", path.name)


if __name__ == "__main__":
    main()
