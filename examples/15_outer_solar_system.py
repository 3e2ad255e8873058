"""The outer Solar System for 100,000 years to rounding, by Taylor series: what the energy loses."""

from pathlib import Path

import numpy as np

import odec

# The sun with its inner planets, Jupiter, Saturn, Uranus, Neptune, Pluto: Applegate et al., Astron. J. 92 (1986) 176.
MASSES = 1 / np.array([1 / 1.00000597682, 1047.355, 3501.6, 22869.0, 19314.0, 1.35e8])  # in suns
POSITIONS = np.array([  # in astronomical units
    [-4.06428567034226e-3, -6.08813756435987e-3, -1.66162304225834e-6],
    [3.40546614227466, 3.62978190075864, 3.42386261766577e-2],
    [6.60801554403466, 6.38084674585064, -1.36145963724542e-1],
    [11.1636331405597, 16.0373479057256, 3.61783279369958e-1],
    [-30.1777243405203, 1.91155314998064, -1.53887595621042e-1],
    [-21.3858977531573, 32.0719104739886, 2.49245689556096],
])  # fmt: skip
SPEEDS = 365 * np.array([  # in astronomical units a year of 365 days
    [6.69048890636161e-6, -6.33922479583593e-6, -3.13202145590767e-9],
    [-5.59797969310664e-3, 5.51815399480116e-3, -2.66711392865591e-6],
    [-4.17354020307064e-3, 3.99723751748116e-3, 1.67206320571441e-5],
    [-3.25884806151064e-3, 2.06438412905916e-3, -2.17699042180559e-5],
    [-2.17471785045538e-4, -3.11361111025884e-3, 3.58344705491441e-5],
    [-1.76936577252484e-3, -2.06720938381724e-3, 6.58091931493844e-4],
])  # fmt: skip
GRAVITY = (365 * 0.01720209895) ** 2
NAMES = "Sun", "Jupiter", "Saturn", "Uranus", "Neptune", "Pluto"
ROUNDING = 2.0**-53
YEARS = 1e5


def pairs(masses, gravity):
    """The bodies i and j of each pair, and the matrix (bodies, pairs) of the pulls on each body."""
    i, j = np.triu_indices(len(masses), 1)
    pull = np.zeros((len(masses), len(i)))
    pull[i, np.arange(len(i))], pull[j, np.arange(len(i))] = gravity * masses[j], -gravity * masses[i]
    return i, j, pull


def attracting(masses, gravity):
    """The model of bodies that attract each other: q, v of shape (bodies, 3)."""
    i, j, pull = pairs(masses, gravity)

    @odec.dynamics
    def bodies(t, y):
        between = y["q"][j] - y["q"][i]
        cubes = np.sum(between**2, axis=1, keepdims=True) ** -1.5
        return {"q": y["v"], "v": pull @ (cubes * between)}

    return bodies


def energy(masses, gravity, q, v):
    """For positions and speeds (m, bodies, 3) the energy (m,), with more digits than they have."""
    q, v, masses = (np.asarray(x, np.longdouble) for x in (q, v, masses))
    i, j, _ = pairs(masses, gravity)
    distances = np.sqrt(np.sum((q[:, j] - q[:, i]) ** 2, axis=2))
    kinetic = np.sum(masses * np.sum(v**2, axis=2), axis=1) / 2
    return kinetic - gravity * np.sum(masses[i] * masses[j] / distances, axis=1)


def main():
    model, y0 = attracting(MASSES, GRAVITY), {"q": POSITIONS, "v": SPEEDS}
    sol = odec.solve(model, (0.0, YEARS), y0, method="taylor", rtol=2.2e-16, atol=2.2e-16, max_steps=10**9)
    total = energy(MASSES, GRAVITY, sol.ys["q"], sol.ys["v"])
    error = np.abs(total[1:] / total[0] - 1).astype(float)
    print(f"{sol.stats['steps']:,} steps in {sol.stats['solve_seconds']:.1f} s: energy kept to {error.max():.1e}")

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.5), width_ratios=(1, 1.3), constrained_layout=True)
    for k, name in enumerate(NAMES):
        left.plot(*sol.ys["q"][:2500, k, :2].T, linewidth=0.9, label=name)
    left.set(xlabel="x, au", ylabel="y, au", title="2,500 steps", aspect="equal")
    left.legend(loc="lower left", fontsize="small")
    shown = np.unique(np.geomspace(1, len(error), 1500).astype(int)) - 1
    times, law = sol.ts[1:][shown], ROUNDING * np.sqrt(shown + 1)
    right.loglog(times, error[shown], ".", markersize=3, label="energy, relative error")
    right.loglog(times, law, color="black", label=r"$2^{-53}\sqrt{\mathrm{steps}}$")
    right.set(xlabel="years", ylim=(1e-18, None), title="What the energy loses")
    right.legend(loc="upper left")
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    print("saved", path.name)


if __name__ == "__main__":
    main()
