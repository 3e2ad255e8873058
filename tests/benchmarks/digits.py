"""Digits by regularised neural ODEs: python tests/benchmarks/digits.py [training peer] [--peers PYTHON]

Cases: training (the seven nets of examples/18_digits.py, means over three seeds: recognised test images, evaluations of
the test solve at a tolerance of 1e-5 and of 1e-8, seconds of 10 epochs), peer (the seconds beside torchdiffeq's, which
--peers names a Python with). --quick takes one seed and one epoch.
"""

from __future__ import annotations

import json
import runpy
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from benchmark import command_line, row

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "18_digits.py"))
SEEN, OTHERS = slice(EXAMPLE["TRAINING"]), slice(EXAMPLE["TRAINING"], None)
SEEDS, EPOCHS = 3, EXAMPLE["EPOCHS"]


def training(arguments):
    images, labels = EXAMPLE["digits"]()
    plain = None
    for name, net in EXAMPLE["NETS"].items():
        rows = []
        for seed in range(1 if arguments.quick else SEEDS):
            epochs = 1 if arguments.quick else EPOCHS
            params, seconds = EXAMPLE["trained"](net, images[SEEN], labels[SEEN], epochs, seed)
            share, evaluations = EXAMPLE["judged"](params, images[OTHERS], labels[OTHERS])
            many = EXAMPLE["judged"](params, images[OTHERS], labels[OTHERS], 1e-8)[1]
            rows.append((100 * share, evaluations, many, seconds))
        share, evaluations, many, seconds = np.mean(rows, axis=0)
        plain = plain or (share, evaluations)
        row(name, "half of the evaluations, a point of accuracy",
            f"{share:.1f} % ({share - plain[0]:+.1f}), {evaluations:.0f} evaluations ({evaluations / plain[1]:.2f}), "
            f"{many:.0f} at 1e-8, {seconds:.1f} s")  # fmt: skip


def peer(arguments):
    """Seconds of the plain training, in turns with torchdiffeq's."""
    images, labels = EXAMPLE["digits"]()
    epochs = 1 if arguments.quick else EPOCHS
    with tempfile.TemporaryDirectory() as folder:
        first = EXAMPLE["first_parameters"](np.random.default_rng(0))
        np.savez(f"{folder}/digits.npz", images=images[SEEN], labels=labels[SEEN], **first)
        ours, theirs = [], []
        for _ in range(1 if arguments.quick else 3):
            ours.append(EXAMPLE["trained"](EXAMPLE["NETS"]["plain"], images[SEEN], labels[SEEN], epochs)[1])
            if arguments.peers:
                script = str(Path(__file__).with_name("peer_digits.py"))
                command = [arguments.peers, script, f"{folder}/digits.npz", str(epochs)]
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                theirs.append(json.loads(out)["seconds"])
    row(f"digits, {epochs} epochs of batches of 100", "2 min", f"{np.median(ours):.1f} s",
        f"torchdiffeq {np.median(theirs):.1f} s" if theirs else "")  # fmt: skip


if __name__ == "__main__":
    command_line({"training": training, "peer": peer})
