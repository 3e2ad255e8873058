"""A neural ODE learns a spiral from noisy data: the model compiled by odec, the training loop PyTorch's."""

from pathlib import Path

import numpy as np

import odec

HIDDEN, BATCH, WINDOW, EPOCHS = 32, 24, 10, 500


@odec.dynamics
def spiral(t, y, turn=2.0, decay=0.1):
    """What the network has to find [Chen et al., NeurIPS 31 (2018)]."""
    u, v = y
    return [-decay * u**3 + turn * v**3, -turn * u**3 - decay * v**3]


@odec.dynamics
def network(t, y, w):
    """A layer of tanh on the cubes of each state of a batch (BATCH, 2), with the weights as PyTorch names them."""
    return np.tanh(y**3 @ w["0.weight"].T + w["0.bias"]) @ w["2.weight"].T + w["2.bias"]


def main():
    try:
        import torch
    except ImportError:
        print("skipped: PyTorch is not installed; pip install odec[torch]")
        return

    rng, times = np.random.default_rng(0), np.linspace(0.0, 25.0, 500)
    truth = odec.solve(spiral, (0.0, 25.0), [2.0, 0.0], rtol=1e-9, t_eval=times).ys
    data = torch.from_numpy(truth + 0.02 * rng.normal(size=truth.shape)).float()

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, 2))
    weights = dict(net.named_parameters())
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    window, losses = torch.from_numpy(times[:WINDOW]), []
    for _ in range(EPOCHS):
        starts = torch.from_numpy(rng.integers(0, len(times) - WINDOW, BATCH))
        seen = torch.stack([data[starts + k] for k in range(WINDOW)])
        found = odec.torch.odeint(network, seen[0], window, (weights,), rtol=1e-5, atol=1e-5)
        loss = (found - seen).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    fine = np.linspace(0.0, 25.0, 2501)
    whole = odec.solve(spiral, (0.0, 25.0), [2.0, 0.0], rtol=1e-9, t_eval=fine).ys
    with torch.no_grad():
        learnt = odec.torch.odeint(network, data[:1], fine, (weights,), rtol=1e-6, atol=1e-6)[:, 0].numpy()
    print(f"mean error within windows: {np.mean(losses[:20]):.3f} at first, {np.mean(losses[-20:]):.3f} at last")
    print(f"mean distance from the true spiral over all of it: {np.linalg.norm(learnt - whole, axis=1).mean():.3f}")

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.6), constrained_layout=True)
    left.plot(*data.T, ".", color="0.7", markersize=3, label="data")
    left.plot(*whole.T, color="tab:blue", linewidth=1, label="true spiral")
    left.plot(*learnt.T, "--", color="tab:orange", label="learnt, from the first point")
    left.set(xlabel="u", ylabel="v", title="A spiral and what was learnt of it", aspect="equal")
    right.plot(losses, linewidth=0.7)
    right.set(xlabel="step of Adam", ylabel="mean error within windows", title="Training", ylim=(0.0, None))
    figure.legend(loc="outside lower left", ncols=3)
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    print("saved", path.name)


if __name__ == "__main__":
    main()
