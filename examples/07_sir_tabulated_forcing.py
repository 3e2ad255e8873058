"""An epidemic whose contact rate is a table: np.interp in the model, and steps that end at the table's kinks."""

from pathlib import Path

import numpy as np

import odec

DAYS = np.array([0.0, 18.0, 25.0, 80.0, 94.0, 200.0])  # distancing from the third week to the twelfth
CONTACTS = np.array([0.40, 0.40, 0.06, 0.06, 0.30, 0.30])  # infections by one person a day, if all are susceptible
KINKS = DAYS[1:-1]


@odec.dynamics(state=("susceptible", "infected", "recovered"))
def sir(t, y, contacts, recovery=0.12):
    s, i, _ = y  # parts of the population
    infections = np.interp(t, DAYS, contacts) * s * i
    return [-infections, infections - recovery * i, recovery * i]


def main():
    span, y0 = (0.0, 200.0), [0.999, 0.001, 0.0]
    exact = odec.solve(sir, span, y0, (CONTACTS,), method="vern9", rtol=1e-13, atol=1e-15, tstops=KINKS).y1
    for tstops in ((), KINKS):
        sol = odec.solve(sir, span, y0, (CONTACTS,), method="vern7", rtol=1e-9, tstops=tstops, dense_output=True)
        steps, rejected, error = sol.stats["steps"], sol.stats["rejected"], np.abs(sol.y1 - exact).max()
        print(f"{len(tstops)} stops: {steps} steps, {rejected} rejected, error at the end {error:.1e}")

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(7, 5), sharex=True, height_ratios=(1, 2), constrained_layout=True
    )
    top.plot(DAYS, CONTACTS, "o-", color="tab:gray", markersize=4)
    top.set(ylabel="contacts, 1/day", ylim=(0, 0.5), title="Epidemic with a tabulated contact rate")
    sol.plot(bottom, components="infected", color="tab:red")
    bottom.plot(sol.ts, sol.ys[:, 1], ".", color="tab:red", markersize=5, label="steps")
    for day in KINKS:
        bottom.axvline(day, color="tab:gray", linestyle=":", linewidth=1, label="stops" if day == KINKS[0] else None)
    bottom.set(xlabel="time, days", ylabel="infected, part of the population", ylim=(0, None))
    bottom.legend()
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    print("saved", path.name)


if __name__ == "__main__":
    main()
