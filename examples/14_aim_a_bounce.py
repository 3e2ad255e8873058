"""Aim a ball so that its third bounce comes at a given place and time: gradients through events and their resets."""

from pathlib import Path

import numpy as np
from scipy.optimize import minimize

import odec

PLACE, TIME = 6.0, 2.5  # of the third bounce: m, s
HAND = 1.5  # m above the floor


@odec.dynamics(state=("x", "height", "vx", "vz"))
def ball(t, y, drag=0.05, bounce=0.85, grip=0.9):
    vx, vz = y[2:]
    speed = np.sqrt(vx**2 + vz**2)
    return [vx, vz, -drag * speed * vx, -9.81 - drag * speed * vz]  # m/s, m/s²; drag per m


def bounced(t, y, drag, bounce, grip):
    return [y[0], 0.0, grip * y[2], -bounce * y[3]]


FLOOR = odec.Event(lambda t, y: y[1], direction=-1, terminal=3, reset=bounced)
HOW = {"events": FLOOR, "rtol": 1e-9, "atol": 1e-9}


def miss(throw):
    """(squared distance from the goal in place and time, its gradient by the speeds vx and vz of the throw)."""
    sol, pullback = odec.solve_vjp(ball, (0.0, 10.0), [0.0, HAND, *throw], t_eval=[], **HOW)
    late, far = sol.t_events[0] - TIME, sol.y_events[0][:, 0] - PLACE
    third = np.array([0.0, 0.0, 1.0])
    states_bar = np.zeros((3, 4))
    states_bar[:, 0] = 2 * third * far
    gradient = pullback(None, t_events_bar=[2 * third * late], y_events_bar=[states_bar])
    return far[2] ** 2 + late[2] ** 2, gradient.y0[2:]


def main():
    throws = [np.array([1.0, 1.0])]
    found = minimize(miss, throws[0], jac=True, method="BFGS", tol=1e-9, callback=lambda x: throws.append(x.copy()))
    print(f"{found.nfev} solves with gradients; throw with vx = {found.x[0]:.4f}, vz = {found.x[1]:.4f} m/s")
    print(f"the third bounce is missed by {np.sqrt(found.fun):.1e} m and s")

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), sharey=True, constrained_layout=True)
    for k, throw in enumerate(throws):
        last = k == len(throws) - 1
        style = {"color": "tab:blue" if last else "0.7", "linewidth": 2.0 if last else 0.8}
        label = "found" if last else "on the way" if k == 0 else None
        sol = odec.solve(ball, (0.0, 10.0), [0.0, HAND, *throw], max_step=0.02, **HOW)
        left.plot(sol.ys[:, 0], sol.ys[:, 1], label=label, **style)
        right.plot(sol.ts, sol.ys[:, 1], **style)
    left.plot(PLACE, 0.0, "o", color="tab:orange", label="third bounce wanted", clip_on=False, zorder=3)
    right.plot(TIME, 0.0, "o", color="tab:orange", clip_on=False, zorder=3)
    left.set(xlabel="x, m", ylabel="height, m", ylim=(0.0, None), title="Where the ball goes")
    right.set(xlabel="time, s", title="and when")
    figure.legend(loc="outside lower center", ncols=3)
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    print("saved", path.name)


if __name__ == "__main__":
    main()
