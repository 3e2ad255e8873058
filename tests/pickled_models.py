"""Models at the top level of a module, as other processes import them."""

import numpy as np

import odec


@odec.dynamics
def lotka(t, y, a=1.5):
    return [a * y[0] - y[0] * y[1], y[0] * y[1] - 3.0 * y[1]]


@odec.dynamics(state=("angle", "speed"))
def pendulum(t, y, length=1.0):
    return [y[1], -9.81 / length * np.sin(y[0])]


def plain(t, y):
    return -y


renamed = odec.dynamics(plain)


class Group:
    @staticmethod
    def growth(t, y):
        return y


grouped = odec.dynamics(Group.growth)


def end_of(model, y0, params):
    """The end state, as a task for another process."""
    return odec.solve(model, (0.0, 2.0), y0, params).y1


def failing():
    odec.solve(odec.dynamics(lambda t, y: y**2), (0.0, 2.0), [1.0])
