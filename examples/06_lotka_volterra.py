"""Predators and prey with named states: over time, as a phase portrait, and a number that no path changes."""

from pathlib import Path

import numpy as np

import odec

RATES = {"birth": 0.55, "hunt": 0.028, "death": 0.84, "feed": 0.026}  # per year; hunt and feed per thousand too


@odec.dynamics(state=("hares", "lynxes"))
def lotka_volterra(t, y, birth, hunt, death, feed):
    hares, lynxes = y  # thousands
    return [birth * hares - hunt * hares * lynxes, feed * hares * lynxes - death * lynxes]


def invariant(hares, lynxes, birth, hunt, death, feed):
    return feed * hares - death * np.log(hares) + hunt * lynxes - birth * np.log(lynxes)


def main():
    solutions = []
    for start in ([30.0, 4.0], [32.0, 10.0], [32.0, 16.0]):
        sol = odec.solve(lotka_volterra, (0.0, 30.0), start, RATES, rtol=1e-8, dense_output=True)
        print(sol)
        print(f"the invariant changes by {np.ptp(invariant(*sol.ys.T, **RATES)):.1e}")
        solutions.append(sol)

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    solutions[0].plot(left)
    left.set(xlabel="time, years", ylabel="thousands", title="Hares and lynxes", ylim=(0, 95))
    left.legend(loc="upper center", ncols=2)
    for sol in solutions:
        sol.plot(right, phase=("hares", "lynxes"))
    right.plot(RATES["death"] / RATES["feed"], RATES["birth"] / RATES["hunt"], "k.", label="equilibrium")
    right.set(xlabel="hares, thousands", ylabel="lynxes, thousands", title="Phase portrait, three starts")
    right.legend()
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    print("saved", path.name)


if __name__ == "__main__":
    main()
