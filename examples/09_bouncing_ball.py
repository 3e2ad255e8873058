"""A bouncing ball: events that are kept, and events that change state and parameters until the ball lies still."""

from pathlib import Path

import numpy as np

import odec

SLOW = 0.3  # m/s, below which the floor holds the ball


@odec.dynamics(state=("height", "speed"))
def fall(t, y, gravity=9.81, bounce=0.8):
    return [y[1], -gravity]  # m/s, m/s²


def on_the_floor(t, y, gravity, bounce):
    """The state and the gravity that is left after a bounce: none, once the ball is slow."""
    speed = -bounce * y[1]
    lies = speed < SLOW
    return [0.0, np.where(lies, 0.0, speed)], {"gravity": np.where(lies, 0.0, gravity)}


def main():
    floor = odec.Event(lambda t, y: y[0], direction=-1, reset=on_the_floor)
    apex = odec.Event(lambda t, y: y[1], direction=-1)
    sol = odec.solve(fall, (0.0, 6.5), [2.0, 0.0], events=[floor, apex], rtol=1e-9, dense_output=True)
    print(sol)
    bounces, tops = sol.t_events[0], sol.y_events[1]
    fall_time, ratio = np.sqrt(2 * 2.0 / 9.81), 0.8
    exact = fall_time * (1 + 2 * ratio * (1 - ratio ** np.arange(len(bounces))) / (1 - ratio))
    print(f"{len(bounces)} bounces, their times right to {np.abs(bounces - exact).max():.0e} s")
    print("heights of the tops, m:", *(f"{height:.3f}" for height in tops[:, 0]))

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    times = np.sort(np.concatenate([np.linspace(0.0, 6.5, 1001), bounces, np.nextafter(bounces, 7.0)]))
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7, 5), sharex=True, constrained_layout=True)
    top.plot(times, sol(times)[:, 0])
    top.plot(bounces, 0 * bounces, "k.", label="bounces")
    top.plot(sol.t_events[1], tops[:, 0], "kx", markersize=5, label="tops")
    top.set(ylabel="height, m", title="Bouncing ball")
    top.legend()
    bottom.plot(times, sol(times)[:, 1], color="tab:orange")
    bottom.set(xlabel="time, s", ylabel="speed, m/s")
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    print("saved", path.name)


if __name__ == "__main__":
    main()
