"""Fit the rates of a predator-prey model to noisy counts with scipy.optimize.least_squares and odec.sensitivities."""

from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

import odec

TRUE = {"birth": 0.55, "hunt": 0.028, "death": 0.84, "feed": 0.026}  # per year; hunt and feed per thousand too
START = np.array([30.0, 4.0])  # thousands of hares and lynxes


@odec.dynamics(state=("hares", "lynxes"))
def lotka_volterra(t, y, birth, hunt, death, feed):
    hares, lynxes = y
    return [birth * hares - hunt * hares * lynxes, feed * hares * lynxes - death * lynxes]


def model(logs, times):
    """The states (m, 2) at times, for the logarithms of rates and start, so that all stay positive."""
    *rates, hares, lynxes = np.exp(logs)
    return odec.solve(lotka_volterra, (times[0], times[-1]), [hares, lynxes], rates, rtol=1e-9, t_eval=times).ys


def slopes(logs, times):
    """d log(states) / d logs, (2 m, 6), at times: the rates and the start in the columns."""
    *rates, hares, lynxes = np.exp(logs)
    span, wrt = (times[0], times[-1]), (*TRUE, "y0")
    sol = odec.sensitivities(lotka_volterra, span, [hares, lynxes], rates, wrt=wrt, rtol=1e-9, t_eval=times)
    found = np.concatenate([sol.sensitivities[name].reshape(len(times), 2, -1) for name in wrt], axis=2)
    return (found * np.exp(logs) / sol.ys[:, :, None]).reshape(-1, 6)


def main():
    rng = np.random.default_rng(1)
    truth = np.log([*TRUE.values(), *START])
    years = np.arange(0.0, 21.0)
    counts = model(truth, years) * np.exp(0.1 * rng.normal(size=(21, 2)))  # noise of a tenth

    def misfit(logs):
        return np.ravel(np.log(model(logs, years)) - np.log(counts))

    guess = np.log([0.7, 0.02, 0.6, 0.02, *counts[0]])
    fit = least_squares(misfit, guess, jac=lambda logs: slopes(logs, years))
    noise = np.sqrt(2 * fit.cost / (counts.size - 6))
    errors = noise * np.sqrt(np.diag(np.linalg.inv(fit.jac.T @ fit.jac)))  # standard errors of the logarithms
    print(f"{fit.nfev} solves, {fit.njev} with sensitivities; noise of {noise:.3f}; rates and true rates:")
    for name, log, error, true in zip(TRUE, fit.x, errors, TRUE.values()):
        print(f"{name:6}{np.exp(log):8.4f} +- {np.exp(log) * error:.4f}{true:8.4f}")

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fine = np.linspace(0.0, 20.0, 401)
    first, fitted = model(guess, fine), model(fit.x, fine)
    figure, axes = plt.subplots(figsize=(7.5, 4), constrained_layout=True)
    for i, (name, colour) in enumerate((("hares", "tab:blue"), ("lynxes", "tab:orange"))):
        axes.plot(years, counts[:, i], "o", color=colour, markersize=4, label=f"{name}, counted")
        axes.plot(fine, fitted[:, i], color=colour, label=f"{name}, fitted")
        axes.plot(fine, first[:, i], ":", color=colour, linewidth=1, label=f"{name}, first guess")
    axes.set(xlabel="time, years", ylabel="thousands", title="Predator and prey, fitted to counts")
    figure.legend(loc="outside right center")
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    print("saved", path.name)


if __name__ == "__main__":
    main()
