"""Ensembles that every form of the CUDA kernel is compared on with the CPU, and the comparison."""

import contextlib

import numpy as np

import odec
from odec.integrate import ensemble_cuda


@odec.dynamics
def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]


@odec.dynamics
def ball(t, y, gravity=9.81, bounce=0.8):
    return [y[1], -gravity]


@odec.dynamics
def pendulum(t, s, length, gravity=9.81):
    return {"angle": s["speed"], "speed": -gravity / length * np.sin(s["angle"]) + 0.1 * np.exp(-t)}


@odec.dynamics
def blow_up(t, y, rate=1.0):
    return [rate * y[0] ** 2]


@odec.dynamics
def network(t, z, w1, b1, w2):
    return np.tanh(z @ w1 + b1) @ w2


@odec.dynamics
def mixed(t, y, gain):
    return gain * (MIXING @ np.tanh(MIXING @ np.tanh(y))) - y


@odec.dynamics
def coupled(t, y, a):
    return np.linalg.solve(np.eye(3) + np.outer(y, y), a @ y) * np.linalg.det(a)


FLOOR = odec.Event(
    lambda t, y: y[0], direction=-1, reset=lambda t, y, *, bounce: [0.0 * y[0], -bounce * y[1]]
)  # fmt: skip
APEX = odec.Event(lambda t, y: y[1], direction=-1)
THIRD = odec.Event(lambda t, y: y["angle"], direction=-1, terminal=3)
GRADIENT = "y0", "params", "t_eval", "t0", "t1"
TIMES = np.linspace(0.0, 1.0, 4)
RANDOM = np.random.default_rng(5)
MIXING = np.linspace(-1.0, 1.0, 400).reshape(20, 20)

# name -> (model, t_span, y0, params, batched, other arguments)
CASES = {
    "rows": (lorenz, (0.0, 1.0), [1.0, 1.0, 1.0], {"rho": np.linspace(0, 21, 3)}, "rho", {"t_eval": TIMES}),
    "single precision": (
        lorenz, (0.0, 1.0), np.ones((3, 3), np.float32) + np.arange(3, dtype=np.float32)[:, None], (), "y0",
        {"t_eval": TIMES, "dtype": "float32", "rtol": 1e-4, "atol": 1e-4},
    ),
    "ends only, all inputs their own": (
        lorenz, (np.array([0.0, 0.1, 0.2]), 0.5), np.eye(3), {"sigma": np.array([9.0, 10.0, 11.0]),
        "beta": np.array([2.0, 2.5, 3.0])}, ("y0", "sigma", "beta"), {"method": "dopri5", "tstops": (0.3,)},
    ),
    "own times, a structured state": (
        pendulum, (0.0, 1.0), {"angle": np.array([0.1, 1.0, 2.0]), "speed": 0.0 * np.ones(3)}, {"length": 1.0}, "y0",
        {"t_eval": np.array([[0.0, 0.5, 1.0], [0.25, 0.5, np.nan], [0.1, np.nan, np.nan]]), "method": "bs3"},
    ),
    "backwards": (lorenz, (0.5, 0.0), np.ones((2, 3)), (), "y0", {"t_eval": [0.5, 0.2, 0.0]}),
    "fixed steps": (
        lorenz, (0.0, 0.5), np.ones((2, 3)), {"rho": np.array([1.0, 20.0])}, ("y0", "rho"),
        {"method": "rk4", "first_step": 0.05},
    ),
    "a series": (
        lorenz, (0.0, 0.5), np.ones((2, 3)), {"rho": np.array([1.0, 20.0])}, ("y0", "rho"),
        {"method": "taylor", "t_eval": TIMES / 2},
    ),
    "failures": (
        blow_up, (0.0, 1.0), [[1.0], [0.5], [3.0]], {"rate": np.array([2.0, 1.0, 1.0])}, ("y0", "rate"),
        {"max_steps": 60, "t_eval": TIMES},
    ),
    "resets": (
        ball, (0.0, 1.5), np.array([[0.5, 0.0], [1.0, 1.0]]), {"bounce": np.array([0.7, 0.9])}, ("y0", "bounce"),
        {"events": (FLOOR, APEX), "t_eval": np.linspace(0, 1.5, 4)},
    ),
    "a terminal event": (
        pendulum, (0.0, 6.0), {"angle": np.array([0.5, 1.0]), "speed": np.zeros(2)}, {"length": np.array([0.3, 50.0])},
        ("y0", "length"), {"events": THIRD},
    ),
}  # fmt: skip
# Those that take long as plain Python, or need what only machine code has.
LONGER = {
    "a network": (
        network, (0.0, 1.0), RANDOM.normal(size=(3, 8, 3)),
        tuple(RANDOM.normal(size=shape) for shape in ((3, 5), (5,), (5, 3))), "y0", {"t_eval": TIMES},
    ),
    "linear systems": (coupled, (0.0, 0.5), np.eye(3), (np.eye(3) + 0.1 * RANDOM.normal(size=(3, 3)),), "y0", {}),
    "a series in a loop over the orders": (
        mixed, (0.0, 1.0), RANDOM.normal(size=(3, 20)), (0.3,), "y0", {"method": "taylor", "rtol": 1e-10},
    ),
    "a series of changing order": (
        pendulum, (0.0, 2.0), {"angle": np.array([0.5, 1.0, 0.2]), "speed": np.zeros(3)},
        {"length": np.array([0.1, 1.0, 0.2])}, ("y0", "length"),
        {"method": odec.TaylorMethod(order="adaptive"), "rtol": 1e-10, "t_eval": TIMES},
    ),
    "events along a series": (
        pendulum, (0.0, 3.0), {"angle": np.array([0.5, 1.0, 0.2]), "speed": np.zeros(3)},
        {"length": np.array([0.1, 1.0, 0.2])}, ("y0", "length"),
        {"events": (THIRD, odec.Event(lambda t, y: y["speed"])), "method": "taylor", "rtol": 1e-10},
    ),
    "many events": (
        pendulum, (0.0, 60.0), {"angle": np.array([0.5, 1.0, 0.2]), "speed": np.zeros(3)},
        {"length": np.array([0.01, 50.0, 0.02])}, ("y0", "length"),
        {"events": odec.Event(lambda t, y: y["angle"])},
    ),
}  # fmt: skip

# Those that have gradients: without events; and some that differ in most of what a kernel is made for.
DIFFERENTIABLE = [name for name, case in (CASES | LONGER).items() if "events" not in case[-1]]
PULLED = ["rows", "ends only, all inputs their own", "own times, a structured state"]


def solved(case, target, **more):
    """The EnsembleSolution of a case."""
    model, span, y0, params, batched, how = case
    return odec.solve_ensemble(model, span, y0, params, batched=batched, target=target, **(how | more))


def pulled(case, target):
    """The Gradient of a case, of cotangents that are neither few nor alike."""
    model, span, y0, params, batched, how = case
    ens, pullback = odec.solve_vjp(model, span, y0, params, batched=batched, target=target, **how)
    bar = lambda rows: np.cos(np.arange(rows.size)).reshape(rows.shape)
    return pullback({name: bar(rows) for name, rows in ens.ys.items()} if isinstance(ens.ys, dict) else bar(ens.ys))


@contextlib.contextmanager
def standing_for_a_gpu(gpu):
    """What asks for a GPU finds this one."""
    usual, ensemble_cuda.device = ensemble_cuda.device, lambda: gpu
    try:
        yield gpu
    finally:
        ensemble_cuda.device = usual


def on_gpu(gpu, case, **more):
    """The EnsembleSolution of a case on what stands for a GPU."""
    with standing_for_a_gpu(gpu):
        return solved(case, "cuda", **more)


def leaves(values):
    """The arrays of a structure, flat."""
    if isinstance(values, (dict, tuple)):
        parts = values.values() if isinstance(values, dict) else values
        return np.concatenate([np.empty(0), *map(leaves, parts)])
    return np.asarray(values, float).ravel()


def record(solution):
    """What is compared of an EnsembleSolution, as {name: array}."""
    fired = solution.fired
    found = {
        "status": solution.status, "steps": solution.steps, "rejected": solution.rejected, "t1": solution.t1,
        "y1": leaves(solution.y1), "ys": leaves(solution.ys), "nfev": solution.nfev,
    }  # fmt: skip
    if fired is not None:
        found |= {"member": fired.member, "event": fired.event, "fired_t": fired.t, "fired_y": fired.y}
    return {name: np.asarray(value) for name, value in found.items()}


def gradient_record(gradient):
    """What is compared of a Gradient, as {name: array}."""
    return {name: leaves(getattr(gradient, name)) for name in GRADIENT if getattr(gradient, name) is not None}


def assert_same_gradient(found, wanted, tolerance):
    """Cotangents within a tolerance of the largest of their kind."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        most = np.abs(value).max(initial=1.0)
        np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance * most, err_msg=name)


def assert_same(found, wanted, tolerance):
    """Equal whole numbers, and states within a tolerance, which rounding and its growth need."""
    for name in ("status", "member", "event"):
        if name in wanted:
            np.testing.assert_array_equal(found[name], wanted[name], name)
    for name in ("t1", "y1", "ys", "fired_t", "fired_y"):
        if name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], rtol=tolerance, atol=tolerance, err_msg=name)
    for name, most in (("steps", 2), ("rejected", 2), ("nfev", 40)):  # four more tries, of some evaluations each
        assert np.abs(found[name] - wanted[name]).max() <= (0 if tolerance < 1e-6 else most), name


def tolerance_of(case):
    return 1e-9 if case[-1].get("dtype") != "float32" else 1e-3
