"""The readable Python of the kernels, run by Numba's CUDA simulator, against the CPU's ensembles."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import (
    CASES,
    PULLED,
    assert_same,
    assert_same_gradient,
    gradient_record,
    pulled,
    record,
    solved,
    tolerance_of,
)

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """{case: {name: array}} as the simulator leaves them, in a process that knows no GPU."""
    out = tmp_path_factory.mktemp("simulator") / "found.npz"
    command = [sys.executable, "-W", "ignore", str(HERE / "simulator.py"), str(out), *CASES]
    done = subprocess.run(command, env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {}
    with np.load(out) as arrays:
        for key in arrays:
            name, part = key.rsplit("/", 1)
            found.setdefault(name, {})[part] = arrays[key]
    return found


@pytest.mark.parametrize("name", list(CASES))
def test_the_simulator_computes_what_the_cpu_computes(simulated, name):
    assert_same(simulated[name], record(solved(CASES[name], "cpu")), tolerance_of(CASES[name]))


@pytest.mark.parametrize("name", PULLED)
def test_the_simulator_computes_the_gradients_of_the_cpu(simulated, name):
    wanted = gradient_record(pulled(CASES[name], "cpu"))
    assert_same_gradient(simulated[f"gradient of {name}"], wanted, tolerance_of(CASES[name]))
