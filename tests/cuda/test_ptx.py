"""Kernels as PTX: every one is accepted by NVIDIA's assembler; nothing here needs a GPU."""

import re

import numpy as np
import pytest

import odec
from odec.codegen import cuda
from odec.codegen.cuda import CAPABILITIES, ptx, resources
from odec.errors import ArgumentError, CompileError

TARGETS = ((8, 0), (9, 0))


@odec.dynamics
def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]


@odec.dynamics
def everything(t, y, a):
    s = np.sin(y) * np.exp(-(y**2)) + np.power(np.abs(y) + 1, 1.5) + np.mod(t, 3.0) + np.arctan2(y, 2.0)
    return np.linalg.solve(a + np.outer(y, y), s) * np.linalg.det(a) + np.where(y > 0, np.maximum(y, 1.0), np.tanh(y))


@odec.dynamics
def network(t, z, w1, b1, w2):
    return np.tanh(z @ w1 + b1) @ w2


def systems(dtype):
    return {
        "lorenz": lorenz.bind(np.ones(3), dtype=dtype),
        "everything": everything.bind(np.ones(4), (np.eye(4),), dtype=dtype),
        "network": network.bind(np.ones((8, 3)), (np.ones((3, 5)), np.ones(5), np.ones((5, 3))), dtype=dtype),
    }


KERNELS = {
    "rhs": {}, "jvp": {}, "vjp": {}, "jacobian": {}, "divergence": {}, "taylor": {"order": 3},
    "step": {"method": "tsit5"}, "dense": {"method": "tsit5"},
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("model", ["lorenz", "everything", "network"])
def test_every_kernel_is_accepted_by_the_assembler(model, dtype):
    system = systems(dtype)[model]
    for kernel, how in KERNELS.items():
        if model == "network" and kernel in ("jacobian", "taylor"):
            continue  # long, and made of what the other two hold
        for cc in TARGETS:
            text = system.source(kernel, "ptx", cc=cc, **how)
            assert f".target sm_{cc[0]}{cc[1]}" in text
            assert 0 < resources(text, cc)[kernel].registers <= 255


def test_a_step_in_single_precision_computes_in_double_only_what_depends_on_time():
    text = lorenz.bind(np.ones(3), dtype="float32").source("step", "ptx", method="tsit5")
    assert set(re.findall(r"^\s+([a-z][\w.]*)\.f64", text, re.MULTILINE)) <= {"cvt.rn.f32", "cvt", "mul"}
    assert "fma.rn.f32" in text


def test_what_a_thread_takes_is_told():
    found = resources(lorenz.bind(np.ones(3)).source("step", "ptx", method="dopri5"), (9, 0))["step"]
    assert 40 < found.registers < 128
    assert (found.stack_bytes, found.spill_store_bytes, found.spill_load_bytes) == (0, 0, 0)


@pytest.mark.parametrize("cc", [(3, 5), "sm_90", 90, None])
def test_a_capability_that_is_none_is_refused(cc):
    with pytest.raises(ArgumentError, match=r"compute capability is needed, one of .*\(9, 0\)"):
        lorenz.bind(np.ones(3)).source("rhs", "ptx", cc=cc)


def test_every_capability_has_a_form():
    for cc in CAPABILITIES:
        assert f".target sm_{cc[0]}{cc[1]}" in lorenz.bind(np.ones(3)).source("rhs", "ptx", cc=cc)


def test_functions_that_cuda_lacks_are_named():
    text = "declare double @mystery(double)\ndefine void @k(ptr %p) {\n %x = load double, ptr %p\n" \
           " %y = call double @mystery(double %x)\n store double %y, ptr %p\n ret void\n}\n"  # fmt: skip
    with pytest.raises(CompileError, match="k: mystery has no form for CUDA"):
        ptx([text], (9, 0), ["k"])


def test_text_that_the_assembler_refuses_is_an_error():
    with pytest.raises(CompileError, match="ptxas refused generated PTX for sm_90"):
        resources(".version 7.8\n.target sm_90\n.address_size 64\nnonsense\n", (9, 0))


def test_without_nvidias_wheels_a_sentence_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda, "_roots", lambda: [tmp_path])
    monkeypatch.setenv("PATH", str(tmp_path))
    text = lorenz.bind(np.ones(3)).source("rhs", "ptx")  # no mathematical function, so no library is needed
    with pytest.raises(CompileError, match=r'ptxas, which is not here; install "odec\[cuda\]"'):
        resources(text, (9, 0))
    with pytest.raises(CompileError, match=r'libdevice.10.bc, which is not here; install "odec\[cuda\]"'):
        everything.bind(np.ones(4), (np.eye(4),)).source("rhs", "ptx")


def test_the_toolkit_of_the_environment_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ptxas").touch()
    assert cuda.ptxas() == tmp_path / "bin" / "ptxas"
