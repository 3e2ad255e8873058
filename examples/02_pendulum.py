"""A pendulum whose state and parameters are structures: named, nested, and kept that way in the result."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

import odec


class Pendulum(NamedTuple):
    length: float = 1.0  # m
    gravity: float = 9.81  # m/s²
    damping: float = 0.15  # 1/s


@odec.dynamics
def swing(t, y, pendulum, drive):
    torque = drive["amplitude"] * np.cos(drive["frequency"] * t)
    pull = pendulum.gravity / pendulum.length * np.sin(y["angle"])
    return {"angle": y["speed"], "speed": torque - pull - pendulum.damping * y["speed"]}


def main():
    y0 = {"angle": 2.0, "speed": 0.0}
    params = {"pendulum": Pendulum(), "drive": {"amplitude": 0.8, "frequency": 2.0}}
    sol = odec.solve(swing, (0.0, 30.0), y0, params, rtol=1e-8, t_eval=np.linspace(0, 30, 1501))
    print(sol)
    print("end state", {name: float(value) for name, value in sol.y1.items()})

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), constrained_layout=True)
    left.plot(sol.ts, sol.ys["angle"], label="angle, rad")
    left.plot(sol.ts, sol.ys["speed"], label="speed, rad/s")
    left.set(xlabel="time, s", title="Driven pendulum")
    left.legend()
    right.plot(sol.ys["angle"], sol.ys["speed"], linewidth=0.7)
    right.set(xlabel="angle, rad", ylabel="speed, rad/s", title="Phase portrait")
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    print("saved", path.name)


if __name__ == "__main__":
    main()
