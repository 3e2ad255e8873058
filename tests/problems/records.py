"""The reference problems as models, with their data as arrays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import problems

import odec


@dataclass(frozen=True)
class Problem:
    name: str
    record: dict
    f: Any  # f(t, y, p) as in problems.py
    model: odec.Model
    params: tuple  # () or one array

    @property
    def y0(self):
        return np.array(self.record["y0"])

    @property
    def t0(self):
        return self.record["t0"]

    @property
    def system(self):
        return self.model.bind(self.y0, self.params)


def _problem(name, record, f):
    p = np.array(list(record["params"].values()))
    if p.size:
        return Problem(name, record, f, odec.dynamics(lambda t, y, p: f(t, y, p)), (p,))
    return Problem(name, record, f, odec.dynamics(lambda t, y: f(t, y, ())), ())


def load(*files):
    return [_problem(name, *pair) for name, pair in problems.load(*files).items()]


def numbers(texts):
    return np.array([float(x) for x in texts])
