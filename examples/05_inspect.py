"""Look inside a model: its generated code, a check of its derivatives, and where its Jacobian is not zero."""

from pathlib import Path

import numpy as np

import odec
from odec.testing import check_model

CELLS = 8


@odec.dynamics
def brusselator(t, y, a=1.0, b=3.0, exchange=0.5):
    """Two species that react in a ring of cells, and flow between neighbours: y is (2, CELLS)."""
    u, v = y
    reaction = u * u * v
    return np.stack(
        [
            a - (b + 1) * u + reaction + exchange * (np.roll(u, 1) - 2 * u + np.roll(u, -1)),
            b * u - reaction + exchange * (np.roll(v, 1) - 2 * v + np.roll(v, -1)),
        ]
    )


def main():
    start = np.stack([1 + 0.1 * np.sin(np.arange(CELLS)), np.full(CELLS, 3.0)])
    system = brusselator.bind(start)
    print(system)
    print(system.source("rhs", layout="array"))
    print(check_model(brusselator, start, examples=5, derivatives=("jvp", "vjp", "jacobian")))

    pattern = system.jacobian_sparsity()
    print(f"the Jacobian has {pattern.nnz} entries of {pattern.shape[0] * pattern.shape[1]}")

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sol = odec.solve(brusselator, (0.0, 40.0), start, t_eval=np.linspace(0, 40, 1001))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), constrained_layout=True)
    left.spy(pattern, markersize=5)
    left.set_title("Jacobian: entries that can differ from zero")
    right.plot(sol.ts, sol.ys[:, 0], linewidth=0.7)
    right.set(xlabel="t", ylabel="u", title="Brusselator: u in every cell")
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    print("saved", path.name)


if __name__ == "__main__":
    main()
