"""Generated text against what was reviewed: a change of the generator is read as a diff.

`python -m pytest tests/codegen/test_golden.py --update-golden` writes the files anew.
"""

from pathlib import Path

import numpy as np
import pytest

import odec
from odec.codegen.lower import lower
from odec.codegen.print_llvm import print_llvm
from odec.codegen.print_python import print_python
from odec.codegen.targets import Target

GOLDEN = Path(__file__).parent.parent / "golden"
TARGET = Target("golden", {"float64": 4, "float32": 8}, inlines=True)  # the same on every machine


@odec.dynamics
def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]


@odec.dynamics
def pendulum(t, s, length, gravity=9.81):
    acceleration = -gravity / length * np.sin(s["angle"])
    return {"angle": s["speed"], "speed": acceleration + 0.1 * np.cos(t)}


@odec.dynamics
def heat(t, u, diffusivity=1.0):
    du = np.zeros_like(u)
    du[1:-1] = diffusivity * (u[2:] - 2 * u[1:-1] + u[:-2])
    return du


@odec.dynamics
def network(t, z, w1, b1, w2):
    return np.tanh(z @ w1 + b1) @ w2


def systems():
    return {
        "lorenz": lorenz.bind(np.ones(3)),
        "pendulum": pendulum.bind({"angle": 1.0, "speed": 0.0}, (1.0,)),
        "heat": heat.bind(np.ones(100)),
        "network": network.bind(np.ones((8, 3)), (np.ones((3, 5)), np.ones(5), np.ones((5, 3)))),
    }


CASES = [
    ("lorenz", "rhs", "scalar", {}),
    ("lorenz", "jvp", "scalar", {"wrt": ("y", "p")}),
    ("lorenz", "vjp", "scalar", {}),
    ("lorenz", "jacobian", "scalar", {}),
    ("lorenz", "taylor", "scalar", {"order": 3}),
    ("lorenz", "step", "scalar", {"method": "dopri5"}),
    ("lorenz", "dense", "scalar", {"method": "bs3"}),
    ("lorenz", "advance", "scalar", {"method": "bs3"}),
    ("pendulum", "rhs", "scalar", {}),
    ("pendulum", "vjp", "scalar", {}),
    ("heat", "rhs", "array", {}),
    ("heat", "vjp", "array", {}),
    ("network", "rhs", "array", {}),
]


@pytest.mark.parametrize("model, kernel, layout, how", CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_generated_text_is_as_reviewed(model, kernel, layout, how, request):
    made = lower(systems()[model].derivative(kernel, **how), kernel, layout)
    texts = {
        f"{model}_{kernel}.py.txt": print_python(made),
        f"{model}_{kernel}.ll.txt": print_llvm([made], TARGET),
    }
    if kernel == "advance":
        texts[f"{model}_{kernel}_in_lanes.ll.txt"] = print_llvm([made], TARGET, 4, ("rtol", "atol", "rules", "p"))
    for name, text in texts.items():
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.write_text(text, encoding="utf-8")
        assert path.read_text(encoding="utf-8") == text, f"{name} differs; look at the diff, then --update-golden"
