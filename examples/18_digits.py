"""Handwritten digits by a neural ODE that is easy to solve: as accurate, half of the evaluations [Kelly et al. 2020].

--all trains the seven nets of the table in docs/neural.md, about a minute on two cores; --quick stops after two epochs.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import odec
from odec.regularizers import ErrorEstimate, JacobianFrobenius, Kinetic, Stiffness, Taylor

HIDDEN, BATCH, RATE, TRAINING = 100, 100, 5e-3, 1_500
EPOCHS = 2 if "--quick" in sys.argv[1:] else 10
SOLVER = dict(method="dopri5", rtol=1e-5, atol=1e-5, t_eval=[])
DYNAMICS = "w1", "b1", "w2", "b2"


@odec.dynamics
def network(t, z, w1, b1, w2, b2):
    """Images z (batch, 64) move by a layer of tanh, with time beside the inputs of each layer."""
    now = np.full_like(z[:, :1], t)
    hidden = np.tanh(np.concatenate([z, now], axis=1) @ w1 + b1)
    return np.concatenate([hidden, now], axis=1) @ w2 + b2


def with_terms(*terms):
    return odec.regularize(network, *terms, in_error_norm=False)


@dataclass
class Net:
    """A model, the strengths of its terms, the terms of the solver's own, their strengths."""

    model: odec.Model
    strengths: tuple = ()
    own: tuple = ()
    own_strengths: tuple = ()
    probes: bool = False


NETS = {
    "plain": Net(network),
    "R_2": Net(with_terms(Taylor(order=2)), (0.1,)),
    "R_3": Net(with_terms(Taylor(order=3)), (0.1,)),
    "kinetic and Jacobian": Net(with_terms(Kinetic(), JacobianFrobenius("probe")), (0.05, 0.001), probes=True),
    "error estimate": Net(network, (), (ErrorEstimate(),), (1e5,)),
    "stiffness": Net(network, (), (Stiffness(),), (0.3,)),
    "error and stiffness": Net(network, (), (ErrorEstimate(), Stiffness()), (1e5, 0.3)),
}


def digits():
    """Images (1797, 64) from 0 to 1 and what they show, in random order."""
    from sklearn.datasets import load_digits

    found, order = load_digits(), np.random.default_rng(0).permutation(1797)
    return found.data[order] / 16.0, found.target[order]


def adam(params, gradient, state, rate, beta1=0.9, beta2=0.999):
    """Parameters after a step of Adam; `state` keeps its moments [Kingma and Ba 2015]."""
    state["steps"] = n = state.get("steps", 0) + 1
    found = {}
    for name, g in gradient.items():
        m, v = state.get(name, (0.0, 0.0))
        m, v = state[name] = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        found[name] = params[name] - rate * (m / (1 - beta1**n)) / (np.sqrt(v / (1 - beta2**n)) + 1e-8)
    return found


def first_parameters(rng):
    return {
        "w1": rng.normal(size=(65, HIDDEN)) / 8, "b1": np.zeros(HIDDEN),
        "w2": rng.normal(size=(HIDDEN + 1, 64)) / 10, "b2": np.zeros(64),
        "head": rng.normal(size=(64, 10)) / 8, "bias": np.zeros(10),
    }  # fmt: skip


def log_probabilities(z, params):
    logits = z @ params["head"] + params["bias"]
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def gradient(net, params, z0, labels, probe):
    """The gradient of the mean cross-entropy and the terms, by all parameters."""
    moving = {name: params[name] for name in DYNAMICS} | ({"probe": probe} if net.probes else {})
    start = net.model.start(z0) if net.strengths else z0
    sol, pullback = odec.solve_vjp(net.model, (0.0, 1.0), start, moving, regularizers=net.own, **SOLVER)
    z1 = sol.y1[0] if net.strengths else sol.y1
    wrong = (np.exp(log_probabilities(z1, params)) - np.eye(10)[labels]) / len(labels)
    z_bar = (wrong @ params["head"].T)[None]
    bar = (z_bar, np.array([net.strengths])) if net.strengths else z_bar
    found = pullback(bar, regularizers=np.array(net.own_strengths)).params if net.own else pullback(bar).params
    return {name: found[name] for name in DYNAMICS} | {"head": z1.T @ wrong, "bias": wrong.sum(axis=0)}


def trained(net, images, labels, epochs=EPOCHS, seed=0):
    """(parameters, seconds of training)"""
    rng, state = np.random.default_rng(seed), {}
    params, began = first_parameters(rng), time.perf_counter()
    for epoch in range(epochs):
        for number, batch in enumerate(rng.permutation(len(images)).reshape(-1, BATCH)):
            probe = rng.choice([-1.0, 1.0], (BATCH, 64))
            try:
                params = adam(params, gradient(net, params, images[batch], labels[batch], probe), state, RATE)
            except odec.SolveError as error:
                raise SystemExit(f"training diverged in epoch {epoch}, batch {number}: {error}") from error
    return params, time.perf_counter() - began


def judged(params, images, labels, tolerance=1e-5):
    """(share that is recognised, evaluations of the solve)"""
    moving = {name: params[name] for name in DYNAMICS}
    sol = odec.solve(network, (0.0, 1.0), images, moving, **SOLVER | dict(rtol=tolerance, atol=tolerance))
    return np.mean(np.argmax(log_probabilities(sol.y1, params), axis=1) == labels), sol.stats["nfev"]


def main():
    images, labels = digits()
    seen, others = slice(TRAINING), slice(TRAINING, None)
    chosen = NETS if "--all" in sys.argv[1:] else {name: NETS[name] for name in ("plain", "R_2")}
    found = {}
    for name, net in chosen.items():
        params, seconds = trained(net, images[seen], labels[seen])
        share, evaluations = judged(params, images[others], labels[others])
        _, many = judged(params, images[others], labels[others], 1e-8)
        counts = f"{evaluations} evaluations, {many} at a tolerance of 1e-8"
        print(f"{name}: {share:.1%} recognised, {counts}; {seconds:.1f} s of training")
        moving = {key: params[key] for key in DYNAMICS}
        times = np.linspace(0.0, 1.0, 101)
        found[name] = odec.solve(network, (0.0, 1.0), images[:1], moving, rtol=1e-8, t_eval=times).ys[:, 0], evaluations

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(found), figsize=(4.4 * len(found), 4.0), sharey=True, constrained_layout=True)
    for axes, (name, (paths, evaluations)) in zip(panels, found.items(), strict=True):
        axes.plot(np.linspace(0.0, 1.0, 101), paths[:, ::2], linewidth=0.8)
        axes.set(xlabel="t", title=f"{name}: {evaluations} evaluations")
    panels[0].set_ylabel("half of the 64 components of an image")
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    print("saved", path.name)


if __name__ == "__main__":
    main()
