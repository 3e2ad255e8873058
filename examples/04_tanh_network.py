"""A small tanh network as dynamics: weights are parameters, and their gradient comes from `vjp`."""

from pathlib import Path

import numpy as np

import odec


@odec.dynamics
def network(t, z, weights):
    hidden = np.tanh(z @ weights["W1"] + weights["b1"])
    return hidden @ weights["W2"] + weights["b2"]


def main():
    rng = np.random.default_rng(3)
    weights = {
        "W1": rng.normal(size=(2, 16)), "b1": rng.normal(size=16),
        "W2": 0.5 * rng.normal(size=(16, 2)), "b2": np.zeros(2),
    }  # fmt: skip
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # 24 samples move together
    sol = odec.solve(network, (0.0, 2.0), points, (weights,), rtol=1e-7, t_eval=np.linspace(0, 2, 101))
    print(sol)

    system = network.bind(points, (weights,))
    _, _, (gradient,) = system.vjp(0.0, points, weights, cotangent=np.ones_like(points))
    print("shapes of the gradient:", {name: value.shape for name, value in gradient.items()})

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 5), constrained_layout=True)
    axes.plot(sol.ys[:, :, 0], sol.ys[:, :, 1], color="tab:blue", linewidth=0.8)
    axes.plot(*points.T, "o", color="tab:gray", markersize=4, label="start")
    axes.plot(*sol.y1.T, "o", color="tab:red", markersize=4, label="end")
    axes.set(xlabel="z[0]", ylabel="z[1]", title="Paths through a tanh network")
    axes.legend()
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    print("saved", path.name)


if __name__ == "__main__":
    main()
