"""All cases on the GPU, where there is one."""

import numpy as np
import pytest
from cases import (
    CASES,
    DIFFERENTIABLE,
    LONGER,
    assert_same,
    assert_same_gradient,
    gradient_record,
    lorenz,
    pulled,
    record,
    solved,
    tolerance_of,
)

from odec.codegen.cuda_driver import device
from odec.errors import ArgumentError
from odec.integrate import ensemble_cuda

try:
    GPU, reason = device(), ""
except ArgumentError as error:
    GPU, reason = None, str(error)

pytestmark = pytest.mark.skipif(GPU is None, reason=reason)


@pytest.mark.parametrize("name", [*CASES, *LONGER])
def test_the_gpu_computes_what_the_cpu_computes(name):
    case = (CASES | LONGER)[name]
    assert_same(record(solved(case, "cuda")), record(solved(case, "cpu")), tolerance_of(case))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_those_of_the_cpu(name):
    case = (CASES | LONGER)[name]
    found, wanted = (gradient_record(pulled(case, target)) for target in ("cuda", "cpu"))
    assert_same_gradient(found, wanted, tolerance_of(case))


def test_results_stay_on_the_gpu():
    found, brought = (solved(CASES["rows"], "cuda", on_device=flag) for flag in (True, False))
    assert "data" in found.ys.__cuda_array_interface__
    there = found.ys.get() if hasattr(found.ys, "get") else found.ys.copy_to_host()
    np.testing.assert_array_equal(there, brought.ys)


def test_many_members_take_several_launches_where_memory_is_short(monkeypatch):
    case = (lorenz, (0.0, 1.0), [1.0, 1.0, 1.0], {"rho": np.linspace(0, 21, 5000)}, "rho", {})
    whole = record(solved(case, "cuda"))
    monkeypatch.setattr(ensemble_cuda, "SHARE", 1e5 / GPU.free_bytes())
    parts = record(solved(case, "cuda"))
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value, name)
