"""A latent ODE for series with times of their own: spirals, and the weeks of CO2 at Mauna Loa with its holes.

An autoencoder that learns by the evidence lower bound: a GRU reads a series backwards and gives a normal density of the
latent state at its start, odec solves the latent dynamics of all series as one state over the union of their times, and
a small network reads values off it [Chen et al., NeurIPS 31 (2018), section 5; Rubanova et al., NeurIPS 32 (2019)].
"""

from pathlib import Path

import numpy as np

import odec

try:
    import torch
    from statsmodels.datasets import co2
except ImportError:
    torch = None

LATENT, HIDDEN, SERIES, POINTS, STEPS, RATE = 4, 32, 60, 30, 300, 1e-2
HALF, SPIRAL_NOISE = 2 * np.pi, 0.05
YEAR, PAST, NEXT = 365.25 / 7, 157, 52  # in weeks
CO2_NOISE = 0.5  # ppm


@odec.dynamics
def free(t, z, w):
    """A layer of tanh on the latent states (series, LATENT), with the weights as PyTorch names them."""
    return np.tanh(z @ w["0.weight"].T + w["0.bias"]) @ w["2.weight"].T + w["2.bias"]


@odec.dynamics
def seasonal(t, z, w, season):
    """The same with the time of the year beside the latent states; season (series, 1) is where each series starts."""
    angle = 2 * np.pi * (t + season)
    joined = np.concatenate([z, np.cos(angle), np.sin(angle)], axis=1)
    return np.tanh(joined @ w["0.weight"].T + w["0.bias"]) @ w["2.weight"].T + w["2.bias"]


def network(read, made, inputs):
    """Parts of a latent ODE that reads so many numbers at each time, and makes so many; its dynamics have inputs."""

    def layers(m, n):
        return torch.nn.Sequential(torch.nn.Linear(m, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, n))

    parts = {"reader": torch.nn.GRU(read + 1, HIDDEN, batch_first=True), "start": torch.nn.Linear(HIDDEN, 2 * LATENT)}
    return torch.nn.ModuleDict(parts | {"dynamics": layers(LATENT + inputs, LATENT), "readout": layers(LATENT, made)})


def start(net, times, values):
    """Mean and log of the standard deviation (series, LATENT) at t = 0 from what was seen, the last of it first."""
    gaps = torch.diff(times, dim=1, prepend=torch.zeros(len(times), 1))[..., None]
    _, last = net["reader"](torch.cat([values, gaps], dim=2).flip(1))
    return net["start"](last[0]).chunk(2, dim=1)


def path(net, z0, times, *season):
    """Values (series, points, numbers) at the times (series, points) of each, from one solve over all of them."""
    union, row = torch.unique(torch.cat([torch.zeros(len(times), 1), times], dim=1), return_inverse=True)
    params = dict(net["dynamics"].named_parameters()), *season
    z = odec.torch.odeint(seasonal if season else free, z0, union.double(), params, rtol=1e-3, atol=1e-3)
    return net["readout"](z[row[:, 1:], torch.arange(len(times))[:, None]])


def forecast(net, seen, times, *season):
    """Values at `times` from the mean latent state of what was seen."""
    with torch.no_grad():
        return path(net, start(net, *seen)[0], times, *season)


def bound(net, noise, seen, shown, *season):
    """Minus the evidence lower bound of a series, but for a constant: values `shown` are made of those `seen`."""
    mean, log_sd = start(net, *seen)
    found = path(net, mean + log_sd.exp() * torch.randn_like(mean), shown[0], *season)
    misfit = ((found - shown[1]) ** 2).sum() / (2 * noise**2)
    divergence = (mean**2 + (2 * log_sd).exp() - 1 - 2 * log_sd).sum() / 2
    return (misfit + divergence) / len(mean)


def train(net, noise, batch):
    """STEPS of Adam; batch() gives seen and shown, each (times, values), and what else the dynamics take."""
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        bound(net, noise, *batch()).backward()
        optimizer.step()
        schedule.step()


def root_mean_square(x):
    return float((x**2).mean().sqrt())


def spirals(rng):
    """A function from times (SERIES, m) to points (SERIES, m, 2) of spirals that run inwards, either way round."""
    angle, sense = rng.uniform(4 * np.pi, 8 * np.pi, (SERIES, 1)), rng.choice([-1.0, 1.0], (SERIES, 1))

    def points(times):
        left = angle - times.numpy()
        r = 0.2 + 0.07 * left
        return torch.from_numpy(np.stack([sense * r * np.cos(left), r * np.sin(left)], axis=2)).float()

    return points


def observed(rng, points):
    """(times, values) with noise: for each spiral POINTS of its own out of 100 times in the first half."""
    drawn = rng.permuted(np.tile(np.arange(1, 101), (SERIES, 1)), axis=1)[:, :POINTS]
    times = torch.from_numpy(np.sort(drawn, axis=1) * HALF / 100).float()
    values = points(times)
    return times, values + SPIRAL_NOISE * torch.from_numpy(rng.normal(size=values.shape)).float()


def learn_spirals(rng):
    """(network, seen, points) of spirals; their errors and those of others in print."""
    points = spirals(rng)
    seen = observed(rng, points)
    net = network(2, 2, 0)
    train(net, SPIRAL_NOISE, lambda: (seen, seen))
    others = spirals(rng)
    for name, truth, given in (("trained on", points, seen), ("new to it", others, observed(rng, others))):
        first, second = (torch.linspace(a, a + HALF, 51).expand(SERIES, -1) for a in (0.0, HALF))
        within, beyond = (root_mean_square(forecast(net, given, t) - truth(t)) for t in (first, second))
        last = root_mean_square(given[1][:, -1:] - truth(second))
        print(f"spirals {name}: error {within:.3f} in the half seen with noise {SPIRAL_NOISE}; ", end="")
        print(f"{beyond:.3f} in the other, {last:.3f} of the last point seen")
    return net, seen, points


def windows(rng, series, starts):
    """(seen, ahead, season, mean) of windows: POINTS of PAST weeks, and as many of the NEXT, among those measured.

    Times in years from the start of a window, which is `season` (windows, 1) years after those of the series; values in
    ppm above the mean (windows, 1, 1) of what is seen. The time of the year lies beside values seen.
    """
    there = [np.flatnonzero(~np.isnan(series[s : s + PAST + NEXT])) for s in starts]
    weeks = [np.sort(rng.choice(w[w < PAST], POINTS, replace=False)) for w in there]
    later = [np.sort(rng.choice(w[w >= PAST], POINTS, replace=False)) for w in there]
    first = np.asarray(starts)[:, None]
    mean = series[first + weeks].mean(axis=1, keepdims=True)
    values = [series[first + w] - mean for w in (weeks, later)]
    angle = 2 * np.pi * (first + weeks) / YEAR
    read = np.stack([values[0], np.cos(angle), np.sin(angle)], axis=2)
    pairs = (np.array(weeks), read), (np.array(later), values[1][..., None])
    seen, ahead = (tuple(torch.from_numpy(x).float() for x in (w / YEAR, v)) for w, v in pairs)
    return seen, ahead, torch.from_numpy(first / YEAR % 1).float(), torch.from_numpy(mean[..., None])


def fitted(seen, times, season):
    """A line with two harmonics of the year through what is seen of each window, at `times`."""

    def columns(t):
        angle = 2 * np.pi * (t + season)
        terms = torch.ones_like(t), t, angle.cos(), angle.sin(), (2 * angle).cos(), (2 * angle).sin()
        return torch.stack(terms, dim=2)

    return columns(times) @ torch.linalg.lstsq(columns(seen[0]), seen[1][..., :1]).solution


def year_before(series, starts, times):
    """The values of the same weeks a year before, straight lines over holes, in ppm."""
    there = np.flatnonzero(~np.isnan(series))
    weeks = starts[:, None] + times.numpy() * YEAR - NEXT
    return torch.from_numpy(np.interp(weeks, there, series[there]))[..., None]


def learn_co2(rng):
    """(years, CO2, what is made of it, (years, CO2) of the weeks seen) of the last window; errors of all in print."""
    table = co2.load_pandas().data["co2"]
    series, end = table.to_numpy(), int(np.searchsorted(table.index.year, 1990))
    net = network(3, 1, 2)

    def batch():
        seen, ahead, season, _ = windows(rng, series, rng.integers(0, end - PAST - NEXT, SERIES))
        shown = (seen[0], seen[1][..., :1]), ahead
        return seen, tuple(torch.cat(x, dim=1) for x in zip(*shown, strict=True)), season

    train(net, CO2_NOISE, batch)
    starts = np.linspace(end, len(series) - PAST - NEXT, SERIES).astype(int)
    seen, (times, truth), season, mean = windows(rng, series, starts)
    guesses = {
        "latent ODE": forecast(net, seen, times, season),
        "a line with two harmonics, fitted to each window": fitted(seen, times, season),
        "the week of the year before": year_before(series, starts, times) - mean,
        "the last value seen": seen[1][:, -1:, :1],
    }
    print(f"CO2 of the next year in {len(starts)} windows since 1990, of 3 years of {POINTS} weeks, error in ppm:")
    for name, guess in guesses.items():
        print(f"  {root_mean_square(guess - truth):5.2f}  {name}")
    weeks = np.arange(1, PAST + NEXT)
    years = torch.from_numpy(weeks / YEAR).float().expand(SERIES, -1)
    made = (forecast(net, seen, years, season) + mean)[-1, :, 0]
    dots = seen[0][-1], seen[1][-1, :, 0] + mean[-1, 0]
    return weeks / YEAR, series[starts[-1] + weeks], made, dots


def draw_spirals(panels, net, seen, points):
    """A spiral of either sense."""
    times = torch.linspace(0.0, 2 * HALF, 201).expand(SERIES, -1)
    truth, made = points(times), forecast(net, seen, times)
    sense = torch.sign(truth[:, 0, 0] * truth[:, 1, 1] - truth[:, 0, 1] * truth[:, 1, 0])
    for axes, way, title in zip(panels, (1, -1), ("Counter-clockwise", "Clockwise"), strict=True):
        k = int(torch.argmax((sense == way).int()))
        axes.plot(*truth[k].T, color="0.75", linewidth=3, label="truth")
        axes.plot(*made[k, :101].T, color="tab:blue", label="latent ODE, the time that was seen")
        axes.plot(*made[k, 100:].T, color="tab:orange", label="latent ODE, ahead")
        axes.plot(*seen[1][k].T, "k.", markersize=5, label="seen")
        axes.set(xlabel="x", ylabel="y", title=title, aspect="equal")


def draw_co2(axes, years, values, made, dots):
    """The last window."""
    axes.plot(years, values, color="0.75", linewidth=3)
    axes.plot(years[:PAST], made[:PAST], color="tab:blue")
    axes.plot(years[PAST - 1 :], made[PAST - 1 :], color="tab:orange")
    axes.plot(*dots, "k.", markersize=5)
    axes.set(xlabel="years, the last of them to the end of 2001", ylabel="CO2, ppm", title="Mauna Loa")


def main():
    if torch is None:
        print("skipped: PyTorch or statsmodels is not installed; pip install odec[torch,examples]")
        return
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the networks are small, and threads that wait for each other take the cores
    rng = np.random.default_rng(0)
    spiral, weekly = learn_spirals(rng), learn_co2(rng)

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 3, figsize=(13, 4.4), width_ratios=(1, 1, 1.3), constrained_layout=True)
    draw_spirals(panels[:2], *spiral)
    draw_co2(panels[2], *weekly)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    picture = Path(__file__).with_suffix(".png")
    figure.savefig(picture, dpi=150)
    print("saved", picture.name)


if __name__ == "__main__":
    main()
